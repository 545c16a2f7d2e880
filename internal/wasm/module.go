package wasm

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/decant-project/decant"
)

// Module is a compiled module. It is safe for concurrent use.
type Module struct {
	host      *Host
	compiled  wazero.CompiledModule
	command   bool
	functions map[string]signature
}

// signature is how a function is called.
type signature struct {
	params, results []api.ValueType
	streams         bool // standard input to standard output; else JSON to JSON
}

const (
	startFunction      = "_start"
	initializeFunction = "_initialize"
)

// inspect finds the functions among the exports.
func (m *Module) inspect() {
	exports := m.compiled.ExportedFunctions()
	_, m.command = exports[startFunction]
	if _, reactor := exports[initializeFunction]; reactor {
		m.command = false
	}
	m.functions = map[string]signature{}
	if m.command {
		m.functions[startFunction] = signature{streams: true}
		return
	}
	for name, f := range exports {
		s := signature{params: f.ParamTypes(), results: f.ResultTypes()}
		s.streams = len(s.params) == 0 && (len(s.results) == 0 || len(s.results) == 1 && s.results[0] == api.ValueTypeI32)
		if isFunction(name) && (s.streams || s.numeric()) {
			m.functions[name] = s
		}
	}
}

// isFunction reports whether an export is one that its author meant to be
// called, and not one that a toolchain put there.
func isFunction(name string) bool {
	switch name {
	case "malloc", "calloc", "realloc", "free":
		return false
	}
	return !strings.HasPrefix(name, "_") && !strings.HasPrefix(name, "asyncify_")
}

func (s signature) numeric() bool {
	isNumber := func(t api.ValueType) bool {
		return t == api.ValueTypeI32 || t == api.ValueTypeI64 || t == api.ValueTypeF32 || t == api.ValueTypeF64
	}
	all := slices.Concat(s.params, s.results)
	return len(all) > 0 && !slices.ContainsFunc(all, func(t api.ValueType) bool { return !isNumber(t) })
}

// String returns the signature as text: (i32, f64) -> i64.
func (s signature) String() string {
	names := func(types []api.ValueType) string {
		var out []string
		for _, t := range types {
			out = append(out, api.ValueTypeName(t))
		}
		return strings.Join(out, ", ")
	}
	return "(" + names(s.params) + ") -> (" + names(s.results) + ")"
}

// Functions returns the names of the functions, sorted. A command has one,
// _start.
func (m *Module) Functions() []string { return slices.Sorted(maps.Keys(m.functions)) }

// Command reports whether the module is a command: each call starts it anew.
func (m *Module) Command() bool { return m.command }

// Function returns name if there is such a function; of "" the only one there
// is. NotFound and Invalid say which there are.
func (m *Module) Function(name string) (string, error) {
	if _, ok := m.functions[name]; ok {
		return name, nil
	}
	have := strings.Join(m.Functions(), ", ")
	switch {
	case len(m.functions) == 0:
		return "", decant.Errorf(decant.NotFound, "the module has no functions").WithHelp("see docs/modules.md for what a function is")
	case name == "" && len(m.functions) == 1:
		return m.Functions()[0], nil
	case name == "":
		return "", decant.Errorf(decant.Invalid, "the module has %d functions: name one of %s", len(m.functions), have)
	}
	return "", decant.Errorf(decant.NotFound, "the module has no function %q; it has %s", name, have)
}

// Close frees the module; its guests are closed before.
func (m *Module) Close() error { return m.compiled.Close(context.Background()) }
