package memory_test

import (
	"bytes"
	"errors"
	"os"
	"syscall"
	"testing"

	"pgregory.net/rapid"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/wasm/memory"
)

func track(tb testing.TB, m *memory.Memory, kind memory.Kind) *memory.Tracker {
	tb.Helper()
	t, err := m.TrackBy(kind)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { t.Close() })
	return t
}

// eachKind runs a test or a benchmark for each kind of tracker that works here.
func eachKind[T interface {
	testing.TB
	Run(string, func(T)) bool
}](t T, run func(T, memory.Kind)) {
	for _, kind := range []memory.Kind{memory.Kernel, memory.Hashes} {
		t.Run(string(kind), func(t T) {
			if kind == memory.Kernel {
				needKernel(t)
			}
			run(t, kind)
		})
	}
}

// needKernel skips a test where the kernel refuses to track memory. That it does
// not do so well is no reason.
func needKernel(tb testing.TB) {
	tb.Helper()
	err := memory.TryKernel()
	if errno := syscall.Errno(0); errors.As(err, &errno) || errors.Is(err, errors.ErrUnsupported) {
		tb.Skip(err)
	}
	if err != nil {
		tb.Fatal(err)
	}
}

// grain is the number of bytes that one write makes dirty.
func grain(kind memory.Kind) int {
	if kind == memory.Kernel {
		return os.Getpagesize()
	}
	return memory.PageSize
}

// TestTrackers holds each kind of tracker to a model, in random runs of what
// guests and hosts do.
func TestTrackers(t *testing.T) {
	eachKind(t, func(t *testing.T, kind memory.Kind) {
		rapid.Check(t, func(r *rapid.T) { conform(t, r, allocate, kind) })
	})
	t.Run("hashes, on the heap", func(t *testing.T) {
		rapid.Check(t, func(r *rapid.T) { conform(t, r, allocateOnHeap, memory.Hashes) })
	})
}

func conform(t *testing.T, r *rapid.T, allocate func(testing.TB, uint64, uint64) *memory.Memory, kind memory.Kind) {
	const limit = 5
	pages := rapid.Uint64Range(0, limit).Draw(r, "pages")
	m := &model{Memory: allocate(t, pages*wasmPage, limit*wasmPage), kind: kind}
	defer m.Free()
	m.track(r)
	defer func() { m.tracker.Close() }()
	write := func(r *rapid.T, data func(int) []byte) {
		if len(m.Bytes()) > 0 {
			offset := rapid.IntRange(0, len(m.Bytes())-1).Draw(r, "offset")
			length := rapid.IntRange(1, min(3*memory.PageSize, len(m.Bytes())-offset)).Draw(r, "length")
			m.write(offset, data(length))
		}
	}
	r.Repeat(map[string]func(*rapid.T){
		"write": func(r *rapid.T) {
			write(r, func(n int) []byte { return bytes.Repeat([]byte{rapid.Byte().Draw(r, "byte")}, n) })
		},
		"write zeros": func(r *rapid.T) {
			write(r, func(n int) []byte { return make([]byte, n) })
		},
		"read": func(r *rapid.T) {
			_ = memory.Runs(m.Bytes(), func(int, []byte) error { return nil })
		},
		"grow": func(r *rapid.T) {
			m.Reallocate(uint64(len(m.Bytes())) + rapid.Uint64Range(0, 3).Draw(r, "by")*wasmPage)
		},
		"scan": m.scan,
		"begin with an image": func(r *rapid.T) {
			image, err := m.Image()
			if err != nil {
				r.Fatal(err)
			}
			defer image.Close()
			m.tracker.Close()
			write(r, func(n int) []byte { return bytes.Repeat([]byte{1}, n) })
			if err := m.Load(image); err != nil {
				r.Fatal(err)
			}
			m.track(r)
		},
	})
	m.scan(r)
}

// model is a memory, and what a tracker of it must know.
type model struct {
	*memory.Memory
	kind    memory.Kind
	tracker *memory.Tracker
	told    []byte       // the contents when the tracker last told
	written map[int]bool // pages since, by their offset
}

func (m *model) track(r *rapid.T) {
	var err error
	if m.tracker, err = m.TrackBy(m.kind); err != nil {
		r.Fatal(err)
	}
	m.told, m.written = bytes.Clone(m.Bytes()), map[int]bool{}
}

func (m *model) write(offset int, data []byte) {
	copy(m.Bytes()[offset:], data)
	first, grain := offset-offset%grain(m.kind), grain(m.kind)
	for at := first; at < offset+len(data); at += grain {
		for page := at; page < at+grain; page += memory.PageSize {
			m.written[page] = true
		}
	}
}

