package binary

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"pgregory.net/rapid"
)

// TestMeter: both halves come out as they went in, for all numbers.
func TestMeter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		fuel, stack := rapid.Int32().Draw(t, "fuel"), rapid.Int32Range(-1<<30, 1<<30).Draw(t, "stack")
		if m := NewMeter(fuel, stack); m.Fuel() != fuel || m.Stack() != stack {
			t.Errorf("got %d of fuel and %d of stack", m.Fuel(), m.Stack())
		}
	})
}

// TestCharges: what is charged is the longest way through a function that may
// be taken, and of a loop each turn, so that it is never less than what was
// executed, nor much more.
func TestCharges(t *testing.T) {
	const unit = 2000
	heavy := strings.Repeat(i32Of(0)+"\x1a", unit/2)
	arg, not := get(0), get(0)+"\x45"
	begin, loop, end := "\x02\x40", "\x03\x40", "\x0b"
	then := "\x04\x40"
	otherwise, leave := "\x05", "\x0f"
	br := func(label int) string { return "\x0c" + num(label) }
	brIf := func(label int) string { return "\x0d" + num(label) }
	again := func(n int) string { return get(1) + i32Of(1) + "\x6a\x22\x01" + i32Of(n) + "\x48" } // another turn of n?
	for what, c := range map[string]struct {
		code        string
		least, most float64 // units
	}{
		"nothing":                             {"", 0, 0},
		"in a line":                           {heavy + heavy, 2, 2},
		"behind a block":                      {begin + end + heavy, 1, 1},
		"behind a block that is left":         {begin + br(0) + end + heavy, 1, 1},
		"behind blocks that are left":         {begin + begin + br(1) + end + heavy + end + heavy, 1, 1},
		"behind a block that may be left":     {begin + arg + brIf(0) + "\x00" + end + heavy, 1, 1},
		"behind the inner of a table":         {begin + begin + not + "\x0e\x01\x00\x01" + end + heavy + end, 1, 1},
		"behind the outer of a table":         {begin + begin + arg + "\x0e\x01\x00\x01" + end + "\x00" + end + heavy, 1, 1},
		"behind the default of a table":       {begin + begin + begin + arg + "\x0e\x01\x00\x02" + end + "\x00" + end + "\x00" + end + heavy, 1, 1},
		"behind what leaves the function":     {leave + heavy, 0, .3}, // its frame
		"behind what traps":                   {not + then + "\x00" + heavy + end + heavy, 1, 1},
		"in an if":                            {arg + then + heavy + end, 1, 1},
		"behind an if":                        {not + then + "\x00" + end + heavy, 1, 1},
		"behind an if that leaves":            {begin + arg + then + br(1) + end + end + heavy, 1, 1},
		"in an else":                          {not + then + otherwise + heavy + end, 1, 1},
		"in the shorter branch":               {arg + then + heavy + otherwise + heavy + heavy + end, 2, 2},
		"in the longer branch":                {not + then + heavy + otherwise + heavy + heavy + end, 2, 2},
		"behind branches of which one leaves": {arg + then + heavy + otherwise + leave + end + heavy, 2, 2},
		"behind the other":                    {arg + then + heavy + leave + otherwise + heavy + end + heavy, 2, 2},
		"in a branch that leaves":             {begin + arg + then + heavy + br(1) + end + heavy + heavy + end + heavy, 3, 3},
		"in a loop":                           {loop + heavy + again(100) + brIf(0) + end, 100, 117},
		"in a loop that continues":            {loop + again(100) + brIf(0) + heavy + end, 100, 117},
		"behind a loop":                       {loop + end + heavy, 1, 3},
		"behind a loop that is left":          {begin + loop + br(1) + end + end + heavy, 1, 3},
		"behind a loop that does not end":     {begin + loop + arg + brIf(1) + br(0) + end + end + heavy, 1, 3},
		"in a loop in a loop":                 {loop + loop + heavy + again(50) + brIf(0) + end + again(100) + brIf(0) + end, 75, 92},
		"behind a loop in a loop":             {loop + loop + end + heavy + again(50) + brIf(0) + end, 50, 70},
		"in a block that a loop leaves":       {begin + loop + heavy + again(20) + brIf(0) + br(1) + end + end, 20, 37},
		"in a light function":                 {strings.Repeat(callOf(2), 80), 80 * 90.0 / unit, 80 * 100.0 / unit},
		"in a heavy function":                 {callOf(3) + callOf(3), 2, 2},
		"in a function of the table":          {i32Of(0) + "\x11\x00\x00", 1, 1.1},
		"of a host function":                  {strings.Repeat(callOf(0), 80), 4, 4},
		"in a long line":                      {strings.Repeat(heavy, 20), 20, 26},
		"of memory.grow":                      {i32Of(0) + "\x40\x00\x1a", .5, .5},
		"of memory.fill":                      {i32Of(0) + i32Of(0) + i32Of(160_000) + "\xfc\x0b\x00", 10, 10},
		"of memory.copy":                      {i32Of(0) + i32Of(9) + i32Of(160_000) + "\xfc\x0a\x00\x00", 10, 10},
		"of memory.init":                      {i32Of(0) + i32Of(0) + i32Of(16_000) + "\xfc\x08\x00\x00", 1, 1},
		"of table.copy":                       {i32Of(0) + i32Of(0) + i32Of(0) + "\xfc\x0e\x00\x00", float64(tableCost) / unit, float64(tableCost) / unit},
	} {
		a := assembly{
			types: []string{signature("", ""), signature(i32, "")}, imports: []string{importFunction("env", "host", 0)},
			memories: []string{"\x00\x03"}, tables: []string{funcref + "\x00\x01"}, data: []string{passive(strings.Repeat("x", 16_000))},
			functions: []assembled{{1, i32s(1), c.code}, {0, "", strings.Repeat(i32Of(0)+"\x1a", 43)}, {0, "", heavy}},
			elements:  []string{"\x00" + i32Of(0) + "\x0b\x01\x03"}, exports: []string{exporting("run", kindFunction, 1)},
		}
		g := newGuests(t, engines[0])
		if _, err := g.runtime.NewHostModuleBuilder("env").NewFunctionBuilder().WithFunc(func() {}).Export("host").Instantiate(t.Context()); err != nil {
			t.Fatal(err)
		}
		m := g.start(prepared(t, a.bytes()).Binary)
		g.metered = metered{}
		meter := m.ExportedGlobal(MeterName).(api.MutableGlobal)
		meter.Set(uint64(g.metered.give(1 << 20))) //nolint:gosec // its bits
		if _, err := g.call(m, "run", 1); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		g.metered.take(Meter(meter.Get())) //nolint:gosec // its bits
		const slack = 250. / unit          // of instructions that are not counted here, and of a loop's first turns
		if got := float64(g.metered.Charged) / unit; got < c.least || got > c.most+slack {
			t.Errorf("%s: charged %.3f units, want %.3f to %.3f", what, got, c.least, c.most)
		}
	}
}

