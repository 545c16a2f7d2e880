package snapshot

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"slices"
	"time"

	"github.com/decant-project/decant"
)

// Accept is told of a snapshot before its memory arrives: all but Files and
// Extra is there. It returns where the memory goes, which must be zero, since
// only what is not zero is written; or why the snapshot is not wanted.
type Accept func(*Snapshot) (io.WriterAt, error)

// Decode reads a snapshot until the end of r, and returns it with its digest.
// It takes what Encode writes and nothing else, and allocates in proportion to
// what has arrived.
//
// Invalid: it is damaged, cut short, of another version, or otherwise not what
// Encode writes. Exhausted: it is beyond the limits. Errors of r, of accept and
// of where the memory goes keep their code. After an error, what was written to
// memory is of no use.
func Decode(r io.Reader, limits Limits, accept Accept) (*Snapshot, decant.Digest, error) {
	d := &decoder{r: bufio.NewReader(r), sum: sha256.New(), left: limits}
	s := &Snapshot{}
	d.header()
	d.next()
	d.instance(s)
	d.base()
	d.globals(s)
	d.dropped(s)
	d.memory(s, accept)
	d.files(s)
	d.extras(s)
	digest := d.end()
	if d.err != nil {
		return nil, "", d.err
	}
	return s, digest, nil
}

// decoder reads one section after the other. At its first error it stays, and
// is then at no section.
type decoder struct {
	r    io.Reader
	sum  hash.Hash // of all up to the section's end
	left Limits    // what may still come
	at   int64     // where the section begins
	buf  []byte    // the section as it came
	id   section   // of the section; 0 is none
	body []byte    // in buf
	err  error
}

// fail keeps the first error, and says where it was.
func (d *decoder) fail(err error) {
	if d.err == nil {
		where := ""
		if d.id != 0 {
			where = fmt.Sprintf("section %s at byte %d: ", d.id, d.at)
		}
		d.err = decant.Errorf(decant.CodeOf(err), "cannot read the snapshot: %s%w", where, err)
	}
	d.id, d.body = 0, nil
}

// rule fails with an Invalid error unless ok.
func (d *decoder) rule(ok bool, format string, args ...any) bool {
	if !ok {
		d.fail(decant.Errorf(decant.Invalid, format, args...))
	}
	return ok
}

// check fails with err, if there is one.
func (d *decoder) check(err error) bool {
	if err != nil {
		d.fail(err)
	}
	return err == nil
}

// read appends n bytes to the section. It makes room as they arrive: n may be
// a lie.
func (d *decoder) read(n int) bool {
	for n > 0 && d.err == nil {
		have, step := len(d.buf), min(n, max(len(d.buf), PageSize))
		d.buf = slices.Grow(d.buf, step)[:have+step]
		got, err := io.ReadFull(d.r, d.buf[have:])
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = decant.Errorf(decant.Invalid, "it is cut short at byte %d", d.at+int64(have+got))
		}
		d.check(err)
		n -= step
	}
	return d.err == nil
}

func (d *decoder) header() {
	if !d.read(len(magic) + 4) {
		return
	}
	d.sum.Write(d.buf)
	v := u32(d.buf[len(magic):])
	if d.rule(string(d.buf[:len(magic)]) == magic, "it does not begin with %q: this is no snapshot", magic) && v != version {
		d.fail(decant.Errorf(decant.Invalid, "it is of version %d: this program knows version %d", v, version).
			WithHelp("use the version of decant that wrote it, or a newer one"))
	}
}

// next reads the next section.
func (d *decoder) next() {
	d.at += int64(len(d.buf))
	d.buf = d.buf[:0]
	d.id, d.body = 0, nil
	if !d.read(headSize) {
		return
	}
	d.id = section(d.buf[0])
	length := u32(d.buf[1:])
	if !d.rule(sectionNames[d.id] != "", "there is none of this id in version %d", version) ||
		!d.rule(length <= maxBody, "it has %d bytes: %d at most", length, maxBody) ||
		!d.read(int(length)+crcSize) {
		return
	}
	covered := d.buf[:headSize+length]
	want, got := u32(d.buf[len(covered):]), crc32.Checksum(covered, castagnoli)
	if d.rule(got == want, "it is damaged: its CRC-32C is %08x, not %08x", got, want) {
		d.body = covered[headSize:]
	}
	if d.id != sectionEnd {
		d.sum.Write(d.buf)
	}
}

