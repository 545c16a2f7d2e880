package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/wasm/memory"
)

// scans measures how long it takes to know which pages of a memory were written.
func (e *engine) scans(context.Context) (out []figure, err error) {
	for _, kind := range []memory.Kind{memory.Kernel, memory.Hashes} {
		took, err := e.scan(kind)
		f := figure{what: fmt.Sprintf("scan of %d MiB by %s, p50", inUse, kind)}
		switch {
		case errors.Is(err, decant.Unsupported): // an older kernel
		case err != nil:
			return nil, err
		default:
			f.ours = rounded(quantile(took, .5))
		}
		out = append(out, f)
	}
	return out, nil
}

func (e *engine) scan(kind memory.Kind) (took []time.Duration, err error) {
	const dirty = 16
	m := memory.New(inUse << 20)
	b := m.Allocate(0, inUse<<20).Reallocate(inUse << 20)
	defer m.Free()
	for at := range b {
		b[at] = byte(at) | 1
	}
	t, err := m.TrackBy(kind)
	if err != nil {
		return nil, err
	}
	defer t.Close()
	for range e.rounds {
		for i := range dirty {
			b[i*len(b)/dirty]++
		}
		began := time.Now()
		found, err := t.Dirty()
		took = append(took, time.Since(began))
		if err == nil && len(found) != dirty {
			err = fmt.Errorf("of %d pages that were written %d were found", dirty, len(found))
		}
		if err != nil {
			return nil, err
		}
	}
	return took, nil
}
