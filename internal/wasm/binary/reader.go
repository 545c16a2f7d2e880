package binary

import (
	"math"

	"github.com/decant-project/decant"
)

// reader reads a module's binary (WebAssembly 2.0, chapter 5). Once something
// cannot be read it stays at its first error and reads zeros.
type reader struct {
	b   []byte
	at  int // in b
	off int // of b in the module, for messages
	err error
}

// fail keeps the first error.
func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.at = len(r.b)
}

func (r *reader) damaged() {
	r.fail(decant.Errorf(decant.Invalid, "the module is damaged, or cut short, at byte %d", r.off+r.at))
}

func (r *reader) done() bool { return r.at >= len(r.b) }

func (r *reader) byte() byte {
	if r.done() {
		r.damaged()
		return 0
	}
	r.at++
	return r.b[r.at-1]
}

// take returns the next n bytes as a reader of their own.
func (r *reader) take(n uint32) *reader {
	if int64(n) > int64(len(r.b)-r.at) {
		r.damaged()
		n = 0
	}
	part := &reader{b: r.b[r.at : r.at+int(n)], off: r.off + r.at, err: r.err}
	r.at += int(n)
	return part
}

func (r *reader) skip(n uint32) { r.take(n) }

// leb reads a LEB128 number of at most bits bits, without its sign: what is
// needed of signed ones is their length.
func (r *reader) leb(bits int) uint64 {
	if r.at < len(r.b) && r.b[r.at] < 0x80 { // most numbers are small
		r.at++
		return uint64(r.b[r.at-1])
	}
	var v uint64
	for shift := 0; shift < (bits+6)/7*7; shift += 7 {
		b := r.byte()
		v |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return v
		}
	}
	r.damaged()
	return 0
}

func (r *reader) u32() uint32 {
	v := r.leb(32)
	if v > math.MaxUint32 {
		r.damaged()
		return 0
	}
	return uint32(v)
}

// name reads a name.
func (r *reader) name() string { return string(r.take(r.u32()).b) }

// each reads a vector: its length, then f for each element.
func (r *reader) each(f func(i uint32)) {
	for i, n := uint32(0), r.u32(); i < n && r.err == nil; i++ {
		f(i)
	}
}

// limits reads the size of a table or a memory: the least, and the most where
// it is bounded, else as much as there can be.
func (r *reader) limits() (least, most uint32) {
	flag := r.byte()
	least, most = r.u32(), math.MaxUint32
	if flag&1 != 0 {
		most = r.u32()
	}
	return least, most
}

// instruction is an instruction, with the immediates that name something.
type instruction struct {
	at      int    // of its first byte, in the module
	start   int    // of its first byte, in what is read
	op      byte   //
	sub     uint32 // of the prefixes 0xfc and 0xfd
	index   uint32 // the function, label, type, local, global, table or segment that it names first
	targets uint32 // of br_table, the default included
}

// Opcodes that say something of a function's shape, or name something.
const (
	opUnreachable  = 0x00
	opNop          = 0x01
	opBlock        = 0x02
	opLoop         = 0x03
	opIf           = 0x04
	opElse         = 0x05
	opEnd          = 0x0b
	opBr           = 0x0c
	opBrIf         = 0x0d
	opBrTable      = 0x0e
	opReturn       = 0x0f
	opCall         = 0x10
	opCallIndirect = 0x11
	opLocalGet     = 0x20
	opLocalSet     = 0x21
	opLocalTee     = 0x22
	opGlobalGet    = 0x23
	opGlobalSet    = 0x24
	opTableGet     = 0x25
	opTableSet     = 0x26
	opMemoryGrow   = 0x40
	opRefFunc      = 0xd2
	opMisc         = 0xfc
	opVector       = 0xfd

	// of opMisc
	subMemoryInit = 8
	subDataDrop   = 9
	subMemoryCopy = 10
	subMemoryFill = 11
	subTableInit  = 12
	subElemDrop   = 13
	subTableCopy  = 14
	subTableGrow  = 15
	subTableFill  = 17
)

