package fetch

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"strings"
	"time"

	"github.com/decant-project/decant"
)

// run runs a program of the machine in dir. Its error has the last line that
// the program wrote.
func run(ctx context.Context, dir, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, program, args...)
	var said tail
	cmd.Dir, cmd.Stderr = dir, &said
	cmd.WaitDelay = 5 * time.Second // for children that keep its output open
	err := cmd.Run()
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return decant.Errorf(decant.Deadline, "%s did not end in time", program)
	case errors.Is(err, exec.ErrNotFound):
		return missing(program, err)
	}
	return decant.Errorf(decant.Unavailable, "%s failed: %w: %s", program, err, said.line())
}

func missing(program string, err error) error {
	return decant.Errorf(decant.NotFound, "cannot run %s: %w", program, err)
}

// tail keeps the last of what is written to it.
type tail struct{ kept []byte }

const maxTail = 4096

func (t *tail) Write(p []byte) (int, error) {
	t.kept = append(t.kept, p...)
	t.kept = t.kept[max(0, len(t.kept)-maxTail):]
	return len(p), nil
}

// line returns the last line that is not empty.
func (t *tail) line() string {
	lines := bytes.Split(bytes.TrimSpace(t.kept), []byte("\n"))
	return strings.TrimSpace(string(lines[len(lines)-1]))
}
