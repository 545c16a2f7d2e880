package wasm

import (
	"fmt"

	"github.com/decant-project/decant"
)

// Limits bound what a module's binary may hold. They are looked at before
// anything is compiled: compilers take memory and time that grow faster than
// some of these, and cannot be stopped. DefaultLimits are several times what
// the largest modules use that are known to us (Go programs of 10 MB, ONNX
// Runtime compiled to WebAssembly).
type Limits struct {
	Size      int // bytes of the module
	Types     int
	Imports   int
	Exports   int
	Functions int
	Globals   int
	Tables    int
	Elements  int // of all tables, to begin with and as far as the module may grow them
	Segments  int // of data and elements
	Name      int // bytes of an import's or export's name

	Body       int // bytes of a function
	Parameters int // of a type
	Results    int // of a type
	Locals     int // of a function
	AllLocals  int // of all functions
	Nesting    int // of blocks
	Blocks     int // of a function
	Work       int // the squares of each function's blocks, added up: a compiler takes some 10 ns for each
	Targets    int // of a br_table
	AllTargets int // of all of a module
}

// DefaultLimits are the limits where a Config has none.
var DefaultLimits = Limits{
	Size:      64 << 20,
	Types:     10_000,
	Imports:   1_000,
	Exports:   10_000,
	Functions: 200_000,
	Globals:   20_000,
	Tables:    16,
	Elements:  2_000_000,
	Segments:  500_000, // Go has 11 for each kB
	Name:      4096,

	Body:       2 << 20,
	Parameters: 256,
	Results:    32,
	Locals:     10_000,
	AllLocals:  2_000_000,
	Nesting:    2_000,
	Blocks:     20_000,
	Work:       1_000_000_000,
	Targets:    50_000,
	AllTargets: 2_000_000,
}

// section numbers.
const (
	sectionType     = 1
	sectionImport   = 2
	sectionFunction = 3
	sectionTable    = 4
	sectionMemory   = 5
	sectionGlobal   = 6
	sectionExport   = 7
	sectionElement  = 9
	sectionCode     = 10
	sectionData     = 11
)

// check refuses a binary that is beyond the limits, or that cannot be read at
// all. Whether it is valid otherwise is for the compiler. Its own time grows
// with the size of the binary, its memory does not.
func check(binary []byte, limits Limits) error {
	if err := over("the module has", "bytes", uint64(len(binary)), limits.Size, ""); err != nil {
		return err
	}
	r := &reader{b: binary}
	r.skip(4) // the magic number, which Compile has looked at
	if v := r.take(4); r.err == nil && string(v.b) != "\x01\x00\x00\x00" {
		return decant.Errorf(decant.Invalid, "this is WebAssembly of version %x, not 1: a component, perhaps", v.b).
			WithHelp("build it as a core module for WASI preview 1 (wasm32-wasip1)")
	}
	c := &checker{Limits: limits}
	for !r.done() && r.err == nil {
		id := r.byte()
		body := r.take(r.u32())
		if r.err == nil {
			c.section(id, body)
			r.err = body.err
		}
	}
	return r.err
}

// checker counts over all sections.
type checker struct {
	Limits
	tables   []growth
	elements uint64
	segments uint64
	locals   uint64
	targets  uint64
	work     uint64
}

// growth is how much a table may grow by.
type growth struct {
	by    uint64
	grown bool // some instruction does
}

// over returns an error where n is more than limit.
func over(who, what string, n uint64, limit int, place string) error {
	if n <= uint64(limit) {
		return nil
	}
	return decant.Errorf(decant.Invalid, "%s %d %s%s: %d at most", who, n, what, place, limit)
}

// count bounds the length of the vector that comes next.
func (c *checker) count(r *reader, what string, limit int) {
	if n := (&reader{b: r.b, at: r.at, off: r.off}).u32(); n > uint32(limit) {
		r.keep(over("the module has", what, uint64(n), limit, ""))
	}
}

func (c *checker) section(id byte, r *reader) {
	switch id {
	case sectionType:
		c.count(r, "types", c.Types)
		r.each(func(i uint32) { c.functionType(r, i) })
	case sectionImport:
		c.count(r, "imports", c.Imports)
		r.each(func(uint32) { c.imported(r) })
	case sectionFunction:
		c.count(r, "functions", c.Functions)
	case sectionTable:
		c.count(r, "tables", c.Tables)
		r.each(func(uint32) { c.table(r) })
	case sectionMemory:
		c.count(r, "memories", 1)
	case sectionGlobal:
		c.count(r, "globals", c.Globals)
	case sectionExport:
		c.count(r, "exports", c.Exports)
		r.each(func(uint32) {
			c.name(r)
			r.byte()
			r.u32()
		})
	case sectionElement, sectionData:
		c.segments += uint64((&reader{b: r.b}).u32())
		r.keep(over("the module has", "segments of data and elements", c.segments, c.Segments, ""))
	case sectionCode:
		c.count(r, "functions", c.Functions)
		r.each(func(i uint32) { c.function(r, i) })
	}
}

