package snapshot

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"pgregory.net/rapid"

	"github.com/decant-project/decant"
)

// generous are limits that no test reaches by chance.
var generous = Limits{Memory: 16 * decant.MiB, Files: 64 * decant.MiB, Extra: 16 * decant.MiB}

func encode(t require, s *Snapshot, pages Pages) ([]byte, decant.Digest) {
	t.Helper()
	var out bytes.Buffer
	digest, err := Encode(&out, s, pages)
	if err != nil {
		t.Fatalf("cannot encode %+v: %v", s, err)
	}
	return out.Bytes(), digest
}

// require is what a test, a fuzz target and rapid have in common.
type require interface {
	Helper()
	Fatalf(format string, args ...any)
}

// decode decodes into memory of its own.
func decode(r io.Reader, limits Limits) (s *Snapshot, m Memory, digest decant.Digest, err error) {
	s, digest, err = Decode(r, limits, func(s *Snapshot) (io.WriterAt, error) {
		m = make(Memory, s.Memory)
		return m, nil
	})
	return s, m, digest, err
}

// discard accepts what decodes, and does not keep its memory.
func discard(*Snapshot) (io.WriterAt, error) { return &failing{math.MaxInt}, nil }

// TestRoundTrip holds that a snapshot is read as it was written, however its
// memory is cut and its bytes arrive, and is written again as it was read.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawMemory(t)
		s := drawSnapshot(t, m)
		b, digest := encode(t, s, m.Pages())
		if again, _ := encode(t, s, drawPieces(t, m)); !bytes.Equal(again, b) {
			t.Fatalf("other bytes when the memory is in pieces")
		}
		arrive := rapid.SampledFrom([]func(io.Reader) io.Reader{iotest.HalfReader, iotest.DataErrReader, bufferless}).Draw(t, "arrives")
		s2, m2, digest2, err := decode(arrive(bytes.NewReader(b)), generous)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(s, s2) || !bytes.Equal(m, m2) || digest != digest2 {
			t.Fatalf("%+v was read as %+v; its memory: %v; its digest %s as %s", s, s2, bytes.Equal(m, m2), digest, digest2)
		}
		if again, _ := encode(t, s2, m2.Pages()); !bytes.Equal(again, b) {
			t.Fatalf("other bytes when it is written again")
		}
	})
}

func bufferless(r io.Reader) io.Reader { return struct{ io.Reader }{r} }

// drawMemory draws memory of which some stretches are not zero, up to more
// than a section long.
func drawMemory(t *rapid.T) Memory {
	m := make(Memory, rapid.SampledFrom([]int{0, 1, 1, 2, 2, 3, 3, 4, 4, maxPiece/wasmPage + 1}).Draw(t, "memory")*wasmPage)
	pages := len(m) / PageSize
	for range rapid.IntRange(0, min(4, pages)).Draw(t, "stretches") {
		from := rapid.IntRange(0, pages-1).Draw(t, "from")
		for i := range rapid.IntRange(0, pages-from).Draw(t, "pages") {
			m[(from+i)*PageSize+i] = byte(i%255 + 1)
		}
	}
	return m
}

// drawPieces cuts memory anywhere, and leaves pieces of zeros out at times.
func drawPieces(t *rapid.T, m Memory) Pages {
	type piece struct{ from, to int }
	var pieces []piece
	for at := 0; at < len(m); {
		to := at + rapid.IntRange(1, (len(m)-at)/PageSize).Draw(t, "piece")*PageSize
		if !bytes.Equal(m[at:to], make([]byte, to-at)) || rapid.Bool().Draw(t, "given") {
			pieces = append(pieces, piece{at, to})
		}
		at = to
	}
	return func(yield func(int64, []byte) bool) error {
		for _, p := range pieces {
			if !yield(int64(p.from), m[p.from:p.to]) {
				return nil
			}
		}
		return nil
	}
}

func drawSnapshot(t *rapid.T, m Memory) *Snapshot {
	s := &Snapshot{
		Module: decant.DigestOf([]byte(rapid.String().Draw(t, "module"))),
		Clock:  time.Duration(rapid.Int64Range(0, maxClock).Draw(t, "clock")),
		Memory: decant.Bytes(len(m)),
		Files:  drawFiles(t),
	}
	for _, i := range ascending(rapid.Uint32(), "globals").Draw(t, "globals") {
		g := Global{Index: i, Type: rapid.SampledFrom([]Type{I32, I64, F32, F64}).Draw(t, "type"), Bits: rapid.Uint64().Draw(t, "bits")}
		if g.Type == I32 || g.Type == F32 {
			g.Bits >>= 32
		}
		s.Globals = append(s.Globals, g)
	}
	s.Dropped = ascending(rapid.Uint32(), "dropped").Draw(t, "dropped")
	for _, name := range ascending(rapid.StringMatching(`[a-z]([-a-z]{0,5}[a-z])?`), "names").Draw(t, "extras") {
		s.Extra = append(s.Extra, Extra{Name: name, Data: drawData(t)})
	}
	return s
}

// ascending draws some of what g draws, in order and each once; nil for none.
func ascending[T uint32 | string](g *rapid.Generator[T], label string) *rapid.Generator[[]T] {
	return rapid.Custom(func(t *rapid.T) []T {
		all := rapid.SliceOfNDistinct(g, 0, 8, rapid.ID).Draw(t, label)
		slices.Sort(all)
		if len(all) == 0 {
			return nil
		}
		return all
	})
}

