package snapshot

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"hash/crc32"
	"io"
	"slices"

	"github.com/decant-project/decant"
)

// Pages gives memory to yield in pieces of any number of pages, in order, until
// that returns false: the offset, a multiple of PageSize, and the bytes. What is
// not given is zero.
type Pages func(yield func(offset int64, data []byte) bool) error

// Encode writes a snapshot, with its memory, and returns its digest. The same
// snapshot gives the same bytes, however its memory was cut.
//
// Invalid: the snapshot, or what pages gives, is not as it must be. Exhausted:
// there are more globals or dropped segments than fit. Errors of w and pages keep
// their code. What was written before an error is of no use.
func Encode(w io.Writer, s *Snapshot, pages Pages) (decant.Digest, error) {
	e := &encoder{w: w, sum: sha256.New(), err: s.check()}
	e.header()
	e.instance(s)
	e.globals(s.Globals)
	e.dropped(s.Dropped)
	e.memory(int64(s.Memory), pages)
	e.files(s.Files)
	e.extras(s.Extra)
	digest := e.end()
	if e.err != nil {
		return "", decant.Errorf(decant.CodeOf(e.err), "cannot write the snapshot: %w", e.err)
	}
	return digest, nil
}

// encoder writes sections. After its first error it writes no more.
type encoder struct {
	w   io.Writer
	sum hash.Hash // of all that was written
	buf []byte    // the section being made
	err error
}

func (e *encoder) fail(err error) {
	if e.err == nil {
		e.err = err
	}
}

func (e *encoder) header() {
	e.buf = binary.LittleEndian.AppendUint32([]byte(magic), version)
	e.write()
}

func (e *encoder) write() {
	if e.err != nil {
		return
	}
	e.sum.Write(e.buf)
	_, e.err = e.w.Write(e.buf)
}

// begin begins a section, whose body is then appended.
func (e *encoder) begin(id section) {
	e.buf = append(e.buf[:0], byte(id), 0, 0, 0, 0)
}

func (e *encoder) u32(v uint32) { e.buf = binary.LittleEndian.AppendUint32(e.buf, v) }
func (e *encoder) u64(v uint64) { e.buf = binary.LittleEndian.AppendUint64(e.buf, v) }

// finish writes the section that was begun.
func (e *encoder) finish() {
	length := len(e.buf) - headSize
	if length > maxBody {
		e.fail(decant.Errorf(decant.Exhausted, "section %s would have %d bytes: %d at most", section(e.buf[0]), length, maxBody))
		return
	}
	binary.LittleEndian.PutUint32(e.buf[1:], uint32(length))
	e.u32(crc32.Checksum(e.buf, castagnoli))
	e.write()
}

func (e *encoder) instance(s *Snapshot) {
	module, _ := hex.DecodeString(s.Module.Hex()) // was checked
	e.begin(sectionInstance)
	e.buf = append(e.buf, module...)
	e.u64(uint64(s.Clock))
	e.u64(uint64(s.Memory))
	e.finish()
}

func (e *encoder) globals(globals []Global) {
	if len(globals) == 0 {
		return
	}
	e.begin(sectionGlobals)
	for _, g := range globals {
		e.u32(g.Index)
		e.buf = append(e.buf, byte(g.Type))
		e.u64(g.Bits)
	}
	e.finish()
}

func (e *encoder) dropped(segments []uint32) {
	if len(segments) == 0 {
		return
	}
	e.begin(sectionDropped)
	for _, s := range segments {
		e.u32(s)
	}
	e.finish()
}

func (e *encoder) memory(size int64, pages Pages) {
	r := runs{encoder: e}
	end := int64(0) // of what was given
	err := pages(func(offset int64, data []byte) bool {
		n := int64(len(data))
		if offset < end || n > size-offset || offset%PageSize != 0 || n%PageSize != 0 {
			e.fail(decant.Errorf(decant.Invalid, "%d bytes of memory at %d, after byte %d of %d: want whole pages in order", n, offset, end, size))
			return false
		}
		end = offset + n
		for page := range slices.Chunk(data, PageSize) {
			r.add(offset, page)
			offset += PageSize
		}
		return e.err == nil
	})
	if err != nil {
		e.fail(err)
	}
	r.finish()
}

// runs gathers pages into sections: each as long as it can be.
type runs struct {
	*encoder
	end int64 // of the run being made; 0: there is none
}

func (r *runs) add(offset int64, page []byte) {
	if isZero(page) {
		return
	}
	if offset != r.end || len(r.buf) == headSize+maxBody {
		r.finish()
	}
	if r.end == 0 {
		r.begin(sectionMemory)
		r.u64(uint64(offset))
	}
	r.buf = append(r.buf, page...)
	r.end = offset + PageSize
}

func (r *runs) finish() {
	if r.end != 0 {
		r.encoder.finish()
	}
	r.end = 0
}

var zeros [PageSize]byte

func isZero(page []byte) bool { return bytes.Equal(page, zeros[:]) }

func (e *encoder) files(files []File) {
	for _, f := range files {
		e.begin(sectionFile)
		e.buf = append(e.buf, 0)
		if f.Folder {
			e.buf[headSize] = 1
		}
		e.u64(uint64(f.Modified.UnixNano()))
		e.u64(uint64(len(f.Data)))
		e.buf = append(e.buf, f.Path...)
		e.finish()
		e.contents(f.Data)
	}
}

func (e *encoder) extras(extras []Extra) {
	for _, x := range extras {
		e.begin(sectionExtra)
		e.u64(uint64(len(x.Data)))
		e.buf = append(e.buf, x.Name...)
		e.finish()
		e.contents(x.Data)
	}
}

func (e *encoder) contents(data []byte) {
	for piece := range slices.Chunk(data, maxPiece) {
		e.begin(sectionContents)
		e.buf = append(e.buf, piece...)
		e.finish()
	}
}

func (e *encoder) end() decant.Digest {
	sum := e.sum.Sum(nil)
	e.begin(sectionEnd)
	e.buf = append(e.buf, sum...)
	e.finish()
	return decant.NewDigest(sum)
}
