package snapshot

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/decant-project/decant"
)

// put joins numbers, little-endian, and texts.
func put(parts ...any) []byte {
	var out []byte
	for _, p := range parts {
		if text, ok := p.(string); ok {
			out = append(out, text...)
			continue
		}
		out, _ = binary.Append(out, binary.LittleEndian, p)
	}
	return out
}

func sealed(id section, parts ...any) []byte {
	body := put(parts...)
	out := append(put(id, uint32(len(body))), body...)
	return append(out, put(crc32.Checksum(out, castagnoli))...)
}

// sealedAll makes a snapshot of sections, right or wrong.
func sealedAll(sections ...[]byte) []byte {
	out := append(put(magic, uint32(version)), bytes.Join(sections, nil)...)
	return append(out, sealed(sectionEnd, sha256.Sum256(out))...)
}

func instanceOf(memory uint64) []byte {
	return sealed(sectionInstance, sha256.Sum256(nil), uint64(7), memory)
}

func fileOf(kind byte, size uint64, path string) []byte {
	return sealed(sectionFile, kind, uint64(0), size, path)
}

func runOf(offset uint64, pages int) []byte {
	return sealed(sectionMemory, offset, bytes.Repeat([]byte{1}, pages*PageSize))
}

func TestDecodeRefuses(t *testing.T) {
	digest := sha256.Sum256([]byte("base"))
	plain, none := instanceOf(wasmPage), instanceOf(0)
	full := maxPiece / PageSize
	for _, test := range []struct {
		name string
		in   []byte
		want string
	}{
		{"nothing", nil, "cut short at byte 0"},
		{"a module", []byte("\x00asm\x01\x00\x00\x00"), `it does not begin with "\x00dcs"`},
		{"another version", put(magic, uint32(2)), "it is of version 2: this program knows version 1; use the version of decant that wrote it"},
		{"bytes after the end", append(sealedAll(none), 0), "section end at byte 65: there are bytes after it"},
		{"another digest", append(append(put(magic, uint32(version)), none...), sealed(sectionEnd, digest)...), "the snapshot is damaged: its SHA-256 is"},
		{"an end without a digest", append(append(put(magic, uint32(version)), none...), sealed(sectionEnd)...), "section end at byte 65: it has 0 bytes, not 32"},

		{"an unknown section", sealedAll(none, sealed(9)), "section 9 at byte 65: there is none of this id in version 1"},
		{"a section too long", append(put(magic, uint32(version)), put(sectionInstance, uint32(maxBody+1))...), "section instance at byte 8: it has 1048585 bytes: 1048584 at most"},
		{"no sections", sealedAll(), "section end at byte 8: it is not where it belongs: section instance comes first"},
		{"no instance", sealedAll(sealed(sectionGlobals, uint32(0), I32, uint64(1))), "section instance comes first"},
		{"two instances", sealedAll(none, none), "section instance at byte 65: it is not where it belongs"},
		{"dropped before globals", sealedAll(none, sealed(sectionDropped, uint32(1)), sealed(sectionGlobals, uint32(0), I32, uint64(1))), "section globals at byte 78: it is not where it belongs"},
		{"globals twice", sealedAll(none, sealed(sectionGlobals, uint32(0), I32, uint64(1)), sealed(sectionGlobals, uint32(1), I32, uint64(1))), "section globals at byte 87: it is not where it belongs"},
		{"an extra before a file", sealedAll(none, sealed(sectionExtra, uint64(0), "x"), fileOf(0, 0, "a")), "section file at byte 83: it is not where it belongs"},
		{"contents of nothing", sealedAll(none, sealed(sectionContents, "x")), "section contents at byte 65: it is not where it belongs"},
		{"changes only", sealedAll(none, sealed(sectionBase, digest)), "section base at byte 65: the snapshot holds only what has changed since the snapshot " + string(decant.NewDigest(digest[:]))},
		{"changes since something", sealedAll(none, sealed(sectionBase)), "section base at byte 65: it has 0 bytes, not 32"},

		{"an instance too short", sealedAll(sealed(sectionInstance, sha256.Sum256(nil), uint64(7))), "it has 40 bytes, not 48"},
		{"a negative clock", sealedAll(sealed(sectionInstance, sha256.Sum256(nil), uint64(1<<63), uint64(0))), "the clock is negative"},
		{"a memory of half a page", sealedAll(instanceOf(wasmPage / 2)), "a memory of 32768 bytes: want a multiple of 64 KiB"},
		{"a memory beyond 4 GiB", sealedAll(instanceOf(4<<30 + wasmPage)), "4 GiB at most"},
		{"a negative memory", sealedAll(instanceOf(1 << 63)), "want a multiple of 64 KiB"},

		{"no globals", sealedAll(none, sealed(sectionGlobals)), "it has 0 bytes: want entries of 13"},
		{"half a global", sealedAll(none, sealed(sectionGlobals, uint32(0), I32, uint32(1))), "it has 9 bytes: want entries of 13"},
		{"the same global twice", sealedAll(none, sealed(sectionGlobals, uint32(1), I32, uint64(1), uint32(1), I32, uint64(1))), "global 1 comes after global 1"},
		{"a global of a reference", sealedAll(none, sealed(sectionGlobals, uint32(1), byte(0x70), uint64(1))), "global 1 is of type 112: want i32, i64, f32 or f64"},
		{"an i32 of 33 bits", sealedAll(none, sealed(sectionGlobals, uint32(1), I32, uint64(1<<32))), "global 1: 0x100000000 is no i32"},
		{"an f32 of 64 bits", sealedAll(none, sealed(sectionGlobals, uint32(1), F32, uint64(1<<63))), "is no f32"},

		{"nothing dropped", sealedAll(none, sealed(sectionDropped)), "it has 0 bytes: want entries of 4"},
		{"half a segment", sealedAll(none, sealed(sectionDropped, uint16(1))), "it has 2 bytes: want entries of 4"},
		{"segments in disorder", sealedAll(none, sealed(sectionDropped, uint32(2), uint32(1))), "segment 1 comes after segment 2"},

		{"a run of nothing", sealedAll(plain, sealed(sectionMemory, uint64(0))), "it has 8 bytes: want 8 and whole pages"},
		{"a run without an offset", sealedAll(plain, sealed(sectionMemory, uint32(0))), "it has 4 bytes"},
		{"half a page", sealedAll(plain, sealed(sectionMemory, uint64(0), strings.Repeat("x", PageSize/2))), "want 8 and whole pages"},
		{"a run between pages", sealedAll(plain, runOf(1, 1)), "offset 1 is not that of a page"},
		{"a run beyond the memory", sealedAll(plain, runOf(wasmPage-PageSize, 2)), "8192 bytes at 61440: the memory ends at 65536"},
		{"a run far beyond the memory", sealedAll(plain, runOf(math.MaxUint64-PageSize+1, 1)), "the memory ends at 65536"},
		{"a run longer than the memory", sealedAll(plain, runOf(0, 17)), "the memory ends at 65536"},
		{"a run without a memory", sealedAll(none, runOf(0, 1)), "the memory ends at 0"},
		{"a run in another", sealedAll(plain, runOf(0, 3), runOf(PageSize, 1)), "offset 4096: the last one ends at 12288"},
		{"a run before another", sealedAll(plain, runOf(3*PageSize, 1), runOf(0, 1)), "offset 0: the last one ends at 16384"},
		{"a run in two", sealedAll(plain, runOf(0, 1), runOf(PageSize, 1)), "offset 4096: the last one ends there and has room for more"},
		{"a full run in another", sealedAll(instanceOf(2*maxPiece), runOf(0, full), runOf(maxPiece-PageSize, 1)), "the last one ends at 1048576"},
		{"zeros", sealedAll(plain, sealed(sectionMemory, uint64(0), strings.Repeat("x", PageSize)+strings.Repeat("\x00", PageSize))), "a page of zeros is written"},

		{"a file without a path", sealedAll(none, fileOf(0, 0, "")), "it has 17 bytes: want more than 17"},
		{"a kind of file", sealedAll(none, fileOf(2, 0, "a")), "there is no kind 2 of file"},
		{"a folder with contents", sealedAll(none, fileOf(1, 1, "a"), sealed(sectionContents, "x")), `folder "a" has contents`},
		{"the same file twice", sealedAll(none, fileOf(0, 0, "a"), fileOf(0, 0, "a")), `file "a" comes after file "a"`},
		{"files in disorder", sealedAll(none, fileOf(0, 0, "b"), fileOf(0, 0, "a")), `file "a" comes after file "b"`},
		{"a file in no folder", sealedAll(none, fileOf(0, 0, "a/b")), `file "a/b": there is no such folder`},
		{"a file in a file", sealedAll(none, fileOf(0, 0, "a"), fileOf(0, 0, "a/b")), `file "a/b": there is no such folder`},
		{"a file outside", sealedAll(none, fileOf(0, 0, "../a")), `path "../a"`},
		{"a file outside, by a folder", sealedAll(none, fileOf(1, 0, "a"), fileOf(0, 0, "a/../../b")), `path "a/../../b"`},
		{"a folder that is /state", sealedAll(none, fileOf(1, 0, ".")), `path "."`},
		{"a folder above", sealedAll(none, fileOf(1, 0, "..")), `path ".."`},
		{"a file from the root", sealedAll(none, fileOf(0, 0, "/etc/passwd")), `path "/etc/passwd"`},
		{"a path with a slash behind", sealedAll(none, fileOf(1, 0, "a/")), `path "a/"`},
		{"a path with two slashes", sealedAll(none, fileOf(1, 0, "a"), fileOf(0, 0, "a//b")), `path "a//b"`},
		{"a path with a zero", sealedAll(none, fileOf(0, 0, "a\x00b")), `path "a\x00b"`},
		{"a path not in UTF-8", sealedAll(none, fileOf(0, 0, "\xff")), `path "\xff"`},
		{"a path too long", sealedAll(none, fileOf(0, 0, strings.Repeat("a", maxPath+1))), "1024 bytes and 32 levels at most"},
		{"a path too deep", sealedAll(none, fileOf(0, 0, strings.Repeat("a/", maxLevels)+"a")), "1024 bytes and 32 levels at most"},
		{"contents missing", sealedAll(none, fileOf(0, 1, "a")), "section end at byte 92: contents of 1 bytes come here"},
		{"contents of another size", sealedAll(none, fileOf(0, 2, "a"), sealed(sectionContents, "x")), "contents of 2 bytes come here"},
		{"contents in small pieces", sealedAll(none, fileOf(0, maxPiece+1, "a"), sealed(sectionContents, "x"), sealed(sectionContents, strings.Repeat("x", maxPiece))), "contents of 1048576 bytes come here"},
		{"contents too many", sealedAll(none, fileOf(0, 1, "a"), sealed(sectionContents, "x"), sealed(sectionContents, "x")), "section contents at byte 102: it is not where it belongs"},

		{"an extra without a name", sealedAll(none, sealed(sectionExtra, uint64(0))), "it has 8 bytes: want more than 8"},
		{"a name that is none", sealedAll(none, sealed(sectionExtra, uint64(0), "A b")), `extra name "A b"`},
		{"the same extra twice", sealedAll(none, sealed(sectionExtra, uint64(0), "a"), sealed(sectionExtra, uint64(0), "a")), `extra "a" comes after extra "a"`},
		{"extras without end", sealedAll(append([][]byte{none}, manyExtras(maxExtras+1)...)...), "there are 256 at most"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, _, _, err := decode(bytes.NewReader(test.in), generous)
			if s != nil || !errors.Is(err, decant.Invalid) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("decoded %+v, error %v (%s), want one with %q", s, err, decant.CodeOf(err), test.want)
			}
		})
	}
}