// recursion is a module whose function r calls itself without end. Values that
// are used behind the call are kept on the machine's stack meanwhile.
func recursion(signatures []string, locals, code string, others ...assembled) []byte {
	a := assembly{
		types:     signatures,
		functions: append([]assembled{{locals: locals, code: code}}, others...),
		tables:    []string{funcref + "\x00\x01"},
		memories:  []string{"\x00\x01"},
		globals:   slices.Repeat([]string{variable(v128, constantOf(v128[0], 1))}, 256),
		exports:   []string{exporting("r", kindFunction, 0)},
		elements:  []string{"\x00" + i32Of(0) + "\x0b\x01\x00"},
	}
	return a.bytes()
}

// recursions are functions that take much of the machine's stack for what one
// reads of them.
func recursions() map[string][]byte {
	nothing := signature("", "")
	many := func(n int, code func(i int) string) string {
		var b strings.Builder
		for i := range n {
			b.WriteString(code(i))
		}
		return b.String()
	}
	always := func(code string) func(int) string { return func(int) string { return code } }
	load64 := always(i32Of(0) + "\x29\x00\x00")
	load128 := always(i32Of(0) + "\xfd\x00\x00\x00")
	xor128 := always("\xfd\x51")
	store := "\xfd\x0b\x00\x00"
	toLocals := func(load func(int) string) func(int) string {
		return func(i int) string { return load(i) + set(i) }
	}
	repeat := strings.Repeat
	self := callOf(0)
	globals := many(256, getGlobal)
	return map[string][]byte{
		"nothing":            recursion([]string{nothing}, "", self),
		"through the table":  recursion([]string{nothing}, "", i32Of(0)+"\x11\x00\x00"),
		"locals of i64":      recursion([]string{nothing}, "\x01"+num(200)+i64, many(200, toLocals(load64))+self+i32Of(0)+many(200, get)+repeat("\x85", 199)+"\x37\x00\x00"),
		"locals of v128":     recursion([]string{nothing}, "\x01"+num(200)+v128, many(200, toLocals(load128))+self+i32Of(0)+many(200, get)+many(199, xor128)+store),
		"values of i64":      recursion([]string{nothing}, "", i32Of(0)+many(200, load64)+self+repeat("\x85", 199)+"\x37\x00\x00"),
		"values of v128":     recursion([]string{nothing}, "", i32Of(0)+many(200, load128)+self+many(199, xor128)+store),
		"parameters of i64":  recursion([]string{signature(repeat(i64, 256), "")}, "", many(256, get)+self+i32Of(0)+many(256, get)+repeat("\x85", 255)+"\x37\x00\x00"),
		"parameters of v128": recursion([]string{signature(repeat(v128, 256), "")}, "", many(256, get)+self+i32Of(0)+many(256, get)+many(255, xor128)+store),
		"parameters, unused": recursion([]string{signature(repeat(v128, 256), "")}, "", many(256, get)+self),
		"results of i64":     recursion([]string{nothing, signature("", repeat(i64, 32)), signature(repeat(i64, 256), "")}, "", repeat(callOf(1), 8)+self+callOf(2), assembled{1, "", many(32, load64)}, assembled{2, "", ""}),
		"results of v128":    recursion([]string{nothing, signature("", repeat(v128, 32)), signature(repeat(v128, 256), "")}, "", repeat(callOf(1), 8)+self+callOf(2), assembled{1, "", many(32, load128)}, assembled{2, "", ""}),
		"results, many":      recursion([]string{nothing, signature("", repeat(v128, 32)), signature(repeat(v128, 256), "")}, "", repeat(callOf(1), 80)+self+repeat(callOf(2), 10), assembled{1, "", many(32, load128)}, assembled{2, "", ""}),
		"globals of v128":    recursion([]string{nothing, signature("", ""), signature(repeat(v128, 256), "")}, "", globals+self+callOf(1), assembled{2, "", ""}),
		"constants":          recursion([]string{nothing}, "", i32Of(0)+many(200, func(i int) string { return "\xfd\x0c" + repeat(string([]byte{byte(i + 1)}), 16) })+self+many(199, xor128)+store),
		"values through blocks": recursion([]string{nothing, signature("", repeat(v128, 32)), signature(repeat(v128, 32), repeat(v128, 32)), signature(repeat(v128, 256), "")}, "",
			repeat(callOf(1)+repeat("\x02\x02"+i32Of(0)+"\x28\x00\x00\x0d\x00\x0b", 20), 8)+self+callOf(2), assembled{1, "", many(32, load128)}, assembled{3, "", ""}),
	}
}

