package wasm

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/wasm/binary"
)

// Module is a compiled module. It is safe for concurrent use.
type Module struct {
	host     *Host
	compiled wazero.CompiledModule
	prepared *binary.Prepared // without its Binary
	digest   decant.Digest    // of the original
	closed   sync.Once
	shape
}

// shape is how a module can be called.
type shape struct {
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

// shapeOf finds the functions among the exports.
func shapeOf(d binary.Description) shape {
	_, start := d.Function(startFunction)
	_, reactor := d.Function(initializeFunction)
	if start && !reactor {
		return shape{command: true, functions: map[string]signature{startFunction: {streams: true}}}
	}
	functions := map[string]signature{}
	for _, e := range d.Exports {
		s := signature{params: e.Function.Params, results: e.Function.Results}
		s.streams = len(s.params) == 0 && (len(s.results) == 0 || len(s.results) == 1 && s.results[0] == api.ValueTypeI32)
		if e.Kind == "function" && isFunction(e.Name) && (s.streams || s.numeric()) {
			functions[e.Name] = s
		}
	}
	return shape{functions: functions}
}

// initializers are the exports to call, in order, before any other.
func (m *Module) initializers() []string {
	var names []string
	if m.prepared.Starts {
		names = append(names, binary.StartName)
	}
	if _, ok := m.prepared.Function(initializeFunction); ok && !m.command {
		names = append(names, initializeFunction)
	}
	return names
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
func (s shape) Functions() []string { return slices.Sorted(maps.Keys(s.functions)) }

// list names some things, in a line that can be shown.
func list(names []string) string {
	const most, longest = 10, 100
	var out []string
	for _, name := range names[:min(len(names), most)] {
		if name = name[:min(len(name), longest)]; strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }) {
			name = strconv.Quote(name)
		}
		out = append(out, name)
	}
	if more := len(names) - len(out); more > 0 {
		out = append(out, fmt.Sprintf("%d more", more))
	}
	return strings.Join(out, ", ")
}

// Command reports whether the module is a command: each call starts it anew.
func (s shape) Command() bool { return s.command }

// Function returns name if there is such a function; of "" the only one there
// is. NotFound and Invalid say which there are.
func (s shape) Function(name string) (string, error) {
	if _, ok := s.functions[name]; ok {
		return name, nil
	}
	have := list(s.Functions())
	switch {
	case len(s.functions) == 0:
		return "", decant.Errorf(decant.NotFound, "the module has no functions").WithHelp("see docs/modules.md for what a function is")
	case name == "" && len(s.functions) == 1:
		return s.Functions()[0], nil
	case name == "":
		return "", decant.Errorf(decant.Invalid, "the module has %d functions: name one of %s", len(s.functions), have)
	}
	return "", decant.Errorf(decant.NotFound, "the module has no function %q; it has %s", name, have)
}

// Close frees the module; its guests are closed before. The engine counts how
// often the code of a binary is closed: another module may have the same.
func (m *Module) Close() (err error) {
	m.closed.Do(func() { err = m.compiled.Close(context.Background()) })
	return err
}