func manyExtras(n int) (out [][]byte) {
	for i := range n {
		out = append(out, sealed(sectionExtra, uint64(0), string([]byte{'a' + byte(i/26), 'a' + byte(i%26)})))
	}
	return out
}

// TestTheMostIsAccepted is of what lies just within the bounds of the format.
func TestTheMostIsAccepted(t *testing.T) {
	deep := [][]byte{instanceOf(2 * maxPiece), runOf(0, maxPiece/PageSize), runOf(maxPiece, 1), runOf(maxPiece+2*PageSize, 1)}
	for i := range maxLevels - 1 {
		deep = append(deep, fileOf(1, 0, strings.TrimPrefix(strings.Repeat("/a", i+1), "/")))
	}
	deep = append(deep, fileOf(0, 0, strings.Repeat("a/", maxLevels-1)+"a"), fileOf(0, 0, strings.Repeat("b", maxPath)))
	in := sealedAll(append(deep, manyExtras(maxExtras)...)...)
	s, m, _, err := decode(bytes.NewReader(in), generous)
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := encode(t, s, m.Pages()); !bytes.Equal(again, in) {
		t.Error("written as other bytes")
	}
}

func TestEncodeRefuses(t *testing.T) {
	plain := func(change func(*Snapshot)) *Snapshot {
		s := &Snapshot{Module: decant.DigestOf(nil), Memory: wasmPage}
		change(s)
		return s
	}
	some := func(*Snapshot) {}
	page := bytes.Repeat([]byte{1}, PageSize)
	for _, test := range []struct {
		name   string
		s      *Snapshot
		offset int64
		memory []byte
		code   decant.Code
		want   string
	}{
		{"no module", plain(func(s *Snapshot) { s.Module = "" }), 0, nil, decant.Invalid, "digest"},
		{"a negative clock", plain(func(s *Snapshot) { s.Clock = -1 }), 0, nil, decant.Invalid, "the clock is negative"},
		{"a negative memory", plain(func(s *Snapshot) { s.Memory = -wasmPage }), 0, nil, decant.Invalid, "a memory of -65536 bytes"},
		{"globals in disorder", plain(func(s *Snapshot) { s.Globals = []Global{{2, I32, 0}, {1, I32, 0}} }), 0, nil, decant.Invalid, "global 1 comes after global 2"},
		{"too many globals", plain(func(s *Snapshot) { s.Globals = manyGlobals(maxBody/globalSize + 1) }), 0, nil, decant.Exhausted, "section globals would have 1048593 bytes: 1048584 at most"},
		{"segments in disorder", plain(func(s *Snapshot) { s.Dropped = []uint32{1, 1} }), 0, nil, decant.Invalid, "segment 1 comes after segment 1"},
		{"a folder with contents", plain(func(s *Snapshot) {
			s.Files = []File{{Path: "a", Folder: true, Modified: time.Unix(0, 0), Data: []byte("x")}}
		}), 0, nil, decant.Invalid, `folder "a" has contents`},
		{"a file of no time", plain(func(s *Snapshot) { s.Files = []File{{Path: "a"}} }), 0, nil, decant.Invalid, `file "a": the year 1 does not fit`},
		{"a file outside", plain(func(s *Snapshot) { s.Files = []File{{Path: "../a", Modified: time.Unix(0, 0)}} }), 0, nil, decant.Invalid, `path "../a"`},
		{"an extra without a name", plain(func(s *Snapshot) { s.Extra = []Extra{{}} }), 0, nil, decant.Invalid, "extra has no name"},
		{"half a page", plain(some), 0, page[1:], decant.Invalid, "4095 bytes of memory at 0"},
		{"between pages", plain(some), 1, page, decant.Invalid, "4096 bytes of memory at 1,"},
		{"before the memory", plain(some), -PageSize, page, decant.Invalid, "4096 bytes of memory at -4096"},
		{"beyond the memory", plain(some), wasmPage, page, decant.Invalid, "4096 bytes of memory at 65536, after byte 0 of 65536"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := Encode(io.Discard, test.s, func(yield func(int64, []byte) bool) error { yield(test.offset, test.memory); return nil })
			if !errors.Is(err, test.code) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v (%s), want %s with %q", err, decant.CodeOf(err), test.code, test.want)
			}
		})
	}
	t.Run("the same page twice", func(t *testing.T) {
		_, err := Encode(io.Discard, plain(some), func(yield func(int64, []byte) bool) error {
			for yield(0, page) {
			}
			return nil
		})
		if !errors.Is(err, decant.Invalid) || !strings.Contains(err.Error(), "at 0, after byte 4096 of 65536") {
			t.Error(err)
		}
	})
}

