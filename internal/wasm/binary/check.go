// Package binary reads and rewrites the binaries of modules (WebAssembly 2.0,
// chapter 5) before anything compiles them. Prepare refuses what is beyond the
// limits, and makes of the rest modules that count what they do, can be stopped
// by that, and show all that a snapshot needs. It is pure: bytes in, bytes
// or an error out, in time that grows with the size of the bytes and no more.
package binary

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/decant-project/decant"
)

// Limits bound what a module's binary may hold. They are looked at before
// anything is compiled: compilers take memory and time that grow faster than
// some of these, and cannot be stopped. DefaultLimits are several times what
// the largest modules use that are known to us (Go programs of 10 MB, ONNX
// Runtime compiled to WebAssembly).
type Limits struct {
	Size      int `json:"bytes,omitempty"` // bytes of the module
	Types     int `json:"types,omitempty"`
	Imports   int `json:"imports,omitempty"`
	Exports   int `json:"exports,omitempty"`
	Functions int `json:"functions,omitempty"`
	Globals   int `json:"globals,omitempty"`
	Tables    int `json:"tables,omitempty"`
	Elements  int `json:"elements,omitempty"` // of all tables, to begin with and as far as the module may grow them
	Segments  int `json:"segments,omitempty"` // of data and elements
	Name      int `json:"name,omitempty"`     // bytes of an import's or export's name

	Code       int `json:"code,omitempty"`        // bytes of all functions
	Body       int `json:"body,omitempty"`        // bytes of a function
	Parameters int `json:"parameters,omitempty"`  // of a type
	Results    int `json:"results,omitempty"`     // of a type
	Locals     int `json:"locals,omitempty"`      // of a function
	AllLocals  int `json:"all-locals,omitempty"`  // of all functions
	Nesting    int `json:"nesting,omitempty"`     // of blocks
	Blocks     int `json:"blocks,omitempty"`      // of a function
	Work       int `json:"work,omitempty"`        // the squares of each function's blocks, added up: a compiler takes some 10 ns for each
	Targets    int `json:"targets,omitempty"`     // of a br_table
	AllTargets int `json:"all-targets,omitempty"` // of all of a module
}

// Interpreted are the limits where modules are interpreted: a process makes of them
// what its interpreter runs, which takes fifty times the size of their code, in
// itself.
var Interpreted = DefaultLimits.Tightened(Limits{Code: 8 << 20, Body: 256 << 10})

// NamedLimits returns limits by their names in JSON. Invalid: there is no such
// limit.
func NamedLimits(named map[string]int) (l Limits, err error) {
	data, err := json.Marshal(named)
	if err != nil {
		return l, err
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&l); err != nil {
		return l, decant.Errorf(decant.Invalid, "limits of a module: %w", err).WithHelp("docs/devices.md names them")
	}
	return l, nil
}

// Tightened returns the limits with those of other that are set and lower.
func (l Limits) Tightened(other Limits) Limits {
	to, by := reflect.ValueOf(&l).Elem(), reflect.ValueOf(other)
	for i := range to.NumField() {
		if limit := by.Field(i).Int(); limit > 0 && limit < to.Field(i).Int() {
			to.Field(i).SetInt(limit)
		}
	}
	return l
}

