package binary

import (
	"fmt"
	"slices"
	"strings"
)

// generator makes a valid module of any bytes, which choose. Where they end it
// chooses what is simplest. Its modules end: each turn of a loop and each call
// takes one from the budget, a global.
type generator struct {
	assembly
	source   []byte
	counting bool // the module counts its own instructions, in the global counter

	// Of the function that is being made.
	signature FunctionType
	labels    []string // the types that a branch to each must bring, the outermost first
	out       []byte
	block     int // where the basic block begins in out
	weight    int // its instructions
}

// The functions of a generated module: one is imported.
var generatedTypes = []FunctionType{
	{},
	{[]byte(i32), []byte(i32)},
	{[]byte(i64 + f64), []byte(f32)},
	{[]byte(i32 + f32), []byte(i64 + i32)},
	{[]byte(v128 + i32), []byte(v128)},
	{[]byte(f64), []byte(f64 + f64 + i32)},
	{nil, []byte(i64)},
}

const (
	allTypes = i32 + i64 + f32 + f64 + v128

	// Globals. There is one of each type of number but v128 from firstGlobal on.
	budget, firstGlobal, constantGlobal, counter = 0, 1, 5, 6

	generatedFunctions = 6
	generatedBudget    = 300
	typeFloats         = f32 + f64
)

// generate makes a module that exports its functions as f0, f1, ..., its
// mutable globals as g0, g1, ..., and its memory.
func generate(source []byte, counting bool) []byte {
	g := &generator{source: source, counting: counting}
	for _, t := range generatedTypes {
		g.types = append(g.types, signature(string(t.Params), string(t.Results)))
	}
	g.imports = []string{importFunction("env", "host", 1)}
	g.memories = []string{"\x01\x01\x03"}
	g.tables = []string{funcref + "\x01\x08\x0c"}
	g.globals = []string{
		variable(i32, i32Of(0)), variable(i32, i32Of(-7)), variable(i64, i64Of(1<<40)),
		variable(f32, constantOf(f32[0], 3)), variable(f64, constantOf(f64[0], 9)), i32 + "\x00" + i32Of(77) + "\x0b",
	}
	if counting {
		g.globals = append(g.globals, variable(i64, i64Of(0)))
		g.exports = append(g.exports, exporting("counter", kindGlobal, counter))
	}
	g.data = []string{active(32, "some bytes to begin with, \xff\x80\x01"), passive("passive data"), passive(strings.Repeat("abc", 40))}
	g.elements = []string{"\x00" + i32Of(1) + "\x0b\x05\x01\x02\x03\x00\x05", "\x01\x00\x03\x04\x00\x06"}
	g.exports = append(g.exports, exporting("memory", kindMemory, 0))
	for i := range firstGlobal + 4 {
		g.exports = append(g.exports, exporting(fmt.Sprintf("g%d", i), kindGlobal, i))
	}
	if g.pick(3) == 1 {
		g.start = num(1)
	}
	types := make([]int, generatedFunctions) // the first may be the start
	for i := 1; i < generatedFunctions; i++ {
		types[i] = g.pick(len(generatedTypes))
	}
	for i, t := range types {
		g.functions = append(g.functions, assembled{typeOf: t})
		g.exports = append(g.exports, exporting(fmt.Sprintf("f%d", i), kindFunction, i+1))
	}
	rest := g.source
	for i := range g.functions { // each has its part of the bytes
		share := len(rest) / (generatedFunctions - i)
		g.source, rest = rest[:share], rest[share:]
		g.function(&g.functions[i])
	}
	return g.bytes()
}

func (g *generator) pick(n int) int {
	if len(g.source) == 0 {
		return 0
	}
	b := int(g.source[0])
	g.source = g.source[1:]
	return b % n
}

// add emits an instruction of a basic block.
func (g *generator) add(code string) {
	g.out = append(g.out, code...)
	g.weight++
}

// control emits an instruction that begins or ends a basic block.
func (g *generator) control(code string) {
	g.out = append(g.out, code...)
	if !strings.ContainsAny(code[:1], "\x02\x05\x0b") {
		g.weight++
	}
	if g.counting && g.weight > 0 {
		g.out = slices.Insert(g.out, g.block, []byte(getGlobal(counter)+i64Of(int64(g.weight))+"\x7c"+setGlobal(counter))...)
	}
	g.block, g.weight = len(g.out), 0
}

