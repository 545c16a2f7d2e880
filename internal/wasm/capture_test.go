package wasm_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/wasm"
	"github.com/decant-project/decant/internal/wasm/snapshot"
)

var snapshotLimits = snapshot.Limits{Memory: decant.GiB, Files: 64 * decant.MiB, Extra: decant.MiB}

// sent is a snapshot as another machine gets it.
func sent(t testing.TB, s *wasm.Snapshot) *wasm.Snapshot {
	t.Helper()
	var wire bytes.Buffer
	digest, err := s.Encode(&wire)
	if err != nil {
		t.Fatal(err)
	}
	got, gotDigest, err := wasm.Decode(&wire, snapshotLimits)
	if err != nil {
		t.Fatal(err)
	}
	if gotDigest != digest {
		t.Errorf("it was %s and arrived as %s", digest, gotDigest)
	}
	t.Cleanup(func() { _ = got.Close() })
	return got
}

func capture(t testing.TB, g *wasm.Guest) *wasm.Snapshot {
	t.Helper()
	s, err := g.Capture(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func restore(t testing.TB, h *wasm.Host, bin []byte, c wasm.GuestConfig, s *wasm.Snapshot) *wasm.Guest {
	t.Helper()
	m, err := h.Compile(context.Background(), bin)
	if err != nil {
		t.Fatal(err)
	}
	g, err := h.Restore(context.Background(), m, c, s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.Close() })
	return g
}

// TestCapture: a guest goes on where its snapshot was taken, under either
// engine, as often as one likes, and so does the one that it was taken of.
func TestCapture(t *testing.T) {
	bin := binary(t, "kit")
	state := t.TempDir()
	g := start(t, newHost(t, wasm.Config{}), bin, wasm.GuestConfig{State: state})
	call(t, g, "files", "mkdir /state/d\nput /state/d/b hello")
	for range 3 {
		call(t, g, "count", "")
	}
	began := time.Now()
	up, _ := strconv.ParseInt(call(t, g, "uptime", ""), 10, 64)
	s := sent(t, capture(t, g))
	if got := call(t, g, "count", ""); got != "4" {
		t.Errorf("the captured guest goes on with %s", got)
	}
	for _, interpreter := range []bool{false, true} {
		h := newHost(t, wasm.Config{Interpreter: interpreter})
		for range 2 {
			there := filepath.Join(t.TempDir(), "state")
			other := restore(t, h, bin, wasm.GuestConfig{State: there}, s)
			if got := call(t, other, "count", ""); got != "4" {
				t.Errorf("interpreter %v: the restored guest goes on with %s", interpreter, got)
			}
			if got := call(t, other, "files", "cat /state/d/b\nappend /state/d/b -"); got != "hello\n" {
				t.Errorf("interpreter %v: its file holds %q", interpreter, got)
			}
			now, _ := strconv.ParseInt(call(t, other, "uptime", ""), 10, 64)
			if now < up || now > up+int64(time.Since(began)) {
				t.Errorf("interpreter %v: its clock says %d, and was %d", interpreter, now, up)
			}
		}
	}
}

func TestCaptureRefused(t *testing.T) {
	h := newHost(t, wasm.Config{})
	for what, tt := range map[string]struct {
		g    *wasm.Guest
		code decant.Code
		says string
	}{
		"a command":       {start(t, h, binary(t, "command"), wasm.GuestConfig{}), decant.Unsupported, "it keeps nothing from call to call"},
		"a changed table": {start(t, h, []byte(tableModule), wasm.GuestConfig{}), decant.Unsupported, "it changes a table"},
		"open files": {
			func() *wasm.Guest {
				g := kit(t, wasm.GuestConfig{State: t.TempDir()})
				call(t, g, "hoard", "state/a 2 0")
				return g
			}(), decant.Conflict, "files open, which cannot be taken along: /state/a, /state/a",
		},
	} {
		if _, err := tt.g.Capture(t.Context()); !errors.Is(err, tt.code) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: got %v", what, err)
		}
	}
}

// tableModule sets an element of its table.
const tableModule = "\x00asm\x01\x00\x00\x00" + "\x01\x04\x01\x60\x00\x00" + "\x03\x02\x01\x00" + "\x04\x04\x01\x70\x00\x01" +
	"\x07\x05\x01\x01f\x00\x00" + "\x0a\x0a\x01\x08\x00\x41\x00\xd0\x70\x26\x00\x0b"