// instruction reads the next instruction of a function or a constant
// expression.
func (r *reader) instruction() instruction {
	i := instruction{at: r.off + r.at, start: r.at}
	i.op = r.byte()
	switch op := i.op; {
	case op >= opLocalGet && op <= opTableSet, op == opBr || op == opBrIf, op == opCall, op == opRefFunc:
		i.index = r.u32()
	case op >= 0x45 && op <= 0xc4: // comparisons, arithmetic, conversions
	case op >= 0x28 && op <= 0x3e: // loads, stores
		r.u32()
		r.u32()
	case op == 0x41: // i32.const
		r.leb(32)
	case op == opBlock || op == opLoop || op == opIf:
		i.index = r.blockType()
	case op <= opNop || op == opElse || op == opEnd || op == opReturn,
		op == 0x1a || op == 0x1b, // drop, select
		op == 0xd1:               // ref.is_null
	case op == opBrTable:
		r.each(func(uint32) { i.index = max(i.index, r.u32()); i.targets++ })
		i.index = max(i.index, r.u32())
		i.targets++
	case op == opCallIndirect:
		i.index = r.u32()
		r.u32()
	case op == 0x3f || op == opMemoryGrow:
		r.leb(32)
	case op == 0x1c: // select with types
		r.each(func(uint32) { r.byte() })
	case op == 0x42: // i64.const
		r.leb(64)
	case op == 0x43: // f32.const
		r.skip(4)
	case op == 0x44: // f64.const
		r.skip(8)
	case op == 0xd0: // ref.null
		r.leb(33)
	case op == opMisc:
		i.sub = r.u32()
		i.index = r.misc(i)
	case op == opVector:
		i.sub = r.u32()
		r.vector(i)
	default:
		r.unknown(i)
	}
	return i
}

// plainBlock is what blockType returns for a block without a type of its own.
const plainBlock = math.MaxUint32

// blockType reads the type of a block: the index of a type, or plainBlock where
// it has at most a result.
func (r *reader) blockType() uint32 {
	if !r.done() && r.b[r.at]&0xc0 == 0x40 { // a negative number of one byte
		r.at++
		return plainBlock
	}
	if v := r.leb(33); v < plainBlock {
		return uint32(v)
	}
	r.damaged()
	return plainBlock
}

// misc reads the immediates of what comes after 0xfc, and returns the first.
func (r *reader) misc(i instruction) uint32 {
	switch i.sub {
	case 0, 1, 2, 3, 4, 5, 6, 7: // saturating conversions
		return 0
	case subMemoryFill:
		r.memory()
		return 0
	case subMemoryCopy:
		r.memory()
		r.memory()
		return 0
	case subDataDrop, subElemDrop, subTableGrow, subTableFill, 16: // table.size
		return r.u32()
	case subMemoryInit, subTableInit, subTableCopy:
		index := r.u32()
		r.u32()
		return index
	}
	r.unknown(i)
	return 0
}

// memory reads the index of a memory: there is but one.
func (r *reader) memory() {
	if r.byte() != 0 {
		r.damaged()
	}
}

// vector reads the immediates of what comes after 0xfd.
func (r *reader) vector(i instruction) {
	switch {
	case i.sub <= 11, i.sub == 92 || i.sub == 93: // loads, the store
		r.u32()
		r.u32()
	case i.sub == 12 || i.sub == 13: // v128.const, shuffle
		r.skip(16)
	case i.sub >= 21 && i.sub <= 34: // lanes
		r.byte()
	case i.sub >= 84 && i.sub <= 91: // loads and stores of a lane
		r.u32()
		r.u32()
		r.byte()
	case i.sub > 255:
		r.unknown(i)
	}
}

func (r *reader) unknown(i instruction) {
	what := decant.Errorf(decant.Invalid, "the instruction %#02x at byte %d is not of WebAssembly 2.0", i.op, i.at)
	if i.op == opMisc || i.op == opVector {
		what = decant.Errorf(decant.Invalid, "the instruction %#02x %d at byte %d is not of WebAssembly 2.0", i.op, i.sub, i.at)
	}
	r.fail(what.WithHelp("build the module without threads, exceptions, tail calls, garbage collection and relaxed SIMD"))
}
