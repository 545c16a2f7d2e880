// Demo runs an example of this project as a person would: an orchestrator and
// the example's devices, each a process with a folder of its own, which find
// each other by mDNS and join by a code; then it deploys the application, shows
// what the screen shows, and says in the end whether that was right.
//
//	go run ./e2e/demo [-keep] speech|vision
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/decant-project/decant"
)

func main() { os.Exit(play()) }

// play returns the exit status.
func play() int {
	keep := flag.Bool("keep", false, "leave all running in the end")
	timeout := flag.Duration("timeout", 10*time.Minute, "longest time for the whole demo")
	flag.Parse()
	a, ok := acts[flag.Arg(0)]
	if !ok || flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: go run ./e2e/demo [-keep] speech|vision")
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	limited, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()
	err := run(limited, os.Stdout, a, *keep)
	switch {
	case err == nil:
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "demo: stopped")
		return 130
	default:
		fmt.Fprintln(os.Stderr, "demo:", err)
		return 1
	}
	return 0
}

// act is an example with what makes it a demo.
type act struct {
	folder string
	// last is the component whose trigger ends the demo; screen the device
	// whose screen is shown.
	last, screen string
	// judge writes a summary, and says what is wrong with what the screen shows.
	judge func(s *site, d decant.Deployment, screen []string) error
}

var acts = map[string]act{
	"speech": {folder: "examples/speech", last: "ear", screen: "wall-screen", judge: judgeSpeech},
	"vision": {folder: "examples/vision", last: "classifier", screen: "wall-screen", judge: judgeVision},
}

// run plays an act. What it started ends with it, unless keep is set and all went well.
func run(ctx context.Context, out io.Writer, a act, keep bool) (err error) {
	s, err := open(out, a.folder, keep)
	if err != nil {
		return err
	}
	defer func() {
		if keep && err == nil {
			s.lookAround()
			return
		}
		err = errors.Join(err, s.close(err == nil || errors.Is(ctx.Err(), context.Canceled)))
	}()
	if err := s.start(ctx); err != nil {
		return err
	}
	if err := s.deploy(ctx); err != nil {
		return err
	}
	d, screen, err := s.watch(ctx, a)
	if err != nil {
		return err
	}
	s.step("summary")
	if err := a.judge(s, d, screen); err != nil {
		return err
	}
	s.places(d)
	return nil
}
