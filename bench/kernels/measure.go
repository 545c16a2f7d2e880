package kernels

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"strings"
	"time"
)

const (
	round = 4 * time.Millisecond // how long a round takes, about
	fuel  = 200_000              // of a slice, as internal/wasm has it
)

// Cost is what came out for a kernel. Times are of the processor, for the fastest
// round.
type Cost struct {
	Kernel                    string
	Plain, Stoppable, Metered time.Duration
	YieldsPerMs               float64 // of the metered one
	Size                      float64 // of the metered module, 1 is that of the original
}

// SIMD reports whether the kernel is one with SIMD.
func (c Cost) SIMD() bool { return strings.HasSuffix(c.Kernel, ".simd") }

// Ratio returns how much longer took is than plain wazero takes.
func (c Cost) Ratio(took time.Duration) float64 { return float64(took) / float64(c.Plain) }

// Measure measures a kernel: all ways in turns, for as many rounds. An error if
// their answers differ.
func (k Kernel) Measure(ctx context.Context, rounds int) (c Cost, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: %w", k.Name, err)
		}
	}()
	runtime.LockOSThread() // its time is what is measured
	defer runtime.UnlockOSThread()
	// A context that ends is what makes wazero look whether it did.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var running []*guest
	for _, w := range ways {
		g, err := w.start(ctx, k.Module)
		if err != nil {
			return c, fmt.Errorf("%s: %w", w.name, err)
		}
		defer g.runtime.Close(ctx)
		running = append(running, g)
	}
	n, err := running[0].calls(ctx)
	if err != nil {
		return c, err
	}
	if err := compete(ctx, running, n, rounds); err != nil {
		return c, err
	}
	return k.cost(running)
}

// calls returns how often the kernel runs in a round.
func (g *guest) calls(ctx context.Context) (uint64, error) {
	if _, err := g.call(ctx, 1); err != nil { // the first is slow
		return 0, err
	}
	for n := uint64(1); ; n *= 2 {
		took, err := g.call(ctx, n)
		if err != nil || took > round*2/3 || n > 1<<30 {
			return n, err
		}
	}
}

// compete lets the guests run in turns, each time in another order, and holds
// that their answers are alike.
func compete(ctx context.Context, running []*guest, n uint64, rounds int) error {
	for round := range rounds {
		for i := range running {
			g := running[(i+round)%len(running)]
			g.yields = 0
			took, err := g.call(ctx, n)
			if err != nil {
				return err
			}
			if g.best == 0 || took < g.best {
				g.best = took
			}
		}
		for i, g := range running {
			if g.result != running[0].result {
				return fmt.Errorf("%s answers %d, plain wazero %d", ways[i].name, g.result, running[0].result)
			}
		}
	}
	return nil
}

// cost returns what came out of the guests that ran, one for each way.
func (k Kernel) cost(ran []*guest) (Cost, error) {
	plain, stoppable, metered := ran[0], ran[1], ran[2]
	prepared, err := prepare(k.Module)
	return Cost{
		Kernel: k.Name, Plain: plain.best, Stoppable: stoppable.best, Metered: metered.best,
		YieldsPerMs: float64(metered.yields) / (metered.best.Seconds() * 1000),
		Size:        float64(len(prepared)) / float64(len(k.Module)),
	}, err
}

// Summarize returns the geometric mean, over kernels, of the ratio of what they
// took, and the kernel where it is worst.
func Summarize(costs []Cost, took func(Cost) time.Duration) (mean float64, worst Cost) {
	logs := 0.0
	for i, c := range costs {
		logs += math.Log(c.Ratio(took(c)))
		if i == 0 || c.Ratio(took(c)) > worst.Ratio(took(worst)) {
			worst = c
		}
	}
	return math.Exp(logs / float64(len(costs))), worst
}
