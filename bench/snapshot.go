package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/bench/kernels"
	"github.com/decant-project/decant/internal/wasm"
	"github.com/decant-project/decant/internal/wasm/snapshot"
)

// inUse is how much memory, in MiB, is captured and scanned.
const inUse = 64

// snapshots measures what it takes to take, send and receive a snapshot.
func (e *engine) snapshots(ctx context.Context) (out []figure, err error) {
	_, g, err := e.start(ctx, e.golang.Module)
	if err != nil {
		return nil, err
	}
	snap, err := e.capture(ctx, g, "keep", inUse)
	if err != nil {
		return nil, err
	}
	var wire bytes.Buffer
	if _, err := snap.Encode(&wire); err != nil {
		return nil, err
	}
	limits := snapshot.Limits{Memory: decant.GiB, Files: decant.MiB, Extra: decant.MiB}
	for _, step := range []struct {
		what string
		do   func() (io.Closer, error)
	}{
		{"capture", func() (io.Closer, error) { return g.Capture(ctx) }},
		{"encode", func() (io.Closer, error) {
			_, err := snap.Encode(io.Discard)
			return io.NopCloser(nil), err
		}},
		{"decode", func() (io.Closer, error) {
			s, _, err := wasm.Decode(bytes.NewReader(wire.Bytes()), limits)
			return s, err
		}},
	} {
		took := make([]time.Duration, e.rounds)
		for i := range took {
			if took[i], err = timed(step.do); err != nil {
				return nil, err
			}
		}
		ms := 1000 * quantile(took, .5).Seconds() / inUse
		out = append(out, figure{what: fmt.Sprintf("snapshot of %d MiB, %s, p50", inUse, step.what), ours: fmt.Sprintf("%.2f ms/MiB", ms)})
	}
	return out, nil
}

// capture calls a guest's function with a number and takes a snapshot, which is
// closed with the engine.
func (e *engine) capture(ctx context.Context, g *wasm.Guest, function string, n int) (*wasm.Snapshot, error) {
	if _, err := g.Call(ctx, function, fmt.Appendf(nil, "[%d]", n)); err != nil {
		return nil, err
	}
	snap, err := g.Capture(ctx)
	if err == nil {
		e.opened = append(e.opened, snap)
	}
	return snap, err
}

// timed returns how long it took to make something, which is closed afterwards.
func timed(create func() (io.Closer, error)) (time.Duration, error) {
	began := time.Now()
	made, err := create()
	took := time.Since(began)
	if err != nil {
		return 0, err
	}
	return took, made.Close()
}

// clones measures how long it takes to have another guest like one that was
// captured, beside one that starts from scratch.
func (e *engine) clones(ctx context.Context) ([]figure, error) {
	c, err := kernels.Named("words")
	if err != nil {
		return nil, err
	}
	golang, err := e.clone(ctx, "clone of a guest in Go", e.golang.Module)
	if err != nil {
		return nil, err
	}
	inC, err := e.clone(ctx, "clone of a guest in C", c.Module)
	return []figure{golang, inC}, err
}

func (e *engine) clone(ctx context.Context, what string, module []byte) (f figure, err error) {
	m, g, err := e.start(ctx, module)
	if err != nil {
		return f, err
	}
	snap, err := e.capture(ctx, g, "run", 1)
	if err != nil {
		return f, err
	}
	cloned, started := make([]time.Duration, e.rounds), make([]time.Duration, e.rounds)
	for i := range e.rounds {
		var failed, failedToo error
		cloned[i], failed = timed(func() (io.Closer, error) { return e.host.Restore(ctx, m, wasm.GuestConfig{}, snap) })
		started[i], failedToo = timed(func() (io.Closer, error) { return e.host.Start(ctx, m, wasm.GuestConfig{}) })
		if err := errors.Join(failed, failedToo); err != nil {
			return f, err
		}
	}
	return compare(what, .5, cloned, started, 0), nil
}
