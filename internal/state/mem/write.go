package mem

import (
	"context"
	"slices"
	"time"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/state"
)

// request is something for the writer to do: one of its fields is set.
type request struct {
	txn     state.Txn
	grant   time.Duration
	revoke  state.LeaseID
	compact int64

	result result
	done   chan struct{}
}

type result struct {
	revision int64
	lease    state.LeaseID
	err      error
}

// do has the writer do r and waits for it.
func (s *Store) do(ctx context.Context, r *request) (result, error) {
	if err := s.alive(ctx); err != nil {
		return result{}, err
	}
	r.done = make(chan struct{})
	select {
	case s.requests <- r:
	case <-ctx.Done():
		return result{}, ctx.Err()
	case <-s.closing:
		return result{}, errClosed
	}
	select {
	case <-r.done:
		return r.result, r.result.err
	case <-ctx.Done():
		return result{}, ctx.Err() // it may yet be done
	}
}

// write does requests until the store is closed. Those that wait together
// become durable together (group commit).
func (s *Store) write() {
	for {
		select {
		case r := <-s.requests:
			group := []*request{r}
			for more := true; more && len(group) < cap(s.requests); {
				select {
				case r := <-s.requests:
					group = append(group, r)
				default:
					more = false
				}
			}
			s.perform(group)
		case <-s.closing:
			for {
				select {
				case r := <-s.requests:
					r.result.err = errClosed
					close(r.done)
				default:
					return
				}
			}
		}
	}
}

// staged is what a group of requests would do to the store.
type staged struct {
	s        *Store
	revision int64
	commits  []Commit
	leases   []LeaseChange
	latest   map[string]state.Change
	lease    map[state.LeaseID]bool // granted true, ended false
	last     state.LeaseID
}

// perform does a group of requests: each is judged by what those before it
// leave, then all are made durable, then all are seen.
func (s *Store) perform(group []*request) {
	g := &staged{s: s, revision: s.revision, latest: map[string]state.Change{}, lease: map[state.LeaseID]bool{}, last: s.nextLease}
	for _, r := range group {
		g.stage(r)
	}
	if s.journal != nil && len(g.commits)+len(g.leases) > 0 {
		if err := s.journal.Append(g.commits, g.leases); err != nil {
			for _, r := range group {
				if r.result.err == nil {
					r.result = result{err: err}
				}
			}
			g.commits, g.leases = nil, nil
		}
	}
	s.publish(g)
	for _, r := range group {
		if r.compact != 0 && r.result.err == nil {
			r.result.err = s.compact(r.compact)
		}
		close(r.done)
	}
}

func (s *Store) publish(g *staged) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range g.commits {
		s.apply(c)
	}
	for _, l := range g.leases {
		if l.TTL > 0 {
			s.addLease(l.ID, l.TTL)
			continue
		}
		if old := s.leases[l.ID]; old != nil {
			old.timer.Stop()
			delete(s.leases, l.ID)
		}
	}
	if len(g.commits) > 0 {
		close(s.changed)
		s.changed = make(chan struct{})
	}
}

func (g *staged) stage(r *request) {
	switch {
	case r.grant != 0:
		g.last++
		g.lease[g.last] = true
		g.leases = append(g.leases, LeaseChange{ID: g.last, TTL: r.grant})
		r.result.lease = g.last
	case r.revoke != 0:
		r.result.err = g.revoke(r.revoke)
	case r.compact == 0:
		r.result.revision, r.result.err = g.commit(r.txn)
	}
}

func (g *staged) commit(t state.Txn) (int64, error) {
	for _, c := range t.If {
		if now := g.modRevision(c.Key); now != c.ModRevision {
			return 0, decant.Errorf(decant.Conflict, "key %q is at revision %d, not %d: somebody changed it", c.Key, now, c.ModRevision)
		}
	}
	for _, op := range t.Then {
		if op.Lease != 0 && !op.Delete && !g.hasLease(op.Lease) {
			return 0, noLease(op.Lease)
		}
	}
	c := Commit{Revision: g.revision + 1}
	for _, op := range t.Then {
		old, exists := g.current(op.Key)
		if op.Delete && !exists {
			continue
		}
		change := state.Change{Deleted: op.Delete, KV: state.KV{Key: op.Key, ModRevision: c.Revision}}
		if !op.Delete {
			change.Value, change.Lease = op.Value, op.Lease
			change.CreateRevision, change.Version = c.Revision, 1
			if exists {
				change.CreateRevision, change.Version = old.CreateRevision, old.Version+1
			}
		}
		c.Changes = append(c.Changes, change)
	}
	g.add(c)
	return g.revision, nil
}

// add stages a commit; one that changes nothing is none.
func (g *staged) add(c Commit) {
	if len(c.Changes) == 0 {
		return
	}
	g.revision = c.Revision
	g.commits = append(g.commits, c)
	for _, change := range c.Changes {
		g.latest[change.Key] = change
	}
}

func (g *staged) revoke(id state.LeaseID) error {
	if !g.hasLease(id) {
		return noLease(id)
	}
	g.lease[id] = false
	g.leases = append(g.leases, LeaseChange{ID: id})
	c := Commit{Revision: g.revision + 1}
	for _, key := range g.heldBy(id) {
		c.Changes = append(c.Changes, state.Change{Deleted: true, KV: state.KV{Key: key, ModRevision: c.Revision}})
	}
	g.add(c)
	return nil
}

// heldBy returns the keys that go with a lease, sorted.
func (g *staged) heldBy(id state.LeaseID) []string {
	var keys []string
	for key := range g.s.history {
		if _, overlaid := g.latest[key]; !overlaid {
			if kv, ok := g.current(key); ok && kv.Lease == id {
				keys = append(keys, key)
			}
		}
	}
	for key, change := range g.latest {
		if !change.Deleted && change.Lease == id {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// current returns a key as the requests before left it.
func (g *staged) current(key string) (state.KV, bool) {
	c, ok := g.latest[key]
	if !ok {
		c, ok = g.s.latest(key)
	}
	return c.KV, ok && !c.Deleted
}

func (g *staged) modRevision(key string) int64 {
	kv, ok := g.current(key)
	if !ok {
		return 0
	}
	return kv.ModRevision
}

func (g *staged) hasLease(id state.LeaseID) bool {
	if alive, ok := g.lease[id]; ok {
		return alive
	}
	return g.s.leases[id] != nil
}

// compact forgets history. Only the writer calls it.
func (s *Store) compact(revision int64) error {
	switch {
	case revision > s.revision:
		return decant.Errorf(decant.Invalid, "cannot compact revision %d: the last is %d", revision, s.revision)
	case revision <= s.compacted:
		return state.ErrCompacted
	}
	if s.journal != nil {
		if err := s.journal.Compact(revision, s.revision); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.compacted = revision
	s.commits = slices.DeleteFunc(s.commits, func(c Commit) bool { return c.Revision <= revision })
	s.keys = slices.DeleteFunc(s.keys, func(key string) bool {
		past := s.history[key]
		from := 0
		for i, c := range past {
			if c.ModRevision <= revision {
				from = i
				if c.Deleted {
					from = i + 1
				}
			}
		}
		if from == len(past) {
			delete(s.history, key)
			return true
		}
		s.history[key] = slices.Clone(past[from:])
		return false
	})
	return nil
}
