package binary

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/decant-project/decant"
)

// guests runs modules with full meters.
type guests struct {
	t       *testing.T
	runtime wazero.Runtime
	metered metered
}

func newGuests(t *testing.T, e engine) *guests {
	g := &guests{t: t, runtime: wazero.NewRuntimeWithConfig(t.Context(), e.config())}
	t.Cleanup(func() { g.runtime.Close(context.Background()) })
	yield := func(left int64) int64 { return int64(g.metered.yield(Meter(left))) }
	host := g.runtime.NewHostModuleBuilder(YieldModule).NewFunctionBuilder().WithFunc(yield).Export(YieldName)
	if _, err := host.Instantiate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return g
}

// start instantiates a module; a prepared one gets a meter.
func (g *guests) start(binary []byte) api.Module {
	g.t.Helper()
	m, err := g.runtime.InstantiateWithConfig(g.t.Context(), binary, wazero.NewModuleConfig().WithName(""))
	if err != nil {
		g.t.Fatal(err)
	}
	if meter := m.ExportedGlobal(MeterName); meter != nil {
		meter.(api.MutableGlobal).Set(uint64(g.metered.give(1 << 20))) //nolint:gosec // its bits
	}
	return m
}

func (g *guests) call(m api.Module, function string, args ...uint64) ([]uint64, error) {
	return m.ExportedFunction(function).Call(g.t.Context(), args...)
}

func prepared(t *testing.T, binary []byte) *Prepared {
	t.Helper()
	p, err := Prepare(binary, DefaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// stateful is a module with all that a snapshot has to hold: its function run
// changes globals, memory and segments, and calls itself and its start.
func stateful() assembly {
	return assembly{
		types:    []string{signature("", ""), signature(i32, i32)},
		imports:  []string{sized("env") + sized("fixed") + "\x03" + i32 + "\x00", importFunction("env", "host", 0)},
		memories: []string{"\x01\x01\x02"},
		globals:  []string{variable(i32, i32Of(5)), f64 + "\x00" + constantOf(f64[0], 1) + "\x0b", variable(i64, i64Of(6)), variable(f32, constantOf(f32[0], 1))},
		exports:  []string{exporting("memory", kindMemory, 0), exporting("run", kindFunction, 1), exporting("own", kindGlobal, 1)},
		start:    num(2),
		data:     []string{active(0, "zero"), passive("one"), passive("two")},
		functions: []assembled{
			{1, "", get(0) + i32Of(0) + i32Of(3) + "\xfc\x08\x01\x00\xfc\x09\x01" + i32Of(9) + setGlobal(1) + get(0)},
			{0, "", callOf(0) + i32Of(1) + setGlobal(1)},
		},
	}
}

// exportsOf returns what a module exports: names and kinds.
func exportsOf(binary []byte) []string {
	var out []string
	for r := (&reader{b: binary, at: 8}); !r.done(); {
		id := r.byte()
		body := r.take(r.u32())
		if id != sectionExport {
			continue
		}
		body.each(func(uint32) {
			out = append(out, body.name()+" "+kinds[body.byte()])
			body.u32()
		})
	}
	return out
}

// TestWhatIsAdded holds what Prepare makes of a module.
func TestWhatIsAdded(t *testing.T) {
	p := prepared(t, stateful().bytes())
	if !reflect.DeepEqual(p.Globals, []uint32{1, 3, 4}) || !reflect.DeepEqual(p.Dropped, []uint32{1}) || !p.Starts || p.Unmovable != "" {
		t.Errorf("got %v %v %v %q", p.Globals, p.Dropped, p.Starts, p.Unmovable)
	}
	want := []string{
		"memory memory", "run function", "own global", "decant:meter global", "decant:global:1 global", "decant:global:3 global",
		"decant:global:4 global", "decant:dropped:1 global", "decant:start function", "decant:drop function",
	}
	if got := exportsOf(p.Binary); !slices.Equal(got, want) {
		t.Errorf("it exports\n%q, want\n%q", got, want)
	}
	empty := prepared(t, assembly{}.bytes())
	if got := exportsOf(empty.Binary); !slices.Equal(got, []string{"decant:meter global"}) || empty.Starts || empty.Dropped != nil {
		t.Errorf("an empty module has %q, %+v", got, empty)
	}
}

// TestSnapshot: what is added suffices to carry a module on: the start function
// runs when it is called and only then, and a segment that was dropped is
// dropped again.
func TestSnapshot(t *testing.T) {
	a := stateful()
	a.imports = a.imports[1:] // of the host's function; as a global the first is another
	a.globals = append([]string{i32 + "\x00" + i32Of(0) + "\x0b"}, a.globals...)
	p := prepared(t, a.bytes())
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) {
			g := newGuests(t, e)
			starts := 0
			env := g.runtime.NewHostModuleBuilder("env").NewFunctionBuilder().WithFunc(func() { starts++ }).Export("host")
			if _, err := env.Instantiate(t.Context()); err != nil {
				t.Fatal(err)
			}
			source := g.start(p.Binary)
			if got := source.ExportedGlobal(GlobalName(1)).Get(); got != 5 || starts != 0 {
				t.Fatalf("it has started by itself: %d, %d calls", got, starts)
			}
			if _, err := g.call(source, StartName); err != nil || starts != 1 || source.ExportedGlobal("own").Get() != 1 {
				t.Fatalf("got %v, %d calls", err, starts)
			}
			if _, err := g.call(source, "run", 100); err != nil {
				t.Fatal(err)
			}
			if got, _ := source.Memory().Read(100, 3); string(got) != "one" {
				t.Errorf("got %q", got)
			}

			target := g.start(p.Binary)
			for _, name := range []string{GlobalName(1), DroppedName(1)} {
				target.ExportedGlobal(name).(api.MutableGlobal).Set(source.ExportedGlobal(name).Get())
			}
			if _, err := g.call(target, DropName); err != nil {
				t.Fatal(err)
			}
			for _, m := range []api.Module{source, target} {
				if _, err := g.call(m, "run", 200); trapOf(err) != "wasm error: out of bounds memory access" {
					t.Errorf("the segment that was dropped is there: %v", err)
				}
				if got := m.ExportedGlobal(GlobalName(1)).Get(); got != 9 {
					t.Errorf("the global is %d", got)
				}
			}
			if starts != 1 {
				t.Errorf("it started %d times", starts)
			}
		})
	}
}

