// Command decant-supervisor is the device program: it runs what the site's
// orchestrator wants this device to run.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/identity"
	"github.com/decant-project/decant/internal/nn/onnxruntime"
	"github.com/decant-project/decant/internal/supervisor"
	"github.com/decant-project/decant/internal/wasm"
)

// version is set when a release is built.
var version = "dev"

const usage = `decant-supervisor runs on a device what its site's orchestrator wants there.

Usage:
  decant-supervisor [flags]

Example:
  decant-supervisor --config device.yaml --join CODE    # CODE from: decant join-code
  decant-supervisor --config device.yaml                # then: decant device approve NAME

Flags:
  --config FILE             the device's name, labels and peripherals (default device.yaml, if it is there)
  --data DIR                what outlives the process (default %s)
  --join CODE               join a site with this code, at the first start
  --orchestrator HOST:PORT  an orchestrator that discovery does not find; may be repeated
  --log-level LEVEL         debug, info, warn or error (default info)
  --version                 print the version
`

// flags are what the command line says.
type flags struct {
	config        string
	data          string
	join          string
	orchestrators []string
	level         slog.Level
	version       bool
}

func main() {
	if len(os.Args) == 3 { // the program starts itself for what might take it down
		switch os.Args[1] {
		case probeCommand:
			os.Exit(probe(os.Args[2]))
		case wasm.CompilerCommand:
			os.Exit(wasm.Compiler(os.Args[2]))
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
	case errors.Is(err, decant.Invalid):
		fmt.Fprintln(os.Stderr, "decant-supervisor:", err)
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "decant-supervisor:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	f, err := parse(args)
	if err != nil {
		return err
	}
	if f.version {
		fmt.Fprintln(os.Stdout, "decant-supervisor", version)
		return nil
	}
	config, err := supervisor.ReadConfig(f.config)
	if err != nil {
		return err
	}
	if f.join != "" {
		if _, err := identity.ParseCode(f.join); err != nil {
			return err
		}
	}
	config.Orchestrators = append(config.Orchestrators, f.orchestrators...)
	if err := config.Check(); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: f.level}))
	p, err := open(ctx, config, f.data, log)
	if err != nil {
		return err
	}
	err = p.run(ctx, f.join)
	if errors.Is(err, supervisor.ErrStuck) {
		return err
	}
	return errors.Join(err, p.close())
}

func parse(args []string) (flags, error) {
	f := flags{data: defaultData()}
	set := flag.NewFlagSet("decant-supervisor", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	set.StringVar(&f.config, "config", "", "")
	set.StringVar(&f.data, "data", f.data, "")
	set.StringVar(&f.join, "join", "", "")
	set.Func("orchestrator", "", func(s string) error {
		f.orchestrators = append(f.orchestrators, s)
		return nil
	})
	set.Func("log-level", "", func(s string) error {
		if f.level.UnmarshalText([]byte(s)) != nil {
			return errors.New("use debug, info, warn or error")
		}
		return nil
	})
	set.BoolVar(&f.version, "version", false, "")
	err := set.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintf(os.Stdout, usage, defaultData())
		return f, err
	case err != nil:
		return f, decant.Errorf(decant.Invalid, "%s", strings.ReplaceAll(err.Error(), " -", " --")).WithHelp("see decant-supervisor --help")
	case set.NArg() > 0:
		return f, decant.Errorf(decant.Invalid, "%q: there are no arguments besides flags", set.Arg(0)).WithHelp("see decant-supervisor --help")
	}
	return f, nil
}

// defaultData is where the data of a user's program belongs.
func defaultData() string {
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "decant-supervisor")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "decant-supervisor-data"
	}
	return filepath.Join(home, ".local", "state", "decant-supervisor")
}

// probeCommand tries in a process of its own whether ONNX Runtime loads, so that
// a bad library cannot take the device down.
const probeCommand = "probe-onnxruntime"

func probe(path string) int {
	v, err := onnxruntime.Version(path)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Fprintln(os.Stdout, v)
	return 0
}
