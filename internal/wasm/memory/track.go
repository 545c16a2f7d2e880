package memory

import (
	"errors"
	"sync"

	"github.com/decant-project/decant"
)

// Kind is how a tracker knows what was written.
type Kind string

// The kinds of trackers.
const (
	Kernel Kind = "kernel" // the kernel notes the pages that are written to (Linux 6.7)
	Hashes Kind = "hashes" // all pages are read, and their hashes compared
)

// Tracker tells which pages of a memory were written. It misses no page whose
// contents changed; one of kind Kernel also tells of pages that were written
// with what they had. It is safe for concurrent use.
type Tracker struct {
	memory *Memory
	kind   Kind

	mu      sync.Mutex // guards what follows
	scanner scanner    // nil once closed
}

// scanner finds the pages of b that were written since it was made or last
// asked. b is the memory as it is now: the same bytes, or more behind them.
// After an error it is of no further use.
type scanner interface {
	dirty(b []byte) ([]Range, error)
	close() error
}

// Track begins to track which pages are written, by the kernel where it can and
// else by hashes. A memory has one tracker at a time: Conflict.
func (m *Memory) Track() (*Tracker, error) {
	if t, err := m.TrackBy(Kernel); err == nil {
		return t, nil
	}
	return m.TrackBy(Hashes)
}

// TrackBy is Track by one kind. Unsupported: this machine does not have it, or
// not for this memory.
func (m *Memory) TrackBy(kind Kind) (*Tracker, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.freed:
		return nil, errFreed
	case m.tracked:
		return nil, decant.Errorf(decant.Conflict, "cannot track a memory twice at a time")
	}
	s, err := m.newScanner(kind)
	if err != nil {
		return nil, decant.Errorf(decant.Unsupported, "cannot track a memory by %s: %w", kind, err)
	}
	m.tracked = true
	return &Tracker{memory: m, kind: kind, scanner: s}, nil
}

var errFreed = decant.Errorf(decant.Conflict, "the memory was freed")

func (m *Memory) newScanner(kind Kind) (scanner, error) {
	switch {
	case kind == Hashes:
		return newHashScanner(m.bytes), nil
	case !m.mapped:
		return nil, errors.New("it is on Go's heap")
	}
	if err := tryKernel(); err != nil {
		return nil, err
	}
	return newKernelScanner(m.space, m.bytes)
}

// Kind returns how the tracker knows what was written.
func (t *Tracker) Kind() Kind { return t.kind }

// Dirty returns what was written since the tracker was made or Dirty was last
// called: in order, in whole pages, and so that no two ranges touch. Of what the
// memory grew by, that is what is not zero. What the guest writes meanwhile is
// told now or the next time, so whoever reads the pages after Dirty and goes on
// until there are none has them all. After an error the tracker is of no further
// use: what it would have told is lost.
func (t *Tracker) Dirty() ([]Range, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.memory.mu.Lock()
	defer t.memory.mu.Unlock()
	switch {
	case t.scanner == nil:
		return nil, decant.Errorf(decant.Conflict, "the tracker is closed")
	case t.memory.freed:
		return nil, errFreed // others may have its address space by now
	}
	ranges, err := t.scanner.dirty(t.memory.bytes)
	if err != nil {
		return nil, decant.Errorf(decant.Internal, "cannot find what a guest wrote: %w", err)
	}
	return ranges, nil
}

// Close ends the tracking.
func (t *Tracker) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.scanner == nil {
		return nil
	}
	err := t.scanner.close()
	t.scanner = nil
	t.memory.mu.Lock()
	defer t.memory.mu.Unlock()
	t.memory.tracked = false
	return err
}
