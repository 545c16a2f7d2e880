package binary

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// errExhausted ends a guest whose stack is used up.
var errExhausted = errors.New("call stack exhausted")

// engine is a way to run modules, and the bytes of stack that a guest may have
// there, by its meter: the interpreter holds 2000 calls.
type engine struct {
	name   string
	config func() wazero.RuntimeConfig
	stack  int32
}

var engines = []engine{
	{"compiler", wazero.NewRuntimeConfigCompiler, 1 << 20},
	{"interpreter", wazero.NewRuntimeConfigInterpreter, 128 << 10},
}

// TestSpecification runs the tests of the specification, as they come with
// wazero, on prepared modules: these do what the modules did.
func TestSpecification(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/tetratelabs/wazero").Output()
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(strings.TrimSpace(string(out)), "internal", "integration_test", "spectest")
	var asserted, yields atomic.Int64
	on, least := engines, int64(140_000)
	versions := map[string]api.CoreFeatures{"v1": api.CoreFeaturesV1, "v2": api.CoreFeaturesV2}
	if raced {
		on, least = engines[:1], 50_000
		delete(versions, "v1")
	}
	t.Run("all", func(t *testing.T) {
		for _, e := range on {
			for version, features := range versions {
				scripts, err := filepath.Glob(filepath.Join(root, version, "testdata", "*.json"))
				if err != nil {
					t.Fatal(err)
				}
				for _, script := range scripts {
					name := strings.TrimSuffix(filepath.Base(script), ".json")
					t.Run(e.name+"/"+version+"/"+name, func(t *testing.T) {
						t.Parallel()
						r := newSpecRun(t, e, features, filepath.Dir(script))
						r.script(filepath.Base(script))
						asserted.Add(r.asserted)
						yields.Add(r.yields)
					})
				}
			}
		}
	})
	t.Logf("%d assertions, %d yields", asserted.Load(), yields.Load())
	if asserted.Load() < least || yields.Load() < 10_000 {
		t.Errorf("only %d assertions held, with %d yields", asserted.Load(), yields.Load())
	}
}

// The commands of a script, as wast2json writes them.
type (
	specCommand struct {
		Type       string
		Line       int
		Name       string
		As         string
		Filename   string
		ModuleType string `json:"module_type"`
		Text       string
		Action     specAction
		Expected   []specValue
	}
	specAction struct {
		Type   string
		Module string
		Field  string
		Args   []specValue
	}
	specValue struct {
		Type     string
		LaneType string `json:"lane_type"`
		Value    any    // text, of v128 one for each lane
	}
)

// differences are the modules that must be refused, and are not any more once
// they are prepared.
var differences = map[string]string{
	"ref_func.5.wasm": "its start function is an export now, and only functions that are exported or the like may be referred to",
}

// specRun runs one script.
type specRun struct {
	t        *testing.T
	runtime  wazero.Runtime
	stack    int32
	folder   string
	modules  map[string]api.Module
	last     api.Module
	meters   []api.MutableGlobal
	asserted int64
	yields   int64
}

func newSpecRun(t *testing.T, e engine, features api.CoreFeatures, folder string) *specRun {
	r := &specRun{t: t, stack: e.stack, folder: folder, modules: map[string]api.Module{}}
	r.runtime = wazero.NewRuntimeWithConfig(t.Context(), e.config().WithCoreFeatures(features))
	t.Cleanup(func() { r.runtime.Close(context.Background()) })
	if _, err := r.runtime.NewHostModuleBuilder(YieldModule).NewFunctionBuilder().WithFunc(r.yield).Export(YieldName).Instantiate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.runtime.InstantiateWithConfig(t.Context(), specHost(), wazero.NewModuleConfig().WithName("spectest")); err != nil {
		t.Fatal(err)
	}
	return r
}

// specFuel is little, so that there are many yields.
const specFuel = 1000

func (r *specRun) yield(m int64) int64 {
	r.yields++
	if Meter(m).Stack() < 0 {
		panic(errExhausted)
	}
	return int64(NewMeter(specFuel, Meter(m).Stack()))
}

