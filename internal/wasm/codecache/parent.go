package codecache

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/decant-project/decant"
)

// runChild compiles a binary into the folder work. An error is one that says
// nothing about the module.
func (c *Cache) runChild(ctx context.Context, work string, binary []byte) (record, error) {
	end, err := startChild(ctx, c.config, work, binary)
	if ctx.Err() != nil {
		return record{}, ctx.Err()
	}
	if err != nil {
		return record{}, decant.Errorf(decant.Internal, "cannot start the compiler: %w", err)
	}
	r := record{Version: c.config.Version, Limits: c.config.Limits}
	if r.Failure, err = end.judge(c.config.Limits, len(binary)); r.Failure != nil || err != nil {
		return r, err
	}
	r.Code, err = findCode(work)
	return r, err
}

// ending is how a child ended.
type ending struct {
	status   int           // -1: it was killed
	late     bool          // it was killed because its time on the clock was over
	cpu      time.Duration // what it took
	out, log string        // the beginnings of standard output and error
}

// startChild runs a child to its end. Its processor time, memory and code it
// limits itself; what is on the clock is for us.
func startChild(ctx context.Context, c Config, work string, binary []byte) (ending, error) {
	ctx, cancel := context.WithTimeout(ctx, c.Limits.Wall)
	defer cancel()
	order, err := json.Marshal(c.Limits)
	if err != nil {
		return ending{}, err
	}
	var out, log head
	child := exec.CommandContext(ctx, c.Command[0], slices.Concat(c.Command[1:], []string{string(order)})...)
	child.Dir, child.Env = work, []string{"GOTRACEBACK=none"}
	child.Stdin, child.Stdout, child.Stderr = bytes.NewReader(binary), &out, &log
	child.SysProcAttr = childAttributes()
	// The child dies with the thread that started it, so that one has to stay.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err = child.Run()
	if child.ProcessState == nil {
		return ending{}, err
	}
	return ending{
		status: child.ProcessState.ExitCode(),
		late:   ctx.Err() != nil,
		cpu:    child.ProcessState.UserTime() + child.ProcessState.SystemTime(),
		out:    string(out), log: string(log),
	}, nil
}

// judge returns what is wrong with a module, if that is why its compiler ended,
// and otherwise what is wrong here.
func (e ending) judge(l Limits, size int) (failure *decant.Error, err error) {
	said, ok := strings.CutPrefix(e.out, begun)
	said = plainLine(said)
	if !ok && e.status != -1 {
		return nil, decant.Errorf(decant.Internal, "the compiler did not start: status %d: %s %s", e.status, said, plainLine(e.log))
	}
	invalid := func(help, format string, args ...any) (*decant.Error, error) {
		args = append([]any{size}, args...)
		return decant.Errorf(decant.Invalid, "cannot compile the module (%d bytes): "+format, args...).WithHelp("%s", help), nil
	}
	const tooLarge = "make the module or its largest functions smaller"
	switch {
	case e.status == exitDone:
		return nil, nil
	case e.status == exitRefused:
		return invalid("it may be cut short, or use a proposal beyond WebAssembly 2.0", "%s", said)
	case e.status == exitCode:
		return invalid(tooLarge, "it has more than %d MiB of machine code", l.Code>>20)
	case e.status == exitWrite:
		return nil, cannotKeep(errors.New(said))
	case e.status == exitMemory || e.outOfMemory():
		return invalid(tooLarge, "that takes more than %d MiB of memory", l.Memory>>20)
	case e.status == -1 && e.late:
		return invalid(tooLarge, "that takes longer than %s", l.Wall)
	case e.status == -1 && e.cpu >= l.CPU/10*9: // as the system counts
		return invalid(tooLarge, "that takes more than %s of processor time", l.CPU)
	case e.status == -1:
		return nil, decant.Errorf(decant.Exhausted, "the compiler of a module was killed").
			WithHelp("try again: the machine may be short of memory")
	case strings.Contains(e.log, "new OS thread"):
		return nil, decant.Errorf(decant.Exhausted, "the compiler of a module got no thread").
			WithHelp("let the program have more processes (ulimit -u, TasksMax)")
	}
	return invalid("report this, with the module", "the compiler broke down: %s", plainLine(e.log))
}

// outOfMemory reports whether Go's runtime ended the child for want of memory.
func (e ending) outOfMemory() bool {
	return strings.Contains(e.log, "out of memory") || strings.Contains(e.log, "cannot allocate memory")
}

// findCode returns the one file of code in the folder of a child.
func findCode(work string) (*code, error) {
	found, err := filepath.Glob(filepath.Join(work, codePrefix+"*", "*"))
	if err != nil || len(found) != 1 {
		return nil, decant.Errorf(decant.Unsupported, "the compiler made no machine code").
			WithHelp("this machine has none: run modules in the interpreter")
	}
	path, err := filepath.Rel(work, found[0])
	if err != nil {
		return nil, err
	}
	made, err := measure(work, path)
	if err != nil {
		return nil, err
	}
	return &made, nil
}

// head keeps the beginning of what is written to it.
type head []byte

const headSize = 4096

func (h *head) Write(p []byte) (int, error) {
	*h = append(*h, p[:min(len(p), headSize-len(*h))]...)
	return len(p), nil
}
