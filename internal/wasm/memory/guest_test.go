package memory_test

import (
	"bytes"
	"context"
	"slices"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
	"go.uber.org/goleak"

	"github.com/decant-project/decant/internal/wasm/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// guest is a module of 16 pages of memory, 64 at most, which exports
//
//	grow(pages i32) -> i32    memory.grow
//	store(at, byte i32)       writes one byte
//	scatter(n, seed i32)      writes n bytes over the first 16 pages
const guest = "\x00asm\x01\x00\x00\x00" +
	"\x01\x0b\x02\x60\x01\x7f\x01\x7f\x60\x02\x7f\x7f\x00" + // types: i32 -> i32; i32 i32 ->
	"\x03\x04\x03\x00\x01\x01" + // functions of those types
	"\x05\x04\x01\x01\x10\x40" + // memory: 16 pages, 64 at most
	"\x07\x1a\x03\x04grow\x00\x00\x05store\x00\x01\x07scatter\x00\x02" +
	"\x0a\x3f\x03" +
	"\x06\x00\x20\x00\x40\x00\x0b" + // grow: memory.grow(pages)
	"\x09\x00\x20\x00\x20\x01\x3a\x00\x00\x0b" + // store: i32.store8(at, byte)
	"\x2c\x00\x03\x40" + // scatter: loop
	"\x20\x01\x41\x8d\xcc\xe5\x00\x6c\x41\xdf\xe6\xbb\xe3\x03\x6a\x22\x01" + // seed = seed * 1664525 + 1013904223
	"\x41\x08\x76\x41\xff\xff\x3f\x71\x20\x01\x3a\x00\x00" + // i32.store8((seed >> 8) & 0xfffff, seed)
	"\x20\x00\x41\x01\x6b\x22\x00\x0d\x00\x0b\x0b" // until --n == 0

// misplaced is data for the guest at a place that it does not have.
const misplaced = "\x0b\x0a\x01\x00\x41\x80\x80\x80\x08\x0b\x01x"

func instantiate(t *testing.T, config wazero.RuntimeConfig, m *memory.Memory, module string) (api.Module, error) {
	t.Helper()
	r := wazero.NewRuntimeWithConfig(t.Context(), config)
	t.Cleanup(func() { r.Close(context.Background()) })
	return r.Instantiate(experimental.WithMemoryAllocator(t.Context(), m), []byte(module))
}

func call(t *testing.T, module api.Module, function string, params ...uint64) int32 {
	t.Helper()
	results, err := module.ExportedFunction(function).Call(t.Context(), params...)
	if err != nil {
		t.Fatal(err)
	}
	if len(results) == 0 {
		return 0
	}
	return api.DecodeI32(results[0])
}

// TestGuest is the life of a guest on both engines: it writes, grows, is
// refused, and is closed.
func TestGuest(t *testing.T) {
	for engine, config := range map[string]wazero.RuntimeConfig{
		"best": wazero.NewRuntimeConfig(), "interpreter": wazero.NewRuntimeConfigInterpreter(),
	} {
		t.Run(engine, func(t *testing.T) {
			eachKind(t, func(t *testing.T, kind memory.Kind) {
				m := memory.New(20 * wasmPage)
				module, err := instantiate(t, config, m, guest)
				if err != nil {
					t.Fatal(err)
				}
				call(t, module, "store", 3*wasmPage, 1)
				tracker := track(t, m, kind)
				call(t, module, "store", 5*wasmPage, 1)
				if was := call(t, module, "grow", 2); was != 16 {
					t.Errorf("it had %d pages", was)
				}
				call(t, module, "store", 17*wasmPage, 1)
				want := []memory.Range{{Offset: 5 * wasmPage, Length: uint64(grain(kind))}, {Offset: 17 * wasmPage, Length: memory.PageSize}}
				if ranges, err := tracker.Dirty(); err != nil || !slices.Equal(ranges, want) {
					t.Errorf("%v, %v, want %v", ranges, err, want)
				}
				if m.Refused() {
					t.Error("it was refused something")
				}
				if was := call(t, module, "grow", 3); was != -1 || !m.Refused() {
					t.Errorf("it grew beyond the limit: from %d", was)
				}
				if len(m.Bytes()) != 18*wasmPage {
					t.Errorf("it has %d bytes", len(m.Bytes()))
				}
				module.Close(t.Context())
				if m.Bytes() != nil {
					t.Error("it is closed, and has memory")
				}
			})
		})
	}
}

// TestGuestBeginsWithImage runs a guest on what another one wrote.
func TestGuestBeginsWithImage(t *testing.T) {
	first, second := memory.New(64*wasmPage), memory.New(64*wasmPage)
	source, err := instantiate(t, wazero.NewRuntimeConfig(), first, guest)
	if err != nil {
		t.Fatal(err)
	}
	call(t, source, "scatter", 1000, 1)
	image, err := first.Image()
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	target, err := instantiate(t, wazero.NewRuntimeConfig(), second, guest)
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Load(image); err != nil {
		t.Fatal(err)
	}
	for _, module := range []api.Module{source, target} {
		call(t, module, "scatter", 1000, 2)
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("the memories differ")
	}
}

// TestGuestNeedsTooMuch has wazero panic for what a guest begins with.
func TestGuestNeedsTooMuch(t *testing.T) {
	m := memory.New(15 * wasmPage)
	defer m.Free()
	defer func() {
		if recover() == nil || !m.Refused() {
			t.Error("it was given more than the limit")
		}
	}()
	_, err := instantiate(t, wazero.NewRuntimeConfig(), m, guest)
	t.Error(err)
}

// TestGuestFailsToBegin shows why its memory must be freed then.
func TestGuestFailsToBegin(t *testing.T) {
	m := memory.New(64 * wasmPage)
	if _, err := instantiate(t, wazero.NewRuntimeConfig(), m, guest+misplaced); err == nil {
		t.Fatal("it began")
	}
	if m.Bytes() == nil {
		t.Error("wazero frees it itself by now: change the comment of Free")
	}
	m.Free()
}

// TestFollow copies what a guest writes while it writes, as a move of a running
// guest does: what is copied at last is all there is.
func TestFollow(t *testing.T) {
	eachKind(t, func(t *testing.T, kind memory.Kind) {
		m := memory.New(64 * wasmPage)
		module, err := instantiate(t, wazero.NewRuntimeConfig(), m, guest)
		if err != nil {
			t.Fatal(err)
		}
		tracker := track(t, m, kind)
		replica := bytes.Clone(m.Bytes())
		follow := func() {
			ranges, err := tracker.Dirty()
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range ranges {
				copy(replica[r.Offset:], m.Bytes()[r.Offset:r.Offset+r.Length])
			}
		}
		done := make(chan error)
		go func() {
			defer close(done)
			for seed := range uint64(200) {
				if _, err := module.ExportedFunction("scatter").Call(context.Background(), 100, seed); err != nil {
					done <- err
				}
			}
		}()
		for running := true; running; {
			follow()
			select {
			case err := <-done:
				if err != nil {
					t.Error(err)
				}
				running = err != nil
			default:
			}
		}
		follow()
		if !bytes.Equal(replica, m.Bytes()) {
			t.Error("something that the guest wrote was missed")
		}
	})
}