// taker runs recursions and tells what stack they take.
type taker struct {
	runtime wazero.Runtime
	taken   uint64 // bytes that Go has allocated so far, when the stack was used up
}

func newTaker(t *testing.T, e engine) *taker {
	k := &taker{runtime: wazero.NewRuntimeWithConfig(t.Context(), e.config())}
	t.Cleanup(func() { k.runtime.Close(context.Background()) })
	yield := func(left int64) int64 {
		if Meter(left).Stack() < 0 {
			k.taken = allocated()
			panic(errExhausted)
		}
		return int64(NewMeter(1<<30, Meter(left).Stack()))
	}
	if _, err := k.runtime.NewHostModuleBuilder(YieldModule).NewFunctionBuilder().WithFunc(yield).Export(YieldName).Instantiate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return k
}

func allocated() uint64 {
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.TotalAlloc
}

// run lets the guest recur until its stack is used up, and returns what was
// allocated meanwhile: the machine's stack, which doubles, in all its sizes.
func (k *taker) run(t *testing.T, guest api.Module, stack int32) uint64 {
	t.Helper()
	guest.ExportedGlobal(MeterName).(api.MutableGlobal).Set(uint64(NewMeter(1<<30, stack))) //nolint:gosec // its bits
	r := guest.ExportedFunction("r")
	before := allocated()
	_, err := r.Call(t.Context(), words(make([]uint64, 2*256), r.Definition().ParamTypes())...)
	if !errors.Is(err, errExhausted) {
		t.Fatalf("with %d bytes of stack it ended with %v, not by its meter", stack, err)
	}
	return k.taken - before
}

// TestStack: recursion without end is stopped by the meter, before the engine
// stops it, and where it is compiled it has not taken more than twice of what
// it was charged.
func TestStack(t *testing.T) {
	for _, e := range engines {
		k := newTaker(t, e)
		for name, binary := range recursions() {
			t.Run(e.name+"/"+name, func(t *testing.T) {
				p, err := Prepare(binary, DefaultLimits)
				if err != nil {
					t.Fatal(err)
				}
				guest, err := k.runtime.InstantiateWithConfig(t.Context(), p.Binary, wazero.NewModuleConfig())
				if err != nil {
					t.Fatal(err)
				}
				defer guest.Close(t.Context())
				k.run(t, guest, e.stack)
				if e.name == "compiler" {
					k.run(t, guest, 8<<20)
					ratio := k.ratio(t, guest)
					t.Logf("%s: the machine's stack is %.2f times of what was charged", name, ratio)
					if ratio > 2 {
						t.Errorf("that is more than twice")
					}
				}
			})
		}
	}
}

// ratio returns how much stack the guest takes for each byte that it is charged.
// The machine's stack doubles when it is full: ratio looks for the meter where
// it was just full.
func (k *taker) ratio(t *testing.T, guest api.Module) float64 {
	const first = 10240 // bytes of the machine's stack
	low, high := int32(64<<10), int32(64<<10)
	taken := k.run(t, guest, low)
	for k.run(t, guest, high) < taken*3/2 {
		high *= 2
	}
	for high-low > low/64 {
		if middle := (low + high) / 2; k.run(t, guest, middle) < taken*3/2 {
			low = middle
		} else {
			high = middle
		}
	}
	return float64(taken+first) / 2 / float64(low)
}
