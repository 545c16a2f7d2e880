package wasm

import (
	"context"
	"math"
	"runtime"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/wasm/binary"
)

// slice is the fuel after which a guest yields: 50 us of simple instructions where
// it is compiled, a few milliseconds where it is interpreted; what misses the
// caches or moves many values takes longer. In between nothing can
// stop it, and Go cannot collect garbage: everything in the process that
// allocates may have to wait for it. A yield costs 70 ns.
//
// A guest with much memory has less: each page of it that it touches for the
// first time may take the machine more than a microsecond.
const (
	slice      = 200_000
	shortSlice = 20_000
	muchMemory = 64 << 20
)

// turn is how long a guest computes before others have their turn. Go's scheduler
// alone would let each of them have 10 ms.
const turn = time.Millisecond

type sessionKey struct{}

// instantiateYield adds the function that prepared modules call when their fuel
// or their stack is used up.
func instantiateYield(ctx context.Context, r wazero.Runtime) error {
	yield := func(ctx context.Context, _ api.Module, stack []uint64) {
		s := ctx.Value(sessionKey{}).(*session) //nolint:forcetypeassert // session.begin has put it there
		stack[0] = uint64(s.yield(binary.Meter(stack[0])))
	}
	_, err := r.NewHostModuleBuilder(binary.YieldModule).NewFunctionBuilder().
		WithGoModuleFunction(api.GoModuleFunc(yield), []api.ValueType{api.ValueTypeI64}, []api.ValueType{api.ValueTypeI64}).
		Export(binary.YieldName).Instantiate(ctx)
	return err
}

var errStack = decant.Errorf(decant.Exhausted, "the guest calls functions within functions deeper than its stack allows").
	WithHelp("does it call itself without end?")

// yield looks whether the guest may go on, and gives it another slice. It panics
// if not, which ends the call.
func (s *session) yield(m binary.Meter) binary.Meter {
	s.burnt += int64(s.given - m.Fuel())
	switch config := &s.guest.config; {
	case m.Stack() < 0:
		s.cut = errStack
	case config.Fuel > 0 && s.burnt > config.Fuel:
		s.cut = decant.Errorf(decant.Exhausted, "the call has used more than the %d units of fuel that it may", config.Fuel)
	case s.ctx.Err() != nil:
		s.cut = s.guest.ended(s.ctx, "computing")
	default:
		s.rest()
		return s.next(m.Stack())
	}
	panic(s.cut)
}

// rest lets others have their turn, if that is over which the guest has had.
func (s *session) rest() {
	if time.Since(s.rested) > turn {
		runtime.Gosched()
		s.rested = time.Now()
	}
}

// next is a meter with a slice of fuel, or as much as there is left.
func (s *session) next(stack int32) binary.Meter {
	s.given = slice
	if len(s.memory.Bytes()) > muchMemory {
		s.given = shortSlice
	}
	if left := s.guest.config.Fuel - s.burnt; s.guest.config.Fuel > 0 && left < int64(s.given) {
		s.given = int32(left) //nolint:gosec // less than a slice
	}
	return binary.NewMeter(s.given, stack)
}

// fill sets the meter for a call.
func (s *session) fill() {
	s.burnt = 0
	stack := int32(min(s.guest.config.Stack, math.MaxInt32)) //nolint:gosec // just bounded
	s.meter.Set(uint64(s.next(stack)))                       //nolint:gosec // a bit pattern
}