func manyGlobals(n int) []Global {
	out := make([]Global, n)
	for i := range out {
		out[i] = Global{Index: uint32(i), Type: I64}
	}
	return out
}

// TestLimits decodes a snapshot within limits that it just fits, and then with
// each of them smaller by one byte.
func TestLimits(t *testing.T) {
	s, m := specimen()
	in, _ := encode(t, s, m.Pages())
	exact := Limits{Memory: s.Memory}
	for _, f := range s.Files {
		exact.Files += decant.Bytes(FileCost + len(f.Data))
	}
	for _, x := range s.Extra {
		exact.Extra += decant.Bytes(len(x.Name) + len(x.Data))
	}
	if _, _, _, err := decode(bytes.NewReader(in), exact); err != nil {
		t.Fatal(err)
	}
	for want, shrink := range map[string]func(*Limits){
		"a memory of 128KiB: 128.0KiB at most":     func(l *Limits) { l.Memory-- },
		"5 bytes: of all files, 4 more at most":    func(l *Limits) { l.Files-- },
		"4096 bytes: of all files, 4 more at most": func(l *Limits) { l.Files -= FileCost + 1 },
		"4 bytes: of all extras, 3 more at most":   func(l *Limits) { l.Extra-- },
		"7 bytes: of all extras, 6 more at most":   func(l *Limits) { l.Extra -= 5 },
	} {
		limits := exact
		shrink(&limits)
		_, _, _, err := decode(bytes.NewReader(in), limits)
		if !errors.Is(err, decant.Exhausted) || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v (%s), want %q", err, decant.CodeOf(err), want)
		}
	}
}

