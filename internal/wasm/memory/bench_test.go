package memory_test

import (
	"fmt"
	"testing"

	"github.com/decant-project/decant/internal/wasm/memory"
)

// BenchmarkImage is the time to make an image of a memory that is full.
func BenchmarkImage(b *testing.B) {
	for _, mib := range []uint64{1, 16, 64, 256} {
		b.Run(fmt.Sprintf("%dMiB", mib), func(b *testing.B) {
			m := full(b, mib<<20)
			b.SetBytes(int64(mib << 20))
			for b.Loop() {
				image, err := m.Image()
				if err != nil {
					b.Fatal(err)
				}
				image.Close()
			}
		})
	}
}

// BenchmarkLoad is the time from nothing to a memory that began with an image,
// and back.
func BenchmarkLoad(b *testing.B) {
	for _, mib := range []uint64{1, 16, 64, 256} {
		b.Run(fmt.Sprintf("%dMiB", mib), func(b *testing.B) {
			image, err := full(b, mib<<20).Image()
			if err != nil {
				b.Fatal(err)
			}
			defer image.Close()
			for b.Loop() {
				m := memory.New(1 << 30)
				m.Allocate(0, 1<<32).Reallocate(mib << 20)
				if err := m.Load(image); err != nil {
					b.Fatal(err)
				}
				m.Free()
			}
		})
	}
}

// BenchmarkTrack is the time to begin and to end tracking 64 MiB.
func BenchmarkTrack(b *testing.B) {
	eachKind(b, func(b *testing.B, kind memory.Kind) {
		m := full(b, 64<<20)
		for b.Loop() {
			track(b, m, kind).Close()
		}
	})
}

// BenchmarkDirty is the time of a scan that finds 16 pages in 64 MiB.
func BenchmarkDirty(b *testing.B) {
	eachKind(b, func(b *testing.B, kind memory.Kind) {
		m := full(b, 64<<20)
		t := track(b, m, kind)
		defer t.Close()
		bytes := m.Bytes()
		for b.Loop() {
			for i := range 16 {
				bytes[i*4<<20]++
			}
			if ranges, err := t.Dirty(); err != nil || len(ranges) != 16 {
				b.Fatal(len(ranges), err)
			}
		}
	})
}

// BenchmarkFirstTouch is the time to touch each page of 64 MiB for the first time.
func BenchmarkFirstTouch(b *testing.B) {
	b.SetBytes(64 << 20)
	for b.Loop() {
		m := memory.New(64 << 20)
		bytes := m.Allocate(0, 1<<32).Reallocate(64 << 20)
		for at := 0; at < len(bytes); at += memory.PageSize {
			bytes[at] = 1
		}
		m.Free()
	}
}

// BenchmarkGrow is the time to grow to 256 MiB by 64 KiB.
func BenchmarkGrow(b *testing.B) {
	for b.Loop() {
		m := memory.New(256 << 20)
		l := m.Allocate(0, 1<<32)
		for size := uint64(0); size <= 256<<20; size += 64 << 10 {
			if l.Reallocate(size) == nil {
				b.Fatal(size)
			}
		}
		m.Free()
	}
}

// BenchmarkRuns is the time to find what is not zero in 64 MiB.
func BenchmarkRuns(b *testing.B) {
	visit := func(int, []byte) error { return nil }
	for name, m := range map[string]*memory.Memory{"full": full(b, 64<<20), "zero": allocate(b, 64<<20, 64<<20)} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(64 << 20)
			for b.Loop() {
				if err := memory.Runs(m.Bytes(), visit); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("untouched", func(b *testing.B) {
		b.SetBytes(64 << 20)
		for b.Loop() {
			m := memory.New(64 << 20)
			if err := memory.Runs(m.Allocate(0, 1<<32).Reallocate(64<<20), visit); err != nil {
				b.Fatal(err)
			}
			m.Free()
		}
	})
}

// full makes a memory of size bytes of which no page is zero.
func full(tb testing.TB, size uint64) *memory.Memory {
	m := allocate(tb, size, size)
	bytes := m.Bytes()
	for at := 0; at < len(bytes); at += 64 {
		bytes[at] = byte(at>>6) | 1
	}
	return m
}
