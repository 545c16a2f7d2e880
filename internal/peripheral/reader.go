package peripheral

import (
	"context"
	"sync"
	"time"

	"github.com/decant-project/decant"
)

// source makes samples, one call at a time. lasts is the time that a sample
// covers, 0 where it is of a moment. After an error the next call goes on
// behind what failed; io.EOF stays.
type source interface {
	next() (s Sample, lasts time.Duration, err error)
	close() error
}

// reader is a Peripheral that paces a source: each sample is due some time
// after the one before, the first that time after the first Read. No sample is
// dropped: a reader that was late gets the ones overdue at once.
type reader struct {
	name, kind string
	every      time.Duration // between samples; 0: as long as each lasts

	turn   chan struct{} // holds one: whoever reads owns the fields below
	source source
	due    time.Time // of the last sample; zero before the first Read
	taken  *Sample   // from source, not yet given out

	close  sync.Once
	closed chan struct{}
}

func newReader(c Config, s source, every time.Duration) *reader {
	return &reader{
		name: c.Name, kind: c.Type, every: every, source: s,
		turn: make(chan struct{}, 1), closed: make(chan struct{}),
	}
}

// Read implements Peripheral.
func (r *reader) Read(ctx context.Context) (Sample, error) {
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	case <-r.closed:
		return Sample{}, r.errClosed()
	case <-ctx.Done():
		return Sample{}, ctx.Err()
	}
	if err := r.ended(ctx); err != nil {
		return Sample{}, err
	}
	if r.due.IsZero() {
		r.due = time.Now()
	}
	if r.taken == nil {
		if err := r.take(); err != nil {
			return Sample{}, err
		}
	}
	if err := r.wait(ctx); err != nil {
		return Sample{}, err
	}
	s := *r.taken
	r.taken = nil
	return s, nil
}

// take gets the next sample and sets when it is due.
func (r *reader) take() error {
	s, lasts, err := r.source.next()
	if err != nil {
		return err
	}
	if r.every > 0 {
		lasts = r.every
	}
	if lasts > 0 {
		r.due = r.due.Add(lasts)
	} else {
		r.due = time.Now()
	}
	s.At = r.due
	r.taken = &s
	return nil
}

func (r *reader) wait(ctx context.Context) error {
	timer := time.NewTimer(time.Until(r.due))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-r.closed:
		return r.errClosed()
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *reader) ended(ctx context.Context) error {
	select {
	case <-r.closed:
		return r.errClosed()
	default:
		return ctx.Err()
	}
}

func (r *reader) errClosed() error {
	return decant.Errorf(decant.Unavailable, "peripheral %s is closed", r.name)
}

// Write implements Peripheral: it cannot.
func (r *reader) Write(context.Context, []byte) error {
	return decant.Errorf(decant.Unsupported, "peripheral %s, a %s, cannot be written", r.name, r.kind)
}

// Close ends each Read under way and waits for it.
func (r *reader) Close() error {
	var err error
	r.close.Do(func() {
		close(r.closed)
		r.turn <- struct{}{}
		err = r.source.close()
		<-r.turn
	})
	return err
}