// local picks a parameter or a local of a type. Each function has two locals of
// each type behind its parameters; the second ones are kept for canonical.
func (g *generator) local(t byte) int {
	if i := slices.Index(g.signature.Params, t); i >= 0 && g.pick(2) == 1 {
		return i
	}
	return g.own(t)
}

func (g *generator) own(t byte) int {
	return len(g.signature.Params) + 2*strings.IndexByte(allTypes, t)
}

func (g *generator) function(f *assembled) {
	g.signature = generatedTypes[f.typeOf]
	g.out, g.block, g.weight = nil, 0, 0
	g.labels = []string{string(g.signature.Results)}
	g.statements(3)
	g.values(string(g.signature.Results), 3)
	g.control("\x0b")
	f.code = strings.TrimSuffix(string(g.out), "\x0b")
	f.locals = num(len(allTypes))
	for i := range len(allTypes) {
		f.locals += "\x02" + allTypes[i:i+1]
	}
}

func (g *generator) blockType(params, results string) string {
	if params == "" && results == "" {
		return "\x40"
	}
	if params == "" && len(results) == 1 {
		return results
	}
	t := signature(params, results)
	if i := slices.Index(g.types, t); i >= 0 {
		return signed(int64(i))
	}
	g.types = append(g.types, t)
	return signed(int64(len(g.types) - 1))
}

// within emits a block: what branches to it brings label.
func (g *generator) within(begin, label string, content func()) {
	g.control(begin)
	g.labels = append(g.labels, label)
	content()
	g.labels = g.labels[:len(g.labels)-1]
	g.control("\x0b")
}

func (g *generator) drop(types string) {
	for range len(types) {
		g.add("\x1a")
	}
}

func (g *generator) constants(types string) {
	for i := range len(types) {
		g.add(constantOf(types[i], 0))
	}
}

// pay takes one from the budget and emits whether that was one too many.
func (g *generator) pay() {
	for _, code := range []string{getGlobal(budget), i32Of(1), "\x6b", setGlobal(budget), getGlobal(budget), i32Of(0), "\x48"} {
		g.add(code)
	}
}

func (g *generator) statements(depth int) {
	for range 1 + g.pick(6) {
		if len(g.source) == 0 {
			return
		}
		g.statement(depth)
	}
}

func (g *generator) statement(depth int) {
	t := allTypes[g.pick(len(allTypes))]
	n := g.pick(18)
	if depth == 0 {
		n %= 9
	}
	switch n {
	case 0, 1:
		g.value(t, 3)
		g.add(set(g.local(t)))
	case 2:
		if t != v128[0] {
			g.value(t, 3)
			g.add(setGlobal(firstGlobal + strings.IndexByte(allTypes, t)))
		}
	case 3, 4:
		g.address()
		g.value(t, 3)
		g.add(stores[t][g.pick(len(stores[t]))] + "\x00" + num(g.pick(40)))
	case 5:
		g.bulk()
	case 6:
		g.table()
	case 7:
		g.branchIf()
	case 8:
		g.leave()
	case 9, 10:
		g.call(g.pick(1+generatedFunctions), false)
	case 11:
		g.call(g.pick(1+generatedFunctions), true)
	case 12, 13:
		g.loop(depth)
	case 14:
		g.within("\x02\x40", "", func() { g.statements(depth - 1) })
	default:
		g.value(i32[0], 2)
		g.within("\x04\x40", "", func() {
			g.statements(depth - 1)
			if n > 15 {
				g.control("\x05")
				g.statements(depth - 1)
			}
		})
	}
}

// some picks up to two types.
func (g *generator) some() string {
	out := ""
	for range g.pick(3) {
		out += allTypes[g.pick(len(allTypes)):][:1]
	}
	return out
}

func (g *generator) loop(depth int) {
	params, results := g.some(), g.some()
	g.values(params, 2)
	g.within("\x03"+g.blockType(params, results), params, func() {
		g.pay()
		g.within("\x04\x40", "", func() {
			g.constants(string(g.signature.Results))
			g.control("\x0f")
		})
		g.drop(params)
		g.statements(depth - 1)
		if g.pick(4) > 0 {
			g.values(params, 1)
			g.value(i32[0], 2)
			g.control("\x0d\x00") // again, perhaps
			g.drop(params)
		}
		g.values(results, 2)
	})
	g.drop(results)
}

