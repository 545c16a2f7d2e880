package memory_test

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/wasm/memory"
)

const wasmPage = 64 << 10

// allocate makes a memory of size bytes that may grow to limit.
func allocate(tb testing.TB, size, limit uint64) *memory.Memory {
	tb.Helper()
	m := memory.New(limit)
	tb.Cleanup(m.Free)
	if m.Allocate(0, 1<<32).Reallocate(size) == nil {
		tb.Fatalf("cannot allocate %d bytes", size)
	}
	return m
}

// allocateOnHeap is allocate on a machine that has no address space to reserve.
func allocateOnHeap(tb testing.TB, size, limit uint64) *memory.Memory {
	tb.Helper()
	m := memory.New(limit)
	m.Allocate(0, 1<<32)
	m.OnHeap()
	if m.Reallocate(size) == nil {
		tb.Fatalf("cannot allocate %d bytes", size)
	}
	return m
}

var places = map[string]func(tb testing.TB, size, limit uint64) *memory.Memory{
	"mapped": allocate, "on the heap": allocateOnHeap,
}

func TestGrow(t *testing.T) {
	for name, allocate := range places {
		t.Run(name, func(t *testing.T) {
			m := allocate(t, wasmPage, 40*wasmPage)
			m.Bytes()[wasmPage-1] = 7
			where := unsafe.SliceData(m.Bytes())
			for size := uint64(2 * wasmPage); size <= 40*wasmPage; size += wasmPage {
				b := m.Reallocate(size)
				if uint64(len(b)) != size || len(m.Bytes()) != len(b) {
					t.Fatalf("%d bytes, %d are wanted", len(b), size)
				}
				if b[wasmPage-1] != 7 || !bytes.Equal(b[size-wasmPage:], make([]byte, wasmPage)) {
					t.Fatalf("at %d bytes: what was there is not, or what is new is not zero", size)
				}
				b[size-wasmPage] = 0
			}
			if moved := where != unsafe.SliceData(m.Bytes()); moved != (name == "on the heap") {
				t.Errorf("moved: %v", moved)
			}
			if m.Refused() {
				t.Error("something was refused")
			}
		})
	}
}

func TestRefuses(t *testing.T) {
	for name, test := range map[string]struct{ limit, maximum, size uint64 }{
		"beyond the limit":        {2 * wasmPage, 1 << 32, 3 * wasmPage},
		"beyond what it declared": {4 * wasmPage, 2 * wasmPage, 3 * wasmPage},
		"a limit of half a page":  {wasmPage + 1, 1 << 32, 2 * wasmPage},
		"no whole pages":          {4 * wasmPage, 1 << 32, wasmPage + 1},
		"4 GiB of a limit of 0":   {0, 1 << 32, 1 << 32},
	} {
		t.Run(name, func(t *testing.T) {
			m := memory.New(test.limit)
			defer m.Free()
			l := m.Allocate(0, test.maximum)
			if l.Reallocate(0) == nil || m.Refused() {
				t.Error("nothing was refused")
			}
			if l.Reallocate(test.size) != nil || !m.Refused() {
				t.Errorf("%d bytes were given", test.size)
			}
		})
	}
}

// TestLargest reserves as much as WebAssembly can address, and uses its end.
func TestLargest(t *testing.T) {
	if strconv.IntSize == 32 {
		t.Skip("this machine cannot address as much")
	}
	b := allocate(t, 1<<32, 1<<40).Bytes()
	b[len(b)-1] = 1
	if uint64(len(b)) != 1<<32 || b[len(b)/2] != 0 {
		t.Error("it is not there")
	}
}

func TestFree(t *testing.T) {
	for name, allocate := range places {
		t.Run(name, func(t *testing.T) {
			m := allocate(t, wasmPage, wasmPage)
			m.Free()
			m.Free()
			if m.Bytes() != nil || m.Reallocate(wasmPage) != nil {
				t.Error("it has bytes")
			}
			if _, err := m.Track(); !errors.Is(err, decant.Conflict) {
				t.Errorf("Track: %v", err)
			}
		})
	}
	memory.New(wasmPage).Free() // a module without memory
}

func TestAllocateTwice(t *testing.T) {
	m := allocate(t, wasmPage, wasmPage)
	defer func() {
		if recover() == nil {
			t.Error("two guests have one memory")
		}
	}()
	m.Allocate(0, wasmPage)
}

// TestConcurrent is for the race detector.
func TestConcurrent(t *testing.T) {
	for name, allocate := range places {
		t.Run(name, func(t *testing.T) {
			m := allocate(t, 0, 64*wasmPage)
			tracker, err := m.Track()
			if err != nil {
				t.Fatal(err)
			}
			var all sync.WaitGroup
			all.Go(func() {
				for size := uint64(0); size <= 64*wasmPage; size += wasmPage {
					m.Reallocate(size)
				}
			})
			all.Go(func() {
				for len(m.Bytes()) < 64*wasmPage {
					if _, err := tracker.Dirty(); err != nil || m.Refused() {
						t.Error(err)
						return
					}
				}
				tracker.Close()
			})
			all.Wait()
		})
	}
}

// TestLeaks looks for what remains of many memories: files, and address space.
func TestLeaks(t *testing.T) {
	if _, err := os.Stat("/proc/self/statm"); err != nil {
		t.Skip(err)
	}
	const limit = 64 << 20
	round := func() {
		m := memory.New(limit)
		m.Allocate(0, limit).Reallocate(4 * wasmPage)
		m.Bytes()[0] = 1
		image, err := m.Image()
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Load(image); err != nil {
			t.Fatal(err)
		}
		tracker, err := m.Track()
		if err != nil {
			t.Fatal(err)
		}
		m.Bytes()[0] = 2
		if _, err := tracker.Dirty(); err != nil {
			t.Fatal(err)
		}
		m.Free() // the order does not matter
		tracker.Close()
		image.Close()
	}
	round()
	files, space := openFiles(t), addressSpace(t)
	for range 1000 {
		round()
	}
	if n := openFiles(t); n > files {
		t.Errorf("%d files are open, %d were", n, files)
	}
	if n := addressSpace(t); n > space+8*limit { // Go's heap has its own ups and downs
		t.Errorf("%s of address space are used, %s were", n, space)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func addressSpace(t *testing.T) decant.Bytes {
	t.Helper()
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(statm))[0])
	if err != nil {
		t.Fatal(err)
	}
	return decant.Bytes(pages * os.Getpagesize())
}
