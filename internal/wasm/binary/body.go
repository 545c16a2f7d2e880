package binary

import "slices"

// body rewrites the code of one function. Bytes that stay as they are, are
// copied in spans.
//
// Each function that is not free (module.freeCosts) pays for itself when it is
// entered, out of the global that holds fuel and stack. A loop pays for each
// turn from a local, which is filled out of the global once in a while: a turn
// then costs a subtraction and a comparison, in a register.
//
//	func f                          func f
//	                                  meter -= stack of f, cost of what is outside loops, first
//	                                  yield if the meter says so
//	                                  turns = first
//	  ...                             block (of f's results)
//	  loop                              ...
//	    ...                             loop
//	  end                                 if turns < 0
//	  ...                                   meter -= more; yield if the meter says so; turns = more
//	                                      end
//	                                      loop
//	                                        turns -= cost of a turn
//	                                        br_if 1 (turns < 0)
//	                                        ...
//	                                      end
//	                                    end
//	                                    ...
//	                                  end
//	                                  meter += stack of f
//
// What it costs is the longest path: what may be done between two payments is
// never more than what was paid, and often less.
type body struct {
	*preparer
	r       *reader
	out     []byte
	copied  int // how far r.b is in out
	survey  survey
	charged bool
	stacked bool // it takes stack that must be given back
	blocks  []block
	loops   []loop // the function itself, then those around the instruction
}

// block is a block of the original that is open.
type block struct {
	kind   byte
	loops  int   // how many blocks up to this one are loops
	in     int   // the loop around it, in body.loops
	before int64 // of an if: the cost up to it
	after  int64 // the most that it costs to get behind it; unreachable if nothing does
}

// loop is a loop that is open, with the places that wait for its cost.
type loop struct {
	cost    int64 // up to here
	most    int64 // of any way through it
	patches []patch
}

// patch is a number of size padded bytes in out.
type patch struct {
	at, size int
	of       func(cost int64) int64
}

const unreachable = -1

const (
	firstTurns = 128   // what a function with loops pays for in advance
	moreTurns  = 4096  // what a loop pays for in advance, once that is used up
	mostTurns  = 65536 // the same, of a long loop

	mostCost = 1 << 30 // of anything: a Meter's halves have 31 bits and a sign
)

// turns returns what a loop whose turns cost so much pays for in advance.
func turns(cost int64) int64 { return max(min(cost, mostCost), moreTurns, min(16*cost, mostTurns)) }

// stackOf estimates the bytes of machine stack that a call takes: a compiler may
// keep each value that an instruction makes, and passes values over the stack. No
// honest function that was measured takes more than twice as much; what a hostile
// one takes in the merges of its blocks is not seen here, and ends at the
// compiler's own bound (50 MB).
func (s *survey) stackOf() int64 {
	return min(64+8*int64(s.locals)+4*int64(s.instructions)+16*int64(s.passed), mostCost)
}

// rewrite appends the rewritten function to out. r is at its locals.
func (b *body) rewrite() {
	b.declare()
	b.copied = b.r.at
	b.loops = append(b.loops, loop{})
	b.enter()
	b.blocks = append(b.blocks, block{kind: opBlock, after: unreachable})
	for len(b.blocks) > 0 {
		b.instruction(b.r.instruction())
	}
	b.settle(0)
}

// declare copies the declarations of locals, and adds some.
func (b *body) declare() {
	start := b.r.at
	n := b.r.u32()
	groups := b.r.at
	for range n {
		b.r.u32()
		b.r.byte()
	}
	if !b.charged {
		b.out = append(b.out, b.r.b[start:b.r.at]...)
		return
	}
	b.out = appendVector(b.out, int(n)+2, b.r.b[groups:b.r.at])
	b.out = append(b.out, 1, typeI64, 2, typeI32)
}

// The locals that are added.
func (b *body) meterCopy() uint32 { return b.survey.locals }
func (b *body) turnsLeft() uint32 { return b.survey.locals + 1 }
func (b *body) length() uint32    { return b.survey.locals + 2 }

// enter pays for the function and begins its outermost block.
func (b *body) enter() {
	if !b.charged {
		return
	}
	stack, first := int64(0), int64(0)
	if b.stacked {
		stack = b.survey.stackOf()
	}
	if b.survey.loops {
		first = firstTurns
	}
	b.pay(stack != 0, func() {
		b.padded(opI64Const, paddedI64, func(cost int64) int64 { return stack<<32 + min(max(cost, stack/16, 1)+first, mostCost) })
	})
	if b.survey.loops {
		b.emit(appendS64([]byte{opI32Const}, first), op(opLocalSet, b.turnsLeft()))
	}
	if b.stacked {
		b.emit([]byte{opBlock}, b.resultType(b.function))
	}
}

