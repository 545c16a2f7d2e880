package binary

import (
	"fmt"
	"math"
)

// Numbers of sections.
const (
	sectionCustom    = 0
	sectionType      = 1
	sectionImport    = 2
	sectionFunction  = 3
	sectionTable     = 4
	sectionMemory    = 5
	sectionGlobal    = 6
	sectionExport    = 7
	sectionStart     = 8
	sectionElement   = 9
	sectionCode      = 10
	sectionData      = 11
	sectionDataCount = 12
)

// Kinds of imports and exports.
const (
	kindFunction = 0
	kindTable    = 1
	kindMemory   = 2
	kindGlobal   = 3
)

var kinds = [...]string{kindFunction: "function", kindTable: "table", kindMemory: "memory", kindGlobal: "global"}

// Value types.
const (
	typeI32 = 0x7f
	typeI64 = 0x7e
	typeF32 = 0x7d
	typeF64 = 0x7c
)

// Description is what a module says of itself.
type Description struct {
	Imports []Import
	Exports []Export
	Passed  []string // the exports, and the start, that are functions which it imports
	Memory  *Memory  // nil without one
	Uses    []Use
}

// Use is how much there is of what is limited.
type Use struct {
	What      string
	Has, Most int
}

// Import is something that a module needs. Function is its type if it is one.
type Import struct {
	Module, Name string
	Kind         string // function, table, memory or global
	Function     FunctionType
}

// String names the import, and says what it is if that is not a function.
func (i Import) String() string {
	if i.Kind == kinds[kindFunction] {
		return i.Module + "." + i.Name
	}
	return i.Module + "." + i.Name + " (a " + i.Kind + ")"
}

// Export is something that a module shows. Function is its type if it is one.
type Export struct {
	Name     string
	Kind     string // function, table, memory or global
	Function FunctionType
}

// Function returns the type of a function that is exported under a name.
func (d Description) Function(name string) (FunctionType, bool) {
	for _, e := range d.Exports {
		if e.Name == name && e.Kind == kinds[kindFunction] {
			return e.Function, true
		}
	}
	return FunctionType{}, false
}

// FunctionType is what a function takes and gives, each a value type as binaries
// have it: 0x7f is an i32.
type FunctionType struct{ Params, Results []byte }

func (t FunctionType) values() uint32 { return uint32(len(t.Params) + len(t.Results)) }

// Memory is how much memory a module begins with, and may grow to, in bytes.
type Memory struct{ Least, Most uint64 }

// module is what read gathers of a module.
type module struct {
	Description
	types           []FunctionType
	functions       []uint32 // their types, the imported ones first
	imported        int      // how many functions are imported
	globals         []global // the imported ones first
	importedGlobals int
	start           *uint32
	surveys         []survey // of the functions that are not imported
	dropped         []bool   // of each data segment: some data.drop names it
	why             string   // it is not movable
}

type global struct {
	valueType byte
	mutable   bool
}

// number reports whether the global holds a number.
func (g global) number() bool { return g.valueType >= typeF64 && g.valueType <= typeI32 }

// survey is what a function's code amounts to.
type survey struct {
	weight       uint32   // of all its instructions, as weigh has it
	instructions uint32   //
	locals       uint32   // the parameters included
	passed       uint32   // parameters and results of its calls
	entry        uint32   // what it costs to begin it
	loops        bool     //
	outside      uint32   // the weight of what is outside loops
	calls        bool     // functions of the module, by name or through a table
	callsOutside bool     // also outside loops
	opaque       bool     // its weight says little of the time that it takes
	callees      []uint32 // as long as it is light
}

// light is the weight up to which a function without loops, with all that it
// calls, costs its callers so much and charges nothing itself. What a caller
// does not know may be that much.
const light = 100

