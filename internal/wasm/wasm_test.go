package wasm_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/wasm"
)

var guests struct {
	dir string
	err error
}

// TestMain builds the guests of testdata, once. The test's program is its own
// compiler.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == wasm.CompilerCommand {
		os.Exit(wasm.Compiler(os.Args[2]))
	}
	guests.dir, guests.err = os.MkdirTemp("", "decant-wasm-test-")
	for name, mode := range map[string]string{"kit": "c-shared", "command": "default"} {
		if guests.err == nil {
			cmd := exec.Command("go", "build", "-buildmode="+mode, "-ldflags=-s -w", "-o", filepath.Join(guests.dir, name+".wasm"), "./testdata/"+name)
			cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=")
			if out, err := cmd.CombinedOutput(); err != nil {
				guests.err = fmt.Errorf("%w: %s", err, out)
			}
		}
	}
	code := m.Run()
	_ = os.RemoveAll(guests.dir)
	os.Exit(code)
}

func binary(t testing.TB, name string) []byte {
	t.Helper()
	if guests.err != nil {
		t.Fatal(guests.err)
	}
	b, err := os.ReadFile(filepath.Join(guests.dir, name+".wasm"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// cacheDir is shared by the tests of this process: compiling takes seconds.
var cacheDir = sync.OnceValue(func() string { return filepath.Join(guests.dir, "cache") })

func newHost(t testing.TB, c wasm.Config) *wasm.Host {
	t.Helper()
	c.CacheDir = cacheDir()
	h, err := wasm.New(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

func start(t testing.TB, h *wasm.Host, bin []byte, c wasm.GuestConfig) *wasm.Guest {
	t.Helper()
	m, err := h.Compile(context.Background(), bin)
	if err != nil {
		t.Fatal(err)
	}
	g, err := h.Start(context.Background(), m, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.Close() })
	return g
}

func kit(t testing.TB, c wasm.GuestConfig) *wasm.Guest {
	return start(t, newHost(t, wasm.Config{}), binary(t, "kit"), c)
}

func call(t testing.TB, g *wasm.Guest, function, request string) string {
	t.Helper()
	out, err := g.Call(context.Background(), function, []byte(request))
	if err != nil {
		t.Fatalf("%s: %v", function, err)
	}
	return string(out)
}

func TestReactor(t *testing.T) {
	g := kit(t, wasm.GuestConfig{})
	for _, size := range []int{0, 1, 1000, 150_000} {
		want := strings.Repeat("x", size)
		if got := call(t, g, "echo", want); got != want {
			t.Errorf("echo of %d bytes gave %d", size, len(got))
		}
	}
	for want := 1; want < 4; want++ {
		if got := call(t, g, "count", ""); got != fmt.Sprint(want) {
			t.Errorf("count gave %s, want %d: its memory is its state", got, want)
		}
	}
	if got := call(t, g, "add", `[1, "-2", 0.5, 1e3]`); got != "[999.5]" {
		t.Errorf("add gave %s", got)
	}
}

func TestInterpreter(t *testing.T) {
	h := newHost(t, wasm.Config{Interpreter: true})
	if h.Engine() != "interpreter" {
		t.Errorf("engine is %s", h.Engine())
	}
	if got := call(t, start(t, h, binary(t, "kit"), wasm.GuestConfig{}), "echo", "hello"); got != "hello" {
		t.Errorf("got %q", got)
	}
}

func TestCommand(t *testing.T) {
	h := newHost(t, wasm.Config{})
	g := start(t, h, binary(t, "command"), wasm.GuestConfig{Args: []string{"a", "b"}, Env: map[string]string{"KEY": "value"}})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if got, err := g.Call(context.Background(), "", []byte("in")); err != nil || string(got) != "[a b] value in\n" {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
	wg.Wait()
	_, err := g.Call(context.Background(), "_start", []byte("fail"))
	if !errors.Is(err, decant.GuestFailed) || !strings.Contains(err.Error(), "status 4: as asked") {
		t.Errorf("got %v", err)
	}
}

// TestFailures: what goes wrong in a guest is an error that says what, and the
// guest is lost only where its memory cannot be trusted any more.
func TestFailures(t *testing.T) {
	h := newHost(t, wasm.Config{})
	for _, tt := range []struct {
		function, request string
		config            wasm.GuestConfig
		timeout           time.Duration
		code              decant.Code
		says              string
		lost              bool
	}{
		{function: "fail", code: decant.GuestFailed, says: "function fail failed with status 3: the reason why"},
		{function: "breakdown", code: decant.GuestFailed, says: "broke down while calling breakdown", lost: true},
		{function: "exit", code: decant.GuestFailed, says: "status 7", lost: true},
		{function: "nothing", code: decant.NotFound, says: `no function "nothing"; it has add, ask, breakdown,`},
		{function: "add", request: "[1]", code: decant.Invalid, says: "send a JSON array of 4 numbers"},
		{function: "add", request: `[1,2,3,"x"]`, code: decant.Invalid, says: `argument 4 is "x", not an f64`},
		{function: "add", request: "[" + strings.Repeat("1,", 33<<10) + "1]", code: decant.Invalid, says: "the request has 67587 bytes, 65536 at most"},
		{function: "spin", timeout: 100 * time.Millisecond, code: decant.Deadline, says: "ran out of time", lost: true},
		{function: "spin", config: wasm.GuestConfig{Deadline: 50 * time.Millisecond}, code: decant.Deadline, lost: true},
		{function: "sleep", timeout: 50 * time.Millisecond, code: decant.Deadline, lost: true},
		{function: "grow", config: wasm.GuestConfig{Memory: 64 * decant.MiB}, code: decant.Exhausted, says: "more than the 64MiB", lost: true},
		{function: "flood", config: wasm.GuestConfig{Output: 3 << 20}, code: decant.Exhausted, says: "response is larger"},
	} {
		t.Run(tt.function, func(t *testing.T) {
			g := start(t, h, binary(t, "kit"), tt.config)
			ctx := context.Background()
			if tt.timeout > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, tt.timeout)
				defer cancel()
			}
			_, err := g.Call(ctx, tt.function, []byte(tt.request))
			if !errors.Is(err, tt.code) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want %s: %s", err, tt.code, tt.says)
			}
			if g.Lost() != tt.lost {
				t.Errorf("lost: %v, want %v", g.Lost(), tt.lost)
			}
			if out, err := g.Call(context.Background(), "echo", []byte("again")); tt.lost == (err == nil) {
				t.Errorf("the next call gave %q, %v", out, err)
			}
		})
	}
}

func TestCompileErrors(t *testing.T) {
	h := newHost(t, wasm.Config{})
	imports := []byte("\x00asm\x01\x00\x00\x00" + "\x01\x04\x01\x60\x00\x00" + "\x02\x1a\x02\x03env\x04wait\x00\x00\x04host\x06secret\x00\x00")
	for name, tt := range map[string]struct {
		binary []byte
		says   string
	}{
		"empty":            {nil, "not a WebAssembly module"},
		"something else":   {[]byte("#!/bin/sh\n"), "not a WebAssembly module"},
		"cut short":        {binary(t, "kit")[:100_000], "the module is damaged, or cut short, at byte"},
		"unknown imports":  {imports, "imports what this host does not offer: env.wait, host.secret"},
		"header only, odd": {[]byte("\x00asm\x0d\x00\x00\x00"), "a component, perhaps"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := h.Compile(context.Background(), tt.binary); !errors.Is(err, decant.Invalid) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// fakeDevice gives its samples in turn and keeps what is written.
type fakeDevice struct {
	samples []string
	written []string
}

func (d *fakeDevice) Read(context.Context) ([]byte, error) {
	if len(d.samples) == 0 {
		return nil, io.EOF
	}
	s := d.samples[0]
	d.samples = d.samples[1:]
	if s == "broken" {
		return nil, decant.Errorf(decant.Unavailable, "the cable is loose")
	}
	return []byte(s), nil
}

func (d *fakeDevice) Write(_ context.Context, action []byte) error {
	d.written = append(d.written, string(action))
	return nil
}

func TestFiles(t *testing.T) {
	model := filepath.Join(t.TempDir(), "labels.txt")
	if err := os.WriteFile(model, []byte("cat dog"), 0o600); err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	device := &fakeDevice{samples: []string{"one", "two", "broken"}}
	stateDir := filepath.Join(t.TempDir(), "state")
	config := wasm.GuestConfig{
		Devices:    map[string]wasm.Device{"sensor": device},
		Links:      map[string]wasm.Link{"next": nil},
		Models:     map[string]map[string]string{"net": {"labels.txt": model}},
		State:      stateDir,
		StateLimit: 4 * decant.MiB,
	}
	g := kit(t, config)
	for _, tt := range []struct{ script, want string }{
		{"ls /", "dev link models state"},
		{"ls /dev", "sensor"},
		{"ls /models", "net"},
		{"ls /models/net", "labels.txt"},
		{"cat /models/net/labels.txt", "cat dog"},
		{"put /models/net/labels.txt x", "put: error: open /models/net/labels.txt: Read-only file system"},
		{"cat /dev/sensor", "one"},
		{"cat /dev/sensor", "two"},
		{"cat /dev/sensor", "cat: error: read /dev/sensor: I/O error"},
		{"put /dev/sensor act", ""},
		{"put /other x", "put: error: open /other: Read-only file system"},
		{"cat /etc/passwd", "cat: error: open /etc/passwd: No such file or directory"},
		{"put /state/a hello\nappend /state/a -again\ncat /state/a", "hello-again"},
		{"mkdir /state/d\nmv /state/a /state/d/b\nls /state\ncat /state/d/b", "d\nhello-again"},
		{"rm /state/d", "rm: error: remove /state/d: Directory not empty"},
		{"cat /state/../../" + secret, "cat: error: open /state/../../" + secret + ": No such file or directory"},
		{"ln " + secret + " /state/link", "ln: error: symlink " + secret + " /state/link: Not implemented on wasip1"},
		{"fill /state/big 3\nrm /state/big\nfill /state/big 3", ""},
		{"fill /state/more 3", "fill: error: write /state/more: I/O error"},
		{"rm /state", "rm: error: remove /state: Permission denied"},
	} {
		if got := strings.TrimSpace(call(t, g, "files", tt.script)); got != tt.want {
			t.Errorf("%q gave\n%s\nwant\n%s", tt.script, got, tt.want)
		}
	}
	if fmt.Sprint(device.written) != "[act]" {
		t.Errorf("the device got %q", device.written)
	}
	// A link that somebody put there by hand does not lead out either.
	if err := os.Symlink(secret, filepath.Join(stateDir, "planted")); err != nil {
		t.Fatal(err)
	}
	if got := call(t, g, "files", "cat /state/planted"); strings.Contains(got, "secret\n") {
		t.Errorf("the guest read a file of the host: %q", got)
	}
	// State outlives the instance.
	if got := call(t, kit(t, config), "files", "cat /state/d/b"); got != "hello-again\n" {
		t.Errorf("after a restart: %q", got)
	}
}

func TestLink(t *testing.T) {
	var fail error
	var log bytes.Buffer
	g := kit(t, wasm.GuestConfig{Log: &log, Links: map[string]wasm.Link{
		"next": func(_ context.Context, request []byte) ([]byte, error) { return bytes.ToUpper(request), fail },
	}})
	for _, text := range []string{"one", "two"} {
		if got := call(t, g, "ask", text); got != strings.ToUpper(text) {
			t.Errorf("got %q", got)
		}
	}
	// The guest fails by its link: its caller learns of the link's error.
	fail = decant.Errorf(decant.Unavailable, "the next device is away")
	_, err := g.Call(context.Background(), "ask", []byte("three"))
	if !errors.Is(err, decant.Unavailable) || !strings.Contains(log.String(), "the next device is away") {
		t.Errorf("got %v; log %q", err, &log)
	}
	fail = nil
	if got := call(t, g, "ask", "four"); got != "FOUR" {
		t.Errorf("after the failure: %q", got)
	}
}

// TestCloseEndsCalls: Close stops a call under way, waits for it, and leaves
// nothing behind.
func TestCloseEndsCalls(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	h, err := wasm.New(context.Background(), wasm.Config{CacheDir: cacheDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	m, err := h.Compile(context.Background(), binary(t, "kit"))
	if err != nil {
		t.Fatal(err)
	}
	g, err := h.Start(context.Background(), m, wasm.GuestConfig{})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() {
		_, err := g.Call(context.Background(), "spin", nil)
		ended <- err
	}()
	go func() { _ = g.Close() }()
	if err := <-ended; !errors.Is(err, decant.Unavailable) {
		t.Errorf("the call under way: %v", err)
	}
	if _, err := g.Call(context.Background(), "echo", nil); !errors.Is(err, decant.Unavailable) {
		t.Errorf("a call after Close: %v", err)
	}
}

// TestInitialMemory: a module whose first memory is larger than it may have is
// refused, as one that grows beyond it is.
func TestInitialMemory(t *testing.T) {
	h, err := wasm.New(t.Context(), wasm.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	m, err := h.Compile(t.Context(), []byte("\x00asm\x01\x00\x00\x00\x05\x03\x01\x00\x64")) // 100 pages
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if _, err := h.Start(t.Context(), m, wasm.GuestConfig{Memory: decant.MiB}); !errors.Is(err, decant.Exhausted) {
		t.Errorf("with 1MiB: got %v", err)
	}
	g, err := h.Start(t.Context(), m, wasm.GuestConfig{Memory: 8 * decant.MiB})
	if err != nil {
		t.Fatal(err)
	}
	_ = g.Close()
}

// countingLog keeps the length and the end of what it gets.
type countingLog struct {
	bytes, writes int
	end           string
	then          func() // called at each write
}

func (l *countingLog) Write(p []byte) (int, error) {
	l.bytes += len(p)
	l.writes++
	l.end = string(p[max(0, len(p)-100):])
	if l.then != nil {
		l.then()
	}
	return len(p), nil
}

// TestLogBudget: however much a call logs, in however few calls of the host, the
// log gets no more than its due of it and the call goes on; the next call has
// its own.
func TestLogBudget(t *testing.T) {
	log := &countingLog{}
	g := kit(t, wasm.GuestConfig{Log: log})
	for range 2 {
		log.bytes = 0
		call(t, g, "hose", "2 100000 1000000")
		if log.bytes < 1<<20 || log.bytes > 1<<20+100 || !strings.HasSuffix(log.end, "\ndecant: this call has logged more than 1MiB: the rest is dropped\n") {
			t.Errorf("the log got %d bytes, at the end %q", log.bytes, log.end)
		}
	}
}

// endingDevice ends a call at the first write.
type endingDevice struct {
	end    func()
	writes int
}

func (d *endingDevice) Read(context.Context) ([]byte, error) { return nil, io.EOF }

func (d *endingDevice) Write(context.Context, []byte) error {
	d.writes++
	d.end()
	return nil
}

// TestEndedCallWritesNoMore: a call of the host with a hundred thousand buffers
// stops with the guest's call.
func TestEndedCallWritesNoMore(t *testing.T) {
	for _, to := range []string{"2", "dev/motor"} {
		ctx, cancel := context.WithCancel(t.Context())
		log, device := &countingLog{then: cancel}, &endingDevice{end: cancel}
		g := kit(t, wasm.GuestConfig{Log: log, Devices: map[string]wasm.Device{"motor": device}})
		if _, err := g.Call(ctx, "hose", []byte(to+" 100000 1")); !errors.Is(err, decant.Deadline) {
			t.Errorf("%s: got %v", to, err)
		}
		if log.writes+device.writes != 1 {
			t.Errorf("%s: %d writes after the call's end", to, log.writes+device.writes-1)
		}
	}
}

// TestHoards: what a guest may keep of the host's is bounded, over all of its
// open files; why it could not have more is the error of its call.
func TestHoards(t *testing.T) {
	config := func(t *testing.T) wasm.GuestConfig {
		return wasm.GuestConfig{
			State:   filepath.Join(t.TempDir(), "state"),
			Models:  map[string]map[string]string{"net": {"m": os.Args[0]}},
			Devices: map[string]wasm.Device{"motor": &fakeDevice{}},
			Links:   map[string]wasm.Link{"next": func(context.Context, []byte) ([]byte, error) { return nil, nil }},
		}
	}
	for _, tt := range []struct{ request, says string }{
		{"link/next 2 64", ""},
		{"link/next 1 65", "the request to a link is larger than 64MiB"},
		{"link/next 9 15", "would hold more than 128MiB"},
		{"dev/motor 9 15", ""}, // acted on, not kept
		{"link/next 100 0", ""},
		{"link/next 200 0", "the guest has 128 files open"},
		{"dev/motor 200 0", "the guest has 128 files open"},
		{"models/net/m 200 0", "the guest has 128 files open"},
		{"state/a 200 0", "the guest has 128 files open"},
		{". 200 0", "the guest has 128 files open"},
	} {
		t.Run(tt.request, func(t *testing.T) {
			_, err := kit(t, config(t)).Call(t.Context(), "hoard", []byte(tt.request))
			if tt.says == "" && err != nil {
				t.Errorf("got %v", err)
			}
			if tt.says != "" && (!errors.Is(err, decant.Exhausted) || !strings.Contains(err.Error(), tt.says)) {
				t.Errorf("got %v, want %s", err, tt.says)
			}
		})
	}
}

// TestRenumber: a file's number is bounded as their count is, whatever runs the
// guest.
func TestRenumber(t *testing.T) {
	for _, interpreter := range []bool{false, true} {
		g := start(t, newHost(t, wasm.Config{Interpreter: interpreter}), binary(t, "kit"), wasm.GuestConfig{})
		call(t, g, "renumber", "100")
		if _, err := g.Call(t.Context(), "renumber", []byte("-1")); !errors.Is(err, decant.GuestFailed) || g.Lost() {
			t.Errorf("to -1: got %v", err)
		}
		_, err := g.Call(t.Context(), "renumber", []byte("10000000"))
		if !errors.Is(err, decant.GuestFailed) || !strings.Contains(err.Error(), "it gave a file the number 10000000: 256 at most") || !g.Lost() {
			t.Errorf("to 10000000: got %v", err)
		}
	}
}

// TestNothingStaysHeld: what was sent, read or closed is not held any more.
func TestNothingStaysHeld(t *testing.T) {
	g := kit(t, wasm.GuestConfig{
		Devices: map[string]wasm.Device{"sensor": &fakeDevice{samples: slices.Repeat([]string{strings.Repeat("x", 20<<20)}, 10)}},
		Links:   map[string]wasm.Link{"next": func(_ context.Context, request []byte) ([]byte, error) { return request, nil }},
	})
	for range 10 {
		call(t, g, "ask", strings.Repeat("x", 20<<20))
		call(t, g, "files", "cat /dev/sensor")
	}
}

func BenchmarkEcho(b *testing.B) {
	for _, function := range []string{"echo", "fastecho"} {
		for _, size := range []int{1 << 10, 150_000} {
			b.Run(fmt.Sprintf("%s/%d", function, size), func(b *testing.B) {
				g := kit(b, wasm.GuestConfig{})
				request := bytes.Repeat([]byte("x"), size)
				b.SetBytes(int64(size))
				for b.Loop() {
					if _, err := g.Call(context.Background(), function, request); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