// scan compares what the tracker tells with what was written.
func (m *model) scan(r *rapid.T) {
	ranges, err := m.tracker.Dirty()
	if err != nil {
		r.Fatal(err)
	}
	now, dirty := m.Bytes(), map[int]bool{}
	end := -1
	for _, x := range ranges {
		if int(x.Offset) <= end || x.Offset%memory.PageSize != 0 || x.Length%memory.PageSize != 0 || x.Length == 0 {
			r.Fatalf("the ranges are not in order, whole and apart: %v", ranges)
		}
		end = int(x.Offset + x.Length)
		for page := int(x.Offset); page < end; page += memory.PageSize {
			dirty[page] = true
		}
	}
	if end > len(now) {
		r.Fatalf("%v is beyond the memory, of %d bytes", ranges, len(now))
	}
	m.told = append(m.told, make([]byte, len(now)-len(m.told))...)
	for page := 0; page < len(now); page += memory.PageSize {
		changed := !bytes.Equal(now[page:page+memory.PageSize], m.told[page:page+memory.PageSize])
		if changed && !dirty[page] {
			r.Errorf("the page at %d changed, and is not told", page)
		}
		if dirty[page] && !changed && (m.kind == memory.Hashes || !m.written[page]) {
			r.Errorf("the page at %d is told, and was not written", page)
		}
	}
	copy(m.told, now)
	m.written = map[int]bool{}
}

// TestManyRanges finds more than the kernel tells at a time.
func TestManyRanges(t *testing.T) {
	eachKind(t, func(t *testing.T, kind memory.Kind) {
		m := allocate(t, 256*wasmPage, 256*wasmPage)
		tracker, step := track(t, m, kind), 2*grain(kind)
		for at := 0; at < len(m.Bytes()); at += step {
			m.Bytes()[at] = 1
		}
		ranges, err := tracker.Dirty()
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range ranges {
			if want := (memory.Range{Offset: uint64(i * step), Length: uint64(step / 2)}); r != want {
				t.Fatalf("range %d is %v, want %v", i, r, want)
			}
		}
		if len(ranges) != len(m.Bytes())/step {
			t.Errorf("%d ranges, want %d", len(ranges), len(m.Bytes())/step)
		}
		if ranges, err := tracker.Dirty(); err != nil || len(ranges) > 0 {
			t.Errorf("again %d ranges, %v", len(ranges), err)
		}
	})
}

// TestWrittenByTheKernel has a system call write to the memory of a guest.
func TestWrittenByTheKernel(t *testing.T) {
	eachKind(t, func(t *testing.T, kind memory.Kind) {
		m := allocate(t, wasmPage, wasmPage)
		tracker := track(t, m, kind)
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		defer w.Close()
		w.WriteString("data")
		if _, err := r.Read(m.Bytes()[wasmPage-10:]); err != nil {
			t.Fatal(err)
		}
		want := memory.Range{Offset: uint64(wasmPage - grain(kind)), Length: uint64(grain(kind))}
		if ranges, err := tracker.Dirty(); err != nil || len(ranges) != 1 || ranges[0] != want {
			t.Errorf("%v, %v, want %v", ranges, err, want)
		}
	})
}

func TestTrackErrors(t *testing.T) {
	eachKind(t, func(t *testing.T, kind memory.Kind) {
		m := allocate(t, wasmPage, wasmPage)
		tracker := track(t, m, kind)
		if tracker.Kind() != kind {
			t.Errorf("its kind is %s", tracker.Kind())
		}
		if _, err := m.Track(); !errors.Is(err, decant.Conflict) {
			t.Errorf("a second tracker: %v", err)
		}
		for range 2 {
			if err := tracker.Close(); err != nil {
				t.Error(err)
			}
		}
		if _, err := tracker.Dirty(); !errors.Is(err, decant.Conflict) {
			t.Errorf("a tracker that is closed: %v", err)
		}
		tracker = track(t, m, kind)
		m.Free()
		if _, err := tracker.Dirty(); !errors.Is(err, decant.Conflict) {
			t.Errorf("a memory that is freed: %v", err)
		}
	})
	if _, err := allocateOnHeap(t, wasmPage, wasmPage).TrackBy(memory.Kernel); !errors.Is(err, decant.Unsupported) {
		t.Errorf("by the kernel, on the heap: %v", err)
	}
}

// TestTrackByTheBest is the kernel where it can, and hashes else.
func TestTrackByTheBest(t *testing.T) {
	for name, want := range map[string]memory.Kind{"mapped": memory.Kernel, "on the heap": memory.Hashes} {
		if memory.TryKernel() != nil {
			want = memory.Hashes
		}
		tracker, err := places[name](t, wasmPage, wasmPage).Track()
		if err != nil {
			t.Fatal(err)
		}
		defer tracker.Close()
		if tracker.Kind() != want {
			t.Errorf("%s: by %s, want %s", name, tracker.Kind(), want)
		}
	}
}