// specHost is the module from which the scripts import.
func specHost() []byte {
	float32s, float64s := "\x43\x66\xa6\x26\x44", "\x44\xcd\xcc\xcc\xcc\xcc\xd4\x84\x40" // 666.6
	a := assembly{
		tables:   []string{funcref + "\x01\x0a\x14"},
		memories: []string{"\x01\x01\x02"},
		globals: []string{
			i32 + "\x00" + i32Of(666) + "\x0b", i64 + "\x00" + i64Of(666) + "\x0b",
			f32 + "\x00" + float32s + "\x0b", f64 + "\x00" + float64s + "\x0b",
		},
		exports: []string{exporting("table", kindTable, 0), exporting("memory", kindMemory, 0)},
	}
	for i, name := range []string{"global_i32", "global_i64", "global_f32", "global_f64"} {
		a.exports = append(a.exports, exporting(name, kindGlobal, i))
	}
	for i, f := range []struct{ name, params string }{
		{"print", ""},
		{"print_i32", i32},
		{"print_i64", i64},
		{"print_f32", f32},
		{"print_f64", f64},
		{"print_i32_f32", i32 + f32},
		{"print_f64_f64", f64 + f64},
	} {
		a.types = append(a.types, signature(f.params, ""))
		a.functions = append(a.functions, assembled{typeOf: i})
		a.exports = append(a.exports, exporting(f.name, kindFunction, i))
	}
	return a.bytes()
}

func (r *specRun) script(name string) {
	text, err := os.ReadFile(filepath.Join(r.folder, name))
	if err != nil {
		r.t.Fatal(err)
	}
	var script struct{ Commands []specCommand }
	if err := json.Unmarshal(text, &script); err != nil {
		r.t.Fatal(err)
	}
	for i, c := range script.Commands {
		as := ""
		if next := i + 1; next < len(script.Commands) && script.Commands[next].Type == "register" {
			as = script.Commands[next].As
		}
		if err := r.command(c, as); err != nil {
			r.t.Errorf("line %d: %s %s %s: %v", c.Line, c.Type, c.Filename, c.Action.Field, err)
		}
	}
}

// command runs a command. A module is registered as what the next command says.
func (r *specRun) command(c specCommand, as string) error {
	if c.ModuleType == "text" || c.Type == "register" {
		return nil
	}
	r.asserted++
	switch c.Type {
	case "module":
		m, err := r.instantiate(c.Filename, as)
		if err == nil {
			r.last, r.modules[c.Name] = m, m
		}
		return err
	case "action", "assert_return":
		got, err := r.do(c.Action)
		if err != nil {
			return err
		}
		return compare(got, c.Expected)
	case "assert_trap":
		_, err := r.do(c.Action)
		return trapped(err, c.Text)
	case "assert_exhaustion":
		if _, err := r.do(c.Action); !errors.Is(err, errExhausted) {
			return fmt.Errorf("it ended with %w, not by its meter", err)
		}
		return nil
	case "assert_invalid", "assert_malformed", "assert_unlinkable", "assert_uninstantiable":
		_, err := r.instantiate(c.Filename, "")
		// wazero lets an element segment that is too long pass: what was written to tables stays.
		lax := c.Type == "assert_uninstantiable" && c.Text == "out of bounds table access"
		if err == nil && !lax && differences[c.Filename] == "" {
			return fmt.Errorf("accepted, want %q", c.Text)
		}
		return nil
	}
	return errors.New("what is this?")
}

// specLimits are beyond what any compiler makes, as the scripts are.
var specLimits = func() Limits {
	l := DefaultLimits
	l.Parameters, l.Results, l.Tables, l.Elements = 1000, 1000, 100, math.MaxInt
	return l
}()

// instantiate prepares a module and starts it.
func (r *specRun) instantiate(file, name string) (api.Module, error) {
	binary, err := os.ReadFile(filepath.Join(r.folder, file))
	if err != nil {
		r.t.Fatal(err)
	}
	p, err := Prepare(binary, specLimits)
	if err != nil {
		return nil, err
	}
	m, err := r.runtime.InstantiateWithConfig(r.t.Context(), p.Binary, wazero.NewModuleConfig().WithName(name))
	if err != nil {
		return nil, err
	}
	r.meters = append(r.meters, m.ExportedGlobal(MeterName).(api.MutableGlobal))
	if p.Starts {
		_, err = r.call(m, StartName)
	}
	return m, err
}