// keep keeps an error, if it is one.
func (r *reader) keep(err error) {
	if err != nil {
		r.fail(err)
	}
}

func (c *checker) functionType(r *reader, i uint32) {
	if form := r.byte(); form != 0x60 && r.err == nil {
		r.fail(decant.Errorf(decant.Invalid, "type %d has the form %#02x, which is not of WebAssembly 2.0", i, form))
	}
	for _, part := range []struct {
		what  string
		limit int
	}{{"parameters", c.Parameters}, {"results", c.Results}} {
		n := uint64(0)
		r.each(func(uint32) {
			r.byte()
			n++
		})
		r.keep(over(fmt.Sprintf("type %d has", i), part.what, n, part.limit, ""))
	}
}

func (c *checker) name(r *reader) {
	at := r.off + r.at
	if name := r.name(); len(name) > c.Name {
		r.keep(over("the name", "bytes", uint64(len(name)), c.Name, fmt.Sprintf(" at byte %d", at)))
	}
}

func (c *checker) imported(r *reader) {
	c.name(r)
	c.name(r)
	switch r.byte() {
	case 0x00: // a function
		r.u32()
	case 0x01:
		c.table(r)
	case 0x02: // a memory
		r.limits()
	case 0x03: // a global
		r.byte()
		r.byte()
	default:
		r.damaged()
	}
}

func (c *checker) table(r *reader) {
	r.byte() // the elements' type
	least, most := r.limits()
	c.tables = append(c.tables, growth{by: uint64(max(least, most) - least)})
	c.elements += uint64(least)
	r.keep(over("the module's tables have", "elements", c.elements, c.Elements, ""))
}

// grow counts what an instruction may make of a table: the host has to hold
// it, whatever memory the guest may have. That the table exists is for the
// compiler to see.
func (c *checker) grow(r *reader, ins instruction) {
	if int64(ins.table) >= int64(len(c.tables)) || c.tables[ins.table].grown {
		return
	}
	t := &c.tables[ins.table]
	t.grown = true
	c.elements += t.by
	who := fmt.Sprintf("with the table.grow of table %d at byte %d the module's tables may have", ins.table, ins.at)
	r.keep(over(who, "elements", c.elements, c.Elements, " for want of a lower maximum"))
}

// function checks a body of the code section, the i-th.
func (c *checker) function(r *reader, i uint32) {
	size := r.u32()
	who := fmt.Sprintf("function %d of the code has", i)
	r.keep(over(who, "bytes", uint64(size), c.Body, ""))
	body := r.take(size)
	locals := uint64(0)
	body.each(func(uint32) {
		locals += uint64(body.u32())
		body.byte()
	})
	c.locals += locals
	body.keep(over(who, "locals", locals, c.Locals, ""))
	body.keep(over("the module's functions have", "locals", c.locals, c.AllLocals, fmt.Sprintf(" up to function %d", i)))
	c.expression(body, who)
	r.keep(body.err)
}

// expression checks the instructions of a function.
func (c *checker) expression(r *reader, who string) {
	depth, blocks := 0, uint64(0)
	for !r.done() {
		switch ins := r.instruction(); ins.op {
		case opBlock, opLoop, opIf:
			depth++
			blocks++
			if depth > c.Nesting {
				r.keep(over(who, "blocks in one another", uint64(depth), c.Nesting, fmt.Sprintf(" at byte %d", ins.at)))
			}
		case opEnd:
			depth--
		case opMisc:
			if ins.sub == subTableGrow {
				c.grow(r, ins)
			}
		case opBrTable:
			c.targets += uint64(ins.targets)
			r.keep(over(who, "targets", uint64(ins.targets), c.Targets, fmt.Sprintf(" in the br_table at byte %d", ins.at)))
			r.keep(over("the module's br_tables have", "targets", c.targets, c.AllTargets, ""))
		}
	}
	c.work += blocks * blocks
	r.keep(over(who, "blocks", blocks, c.Blocks, ""))
	r.keep(over("the module's functions have, each squared and all together,", "blocks", c.work, c.Work, ""))
}
