package supervisor

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/blobs"
	"github.com/decant-project/decant/internal/peripheral"
	"github.com/decant-project/decant/internal/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// strictLog fails the test at each error: the supervisor logs those only for
// its own mistakes.
type strictLog struct{ t *testing.T }

func (l strictLog) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("level=ERROR")) {
		l.t.Errorf("log: %s", p)
	}
	return len(p), nil
}

// fakeHost runs fake modules: a module's bytes are its behaviour's name, up to
// the first space.
type fakeHost struct {
	mu       sync.Mutex
	behave   map[string]func(ctx context.Context, g *fakeGuest, function string, in []byte) ([]byte, error)
	compiled map[string]int
	started  []string
	closed   []string
	fail     map[string]error // of "compile <name>" and "start <name>", once each
	configs  []GuestConfig
}

type fakeModule struct {
	host *fakeHost
	name string
}

type fakeGuest struct {
	fakeModule
	config GuestConfig
	count  int // its memory
	lost   bool
	inCall bool
}

func newFakeHost() *fakeHost {
	h := &fakeHost{compiled: map[string]int{}, fail: map[string]error{}}
	h.behave = map[string]func(context.Context, *fakeGuest, string, []byte) ([]byte, error){
		"echo": func(_ context.Context, _ *fakeGuest, _ string, in []byte) ([]byte, error) { return in, nil },
		"upper": func(_ context.Context, _ *fakeGuest, _ string, in []byte) ([]byte, error) {
			return bytes.ToUpper(in), nil
		},
		"quiet": func(context.Context, *fakeGuest, string, []byte) ([]byte, error) { return nil, nil },
		"refuse": func(context.Context, *fakeGuest, string, []byte) ([]byte, error) {
			return nil, decant.Errorf(decant.GuestFailed, "refused")
		},
		"slow": func(ctx context.Context, _ *fakeGuest, _ string, in []byte) ([]byte, error) {
			sleep(ctx, time.Second)
			return in, ctx.Err()
		},
		"deaf": func(ctx context.Context, _ *fakeGuest, _ string, in []byte) ([]byte, error) { // to its end
			sleep(context.WithoutCancel(ctx), time.Hour)
			return in, nil
		},
		"link": func(ctx context.Context, g *fakeGuest, _ string, in []byte) ([]byte, error) {
			return g.config.Link(ctx, "other", in)
		},
		"trap": func(_ context.Context, g *fakeGuest, _ string, in []byte) ([]byte, error) {
			if string(in) == "trap" {
				g.lost = true
				return nil, decant.Errorf(decant.GuestFailed, "trapped")
			}
			return in, nil
		},
		"count": func(_ context.Context, g *fakeGuest, _ string, _ []byte) ([]byte, error) {
			return []byte{byte('0' + g.count)}, nil
		},
		"write": func(ctx context.Context, g *fakeGuest, _ string, in []byte) ([]byte, error) {
			return in, g.config.Devices["screen"].Write(ctx, in)
		},
	}
	return h
}

func (h *fakeHost) failOnce(what string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	err := h.fail[what]
	delete(h.fail, what)
	return err
}

func (h *fakeHost) Compile(_ context.Context, wasm []byte) (Module, error) {
	name, _, _ := strings.Cut(string(wasm), " ")
	if err := h.failOnce("compile " + name); err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.compiled[string(wasm)]++
	return &fakeModule{h, string(wasm)}, nil
}

func (m *fakeModule) Start(ctx context.Context, c GuestConfig) (Guest, error) {
	name, _, _ := strings.Cut(m.name, " ")
	if name == "never" { // it initializes itself for ever
		<-ctx.Done()
		return nil, decant.Errorf(decant.Deadline, "not initialized in time")
	}
	if err := m.host.failOnce("start " + name); err != nil {
		return nil, err
	}
	m.host.mu.Lock()
	defer m.host.mu.Unlock()
	m.host.started = append(m.host.started, m.name)
	m.host.configs = append(m.host.configs, c)
	return &fakeGuest{fakeModule: *m, config: c}, nil
}

func (m *fakeModule) Close() error {
	m.host.mu.Lock()
	defer m.host.mu.Unlock()
	m.host.compiled[m.name]--
	return nil
}

func (g *fakeGuest) Call(ctx context.Context, function string, in []byte) ([]byte, error) {
	if g.inCall || g.lost {
		return nil, decant.Errorf(decant.Internal, "called a guest that is busy or lost")
	}
	g.inCall = true
	defer func() { g.inCall = false }()
	g.count++
	name, _, _ := strings.Cut(g.name, " ")
	return g.host.behave[name](ctx, g, function, in)
}

func (g *fakeGuest) Lost() bool { return g.lost }

func (g *fakeGuest) Close() error {
	g.host.mu.Lock()
	defer g.host.mu.Unlock()
	g.host.closed = append(g.host.closed, g.name)
	return nil
}

func (h *fakeHost) starts() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.Join(h.started, ", ")
}

// fakeCaller is the way to other devices.
type fakeCaller struct {
	mu    sync.Mutex
	reach func(to transport.Target, req *transport.Request) (*transport.Response, error)
	calls []transport.Request
	to    []transport.Target
}

func (c *fakeCaller) Call(_ context.Context, to transport.Target, req *transport.Request) (*transport.Response, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = append(c.calls, *req)
	c.to = append(c.to, to)
	if c.reach == nil {
		return nil, decant.Errorf(decant.Unavailable, "nobody there")
	}
	return c.reach(to, req)
}

