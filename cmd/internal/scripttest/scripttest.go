// Package scripttest holds what the script tests of the programs share. A
// script reads like a session at a shell; what a session cannot say, and a test
// must, are the commands here.
package scripttest

import (
	"encoding/json"
	"errors"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// Commands are the commands of scripts besides those of testscript.
func Commands() map[string]func(*testscript.TestScript, bool, []string) {
	return map[string]func(*testscript.TestScript, bool, []string){
		"fails":     fails,
		"until":     until,
		"json":      isJSON,
		"terminate": terminate,
	}
}

// Env is what programs of a script find in their environment, besides what
// testscript gives them.
func Env(env *testscript.Env) {
	env.Setenv("GORACE", "atexit_sleep_ms=0") // each process would wait a second
}

// errorLine is how a program says why it failed.
var errorLine = regexp.MustCompile(`^decant(-supervisor)?: \S`)

// fails STATUS PROGRAM ARG... runs a program that must fail with an exit
// status, write nothing to standard output, and say why in the last line of
// standard error, which is the only one of its kind.
func fails(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: fails STATUS PROGRAM ARG...")
	}
	status, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || exit.ExitCode() != status {
		ts.Fatalf("ended with %v, want exit status %d", err, status)
	}
	if out := ts.ReadFile("stdout"); out != "" {
		ts.Fatalf("failed, but wrote to standard output: %q", out)
	}
	lines := strings.Split(strings.TrimSuffix(ts.ReadFile("stderr"), "\n"), "\n")
	for i, line := range lines {
		if isLast := i == len(lines)-1; errorLine.MatchString(line) != isLast {
			ts.Fatalf("line %d of %d on standard error: %q; want one line \"decant: why\", the last", i+1, len(lines), line)
		}
	}
}

// patience is how long until waits for what must happen.
const patience = 30 * time.Second

// until PATTERN PROGRAM ARG... runs a program again and again until it succeeds
// and its standard output matches.
func until(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until PATTERN PROGRAM ARG...")
	}
	pattern, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	tooLate := time.After(patience)
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		if ts.Exec(args[1], args[2:]...) == nil && pattern.MatchString(ts.ReadFile("stdout")) {
			return
		}
		select {
		case <-tooLate:
			ts.Fatalf("no match for %q after %s", args[0], patience)
		case <-time.After(pause):
		}
	}
}

// isJSON is the command json: standard output must be one JSON document.
func isJSON(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: json")
	}
	if out := ts.ReadFile("stdout"); !json.Valid([]byte(out)) {
		ts.Fatalf("standard output is not JSON: %q", out)
	}
}

// terminate sends SIGTERM to what runs in the background; wait waits for it.
func terminate(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: terminate")
	}
	for _, cmd := range ts.BackgroundCmds() {
		ts.Check(cmd.Process.Signal(syscall.SIGTERM))
	}
}