// TestNothingIsAllocatedForPromises is of snapshots that say they are huge, and
// end there.
func TestNothingIsAllocatedForPromises(t *testing.T) {
	huge := Limits{Memory: 4 * decant.GiB, Files: 1 << 40, Extra: 1 << 40}
	open := func(parts ...[]byte) []byte { // without an end
		return append(put(magic, uint32(version)), bytes.Join(parts, nil)...)
	}
	for name, in := range map[string][]byte{
		"memory":  open(instanceOf(4 << 30)),
		"section": open(put(sectionInstance, uint32(maxBody))),
		"file":    open(instanceOf(0), fileOf(0, 1<<39, "a"), put(sectionContents, uint32(maxPiece))),
		"extra":   open(instanceOf(0), sealed(sectionExtra, uint64(1<<39), "a"), put(sectionContents, uint32(maxPiece))),
		"globals": open(instanceOf(0), put(sectionGlobals, uint32(maxBody))),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _, err := Decode(bytes.NewReader(in), huge, discard)
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; !errors.Is(err, decant.Invalid) || used > 64<<10 {
			t.Errorf("%s: allocated %d bytes for %d, error %v", name, used, len(in), err)
		}
	}
}

// failing fails after some bytes.
type failing struct{ left int }

var errFull = decant.Errorf(decant.Exhausted, "full")

