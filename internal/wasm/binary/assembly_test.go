package binary

import "strings"

// assembly is a module in parts: each is an element of a section.
type assembly struct {
	types, imports, tables, memories, globals, exports []string
	start                                              string // the index of a function
	elements, data, customs                            []string
	functions                                          []assembled
}

// assembled is a function: its type, its declarations of locals ("" is none)
// and its instructions without the last end.
type assembled struct {
	typeOf       int
	locals, code string
}

func (a assembly) bytes() []byte {
	out := header
	add := func(id byte, elements []string) {
		if len(elements) > 0 {
			out += section(id, num(len(elements))+strings.Join(elements, ""))
		}
	}
	var typesOf, bodies []string
	for _, f := range a.functions {
		typesOf = append(typesOf, num(f.typeOf))
		bodies = append(bodies, sized(max(f.locals, none)+f.code+"\x0b"))
	}
	add(sectionType, a.types)
	add(sectionImport, a.imports)
	add(sectionFunction, typesOf)
	add(sectionTable, a.tables)
	add(sectionMemory, a.memories)
	add(sectionGlobal, a.globals)
	add(sectionExport, a.exports)
	if a.start != "" {
		out += section(sectionStart, a.start)
	}
	add(sectionElement, a.elements)
	if len(a.data) > 0 {
		out += section(sectionDataCount, num(len(a.data)))
	}
	add(sectionCode, bodies)
	add(sectionData, a.data)
	for _, c := range a.customs {
		out += section(sectionCustom, c)
	}
	return []byte(out)
}

const (
	i32, i64, f32, f64 = "\x7f", "\x7e", "\x7d", "\x7c"
	v128, funcref      = "\x7b", "\x70"
)

// signed is a number in LEB128 with its sign.
func signed(v int64) string { return string(appendS64(nil, v)) }

func signature(params, results string) string { return "\x60" + sized(params) + sized(results) }

func importFunction(module, name string, typeOf int) string {
	return sized(module) + sized(name) + "\x00" + num(typeOf)
}

func exporting(name string, kind byte, index int) string {
	return sized(name) + string(rune(kind)) + num(index)
}

func i32Of(v int) string         { return "\x41" + signed(int64(int32(v))) } //nolint:gosec // a test's number
func i64Of(v int64) string       { return "\x42" + signed(v) }
func get(local int) string       { return "\x20" + num(local) }
func set(local int) string       { return "\x21" + num(local) }
func getGlobal(i int) string     { return "\x23" + num(i) }
func setGlobal(i int) string     { return "\x24" + num(i) }
func callOf(function int) string { return "\x10" + num(function) }

// variable is a mutable global.
func variable(valueType, init string) string { return valueType + "\x01" + init + "\x0b" }

// passive is a data segment, active one at an address.
func passive(data string) string { return "\x01" + sized(data) }

func active(address int, content string) string {
	return "\x00" + i32Of(address) + "\x0b" + sized(content)
}
