package supervisor

import (
	"context"
	"errors"
	"io"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/peripheral"
	"github.com/decant-project/decant/internal/transport"
)

// trigger calls an instance with each sample of a peripheral.
type trigger struct {
	peripheral string
	cancel     context.CancelFunc
	done       chan struct{}
}

// setTrigger makes want, which may be nil, the trigger that runs. It is called
// by run alone.
func (in *instance) setTrigger(want *decant.Trigger) {
	if t := in.trigger; t != nil && (want == nil || want.Peripheral != t.peripheral) {
		in.stopTrigger()
	}
	if want == nil || in.trigger != nil {
		return
	}
	ctx, cancel := context.WithCancel(in.sup.kill)
	t := &trigger{peripheral: want.Peripheral, cancel: cancel, done: make(chan struct{})}
	in.trigger = t
	p := in.devices[want.Peripheral]
	go func() {
		defer close(t.done)
		in.pullSamples(ctx, p)
	}()
}

// stopTrigger waits for the call the trigger is in.
func (in *instance) stopTrigger() {
	if in.trigger != nil {
		in.trigger.cancel()
		<-in.trigger.done
		in.trigger = nil
	}
}

// pullSamples calls the instance with one sample after the other until there
// are no more or ctx ends.
func (in *instance) pullSamples(ctx context.Context, p peripheral.Peripheral) {
	in.countSample(func(s *decant.TriggerStats) { *s = decant.TriggerStats{} })
	pause := backoff{first: retryFirst, most: retryMost}
	for {
		sample, err := p.Read(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, io.EOF):
			in.countSample(func(s *decant.TriggerStats) { s.Ended = true })
			in.log.Remark("the trigger has read its last sample")
			in.sup.event("trigger.ended", in.key, "the peripheral has no more samples")
			return
		case err != nil:
			in.noteFailed(decant.Errorf(decant.CodeOf(err), "cannot read a sample: %w", err))
			if !sleep(ctx, pause.next()) {
				return
			}
			continue
		}
		pause.reset()
		err = in.callWith(ctx, sample)
		in.countSample(func(s *decant.TriggerStats) {
			s.Samples++
			if err != nil {
				s.Failed++
			}
		})
	}
}

// callWith calls the instance with a sample, again while nothing was executed.
// A call that has begun is not ended by ctx.
func (in *instance) callWith(ctx context.Context, sample peripheral.Sample) error {
	pause := backoff{first: reachFirst, most: reachMost}
	for {
		_, err := in.call(in.sup.kill, &transport.Request{
			ContentType: sample.ContentType,
			Body:        sample.Data,
		})
		if !errors.Is(err, decant.Unavailable) || !sleep(ctx, pause.next()) {
			return err
		}
	}
}

func (in *instance) countSample(count func(*decant.TriggerStats)) {
	in.mu.Lock()
	defer in.mu.Unlock()
	count(&in.samples)
}
