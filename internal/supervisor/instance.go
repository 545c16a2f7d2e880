package supervisor

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/peripheral"
)

// Bounds of an instance.
const (
	maxQueue        = 64               // calls that wait for the guest
	defaultDeadline = 30 * time.Second // of a call, where the application sets none
	retryFirst      = time.Second      // pause after the first failure to start
	retryMost       = time.Minute
)

// transitions are the ways from state to state. While an instance serves, its
// state stays running: a new version of it is prepared beside the old one.
var transitions = map[decant.InstanceState][]decant.InstanceState{
	decant.InstancePending:   {decant.InstancePulling, decant.InstanceStopping},
	decant.InstancePulling:   {decant.InstanceCompiling, decant.InstanceFailed, decant.InstanceStopping},
	decant.InstanceCompiling: {decant.InstanceStarting, decant.InstancePulling, decant.InstanceFailed, decant.InstanceStopping},
	decant.InstanceStarting:  {decant.InstanceRunning, decant.InstancePulling, decant.InstanceFailed, decant.InstanceStopping},
	decant.InstanceRunning:   {decant.InstanceStarting, decant.InstanceStopping},
	decant.InstanceFailed:    {decant.InstancePulling, decant.InstanceStarting, decant.InstanceStopping},
	decant.InstanceStopping:  {decant.InstanceStopped},
}

// instance brings one component to what its device shall run and keeps it so.
// One goroutine, run, does all of that; calls meet it at slot.
type instance struct {
	sup   *Supervisor
	key   string // application/component
	log   *logFile
	stats callStats
	noted throttle // events of failed calls

	// slot holds the guest while nobody uses it: who takes it may call it, and
	// puts it back. A call that loses the guest says so on lost instead.
	slot chan Guest
	lost chan struct{}
	wake chan struct{}  // want has changed
	done chan struct{}  // run has returned
	busy sync.WaitGroup // guests in a call

	// Owned by run.
	current *running
	devices map[string]peripheral.Peripheral // open ones, by need
	trigger *trigger

	mu       sync.Mutex // guards all below
	want     *decant.InstanceSpec
	spec     decant.InstanceSpec // what serves, or else what is tried
	abandon  context.CancelFunc  // ends the present attempt
	down     chan struct{}       // closed while it does not serve
	queued   int
	state    decant.InstanceState
	since    time.Time
	err      *decant.Error
	message  string
	restarts int
	samples  decant.TriggerStats
}

// running is a guest with what it was made of.
type running struct {
	spec     decant.InstanceSpec
	module   Module
	models   map[string]GuestModel
	releases []func()
	guest    Guest // nil before it was started, and after it was lost
}

// release gives back module and models, which other instances may share.
func (r *running) release() {
	for _, done := range r.releases {
		done()
	}
}

func newInstance(sup *Supervisor, spec decant.InstanceSpec) *instance {
	in := &instance{
		sup: sup, key: spec.Key(), log: newLogFile(sup.logPath(spec.Key())),
		slot: make(chan Guest, 1), lost: make(chan struct{}, 1), wake: make(chan struct{}, 1), done: make(chan struct{}),
		devices: map[string]peripheral.Peripheral{},
		want:    &spec, spec: spec, abandon: func() {}, down: make(chan struct{}),
		state: decant.InstancePending, since: time.Now().UTC(),
	}
	close(in.down)
	return in
}

// update sets what is wanted, nil for nothing any more.
func (in *instance) update(want *decant.InstanceSpec) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if reflect.DeepEqual(in.want, want) {
		return
	}
	if want == nil || in.want == nil || !sameParts(*in.want, *want) {
		in.abandon()
	}
	in.want = want
	poke(in.wake)
}

// sameParts reports whether a guest started for a serves as well for b. All
// else of a spec changes while the guest runs.
func sameParts(a, b decant.InstanceSpec) bool {
	return a.Module.Digest == b.Module.Digest && a.Memory == b.Memory &&
		slices.Equal(a.Peripherals, b.Peripherals) && slices.Equal(linkNames(a), linkNames(b)) &&
		maps.EqualFunc(a.Models, b.Models, func(a, b decant.BoundModel) bool {
			return a.Model.Digest == b.Model.Digest && slices.Equal(a.Files, b.Files)
		})
}

func linkNames(s decant.InstanceSpec) []string {
	var names []string
	for _, l := range s.Links {
		if l.Name != "" {
			names = append(names, l.Name)
		}
	}
	slices.Sort(names)
	return names
}