// branchIf leaves a block that is open, under a condition.
func (g *generator) branchIf() {
	to := g.pick(len(g.labels))
	brings := g.labels[len(g.labels)-1-to]
	g.values(brings, 1)
	g.value(i32[0], 2)
	g.control("\x0d" + num(to))
	g.drop(brings)
}

// leave leaves for good: what comes behind it is dead.
func (g *generator) leave() {
	switch g.pick(5) {
	case 0:
		return
	case 1:
		g.control("\x00")
	case 2:
		g.values(string(g.signature.Results), 1)
		g.control("\x0f")
	case 3:
		to := g.pick(len(g.labels))
		g.values(g.labels[len(g.labels)-1-to], 1)
		g.control("\x0c" + num(to))
	case 4:
		brings := g.labels[len(g.labels)-1-g.pick(len(g.labels))]
		var fit []int
		for i, other := range g.labels {
			if other == brings {
				fit = append(fit, len(g.labels)-1-i)
			}
		}
		g.values(brings, 1)
		g.value(i32[0], 2)
		n := g.pick(5)
		table := "\x0e" + num(n)
		for range n + 1 {
			table += num(fit[g.pick(len(fit))])
		}
		g.control(table)
	}
}

// address emits an address that mostly is within the memory.
func (g *generator) address() {
	g.value(i32[0], 1)
	if g.pick(16) != 1 {
		g.add(i32Of(0xfff))
		g.add("\x71")
	}
}

// bulk emits an instruction over a range of memory.
func (g *generator) bulk() {
	n := g.pick(5)
	if n == 4 {
		g.add("\xfc\x09" + num(1+g.pick(2))) // data.drop
		return
	}
	g.address()
	switch n {
	case 0, 1:
		g.value(i32[0], 1)
	default:
		g.address()
	}
	length := []int{0, 1, 9, 100, 60_000, 70_000, 200_000}[g.pick(7)]
	switch n {
	case 0, 1:
		g.add(i32Of(length))
		g.add("\xfc\x0b\x00")
	case 2:
		g.add(i32Of(length))
		g.add("\xfc\x0a\x00\x00")
	case 3:
		g.add("\x1a") // the address within the segment is small
		g.add(i32Of(g.pick(12)))
		g.add(i32Of(g.pick(9)))
		g.add("\xfc\x08" + num(1+g.pick(2)) + "\x00")
	}
}

// table emits an instruction that changes the table.
func (g *generator) table() {
	g.add(i32Of(g.pick(9)))
	switch g.pick(5) {
	case 0:
		g.add("\xd2" + num(g.pick(1+generatedFunctions)))
		g.add("\x26\x00") // table.set
	case 1:
		g.add(i32Of(g.pick(4)))
		g.add(i32Of(g.pick(4)))
		g.add("\xfc\x0c\x01\x00") // table.init
	case 2:
		g.add(i32Of(g.pick(4)))
		g.add(i32Of(g.pick(8)))
		g.add("\xfc\x0e\x00\x00") // table.copy
	case 3:
		g.add("\xd0\x70")
		g.add(i32Of(g.pick(4)))
		g.add("\xfc\x11\x00") // table.fill
	case 4:
		g.add("\x1a")
		g.add("\xfc\x0d\x01") // elem.drop
	}
}

func (g *generator) typeOf(function int) FunctionType {
	if function == 0 {
		return generatedTypes[1]
	}
	return generatedTypes[g.functions[function-1].typeOf]
}

// call calls a function, if the budget allows, and drops what it returns.
func (g *generator) call(function int, indirect bool) {
	t := g.typeOf(function)
	g.callFor(function, t, indirect)
	g.drop(string(t.Results))
}

func (g *generator) callFor(function int, t FunctionType, indirect bool) {
	results := string(t.Results)
	g.pay()
	g.within("\x04"+g.blockType("", results), results, func() {
		g.constants(results)
		g.control("\x05")
		g.values(string(t.Params), 1)
		if indirect {
			g.add(i32Of(g.pick(10)))
			g.add("\x11" + num(slices.IndexFunc(generatedTypes, func(o FunctionType) bool {
				return string(o.Params) == string(t.Params) && string(o.Results) == results
			})) + "\x00")
		} else {
			g.add(callOf(function))
		}
	})
}