// DefaultLimits are the limits where a Config has none.
var DefaultLimits = Limits{
	Size:      64 << 20,
	Types:     4_000, // the engine never forgets one
	Imports:   1_000,
	Exports:   10_000,
	Functions: 200_000,
	Globals:   20_000,
	Tables:    16,
	Elements:  400_000, // what table.copy moves in one go
	Segments:  500_000, // Go has 11 for each kB
	Name:      4096,

	Code:       64 << 20,
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

const magic = "\x00asm"

// read refuses a binary that is beyond the limits, or that cannot be read, and
// gathers what Prepare has to know of it.
func read(binary []byte, limits Limits) (*module, error) {
	if !bytes.HasPrefix(binary, []byte(magic)) {
		return nil, decant.Errorf(decant.Invalid, "this is not a WebAssembly module: it does not begin with \\0asm")
	}
	if err := over("the module has", "bytes", uint64(len(binary)), limits.Size, ""); err != nil {
		return nil, err
	}
	r := &reader{b: binary}
	r.skip(uint32(len(magic)))
	if v := r.take(4); r.err == nil && string(v.b) != "\x01\x00\x00\x00" {
		return nil, decant.Errorf(decant.Invalid, "this is WebAssembly of version %x, not 1: a component, perhaps", v.b).
			WithHelp("build it as a core module for WASI preview 1 (wasm32-wasip1)")
	}
	c := &checker{Limits: limits, module: &module{}}
	for !r.done() && r.err == nil {
		at := r.at
		id := r.byte()
		body := r.take(r.u32())
		if r.err == nil {
			r.keep(c.inOrder(id, at))
			c.section(id, body)
			if !body.done() && id != sectionCustom && id != sectionElement && id != sectionData {
				body.damaged()
			}
			r.keep(body.err)
		}
	}
	r.keep(c.whole())
	c.Uses = c.uses(len(binary))
	return c.module, r.err
}

// checker counts over all sections.
type checker struct {
	Limits
	*module
	last     int // the order of the section before
	tables   []growth
	elements uint64
	segments uint64
	locals   uint64
	targets  uint64
	work     uint64
	code     int // bytes of all functions
	largest  int // bytes of a function
	blocks   int // most of a function
}

// growth is how much a table may grow by.
type growth struct {
	by    uint64
	grown bool // some instruction does
}

// order is in which order sections come; custom ones may be anywhere.
var order = [...]byte{
	sectionType, sectionImport, sectionFunction, sectionTable, sectionMemory, sectionGlobal,
	sectionExport, sectionStart, sectionElement, sectionDataCount, sectionCode, sectionData,
}

// inOrder refuses a section that was there before, or comes too late.
func (c *checker) inOrder(id byte, at int) error {
	if id == sectionCustom {
		return nil
	}
	place := bytes.IndexByte(order[:], id) + 1
	if place == 0 {
		return decant.Errorf(decant.Invalid, "section %d at byte %d is not of WebAssembly 2.0", id, at)
	}
	if place <= c.last {
		return decant.Errorf(decant.Invalid, "section %d at byte %d is out of order", id, at)
	}
	c.last = place
	return nil
}

// uses says how near the module comes to the limits that tell most of it.
func (c *checker) uses(size int) []Use {
	return []Use{
		{"bytes", size, c.Size},
		{"imports", len(c.module.Imports), c.Imports},
		{"exports", len(c.module.Exports), c.Exports},
		{"functions", len(c.functions), c.Functions},
		{"globals", len(c.globals), c.Globals},
		{"segments of data and elements", int(c.segments), c.Segments}, //nolint:gosec // within its limit
		{"bytes of all functions", c.code, c.Code},
		{"bytes of the largest function", c.largest, c.Body},
		{"most blocks of a function", c.blocks, c.Blocks},
		{"blocks, each function's squared", int(c.work), c.Work}, //nolint:gosec // within its limit
	}
}

// whole refuses a module whose functions and their code do not match.
func (c *checker) whole() error {
	if defined := len(c.functions) - c.imported; defined != len(c.surveys) {
		return decant.Errorf(decant.Invalid, "the module declares %d functions and has code for %d", defined, len(c.surveys))
	}
	return nil
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
	case sectionCustom:
		if !utf8.ValidString(r.name()) {
			r.damaged()
		}
	case sectionType:
		c.count(r, "types", c.Types)
		r.each(func(i uint32) { c.functionType(r, i) })
	case sectionImport:
		c.count(r, "imports", c.Imports)
		r.each(func(uint32) { c.importOf(r) })
	case sectionFunction:
		c.count(r, "functions", c.Functions)
		r.each(func(uint32) { c.functions = append(c.functions, c.inRange(r, "type", r.u32(), len(c.types))) })
	case sectionTable:
		c.count(r, "tables", c.Tables)
		r.each(func(uint32) { c.table(r) })
	case sectionMemory:
		c.count(r, "memories", 1)
		r.each(func(uint32) { c.memory(r) })
	case sectionGlobal:
		c.count(r, "globals", c.Globals)
		r.each(func(uint32) {
			c.globalType(r)
			c.constant(r)
		})
	case sectionExport:
		c.count(r, "exports", c.Exports)
		r.each(func(uint32) { c.export(r) })
	case sectionStart:
		start := c.inRange(r, "function", r.u32(), len(c.functions))
		if r.err == nil && c.types[c.functions[start]].values() > 0 {
			r.fail(decant.Errorf(decant.Invalid, "the start function %d has parameters or results", start))
		}
		c.pass("the start function", start)
		c.start = &start
	case sectionDataCount:
		c.count(r, "data segments", c.Segments)
		c.dropped = make([]bool, r.u32())
	case sectionElement, sectionData:
		n := &reader{b: r.b, off: r.off}
		c.segments += uint64(n.u32())
		r.keep(n.err)
		r.keep(over("the module has", "segments of data and elements", c.segments, c.Segments, ""))
	case sectionCode:
		c.code = len(r.b)
		r.keep(over("the module's functions have", "bytes", uint64(c.code), c.Code, ""))
		c.count(r, "functions", c.Functions)
		r.each(func(i uint32) { c.function(r, i) })
	}
}