// run brings the instance to what is wanted, again and again, until nothing is
// or ctx ends.
func (in *instance) run(ctx context.Context) {
	defer close(in.done)
	pause := backoff{first: retryFirst, most: retryMost}
	for {
		want, attempt, cancel := in.begin(ctx)
		if want == nil || ctx.Err() != nil {
			cancel()
			in.shutdown(want == nil)
			return
		}
		err := in.bring(attempt, *want)
		abandoned := attempt.Err() != nil
		cancel()
		var retry <-chan time.Time
		switch {
		case abandoned:
			continue
		case err != nil:
			in.failed(err)
			retry = time.After(pause.next())
		default:
			pause.reset()
		}
		select {
		case <-ctx.Done():
		case <-in.wake:
			pause.reset()
		case <-in.lost:
			in.dropGuest()
		case <-retry:
		}
	}
}

// begin starts an attempt at what is wanted now; update may end its context.
func (in *instance) begin(ctx context.Context) (*decant.InstanceSpec, context.Context, context.CancelFunc) {
	in.mu.Lock()
	defer in.mu.Unlock()
	select {
	case <-in.wake:
	default:
	}
	attempt, cancel := context.WithCancel(ctx)
	in.abandon = cancel
	if in.want != nil && !in.servingLocked() {
		in.spec = *in.want
	}
	return in.want, attempt, cancel
}

// failed notes why the instance is not what it should be. What serves goes on.
func (in *instance) failed(err error) {
	now := asError(err)
	in.mu.Lock()
	news := in.err == nil || in.err.Message != now.Message
	in.err, in.message = now, ""
	in.mu.Unlock()
	if in.current == nil || in.current.guest == nil {
		in.refuse()
		in.transition(decant.InstanceFailed)
	}
	if news {
		in.log.Remark("%v", now)
		in.sup.event("instance.failed", in.key, now.Error())
	}
	in.sup.poke()
}

// servingLocked reports whether calls are let in; mu is held.
func (in *instance) servingLocked() bool {
	select {
	case <-in.down:
		return false
	default:
		return true
	}
}

func (in *instance) isServing() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.servingLocked()
}

// refuse turns waiting and further calls away.
func (in *instance) refuse() {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.servingLocked() {
		close(in.down)
	}
}

// shutdown lets the calls in the guest end and frees all. If the instance was
// removed, its state goes too.
func (in *instance) shutdown(removed bool) {
	in.refuse()
	in.transition(decant.InstanceStopping)
	in.stopTrigger()
	if g := in.takeGuest(); g != nil {
		in.close(g)
	}
	in.busy.Wait()
	if in.current != nil {
		in.current.release()
	}
	in.closeDevices(nil)
	in.transition(decant.InstanceStopped)
	in.log.Remark("stopped")
	in.log.Close()
	if removed {
		in.sup.forget(in)
	}
}

// wanted returns what is wanted now, nil for nothing.
func (in *instance) wanted() *decant.InstanceSpec {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.want
}

// specs returns all that the instance may need blobs of.
func (in *instance) specs() []decant.InstanceSpec {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.want == nil {
		return []decant.InstanceSpec{in.spec}
	}
	return []decant.InstanceSpec{*in.want, in.spec}
}

// step says how far the preparation is; what serves is still called running.
func (in *instance) step(to decant.InstanceState) {
	in.mu.Lock()
	running := in.state == decant.InstanceRunning
	in.mu.Unlock()
	if running {
		in.note("updating: %s", to)
		return
	}
	in.transition(to)
}

// transition is the only place where the state changes.
func (in *instance) transition(to decant.InstanceState) {
	in.mu.Lock()
	from := in.state
	in.message = ""
	if from != to {
		in.state, in.since = to, time.Now().UTC()
	}
	in.mu.Unlock()
	if from != to && !slices.Contains(transitions[from], to) {
		in.sup.log.Error("an instance changed state in a way it should not", "instance", in.key, "from", from, "to", to)
	}
	in.sup.poke()
}

func (in *instance) note(format string, args ...any) {
	message := fmt.Sprintf(format, args...)
	in.mu.Lock()
	changed := in.message != message
	in.message = message
	in.mu.Unlock()
	if changed {
		in.sup.poke()
	}
}

func (in *instance) status() decant.InstanceStatus {
	in.mu.Lock()
	defer in.mu.Unlock()
	s := decant.InstanceStatus{
		Application: in.spec.Application,
		Component:   in.spec.Component,
		Device:      in.sup.id,
		Revision:    in.spec.Revision,
		Epoch:       in.spec.Epoch,
		State:       in.state,
		Error:       in.err,
		Message:     in.message,
		Since:       in.since,
		Restarts:    in.restarts,
		Calls:       in.stats.snapshot(),
	}
	if in.spec.Trigger != nil {
		samples := in.samples
		s.Trigger = &samples
	}
	return s
}

// asError gives an error without a code one.
func asError(err error) *decant.Error {
	if e, ok := err.(*decant.Error); ok { //nolint:errorlint // what wraps one has more to say than it
		return e
	}
	return decant.Errorf(decant.CodeOf(err), "%w", err)
}
