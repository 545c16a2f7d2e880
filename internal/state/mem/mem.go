// Package mem is the state store's engine: all of the state and its history in
// memory, made durable by a Journal where it has one. Without one it is what
// tests use; package sqlite is one with a journal in a database file.
package mem

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/state"
)

// Journal keeps what a Store has promised to keep.
type Journal interface {
	// Load returns all that was appended and not compacted.
	Load() (Image, error)
	// Append makes commits and lease changes durable, all or none.
	Append(commits []Commit, leases []LeaseChange) error
	// Compact forgets what no revision after this one needs. last is the
	// newest revision there is.
	Compact(revision, last int64) error
	Close() error
}

// Image is what a journal holds.
type Image struct {
	Revision  int64 // of the last commit
	Compacted int64
	Commits   []Commit // in order
	Leases    map[state.LeaseID]time.Duration
}

// Commit is one commit: its changes all carry its revision.
type Commit struct {
	Revision int64
	Changes  []state.Change
}

// LeaseChange is a lease that was granted, or with no TTL one that ended.
type LeaseChange struct {
	ID  state.LeaseID
	TTL time.Duration
}

// Limits of the contract.
const (
	maxKey   = 1 << 10
	maxValue = 1 << 20
	maxOps   = 1000
)

// Store implements state.Store.
type Store struct {
	journal  Journal
	requests chan *request
	closing  chan struct{}
	close    sync.Once
	wg       sync.WaitGroup // the writer

	mu        sync.RWMutex // guards what follows; only the writer changes it, but for leases' timers
	revision  int64
	compacted int64
	keys      []string                  // every key of history, sorted
	history   map[string][]state.Change // by key, oldest first
	commits   []Commit                  // after compacted, oldest first
	leases    map[state.LeaseID]*lease
	nextLease state.LeaseID
	changed   chan struct{} // closed and replaced with each commit
}

type lease struct {
	ttl   time.Duration
	timer *time.Timer
}

// New makes an empty store that forgets all when it is closed.
func New() *Store {
	s, err := Open(nil)
	if err != nil {
		panic(err) // there is no journal to fail
	}
	return s
}

// Open makes a store of what journal holds; the store closes it.
func Open(journal Journal) (*Store, error) {
	s := &Store{
		journal:  journal,
		requests: make(chan *request, 256),
		closing:  make(chan struct{}),
		history:  map[string][]state.Change{},
		leases:   map[state.LeaseID]*lease{},
		changed:  make(chan struct{}),
	}
	if journal != nil {
		image, err := journal.Load()
		if err != nil {
			return nil, err
		}
		for _, c := range image.Commits {
			s.apply(c)
		}
		s.revision, s.compacted = image.Revision, image.Compacted
		s.commits = slices.DeleteFunc(s.commits, func(c Commit) bool { return c.Revision <= image.Compacted })
		for id, ttl := range image.Leases {
			s.addLease(id, ttl)
		}
	}
	s.wg.Go(s.write)
	return s, nil
}

// apply takes a durable commit into memory. s.mu is held.
func (s *Store) apply(c Commit) {
	for _, change := range c.Changes {
		past, known := s.history[change.Key]
		if !known {
			i, _ := slices.BinarySearch(s.keys, change.Key)
			s.keys = slices.Insert(s.keys, i, change.Key)
		}
		s.history[change.Key] = append(past, change)
	}
	s.commits = append(s.commits, c)
	s.revision = c.Revision
}

// latest returns the last change of key.
func (s *Store) latest(key string) (state.Change, bool) {
	past := s.history[key]
	if len(past) == 0 {
		return state.Change{}, false
	}
	return past[len(past)-1], true
}