// TestVerdicts holds what can be moved.
func TestVerdicts(t *testing.T) {
	table := []string{funcref + "\x00\x01"}
	function := func(code string) assembly {
		return assembly{
			types: []string{signature("", "")}, tables: table, memories: []string{"\x00\x01"}, functions: []assembled{{0, "", code}},
			elements: []string{"\x01\x00\x01\x00"},
		}
	}
	drops := assembly{types: []string{signature("", "")}, memories: []string{"\x00\x01"}, functions: []assembled{{}}}
	for i := range maxDropped + 1 {
		drops.data = append(drops.data, passive(""))
		drops.functions[0].code += "\xfc\x09" + num(i)
	}
	for what, c := range map[string]struct {
		module assembly
		want   string
	}{
		"nothing":                    {assembly{}, ""},
		"its own memory":             {function("\x3f\x00\x1a"), ""},
		"a table that stays":         {function(i32Of(0) + "\x25\x00\x1a"), ""},
		"table.set":                  {function(i32Of(0) + "\xd0\x70\x26\x00"), "it changes a table"},
		"table.grow":                 {assembly{types: []string{signature("", "")}, tables: []string{funcref + "\x01\x01\x02"}, functions: []assembled{{0, "", "\xd0\x70" + i32Of(1) + "\xfc\x0f\x00\x1a"}}}, "it changes a table"},
		"table.fill":                 {function(i32Of(0) + "\xd0\x70" + i32Of(1) + "\xfc\x11\x00"), "it changes a table"},
		"table.copy":                 {function(i32Of(0) + i32Of(0) + i32Of(1) + "\xfc\x0e\x00\x00"), "it changes a table"},
		"table.init":                 {function(i32Of(0) + i32Of(0) + i32Of(1) + "\xfc\x0c\x00\x00"), "it changes a table"},
		"an imported table":          {assembly{imports: []string{sized("m") + sized("t") + "\x01" + table[0]}}, "it imports a table"},
		"an imported memory":         {assembly{imports: []string{sized("m") + sized("m") + "\x02\x00\x01"}}, "it imports its memory"},
		"an imported global":         {assembly{imports: []string{sized("m") + sized("g") + "\x03" + i32 + "\x00"}}, ""},
		"an imported mutable global": {assembly{imports: []string{sized("m") + sized("g") + "\x03" + i32 + "\x01"}}, "it imports a mutable global"},
		"a vector":                   {assembly{globals: []string{variable(v128, constantOf(v128[0], 0))}}, "its global 0 holds a reference or a vector"},
		"a constant vector":          {assembly{globals: []string{v128 + "\x00" + constantOf(v128[0], 0) + "\x0b"}}, ""},
		"a reference":                {assembly{globals: []string{variable(i32, i32Of(0)), variable(funcref, "\xd0\x70")}}, "its global 1 holds a reference or a vector"},
		"many dropped segments":      {drops, "it drops 1001 data segments: 1000 at most"},
	} {
		p, err := Prepare(c.module.bytes(), DefaultLimits)
		if err != nil || p.Unmovable != c.want {
			t.Fatalf("%s: got %+v, %v, want %q", what, p, err, c.want)
		}
		if err := compile(t, p.Binary); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func compile(t *testing.T, binary []byte) error {
	r := wazero.NewRuntimeWithConfig(t.Context(), wazero.NewRuntimeConfigInterpreter())
	defer r.Close(t.Context())
	_, err := r.CompileModule(t.Context(), binary)
	return err
}

// TestOutOfReach: what Prepare adds cannot be named by a module: what is beyond
// its own is refused, whatever the place.
func TestOutOfReach(t *testing.T) {
	nothing := signature("", "")
	with := func(change func(a *assembly)) []byte {
		a := assembly{
			types: []string{nothing, signature(i32, "")}, imports: []string{importFunction("env", "host", 0)}, memories: []string{"\x00\x01"},
			tables: []string{funcref + "\x00\x04"}, globals: []string{variable(i64, i64Of(1))}, functions: []assembled{{}}, data: []string{passive("x")},
		}
		change(&a)
		return a.bytes()
	}
	code := func(code string) []byte { return with(func(a *assembly) { a.functions[0].code = code }) }
	for what, c := range map[string]struct {
		binary []byte
		want   string
	}{
		"the meter, set":          {code(i64Of(1) + setGlobal(1)), "there is no global 1"},
		"the meter, read":         {code(getGlobal(1) + "\x1a"), "there is no global 1"},
		"a flag, set":             {code("\xfc\x09\x00" + i32Of(0) + setGlobal(2)), "there is no global 2"},
		"the meter, exported":     {with(func(a *assembly) { a.exports = []string{exporting("x", kindGlobal, 1)} }), ""},
		"the meter in a constant": {with(func(a *assembly) { a.globals = append(a.globals, i64+"\x00"+getGlobal(2)+"\x0b") }), "there is no global 2"},
		"a function added":        {code(callOf(2)), "there is no function 2"},
		"a function behind":       {code(callOf(3)), "there is no function 3"},
		"a function as a value":   {code("\xd2\x02\x1a"), "there is no function 2"},
		"a function, exported":    {with(func(a *assembly) { a.exports = []string{exporting("x", kindFunction, 2)} }), "there is no function 2"},
		"a function in a table":   {with(func(a *assembly) { a.elements = []string{"\x00" + i32Of(0) + "\x0b\x01\x02"} }), "there is no function 2"},
		"a function by a constant": {with(func(a *assembly) {
			a.elements = []string{"\x04" + i32Of(0) + "\x0b\x01\xd2\x02\x0b"}
		}), "there is no function 2"},
		"a function in a global": {with(func(a *assembly) { a.globals = append(a.globals, funcref+"\x00\xd2\x02\x0b") }), "there is no function 2"},
		"a start":                {with(func(a *assembly) { a.start = num(2) }), "there is no function 2"},
		"a start with arguments": {with(func(a *assembly) { a.functions[0].typeOf, a.start = 1, num(1) }), ""},
		"a type of a function":   {with(func(a *assembly) { a.functions[0].typeOf = 2 }), "there is no type 2"},
		"a type of an import":    {with(func(a *assembly) { a.imports = append(a.imports, importFunction("env", "x", 2)) }), "there is no type 2"},
		"a type of a block":      {code("\x02\x02\x0b"), "there is no type 2"},
		"a type of a loop":       {code("\x03\x02\x0b"), "there is no type 2"},
		"a type of an if":        {code(i32Of(0) + "\x04\x02\x0b"), "there is no type 2"},
		"a type of a call":       {code(i32Of(0) + "\x11\x02\x00"), "there is no type 2"},
		"a local":                {code(get(0) + "\x1a"), "there is no local 0"},
		"a local, set":           {code(i32Of(0) + set(0)), "there is no local 0"},
		"a local, passed":        {code(i32Of(0) + "\x22\x00\x1a"), "there is no local 0"},
		"a local with loops":     {code("\x03\x40\x0b" + get(1) + "\x1a"), "there is no local 1"},
		"a label":                {code("\x0c\x01"), "there is no label 1"},
		"a label in a loop":      {code("\x03\x40\x0c\x02\x0b"), "there is no label 2"},
		"a label of a br_if":     {code(i32Of(0) + "\x0d\x01"), "there is no label 1"},
		"a label of a br_table":  {code(i32Of(0) + "\x0e\x01\x01\x00"), "there is no label 1"},
		"a default label":        {code(i32Of(0) + "\x0e\x01\x00\x07"), "there is no label 7"},
		"a label of 4 G":         {code(i32Of(0) + "\x0e\x00\xff\xff\xff\xff\x0f"), "there is no label 4294967295"},
		"a data segment":         {code("\xfc\x09\x01"), "there is no data segment 1"},
		"another memory, copied": {code(i32Of(0) + i32Of(0) + i32Of(0) + "\xfc\x0a\x00\x01"), ""},
		"another memory, filled": {code(i32Of(0) + i32Of(0) + i32Of(0) + "\xfc\x0b\x01"), ""},
		"bytes behind a section": {append(with(func(*assembly) {}), section(sectionCustom, "")...), ""},
		"the host's module":      {with(func(a *assembly) { a.imports = append(a.imports, importFunction("decant", "yield", 0)) }), `the module imports from "decant"`},
		"a reserved export":      {with(func(a *assembly) { a.exports = []string{exporting("decant:anything", kindFunction, 1)} }), `the module exports "decant:anything"`},
	} {
		if _, err := Prepare(c.binary, DefaultLimits); !errors.Is(err, decant.Invalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", what, err, c.want)
		}
	}
	// In the addresses of segments compilers allow imported globals only.
	for what, binary := range map[string][]byte{
		"the meter as an address": with(func(a *assembly) { a.data = append(a.data, "\x00"+getGlobal(1)+"\x0b\x00") }),
		"the meter in a table":    with(func(a *assembly) { a.elements = []string{"\x00" + getGlobal(1) + "\x0b\x00"} }),
	} {
		p, err := Prepare(binary, DefaultLimits)
		if err == nil && compile(t, p.Binary) == nil {
			t.Errorf("%s compiles", what)
		}
	}
	fine := with(func(a *assembly) { a.exports = []string{exporting("decant", kindFunction, 1)} })
	if err := compile(t, prepared(t, fine).Binary); err != nil {
		t.Errorf("what only resembles is refused: %v", err)
	}
}

// TestLeftovers: what stands behind the elements of a section is not passed
// over: no compiler sees it once the section is written anew.
func TestLeftovers(t *testing.T) {
	for id, content := range map[byte]string{
		sectionType: "\x00", sectionImport: "\x00", sectionFunction: "\x00", sectionGlobal: "\x00", sectionExport: "\x00", sectionElement: "\x00", sectionCode: "\x00",
	} {
		if _, err := Prepare([]byte(header+section(id, content+"\x00")), DefaultLimits); !errors.Is(err, decant.Invalid) {
			t.Errorf("a byte too many in section %d: %v", id, err)
		}
		if _, err := Prepare([]byte(header+section(id, "")), DefaultLimits); !errors.Is(err, decant.Invalid) {
			t.Errorf("an empty section %d: %v", id, err)
		}
		prepared(t, []byte(header+section(id, content)))
	}
}

// TestCustomSections: none but the names stays, and those once.
func TestCustomSections(t *testing.T) {
	for _, name := range []string{"producers", "target_features", "", "decant", ".debug_info", "linking", "metadata.code.branch_hint"} {
		p := prepared(t, assembly{customs: []string{sized(name) + "the content"}}.bytes())
		if bytes.Contains(p.Binary, []byte("the content")) {
			t.Errorf("the section %q stays", name)
		}
	}
	names := sized("name") + section(0, sized("guest"))
	if p := prepared(t, assembly{customs: []string{names, names}}.bytes()); bytes.Count(p.Binary, []byte("guest")) != 1 {
		t.Errorf("the names are there %d times", bytes.Count(p.Binary, []byte("guest")))
	}
	damaged := assembly{customs: []string{sized("name") + "\x01\x7f\x01"}}
	if err := compile(t, prepared(t, damaged.bytes()).Binary); err != nil {
		t.Errorf("with damaged names: %v", err)
	}
}

// TestNames: where a prepared module traps is told as where the module does.
func TestNames(t *testing.T) {
	named := func(id byte, entries ...string) string {
		return section(id, num(len(entries))+strings.Join(entries, ""))
	}
	a := assembly{
		types:     []string{signature("", ""), signature(i32, i32)},
		imports:   []string{importFunction("env", "host", 0)},
		exports:   []string{exporting("run", kindFunction, 1)},
		functions: []assembled{{0, "", i32Of(7) + callOf(2) + "\x1a"}, {1, "", callOf(3) + get(0)}, {0, "", "\x03\x40\x00\x0b"}},
		customs: []string{sized("name") + section(0, sized("guest")) +
			named(1, "\x00"+sized("the_host"), "\x01"+sized("outer"), "\x02"+sized("middle"), "\x03"+sized("inner")) +
			named(2, "\x02\x01\x00"+sized("a_local")) + named(3, "\x03\x01\x00"+sized("a_label"))},
	}
	for _, e := range engines {
		g := newGuests(t, e)
		if _, err := g.runtime.NewHostModuleBuilder("env").NewFunctionBuilder().WithFunc(func() {}).Export("host").Instantiate(t.Context()); err != nil {
			t.Fatal(err)
		}
		_, want := g.call(g.start(a.bytes()), "run")
		_, got := g.call(g.start(prepared(t, a.bytes()).Binary), "run")
		if !strings.Contains(want.Error(), ".inner()\n\tguest.middle(i32) i32\n\tguest.outer()") || got.Error() != want.Error() {
			t.Errorf("%s: got %v, want %v", e.name, got, want)
		}
	}
	p := prepared(t, a.bytes())
	if bytes.Contains(p.Binary, []byte("a_local")) || bytes.Contains(p.Binary, []byte("a_label")) {
		t.Error("the names of locals or labels are there, which are not true any more")
	}
}

// bulkModule exports memory.copy and memory.fill, and a memory of 1 MiB.
func bulkModule() []byte {
	three := get(0) + get(1) + get(2)
	return assembly{
		types: []string{signature(i32+i32+i32, "")}, memories: []string{"\x00\x10"},
		functions: []assembled{{0, "", three + "\xfc\x0a\x00\x00"}, {0, "", three + "\xfc\x0b\x00"}, {0, "", three + "\xfc\x08\x00\x00"}},
		exports: []string{
			exporting("memory", kindMemory, 0), exporting("copy", kindFunction, 0), exporting("fill", kindFunction, 1), exporting("init", kindFunction, 2),
		},
		data: []string{passive(strings.Repeat("0123456789abcdef", 10_000))},
	}.bytes()
}

// TestBulk: long copies and fills are done in parts, and nobody can tell.
func TestBulk(t *testing.T) {
	const size, c = 1 << 20, chunk
	type operation struct {
		name   string
		a, b   uint32
		length uint32
	}
	var cases []operation
	for _, n := range []uint32{0, 1, 7, 8, c - 1, c, c + 1, 2*c - 1, 2 * c, 2*c + 1, 3*c + 5, 10*c + 3} {
		for _, by := range []uint32{0, 1, 8, c - 1, c, c + 1, 2*c + 3} { // overlapping, both ways
			cases = append(cases, operation{"copy", 1000, 1000 + by, n}, operation{"copy", 1000 + by, 1000, n})
		}
		cases = append(cases, operation{"fill", 77, 0x1ab, n})
		for beyond := range uint32(2) { // up to the end, and a byte further
			cases = append(cases, operation{"copy", size - n + beyond, 0, n}, operation{"copy", 0, size - n + beyond, n}, operation{"fill", size - n + beyond, 9, n})
		}
		cases = append(cases, operation{"copy", 0xffffffff, 5, n}, operation{"copy", 5, 0xffffffff, n}, operation{"fill", 0xfffffff0, 3, n}, operation{"init", 99, 3, n})
	}
	cases = append(cases, operation{"copy", 0, 1, 0xffffffff}, operation{"copy", 1, 0, 0xffffffff}, operation{"fill", 1, 1, 0xffffffff}, operation{"init", 0, 0, 0xffffffff})
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) {
			g := newGuests(t, e)
			plain, other := g.start(bulkModule()), g.start(prepared(t, bulkModule()).Binary)
			want, _ := plain.Memory().Read(0, size)
			got, _ := other.Memory().Read(0, size)
			random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same each time
			for i := range want {
				want[i] = byte(random.Uint32())
			}
			copy(got, want)
			for _, o := range cases {
				_, wantErr := g.call(plain, o.name, uint64(o.a), uint64(o.b), uint64(o.length))
				_, gotErr := g.call(other, o.name, uint64(o.a), uint64(o.b), uint64(o.length))
				if trapOf(gotErr) != trapOf(wantErr) || !bytes.Equal(got, want) {
					t.Fatalf("%+v: got %q, want %q; the memories are equal: %v", o, trapOf(gotErr), trapOf(wantErr), bytes.Equal(got, want))
				}
			}
		})
	}
}