func (f *failing) Write(p []byte) (int, error) {
	if f.left -= len(p); f.left < 0 {
		return 0, errFull
	}
	return len(p), nil
}

func (f *failing) WriteAt(p []byte, _ int64) (int, error) { return f.Write(p) }

// TestOthersFail holds that the failures of what it reads from and writes to
// end both ways, at any byte, and keep their code.
func TestOthersFail(t *testing.T) {
	s, m := specimen()
	none := Memory(nil)
	whole, _ := encode(t, s, none.Pages())
	for i := range whole {
		if _, err := Encode(&failing{i}, s, none.Pages()); !errors.Is(err, decant.Exhausted) {
			t.Fatalf("encoding, writer full after %d bytes: %v", i, err)
		}
	}
	refused := decant.Errorf(decant.Unavailable, "gone")
	for i := range len(whole) + 1 {
		r := io.MultiReader(bytes.NewReader(whole[:i]), iotest.ErrReader(refused))
		if _, _, err := Decode(r, generous, discard); !errors.Is(err, decant.Unavailable) {
			t.Fatalf("decoding, reader fails after %d bytes: %v", i, err)
		}
	}
	whole, _ = encode(t, s, m.Pages())
	_, _, err := Decode(bytes.NewReader(whole), generous, func(*Snapshot) (io.WriterAt, error) { return &failing{2 * PageSize}, nil })
	if !errors.Is(err, decant.Exhausted) || !strings.Contains(err.Error(), "section memory at byte") {
		t.Errorf("memory full: %v", err)
	}
}

