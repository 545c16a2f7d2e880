// Command traveller takes a tally a step further: it goes on with the snapshot
// of standard input, adds a line to it, and writes the next snapshot to standard
// output. Tests run it on other processors.
//
//	traveller MODULE.wasm ENGINE LINE < SNAPSHOT > SNAPSHOT
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/wasinn"
	"github.com/decant-project/decant/internal/wasm"
	"github.com/decant-project/decant/internal/wasm/snapshot"
)

func main() {
	if err := travel(context.Background(), os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, "traveller:", err)
		os.Exit(1)
	}
}

func travel(ctx context.Context, file, engine, line string) (err error) {
	binary, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	limits := snapshot.Limits{Memory: decant.GiB, Files: decant.MiB, Extra: decant.MiB}
	before, _, err := wasm.Decode(os.Stdin, limits)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, before.Close()) }()
	dir, err := os.MkdirTemp("", "traveller-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	host, err := wasm.New(ctx, wasm.Config{Interpreter: engine == "interpreter", Modules: []wasm.HostModule{wasinn.Instantiate}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, host.Close()) }()
	if host.Engine() != engine {
		return fmt.Errorf("there is the %s only", host.Engine())
	}
	module, err := host.Compile(ctx, binary)
	if err != nil {
		return err
	}
	guest, err := host.Restore(ctx, module, wasm.GuestConfig{State: filepath.Join(dir, "state")}, before)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, guest.Close()) }()
	for _, c := range [][2]string{{"add", line}, {"save", ""}} {
		if _, err := guest.Call(ctx, c[0], []byte(c[1])); err != nil {
			return err
		}
	}
	after, err := guest.Capture(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, after.Close()) }()
	_, err = after.Encode(os.Stdout)
	return err
}
