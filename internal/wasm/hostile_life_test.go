package wasm_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/wasm"
	"github.com/decant-project/decant/internal/wasm/snapshot"
)

// pocket is a module with all that a snapshot holds: memory of one to four
// pages, a mutable global that f writes with, and data that is dropped.
var pocket = assembly{
	pages: 1, most: 4, globals: []string{i32t + "\x01" + i32Of(8) + "\x0b", i64t + "\x00" + i64Of(1) + "\x0b"}, data: []string{"\x01" + sized("kept"), "\x01" + sized("dropped")},
	code: []assembled{{code: "\x23\x00" + i32Of(1) + "\x36\x00\x00" + "\xfc\x09\x01"}},
}.bytes()

// TestHostileSnapshots: what a snapshot holds that was made by hand is refused
// where it does not fit its module, and else harms nobody but its guest.
func TestHostileSnapshots(t *testing.T) {
	const page = 64 << 10
	for _, tt := range []struct {
		name    string
		change  func(s *snapshot.Snapshot)
		code    decant.Code // of Restore
		called  decant.Code // of a call, where it is restored
		refused bool        // before that, as no snapshot at all
	}{
		{name: "as it was", change: func(*snapshot.Snapshot) {}},
		{name: "another module", change: func(s *snapshot.Snapshot) { s.Module = decant.DigestOf(nil) }, code: decant.Invalid},
		{name: "without memory", change: func(s *snapshot.Snapshot) { s.Memory = 0 }, code: decant.Invalid},
		{name: "all the memory of the module", change: func(s *snapshot.Snapshot) { s.Memory = 4 * page }},
		{name: "more memory than the module takes", change: func(s *snapshot.Snapshot) { s.Memory = 5 * page }, code: decant.Invalid},
		{name: "without globals", change: func(s *snapshot.Snapshot) { s.Globals = nil }, code: decant.Invalid},
		{name: "another global", change: func(s *snapshot.Snapshot) { s.Globals[0].Index = 1 }, code: decant.Invalid},
		{name: "the meter", change: func(s *snapshot.Snapshot) {
			s.Globals = append(s.Globals, snapshot.Global{Index: 2, Type: snapshot.I64, Bits: math.MaxInt64})
		}, code: decant.Invalid},
		{name: "a global of another type", change: func(s *snapshot.Snapshot) { s.Globals[0].Type = snapshot.F32 }, code: decant.Invalid},
		{name: "a pointer out of bounds", change: func(s *snapshot.Snapshot) { s.Globals[0].Bits = math.MaxUint32 }, called: decant.GuestFailed},
		{name: "a segment that is dropped", change: func(s *snapshot.Snapshot) { s.Dropped = []uint32{1} }},
		{name: "a segment that cannot be", change: func(s *snapshot.Snapshot) { s.Dropped = []uint32{0} }, code: decant.Invalid},
		{name: "a segment that is not there", change: func(s *snapshot.Snapshot) { s.Dropped = []uint32{math.MaxUint32} }, code: decant.Invalid},
		{name: "what no host module keeps", change: func(s *snapshot.Snapshot) { s.Extra = []snapshot.Extra{{Name: "host", Data: []byte("x")}} }, code: decant.Unsupported},
		{name: "files without a folder", change: func(s *snapshot.Snapshot) {
			s.Files = []snapshot.File{{Path: "a", Modified: time.Unix(0, 0).UTC()}}
		}, code: decant.Invalid},
		{name: "a clock about to overflow", change: func(s *snapshot.Snapshot) { s.Clock = math.MaxInt64 }, refused: true},
	} {
		for _, interpreter := range []bool{false, true} {
			t.Run(fmt.Sprint(tt.name, "/", interpreter), func(t *testing.T) {
				h := newHost(t, wasm.Config{Interpreter: interpreter})
				m, err := h.Compile(t.Context(), pocket)
				if err != nil {
					t.Fatal(err)
				}
				state := snapshot.Snapshot{Module: decant.DigestOf(pocket), Memory: page, Globals: []snapshot.Global{{Index: 0, Type: snapshot.I32, Bits: 8}}}
				tt.change(&state)
				hand, err := byHand(t, state)
				if err != nil || tt.refused {
					if !errors.Is(err, decant.Invalid) || !tt.refused {
						t.Errorf("read: got %v", err)
					}
					return
				}
				g, err := h.Restore(t.Context(), m, wasm.GuestConfig{Memory: 64 * page}, hand)
				if !errors.Is(err, tt.code) && (err != nil || tt.code != "") {
					t.Errorf("restored: got %v, want %s", err, tt.code)
				}
				if err != nil {
					return
				}
				defer g.Close()
				if _, err := g.Call(t.Context(), "f", nil); !errors.Is(err, tt.called) && (err != nil || tt.called != "") {
					t.Errorf("called: got %v, want %s", err, tt.called)
				}
				if tt.called == "" {
					_ = sent(t, capture(t, g))
				}
			})
		}
	}
}

