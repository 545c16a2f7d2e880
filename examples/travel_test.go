package examples_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/wasm"
	"github.com/decant-project/decant/internal/wasm/snapshot"
)

// machines are where a tally travels, in this order: each is what qemu calls it.
var machines = []struct{ arch, qemu, engine string }{
	{"arm64", "qemu-aarch64-static", "compiler"},
	{"arm", "qemu-arm-static", "interpreter"},
	{"riscv64", "qemu-riscv64-static", "interpreter"},
	{"arm64", "qemu-aarch64-static", "interpreter"},
}

// TestTravel takes a tally in each language from this machine over others of
// different processors and engines, and back: it is what it would be had it
// stayed.
func TestTravel(t *testing.T) {
	for _, m := range machines {
		if _, err := exec.LookPath(m.qemu); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatalf("without %s: apt install qemu-user-static", m.qemu)
			}
			t.Skipf("without %s: apt install qemu-user-static", m.qemu)
		}
	}
	travellers := buildTravellers(t)
	for _, language := range []string{"go", "c", "assemblyscript", "rust"} {
		t.Run(language, func(t *testing.T) {
			b := newBench(t)
			dir := filepath.Join("tally", language)
			module := filepath.Join(t.TempDir(), "tally.wasm")
			if err := os.WriteFile(module, build(t, dir), 0o600); err != nil {
				t.Fatal(err)
			}
			g := b.start(dir, guest{state: t.TempDir()})
			g.call("add", []byte("here 1\n"))
			snap := encode(t, g.guest)
			for _, m := range machines {
				line := "on-" + m.arch + " 7\n"
				g.call("add", []byte(line))
				g.call("save", nil)
				cmd := exec.CommandContext(t.Context(), m.qemu, travellers[m.arch], module, m.engine, line)
				var log bytes.Buffer
				cmd.Stdin, cmd.Stderr = bytes.NewReader(snap), &log
				out, err := cmd.Output()
				if err != nil {
					t.Fatalf("on %s, %s: %v: %s", m.arch, m.engine, err, &log)
				}
				snap = out
			}
			if home := b.decode(dir, snap); !bytes.Equal(home.call("report", nil), g.call("report", nil)) {
				t.Errorf("it came home with %q; stayed it has %q", home.call("report", nil), g.call("report", nil))
			}
		})
	}
}

// snapshotLimits are beyond what any example needs.
var snapshotLimits = snapshot.Limits{Memory: decant.GiB, Files: decant.GiB, Extra: decant.GiB}

func buildTravellers(t *testing.T) map[string]string {
	t.Helper()
	dir, travellers := t.TempDir(), map[string]string{}
	for _, m := range machines {
		travellers[m.arch] = filepath.Join(dir, m.arch)
		cmd := exec.CommandContext(t.Context(), "go", "build", "-o", travellers[m.arch], "./internal/traveller")
		cmd.Env = append(os.Environ(), "GOOS="+runtime.GOOS, "GOARCH="+m.arch, "CGO_ENABLED=0", "GOFLAGS=")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	return travellers
}

// encode captures a guest.
func encode(t *testing.T, g *wasm.Guest) []byte {
	t.Helper()
	snap, err := g.Capture(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	var wire bytes.Buffer
	if _, err := snap.Encode(&wire); err != nil {
		t.Fatal(err)
	}
	return wire.Bytes()
}

// decode goes on with a snapshot here.
func (b *bench) decode(dir string, wire []byte) *guest {
	b.t.Helper()
	snap, _, err := wasm.Decode(bytes.NewReader(wire), snapshotLimits)
	if err != nil {
		b.t.Fatal(err)
	}
	defer snap.Close()
	g, err := b.host.Restore(b.t.Context(), b.compile(dir), wasm.GuestConfig{State: filepath.Join(b.t.TempDir(), "state")}, snap)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = g.Close() })
	return &guest{t: b.t, guest: g}
}
