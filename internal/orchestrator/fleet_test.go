package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/state"
)

// fakeDevice is a device that takes what is desired at once and reports that
// it runs it.
type fakeDevice struct {
	s    *testSite
	id   string
	stop func()
	wake chan struct{}

	mu      sync.Mutex
	info    decant.DeviceInfo
	desired decant.Desired
	behave  func(decant.InstanceSpec) decant.InstanceStatus
}

// join makes a member of a device, and starts it. Its ID is its name and -id.
func (s *testSite) join(name string, change ...func(*decant.DeviceInfo)) *fakeDevice {
	s.t.Helper()
	d := &fakeDevice{s: s, id: name + "-id", behave: runs, wake: make(chan struct{}, 1)}
	d.info = decant.DeviceInfo{ID: d.id, Name: name, Addresses: []string{name + ":1"}, Capabilities: decant.Capabilities{Memory: decant.GiB}}
	for _, f := range change {
		f(&d.info)
	}
	s.admit(d)
	d.start()
	return d
}

// admit does what Join does once a code is verified.
func (s *testSite) admit(d *fakeDevice) {
	s.t.Helper()
	must(s.t, s.o().commit(s.t.Context(), nil, put(devicesPrefix+d.id, deviceRecord{Info: d.info, Status: decant.DeviceJoined})))
}

func (d *fakeDevice) start() {
	ctx, cancel := context.WithCancel(context.Background())
	var loops sync.WaitGroup
	loops.Go(func() { d.watch(ctx) })
	loops.Go(func() { d.report(ctx) })
	d.stop = sync.OnceFunc(func() {
		cancel()
		loops.Wait()
	})
	d.s.t.Cleanup(d.stop)
}

// session returns the orchestrator of now, and a context that ends with it.
func (d *fakeDevice) session(ctx context.Context) (*Orchestrator, context.Context, func()) {
	p := d.s.run.Load()
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(p.ctx, cancel)
	return p.Orchestrator, ctx, func() { stop(); cancel() }
}

func (d *fakeDevice) watch(ctx context.Context) {
	for ctx.Err() == nil {
		o, session, end := d.session(ctx)
		_ = o.WatchDesired(session, d.id, func(desired decant.Desired) error {
			d.mu.Lock()
			defer d.mu.Unlock()
			if desired.Revision < d.desired.Revision {
				d.s.t.Errorf("%s: revision %d after %d", d.id, desired.Revision, d.desired.Revision)
			}
			d.desired = desired
			d.changed()
			return nil
		})
		end()
		pause(ctx, time.Second)
	}
}

// changed has the device report at once.
func (d *fakeDevice) changed() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

func (d *fakeDevice) report(ctx context.Context) {
	tick := time.NewTicker(LeaseTTL / 3)
	defer tick.Stop()
	for ctx.Err() == nil {
		o, session, end := d.session(ctx)
		_ = o.Report(session, d.id, d.says())
		end()
		select {
		case <-ctx.Done():
		case <-tick.C:
		case <-d.wake:
		}
	}
}

func (d *fakeDevice) says() decant.Report {
	d.mu.Lock()
	defer d.mu.Unlock()
	rep := decant.Report{Device: d.info, Applied: d.desired.Revision}
	for _, spec := range d.desired.Instances {
		if s := d.behave(spec); s.State != "" {
			rep.Instances = append(rep.Instances, s)
		}
	}
	return rep
}

// behaves changes what the device says of its instances.
func (d *fakeDevice) behaves(f func(decant.InstanceSpec) decant.InstanceStatus) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.behave = f
	d.changed()
}

// silent is a device that has not come to its instances yet.
func silent(decant.InstanceSpec) decant.InstanceStatus { return decant.InstanceStatus{} }

// fails is a device on which each instance fails with code.
func fails(code decant.Code) func(decant.InstanceSpec) decant.InstanceStatus {
	return func(spec decant.InstanceSpec) decant.InstanceStatus {
		s := runs(spec)
		s.State, s.Error = decant.InstanceFailed, decant.Errorf(code, "it broke")
		return s
	}
}