// byHand is a snapshot that no guest was in, as it arrives.
func byHand(t *testing.T, state snapshot.Snapshot) (*wasm.Snapshot, error) {
	t.Helper()
	var wire bytes.Buffer
	if _, err := snapshot.Encode(&wire, &state, snapshot.Memory(make([]byte, state.Memory)).Pages()); err != nil {
		return nil, err
	}
	s, _, err := wasm.Decode(&wire, snapshotLimits)
	if err == nil {
		t.Cleanup(func() { _ = s.Close() })
	}
	return s, err
}

// TestCaptureHostile: a guest that has filled all that it was given is captured
// without holding up the process.
func TestCaptureHostile(t *testing.T) {
	h := newHost(t, wasm.Config{})
	neighbour := start(t, h, small, wasm.GuestConfig{})
	const size = 128 << 20
	fill := assembly{pages: size >> 16, code: []assembled{{code: args(0, 1, size) + "\xfc\x0b\x00"}}}.bytes()
	g := start(t, h, fill, wasm.GuestConfig{})
	call(t, g, "f", "")
	harmless(t, neighbour, 3*size, func() {
		wire, err := os.Create(filepath.Join(t.TempDir(), "wire"))
		if err != nil {
			t.Fatal(err)
		}
		defer wire.Close()
		if _, err := capture(t, g).Encode(wire); err != nil {
			t.Fatal(err)
		}
		if _, err := wire.Seek(0, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		s, _, err := wasm.Decode(wire, snapshotLimits)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		call(t, restore(t, h, fill, wasm.GuestConfig{}, s), "f", "")
	})
}

// harmless does what must neither stall the process nor make it grow by more.
func harmless(t *testing.T, neighbour *wasm.Guest, grows decant.Bytes, do func()) {
	t.Helper()
	var w *watcher
	for range 3 { // other programs on the machine may be what stalled it
		w = watch(t, neighbour)
		do()
		if w.end(); w.stall <= mostStall {
			break
		}
		t.Logf("the process stalled for %s", w.stall)
	}
	if !raced && (w.stall > mostStall || w.growth > grows) || w.served != nil {
		t.Errorf("the process stalled for %s and grew by %s; another guest: %v", w.stall, w.growth, w.served)
	}
}

// TestBreakdowns: a guest that breaks down again and again is set back each
// time, and nothing is left of those before.
func TestBreakdowns(t *testing.T) {
	h := newHost(t, wasm.Config{})
	neighbour := start(t, h, small, wasm.GuestConfig{})
	g := start(t, h, assembly{pages: 1024, code: []assembled{{code: args(0, 1, 32<<20) + "\xfc\x0b\x00" + unreachable}}}.bytes(), wasm.GuestConfig{})
	if err := g.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	harmless(t, neighbour, 96*decant.MiB, func() {
		for range 30 {
			if _, err := g.Call(t.Context(), "f", nil); !errors.Is(err, decant.GuestFailed) || g.Lost() {
				t.Fatalf("got %v", err)
			}
		}
	})
}

// TestCrowd: with many more guests at work than there are processors, one that
// is called by the network answers soon.
func TestCrowd(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	h := newHost(t, wasm.Config{})
	neighbour := start(t, h, small, wasm.GuestConfig{})
	ctx, stop := context.WithCancel(t.Context())
	there, here := connected(t)
	var wg, began sync.WaitGroup
	defer wg.Wait()
	defer stop()
	spin := assembly{pages: 1, imports: []string{"fd_write"}, data: []string{active(0, iovecs(1, 0, 1))}, code: []assembled{{code: args(2, 0, 1, 16) + calls(0) + drop + endless("")}}}.bytes()
	for range 64 {
		began.Add(1)
		g := start(t, h, spin, wasm.GuestConfig{Log: onWrite(began.Done)})
		wg.Go(func() { _, _ = g.Call(ctx, "f", nil) })
	}
	began.Wait()
	wg.Go(func() {
		for buf := make([]byte, 1); ; {
			if _, err := io.ReadFull(there, buf); err != nil {
				return
			}
			if _, err := neighbour.Call(t.Context(), "f", nil); err != nil {
				t.Error(err)
			}
			_, _ = there.Write(buf)
		}
	})
	defer there.Close()
	var slowest time.Duration
	for range 10 {
		began := time.Now()
		if _, err := here.Write([]byte("?")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(here, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		slowest = max(slowest, time.Since(began))
	}
	t.Logf("the slowest of 10 calls took %s", slowest)
	if slowest > 500*time.Millisecond && !raced {
		t.Errorf("a call took %s", slowest)
	}
}

// connected is a connection over the network of this machine.
func connected(t *testing.T) (there, here net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if here, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = here.Close() })
	if there, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return there, here
}

// TestClosingAtOnce: whatever is done with a guest while it is closed ends with
// an answer or by its being closed, closing it twice included.
func TestClosingAtOnce(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	h := newHost(t, wasm.Config{})
	reactor, err := h.Compile(t.Context(), pocket)
	if err != nil {
		t.Fatal(err)
	}
	command, err := h.Compile(t.Context(), assembly{exports: []string{exporting("_start", 0)}, code: []assembled{{}}}.bytes())
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		for _, m := range []*wasm.Module{reactor, command} {
			g, err := h.Start(t.Context(), m, wasm.GuestConfig{Memory: decant.MiB})
			if err != nil {
				t.Fatal(err)
			}
			function := m.Functions()[0]
			var wg sync.WaitGroup
			for _, do := range []func() error{
				func() error { _, err := g.Call(t.Context(), function, nil); return err },
				func() error { return g.Checkpoint(t.Context()) },
				func() error {
					s, err := g.Capture(t.Context())
					if err != nil {
						return err
					}
					return s.Close()
				},
				g.Close,
			} {
				wg.Go(func() {
					if err := do(); err != nil && !errors.Is(err, decant.Unavailable) && !errors.Is(err, decant.Unsupported) {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if _, err := g.Call(t.Context(), function, nil); !errors.Is(err, decant.Unavailable) {
				t.Errorf("a call after Close: %v", err)
			}
		}
	}
}

// onWrite is called at each write.
type onWrite func()

func (f onWrite) Write(p []byte) (int, error) {
	f()
	return len(p), nil
}

// TestClosedTwice: a guest may be closed by several at a time.
func TestClosedTwice(t *testing.T) {
	h := newHost(t, wasm.Config{})
	module := assembly{
		pages: 1, imports: []string{"fd_write"}, data: []string{active(0, iovecs(1, 0, 1))}, exports: []string{exporting("_start", 1)},
		code: []assembled{{code: args(2, 0, 1, 16) + calls(0) + drop + endless("")}},
	}.bytes()
	for range 20 {
		var wg, began sync.WaitGroup
		began.Add(runtime.GOMAXPROCS(0))
		g := start(t, h, module, wasm.GuestConfig{Log: onWrite(began.Done)})
		for range runtime.GOMAXPROCS(0) {
			wg.Go(func() { _, _ = g.Call(t.Context(), "_start", nil) })
		}
		began.Wait()
		for range 2 {
			wg.Go(func() { _ = g.Close() })
		}
		wg.Wait()
	}
}

// TestModuleClosedTwice: closing a module, even twice, takes nothing from another
// one of the same binary.
func TestModuleClosedTwice(t *testing.T) {
	h := newHost(t, wasm.Config{})
	first, err := h.Compile(t.Context(), pocket)
	if err != nil {
		t.Fatal(err)
	}
	second, err := h.Compile(t.Context(), pocket)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
	}
	g, err := h.Start(t.Context(), second, wasm.GuestConfig{Memory: decant.MiB})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	call(t, g, "f", "")
}

// TestNothingIsKept: a guest that is not called does not keep what it has answered.
func TestNothingIsKept(t *testing.T) {
	h := newHost(t, wasm.Config{})
	const size = 8 << 20
	module := assembly{pages: size >> 16, imports: []string{"fd_write"}, data: []string{active(0, iovecs(1, 0, size))}, code: []assembled{{code: args(1, 0, 1, 16) + calls(0) + drop}}}.bytes()
	heap := func() uint64 {
		runtime.GC()
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		return s.HeapAlloc
	}
	before := heap()
	var all []*wasm.Guest
	for range 8 {
		all = append(all, start(t, h, module, wasm.GuestConfig{}))
		if got := call(t, all[len(all)-1], "f", ""); len(got) != size {
			t.Fatalf("it answered %d bytes", len(got))
		}
	}
	if grew := heap() - before; grew > 2*size {
		t.Errorf("%d guests keep %s", len(all), decant.Bytes(grew))
	}
}
