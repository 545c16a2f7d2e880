package binary

import "slices"

// body rewrites the code of one function. Bytes that stay as they are, are
// copied in spans.
//
// A function that its callers do not pay for (module.prices) pays out of the
// meter when it is entered, for the longest way through what is outside its
// loops. One that may be called again from within takes its stack there, and
// gives it back behind a block that each return leaves through:
//
//	meter -= cost, stack of f; yield if the meter says so
//	block (of f's results)
//	  ...
//	end
//	meter += stack of f
//
// Long code without a loop pays again on its way (payAgain). A function that
// calls others in its loops only takes just its stack: its callers pay for what
// is outside the loops (loopsPay).
//
// In functions that call others of the module, each turn of a loop pays:
//
//	loop
//	  meter -= cost of a turn; yield if the meter says so
//	  ...
//	end
//
// In the others turns are paid in advance, into a local: a turn then costs a
// subtraction and a comparison, in a register.
//
//	block
//	  loop
//	    if turns < 0
//	      meter -= more; yield if the meter says so; turns = more
//	    end
//	    block
//	      loop
//	        turns -= cost of a turn
//	        br_if 1 (turns < 0)     pay, and begin the turn again
//	        ...
//	      end
//	      br 2                      the loop is over
//	    end
//	    br 0
//	  end
//	  unreachable
//	end
//
// A cost is that of the longest way, in instructions: what may be done between
// two payments is never more than what was paid, and often less.
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
	loops  int   // how many blocks were added up to this one
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
	mostTurns  = 16384 // the same, of a long loop
	mostLine   = 8192  // what is paid in one go for code that goes straight on, about

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
	b.spend(b.survey.entry)
	b.enter()
	b.blocks = append(b.blocks, block{kind: opBlock, after: unreachable})
	most := 4*len(b.r.b) + 2<<20 // real functions grow by some percent
	for len(b.blocks) > 0 && b.r.err == nil {
		b.instruction(b.r.instruction())
		b.r.keep(over("what is made of a function has", "bytes", uint64(len(b.out)), most, ""))
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
func (b *body) amount() uint32    { return b.survey.locals + 2 }

// enter pays for the function and begins its outermost block.
func (b *body) enter() {
	if !b.charged {
		return
	}
	frame := b.survey.stackOf()
	stack, first := int64(0), int64(0)
	if b.stacked {
		stack = frame
	}
	if b.counts() {
		first = firstTurns
	}
	if b.survey.loopsPay() {
		b.take(func() { b.emit(i64Const(stack)) })
		b.emit([]byte{opDrop})
	} else {
		b.payOften(func() {
			b.padded(opI64Const, paddedI64, func(cost int64) int64 { return fuel(min(max(cost, frame/16, 1)+first, mostCost)) + stack })
		}, b.tooLittle())
	}
	if b.counts() {
		b.emit(appendS64([]byte{opI32Const}, first), op(opLocalSet, b.turnsLeft()))
	}
	if b.stacked {
		b.emit([]byte{opBlock}, b.resultType(b.function))
	}
}

// leave gives the stack back and ends the function.
func (b *body) leave() {
	if b.stacked {
		b.emit([]byte{opEnd}, op(opGlobalGet, b.meter), i64Const(b.survey.stackOf()), []byte{opI64Add}, op(opGlobalSet, b.meter))
	}
	b.emit([]byte{opEnd})
}

// counts reports whether loops count down turns. Where the function calls others
// they pay for each turn at once: a local would be saved around each call.
func (b *body) counts() bool { return b.survey.loops && !b.survey.calls }

// tooLittle tests the meter of a function.
func (b *body) tooLittle() []byte {
	if b.stacked {
		return outOfFuelOrStack
	}
	return outOfFuel
}

// pay takes what amount leaves on the stack out of the meter, and yields where
// too little fuel is left.
func (b *body) pay(amount func()) {
	b.take(amount)
	b.emit(outOfFuel, []byte{opIf, emptyBlock})
	b.askForMore()
	b.emit([]byte{opEnd})
}

// payOften is pay, laid out such that what is seldom done is out of the way.
func (b *body) payOften(amount func(), tooLittle []byte) {
	b.emit([]byte{opBlock, emptyBlock, opBlock, emptyBlock})
	b.take(amount)
	b.emit(tooLittle, op(opBrIf, 0), op(opBr, 1), []byte{opEnd})
	b.askForMore()
	b.emit([]byte{opEnd})
}

// take takes what amount leaves on the stack out of the meter, and leaves there
// what is left.
func (b *body) take(amount func()) {
	b.emit(op(opGlobalGet, b.meter))
	amount()
	b.emit([]byte{opI64Sub}, op(opLocalTee, b.meterCopy()), op(opGlobalSet, b.meter), op(opLocalGet, b.meterCopy()))
}

// Tests of a meter: the first, of its fuel only, is the cheaper one.
var (
	outOfFuel        = append(i64Const(0), opI64LtS)
	outOfFuelOrStack = append(append(i64Const(fuelSign|stackSign), opI64And), append(i64Const(0), opI64Ne)...)
)

// negative tests an i32.
var negative = []byte{opI32Const, 0, opI32LtS}

// askForMore yields.
func (b *body) askForMore() {
	b.emit(op(opLocalGet, b.meterCopy()), op(opCall, b.yield), op(opGlobalSet, b.meter))
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

// copyTo copies what was not copied yet, up to a place.
func (b *body) copyTo(at int) {
	b.out = append(b.out, b.r.b[b.copied:at]...)
	b.copied = at
}

// instead copies what comes before an instruction, and leaves out itself.
func (b *body) instead(ins instruction) {
	b.copyTo(ins.start)
	b.copied = b.r.at
}

// spend adds to the cost of the innermost loop.
func (b *body) spend(n uint32) {
	if in := &b.loops[len(b.loops)-1]; in.cost != unreachable {
		in.cost += int64(n)
		in.most = max(in.most, in.cost)
	}
}

// payAgain pays for what comes next of a long straight line of code, so that
// nothing long goes on without a look at the meter.
func (b *body) payAgain(ins instruction) {
	in := &b.loops[len(b.loops)-1]
	if in.cost < mostLine {
		return
	}
	b.copyTo(ins.start)
	b.pay(func() { b.padded(opI64Const, paddedI64, func(cost int64) int64 { return fuel(min(cost, mostCost)) }) })
	in.cost = 0
}

func (b *body) instruction(ins instruction) {
	b.payAgain(ins)
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
	case opMemoryGrow:
		b.grow(ins)
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
	if ins.op == opLoop { // who has loops pays
		b.beginLoop(ins)
		if b.counts() {
			n.loops += blocksOfLoop
		}
	}
	b.blocks = append(b.blocks, n)
}

// blocksOfLoop is how many blocks there are around a loop, that were not there.
const blocksOfLoop = 3

// beginLoop begins a loop within what endLoop ends. What is seldom done is behind
// it, in no block that the compiler takes for the way that is gone often: it lays
// that out first which leads to the beginning of a loop.
func (b *body) beginLoop(ins instruction) {
	cost := int64(b.weigh(ins)) // of the branch that begins another turn
	b.loops = append(b.loops, loop{cost: cost, most: cost})
	as := b.r.b[ins.start+1 : b.r.at] // its type
	b.instead(ins)
	if !b.counts() {
		outside := int64(0)
		if b.survey.loopsPay() && len(b.loops) == 2 { // the function, and this one
			outside = b.survey.stackOf() / 16
		}
		b.emit([]byte{opLoop}, as)
		b.payOften(func() {
			b.padded(opI64Const, paddedI64, func(cost int64) int64 { return fuel(min(max(cost, outside), mostCost)) })
		}, b.tooLittle())
		return
	}
	b.emit([]byte{opBlock}, as, []byte{opLoop}, as, op(opLocalGet, b.turnsLeft()), negative, []byte{opIf, emptyBlock})
	b.pay(func() { b.padded(opI64Const, paddedI64, func(cost int64) int64 { return fuel(turns(cost)) }) })
	b.padded(opI32Const, paddedI32, turns)
	b.emit(op(opLocalSet, b.turnsLeft()), []byte{opEnd}, []byte{opBlock}, b.passing(ins.index), []byte{opLoop}, as, op(opLocalGet, b.turnsLeft()))
	b.padded(opI32Const, paddedI32, func(cost int64) int64 { return min(cost, mostCost) })
	b.emit([]byte{opI32Sub}, op(opLocalTee, b.turnsLeft()), negative, op(opBrIf, 1))
}

// passing returns the type of a block that hands on the parameters of a loop of
// this type.
func (b *body) passing(typeOf uint32) []byte {
	if typeOf == plainBlock || len(b.types[typeOf].Params) == 0 {
		return []byte{emptyBlock}
	}
	params := string(b.types[typeOf].Params)
	return appendS64(nil, int64(b.addType(params, params)))
}

// endLoop ends a loop, and does what is to do when its turns are used up.
func (b *body) endLoop(ins instruction) {
	b.instead(ins)
	b.emit([]byte{opEnd})
	if b.counts() {
		b.emit(op(opBr, 2), []byte{opEnd}, op(opBr, 0), []byte{opEnd, opUnreachable, opEnd})
	}
	last := len(b.loops) - 1
	through := b.loops[last].cost
	b.settle(last)
	if through == unreachable {
		b.unreachable()
	}
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
	if n.kind == opLoop {
		b.endLoop(ins)
		return
	}
	in := &b.loops[len(b.loops)-1]
	if n.kind == opIf {
		n.after = max(n.after, n.before)
	}
	in.cost = max(in.cost, n.after)
}

// label returns what a label is once there are blocksOfLoop more around loops that
// count.
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
	b.spend(b.prices[ins.index].callers)
	if to := b.newIndex(ins.index); to != ins.index {
		b.instead(ins)
		b.emit(op(opCall, to))
	}
}

// grow pays for the pages that are added, after they are: each of them takes the
// machine some time when it is touched, and the host may give less fuel then.
func (b *body) grow(ins instruction) {
	as := slices.Clone(b.r.b[ins.start:b.r.at])
	b.instead(ins)
	b.emit(op(opLocalTee, b.amount()), as)
	b.pay(func() { b.emit(op(opLocalGet, b.amount()), pagesToFuel) })
}

// misc makes instructions pay that may take long.
func (b *body) misc(ins instruction) {
	switch ins.sub {
	case subMemoryFill, subMemoryCopy:
		b.bulkInstruction(ins)
	case subMemoryInit:
		as := slices.Clone(b.r.b[ins.start:b.r.at])
		b.instead(ins)
		b.emit(op(opLocalSet, b.amount()))
		b.pay(func() { b.emit(op(opLocalGet, b.amount()), bytesToFuel) })
		b.emit(op(opLocalGet, b.amount()), as)
	case subTableInit, subTableCopy, subTableGrow, subTableFill:
		as := b.r.b[ins.start:b.r.at]
		b.instead(ins)
		b.pay(func() { b.emit(i64Const(fuel(tableCost))) })
		b.emit(as)
	case subDataDrop:
		if flag, ok := b.flags[ins.index]; ok {
			b.copyTo(b.r.at)
			b.emit([]byte{opI32Const, 1}, op(opGlobalSet, flag))
		}
	}
}

// shortCopy is how many bytes are copied or filled at the cost of an instruction
// that takes so long.
const shortCopy = 512

// bulkInstruction copies or fills at once what is short, and has a helper do the
// rest.
func (b *body) bulkInstruction(ins instruction) {
	as := b.r.b[ins.start:b.r.at]
	b.instead(ins)
	b.spend(shortCopy / 8)
	b.emit(op(opLocalTee, b.amount()), op(opLocalGet, b.amount()), appendS64([]byte{opI32Const}, shortCopy), []byte{opI32LeU, opIf},
		appendS64(nil, int64(b.addType("\x7f\x7f\x7f", ""))), as, []byte{opElse}, op(opCall, b.helper(ins.sub)), []byte{opEnd})
}
