package orchestrator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/blobs"
	"github.com/decant-project/decant/internal/packages"
	"github.com/decant-project/decant/internal/state"
	"github.com/decant-project/decant/internal/state/mem"
	"github.com/decant-project/decant/internal/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantErr holds an error to its code and to what it must say.
func wantErr(t testing.TB, err error, code decant.Code, says ...string) {
	t.Helper()
	if !errors.Is(err, code) {
		t.Errorf("got error %v, want %s", err, code)
		return
	}
	for _, text := range says {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("error %q does not say %q", err, text)
		}
	}
}

// inspector takes the words of a file for the functions of a module.
type inspector struct{}

func (inspector) Exports(_ context.Context, binary []byte, _ map[string]int) ([]string, error) {
	return strings.Fields(string(binary)), nil
}

// fakeAPI is the devices' own interfaces.
type fakeAPI struct {
	mu       sync.Mutex
	describe map[string]decant.DeviceInfo // by the ID asked for
	offered  map[string]string            // join codes by device
}

func (f *fakeAPI) Describe(_ context.Context, id string, _ []string) (decant.DeviceInfo, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	info, ok := f.describe[id]
	if !ok {
		return info, decant.Errorf(decant.Unavailable, "nobody there")
	}
	return info, nil
}

func (f *fakeAPI) OfferCode(_ context.Context, id string, _ []string, code string, _ []string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.offered[id] = code
	return nil
}

func (f *fakeAPI) Log(_ context.Context, to transport.Target, app, component string, _ bool) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader("log of " + app + "/" + component + " on " + to.Device)), nil
}

// fakeCaller answers each call with where it went.
type fakeCaller struct{}

func (fakeCaller) Call(_ context.Context, to transport.Target, req *transport.Request) (*transport.Response, error) {
	return &transport.Response{Body: []byte(req.Component + " on " + to.Device + " at " + strings.Join(to.Addresses, ","))}, nil
}

// process is one run of an orchestrator. Once its context has ended nothing of
// it reaches the store any more.
type process struct {
	*Orchestrator
	ctx  context.Context
	kill context.CancelFunc
	done chan struct{}
}

// mortal is a store as a process has it.
type mortal struct {
	state.Store
	dead func() error
}

func (m mortal) Get(ctx context.Context, key string) (state.KV, error) {
	if err := m.dead(); err != nil {
		return state.KV{}, err
	}
	return m.Store.Get(ctx, key)
}

func (m mortal) Commit(ctx context.Context, t state.Txn) (int64, error) {
	if err := m.dead(); err != nil {
		return 0, err
	}
	return m.Store.Commit(ctx, t)
}

// testSite is an orchestrator on a store in memory, with fakes around it.
type testSite struct {
	t      *testing.T
	store  *mem.Store
	faults *faults // between the orchestrators and store
	api    *fakeAPI
	log    *strictLog
	change func(*Config)
	blobs  *blobs.Store
	run    atomic.Pointer[process]
}

// newSite makes a site and starts its orchestrator; all ends with the test. It
// is for a bubble of testing/synctest.
func newSite(t *testing.T, change ...func(*Config)) *testSite {
	t.Helper()
	s := &testSite{
		t: t, store: mem.New(), log: &strictLog{t: t},
		api: &fakeAPI{describe: map[string]decant.DeviceInfo{}, offered: map[string]string{}},
		change: func(c *Config) {
			for _, f := range change {
				f(c)
			}
		},
	}
	s.faults = &faults{Store: s.store}
	var err error
	s.blobs, err = blobs.Open(t.TempDir())
	must(t, err)
	t.Cleanup(func() {
		s.kill()
		checkHistory(t, s.store)
		must(t, s.store.Close())
	})
	s.start()
	synctest.Wait() // it watches
	return s
}

// o is the orchestrator that runs now.
func (s *testSite) o() *Orchestrator { return s.run.Load().Orchestrator }

// start starts an orchestrator that knows what is in the store and no more.
func (s *testSite) start() {
	p := &process{done: make(chan struct{})}
	p.ctx, p.kill = context.WithCancel(context.Background())
	p.Orchestrator = New(s.config(mortal{Store: s.faults, dead: func() error { return context.Cause(p.ctx) }}))
	s.run.Store(p)
	go func() {
		defer close(p.done)
		if err := p.Run(p.ctx); err != nil {
			s.t.Errorf("Run: %v", err)
		}
	}()
}