// fakeDevice is a peripheral that gives its samples and keeps what is written.
type fakeDevice struct {
	mu      sync.Mutex
	samples []string
	forever bool // wait after the last sample instead of ending
	written []string
	closed  int
}

func (d *fakeDevice) Read(ctx context.Context) (peripheral.Sample, error) {
	d.mu.Lock()
	if len(d.samples) > 0 {
		defer d.mu.Unlock()
		s := d.samples[0]
		d.samples = d.samples[1:]
		return peripheral.Sample{ContentType: "text/plain", Data: []byte(s)}, nil
	}
	d.mu.Unlock()
	if !d.forever {
		return peripheral.Sample{}, io.EOF
	}
	<-ctx.Done()
	return peripheral.Sample{}, ctx.Err()
}

func (d *fakeDevice) Write(_ context.Context, action []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.written = append(d.written, string(action))
	return nil
}

func (d *fakeDevice) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed++
	return nil
}

// testDevice is a supervisor with fakes around it, running.
type testDevice struct {
	*Supervisor
	t      *testing.T
	host   *fakeHost
	caller *fakeCaller
	screen *fakeDevice
	mic    *fakeDevice
	blobs  *blobs.Store
	stop   func()
	ends   error // what Run shall return
}

func newDevice(t *testing.T) *testDevice {
	return newDeviceIn(t, t.TempDir())
}

// remote is a module that is not on the device: the orchestrator has it.
const remote = "upper remote"

// newDeviceIn starts a supervisor over a data folder; it stops with the test.
func newDeviceIn(t *testing.T, data string) *testDevice {
	t.Helper()
	d := &testDevice{t: t, host: newFakeHost(), caller: &fakeCaller{}, screen: &fakeDevice{}, mic: &fakeDevice{}}
	id, err := OpenIdentity(data)
	must(t, err)
	d.blobs, err = blobs.Open(filepath.Join(data, "blobs"))
	must(t, err)
	config := Config{Name: "test", Listen: ":0", Peripherals: []peripheral.Config{
		{Name: "mic", Type: "microphone", Driver: "file", Path: "x"},
		{Name: "screen", Type: "screen", Driver: "file", Path: "x"},
	}}
	d.Supervisor, err = New(config, Parts{
		Data: data, Version: "test", Listen: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}, Identity: id,
		Guests: d.host, Engine: "fake", Blobs: d.blobs, Caller: d.caller,
		OpenPeripheral: func(c peripheral.Config) (peripheral.Peripheral, error) {
			if c.Name == "mic" {
				return d.mic, nil
			}
			return d.screen, d.host.failOnce("open screen")
		},
		Log: slog.New(slog.NewTextHandler(strictLog{t}, nil)),
	})
	must(t, err)
	d.fetch = func(decant.Digest) blobs.Fetch {
		return func(_ context.Context, offset int64) (io.ReadCloser, error) {
			if err := d.host.failOnce("pull"); err != nil {
				return nil, err
			}
			if d.host.failOnce("pull the right bytes") != nil {
				return io.NopCloser(strings.NewReader(strings.ToUpper(remote)[offset:])), nil
			}
			return io.NopCloser(strings.NewReader(remote[offset:])), nil
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- d.Run(ctx, "") }()
	d.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; !errors.Is(err, d.ends) {
			t.Errorf("ended with %v, want %v", err, d.ends)
		}
		must(t, d.Close())
	})
	t.Cleanup(d.stop)
	synctest.Wait()
	return d
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// spec makes the spec of a component whose module is on the device already.
func (d *testDevice) spec(component, module string, change ...func(*decant.InstanceSpec)) decant.InstanceSpec {
	d.t.Helper()
	digest, size, err := d.blobs.Put(context.Background(), strings.NewReader(module), "", 1<<20)
	must(d.t, err)
	s := decant.InstanceSpec{
		Application: "app", Component: component, Revision: 1, Epoch: 1, Package: module + "@1.0.0", Function: "run",
		Module: decant.Blob{Name: "m.wasm", Digest: digest, Size: size},
	}
	for _, c := range change {
		c(&s)
	}
	return s
}

// desire applies what the device shall run and waits until it has settled.
func (d *testDevice) desire(specs ...decant.InstanceSpec) {
	d.t.Helper()
	must(d.t, d.apply(decant.Desired{Device: d.id, Revision: d.desired.Revision + 1, Instances: specs}))
	synctest.Wait()
}

func (d *testDevice) invoke(component, function, body string) (string, error) {
	resp, err := d.Call(d.t.Context(), &transport.Request{Application: "app", Component: component, Function: function, Body: []byte(body)})
	if err != nil {
		return "", err
	}
	return string(resp.Body), nil
}

func (d *testDevice) status(component string) decant.InstanceStatus {
	d.t.Helper()
	for _, s := range d.Instances() {
		if s.Component == component {
			return s
		}
	}
	d.t.Fatalf("there is no instance %s", component)
	return decant.InstanceStatus{}
}

func (d *testDevice) wantState(component string, want decant.InstanceState) {
	d.t.Helper()
	if s := d.status(component); s.State != want {
		d.t.Fatalf("%s is %s (%v), want %s", component, s.State, s.Error, want)
	}
}

// pipeTo links to components of the same device.
func (d *testDevice) pipeTo(components ...string) func(*decant.InstanceSpec) {
	return func(s *decant.InstanceSpec) {
		for _, c := range components {
			s.Links = append(s.Links, decant.Route{Component: c, Function: "run", Device: d.id, Epoch: 1})
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
