package binary

import (
	"context"
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// outcome is what a generated module did: of each of its functions, called once.
type outcome struct {
	Results [][]uint64
	Traps   []string
	Globals []uint64
	Memory  uint64 // a hash
	Host    uint64 // what the host function was given, all together
}

// metered is how a prepared module was metered.
type metered struct {
	Yields  int
	Charged int64 // fuel
	last    int32 // the fuel that it was given
}

// generatedStack is enough for generatedBudget calls.
const generatedStack = 8 << 20

func (m *metered) give(stack int32) Meter {
	m.last = specFuel
	return NewMeter(m.last, stack)
}

func (m *metered) take(left Meter) { m.Charged += int64(m.last) - int64(left.Fuel()) }

func (m *metered) yield(left Meter) Meter {
	m.Yields++
	m.take(left)
	if left.Stack() < 0 {
		panic(errExhausted)
	}
	return m.give(left.Stack())
}

// machine runs generated modules on one engine.
type machine struct {
	runtime wazero.Runtime
	outcome outcome
	metered metered
}

func newMachine(t testing.TB, e engine) *machine {
	ctx := context.Background()
	m := &machine{runtime: wazero.NewRuntimeWithConfig(ctx, e.config())}
	t.Cleanup(func() { m.runtime.Close(ctx) })
	for _, h := range []struct {
		module, name string
		function     any
	}{
		{"env", "host", func(v uint32) uint32 {
			m.outcome.Host = m.outcome.Host*31 + uint64(v)
			return v ^ uint32(m.outcome.Host) //nolint:gosec // some bits of it
		}},
		{YieldModule, YieldName, func(left int64) int64 { return int64(m.metered.yield(Meter(left))) }},
	} {
		if _, err := m.runtime.NewHostModuleBuilder(h.module).NewFunctionBuilder().WithFunc(h.function).Export(h.name).Instantiate(ctx); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// run calls each function of a module once.
func (m *machine) run(t testing.TB, binary []byte, prepared bool) (api.Module, outcome, metered) {
	ctx := context.Background()
	m.outcome, m.metered = outcome{}, metered{}
	guest, err := m.runtime.InstantiateWithConfig(ctx, binary, wazero.NewModuleConfig().WithName(""))
	if err != nil {
		if !strings.Contains(err.Error(), "wasm error: ") { // its start trapped
			t.Fatalf("cannot instantiate: %v", err)
		}
		return nil, outcome{Traps: []string{trapOf(err)}}, metered{}
	}
	if prepared && guest.ExportedFunction(StartName) != nil {
		if _, err := m.call(t, guest, StartName, true, nil); err != nil {
			guest.Close(ctx)
			return nil, outcome{Traps: []string{trapOf(err)}}, metered{}
		}
	}
	for i := range generatedFunctions {
		name := fmt.Sprintf("f%d", i)
		guest.ExportedGlobal("g0").(api.MutableGlobal).Set(generatedBudget)
		args := make([]uint64, 8)
		for j := range args {
			args[j] = uint64(i*7+j) * 0x9e3779b97f4a7c15 >> (8 * j)
		}
		results, err := m.call(t, guest, name, prepared, args)
		m.outcome.Results = append(m.outcome.Results, results)
		m.outcome.Traps = append(m.outcome.Traps, trapOf(err))
	}
	for i := range firstGlobal + 4 {
		m.outcome.Globals = append(m.outcome.Globals, guest.ExportedGlobal(fmt.Sprintf("g%d", i)).Get())
	}
	memory, _ := guest.Memory().Read(0, guest.Memory().Size())
	m.outcome.Memory = maphash.Bytes(seed, memory)
	return guest, m.outcome, m.metered
}

var seed = maphash.MakeSeed()

// call calls a function with as many of the arguments as it takes. A call that
// returns gives back all the stack that it took.
func (m *machine) call(t testing.TB, guest api.Module, name string, prepared bool, args []uint64) ([]uint64, error) {
	f := guest.ExportedFunction(name)
	var meter api.MutableGlobal
	if prepared {
		meter = guest.ExportedGlobal(MeterName).(api.MutableGlobal)
		meter.Set(uint64(m.metered.give(generatedStack))) //nolint:gosec // its bits
	}
	results, err := f.Call(context.Background(), words(args, f.Definition().ParamTypes())...)
	if prepared {
		left := Meter(meter.Get()) //nolint:gosec // its bits
		m.metered.take(left)
		if err == nil && left.Stack() != generatedStack {
			t.Errorf("%s returned with %d bytes of stack, not %d", name, left.Stack(), generatedStack)
		}
	}
	if err != nil {
		return nil, err
	}
	return words(results, f.Definition().ResultTypes()), nil
}

// words returns what is meant of the words that wazero passes for some types:
// of those of 32 bits the upper half may be anything.
func words(of []uint64, types []api.ValueType) []uint64 {
	var out []uint64
	for _, t := range types {
		word := of[len(out)]
		if t == i32[0] || t == f32[0] {
			word &= 1<<32 - 1
		}
		if out = append(out, word); t == v128[0] {
			out = append(out, of[len(out)])
		}
	}
	return out
}

// trapOf returns the kind of a trap.
func trapOf(err error) string {
	if err == nil {
		return ""
	}
	first, _, _ := strings.Cut(err.Error(), "\n")
	if at := strings.Index(first, "wasm error: "); at >= 0 { // wazero says where a start function trapped
		return first[at:]
	}
	return first
}

// differ runs the module of some bytes, plain and prepared, on both engines:
// all do the same. What the prepared one was charged is no less than the
// instructions that it executed.
func differ(t testing.TB, machines []*machine, source []byte) (yields int, traps []string) {
	plain := generate(source, false)
	p, err := Prepare(plain, DefaultLimits)
	if err != nil {
		t.Fatalf("cannot prepare %x: %v", source, err)
	}
	var want outcome
	var meter metered
	for i, m := range machines {
		g, got, _ := m.run(t, plain, false)
		closeGuest(g)
		if i == 0 {
			want = got
		}
		alike(t, source, "plain", got, want)
		g, got, metering := m.run(t, p.Binary, true)
		closeGuest(g)
		if i == 0 {
			meter = metering
		}
		alike(t, source, "prepared", got, want)
		alike(t, source, "metering", metering, meter)
	}
	g, got, _ := machines[len(machines)-1].run(t, generate(source, true), false)
	defer closeGuest(g)
	alike(t, source, "counting", got, want)
	if g != nil {
		const free = light * (generatedFunctions + 1)                                            // light functions, called by the host
		if executed := int64(g.ExportedGlobal("counter").Get()); meter.Charged+free < executed { //nolint:gosec // a small number
			t.Errorf("%x: charged %d for %d instructions", source, meter.Charged, executed)
		}
	}
	return meter.Yields, want.Traps
}

func closeGuest(g api.Module) {
	if g != nil {
		g.Close(context.Background())
	}
}

func alike(t testing.TB, source []byte, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%x: %s: got %+v, want %+v", source, what, got, want)
	}
}

func newMachines(t testing.TB) []*machine {
	var out []*machine
	for _, e := range engines {
		out = append(out, newMachine(t, e))
	}
	return out
}

// TestDifferential runs some thousand modules.
func TestDifferential(t *testing.T) {
	modules := 500
	if raced {
		modules = 40
	}
	for part := range 4 {
		t.Run(fmt.Sprint(part), func(t *testing.T) {
			t.Parallel()
			machines := newMachines(t)
			random := rand.New(rand.NewPCG(uint64(part), 1)) //nolint:gosec // the same each time
			yields, kinds := 0, map[string]int{}
			for range modules {
				source := make([]byte, random.IntN(1200))
				for i := range source {
					source[i] = byte(random.Uint32())
				}
				n, traps := differ(t, machines, source)
				yields += n
				for _, trap := range traps {
					kinds[trap]++
				}
				if t.Failed() {
					return
				}
			}
			t.Logf("%d yields; %v", yields, kinds)
			if yields < 10*modules || len(kinds) < 6 {
				t.Errorf("the modules yielded %d times and ended in these ways: %v", yields, kinds)
			}
		})
	}
}

// FuzzDifferential is TestDifferential with bytes that look for what is new.
func FuzzDifferential(f *testing.F) {
	random := rand.New(rand.NewPCG(1, 1)) //nolint:gosec // the same each time
	for range 20 {
		source := make([]byte, random.IntN(600))
		for i := range source {
			source[i] = byte(random.Uint32())
		}
		f.Add(source)
	}
	machines := newMachines(f)
	f.Fuzz(func(t *testing.T, source []byte) { differ(t, machines, source[:min(len(source), 4096)]) })
}
