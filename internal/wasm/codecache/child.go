package codecache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"
	"syscall"
	"unicode"

	"github.com/tetratelabs/wazero"
)

// How a child ends. What else it ends with says that its compiler broke down.
const (
	exitDone    = 0
	exitRefused = 10 + iota // the module is not valid
	exitMemory
	exitCode  // too much of it
	exitWrite // the code cannot be written
	exitOrder // the child was not started as it should
)

// begun is the first line of a child that has its limits: what happens from then
// on is the module's doing.
const begun = "compiling\n"

// Child is what a Config's Command runs, with the argument that was added to it.
// It takes on its limits before it reads the module from standard input, compiles
// it into the current folder, writes a line about what went wrong to standard
// output and returns the status to exit with. Config is that of the runtimes that
// load the code.
func Child(config wazero.RuntimeConfig, order string) (status int) {
	var limits Limits
	err := json.Unmarshal([]byte(order), &limits)
	if err == nil {
		err = confine(limits)
	}
	if err != nil {
		fmt.Fprintln(os.Stdout, plainLine(err.Error()))
		return exitOrder
	}
	debug.SetMemoryLimit(limits.Memory / 8 * 7) // collect garbage rather than die
	fmt.Fprint(os.Stdout, begun)
	if err = compileHere(config); err != nil {
		fmt.Fprintln(os.Stdout, plainLine(err.Error()))
	}
	return statusOf(err)
}

// compileHere compiles the module of standard input into the current folder.
func compileHere(config wazero.RuntimeConfig) error {
	binary, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	cache, err := wazero.NewCompilationCacheWithDir(".")
	if err != nil {
		return err
	}
	ctx := context.Background()
	_, err = wazero.NewRuntimeWithConfig(ctx, config.WithCompilationCache(cache)).CompileModule(ctx, binary)
	return err
}

// statusOf returns the status of an error: one that the system gave is not of the
// module.
func statusOf(err error) int {
	var errno syscall.Errno
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, syscall.EFBIG):
		return exitCode
	case errors.Is(err, syscall.ENOMEM):
		return exitMemory
	case errors.As(err, &errno):
		return exitWrite
	}
	return exitRefused
}

// plainLine returns the first line of a text, 500 bytes at most, without what a
// terminal might act on: it quotes the module.
func plainLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	const most = 500
	line = strings.ToValidUTF8(line[:min(len(line), most)], "")
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, line)
}
