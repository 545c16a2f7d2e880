// Command decant is the site's orchestrator (decant up) and the command line
// of its users (all else).
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/wasm"
)

// version is set when a release is built.
var version = "dev"

func main() {
	if len(os.Args) == 3 && os.Args[1] == wasm.CompilerCommand { // the program starts itself for what might take it down
		os.Exit(wasm.Compiler(os.Args[2]))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// Exit statuses, for scripts.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
	exitSignal = 130
)

func run(ctx context.Context, args []string) int {
	cmd := rootCommand()
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(ctx)
	switch {
	case err == nil:
		return exitOK
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "decant: stopped")
		return exitSignal
	}
	fmt.Fprintln(os.Stderr, shown("decant: "+err.Error()))
	if errors.Is(err, decant.Invalid) {
		return exitUsage
	}
	return exitFailed
}
