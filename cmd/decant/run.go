package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/nn"
	"github.com/decant-project/decant/internal/nn/onnxruntime"
	"github.com/decant-project/decant/internal/peripheral"
	"github.com/decant-project/decant/internal/supervisor"
	"github.com/decant-project/decant/internal/supervisor/guesthost"
	"github.com/decant-project/decant/internal/wasm"
)

type runFlags struct {
	timeout     time.Duration
	memory      string
	models      []string
	peripherals []string
	state       string
	ort         string
	interpreter bool
}

func runCommand() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run MODULE.wasm [FUNCTION]",
		Short: "Run a module alone: standard input to standard output",
		Long: `Run a function of a module with standard input as its request, and write its
response to standard output, as a device would, without one. The exit status is
not 0 if it fails.`,
		Example: `  echo hello | decant run shout.wasm
  decant run --timeout 5s classify.wasm classify < photo.jpg
  decant run --model vad=silero_vad_v5.onnx detector.wasm detect < frames.wav`,
		Args: usage(cobra.RangeArgs(1, 2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withFlags(runModule(cmd, f, args[0], append(args, "")[1]), f)
		},
	}
	cmd.Flags().DurationVar(&f.timeout, "timeout", 0, "longest run; 0 is as long as it takes")
	cmd.Flags().StringVar(&f.memory, "memory", "1GiB", "most memory the module may take")
	cmd.Flags().StringArrayVar(&f.models, "model", nil, "NAME=FILE: a model the module loads; files beside it show under /models/NAME")
	cmd.Flags().StringArrayVar(&f.peripherals, "peripheral", nil, "NAME=PATH: a file, or a pattern of files, shown as /dev/NAME")
	cmd.Flags().StringVar(&f.state, "state", "", "folder shown as /state")
	cmd.Flags().StringVar(&f.ort, "onnxruntime", "", "the ONNX Runtime library (default: beside decant, else the system's)")
	cmd.Flags().BoolVar(&f.interpreter, "interpreter", false, "run without the compiler")
	return cmd
}

// withFlags makes an error about a limit say which flag sets it.
func withFlags(err error, f runFlags) error {
	e, ok := errors.AsType[*decant.Error](err)
	switch {
	case !ok:
	case e.Code == decant.Deadline && f.timeout > 0:
		return e.WithHelp("it had %s: raise --timeout", f.timeout)
	case e.Code == decant.Exhausted && strings.Contains(e.Help, "needs.memory"):
		return e.WithHelp("raise --memory")
	}
	return err
}

func runModule(cmd *cobra.Command, f runFlags, file, function string) (err error) {
	ctx := cmd.Context()
	binary, err := os.ReadFile(file)
	if err != nil {
		return decant.Errorf(decant.NotFound, "cannot read the module: %w", err)
	}
	cache, _ := os.UserCacheDir()
	if cache != "" {
		cache = filepath.Join(cache, "decant", "compiled")
	}
	host, err := guesthost.New(ctx, wasm.Config{CacheDir: cache, Version: version, Interpreter: f.interpreter})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, host.Close()) }()
	module, err := host.Compile(ctx, binary)
	if err != nil {
		return decant.Errorf(decant.CodeOf(err), "%s: %w", file, err)
	}
	config := supervisor.GuestConfig{Name: filepath.Base(file), Log: cmd.ErrOrStderr(), State: f.state}
	if config.Memory, err = decant.ParseBytes(f.memory); err != nil {
		return err
	}
	closeModels, err := bindModels(ctx, f, &config)
	defer closeModels()
	if err != nil {
		return err
	}
	if err := bindPeripherals(f, &config); err != nil {
		return err
	}
	request, err := readRequest(cmd.InOrStdin())
	if err != nil {
		return err
	}
	if f.timeout > 0 { // the module's own time: neither its compiler's nor standard input's
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, f.timeout)
		defer cancel()
	}
	guest, err := module.Start(ctx, config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, guest.Close()) }()
	response, err := guest.Call(ctx, function, request)
	if err != nil {
		return err
	}
	_, err = cmd.OutOrStdout().Write(response)
	return err
}

// bindModels loads the models that the flags name.
func bindModels(ctx context.Context, f runFlags, config *supervisor.GuestConfig) (closeAll func(), err error) {
	var opened []io.Closer
	closeAll = func() {
		for i := len(opened) - 1; i >= 0; i-- {
			_ = opened[i].Close()
		}
	}
	var backend nn.Backend
	load := func(ctx context.Context, data []byte) (nn.Model, error) {
		if backend == nil {
			path, ok := f.ort, f.ort != ""
			if !ok {
				path, ok = onnxruntime.Find()
			}
			if !ok {
				return nil, decant.Errorf(decant.Unsupported, "no ONNX Runtime library was found").WithHelp("name it with --onnxruntime, or run `make fetch-ort`")
			}
			if backend, err = onnxruntime.New(path); err != nil {
				backend = nil
				return nil, err
			}
			opened = append(opened, backend)
		}
		return backend.Load(ctx, data)
	}
	config.LoadModel = load
	config.Models = map[string]supervisor.GuestModel{}
	for _, pair := range f.models {
		name, file, err := cutPair("--model", pair)
		if err != nil {
			return closeAll, err
		}
		data, err := os.ReadFile(file)
		if err != nil {
			return closeAll, decant.Errorf(decant.NotFound, "cannot read the model: %w", err)
		}
		m, err := load(ctx, data)
		if err != nil {
			return closeAll, decant.Errorf(decant.CodeOf(err), "%s: %w", file, err)
		}
		opened = append(opened, m)
		config.Models[name] = supervisor.GuestModel{Model: m, Files: filesBeside(file)}
	}
	return closeAll, nil
}

// filesBeside returns the files of a model's folder by name.
func filesBeside(file string) map[string]string {
	dir := filepath.Dir(file)
	files := map[string]string{}
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.Type().IsRegular() {
			files[e.Name()] = filepath.Join(dir, e.Name())
		}
	}
	return files
}

func bindPeripherals(f runFlags, config *supervisor.GuestConfig) error {
	config.Devices = map[string]peripheral.Peripheral{}
	for _, pair := range f.peripherals {
		name, path, err := cutPair("--peripheral", pair)
		if err != nil {
			return err
		}
		c := peripheral.Config{Name: name, Type: name, Driver: "file", Path: path}
		if err := c.Check(); err != nil {
			return err
		}
		if config.Devices[name], err = peripheral.Open(".", c); err != nil {
			return err
		}
	}
	return nil
}

func cutPair(flag, pair string) (name, value string, err error) {
	name, value, ok := strings.Cut(pair, "=")
	if !ok || value == "" {
		return "", "", decant.Errorf(decant.Invalid, "%s %q: write it as NAME=PATH", flag, pair)
	}
	return name, value, decant.CheckName(strings.TrimPrefix(flag, "--"), name)
}
