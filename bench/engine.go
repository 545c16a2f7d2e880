package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/decant-project/decant/bench/kernels"
	"github.com/decant-project/decant/internal/wasm"
	"github.com/decant-project/decant/internal/wasm/binary"
)

const (
	maxFuelMean  = 1.15 // beside plain wazero
	maxFuelWorst = 1.40
	leastPrepare = 50.0 // MB/s
)

// engine is what guests are measured with.
type engine struct {
	host   *wasm.Host
	golang kernels.Kernel
	rounds int
	opened []io.Closer // to close before the host, the last one first
}

// engine measures what internal/wasm makes of wazero.
func (r *report) engine(ctx context.Context, rounds int) (out []figure, err error) {
	e := &engine{rounds: max(5, rounds/40)}
	if e.golang, err = kernels.Go(ctx); err != nil {
		return nil, err
	}
	if e.host, err = wasm.New(ctx, wasm.Config{}); err != nil {
		return nil, err
	}
	defer e.close()
	if r.costs, err = e.costs(ctx); err != nil {
		return nil, err
	}
	out = fuel(r.costs)
	for _, measure := range []func(context.Context) ([]figure, error){e.stalls, e.preparing, e.snapshots, e.clones, e.scans} {
		found, err := measure(ctx)
		if err != nil {
			return nil, err
		}
		out = append(out, found...)
	}
	return out, nil
}

func (e *engine) close() {
	for len(e.opened) > 0 {
		last := len(e.opened) - 1
		_ = e.opened[last].Close()
		e.opened = e.opened[:last]
	}
	_ = e.host.Close()
}

// start starts a guest, which is closed with the engine.
func (e *engine) start(ctx context.Context, module []byte) (*wasm.Module, *wasm.Guest, error) {
	m, err := e.host.Compile(ctx, module)
	if err != nil {
		return nil, nil, err
	}
	e.opened = append(e.opened, m)
	g, err := e.host.Start(ctx, m, wasm.GuestConfig{})
	if err != nil {
		return nil, nil, err
	}
	e.opened = append(e.opened, g)
	return m, g, nil
}

// costs returns what fuel costs each kernel.
func (e *engine) costs(ctx context.Context) (costs []kernels.Cost, err error) {
	all, err := kernels.C()
	if err != nil {
		return nil, err
	}
	for _, k := range append(all, e.golang) {
		cost, err := k.Measure(ctx, e.rounds)
		if err != nil {
			return nil, err
		}
		costs = append(costs, cost)
	}
	return costs, nil
}

// fuel sums up what it costs, and what wazero's own way to end a guest does.
func fuel(costs []kernels.Cost) []figure {
	metered := func(c kernels.Cost) time.Duration { return c.Metered }
	stoppable := func(c kernels.Cost) time.Duration { return c.Stoppable }
	var scalar, simd []kernels.Cost
	for _, c := range costs {
		if c.SIMD() {
			simd = append(simd, c)
		} else {
			scalar = append(scalar, c)
		}
	}
	return slices.Concat(
		summary("fuel, scalar", scalar, metered, maxFuelMean, maxFuelWorst),
		summary("fuel, SIMD", simd, metered, maxFuelMean, maxFuelWorst),
		summary("WithCloseOnContextDone, scalar", scalar, stoppable, 0, 0),
		summary("WithCloseOnContextDone, SIMD", simd, stoppable, 0, 0),
	)
}

func summary(what string, costs []kernels.Cost, took func(kernels.Cost) time.Duration, maxMean, maxWorst float64) []figure {
	mean, worst := kernels.Summarize(costs, took)
	return []figure{
		figure{what: what + ", geometric mean"}.beside(mean, maxMean),
		figure{what: what + ", worst: " + worst.Kernel, ours: rounded(took(worst)), limit: rounded(worst.Plain)}.
			beside(worst.Ratio(took(worst)), maxWorst),
	}
}

// preparing measures how fast a module is rewritten to count fuel.
func (e *engine) preparing(context.Context) ([]figure, error) {
	var best time.Duration
	for range e.rounds {
		began := time.Now()
		if _, err := binary.Prepare(e.golang.Module, binary.DefaultLimits); err != nil {
			return nil, err
		}
		if took := time.Since(began); best == 0 || took < best {
			best = took
		}
	}
	speed := float64(len(e.golang.Module)) / megabyte / best.Seconds()
	return []figure{{
		what: "a module in Go is rewritten", ours: fmt.Sprintf("%.0f MB/s", speed),
		goal: fmt.Sprintf("≥ %.0f MB/s", leastPrepare), held: speed >= leastPrepare,
	}}, nil
}
