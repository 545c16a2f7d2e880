package binary

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/decant-project/decant"
)

// Reserved is how the names of exports begin that Prepare adds. No module may
// have such itself.
const Reserved = "decant:"

// What Prepare adds to a module.
const (
	hostModule = "decant"

	// YieldModule is what a prepared module imports a function of.
	YieldModule = hostModule

	// YieldName is the function, (meter i64) -> (meter i64). It is called
	// whenever a Meter says so, and returns the next.
	YieldName = "yield"

	// MeterName is the export of a mutable i64: the Meter.
	MeterName = Reserved + "meter"

	// StartName is the export of what was the start function: call it once,
	// before all else, and never after a restore.
	StartName = Reserved + "start"

	// DropName is the export of a function that drops the data segments whose
	// flags (DroppedName) are set: call it after those were restored.
	DropName = Reserved + "drop"
)

// GlobalName is the export of a mutable global, by its index.
func GlobalName(index uint32) string { return fmt.Sprintf("%sglobal:%d", Reserved, index) }

// DroppedName is the export of an i32 that is 1 once a data segment is dropped.
func DroppedName(segment uint32) string { return fmt.Sprintf("%sdropped:%d", Reserved, segment) }

// Meter is what a prepared module counts down: fuel in its upper half, bytes of
// stack in its lower, each signed. Where one is negative the module yields.
type Meter int64

// NewMeter returns a meter with so much fuel and stack.
func NewMeter(fuel, stack int32) Meter { return Meter(int64(fuel)<<32 + int64(stack)) }

// Fuel returns the fuel that is left.
func (m Meter) Fuel() int32 { return int32((int64(m) - int64(m.Stack())) >> 32) } //nolint:gosec // its upper half

// Stack returns the bytes of stack that are left.
func (m Meter) Stack() int32 { return int32(m) } //nolint:gosec // its lower half

// The sign bits of a meter.
const (
	fuelSign  = -1 << 63
	stackSign = 1 << 31
)

// fuel is what to take from a meter for so much fuel.
func fuel(n int64) int64 { return n << 32 }

// Prepared is a module as a host runs it.
type Prepared struct {
	Description
	Binary    []byte   // the rewritten module
	Globals   []uint32 // its mutable globals: what a snapshot has to hold besides memory
	Dropped   []uint32 // the data segments that it may drop
	Starts    bool     // it has a start function
	Unmovable string   // why no snapshot of it can be taken; "" if one can
}

// maxDropped bounds for how many data segments there are flags.
const maxDropped = 1000

// Prepare checks a module against limits and rewrites it: it counts fuel and
// stack in its Meter, does not start by itself, and exports what a snapshot
// needs. Its answers stay the same to the bit, and so do the numbers of its
// functions but for one more import, of its types, globals and locals.
//
// Invalid: the module is beyond the limits, or cannot be read, or names what is
// not there. Whether it is valid otherwise is for the compiler to see.
func Prepare(binary []byte, limits Limits) (*Prepared, error) {
	m, err := read(binary, limits)
	if err != nil {
		return nil, err
	}
	p := &preparer{module: m, most: limits.Elements, prices: m.prices(), meter: length(len(m.globals)), yield: length(m.imported), helpers: map[uint32]uint32{}, typeIndex: map[string]uint32{}}
	p.numberFlags()
	out, err := p.assemble(binary)
	if err != nil {
		return nil, err
	}
	return &Prepared{Description: m.Description, Binary: out, Globals: p.mutable(), Dropped: p.droppable, Starts: m.start != nil, Unmovable: m.movable()}, nil
}

// preparer rewrites one module.
type preparer struct {
	*module
	most      int               // elements of segments
	prices    []price           // of each function
	meter     uint32            // the global
	yield     uint32            // the function
	droppable []uint32          // data segments with a flag
	flags     map[uint32]uint32 // their globals

	addedTypes     [][]byte
	typeIndex      map[string]uint32 // of the added types
	addedFunctions [][]byte          // their code
	addedTypeOf    []uint32          // their types
	helpers        map[uint32]uint32 // of the instructions that they replace
	function       FunctionType      // of the function that is being rewritten
}

