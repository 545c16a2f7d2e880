package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"github.com/decant-project/decant/cmd/internal/scripttest"
	"github.com/decant-project/decant/internal/wasm"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == wasm.CompilerCommand { // by whatever name it was started
		main()
	}
	testscript.Main(m, map[string]func(){"decant": main})
}

// TestScript runs the sessions of testdata. Each has a site's data folder of
// its own (site), the modules in modules, and decant-supervisor in its path.
func TestScript(t *testing.T) {
	shared := t.TempDir()
	build := sync.OnceValue(func() error { return buildAll(shared) })
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		Cmds:                scripttest.Commands(),
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			scripttest.Env(env)
			env.Setenv("DECANT_HOME", "site") // relative: a socket's path is short
			env.Setenv("XDG_CACHE_HOME", filepath.Join(shared, "cache"))
			env.Setenv("PATH", filepath.Join(shared, "bin")+string(filepath.ListSeparator)+env.Getenv("PATH"))
			if err := build(); err != nil {
				return err
			}
			return os.Symlink(filepath.Join(shared, "modules"), filepath.Join(env.WorkDir, "modules"))
		},
	})
}

// buildAll builds what scripts run: modules, and the program of devices.
func buildAll(dir string) error {
	modules := filepath.Join(dir, "modules")
	if err := os.MkdirAll(modules, 0o755); err != nil {
		return err
	}
	for name, bytes := range handMade {
		if err := os.WriteFile(filepath.Join(modules, name), []byte(bytes), 0o600); err != nil {
			return err
		}
	}
	toWasm := []string{"GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0"}
	for _, b := range []struct{ out, mode, source string }{
		{filepath.Join(modules, "shout.wasm"), "c-shared", "../../examples/shout"},
		{filepath.Join(modules, "counter.wasm"), "c-shared", "../../examples/counter"},
		{filepath.Join(modules, "command.wasm"), "default", "../../internal/wasm/testdata/command"},
		{filepath.Join(dir, "bin", "decant-supervisor"), "", "../decant-supervisor"},
	} {
		cmd := exec.Command("go", "build", "-ldflags=-s -w", "-o", b.out)
		cmd.Env = append(os.Environ(), "GOFLAGS=")
		if b.mode != "" {
			cmd.Args = append(cmd.Args, "-buildmode="+b.mode)
			cmd.Env = append(cmd.Env, toWasm...)
		}
		cmd.Args = append(cmd.Args, b.source)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("cannot build %s: %w: %s", b.source, err, out)
		}
	}
	return nil
}

// handMade are modules of a few bytes: quick to compile, and as no compiler
// would make them.
var handMade = map[string]string{
	// add is (i32, i32) -> i32; grow asks for 1000 pages, and traps if it does
	// not get them; spin never ends.
	"kit.wasm": wasmModule(
		section(1, "\x02", "\x60\x02\x7f\x7f\x01\x7f", "\x60\x00\x00"), // types
		section(3, "\x03", "\x00\x01\x01"),                             // functions
		section(5, "\x01", "\x00\x01"),                                 // a memory of one page
		section(7, "\x03", export("add", 0), export("grow", 1), export("spin", 2)),
		section(10, "\x03",
			code("\x20\x00\x20\x01\x6a"),                             // local.get 0, local.get 1, i32.add
			code("\x41\xe8\x07\x40\x00\x41\x7f\x46\x04\x40\x00\x0b"), // memory.grow(1000) == -1: unreachable
			code("\x03\x40\x0c\x00\x0b")),                            // loop, br 0
	),
	// foreign imports two functions of a host that is not decant.
	"foreign.wasm": wasmModule(
		section(1, "\x01", "\x60\x00\x00"),
		section(2, "\x02", imported("env", "wait"), imported("host", "secret")),
	),
	// large has a memory of 100 pages from its start, and does nothing.
	"large.wasm": wasmModule(
		section(1, "\x01", "\x60\x00\x00"),
		section(3, "\x01", "\x00"),
		section(5, "\x01", "\x00\x64"),
		section(7, "\x01", export("idle", 0)),
		section(10, "\x01", code("")),
	),
	"text.wasm":  "#!/bin/sh\n",
	"empty.wasm": "",
}

func wasmModule(sections ...string) string {
	return "\x00asm\x01\x00\x00\x00" + strings.Join(sections, "")
}

// sized is content with its length before it.
func sized(content string) string { return string(rune(len(content))) + content }

func section(id rune, content ...string) string { return string(id) + sized(strings.Join(content, "")) }

func export(name string, function rune) string { return sized(name) + "\x00" + string(function) }

func imported(module, name string) string { return sized(module) + sized(name) + "\x00\x00" }

func code(instructions string) string { return sized("\x00" + instructions + "\x0b") }

// TestHelp: each command says what it does, and one that takes arguments shows
// by examples how, which are commands that there are.
func TestHelp(t *testing.T) {
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
		if cmd.Short == "" {
			t.Errorf("%s does not say what it does", cmd.CommandPath())
		}
		if _, arguments, _ := strings.Cut(cmd.Use, " "); arguments != "" && cmd.Example == "" {
			t.Errorf("%s takes arguments, but has no example", cmd.CommandPath())
		}
		for line := range strings.Lines(cmd.Example) {
			checkExample(t, cmd, line)
		}
	}
	walk(rootCommand())
}

// checkExample parses the part of an example that is a command of decant.
func checkExample(t *testing.T, cmd *cobra.Command, line string) {
	_, words, ok := strings.Cut(" "+line, " decant ")
	if !ok {
		if _, words, ok = strings.Cut(line, "$(decant "); !ok {
			t.Errorf("%s: the example %q is no command of decant", cmd.CommandPath(), line)
			return
		}
	}
	words, _, _ = strings.Cut(words, "<")
	args := strings.Fields(strings.TrimSuffix(strings.TrimSpace(words), ")"))
	found, args, err := rootCommand().Traverse(args)
	if err == nil {
		err = found.ParseFlags(args)
	}
	if err == nil {
		err = found.ValidateArgs(found.Flags().Args())
	}
	if err != nil || found.CommandPath() != cmd.CommandPath() {
		t.Errorf("%s: the example %q is %s: %v", cmd.CommandPath(), strings.TrimSpace(line), found.CommandPath(), err)
	}
}