func u32(b []byte) uint32 { return binary.LittleEndian.Uint32(b) }
func u64(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }

func (d *decoder) instance(s *Snapshot) {
	const size = sha256.Size + 8 + 8
	if !d.rule(d.id == sectionInstance, "it is not where it belongs: section %s comes first", sectionInstance) ||
		!d.rule(len(d.body) == size, "it has %d bytes, not %d", len(d.body), size) {
		return
	}
	s.Module = decant.NewDigest(d.body[:sha256.Size])
	s.Clock = time.Duration(u64(d.body[sha256.Size:]))
	s.Memory = decant.Bytes(u64(d.body[sha256.Size+8:]))
	if !d.check(s.checkInstance()) {
		return
	}
	if s.Memory > d.left.Memory {
		d.fail(decant.Errorf(decant.Exhausted, "a memory of %s: %s at most", s.Memory, d.left.Memory))
		return
	}
	d.next()
}

// base refuses snapshots that hold only what has changed since another one.
func (d *decoder) base() {
	if d.id == sectionBase && d.rule(len(d.body) == sha256.Size, "it has %d bytes, not %d", len(d.body), sha256.Size) {
		d.rule(false, "the snapshot holds only what has changed since the snapshot %s: this program reads whole ones only", decant.NewDigest(d.body))
	}
}

func (d *decoder) globals(s *Snapshot) {
	if d.id != sectionGlobals || !d.entries(globalSize) {
		return
	}
	s.Globals = make([]Global, 0, len(d.body)/globalSize)
	for g := range slices.Chunk(d.body, globalSize) {
		s.Globals = append(s.Globals, Global{Index: u32(g), Type: Type(g[4]), Bits: u64(g[5:])})
	}
	if d.check(checkGlobals(s.Globals)) {
		d.next()
	}
}

func (d *decoder) dropped(s *Snapshot) {
	if d.id != sectionDropped || !d.entries(4) {
		return
	}
	s.Dropped = make([]uint32, 0, len(d.body)/4)
	for segment := range slices.Chunk(d.body, 4) {
		s.Dropped = append(s.Dropped, u32(segment))
	}
	if d.check(checkDropped(s.Dropped)) {
		d.next()
	}
}

// entries fails unless the body is entries of size bytes. A section without any
// is left out.
func (d *decoder) entries(size int) bool {
	return d.rule(len(d.body) > 0 && len(d.body)%size == 0, "it has %d bytes: want entries of %d", len(d.body), size)
}

func (d *decoder) memory(s *Snapshot, accept Accept) {
	if d.err != nil {
		return
	}
	to, err := accept(s)
	if err != nil {
		d.id = 0 // it is not the next section's fault
		d.fail(err)
		return
	}
	end, full := uint64(0), true // of the last run: it may not be gone on with
	for ; d.id == sectionMemory; d.next() {
		offset, data, ok := d.run(uint64(s.Memory))
		if !ok ||
			!d.rule(offset >= end, "offset %d: the last one ends at %d", offset, end) ||
			!d.rule(offset > end || full, "offset %d: the last one ends there and has room for more", offset) {
			return
		}
		if _, err := to.WriteAt(data, int64(offset)); !d.check(err) {
			return
		}
		end, full = offset+uint64(len(data)), len(data) == maxPiece
	}
}

