package orchestrator

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/state"
)

// faults is a store that fails when it is told to.
type faults struct {
	state.Store

	mu     sync.Mutex
	fail   func(state.Txn) error // nil: as the store does
	after  bool                  // what fails takes effect
	onList func(prefix string)
	broken error // what the next watch ends with at once
}

func (f *faults) Commit(ctx context.Context, t state.Txn) (int64, error) {
	f.mu.Lock()
	fail, after := f.fail, f.after
	f.mu.Unlock()
	var fault error
	if fail != nil {
		fault = fail(t)
	}
	if fault == nil {
		return f.Store.Commit(ctx, t)
	}
	if after {
		if _, err := f.Store.Commit(context.WithoutCancel(ctx), t); err != nil {
			return 0, err
		}
	}
	return 0, fault
}

func (f *faults) List(ctx context.Context, prefix string, revision int64) ([]state.KV, int64, error) {
	f.mu.Lock()
	onList := f.onList
	f.mu.Unlock()
	kvs, rev, err := f.Store.List(ctx, prefix, revision)
	if onList != nil {
		onList(prefix)
	}
	return kvs, rev, err
}

func (f *faults) Watch(ctx context.Context, prefix string, after int64) <-chan state.Batch {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.broken == nil {
		return f.Store.Watch(ctx, prefix, after)
	}
	out := make(chan state.Batch, 1)
	out <- state.Batch{Err: f.broken}
	close(out)
	f.broken = nil
	return out
}

// watchFails ends the next watch with err.
func (f *faults) watchFails(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.broken = err
}

// failing sets what fails from now on.
func (f *faults) failing(after bool, fail func(state.Txn) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail, f.after = fail, after
}

// nthCommit fails the nth commit from now on, once, and says whether it did.
func nthCommit(n int, failed func()) func(state.Txn) error {
	var mu sync.Mutex
	return func(state.Txn) error {
		mu.Lock()
		defer mu.Unlock()
		if n--; n != 0 {
			return nil
		}
		failed()
		return decant.Errorf(decant.Unavailable, "the disk is gone for a moment")
	}
}

// TestFaults deploys, moves, updates and removes an application, once for each
// commit of all that and each way in which that commit may go wrong. All of it
// happens all the same, and checkHistory finds nothing that must not be.
func TestFaults(t *testing.T) {
	var pushed []state.Op // a push syncs files: once for all
	synctest.Test(t, func(t *testing.T) {
		s, _, _ := newPost(t)
		kvs, _, err := s.store.List(t.Context(), packagesPrefix, 0)
		must(t, err)
		for _, kv := range kvs {
			pushed = append(pushed, state.Op{Key: kv.Key, Value: kv.Value})
		}
	})
	for _, kind := range []struct {
		name         string
		after, kills bool
	}{
		{"fails", false, false},
		{"fails after it took effect", true, false},
		{"the orchestrator is killed before it", false, true},
		{"the orchestrator is killed after it", true, true},
	} {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			failed := true
			n := 0
			for ; failed && !t.Failed(); n++ {
				failed = false
				synctest.Test(t, func(t *testing.T) {
					s := newSite(t)
					s.log.allow.Store(true) // it says that it could not write
					_, err := s.store.Commit(t.Context(), state.Txn{Then: pushed})
					must(t, err)
					mic, gateway := s.join("mic", hasPeripheral("microphone")), s.join("gateway", hasPeripheral("clock"))
					other := s.join("other", hasPeripheral("clock"))
					synctest.Wait() // they are online
					s.faults.failing(kind.after, nthCommit(n+1, func() {
						failed = true
						if kind.kills {
							s.crash()
						}
					}))
					s.livesThrough(mic, gateway, other)
				})
				if t.Failed() {
					t.Logf("at commit %d", n+1)
				}
			}
			t.Logf("%d commits", n)
			if n < 30 {
				t.Errorf("only %d commits were tried", n)
			}
		})
	}
}

// livesThrough is an application's life. What its user and the devices ask for
// they ask for again until it is done.
func (s *testSite) livesThrough(mic, gateway, other *fakeDevice) {
	s.t.Helper()
	running := func(want string) {
		s.t.Helper()
		s.until("app runs as "+want, func() bool {
			d, err := s.o().Deployment(s.t.Context(), "app")
			return err == nil && d.Status == decant.DeployRunning && places(d) == want
		})
	}
	s.insist("deploy", func(o *Orchestrator) error {
		_, err := o.Deploy(s.t.Context(), post(), 0)
		return err
	})
	running("detector@gateway-id/1 running, ear@mic-id/1 running")

	s.insist("remove gateway", func(o *Orchestrator) error {
		if err := o.RemoveDevice(s.t.Context(), gateway.id); !errors.Is(err, decant.NotFound) {
			return err
		}
		return nil // done, though it was said to have failed
	})
	running("detector@other-id/2 running, ear@mic-id/1 running")

	slim := post()
	slim.Links = nil
	delete(slim.Components, "detector")
	s.insist("update", func(o *Orchestrator) error {
		d, err := o.Deploy(s.t.Context(), slim, 0)
		if err == nil && d.Revision != 2 {
			s.t.Errorf("updated to revision %d", d.Revision)
		}
		return err
	})
	running("ear@mic-id/1 running")
	s.until("devices run no more than that", func() bool { return mic.told()+other.told() == "ear/1.2 frames" })

	s.insist("undeploy", func(o *Orchestrator) error {
		if err := o.Undeploy(s.t.Context(), "app"); !errors.Is(err, decant.NotFound) {
			return err
		}
		return nil
	})
	s.until("app is gone", func() bool { return mic.told()+other.told() == "" && s.keys(appsPrefix) == "" })
	if left := s.keys(desiredPrefix) + s.keys(plansPrefix) + s.keys(historyPrefix); left != "" {
		s.t.Errorf("left: %s", left)
	}
}

// insist does something until it succeeds.
func (s *testSite) insist(what string, do func(*Orchestrator) error) {
	s.t.Helper()
	s.until(what, func() bool { return do(s.o()) == nil })
}

// crash kills the orchestrator at once, and starts another in its place.
func (s *testSite) crash() {
	s.run.Load().kill()
	go func() {
		<-s.run.Load().done
		s.start()
	}()
}