func TestRestoreRefused(t *testing.T) {
	h := newHost(t, wasm.Config{})
	bin := binary(t, "kit")
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "there"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	g := start(t, h, bin, wasm.GuestConfig{State: t.TempDir()})
	call(t, g, "files", "fill /state/a 1")
	s := capture(t, g)
	for what, tt := range map[string]struct {
		bin    []byte
		config wasm.GuestConfig
		code   decant.Code
		says   string
	}{
		"another module":  {binary(t, "command"), wasm.GuestConfig{}, decant.Invalid, "the snapshot is of the module"},
		"too much memory": {bin, wasm.GuestConfig{Memory: decant.MiB}, decant.Exhausted, "the guest may have 1MiB"},
		"files there":     {bin, wasm.GuestConfig{State: full}, decant.Conflict, "there are files in"},
		"too many files":  {bin, wasm.GuestConfig{State: filepath.Join(t.TempDir(), "s"), StateLimit: decant.MiB}, decant.Exhausted, "the snapshot's files in /state are"},
		"no place":        {bin, wasm.GuestConfig{}, decant.Invalid, "has no such folder"},
	} {
		m, err := h.Compile(t.Context(), tt.bin)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.Restore(t.Context(), m, tt.config, s); !errors.Is(err, tt.code) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: got %v", what, err)
		}
	}
}

// TestRestoreWithoutMemory: a snapshot that gives memory to a module that has none
// is not of that module.
func TestRestoreWithoutMemory(t *testing.T) {
	h := newHost(t, wasm.Config{})
	var wire bytes.Buffer
	forged := snapshot.Snapshot{Module: decant.DigestOf([]byte(recursion)), Memory: 64 << 10}
	if _, err := snapshot.Encode(&wire, &forged, snapshot.Memory(bytes.Repeat([]byte("x"), 64<<10)).Pages()); err != nil {
		t.Fatal(err)
	}
	s, _, err := wasm.Decode(&wire, snapshotLimits)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	m, err := h.Compile(t.Context(), []byte(recursion))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Restore(t.Context(), m, wasm.GuestConfig{}, s); !errors.Is(err, decant.Invalid) {
		t.Errorf("got %v", err)
	}
}

// failing is a host module that cannot go on, until it can.
type failing struct{ err error }

func (f *failing) Capture() ([]byte, error)              { return nil, nil }
func (f *failing) Restore(context.Context, []byte) error { return f.err }

// TestRestoreAgain: a restore that failed leaves nothing behind, and can be tried
// again; files are never mixed with others.
func TestRestoreAgain(t *testing.T) {
	h := newHost(t, wasm.Config{})
	bin := binary(t, "kit")
	m, err := h.Compile(t.Context(), bin)
	if err != nil {
		t.Fatal(err)
	}
	g := start(t, h, bin, wasm.GuestConfig{State: t.TempDir()})
	empty := capture(t, g)
	call(t, g, "files", "mkdir /state/d\nput /state/d/a hello")
	s := capture(t, g)
	there := filepath.Join(t.TempDir(), "state")
	keeper := &failing{err: decant.Errorf(decant.NotFound, "no such model")}
	config := wasm.GuestConfig{State: there, Keeper: keeper}
	for range 2 {
		if _, err := h.Restore(t.Context(), m, config, s); !errors.Is(err, decant.NotFound) {
			t.Errorf("got %v", err)
		}
	}
	keeper.err = nil
	other := restore(t, h, bin, config, s)
	if got := call(t, other, "files", "cat /state/d/a"); got != "hello\n" {
		t.Errorf("its file holds %q", got)
	}
	if _, err := h.Restore(t.Context(), m, config, empty); !errors.Is(err, decant.Conflict) {
		t.Errorf("without files, into a folder that has some: %v", err)
	}
	if left, _ := os.ReadDir(filepath.Dir(there)); len(left) != 1 {
		t.Errorf("beside the folder there are %v", left)
	}
}

// TestSetBackFails: a guest that cannot be set back is lost, and says so.
func TestSetBackFails(t *testing.T) {
	h := newHost(t, wasm.Config{})
	var log bytes.Buffer
	keeper := &failing{}
	g := start(t, h, binary(t, "kit"), wasm.GuestConfig{Log: &log, Keeper: keeper})
	if err := g.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	keeper.err = decant.Errorf(decant.NotFound, "no such model")
	if _, err := g.Call(t.Context(), "breakdown", nil); !errors.Is(err, decant.GuestFailed) {
		t.Errorf("got %v", err)
	}
	if !g.Lost() || !strings.Contains(log.String(), "cannot be set back to its checkpoint: no such model") {
		t.Errorf("lost: %v; the log says %q", g.Lost(), log.String())
	}
	if _, err := g.Call(t.Context(), "count", nil); !errors.Is(err, decant.GuestFailed) {
		t.Errorf("a call of it: %v", err)
	}
}