// numberFlags gives each data segment that may be dropped a global.
func (p *preparer) numberFlags() {
	for i, dropped := range p.dropped {
		if dropped {
			p.droppable = append(p.droppable, length(i))
		}
	}
	if len(p.droppable) > maxDropped {
		p.unmovable(fmt.Sprintf("it drops %d data segments: %d at most", len(p.droppable), maxDropped))
		p.droppable = nil
	}
	p.flags = map[uint32]uint32{}
	for i, segment := range p.droppable {
		p.flags[segment] = p.meter + 1 + length(i)
	}
}

// mutable returns the mutable globals of the module's own that hold numbers.
func (p *preparer) mutable() []uint32 {
	var out []uint32
	for i, g := range p.globals[p.importedGlobals:] {
		if g.mutable && g.number() {
			out = append(out, length(p.importedGlobals+i))
		}
	}
	return out
}

// newIndex returns the number of a function once one more is imported.
func (p *preparer) newIndex(function uint32) uint32 {
	if function < p.yield {
		return function
	}
	return function + 1
}

// addType returns a type that is added, whether the module has such a one or not.
func (p *preparer) addType(params, results string) uint32 {
	t := appendVector([]byte{0x60}, len(params), []byte(params))
	t = appendVector(t, len(results), []byte(results))
	index, ok := p.typeIndex[string(t)]
	if !ok {
		index = length(len(p.types) + len(p.addedTypes))
		p.addedTypes, p.typeIndex[string(t)] = append(p.addedTypes, t), index
	}
	return index
}

// addFunction adds a function with this type and code, and returns its number.
func (p *preparer) addFunction(typeOf uint32, code []byte) uint32 {
	p.addedTypeOf = append(p.addedTypeOf, typeOf)
	p.addedFunctions = append(p.addedFunctions, code)
	return length(len(p.functions) + len(p.addedFunctions))
}

// resultType returns the type of a block that has a function's results.
func (p *preparer) resultType(of FunctionType) []byte {
	switch len(of.Results) {
	case 0:
		return []byte{emptyBlock}
	case 1:
		return of.Results
	}
	return appendS64(nil, int64(p.addType("", string(of.Results))))
}

// part is a section, or what is left of one.
type part struct {
	id   byte
	body *reader
}

// assemble puts the new module together.
func (p *preparer) assemble(binary []byte) ([]byte, error) {
	var parts []part
	sections, named := [len(order) + 1]*reader{}, false
	for r := (&reader{b: binary, at: 8}); !r.done(); {
		id := r.byte()
		body := r.take(r.u32())
		if id == sectionCustom {
			if named || (&reader{b: body.b}).name() != "name" {
				continue // nothing else is of use to a compiler, and there may be any number
			}
			named = true
		}
		parts = append(parts, part{id, body})
		sections[id] = body
	}
	for _, id := range order { // what is added may need a section that was not there
		if sections[id] == nil {
			sections[id] = &reader{}
			parts = insert(parts, part{id, sections[id]})
		}
	}
	// The code comes first: what it needs is in the sections before it.
	code := p.code(sections[sectionCode], len(binary))
	yieldType := p.addType("\x7e", "\x7e")
	drop := p.drop()
	code = p.addedCode(code)
	out := append(make([]byte, 0, len(binary)+len(code)+1<<20), binary[:8]...)
	for _, s := range parts {
		out = p.section(out, s, code, yieldType, drop)
		if s.body.err != nil {
			return nil, s.body.err
		}
	}
	return out, nil
}

// insert puts a section where it belongs.
func insert(parts []part, s part) []part {
	for i, other := range parts {
		if other.id != sectionCustom && bytes.IndexByte(order[:], other.id) > bytes.IndexByte(order[:], s.id) {
			return slices.Insert(parts, i, s)
		}
	}
	return append(parts, s)
}

