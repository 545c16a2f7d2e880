package orchestrator

import (
	"context"
	"errors"
	"time"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/state"
)

// Events returns the newest events, the oldest of them first.
func (o *Orchestrator) Events(ctx context.Context, newest int) ([]decant.Event, error) {
	events, _, err := o.events(ctx, newest)
	return events, err
}

// WatchEvents sends the newest events and then each that happens, until ctx
// ends or send fails.
func (o *Orchestrator) WatchEvents(ctx context.Context, newest int, send func(decant.Event) error) error {
	events, rev, err := o.events(ctx, newest)
	if err != nil {
		return err
	}
	for _, e := range events {
		if err := send(e); err != nil {
			return err
		}
	}
	for batch := range o.State.Watch(ctx, eventsPrefix, rev) {
		if batch.Err != nil {
			return batch.Err
		}
		for _, c := range batch.Changes {
			if c.Deleted {
				continue
			}
			var e decant.Event
			if err := decode(c.KV, &e); err != nil {
				return err
			}
			if err := send(e); err != nil {
				return err
			}
		}
	}
	return ctx.Err()
}

func (o *Orchestrator) events(ctx context.Context, newest int) ([]decant.Event, int64, error) {
	kvs, rev, err := o.State.List(ctx, eventsPrefix, 0)
	if err != nil {
		return nil, 0, err
	}
	kvs = kvs[max(0, len(kvs)-newest):]
	out := make([]decant.Event, 0, len(kvs))
	for _, kv := range kvs {
		var e decant.Event
		if err := decode(kv, &e); err != nil {
			return nil, 0, err
		}
		out = append(out, e)
	}
	return out, rev, nil
}

// event writes down that something happened. Events are for people: failing to
// write one fails nothing else.
func (o *Orchestrator) event(ctx context.Context, e decant.Event) {
	if e.At.IsZero() {
		e.At = time.Now().UTC()
	}
	o.Log.Info(e.Message, "event", e.Kind, "device", e.Device, "application", e.Application, "component", e.Component)
	for {
		key := eventKey(e.At)
		err := o.commit(ctx, []state.Cond{{Key: key}}, put(key, e))
		if errors.Is(err, decant.Conflict) {
			e.At = e.At.Add(1) // another happened at the same moment
			continue
		}
		if err == nil && o.written.Add(1)%trimEvery == 0 {
			_, err = o.trimEvents(ctx)
		}
		if err != nil && ctx.Err() == nil {
			o.Log.Warn("cannot keep events", "error", err)
		}
		return
	}
}

// Housekeeping, in time and number.
const (
	houseEvery  = 10 * time.Minute
	keepEvents  = 5000
	trimEvery   = 500            // events written: devices may tell of many meanwhile
	keepUnnamed = 24 * time.Hour // files that were put, or asked for, for a push
)

// keepHouse forgets old events and history, and blobs that nothing names.
func (o *Orchestrator) keepHouse(ctx context.Context) error {
	tick := time.NewTicker(houseEvery)
	defer tick.Stop()
	var before int64 // revision of the last time: who watches has got past it
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now, err := o.tidy(ctx, before)
		if err != nil && ctx.Err() == nil {
			o.Log.Warn("cannot tidy up", "error", err)
		}
		before = now
	}
}

// tidy forgets old events, files that nothing names, and the history up to a
// revision, and returns the revision of now.
func (o *Orchestrator) tidy(ctx context.Context, compact int64) (int64, error) {
	if _, err := o.Packages.Sweep(ctx, time.Now().Add(-keepUnnamed)); err != nil {
		return 0, err
	}
	rev, err := o.trimEvents(ctx)
	if err != nil || compact == 0 {
		return rev, err
	}
	if err := o.State.Compact(ctx, compact); err != nil && !errors.Is(err, state.ErrCompacted) {
		return 0, err
	}
	return rev, nil
}

// trimEvents forgets old events, and returns the revision of now.
func (o *Orchestrator) trimEvents(ctx context.Context) (int64, error) {
	events, rev, err := o.State.List(ctx, eventsPrefix, 0)
	if err != nil {
		return 0, err
	}
	const most = 500 // ops in a transaction
	for old := events[:max(0, len(events)-keepEvents)]; len(old) > 0; {
		n := min(len(old), most)
		var t state.Txn
		for _, kv := range old[:n] {
			t.Then = append(t.Then, state.Op{Key: kv.Key, Delete: true})
		}
		if _, err := o.State.Commit(ctx, t); err != nil {
			return 0, err
		}
		old = old[n:]
	}
	return rev, nil
}
