// Package wasm runs modules. A module is a plain WASI program (docs/modules.md):
// what enters is its binary, what it is given and the requests of its calls,
// what leaves are responses and its log. Guests are hostile: all they can reach
// is in their GuestConfig, and their memory, time, output and files are bounded.
//
// There is one place that compiles (Host.Compile), one that instantiates
// (instantiate) and one that calls (session.call).
package wasm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/wasm/binary"
	"github.com/decant-project/decant/internal/wasm/codecache"
)

// Config is how a host runs guests.
type Config struct {
	// CacheDir keeps compiled code, and lets a child process do the compiling: the
	// program must call Compiler when it is started with CompilerCommand. "" keeps
	// nothing and compiles in this process, for tools whose modules are their own.
	CacheDir    string
	Version     string        // of the program: what another one has compiled, or failed to, is tried anew
	Interpreter bool          // run without a compiler
	Modules     []HostModule  // what guests may import besides WASI
	Limits      binary.Limits // of modules, where they are lower than binary.DefaultLimits
}

// CompilerCommand is the first argument of the program as a compiler, which has
// one more for Compiler.
const CompilerCommand = "compile-module"

// Compiler is what the program runs when it is started with CompilerCommand. It
// returns the status to exit with.
func Compiler(order string) int { return codecache.Child(compilerConfig(), order) }

func compilerConfig() wazero.RuntimeConfig { return wazero.NewRuntimeConfigCompiler() }

// self is how to start this program as a compiler.
func self() ([]string, error) {
	if len(os.Args) > 1 && os.Args[1] == CompilerCommand {
		return nil, errors.New("it was started as one and does not call Compiler")
	}
	if runtime.GOOS == "linux" {
		return []string{"/proc/self/exe", CompilerCommand}, nil // also after an update
	}
	path, err := os.Executable()
	return []string{path, CompilerCommand}, err
}

// HostModule adds a module that guests may import to r. What it keeps for each
// guest reaches it through GuestConfig.Context.
type HostModule func(ctx context.Context, r wazero.Runtime) error

// Host compiles modules and runs guests. It is safe for concurrent use.
type Host struct {
	runtime wazero.Runtime
	code    *codecache.Cache // nil where modules are compiled in this process
	engine  string
	limits  binary.Limits
}

// New makes a host.
func New(ctx context.Context, c Config) (*Host, error) {
	h := &Host{engine: "compiler", limits: binary.DefaultLimits.Tightened(c.Limits)}
	config := compilerConfig()
	switch {
	case c.Interpreter || !hasCompiler():
		h.engine, config = "interpreter", wazero.NewRuntimeConfigInterpreter()
		h.limits = binary.Interpreted.Tightened(c.Limits)
	case c.CacheDir != "":
		command, err := self()
		if err != nil {
			return nil, decant.Errorf(decant.Internal, "cannot find this program, to compile with: %w", err)
		}
		if h.code, err = codecache.Open(codecache.Config{Dir: c.CacheDir, Command: command, Version: c.Version}); err != nil {
			return nil, err
		}
		config = config.WithCompilationCache(h.code.Compilation())
	}
	h.runtime = wazero.NewRuntimeWithConfig(ctx, config)
	modules := append([]HostModule{instantiateYield, func(ctx context.Context, r wazero.Runtime) error {
		ctx = experimental.WithFunctionListenerFactory(ctx, experimental.FunctionListenerFactoryFunc(guard))
		_, err := wasi_snapshot_preview1.Instantiate(ctx, r)
		return err
	}}, c.Modules...)
	for _, add := range modules {
		if err := add(ctx, h.runtime); err != nil {
			return nil, errors.Join(decant.Errorf(decant.Internal, "cannot set up a host module: %w", err), h.Close())
		}
	}
	return h, nil
}

// bound is the most that a guest may give as a parameter of WASI's functions.
// wazero believes what it is given: it copies paths, keeps an event for each
// subscription and what was read of each folder, and its table of files reaches
// as far as the highest number.
type bound struct {
	most uint32
	says string
}

// bounds are those of parameters, by their names, and by that of the
// function where others have it too.
var bounds = map[string]bound{
	"to":                 {2 * maxOpen, "it gave a file the number %d: %d at most"},
	"nsubscriptions":     {4096, "it waits for %d things at a time: %d at most"},
	"fd_readdir.buf_len": {64 << 10, "it reads %d bytes of a folder at a time: %d at most"},
	"path_len":           {maxGiven, "it gave a path of %d bytes: %d at most"},
	"old_path_len":       {maxGiven, "it gave a path of %d bytes: %d at most"},
	"new_path_len":       {maxGiven, "it gave a path of %d bytes: %d at most"},
}