// section appends a section, if there is anything in it.
func (p *preparer) section(out []byte, s part, code []byte, yieldType uint32, drop *uint32) []byte {
	var content []byte
	switch s.id {
	case sectionCustom:
		content = p.custom(s.body)
	case sectionType:
		content = extended(s.body, len(p.addedTypes), bytes.Join(p.addedTypes, nil))
	case sectionImport:
		added := append(appendName(appendName(nil, YieldModule), YieldName), kindFunction)
		content = extended(s.body, 1, appendU32(added, yieldType))
	case sectionFunction:
		var added []byte
		for _, t := range p.addedTypeOf {
			added = appendU32(added, t)
		}
		content = extended(s.body, len(p.addedTypeOf), added)
	case sectionGlobal:
		content = p.globalSection(s.body)
	case sectionExport:
		content = p.exports(s.body, drop)
	case sectionElement:
		content = p.elements(s.body)
	case sectionCode:
		content = code
	case sectionStart: // it is an export now
	default:
		content = s.body.b
	}
	if len(content) == 0 {
		return out
	}
	return appendVector(append(out, s.id), len(content), content)
}

// extended appends elements to a section that is a vector.
func extended(r *reader, n int, added []byte) []byte {
	if r.done() && n == 0 {
		return nil
	}
	have := uint32(0)
	if !r.done() {
		have = r.u32()
	}
	out := append(appendU32(nil, have+length(n)), r.b[r.at:]...)
	return append(out, added...)
}

// vector copies the number of a section's elements, and each by copyElement.
func vector(r *reader, added int, copyElement func(out []byte) []byte) []byte {
	if r.done() && added == 0 {
		return nil
	}
	n := uint32(0)
	if !r.done() {
		n = r.u32()
	}
	out := appendU32(make([]byte, 0, len(r.b)+len(r.b)/8), n+length(added))
	for ; n > 0 && r.err == nil; n-- {
		out = copyElement(out)
	}
	if !r.done() {
		r.damaged()
	}
	return out
}

// code rewrites the functions of the module.
func (p *preparer) code(r *reader, size int) []byte {
	if r.done() {
		return nil
	}
	r.u32()
	most := size + size/2 + 1<<20 // real modules grow by some percent
	out := make([]byte, 0, most)
	scratch := make([]byte, 0, 64<<10)
	for i, s := range p.surveys {
		f := r.take(r.u32())
		p.function = p.types[p.functions[p.imported+i]]
		b := &body{preparer: p, r: f, out: scratch[:0], survey: s, charged: p.prices[p.imported+i].pays}
		b.stacked = b.charged && p.nests(s)
		b.rewrite()
		r.keep(f.err)
		out = appendVector(out, len(b.out), b.out)
		scratch = b.out
		r.keep(over("what is made of the module has", "bytes", uint64(len(out)), most, ""))
		if r.err != nil {
			break
		}
	}
	return out
}

// nests reports whether a function calls others that may call it again.
func (p *preparer) nests(s survey) bool {
	if !s.calls || s.opaque || s.weight > light {
		return s.calls
	}
	return slices.ContainsFunc(s.callees, func(f uint32) bool { return p.prices[f].pays })
}

// addedCode puts the code of the functions that are added behind the others.
func (p *preparer) addedCode(code []byte) []byte {
	n := len(p.surveys) + len(p.addedFunctions)
	if n == 0 {
		return nil
	}
	out := append(appendU32(make([]byte, 0, len(code)+1024), length(n)), code...)
	for _, f := range p.addedFunctions {
		out = appendVector(out, len(f), f)
	}
	return out
}

func (p *preparer) globalSection(r *reader) []byte {
	out := vector(r, 1+len(p.droppable), func(out []byte) []byte {
		start := r.at
		r.skip(2) // its type
		return p.constant(append(out, r.b[start:r.at]...), r)
	})
	out = append(out, typeI64, 1, opI64Const, 0, opEnd)
	for range p.droppable {
		out = append(out, typeI32, 1, opI32Const, 0, opEnd)
	}
	return out
}

