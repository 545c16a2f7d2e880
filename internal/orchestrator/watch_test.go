package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/state"
)

// watcher keeps what a watch sends, as text.
type watcher struct {
	cancel context.CancelFunc
	ended  chan error

	mu   sync.Mutex
	sent []string
	fail error         // what the next send returns
	hold chan struct{} // not nil: sends wait for it
}

// follow starts a watch, which ends with the test.
func follow[T any](t *testing.T, watch func(context.Context, func(T) error) error, text func(T) string) *watcher {
	t.Helper()
	w := &watcher{ended: make(chan error, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	w.cancel = cancel
	t.Cleanup(cancel)
	go func() {
		w.ended <- watch(ctx, func(v T) error {
			w.mu.Lock()
			hold := w.hold
			w.sent = append(w.sent, text(v))
			err := w.fail
			w.mu.Unlock()
			if hold != nil {
				<-hold
			}
			return err
		})
	}()
	synctest.Wait()
	return w
}

// take returns what was sent since the last time.
func (w *watcher) take() string {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	defer func() { w.sent = nil }()
	return strings.Join(w.sent, "; ")
}

func (w *watcher) want(t *testing.T, want string) {
	t.Helper()
	if got := w.take(); got != want {
		t.Errorf("\nsent %s\nwant %s", got, want)
	}
}

// wantEnd holds that the watch has ended with err.
func (w *watcher) wantEnd(t *testing.T, err error) {
	t.Helper()
	synctest.Wait()
	select {
	case got := <-w.ended:
		if !errors.Is(got, err) {
			t.Errorf("it ended with %v, want %v", got, err)
		}
	default:
		t.Errorf("it has not ended, want %v", err)
	}
}

var errGone = errors.New("the client is gone")

func describeDesired(d decant.Desired) string {
	var parts []string
	for _, s := range d.Instances {
		parts = append(parts, fmt.Sprintf("%s/%d", s.Key(), s.Epoch))
	}
	return strings.Join(parts, " ")
}

// tell writes what a device shall run into the state.
func (s *testSite) tell(device string, c state.Op) {
	s.t.Helper()
	c.Key = desiredPrefix + device + "/app/" + c.Key
	_, err := s.store.Commit(s.t.Context(), state.Txn{Then: []state.Op{c}})
	must(s.t, err)
}

func TestWatchDesired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		d := s.join("one")
		d.stop()
		s.kill() // nobody else writes what it shall run
		o := New(s.config(s.store))
		spec := func(c string) state.Op {
			own := owner{Device: d.id, Epoch: 1}
			must(t, o.commit(t.Context(), nil, put(ownerKey("app", c), own)))
			return state.Op{Key: c, Value: asJSON(t, decant.InstanceSpec{Application: "app", Component: c, Epoch: 1})}
		}
		watch := func(ctx context.Context, send func(decant.Desired) error) error {
			return o.WatchDesired(ctx, d.id, send)
		}
		s.tell(d.id, spec("a"))
		w := follow(t, watch, describeDesired)
		w.want(t, "app/a/1")
		s.tell(d.id, spec("b"))
		w.want(t, "app/a/1 app/b/1")
		s.tell("one-id-too", state.Op{Key: "x", Delete: true}) // not its own
		must(t, o.commit(t.Context(), nil, put(eventsPrefix+"x", decant.Event{})))
		w.want(t, "")

		// A slow device gets what is true by then, not each step on the way.
		w.hold = make(chan struct{})
		s.tell(d.id, spec("c"))
		w.want(t, "app/a/1 app/b/1 app/c/1")
		for _, c := range []string{"a", "b"} {
			s.tell(d.id, state.Op{Key: c, Delete: true})
		}
		s.tell(d.id, spec("d"))
		close(w.hold)
		w.want(t, "app/c/1 app/d/1")

		w.fail = errGone
		s.tell(d.id, state.Op{Key: "c", Delete: true})
		w.want(t, "app/d/1")
		w.wantEnd(t, errGone)

		w = follow(t, watch, describeDesired)
		w.want(t, "app/d/1")
		w.cancel()
		w.wantEnd(t, context.Canceled)

		w = follow(t, watch, describeDesired)
		w.want(t, "app/d/1")
		must(t, o.RemoveDevice(t.Context(), d.id))
		w.want(t, "")
		w.wantEnd(t, decant.Denied)
	})
}