// leave gives the stack back and ends the function.
func (b *body) leave() {
	if b.stacked {
		b.emit([]byte{opEnd}, op(opGlobalGet, b.meter), i64Const(b.survey.stackOf()<<32), []byte{opI64Add}, op(opGlobalSet, b.meter))
	}
	b.emit([]byte{opEnd})
}

// pay takes what amount leaves on the stack out of the meter, and yields where
// too little is left.
func (b *body) pay(withStack bool, amount func()) {
	mask := int64(fuelSign)
	if withStack {
		mask = fuelSign | stackSign
	}
	b.emit(op(opGlobalGet, b.meter))
	amount()
	b.emit([]byte{opI64Sub}, op(opLocalTee, b.meterCopy()), op(opGlobalSet, b.meter),
		op(opLocalGet, b.meterCopy()), i64Const(mask), []byte{opI64And}, i64Const(0), []byte{opI64Ne, opIf, emptyBlock},
		op(opLocalGet, b.meterCopy()), op(opCall, b.yield), op(opGlobalSet, b.meter), []byte{opEnd})
}

// padded emits a constant that is known once the innermost loop is.
func (b *body) padded(code byte, size int, of func(cost int64) int64) {
	b.out = append(b.out, code)
	in := &b.loops[len(b.loops)-1]
	in.patches = append(in.patches, patch{len(b.out), size, of})
	b.out = append(b.out, make([]byte, size)...)
}

// settle fills in what waited for the cost of a loop.
func (b *body) settle(i int) {
	for _, p := range b.loops[i].patches {
		putPadded(b.out[p.at:p.at+p.size], p.of(b.loops[i].most))
	}
	b.loops = b.loops[:i]
}

func (b *body) emit(parts ...[]byte) {
	for _, p := range parts {
		b.out = append(b.out, p...)
	}
}

// instead copies what comes before an instruction, and leaves out itself.
func (b *body) instead(ins instruction) {
	b.out = append(b.out, b.r.b[b.copied:ins.start]...)
	b.copied = b.r.at
}

// spend adds to the cost of the innermost loop.
func (b *body) spend(n uint32) {
	if in := &b.loops[len(b.loops)-1]; in.cost != unreachable {
		in.cost += int64(n)
		in.most = max(in.most, in.cost)
	}
}

func (b *body) instruction(ins instruction) {
	b.spend(b.weigh(ins))
	switch ins.op {
	case opBlock, opIf, opLoop:
		b.begin(ins)
	case opElse:
		b.otherwise()
	case opEnd:
		b.end(ins)
	case opBr, opBrIf:
		b.branch(ins)
	case opBrTable:
		b.branchTable(ins)
	case opReturn:
		b.toLabel(uint32(len(b.blocks) - 1)) //nolint:gosec // fewer than Limits.Nesting
		if b.stacked {
			b.instead(ins)
			b.emit(op(opBr, b.label(uint32(len(b.blocks)-1)))) //nolint:gosec // fewer than Limits.Nesting
		}
		b.unreachable()
	case opUnreachable:
		b.unreachable()
	case opCall:
		b.call(ins)
	case opRefFunc:
		b.instead(ins)
		b.emit(op(opRefFunc, b.newIndex(ins.index)))
	case opMisc:
		b.misc(ins)
	}
}

func (b *body) unreachable() { b.loops[len(b.loops)-1].cost = unreachable }

// begin opens a block.
func (b *body) begin(ins instruction) {
	around := &b.blocks[len(b.blocks)-1]
	n := block{kind: ins.op, loops: around.loops, in: len(b.loops) - 1, before: b.loops[len(b.loops)-1].cost, after: unreachable}
	if ins.op == opLoop && b.charged {
		b.beginLoop(ins)
		n.loops++
	}
	b.blocks = append(b.blocks, n)
}