// Get implements state.Store.
func (s *Store) Get(ctx context.Context, key string) (state.KV, error) {
	if err := s.alive(ctx); err != nil {
		return state.KV{}, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	c, ok := s.latest(key)
	if !ok || c.Deleted {
		return state.KV{}, decant.Errorf(decant.NotFound, "there is no key %q", key)
	}
	return c.KV, nil
}

// List implements state.Store.
func (s *Store) List(ctx context.Context, prefix string, revision int64) ([]state.KV, int64, error) {
	if err := s.alive(ctx); err != nil {
		return nil, 0, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	at := revision
	switch {
	case revision == 0:
		at = s.revision
	case revision < 0 || revision > s.revision:
		return nil, 0, decant.Errorf(decant.Invalid, "revision %d is not between 1 and %d", revision, s.revision)
	case revision < s.compacted:
		return nil, 0, state.ErrCompacted
	}
	var out []state.KV
	for i, _ := slices.BinarySearch(s.keys, prefix); i < len(s.keys) && strings.HasPrefix(s.keys[i], prefix); i++ {
		if c, ok := lastAt(s.history[s.keys[i]], at); ok && !c.Deleted {
			out = append(out, c.KV)
		}
	}
	return out, at, nil
}

// lastAt returns the last change of past that is not after revision.
func lastAt(past []state.Change, revision int64) (state.Change, bool) {
	for i := len(past) - 1; i >= 0; i-- {
		if past[i].ModRevision <= revision {
			return past[i], true
		}
	}
	return state.Change{}, false
}

// watchBurst is how many commits a watcher takes from the history at a time.
const watchBurst = 128

// Watch implements state.Store.
func (s *Store) Watch(ctx context.Context, prefix string, after int64) <-chan state.Batch {
	out := make(chan state.Batch)
	go func() {
		defer close(out)
		send := func(b state.Batch) bool {
			select {
			case out <- b:
				return b.Err == nil
			case <-ctx.Done():
				return false
			}
		}
		for {
			batches, seen, changed, err := s.since(prefix, after)
			if err != nil {
				send(state.Batch{Err: err})
				return
			}
			for _, b := range batches {
				if !send(b) {
					return
				}
			}
			if after = seen; changed == nil {
				continue
			}
			select {
			case <-ctx.Done():
				return
			case <-changed:
			case <-s.closing:
				send(state.Batch{Err: errClosed})
				return
			}
		}
	}()
	return out
}

// since returns the next commits after revision that concern prefix, the
// revision they reach to, and, if that is the present, what is closed when
// there are more.
func (s *Store) since(prefix string, revision int64) (batches []state.Batch, seen int64, changed <-chan struct{}, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if revision < s.compacted {
		return nil, 0, nil, state.ErrCompacted
	}
	start, _ := slices.BinarySearchFunc(s.commits, revision+1, func(c Commit, r int64) int { return int(c.Revision - r) })
	seen = revision
	for i, c := range s.commits[start:] {
		if i == watchBurst {
			return batches, seen, nil, nil
		}
		seen = c.Revision
		b := state.Batch{Revision: c.Revision}
		for _, change := range c.Changes {
			if strings.HasPrefix(change.Key, prefix) {
				b.Changes = append(b.Changes, change)
			}
		}
		if len(b.Changes) > 0 {
			batches = append(batches, b)
		}
	}
	return batches, seen, s.changed, nil
}

// Commit implements state.Store.
func (s *Store) Commit(ctx context.Context, t state.Txn) (int64, error) {
	if err := check(t); err != nil {
		return 0, err
	}
	then := make([]state.Op, len(t.Then))
	for i, op := range t.Then {
		op.Value = bytes.Clone(op.Value) // the caller may use its own again
		then[i] = op
	}
	r, err := s.do(ctx, &request{txn: state.Txn{If: t.If, Then: then}})
	return r.revision, err
}

func check(t state.Txn) error {
	if len(t.Then) > maxOps || len(t.If) > maxOps {
		return decant.Errorf(decant.Exhausted, "a transaction of %d conditions and %d changes: %d of each at most", len(t.If), len(t.Then), maxOps)
	}
	seen := map[string]bool{}
	for _, op := range t.Then {
		switch {
		case op.Key == "":
			return decant.Errorf(decant.Invalid, "a key must not be empty")
		case len(op.Key) > maxKey:
			return decant.Errorf(decant.Exhausted, "key of %d bytes: %d at most", len(op.Key), maxKey)
		case len(op.Value) > maxValue:
			return decant.Errorf(decant.Exhausted, "value of %q has %d bytes: %d at most", op.Key, len(op.Value), maxValue)
		case seen[op.Key]:
			return decant.Errorf(decant.Invalid, "a transaction changes key %q twice", op.Key)
		}
		seen[op.Key] = true
	}
	return nil
}

// Grant implements state.Store.
func (s *Store) Grant(ctx context.Context, ttl time.Duration) (state.LeaseID, error) {
	if ttl <= 0 {
		return 0, decant.Errorf(decant.Invalid, "a lease of %s", ttl)
	}
	r, err := s.do(ctx, &request{grant: ttl})
	return r.lease, err
}

// KeepAlive implements state.Store.
func (s *Store) KeepAlive(ctx context.Context, id state.LeaseID) error {
	if err := s.alive(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.leases[id]
	if l == nil || !l.timer.Stop() {
		return noLease(id)
	}
	l.timer.Reset(l.ttl)
	return nil
}

// Revoke implements state.Store.
func (s *Store) Revoke(ctx context.Context, id state.LeaseID) error {
	_, err := s.do(ctx, &request{revoke: id})
	return err
}

// Compact implements state.Store.
func (s *Store) Compact(ctx context.Context, revision int64) error {
	_, err := s.do(ctx, &request{compact: revision})
	return err
}

// Close implements state.Store. Commits under way end first.
func (s *Store) Close() error {
	var err error
	s.close.Do(func() {
		close(s.closing)
		s.wg.Wait()
		s.mu.Lock()
		for _, l := range s.leases {
			l.timer.Stop()
		}
		s.mu.Unlock()
		if s.journal != nil {
			err = s.journal.Close()
		}
	})
	return err
}

var errClosed = decant.Errorf(decant.Unavailable, "the state store is closed")

func noLease(id state.LeaseID) error {
	return decant.Errorf(decant.NotFound, "there is no lease %d", id)
}

func (s *Store) alive(ctx context.Context) error {
	select {
	case <-s.closing:
		return errClosed
	default:
		return ctx.Err()
	}
}

// addLease starts a lease's time. s.mu is held, or nobody else has s yet.
func (s *Store) addLease(id state.LeaseID, ttl time.Duration) {
	s.nextLease = max(s.nextLease, id)
	s.leases[id] = &lease{ttl: ttl, timer: time.AfterFunc(ttl, func() {
		// Nobody waits for the answer; while the journal fails the lease goes
		// on, and is tried again after another TTL.
		if _, err := s.do(context.Background(), &request{revoke: id}); err != nil {
			s.mu.Lock()
			defer s.mu.Unlock()
			if l := s.leases[id]; l != nil {
				l.timer.Reset(l.ttl)
			}
		}
	})}
}