func TestWatchDeployment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, mic, gateway := newPost(t)
		watch := func(ctx context.Context, send func(decant.Deployment) error) error {
			return s.o().WatchDeployment(ctx, "app", send)
		}
		status := func(d decant.Deployment) string { return fmt.Sprintf("%d %s %s", d.Revision, d.Status, d.Message) }
		follow(t, watch, status).wantEnd(t, decant.NotFound)

		mic.behaves(silent)
		s.deploy(post())
		synctest.Wait()
		w := follow(t, watch, status)
		w.want(t, "1 rolling out component ear waits for mic to answer")
		mic.behaves(runs)
		// Each is something new, the last of them the end of the matter.
		if sent := strings.Split(w.take(), "; "); sent[len(sent)-1] != "1 running " {
			t.Errorf("sent %q", sent)
		}
		time.Sleep(time.Minute)
		w.want(t, "") // devices have reported, but nothing has changed
		leaving := follow(t, watch, status)
		leaving.fail = errGone
		gateway.stop()
		time.Sleep(LeaseTTL)
		leaving.wantEnd(t, errGone)
		if got := w.take(); !strings.HasPrefix(got, "1 degraded gateway, which runs detector, is offline since") {
			t.Errorf("sent %q", got)
		}

		must(t, s.o().Undeploy(t.Context(), "app"))
		w.wantEnd(t, decant.NotFound)
	})
}

func TestWatchEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		happen := func(message string) { s.o().event(t.Context(), decant.Event{Kind: "test", Message: message}) }
		message := func(e decant.Event) string { return e.Message }
		watch := func(newest int) *watcher {
			return follow(t, func(ctx context.Context, send func(decant.Event) error) error {
				return s.o().WatchEvents(ctx, newest, send)
			}, message)
		}
		for _, m := range []string{"one", "two", "three"} { // all at one moment of the bubble
			happen(m)
		}
		all, some, none := watch(10), watch(2), watch(0)
		all.want(t, "one; two; three")
		some.want(t, "two; three")
		none.want(t, "")
		happen("four")
		happen("five")
		for _, w := range []*watcher{all, some, none} {
			w.want(t, "four; five")
		}
		events, err := s.o().Events(t.Context(), 2)
		if err != nil || len(events) != 2 || events[0].Message != "four" {
			t.Errorf("the newest two: %+v, %v", events, err)
		}

		all.fail = errGone
		kvs, _, err := s.store.List(t.Context(), eventsPrefix, 0)
		must(t, err)
		_, err = s.store.Commit(t.Context(), state.Txn{Then: []state.Op{{Key: kvs[0].Key, Delete: true}}})
		must(t, err)
		none.want(t, "") // one was forgotten: that is no event
		happen("six")
		none.want(t, "six")
		all.wantEnd(t, errGone)
		none.cancel()
		none.wantEnd(t, context.Canceled)
	})
}

// TestWatchesAgain holds that an orchestrator which fell too far behind looks
// at everything again, and one whose store is gone ends.
func TestWatchesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, mic, _ := newPost(t)
		s.kill()
		_, err := New(s.config(s.store)).Deploy(t.Context(), post(), 0)
		must(t, err)
		s.faults.watchFails(state.ErrCompacted)
		s.start()
		s.until("app runs", func() bool { return s.deployment("app").Status == decant.DeployRunning })
		must(t, s.o().RemoveDevice(t.Context(), mic.id)) // it watches again, too
		s.wantStatus("app", decant.DeployDegraded, "component ear on mic-id is pending")

		s.kill()
		s.faults.watchFails(decant.Errorf(decant.Corrupt, "the disk is broken"))
		wantErr(t, New(s.config(s.faults)).Run(t.Context()), decant.Corrupt)
	})
}