// beginLoop begins a loop within one that fills its turns.
func (b *body) beginLoop(ins instruction) {
	b.loops = append(b.loops, loop{cost: 1, most: 1})
	as := b.r.b[ins.start:b.r.at] // the loop with its type
	b.instead(ins)
	less := []byte{opI32Const, 0, opI32LtS}
	b.emit(as, op(opLocalGet, b.turnsLeft()), less, []byte{opIf, emptyBlock})
	b.pay(false, func() { b.padded(opI64Const, paddedI32, turns) })
	b.padded(opI32Const, paddedI32, turns)
	b.emit(op(opLocalSet, b.turnsLeft()), []byte{opEnd}, as, op(opLocalGet, b.turnsLeft()))
	b.padded(opI32Const, paddedI32, func(cost int64) int64 { return min(cost, mostCost) })
	b.emit([]byte{opI32Sub}, op(opLocalTee, b.turnsLeft()), less, op(opBrIf, 1))
}

// otherwise goes on with the other branch of an if.
func (b *body) otherwise() {
	n := &b.blocks[len(b.blocks)-1]
	in := &b.loops[len(b.loops)-1]
	n.after = max(n.after, in.cost)
	in.cost = n.before
	n.kind = opElse
}

// end closes a block.
func (b *body) end(ins instruction) {
	n := b.blocks[len(b.blocks)-1]
	b.blocks = b.blocks[:len(b.blocks)-1]
	if len(b.blocks) == 0 {
		b.instead(ins)
		b.leave()
		return
	}
	if n.kind == opLoop && b.charged {
		b.instead(ins)
		b.emit([]byte{opEnd, opEnd})
		last := len(b.loops) - 1
		through := b.loops[last].cost
		b.settle(last)
		if through == unreachable {
			b.unreachable()
		}
		return
	}
	in := &b.loops[len(b.loops)-1]
	if n.kind == opIf {
		n.after = max(n.after, n.before)
	}
	in.cost = max(in.cost, n.after)
}

// label returns what a label is once loops have become two.
func (b *body) label(of uint32) uint32 {
	top := len(b.blocks) - 1
	return of + uint32(b.blocks[top].loops-b.blocks[top-int(of)].loops) //nolint:gosec // fewer than Limits.Nesting
}

// toLabel notes that a block is left from here. Where that leaves loops, what
// was done in them is paid for; what counts is what came before them.
func (b *body) toLabel(of uint32) {
	n := &b.blocks[len(b.blocks)-1-int(of)]
	if n.kind != opLoop && b.loops[len(b.loops)-1].cost != unreachable {
		n.after = max(n.after, b.loops[n.in].cost)
	}
}

func (b *body) branch(ins instruction) {
	b.toLabel(ins.index)
	if to := b.label(ins.index); to != ins.index {
		b.instead(ins)
		b.emit(op(ins.op, to))
	}
	if ins.op == opBr {
		b.unreachable()
	}
}

func (b *body) branchTable(ins instruction) {
	labels := &reader{b: b.r.b[:b.r.at], at: ins.start + 1}
	n := labels.u32()
	b.instead(ins)
	b.emit(op(opBrTable, n))
	for range ins.targets {
		of := labels.u32()
		b.toLabel(of)
		b.out = appendU32(b.out, b.label(of))
	}
	b.unreachable()
}

// call gives a function its new number, and counts what it does not pay for.
func (b *body) call(ins instruction) {
	b.spend(b.free[ins.index])
	if to := b.newIndex(ins.index); to != ins.index {
		b.instead(ins)
		b.emit(op(opCall, to))
	}
}

// misc makes instructions pay that may take long.
func (b *body) misc(ins instruction) {
	switch ins.sub {
	case subMemoryFill, subMemoryCopy:
		b.instead(ins)
		b.emit(op(opCall, b.helper(ins.sub)))
	case subMemoryInit:
		as := slices.Clone(b.r.b[ins.start:b.r.at])
		b.instead(ins)
		b.emit(op(opLocalSet, b.length()))
		b.pay(false, func() { b.emit(op(opLocalGet, b.length()), bytesToFuel) })
		b.emit(op(opLocalGet, b.length()), as)
	case subTableInit, subTableCopy, subTableGrow, subTableFill:
		as := b.r.b[ins.start:b.r.at]
		b.instead(ins)
		b.pay(false, func() { b.emit(i64Const(tableCost)) })
		b.emit(as)
	case subDataDrop:
		if flag, ok := b.flags[ins.index]; ok {
			b.out = append(b.out, b.r.b[b.copied:b.r.at]...)
			b.copied = b.r.at
			b.emit([]byte{opI32Const, 1}, op(opGlobalSet, flag))
		}
	}
}
