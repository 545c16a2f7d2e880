package binary

// Instructions that are only written, never looked at.
const (
	emptyBlock     = 0x40
	opDrop         = 0x1a
	opI32Const     = 0x41
	opI64Const     = 0x42
	opI32LtS       = 0x48
	opI32GtU       = 0x4b
	opI32LeU       = 0x4d
	opI64Ne        = 0x52
	opI64LtS       = 0x53
	opI64GtU       = 0x56
	opI32Add       = 0x6a
	opI32Sub       = 0x6b
	opI32And       = 0x71
	opI32Or        = 0x72
	opI32ShrU      = 0x76
	opI64Add       = 0x7c
	opI64Sub       = 0x7d
	opI64And       = 0x83
	opI64Shl       = 0x86
	opI64ExtendI32 = 0xad
	opMemorySize   = 0x3f
)

// tableCost is what an instruction pays that moves as much of a table as there
// is: a unit for each of Limits.Elements, about.
const tableCost = 1 << 19

// bytesToFuel turns a number of bytes that are copied or filled into what that
// costs: a unit for each eight.
var bytesToFuel = []byte{opI32Const, 3, opI32ShrU, opI64ExtendI32, opI64Const, 32, opI64Shl}

// pagesToFuel turns a number of pages that were asked for into what that costs:
// 128 units for each of as many as there can be.
var pagesToFuel = append(appendS64([]byte{opI32Const}, 1<<17-1), opI32And, opI64ExtendI32, opI64Const, 32+7, opI64Shl)

// chunk is how many bytes are copied or filled in one go. What is longer yields
// in between.
const chunk = 64 << 10

// helper returns the function that stands for memory.copy or memory.fill.
func (p *preparer) helper(sub uint32) uint32 {
	if f, ok := p.helpers[sub]; ok {
		return f
	}
	typeOf := p.addType("\x7f\x7f\x7f", "")
	b := &body{preparer: p, survey: survey{locals: 3}, loops: []loop{{}}}
	b.out = append(b.out, 1, 1, typeI64)
	b.bulk(sub)
	p.helpers[sub] = p.addFunction(typeOf, b.out)
	return p.helpers[sub]
}

// bulk is memory.copy(to, from, n) or memory.fill(to, value, n), chunk by chunk:
//
//	if n > chunk
//	  if to+n or from+n is beyond the memory: do it at once, that is, trap
//	  if fill, or to <= from
//	    do: pay; instruction(to, from, chunk); to, from, n = to+chunk, from+chunk, n-chunk; while n > chunk
//	  else
//	    do: pay; n -= chunk; instruction(to+n, from+n, chunk); while n > chunk
//	pay; instruction(to, from, n)
func (b *body) bulk(sub uint32) {
	const to, from, n = 0, 1, 2
	get := func(local uint32) []byte { return op(opLocalGet, local) }
	chunked := appendS64([]byte{opI32Const}, chunk)
	long := append(append(get(n), chunked...), opI32GtU)
	add := func(local uint32, sign byte) []byte {
		return append(append(append(get(local), chunked...), sign), op(opLocalSet, local)...)
	}
	instruction := []byte{opMisc, byte(sub), 0}
	if sub == subMemoryCopy {
		instruction = append(instruction, 0)
	}
	beyond := func(local uint32) {
		b.emit(get(local), []byte{opI64ExtendI32}, get(n), []byte{
			opI64ExtendI32, opI64Add,
			opMemorySize, 0, opI64ExtendI32, opI64Const, 16, opI64Shl, opI64GtU,
		})
	}
	payChunk := func() { b.pay(func() { b.emit(i64Const(fuel(chunk >> 3))) }) }

	b.emit(long, []byte{opIf, emptyBlock})
	beyond(to)
	if sub == subMemoryCopy {
		beyond(from)
		b.emit([]byte{opI32Or})
	}
	b.emit([]byte{opIf, emptyBlock}, get(to), get(from), get(n), instruction, []byte{opEnd})
	if sub == subMemoryCopy {
		b.emit(get(to), get(from), []byte{opI32LeU, opIf, emptyBlock})
	}
	b.emit([]byte{opLoop, emptyBlock})
	payChunk()
	b.emit(get(to), get(from), chunked, instruction, add(to, opI32Add))
	if sub == subMemoryCopy {
		b.emit(add(from, opI32Add))
	}
	b.emit(add(n, opI32Sub), long, op(opBrIf, 0), []byte{opEnd})
	if sub == subMemoryCopy {
		b.emit([]byte{opElse, opLoop, emptyBlock})
		payChunk()
		b.emit(add(n, opI32Sub), get(to), get(n), []byte{opI32Add}, get(from), get(n), []byte{opI32Add}, chunked, instruction,
			long, op(opBrIf, 0), []byte{opEnd, opEnd})
	}
	b.emit([]byte{opEnd})
	b.pay(func() { b.emit(get(n), bytesToFuel) })
	b.emit(get(to), get(from), get(n), instruction, []byte{opEnd})
}

// drop adds the function that drops the data segments whose flags are set.
func (p *preparer) drop() *uint32 {
	if len(p.droppable) == 0 {
		return nil
	}
	code := []byte{0}
	for _, segment := range p.droppable {
		code = append(append(code, op(opGlobalGet, p.flags[segment])...), opIf, emptyBlock, opMisc, subDataDrop)
		code = append(appendU32(code, segment), opEnd)
	}
	f := p.addFunction(p.addType("", ""), append(code, opEnd))
	return &f
}
