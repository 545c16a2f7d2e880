package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/tetratelabs/wazero"

	"github.com/decant-project/decant/bench/kernels"
)

const (
	busyGuests = 4
	processors = 2
	tick       = time.Millisecond
	collect    = 50 * time.Millisecond // between collections of garbage
	turn       = time.Second           // for which a crowd is busy
	turns      = 9                     // of each crowd
	atOnce     = 200                   // how often a call runs the kernel: for a tenth of a second, as plain wazero stops no guest
	maxStall   = 50 * time.Millisecond
)

// crowd is guests that are busy all at once.
type crowd struct {
	guests []func(context.Context) error // a call of each
	stalls []time.Duration               // the worst of each turn
}

// stalls measures how long busy guests hold up a host that has other things to
// do, beside none, and beside the same guests in plain wazero.
func (e *engine) stalls(ctx context.Context) ([]figure, error) {
	kernel, err := kernels.Named("mandelbrot")
	if err != nil {
		return nil, err
	}
	ours, err := e.crowd(ctx, kernel.Module)
	if err != nil {
		return nil, err
	}
	r := wazero.NewRuntime(ctx)
	defer r.Close(ctx)
	plain, err := plainCrowd(ctx, r, kernel.Module)
	if err != nil {
		return nil, err
	}
	none := &crowd{}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(processors))
	for range turns {
		for _, c := range []*crowd{none, ours, plain} {
			if err := c.turn(ctx); err != nil {
				return nil, err
			}
		}
	}
	worst := compare("stall, beside no guests", 1, ours.stalls, none.stalls, 0)
	worst.goal, worst.held = "≤ "+maxStall.String(), slices.Max(ours.stalls) <= maxStall
	return []figure{
		compare("stall, beside no guests", .5, ours.stalls, none.stalls, 0), worst,
		compare("stall, beside plain wazero", .5, ours.stalls, plain.stalls, 0),
		compare("stall, beside plain wazero", 1, ours.stalls, plain.stalls, 0),
	}, nil
}

// crowd starts guests as a device does.
func (e *engine) crowd(ctx context.Context, module []byte) (*crowd, error) {
	c := &crowd{}
	for range busyGuests {
		_, g, err := e.start(ctx, module)
		if err != nil {
			return nil, err
		}
		c.guests = append(c.guests, func(ctx context.Context) error {
			_, err := g.Call(ctx, "run", fmt.Appendf(nil, "[%d]", atOnce))
			return err
		})
	}
	return c, nil
}

func plainCrowd(ctx context.Context, r wazero.Runtime, module []byte) (*crowd, error) {
	c := &crowd{}
	for range busyGuests {
		m, err := r.InstantiateWithConfig(ctx, module, wazero.NewModuleConfig().WithName(""))
		if err != nil {
			return nil, err
		}
		run := m.ExportedFunction("run")
		c.guests = append(c.guests, func(ctx context.Context) error {
			_, err := run.Call(ctx, atOnce)
			return err
		})
	}
	return c, nil
}

// turn keeps the guests busy for a turn, and notes the worst stall.
func (c *crowd) turn(ctx context.Context) error {
	over, cancel := context.WithTimeout(ctx, turn)
	defer cancel()
	var busy sync.WaitGroup
	errs := make([]error, len(c.guests))
	for i, call := range c.guests {
		busy.Go(func() {
			for over.Err() == nil && errs[i] == nil {
				errs[i] = call(ctx)
			}
		})
	}
	busy.Go(func() { collecting(over) })
	c.stalls = append(c.stalls, ticking(over))
	busy.Wait()
	return errors.Join(append(errs, ctx.Err())...)
}

// ticking ticks until ctx is done, and returns the longest time between two
// ticks.
func ticking(ctx context.Context) (worst time.Duration) {
	t := time.NewTicker(tick)
	defer t.Stop()
	for last := time.Now(); ctx.Err() == nil; last = time.Now() {
		<-t.C
		worst = max(worst, time.Since(last))
	}
	return worst
}

// collecting collects garbage every so often until ctx is done.
func collecting(ctx context.Context) {
	t := time.NewTicker(collect)
	defer t.Stop()
	for ctx.Err() == nil {
		<-t.C
		runtime.GC()
	}
}