// TestCheckpoint: a guest that breaks down is set back to its checkpoint.
func TestCheckpoint(t *testing.T) {
	h := newHost(t, wasm.Config{})
	var log bytes.Buffer
	g := start(t, h, binary(t, "kit"), wasm.GuestConfig{Log: &log})
	for n := range 3 {
		call(t, g, "count", "")
		if err := g.Checkpoint(t.Context()); err != nil {
			t.Fatal(err)
		}
		call(t, g, "count", "")
		for function, code := range map[string]decant.Code{"breakdown": decant.GuestFailed, "spin": decant.Deadline} {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			if _, err := g.Call(ctx, function, nil); !errors.Is(err, code) {
				t.Errorf("%s: got %v", function, err)
			}
			cancel()
		}
		if got := call(t, g, "count", ""); g.Lost() || got != fmt.Sprint(2*n+2) {
			t.Errorf("set back it counts %s", got)
		}
	}
	if !strings.Contains(log.String(), "decant: the instance is set back to its checkpoint\n") {
		t.Errorf("the log says %q", log.String())
	}
}

// TestWhatRunsOut: each limit of a call has an error of its own.
func TestWhatRunsOut(t *testing.T) {
	for _, interpreter := range []bool{false, true} {
		h := newHost(t, wasm.Config{Interpreter: interpreter})
		g := start(t, h, []byte(recursion), wasm.GuestConfig{})
		if _, err := g.Call(t.Context(), "f", nil); !errors.Is(err, decant.Exhausted) || !strings.Contains(err.Error(), "deeper than its stack allows") {
			t.Errorf("interpreter %v: endless recursion gave %v", interpreter, err)
		}
		g = start(t, h, binary(t, "kit"), wasm.GuestConfig{Fuel: 50_000_000})
		if _, err := g.Call(t.Context(), "spin", nil); !errors.Is(err, decant.Exhausted) || !strings.Contains(err.Error(), "more than the 50000000 units of fuel") {
			t.Errorf("interpreter %v: without fuel: %v", interpreter, err)
		}
	}
}

// recursion exports f, which calls itself.
const recursion = "\x00asm\x01\x00\x00\x00" + "\x01\x04\x01\x60\x00\x00" + "\x03\x02\x01\x00" + "\x07\x05\x01\x01f\x00\x00" + "\x0a\x06\x01\x04\x00\x10\x00\x0b"

// BenchmarkSnapshot measures what it takes to take, send and go on with a
// snapshot of a Go guest with so many MiB of data.
func BenchmarkSnapshot(b *testing.B) {
	h := newHost(b, wasm.Config{})
	bin := binary(b, "kit")
	m, err := h.Compile(context.Background(), bin)
	if err != nil {
		b.Fatal(err)
	}
	for _, mib := range []int{0, 16, 64} {
		g := start(b, h, bin, wasm.GuestConfig{})
		call(b, g, "fillup", fmt.Sprint(mib))
		s := capture(b, g)
		size := int64(max(mib, 1)) << 20
		b.Run(fmt.Sprintf("capture/%dMiB", mib), func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				s, err := g.Capture(context.Background())
				if err != nil {
					b.Fatal(err)
				}
				_ = s.Close()
			}
		})
		b.Run(fmt.Sprintf("encode/%dMiB", mib), func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				if _, err := s.Encode(io.Discard); err != nil {
					b.Fatal(err)
				}
			}
		})
		var wire bytes.Buffer
		if _, err := s.Encode(&wire); err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("decode/%dMiB", mib), func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				s, _, err := wasm.Decode(bytes.NewReader(wire.Bytes()), snapshotLimits)
				if err != nil {
					b.Fatal(err)
				}
				_ = s.Close()
			}
		})
		b.Run(fmt.Sprintf("clone/%dMiB", mib), func(b *testing.B) {
			for b.Loop() {
				g, err := h.Restore(context.Background(), m, wasm.GuestConfig{}, s)
				if err != nil {
					b.Fatal(err)
				}
				_ = g.Close()
			}
		})
	}
	b.Run("start", func(b *testing.B) {
		for b.Loop() {
			g, err := h.Start(context.Background(), m, wasm.GuestConfig{})
			if err != nil {
				b.Fatal(err)
			}
			_ = g.Close()
		}
	})
}