// config is what the site's orchestrators work with.
func (s *testSite) config(st state.Store) Config {
	config := Config{
		State: st, Packages: packages.New(st, s.blobs, inspector{}), Blobs: s.blobs,
		Devices: s.api, Caller: fakeCaller{}, Addresses: func() []string { return []string{"orchestrator:1"} },
		Version: "test", Log: slog.New(slog.NewTextHandler(s.log, nil)),
	}
	s.change(&config)
	return config
}

// kill ends the orchestrator, whatever it is doing.
func (s *testSite) kill() {
	p := s.run.Load()
	p.kill()
	<-p.done
}

// strictLog fails the test at each error, but for those it should have.
type strictLog struct {
	t     *testing.T
	allow atomic.Bool
	seen  atomic.Int32
}

func (l *strictLog) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("level=ERROR")) {
		l.seen.Add(1)
		if !l.allow.Load() {
			l.t.Errorf("log: %s", p)
		}
	}
	return len(p), nil
}

// push makes a package of a module whose functions are the words of exports.
func (s *testSite) push(ref, exports string, change ...func(*decant.PackageSpec)) decant.Package {
	s.t.Helper()
	name, version, _ := strings.Cut(ref, "@")
	spec := decant.PackageSpec{Name: name, Version: version, Module: &decant.ModuleSpec{File: "f.wasm"}}
	for _, f := range change {
		f(&spec)
	}
	digest := decant.DigestOf([]byte(exports))
	must(s.t, s.o().PutBlob(s.t.Context(), digest, strings.NewReader(exports)))
	pkg, err := s.o().PushPackage(s.t.Context(), spec, []decant.Blob{{Name: "f", Digest: digest}})
	must(s.t, err)
	return pkg
}

// pushModel makes a package of a model.
func (s *testSite) pushModel(ref string) decant.Package {
	return s.push(ref, "weights of "+ref, func(p *decant.PackageSpec) {
		p.Module, p.Model = nil, &decant.ModelSpec{File: "m.onnx", Format: "onnx"}
	})
}

// until waits for ok, looking ten times a second of the bubble's time.
func (s *testSite) until(what string, ok func() bool) {
	s.t.Helper()
	for range 1200 {
		synctest.Wait()
		if ok() {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	s.t.Fatalf("not within two minutes: %s", what)
}

func (s *testSite) deploy(app decant.Application) decant.Deployment {
	s.t.Helper()
	d, err := s.o().Deploy(s.t.Context(), app, 0)
	must(s.t, err)
	return d
}

// deployment returns how far an application is once all is quiet.
func (s *testSite) deployment(name string) decant.Deployment {
	s.t.Helper()
	synctest.Wait()
	d, err := s.o().Deployment(s.t.Context(), name)
	must(s.t, err)
	return d
}

// wantStatus holds an application to its status and to what its message says.
func (s *testSite) wantStatus(name string, want decant.DeploymentStatus, says string) {
	s.t.Helper()
	d := s.deployment(name)
	if d.Status != want || !strings.Contains(d.Message, says) || (says == "") != (d.Message == "") {
		s.t.Errorf("application %s is %s (%q), want %s (%q)", name, d.Status, d.Message, want, says)
	}
}

func (s *testSite) wantPlaces(name, want string) {
	s.t.Helper()
	if got := places(s.deployment(name)); got != want {
		s.t.Errorf("instances: %s; want %s", got, want)
	}
}

// places returns the owners of an application's instances, as
// component@device/epoch, and their states.
func places(d decant.Deployment) string {
	var got []string
	for _, c := range sortedKeys(d.Instances) {
		at := d.Instances[c]
		got = append(got, fmt.Sprintf("%s@%s/%d %s", c, at.Device, at.Epoch, at.State))
	}
	return strings.Join(got, ", ")
}

// keys returns all keys under prefix.
func (s *testSite) keys(prefix string) string {
	s.t.Helper()
	kvs, _, err := s.store.List(s.t.Context(), prefix, 0)
	must(s.t, err)
	var out []string
	for _, kv := range kvs {
		out = append(out, kv.Key)
	}
	return strings.Join(out, " ")
}

// events returns the kinds of all events, sorted, but for those that tell of
// presence.
func (s *testSite) events() string {
	s.t.Helper()
	synctest.Wait()
	events, err := s.o().Events(s.t.Context(), 1000)
	must(s.t, err)
	var kinds []string
	for _, e := range events {
		if e.Kind != "device.online" && e.Kind != "device.offline" {
			kinds = append(kinds, e.Kind)
		}
	}
	slices.Sort(kinds)
	return strings.Join(kinds, " ")
}