func drawFiles(t *rapid.T) []File {
	paths := map[string]bool{} // folders are true
	folders := []string{""}
	for range rapid.IntRange(0, 8).Draw(t, "files") {
		p := rapid.SampledFrom(folders).Draw(t, "in") + rapid.SampledFrom([]string{"a", "a-b", "ä", "..b", " ", "a\\b", "z"}).Draw(t, "name")
		if _, ok := paths[p]; ok {
			continue
		}
		paths[p] = rapid.Bool().Draw(t, "folder")
		if paths[p] {
			folders = append(folders, p+"/")
		}
	}
	var files []File
	for p, folder := range paths {
		files = append(files, File{Path: p, Folder: folder})
	}
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	for i := range files {
		files[i].Modified = time.Unix(0, rapid.Int64().Draw(t, "modified")).UTC()
		if !files[i].Folder {
			files[i].Data = drawData(t)
		}
	}
	return files
}

// drawData draws contents of up to more than a section.
func drawData(t *rapid.T) []byte {
	n := rapid.SampledFrom([]int{0, 0, 0, 0, 1, 2, 3, 4, 5, 10, 20, 50, 100, 1000, 1 << 16, maxPiece, maxPiece + 1}).Draw(t, "bytes")
	if n == 0 {
		return nil
	}
	return bytes.Repeat([]byte{rapid.Byte().Draw(t, "byte")}, n)
}

// specimen is a snapshot with a little of everything: testdata/version1.snapshot
// is what version 1 wrote of it.
func specimen() (*Snapshot, Memory) {
	m := make(Memory, 2*wasmPage)
	copy(m[1024:], "data")
	copy(m[PageSize:], "more data")
	copy(m[len(m)-5:], "stack")
	return &Snapshot{
		Module:  decant.DigestOf([]byte("\x00asm\x01\x00\x00\x00")),
		Clock:   90 * time.Second,
		Memory:  decant.Bytes(len(m)),
		Globals: []Global{{0, I32, 0x1fff0}, {3, I64, 1 << 63}, {4, F32, 0x7fc00000}, {9, F64, 0x3ff8 << 48}},
		Dropped: []uint32{1, 2, 500_000},
		Files: []File{
			{Path: "empty", Modified: time.Unix(0, 0).UTC()},
			{Path: "log", Folder: true, Modified: time.Date(2026, 1, 2, 3, 4, 5, 678, time.UTC)},
			{Path: "log-1", Modified: time.Date(1969, 7, 20, 20, 17, 40, 0, time.UTC), Data: []byte("landed")},
			{Path: "log/träge", Modified: time.Date(2026, 1, 2, 3, 4, 5, 999_999_999, time.UTC), Data: []byte("line\n")},
		},
		Extra: []Extra{{Name: "nothing"}, {Name: "wasi-nn", Data: []byte{1, 0, 0, 0}}},
	}, m
}

// TestVersion1IsReadableForEver reads what was written when the format was
// made. That file never changes: a program that writes another version has one
// of its own beside it.
func TestVersion1IsReadableForEver(t *testing.T) {
	golden, err := os.ReadFile("testdata/version1.snapshot")
	if err != nil {
		t.Fatal(err)
	}
	s, m, digest, err := decode(bytes.NewReader(golden), generous)
	if err != nil {
		t.Fatal(err)
	}
	wantS, wantM := specimen()
	if !reflect.DeepEqual(s, wantS) || !bytes.Equal(m, wantM) {
		t.Errorf("read as %+v, not %+v; its memory: %v", s, wantS, bytes.Equal(m, wantM))
	}
	if again, written := encode(t, s, m.Pages()); !bytes.Equal(again, golden) || written != digest {
		t.Errorf("written as other bytes, of digest %s, not %s", written, digest)
	}
	if want := decant.DigestOf(golden[:len(golden)-headSize-32-crcSize]); digest != want {
		t.Errorf("digest %s, but all before the last section has %s", digest, want)
	}
}

// TestDamageIsFound cuts a snapshot short at every byte, and flips a bit of each.
func TestDamageIsFound(t *testing.T) {
	s, m := specimen()
	whole, _ := encode(t, s, m.Pages())
	for i := range whole {
		_, _, err := Decode(bytes.NewReader(whole[:i]), generous, discard)
		if want := fmt.Sprintf("cut short at byte %d", i); !errors.Is(err, decant.Invalid) || !strings.HasSuffix(err.Error(), want) {
			t.Fatalf("cut short at byte %d: %v", i, err)
		}
		damaged := slices.Clone(whole)
		damaged[i] ^= 1 << (i % 8)
		if _, _, err := Decode(bytes.NewReader(damaged), generous, discard); !errors.Is(err, decant.Invalid) {
			t.Fatalf("bit %d of byte %d flipped: %v", i%8, i, err)
		}
	}
}

// TestPagesFail: what was written of a memory that cannot be read is no snapshot.
func TestPagesFail(t *testing.T) {
	broken := decant.Errorf(decant.Corrupt, "the memory is gone")
	var out bytes.Buffer
	_, err := Encode(&out, &Snapshot{Module: decant.DigestOf(nil), Memory: 1 << 16}, func(func(int64, []byte) bool) error { return broken })
	if !errors.Is(err, decant.Corrupt) {
		t.Errorf("got %v", err)
	}
	if _, _, err := Decode(&out, Limits{Memory: 1 << 16}, func(*Snapshot) (io.WriterAt, error) { return make(Memory, 1<<16), nil }); err == nil {
		t.Error("what was written before is taken for a snapshot")
	}
}
