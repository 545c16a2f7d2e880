package kernels

import (
	"context"
	"fmt"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"golang.org/x/sys/unix"

	"github.com/decant-project/decant/internal/wasm/binary"
)

// stack is what a guest may take, in bytes.
const stack = 32 << 20

// way is one of the ways in which kernels run.
type way struct {
	name    string
	stop    bool                           // look for a deadline at each turn of a loop
	prepare func(b []byte) ([]byte, error) // nil: run it as it is
}

var ways = []way{{name: "plain"}, {name: "stoppable", stop: true}, {name: "metered", prepare: prepare}}

func prepare(b []byte) ([]byte, error) {
	p, err := binary.Prepare(b, binary.DefaultLimits)
	if err != nil {
		return nil, err
	}
	return p.Binary, nil
}

// guest is a kernel that runs in one of the ways.
type guest struct {
	runtime wazero.Runtime
	run     api.Function
	meter   api.MutableGlobal // nil: not metered
	yields  int
	best    time.Duration // the fastest round
	result  uint64        // of the last call
}

// start starts a kernel.
func (w way) start(ctx context.Context, module []byte) (_ *guest, err error) {
	g := &guest{runtime: wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigCompiler().WithCloseOnContextDone(w.stop))}
	defer func() {
		if err != nil {
			_ = g.runtime.Close(ctx)
		}
	}()
	if w.prepare != nil {
		if module, err = w.prepare(module); err != nil {
			return nil, err
		}
		if err := g.host(ctx); err != nil {
			return nil, err
		}
	}
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, g.runtime); err != nil {
		return nil, err
	}
	config := wazero.NewModuleConfig().WithStartFunctions("_initialize").WithName("").WithSysNanotime().WithSysWalltime()
	compiled, err := g.runtime.CompileModule(ctx, module)
	if err != nil {
		return nil, err
	}
	m, err := g.runtime.InstantiateModule(ctx, compiled, config)
	if err != nil {
		return nil, err
	}
	if g.run = m.ExportedFunction("run"); g.run == nil {
		return nil, fmt.Errorf("it exports no run")
	}
	g.meter, _ = m.ExportedGlobal(binary.MeterName).(api.MutableGlobal)
	return g, nil
}

// host offers the function that a metered guest yields to.
func (g *guest) host(ctx context.Context) error {
	yield := api.GoModuleFunc(func(_ context.Context, _ api.Module, stack []uint64) {
		stack[0] = g.next(binary.Meter(stack[0])) //nolint:gosec // an i64
	})
	_, err := g.runtime.NewHostModuleBuilder(binary.YieldModule).NewFunctionBuilder().
		WithGoModuleFunction(yield, []api.ValueType{api.ValueTypeI64}, []api.ValueType{api.ValueTypeI64}).
		Export(binary.YieldName).Instantiate(ctx)
	return err
}

// next returns the meter that a guest goes on with.
func (g *guest) next(m binary.Meter) uint64 {
	g.yields++
	left := m.Stack()
	if left < 0 {
		left = stack // it was instantiated with none
	}
	return uint64(binary.NewMeter(fuel, left)) //nolint:gosec // an i64
}

// call runs the kernel n times and returns what time of the processor that took.
func (g *guest) call(ctx context.Context, n uint64) (time.Duration, error) {
	if g.meter != nil {
		g.meter.Set(uint64(binary.NewMeter(fuel, stack))) //nolint:gosec // an i64
	}
	began := cpu()
	results, err := g.run.Call(ctx, n)
	took := cpu() - began
	if err == nil {
		g.result = results[0]
	}
	return took, err
}

// cpu returns the time that the processor has given this thread.
func cpu() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		panic(err) // there is such a clock
	}
	return time.Duration(t.Nano())
}