func (g *generator) values(types string, depth int) {
	for i := range len(types) {
		g.value(types[i], depth)
	}
}

// value emits what leaves a value of a type on the stack.
func (g *generator) value(t byte, depth int) {
	n := g.pick(16)
	if depth == 0 {
		n %= 4
	}
	one := string([]byte{t})
	switch n {
	case 0:
		g.add(get(g.local(t)))
	case 1:
		g.add(constantOf(t, g.pick(256)))
	case 2:
		if t == v128[0] {
			g.add(get(g.local(t)))
			return
		}
		g.add(getGlobal(firstGlobal + strings.IndexByte(allTypes, t)))
	case 3:
		g.add(i32Of(g.pick(256)))
		g.add(loads[t][g.pick(len(loads[t]))] + "\x00" + num(g.pick(40)))
	case 4:
		g.value(t, depth-1)
		g.add("\x22" + num(g.local(t)))
	case 5:
		g.values(one+one+i32, depth-1)
		g.add(map[bool]string{true: "\x1c\x01" + one, false: "\x1b"}[t == v128[0]])
	case 6:
		g.value(i32[0], depth-1)
		g.within("\x04"+one, one, func() {
			g.value(t, depth-1)
			g.control("\x05")
			g.value(t, depth-1)
		})
	case 7:
		g.within("\x02"+one, one, func() {
			g.values(one+i32, depth-1)
			g.control("\x0d\x00")
			g.add("\x1a")
			g.value(t, depth-1)
		})
	case 8:
		params := g.some()
		g.values(params, depth-1)
		g.within("\x02"+g.blockType(params, params+one), params+one, func() { g.value(t, depth-1) })
		g.add(set(g.own(t)))
		g.drop(params)
		g.add(get(g.own(t)))
	case 9:
		for f := range 1 + generatedFunctions {
			if ft := g.typeOf(f); string(ft.Results) == one {
				g.callFor(f, ft, g.pick(4) == 1)
				return
			}
		}
		g.add(get(g.local(t)))
	case 10:
		if t == i32[0] {
			g.rare(depth)
			return
		}
		fallthrough
	default:
		o := operations[t][g.pick(len(operations[t]))]
		g.values(o.takes, depth-1)
		g.add(o.code)
		if strings.IndexByte(typeFloats, t) >= 0 {
			g.canonical(t)
		}
	}
}

// rare emits an i32 that needs more than its operands.
func (g *generator) rare(depth int) {
	switch g.pick(5) {
	case 0:
		g.add("\x3f\x00") // memory.size
	case 1:
		g.value(i32[0], depth-1)
		g.add(i32Of(3))
		g.add("\x71")
		g.add("\x40\x00") // memory.grow
	case 2:
		g.add("\xfc\x10\x00") // table.size
	case 3:
		g.add("\xd0\x70")
		g.add(i32Of(g.pick(3)))
		g.add("\xfc\x0f\x00") // table.grow
	case 4:
		g.add(i32Of(g.pick(9)))
		g.add("\x25\x00") // table.get
		g.add("\xd1")
	}
}

// canonical makes a NaN the one that is the same everywhere.
func (g *generator) canonical(t byte) {
	tmp, nan, equal := g.own(t)+1, "\x43\x00\x00\xc0\x7f", "\x5b"
	if t == f64[0] {
		nan, equal = "\x44\x00\x00\x00\x00\x00\x00\xf8\x7f", "\x61"
	}
	for _, code := range []string{"\x22" + num(tmp), nan, get(tmp), get(tmp), equal, "\x1b"} {
		g.add(code)
	}
}

// constantOf returns the constant of a type for a byte.
func constantOf(t byte, n int) string {
	numbers := []int64{0, 1, -1, 2, 31, -128, 255, 65535, 1 << 31, -1 << 31, 1<<31 - 1, 1 << 32, -1 << 63, 1<<63 - 1}
	v := int64(n)
	if n < len(numbers) {
		v = numbers[n]
	}
	floats := []string{"\x00\x00", "\x80\x3f", "\x80\xbf", "\x00\x80", "\x80\x7f", "\x80\xff", "\xc0\x7f", "\x00\x4f", "\x80\x5f", "\x49\x40"}
	doubles := []string{"\x00\x00", "\xf0\x3f", "\xf0\xbf", "\x00\x80", "\xf0\x7f", "\xf0\xff", "\xf8\x7f", "\xe0\x41", "\xe0\x43", "\x09\x40"}
	switch t {
	case i32[0]:
		return i32Of(int(v))
	case i64[0]:
		return i64Of(v)
	case f32[0]:
		return "\x43\x00\x00" + floats[n%len(floats)]
	case f64[0]:
		return "\x44\x00\x00\x00\x00\x00\x00" + doubles[n%len(doubles)]
	}
	return "\xfd\x0c" + strings.Repeat(string([]byte{byte(n), byte(n >> 1), 0, byte(3 * n)}), 4)
}