// survey counts an instruction, and looks at what it names.
func (c *checker) survey(r *reader, ins instruction, inLoop bool, s *survey) {
	s.weight += c.weigh(ins)
	s.instructions++
	if !inLoop {
		s.outside += c.weigh(ins)
	}
	switch ins.op {
	case opLocalGet, opLocalSet, opLocalTee:
		c.inRange(r, "local", ins.index, int(s.locals))
	case opGlobalGet, opGlobalSet:
		c.inRange(r, "global", ins.index, len(c.globals))
	case opLoop:
		s.loops = true
	case opCall:
		if c.inRange(r, "function", ins.index, len(c.functions)); r.err == nil {
			s.passed += c.types[c.functions[ins.index]].values()
		}
		if int(ins.index) < c.imported {
			s.opaque = true
			break
		}
		s.calls, s.callsOutside = true, s.callsOutside || !inLoop
		if s.weight <= light {
			s.callees = append(s.callees, ins.index)
		}
	case opCallIndirect:
		if c.inRange(r, "type", ins.index, len(c.types)); r.err == nil {
			s.passed += c.types[ins.index].values()
		}
		s.calls, s.callsOutside, s.opaque = true, s.callsOutside || !inLoop, true
	case opRefFunc:
		c.inRange(r, "function", ins.index, len(c.functions))
	case opMemoryGrow:
		s.opaque = true
	case opTableSet:
		c.unmovable("it changes a table")
	case opMisc:
		c.surveyMisc(r, ins, s)
	}
}

func (c *checker) surveyMisc(r *reader, ins instruction, s *survey) {
	switch ins.sub {
	case subTableInit, subTableCopy, subTableGrow, subTableFill:
		s.opaque = true
		c.unmovable("it changes a table")
	case subMemoryInit, subMemoryCopy, subMemoryFill:
		s.opaque = true
	case subDataDrop:
		if c.inRange(r, "data segment", ins.index, len(c.dropped)); r.err == nil {
			c.dropped[ins.index] = true
		}
	}
}

// Weights of instructions that take longer than the others, in the time of one
// of those: a fraction of a nanosecond where they are compiled, some ten where
// they are interpreted.
const (
	weightCall     = 4
	weightHostCall = 100
	weightGrow     = 1000
)

// weigh returns the weight of an instruction, without that of what it calls.
func (m *module) weigh(ins instruction) uint32 {
	switch ins.op {
	case opBlock, opLoop, opIf: // a branch to it moves what it carries
		w := uint32(1)
		if ins.op == opBlock {
			w = 0
		}
		if int64(ins.index) < int64(len(m.types)) {
			w += m.types[ins.index].values()
		}
		return w
	case opNop, opElse, opEnd:
		return 0
	case opCall:
		if int(ins.index) < m.imported {
			return weightHostCall
		}
		return weightCall
	case opCallIndirect:
		return weightCall + light
	case opMemoryGrow:
		return weightGrow
	}
	return 1
}

// unmovable notes the first reason why no snapshot of the module can be taken.
func (m *module) unmovable(why string) {
	if m.why == "" {
		m.why = why
	}
}

// movable returns why the module is not movable: "" where it is.
func (m *module) movable() string {
	for i, g := range m.globals {
		if g.mutable && !g.number() {
			m.unmovable(fmt.Sprintf("its global %d holds a reference or a vector", i))
		}
	}
	return m.why
}

// price is what a function costs.
type price struct {
	callers uint32 // what its callers pay for it
	pays    bool   // it pays for the rest itself
}

// prices returns the price of each function. One that is light, with all that it
// calls, is paid by its callers; of one whose loops pay, they pay what is outside.
func (m *module) prices() []price {
	prices := make([]price, len(m.functions))
	known := make([]bool, len(m.functions))
	for i := range m.imported {
		prices[i].pays, known[i] = true, true
	}
	// Calls of light functions may be as deep as there are functions: Go's stack
	// grows to that, some 16 MB.
	var find func(f, room uint32) price
	find = func(f, room uint32) price {
		if !known[f] {
			if m.surveys[int(f)-m.imported].weight > room {
				return price{pays: true} // for this caller; others may have room
			}
			known[f], prices[f] = true, price{pays: true} // if it calls itself
			prices[f] = m.find(f, find)
		}
		return prices[f]
	}
	for f := range prices {
		find(length(f), math.MaxUint32)
	}
	return prices
}

// find returns the price of a function, by those that of returns within room.
func (m *module) find(f uint32, of func(f, room uint32) price) price {
	s := &m.surveys[int(f)-m.imported]
	if s.loopsPay() {
		return price{callers: s.outside, pays: true}
	}
	if s.loops || s.opaque || s.weight > light {
		return price{pays: true}
	}
	total := max(1, s.weight)
	for _, callee := range s.callees {
		p := of(callee, light-min(light, total))
		if total += p.callers; p.pays || total > light {
			return price{pays: true}
		}
	}
	return price{callers: total}
}

// loopsPay reports whether a function pays in its loops only: nothing is called
// outside them, and what else is there is light.
func (s *survey) loopsPay() bool {
	return s.loops && s.calls && !s.callsOutside && s.outside <= light
}