// run reads a run of pages, none of which is zeros.
func (d *decoder) run(memory uint64) (offset uint64, data []byte, ok bool) {
	if !d.rule(len(d.body) > 8 && len(d.body)%PageSize == 8, "it has %d bytes: want 8 and whole pages", len(d.body)) {
		return 0, nil, false
	}
	offset, data = u64(d.body), d.body[8:]
	size := uint64(len(data))
	return offset, data, d.rule(offset%PageSize == 0, "offset %d is not that of a page", offset) &&
		d.rule(size <= memory && offset <= memory-size, "%d bytes at %d: the memory ends at %d", size, offset, memory) &&
		d.rule(!hasZeroPage(data), "a page of zeros is written")
}

func hasZeroPage(data []byte) bool {
	for page := range slices.Chunk(data, PageSize) {
		if isZero(page) {
			return true
		}
	}
	return false
}

func (d *decoder) files(s *Snapshot) {
	for t := (tree{}); d.id == sectionFile; d.next() {
		f, ok := d.file(&t)
		if !ok {
			return
		}
		s.Files = append(s.Files, f)
	}
}

func (d *decoder) file(t *tree) (f File, ok bool) {
	const fixed = 1 + 8 + 8
	if !d.rule(len(d.body) > fixed, "it has %d bytes: want more than %d", len(d.body), fixed) {
		return f, false
	}
	kind, size := d.body[0], u64(d.body[9:])
	f = File{Path: string(d.body[fixed:]), Folder: kind == 1, Modified: time.Unix(0, int64(u64(d.body[1:]))).UTC()}
	if !d.rule(kind <= 1, "there is no kind %d of file", kind) ||
		!d.rule(!f.Folder || size == 0, "folder %.80q has contents", f.Path) ||
		!d.check(t.add(f)) ||
		!d.take(&d.left.Files, FileCost, "files") || !d.take(&d.left.Files, size, "files") {
		return f, false
	}
	f.Data = d.contents(size)
	return f, d.err == nil
}

func (d *decoder) extras(s *Snapshot) {
	for ; d.id == sectionExtra; d.next() {
		x, ok := d.extra(s.Extra)
		if !ok {
			return
		}
		s.Extra = append(s.Extra, x)
	}
}

func (d *decoder) extra(before []Extra) (x Extra, ok bool) {
	if !d.rule(len(d.body) > 8, "it has %d bytes: want more than 8", len(d.body)) {
		return x, false
	}
	x.Name = string(d.body[8:])
	size := u64(d.body)
	if !d.check(checkExtra(before, x.Name)) ||
		!d.take(&d.left.Extra, uint64(len(x.Name)), "extras") || !d.take(&d.left.Extra, size, "extras") {
		return x, false
	}
	x.Data = d.contents(size)
	return x, d.err == nil
}

// take counts n bytes of what may still come.
func (d *decoder) take(left *decant.Bytes, n uint64, of string) bool {
	if n > uint64(*left) {
		d.fail(decant.Errorf(decant.Exhausted, "%d bytes: of all %s, %s more at most", n, of, *left))
		return false
	}
	*left -= decant.Bytes(n)
	return true
}

// contents reads the sections that follow a file or an extra of size bytes.
func (d *decoder) contents(size uint64) []byte {
	var data []byte
	for size > 0 {
		d.next()
		piece := min(size, maxPiece)
		if !d.rule(d.id == sectionContents && uint64(len(d.body)) == piece, "contents of %d bytes come here", piece) {
			return nil
		}
		data = append(data, d.body...)
		size -= piece
	}
	return data
}

// end checks the digest, and that nothing follows.
func (d *decoder) end() decant.Digest {
	sum := d.sum.Sum(nil)
	if !d.rule(d.id == sectionEnd, "it is not where it belongs") ||
		!d.rule(len(d.body) == sha256.Size, "it has %d bytes, not %d", len(d.body), sha256.Size) ||
		!d.rule(bytes.Equal(d.body, sum), "the snapshot is damaged: its SHA-256 is %x, not %x", sum, d.body) {
		return ""
	}
	switch _, err := io.ReadFull(d.r, d.buf[:1]); {
	case err == nil:
		d.rule(false, "there are bytes after it")
	case !errors.Is(err, io.EOF):
		d.fail(err)
	}
	return decant.NewDigest(sum)
}