// maxGiven bounds the length of a path before it is looked at.
const maxGiven = 16 << 10

// guard ends a guest that gives WASI more than it may, or whose call has ended:
// it may call the host thousands of times before it yields.
func guard(f api.FunctionDefinition) experimental.FunctionListener {
	bounded := map[int]bound{}
	for i, name := range f.ParamNames() {
		if b := cmp.Or(bounds[f.Name()+"."+name], bounds[name]); b.most > 0 {
			bounded[i] = b
		}
	}
	return experimental.FunctionListenerFunc(func(ctx context.Context, _ api.Module, _ api.FunctionDefinition, params []uint64, _ experimental.StackIterator) {
		if s := ctx.Value(sessionKey{}).(*session); s.ended() != nil { //nolint:forcetypeassert // session.begin has put it there
			panic(s.cut)
		}
		for i, b := range bounded {
			if n := api.DecodeU32(params[i]); n > b.most && n != math.MaxUint32 { // -1 is refused by wazero
				panic(fmt.Errorf(b.says, n, b.most))
			}
		}
	})
}

// hasCompiler reports whether wazero compiles for this machine.
func hasCompiler() bool {
	switch runtime.GOARCH {
	case "amd64", "arm64":
		switch runtime.GOOS {
		case "linux", "darwin", "freebsd", "netbsd", "windows", "dragonfly", "solaris":
			return true
		}
	}
	return false
}

// Engine returns how guests run here: compiler or interpreter.
func (h *Host) Engine() string { return h.engine }

// Close frees the host; its guests are closed before.
func (h *Host) Close() error {
	ctx := context.Background()
	err := h.runtime.Close(ctx)
	if h.code != nil {
		err = errors.Join(err, h.code.Close())
	}
	return err
}

// compile compiles a module that was prepared.
func (h *Host) compile(ctx context.Context, prepared []byte) (wazero.CompiledModule, error) {
	if h.code != nil {
		return h.code.Compile(ctx, h.runtime, prepared)
	}
	compiled, err := h.runtime.CompileModule(ctx, prepared)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, decant.Errorf(decant.Invalid, "cannot compile the module (%d bytes): %s", len(prepared), firstLine(err)).
			WithHelp("it may be cut short, or use a proposal beyond WebAssembly 2.0")
	}
	if len(prepared) >= largeModule {
		debug.FreeOSMemory()
	}
	return compiled, nil
}

// largeModule is the size from which compiling leaves much memory behind.
const largeModule = 1 << 20

// Compile makes a module of a binary. Invalid: it is not WebAssembly, or
// damaged, or beyond the limits, or imports what this host does not offer.
func (h *Host) Compile(ctx context.Context, original []byte) (*Module, error) {
	prepared, err := binary.Prepare(original, h.limits)
	if err != nil {
		return nil, err
	}
	if err := h.check(prepared.Description); err != nil {
		return nil, err
	}
	compiled, err := h.compile(ctx, prepared.Binary)
	if err != nil {
		return nil, err
	}
	prepared.Binary = nil // it is not needed any more
	return &Module{host: h, compiled: compiled, prepared: prepared, digest: decant.DigestOf(original), shape: shapeOf(prepared.Description)}, nil
}

// offers reports whether something here serves an import.
func (h *Host) offers(i binary.Import) bool {
	m := h.runtime.Module(i.Module)
	return m != nil && i.Kind == "function" && m.ExportedFunctionDefinitions()[i.Name] != nil
}

// check refuses what this host cannot run: it names every import that nothing here
// serves. Invalid.
func (h *Host) check(d binary.Description) error {
	if len(d.Passed) > 0 {
		// Called by the host it would work on its own module, not on the guest: an
		// exit closes that for all.
		return decant.Errorf(decant.Invalid, "a function of the host is %s of the module", d.Passed[0])
	}
	var missing []string
	for _, i := range d.Imports {
		if !h.offers(i) {
			missing = append(missing, i.String())
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return decant.Errorf(decant.Invalid, "the module imports what this host does not offer: %s", list(missing)).
		WithHelp("build it for WASI preview 1 (wasm32-wasip1)")
}

// firstLine returns the first line of an error that goes on with a stack.
func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	const most = 500
	return line[:min(len(line), most)]
}