// constant copies a constant expression.
func (p *preparer) constant(out []byte, r *reader) []byte {
	for r.err == nil {
		ins := r.instruction()
		if ins.op == opRefFunc {
			out = append(out, op(opRefFunc, p.known(r, ins.index))...)
			continue
		}
		out = append(out, r.b[ins.start:r.at]...)
		if ins.op == opEnd {
			break
		}
	}
	return out
}

// known returns the new number of a function that there must be.
func (p *preparer) known(r *reader, function uint32) uint32 {
	if int64(function) >= int64(len(p.functions)) && r.err == nil {
		r.fail(decant.Errorf(decant.Invalid, "there is no function %d: it is named before byte %d, and there are %d", function, r.off+r.at, len(p.functions)))
	}
	return p.newIndex(function)
}

func (p *preparer) exports(r *reader, drop *uint32) []byte {
	var added []byte
	n := 0
	add := func(name string, kind byte, index uint32) {
		added = appendU32(append(appendName(added, name), kind), index)
		n++
	}
	add(MeterName, kindGlobal, p.meter)
	for _, i := range p.mutable() {
		add(GlobalName(i), kindGlobal, i)
	}
	for _, segment := range p.droppable {
		add(DroppedName(segment), kindGlobal, p.flags[segment])
	}
	if p.start != nil {
		add(StartName, kindFunction, p.newIndex(*p.start))
	}
	if drop != nil {
		add(DropName, kindFunction, *drop)
	}
	return append(vector(r, n, func(out []byte) []byte {
		out = appendName(out, r.name())
		kind := r.byte()
		index := r.u32()
		if kind == kindFunction {
			index = p.newIndex(index)
		}
		return appendU32(append(out, kind), index)
	}), added...)
}

func (p *preparer) elements(r *reader) []byte {
	total := uint64(0)
	return vector(r, 0, func(out []byte) []byte {
		const passive, explicit, expressions = 1, 2, 4
		flags := r.u32()
		if flags > 7 {
			r.damaged()
		}
		out = appendU32(out, flags)
		if flags&passive == 0 {
			if flags&explicit != 0 {
				out = appendU32(out, r.u32()) // the table
			}
			out = p.constant(out, r)
		}
		if flags&(passive|explicit) != 0 {
			out = append(out, r.byte()) // what the elements are
		}
		n := r.u32()
		total += uint64(n)
		r.keep(over("the module's segments have", "elements", total, p.most, ""))
		out = appendU32(out, n)
		for ; n > 0 && r.err == nil; n-- {
			if flags&expressions != 0 {
				out = p.constant(out, r)
			} else {
				out = appendU32(out, p.known(r, r.u32()))
			}
		}
		return out
	})
}

// custom copies the name section, the only custom one that is kept; nothing of one
// that is damaged, since it does not matter.
func (p *preparer) custom(r *reader) []byte {
	out := appendName(nil, r.name())
	if content := p.names(r); r.err == nil {
		return append(out, content...)
	}
	r.err = nil
	return nil
}

// names copies what of the name section is of use: the names of the module and of
// its functions. They are all in the error of a trap, so there is one for each
// function at most, and none is long.
func (p *preparer) names(r *reader) []byte {
	const module, functions = 0, 1
	var out []byte
	for !r.done() {
		id := r.byte()
		sub := r.take(r.u32())
		var content []byte
		switch id {
		case module:
			content = appendName(nil, shortName(sub.name()))
		case functions:
			content = p.functionNames(sub)
		default:
			continue
		}
		r.keep(sub.err)
		out = appendVector(append(out, id), len(content), content)
	}
	return out
}

func (p *preparer) functionNames(r *reader) []byte {
	var names []byte
	n, next := 0, uint32(0)
	r.each(func(uint32) {
		index, name := r.u32(), r.name()
		if r.err != nil || index < next || int64(index) >= int64(len(p.functions)) {
			return // they come in order
		}
		n, next = n+1, index+1
		names = appendName(appendU32(names, p.newIndex(index)), shortName(name))
	})
	return append(appendU32(nil, length(n)), names...)
}

// shortName returns a name, or as much of it as is worth showing.
func shortName(name string) string {
	const longest = 256
	return strings.ToValidUTF8(name[:min(len(name), longest)], "")
}