// inRange refuses the index of something that is not there. Prepare adds
// functions, globals and locals of its own: nothing may name them by chance.
func (c *checker) inRange(r *reader, what string, index uint32, count int) uint32 {
	if int64(index) >= int64(count) && r.err == nil {
		r.fail(decant.Errorf(decant.Invalid, "there is no %s %d: it is named before byte %d, and there are %d", what, index, r.off+r.at, count))
	}
	return index
}

// pass notes a function that the module imports where its own belong.
func (c *checker) pass(as string, function uint32) {
	if int64(function) < int64(c.imported) {
		c.Passed = append(c.Passed, as)
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
	var t FunctionType
	for _, part := range []struct {
		what  string
		limit int
		of    *[]byte
	}{{"parameters", c.Parameters, &t.Params}, {"results", c.Results, &t.Results}} {
		n := r.u32()
		r.keep(over(fmt.Sprintf("type %d has", i), part.what, uint64(n), part.limit, ""))
		*part.of = r.take(n).b
	}
	c.types = append(c.types, t)
}

func (c *checker) name(r *reader) string {
	at := r.off + r.at
	name := r.take(r.u32()).b
	r.keep(over("the name", "bytes", uint64(len(name)), c.Name, fmt.Sprintf(" at byte %d", at)))
	return string(name)
}

func (c *checker) importOf(r *reader) {
	i := Import{Module: c.name(r), Name: c.name(r)}
	if i.Module == hostModule && r.err == nil {
		r.fail(decant.Errorf(decant.Invalid, "the module imports from %q, a name that is kept for what is added to modules", hostModule))
	}
	kind := r.byte()
	switch kind {
	case kindFunction:
		t := c.inRange(r, "type", r.u32(), len(c.types))
		c.functions = append(c.functions, t)
		c.imported++
		if r.err == nil {
			i.Function = c.types[t]
		}
	case kindTable:
		c.table(r)
		c.unmovable("it imports a table")
	case kindMemory:
		c.memory(r)
		c.unmovable("it imports its memory")
	case kindGlobal:
		if g := c.globalType(r); g.mutable {
			c.unmovable("it imports a mutable global")
		}
		c.importedGlobals++
	default:
		r.damaged()
		return
	}
	i.Kind = kinds[kind]
	c.module.Imports = append(c.module.Imports, i)
}

func (c *checker) memory(r *reader) {
	const page, all = 64 << 10, 1 << 32
	least, most := r.limits()
	c.Memory = &Memory{Least: uint64(least) * page, Most: min(uint64(most)*page, all)}
}

func (c *checker) globalType(r *reader) global {
	g := global{valueType: r.byte()}
	switch r.byte() {
	case 0:
	case 1:
		g.mutable = true
	default:
		r.damaged()
	}
	c.globals = append(c.globals, g)
	return g
}

func (c *checker) export(r *reader) {
	e := Export{Name: c.name(r)}
	if strings.HasPrefix(e.Name, Reserved) && r.err == nil {
		r.fail(decant.Errorf(decant.Invalid, "the module exports %q: names that begin with %q are kept for what is added to modules", e.Name, Reserved))
	}
	kind := r.byte()
	index := r.u32()
	switch kind {
	case kindFunction:
		c.pass("the export "+strconv.Quote(e.Name[:min(len(e.Name), 100)]), index)
		if c.inRange(r, "function", index, len(c.functions)); r.err == nil {
			e.Function = c.types[c.functions[index]]
		}
	case kindGlobal:
		c.inRange(r, "global", index, len(c.globals))
	case kindTable, kindMemory:
	default:
		r.damaged()
		return
	}
	e.Kind = kinds[kind]
	c.module.Exports = append(c.module.Exports, e)
}

// constant reads a constant expression.
func (c *checker) constant(r *reader) {
	for r.err == nil {
		switch ins := r.instruction(); ins.op {
		case opEnd:
			return
		case opRefFunc:
			c.inRange(r, "function", ins.index, len(c.functions))
		case opGlobalGet:
			c.inRange(r, "global", ins.index, len(c.globals))
		}
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
	if int64(ins.index) >= int64(len(c.tables)) || c.tables[ins.index].grown {
		return
	}
	t := &c.tables[ins.index]
	t.grown = true
	c.elements += t.by
	who := fmt.Sprintf("with the table.grow of table %d at byte %d the module's tables may have", ins.index, ins.at)
	r.keep(over(who, "elements", c.elements, c.Elements, " for want of a lower maximum"))
}

// function checks a body of the code section, the i-th.
func (c *checker) function(r *reader, i uint32) {
	size := r.u32()
	who := fmt.Sprintf("function %d of the code has", i)
	r.keep(over(who, "bytes", uint64(size), c.Body, ""))
	body := r.take(size)
	if int(i) >= len(c.functions)-c.imported {
		r.fail(decant.Errorf(decant.Invalid, "the module has code for more functions than it declares, which are %d", i))
		return
	}
	locals := uint64(0)
	body.each(func(uint32) {
		locals += uint64(body.u32())
		body.byte()
	})
	c.locals += locals
	body.keep(over(who, "locals", locals, c.Locals, ""))
	body.keep(over("the module's functions have", "locals", c.locals, c.AllLocals, fmt.Sprintf(" up to function %d", i)))
	c.largest = max(c.largest, int(size))
	// An interpreter sets each local to zero. Few functions have more than these.
	const freeLocals = 32
	entry := uint32(max(locals, freeLocals) - freeLocals)                                                                                          //nolint:gosec // bounded above
	s := survey{weight: entry, outside: entry, entry: entry, locals: uint32(locals) + uint32(len(c.types[c.functions[c.imported+int(i)]].Params))} //nolint:gosec // bounded above
	c.expression(body, who, &s)
	c.surveys = append(c.surveys, s)
	r.keep(body.err)
}

// expression checks the instructions of a function and surveys them.
func (c *checker) expression(r *reader, who string, s *survey) {
	depth, blocks := 1, uint64(0)
	loop := 0 // the depth of the outermost loop around, 0 for none
	for !r.done() {
		ins := r.instruction()
		c.survey(r, ins, loop > 0, s)
		switch ins.op {
		case opBlock, opLoop, opIf:
			depth++
			blocks++
			if ins.op == opLoop && loop == 0 {
				loop = depth
			}
			if depth > c.Nesting+1 {
				r.keep(over(who, "blocks in one another", uint64(depth-1), c.Nesting, fmt.Sprintf(" at byte %d", ins.at)))
			}
			if ins.index != plainBlock {
				c.inRange(r, "type", ins.index, len(c.types))
			}
		case opEnd:
			if depth--; depth == 0 && !r.done() {
				r.damaged()
			}
			if depth < loop {
				loop = 0
			}
		case opBr, opBrIf:
			c.inRange(r, "label", ins.index, depth)
		case opBrTable:
			c.inRange(r, "label", ins.index, depth)
			c.targets += uint64(ins.targets)
			r.keep(over(who, "targets", uint64(ins.targets), c.Targets, fmt.Sprintf(" in the br_table at byte %d", ins.at)))
			r.keep(over("the module's br_tables have", "targets", c.targets, c.AllTargets, ""))
		case opMisc:
			if ins.sub == subTableGrow {
				c.grow(r, ins)
			}
		}
	}
	if depth != 0 {
		r.damaged()
	}
	c.work += blocks * blocks
	c.blocks = max(c.blocks, int(blocks)) //nolint:gosec // fewer than bytes
	r.keep(over(who, "blocks", blocks, c.Blocks, ""))
	r.keep(over("the module's functions have, each squared and all together,", "blocks", c.work, c.Work, ""))
}
