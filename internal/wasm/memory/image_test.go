package memory_test

import (
	"bytes"
	"errors"
	"testing"

	"pgregory.net/rapid"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/wasm/memory"
)

// images makes images in each of the ways that machines have.
var images = map[string]func(testing.TB, uint64) *memory.Image{
	"as machines can": func(tb testing.TB, size uint64) *memory.Image {
		tb.Helper()
		image, err := memory.NewImage(size)
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { image.Close() })
		return image
	},
	"on the heap": func(_ testing.TB, size uint64) *memory.Image { return memory.NewHeapImage(size) },
}

// eachWay runs a test for each place of memories and each way to make images.
func eachWay(t *testing.T, run func(t *testing.T, allocate func(tb testing.TB, size, limit uint64) *memory.Memory, newImage func(testing.TB, uint64) *memory.Image)) {
	for place, allocate := range places {
		for way, newImage := range images {
			t.Run(place+", image "+way, func(t *testing.T) { run(t, allocate, newImage) })
		}
	}
}

// TestImageWrites writes anything anywhere, again and again, and finds it in a
// memory that begins with the image.
func TestImageWrites(t *testing.T) {
	const size = 2 * wasmPage
	eachWay(t, func(t *testing.T, allocate func(tb testing.TB, size, limit uint64) *memory.Memory, newImage func(testing.TB, uint64) *memory.Image) {
		rapid.Check(t, func(r *rapid.T) {
			want := make([]byte, size)
			image := newImage(t, size)
			defer image.Close()
			for range rapid.IntRange(0, 8).Draw(r, "writes") {
				data := pattern(rapid.IntRange(0, 5*memory.PageSize).Draw(r, "length"), rapid.Uint8().Draw(r, "pages"))
				offset := rapid.IntRange(0, size-len(data)).Draw(r, "offset")
				copy(want[offset:], data)
				if n, err := image.WriteAt(data, int64(offset)); err != nil || n != len(data) {
					r.Fatal(n, err)
				}
			}
			m := allocate(t, size, 2*size)
			defer m.Free()
			m.Bytes()[5] = 5
			if err := m.Load(image); err != nil {
				r.Fatal(err)
			}
			if !bytes.Equal(m.Bytes(), want) {
				r.Fatal("the contents are others")
			}
		})
	})
}

// pattern makes data of which each page is zero or not, by a bit of pages.
func pattern(length int, pages uint8) []byte {
	data := make([]byte, length)
	for at := 0; at < length; at += memory.PageSize {
		if pages>>(at/memory.PageSize)&1 != 0 {
			data[at+(length-at-1)%memory.PageSize] = pages
		}
	}
	return data
}

// TestImageIsShared has memories that began with one image go their own ways.
func TestImageIsShared(t *testing.T) {
	eachWay(t, func(t *testing.T, allocate func(tb testing.TB, size, limit uint64) *memory.Memory, _ func(testing.TB, uint64) *memory.Image) {
		first := allocate(t, 2*wasmPage, 4*wasmPage)
		copy(first.Bytes()[wasmPage:], "before")
		image, err := first.Image()
		if err != nil {
			t.Fatal(err)
		}
		if image.Size() != 2*wasmPage {
			t.Errorf("a size of %d", image.Size())
		}
		copy(first.Bytes()[wasmPage:], "after")
		second, third := allocate(t, 2*wasmPage, 4*wasmPage), allocate(t, 2*wasmPage, 4*wasmPage)
		for _, m := range []*memory.Memory{second, third} {
			if err := m.Load(image); err != nil {
				t.Fatal(err)
			}
		}
		if err := image.Close(); err != nil {
			t.Fatal(err)
		}
		copy(second.Bytes()[wasmPage:], "other")
		second.Reallocate(3 * wasmPage)[2*wasmPage] = 1
		for _, want := range []struct {
			m    *memory.Memory
			text string
		}{{first, "after"}, {second, "other"}, {third, "before"}} {
			if got := string(want.m.Bytes()[wasmPage : wasmPage+len(want.text)]); got != want.text {
				t.Errorf("%q, want %q", got, want.text)
			}
		}
	})
}

func TestImageErrors(t *testing.T) {
	for _, size := range []uint64{1, wasmPage + memory.PageSize, 1<<32 + wasmPage, 1 << 63} {
		if _, err := memory.NewImage(size); !errors.Is(err, decant.Invalid) {
			t.Errorf("an image of %d bytes: %v", size, err)
		}
	}
	eachWay(t, func(t *testing.T, allocate func(tb testing.TB, size, limit uint64) *memory.Memory, newImage func(testing.TB, uint64) *memory.Image) {
		image := newImage(t, wasmPage)
		for _, offset := range []int64{-1, wasmPage - 1, wasmPage + 1, 1 << 62} {
			if _, err := image.WriteAt([]byte("ab"), offset); !errors.Is(err, decant.Invalid) {
				t.Errorf("a write at %d: %v", offset, err)
			}
		}
		if err := allocate(t, 2*wasmPage, 2*wasmPage).Load(image); !errors.Is(err, decant.Invalid) {
			t.Errorf("into a memory of another size: %v", err)
		}
		m := allocate(t, wasmPage, wasmPage)
		tracker, err := m.Track()
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Load(image); !errors.Is(err, decant.Conflict) {
			t.Errorf("into a memory that is tracked: %v", err)
		}
		tracker.Close()
		if err := m.Load(image); err != nil {
			t.Error(err)
		}
		if _, err := image.WriteAt([]byte("a"), 0); !errors.Is(err, decant.Conflict) {
			t.Errorf("a write to an image in use: %v", err)
		}
		image.Close()
		if err := m.Load(image); !errors.Is(err, decant.Conflict) {
			t.Errorf("an image that is closed: %v", err)
		}
		if err := image.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestNoMemory is for modules that have none.
func TestNoMemory(t *testing.T) {
	m := memory.New(wasmPage)
	image, err := m.Image()
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	if err := m.Load(image); err != nil {
		t.Error(err)
	}
	tracker, err := m.Track()
	if err != nil {
		t.Fatal(err)
	}
	if ranges, err := tracker.Dirty(); err != nil || len(ranges) > 0 {
		t.Error(ranges, err)
	}
}