// told returns what the device was told to run, as component/epoch.revision
// with the links of each.
func (d *fakeDevice) told() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []string
	for _, s := range d.desired.Instances {
		text := fmt.Sprintf("%s/%d.%d %s", s.Component, s.Epoch, s.Revision, s.Function)
		for _, r := range s.Links {
			text += fmt.Sprintf(" ->%s/%d %s at %s", r.Component, r.Epoch, r.Function, strings.Join(r.Addresses, ","))
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

func hasPeripheral(name string) func(*decant.DeviceInfo) {
	return func(d *decant.DeviceInfo) {
		d.Capabilities.Peripherals = append(d.Capabilities.Peripherals, decant.Peripheral{Name: name, Type: name})
	}
}

// history is the state as its commits go by.
type history struct {
	t      testing.TB
	keys   map[string]state.KV
	owners map[string]string // component/epoch to the device that owned it
}

// checkHistory goes through all that was ever committed and holds that no
// epoch had two owners or went down, that devices were told to run what they
// own, of the revision that was wanted, and that nothing stopped before what
// replaced it ran.
func checkHistory(t testing.TB, st state.Store) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	_, last, err := st.List(ctx, appsPrefix, 0)
	must(t, err)
	h := &history{t: t, keys: map[string]state.KV{}, owners: map[string]string{}}
	for rev := int64(0); rev < last; {
		watch := st.Watch(ctx, "", rev)
		batch := <-watch
		if errors.Is(batch.Err, state.ErrCompacted) {
			return // what was kept of it begins too late
		}
		must(t, batch.Err)
		for ; batch.Revision > 0 && batch.Revision < last; batch = <-watch {
			h.commit(batch)
		}
		h.commit(batch)
		rev = batch.Revision
	}
}

func (h *history) commit(b state.Batch) {
	before := map[string]state.KV{}
	for _, c := range b.Changes {
		before[c.Key] = h.keys[c.Key]
		if c.Deleted {
			delete(h.keys, c.Key)
		} else {
			h.keys[c.Key] = c.KV
		}
	}
	for _, c := range b.Changes {
		switch {
		case strings.HasPrefix(c.Key, ownersPrefix):
			h.owned(b.Revision, c, before[c.Key])
		case strings.HasPrefix(c.Key, desiredPrefix) && c.Deleted:
			h.stopped(b.Revision, c.Key)
		case strings.HasPrefix(c.Key, desiredPrefix):
			device, app, component := splitDesired(c.Key)
			spec, own := value[decant.InstanceSpec](h, c.KV), value[owner](h, h.keys[ownerKey(app, component)])
			if own.Device != device || own.Epoch != spec.Epoch {
				h.t.Errorf("at %d: %s is told to run epoch %d; the owner is %+v", b.Revision, c.Key, spec.Epoch, own)
			}
			if record := value[appRecord](h, h.keys[appsPrefix+app]); record.Revision != 0 && record.Revision != spec.Revision {
				h.t.Errorf("at %d: %s is told to run revision %d; wanted is %d", b.Revision, c.Key, spec.Revision, record.Revision)
			}
		}
	}
}

func (h *history) owned(rev int64, c state.Change, before state.KV) {
	if c.Deleted {
		h.t.Errorf("at %d: %s is forgotten with its epoch", rev, c.Key)
		return
	}
	own, old := value[owner](h, c.KV), value[owner](h, before)
	if own.Epoch < old.Epoch {
		h.t.Errorf("at %d: %s went from epoch %d to %d", rev, c.Key, old.Epoch, own.Epoch)
	}
	key := fmt.Sprint(c.Key, "/", own.Epoch)
	if other := h.owners[key]; other != "" && own.Device != "" && other != own.Device {
		h.t.Errorf("at %d: %s is owned by %s and by %s", rev, key, other, own.Device)
	}
	if own.Device != "" {
		h.owners[key] = own.Device
	}
}

func (h *history) stopped(rev int64, key string) {
	device, app, component := splitDesired(key)
	record := value[appRecord](h, h.keys[appsPrefix+app])
	if _, part := record.Application.Components[component]; !part || record.Removed || h.keys[devicesPrefix+device].Key == "" {
		return // nothing replaces it, or its device was removed
	}
	own := value[owner](h, h.keys[ownerKey(app, component)])
	said := value[reportRecord](h, h.keys[reportsPrefix+own.Device])
	for _, s := range said.Instances {
		if own.Device != device && s.Application == app && s.Component == component && s.Epoch == own.Epoch && s.State == decant.InstanceRunning {
			return
		}
	}
	h.t.Errorf("at %d: %s is deleted before %+v has reported that it runs", rev, key, own)
}

// value decodes a value; that of an absent key is zero.
func value[T any](h *history, kv state.KV) (v T) {
	h.t.Helper()
	if kv.Key != "" {
		must(h.t, decode(kv, &v))
	}
	return v
}