// TestNotAccepted holds that a snapshot that is not wanted is read no further.
func TestNotAccepted(t *testing.T) {
	m := make(Memory, 4*maxPiece)
	for i := range m {
		m[i] = 1
	}
	s := &Snapshot{Module: decant.DigestOf(nil), Memory: decant.Bytes(len(m)), Globals: []Global{{1, I32, 2}}, Dropped: []uint32{3}}
	in, _ := encode(t, s, m.Pages())
	r := bytes.NewReader(in)
	_, _, err := Decode(r, generous, func(told *Snapshot) (io.WriterAt, error) {
		if told.Module != s.Module || told.Memory != s.Memory || !slices.Equal(told.Globals, s.Globals) || !slices.Equal(told.Dropped, s.Dropped) {
			t.Errorf("told of %+v", told)
		}
		return nil, decant.Errorf(decant.Conflict, "this is another module")
	})
	if !errors.Is(err, decant.Conflict) || err.Error() != "cannot read the snapshot: this is another module" {
		t.Errorf("error %v", err)
	}
	if left := r.Len(); left < 2*maxPiece {
		t.Errorf("read all but %d bytes", left)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	m := make(Memory, PageSize)
	for _, offset := range []int64{1, PageSize, PageSize + 1, math.MaxInt64} {
		if _, err := m.WriteAt(make([]byte, PageSize), offset); !errors.Is(err, io.ErrShortWrite) {
			t.Errorf("at %d: %v", offset, err)
		}
	}
}

// FuzzDecode holds that what is accepted is what Encode writes, and holds no
// more than has arrived.
func FuzzDecode(f *testing.F) {
	s, _ := specimen()
	small, _ := encode(f, s, Memory(nil).Pages()) // with pages, the fuzzer would take a minute for each
	f.Add(small)
	f.Add(sealedAll(instanceOf(wasmPage), sealed(sectionMemory, uint64(0), "\x01\x02"), sealed(sectionMemory, uint64(3*PageSize), "\x03")))
	f.Add(sealedAll(instanceOf(0), fileOf(1, 0, "a"), fileOf(0, 1, "a/b"), sealed(sectionContents, "x")))
	f.Fuzz(func(t *testing.T, in []byte) {
		for _, in := range [][]byte{in, resealed(in)} {
			s, m, _, err := decode(bytes.NewReader(in), Limits{Memory: 16 * wasmPage, Files: decant.MiB, Extra: decant.MiB})
			if err != nil {
				if code := decant.CodeOf(err); code != decant.Invalid && code != decant.Exhausted {
					t.Errorf("%s: %v", code, err)
				}
				continue
			}
			if again, _ := encode(t, s, m.Pages()); !bytes.Equal(again, in) {
				t.Errorf("%x was read as %+v and written as %x", in, s, again)
			}
		}
	})
}

// resealed gives the sections in b the length that they have and the sums that
// belong there, and takes a byte of memory for a page of it: so the fuzzer gets
// behind those with few bytes.
func resealed(b []byte) []byte {
	var sections [][]byte
	for b = b[min(len(b), 8):]; len(b) > headSize && section(b[0]) != sectionEnd; {
		n := min(int(u32(b[1:])%(maxBody+1)), len(b)-headSize)
		id, body := section(b[0]), b[headSize:headSize+n]
		if id == sectionMemory && n > 8 {
			body = slices.Concat(body[:8], pagesOf(body[8:min(n, 16)]))
		}
		sections = append(sections, sealed(id, body))
		b = b[min(headSize+n+crcSize, len(b)):]
	}
	return sealedAll(sections...)
}

func pagesOf(each []byte) (out []byte) {
	for _, b := range each {
		out = append(out, bytes.Repeat([]byte{b}, PageSize)...)
	}
	return out
}