func (r *specRun) do(a specAction) ([]uint64, error) {
	m := r.last
	if a.Module != "" {
		m = r.modules[a.Module]
	}
	if a.Type == "get" {
		return []uint64{m.ExportedGlobal(a.Field).Get()}, nil
	}
	var args []uint64
	for _, v := range a.Args {
		args = append(args, v.bits()...)
	}
	return r.call(m, a.Field, args...)
}

// call calls a function with full meters: what trapped has not given its stack
// back.
func (r *specRun) call(m api.Module, function string, args ...uint64) ([]uint64, error) {
	for _, meter := range r.meters {
		meter.Set(uint64(NewMeter(specFuel, r.stack))) //nolint:gosec // its bits
	}
	return m.ExportedFunction(function).Call(r.t.Context(), args...)
}

// traps are the words of wazero for those of the specification.
var traps = map[string]string{
	"indirect call":              "indirect call type mismatch",
	"undefined element":          "invalid table access",
	"undefined":                  "invalid table access",
	"out of bounds table access": "invalid table access",
}

func trapped(err error, want string) error {
	if strings.HasPrefix(want, "uninitialized") {
		want = "undefined"
	}
	if other, ok := traps[want]; ok {
		want = other
	}
	if err == nil || !strings.HasPrefix(err.Error(), "wasm error: "+want) {
		return fmt.Errorf("it ended with %w, want %q", err, want)
	}
	return nil
}

// lanes returns the values in v, and how many bits each has.
func (v specValue) lanes() (texts []string, width int) {
	of := v.Type
	if v.Type == "v128" {
		of = v.LaneType
		for _, lane := range v.Value.([]any) {
			texts = append(texts, lane.(string))
		}
	} else {
		text, _ := v.Value.(string)
		texts = []string{text}
	}
	if width, err := strconv.Atoi(of[1:]); err == nil {
		return texts, width
	}
	return texts, 64 // a reference
}

// bits returns what wazero passes for v.
func (v specValue) bits() []uint64 {
	texts, width := v.lanes()
	out := make([]uint64, (len(texts)*width+63)/64)
	for i, text := range texts {
		out[i*width/64] |= v.number(text, width) << (i * width % 64)
	}
	return out
}

// number returns the bits of a number or a reference; those to the host are
// shifted, since 0 is null.
func (v specValue) number(text string, width int) uint64 {
	if text == "null" {
		return 0
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		panic(err)
	}
	if v.Type == "externref" {
		n++
	}
	return n & (math.MaxUint64 >> (64 - width))
}

// compare compares results with what is expected.
func compare(got []uint64, want []specValue) error {
	for i, v := range want {
		texts, width := v.lanes()
		words := (len(texts)*width + 63) / 64
		if len(got) < words {
			return fmt.Errorf("there is no result %d", i)
		}
		for lane, text := range texts {
			bits := got[lane*width/64] >> (lane * width % 64) & (math.MaxUint64 >> (64 - width))
			if !v.matches(bits, text, width) {
				return fmt.Errorf("result %d, lane %d: got %#x, want %s", i, lane, bits, text)
			}
		}
		got = got[words:]
	}
	if len(got) > 0 {
		return fmt.Errorf("%d words of results too many", len(got))
	}
	return nil
}

// matches compares one lane.
func (v specValue) matches(bits uint64, text string, width int) bool {
	quiet, sign := uint64(0x7fc00000), uint64(1<<31)
	if width == 64 {
		quiet, sign = 0x7ff8<<48, 1<<63
	}
	switch {
	case text == "nan:canonical":
		return bits&^sign == quiet
	case text == "nan:arithmetic":
		return bits&quiet == quiet
	case v.Value == nil: // any reference but null
		return bits != 0
	}
	return bits == v.number(text, width)
}
