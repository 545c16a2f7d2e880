package orchestrator

import (
	"context"
	"encoding/json"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/state"
)

func asJSON(t testing.TB, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	must(t, err)
	return data
}

// fill writes events down, one a second, the last of them now.
func (s *testSite) fill(events int) {
	s.t.Helper()
	for events > 0 {
		n := min(events, 1000)
		var t state.Txn
		for i := range n {
			at := time.Now().Add(-time.Duration(events-i-1) * time.Second)
			t.Then = append(t.Then, state.Op{Key: eventKey(at), Value: asJSON(s.t, decant.Event{At: at, Kind: "test"})})
		}
		_, err := s.store.Commit(s.t.Context(), t)
		must(s.t, err)
		events -= n
	}
}

func TestTidy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.kill()
		o := New(s.config(s.store))
		for _, tt := range []struct{ events, left int }{{3, 3}, {keepEvents, keepEvents}, {keepEvents + 1, keepEvents}, {keepEvents + 1234, keepEvents}} {
			s.fill(tt.events)
			_, err := o.tidy(t.Context(), 0)
			must(t, err)
			events, err := o.Events(t.Context(), 2*keepEvents)
			must(t, err)
			if len(events) != tt.left || !events[len(events)-1].At.Equal(time.Now()) {
				t.Errorf("of %d events %d are left, the newest of %s", tt.events, len(events), events[len(events)-1].At)
			}
		}

		now, err := o.tidy(t.Context(), 0)
		must(t, err)
		if _, _, err := s.store.List(t.Context(), "", 1); err != nil {
			t.Errorf("it forgot history that it was not told to: %v", err)
		}
		for range 2 { // the second time there is nothing left to forget
			_, err = o.tidy(t.Context(), now)
			must(t, err)
		}
		_, _, err = s.store.List(t.Context(), "", now-1)
		wantErr(t, err, state.ErrCompacted.Code, "compacted")
	})
}

// TestEventsAreTrimmed: devices may tell of more than is kept between two
// housekeepings.
func TestEventsAreTrimmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, mic, _ := newPost(t)
		s.fill(keepEvents)
		rep := mic.says()
		for range maxEvents {
			rep.Events = append(rep.Events, decant.Event{Kind: "instance.failed", Message: "x"})
		}
		for range 3 * trimEvery / maxEvents {
			must(t, s.o().Report(t.Context(), mic.id, rep))
			if kept := len(strings.Fields(s.keys(eventsPrefix))); kept > keepEvents+trimEvery {
				t.Fatalf("%d events are kept", kept)
			}
		}
	})
}

// TestKeepHouse holds that history lives until all who watch had ten minutes
// to read it, and that a failure delays the tidying and no more.
func TestKeepHouse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, _ := newPost(t)
		s.deploy(post())
		w := follow(t, func(ctx context.Context, send func(decant.Deployment) error) error {
			return s.o().WatchDeployment(ctx, "app", send)
		}, func(d decant.Deployment) string { return string(d.Status) })
		s.wantStatus("app", decant.DeployRunning, "")
		s.fill(keepEvents + 10)
		kept := func() int { return len(strings.Fields(s.keys(eventsPrefix))) }

		var full atomic.Bool
		full.Store(true)
		s.faults.failing(false, func(tx state.Txn) error {
			if full.Load() && tx.Then[0].Delete {
				return decant.Errorf(decant.Exhausted, "the disk is full")
			}
			return nil
		})
		time.Sleep(houseEvery)
		synctest.Wait()
		if kept() <= keepEvents {
			t.Errorf("%d events are left, though none could be deleted", kept())
		}
		full.Store(false)
		time.Sleep(houseEvery)
		synctest.Wait()
		if kept() != keepEvents {
			t.Errorf("%d events are left, want %d", kept(), keepEvents)
		}
		if _, _, err := s.store.List(t.Context(), "", 1); err != nil {
			t.Errorf("it forgot history that nobody had time to read: %v", err)
		}
		time.Sleep(houseEvery)
		synctest.Wait()
		_, _, err := s.store.List(t.Context(), "", 1)
		wantErr(t, err, state.ErrCompacted.Code, "compacted")

		w.take()
		must(t, s.o().Undeploy(t.Context(), "app"))
		w.wantEnd(t, decant.NotFound) // it watched all along
	})
}

func TestRemovePackage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, _ := newPost(t)
		s.push("frames@0.9.0", "frames")
		s.push("codec@1.0.0", "run")
		s.push("needy@1.0.0", "run", func(p *decant.PackageSpec) { p.Requires = map[string]string{"codec": "^1"} })
		s.deploy(post())
		s.deploy(decant.Application{Name: "second", Components: map[string]decant.Component{"x": {Package: "frames"}, "y": {Package: "needy"}}})
		remove := func(ref string) error {
			name, version, _ := strings.Cut(ref, "@")
			return s.o().RemovePackage(t.Context(), name, version)
		}
		wantErr(t, remove("frames@1.0.0"), decant.Conflict, "package frames@1.0.0 is in use by app, second", "decant app rm")
		wantErr(t, remove("codec@1.0.0"), decant.Conflict, "in use by second") // by what it requires
		wantErr(t, remove("frames@2.0.0"), decant.NotFound)
		must(t, remove("frames@0.9.0")) // another version is
		for _, app := range []string{"app", "second"} {
			must(t, s.o().Undeploy(t.Context(), app))
		}
		synctest.Wait()
		must(t, remove("frames@1.0.0"))
		must(t, remove("codec@1.0.0"))
		left, err := s.o().ListPackages(t.Context())
		must(t, err)
		var refs []string
		for _, p := range left {
			refs = append(refs, p.Ref())
		}
		if got := strings.Join(refs, " "); got != "detector@1.0.0 needy@1.0.0" {
			t.Errorf("left: %s", got)
		}
	})
}