// TestBulkIsCharged: a unit for each eight bytes, and none of the parts is so
// long that the guest cannot be stopped.
func TestBulkIsCharged(t *testing.T) {
	const length = 512 << 10
	g := newGuests(t, engines[0])
	m := g.start(prepared(t, bulkModule()).Binary)
	for _, name := range []string{"copy", "fill"} {
		before := g.metered.Yields
		if _, err := g.call(m, name, length, 0, length); err != nil {
			t.Fatal(err)
		}
		if n := g.metered.Yields - before; n < length/chunk-1 {
			t.Errorf("%s of %d bytes yielded %d times", name, length, n)
		}
	}
}

// BenchmarkPrepare prepares guests in Go and C; those are built by make.
func BenchmarkPrepare(b *testing.B) {
	for _, path := range []string{"counter/counter.wasm", "shout-c/shout.wasm"} {
		binary, err := os.ReadFile("../../../examples/" + path)
		if err != nil {
			b.Skip(err)
		}
		b.Run(path[:strings.IndexByte(path, '/')], func(b *testing.B) {
			b.SetBytes(int64(len(binary)))
			b.ReportAllocs()
			for b.Loop() {
				p, err := Prepare(binary, DefaultLimits)
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(len(p.Binary))/float64(len(binary)), "growth")
			}
		})
	}
}