// operation is an instruction and the types that it takes.
type operation struct{ code, takes string }

var (
	loads = map[byte][]string{
		i32[0]: {"\x28", "\x2c", "\x2d", "\x2e", "\x2f"}, i64[0]: {"\x29", "\x30", "\x31", "\x32", "\x33", "\x34", "\x35"},
		f32[0]: {"\x2a"}, f64[0]: {"\x2b"}, v128[0]: {"\xfd\x00", "\xfd\x01", "\xfd\x09", "\xfd\x5c"},
	}
	stores = map[byte][]string{
		i32[0]: {"\x36", "\x3a", "\x3b"}, i64[0]: {"\x37", "\x3c", "\x3d", "\x3e"}, f32[0]: {"\x38"}, f64[0]: {"\x39"}, v128[0]: {"\xfd\x0b"},
	}
	operations = map[byte][]operation{
		i32[0]: slices.Concat(same(0x45, 0x45, i32), same(0x46, 0x4f, i32+i32), same(0x50, 0x50, i64), same(0x51, 0x5a, i64+i64),
			same(0x5b, 0x60, f32+f32), same(0x61, 0x66, f64+f64), same(0x67, 0x69, i32), same(0x6a, 0x78, i32+i32),
			same(0xa7, 0xa7, i64), same(0xa8, 0xa9, f32), same(0xaa, 0xab, f64), same(0xbc, 0xbc, f32), same(0xc0, 0xc1, i32),
			[]operation{{"\xfc\x00", f32}, {"\xfc\x03", f64}, {"\xfd\x53", v128}, {"\xfd\xa4\x01", v128}, {"\xfd\x1b\x02", v128}, {"\xfd\x16\x0f", v128}}),
		i64[0]: slices.Concat(same(0x79, 0x7b, i64), same(0x7c, 0x8a, i64+i64), same(0xac, 0xad, i32), same(0xae, 0xaf, f32),
			same(0xb0, 0xb1, f64), same(0xbd, 0xbd, f64), same(0xc2, 0xc4, i64), []operation{{"\xfc\x05", f32}, {"\xfc\x06", f64}, {"\xfd\x1d\x01", v128}}),
		f32[0]: slices.Concat(same(0x8b, 0x91, f32), same(0x92, 0x98, f32+f32), same(0xb2, 0xb3, i32), same(0xb4, 0xb5, i64), same(0xb6, 0xb6, f64), same(0xbe, 0xbe, i32)),
		f64[0]: slices.Concat(same(0x99, 0x9f, f64), same(0xa0, 0xa6, f64+f64), same(0xb7, 0xb8, i32), same(0xb9, 0xba, i64), same(0xbb, 0xbb, f32), same(0xbf, 0xbf, i64)),
		v128[0]: {
			{"\xfd\x0f", i32},
			{"\xfd\x11", i32},
			{"\xfd\x12", i64},
			{"\xfd\x13", f32},
			{"\xfd\xae\x01", v128 + v128},
			{"\xfd\x6e", v128 + v128},
			{"\xfd\x51", v128 + v128},
			{"\xfd\x52", v128 + v128 + v128},
			{"\xfd\x0d\x00\x11\x02\x13\x04\x15\x06\x17\x08\x19\x0a\x1b\x0c\x1d\x0e\x1f", v128 + v128},
			{"\xfd\xab\x01", v128 + i32},
			{"\xfd\x1c\x03", v128 + i32},
			{"\xfd\x37", v128 + v128},
		},
	}
)

// same are the instructions from one opcode to another, which take the same.
func same(from, to byte, takes string) []operation {
	var out []operation
	for code := int(from); code <= int(to); code++ {
		out = append(out, operation{string([]byte{byte(code)}), takes})
	}
	return out
}
