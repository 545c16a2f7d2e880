package wasm_test

import (
	leb "encoding/binary"
	"slices"
	"strings"
)

// assembly is a module in parts: each is an element of a section.
type assembly struct {
	types, tables, globals, exports, elements, data []string
	imports                                         []string // names of WASI's functions: functions 0, 1 and so on
	pages, most                                     int      // of memory, to begin with and at most; none where both are 0
	start                                           string   // the index of a function
	code                                            []assembled
	customs                                         []string
}

// assembled is a function: its type, its declarations of locals ("" is none)
// and its instructions without the last end.
type assembled struct {
	typeOf       int
	locals, code string
}

// Value types.
const i32t, i64t, f32t, f64t, v128t = "\x7f", "\x7e", "\x7d", "\x7c", "\x7b"

// wasiParams are the parameters of the functions that are imported here. Each
// returns an i32, but for proc_exit.
var wasiParams = map[string]string{
	"fd_write": "iiii", "fd_read": "iiii", "fd_pread": "iiiIi", "fd_pwrite": "iiiIi", "fd_readdir": "iiiIi", "fd_renumber": "ii", "fd_sync": "i",
	"fd_filestat_set_size": "iI", "fd_allocate": "iII", "fd_seek": "iIii", "fd_close": "i", "path_open": "iiiiiIIii", "path_create_directory": "iii",
	"path_filestat_get": "iiiii", "path_rename": "iiiiii", "random_get": "ii", "poll_oneoff": "iiii", "clock_time_get": "iIi", "sched_yield": "",
	"proc_exit": "i", "args_get": "ii", "args_sizes_get": "ii", "environ_get": "ii", "environ_sizes_get": "ii",
}

// num is a number in LEB128.
func num(n int) string { return string(leb.AppendUvarint(nil, uint64(n))) } //nolint:gosec // a test's number

// signed is a number in LEB128 with its sign.
func signed(v int64) string {
	var out []byte
	for {
		b := byte(v & 0x7f)
		if v >>= 7; v == 0 && b < 0x40 || v == -1 && b >= 0x40 {
			return string(append(out, b))
		}
		out = append(out, b|0x80)
	}
}

func sized(content string) string { return num(len(content)) + content }

func signature(params, results string) string { return "\x60" + sized(params) + sized(results) }

// exporting exports a function.
func exporting(name string, function int) string { return sized(name) + "\x00" + num(function) }

// bytes puts the module together. Type 0 is () -> () and type 1 () -> i32; those
// of the assembly come next, and then those of the imports. Functions of its own are numbered behind
// the imports; where it has no exports, the first of them is f.
func (a assembly) bytes() []byte {
	types := append([]string{signature("", ""), signature("", i32t)}, a.types...)
	var imports, typesOf, bodies, memories []string
	for _, name := range a.imports {
		results := i32t
		if name == "proc_exit" {
			results = ""
		}
		params := strings.NewReplacer("i", i32t, "I", i64t).Replace(wasiParams[name])
		imports = append(imports, sized("wasi_snapshot_preview1")+sized(name)+"\x00"+num(len(types)))
		types = append(types, signature(params, results))
	}
	for _, f := range a.code {
		typesOf = append(typesOf, num(f.typeOf))
		bodies = append(bodies, sized(max(f.locals, "\x00")+f.code+"\x0b"))
	}
	if a.pages > 0 || a.most > 0 {
		memories = []string{"\x01" + num(a.pages) + num(max(a.pages, a.most))}
	}
	exports := a.exports
	if exports == nil {
		exports = []string{exporting("f", len(imports))}
	}
	out := "\x00asm\x01\x00\x00\x00"
	section := func(id byte, elements []string) {
		if len(elements) > 0 {
			out += string([]byte{id}) + sized(num(len(elements))+strings.Join(elements, ""))
		}
	}
	section(1, types)
	section(2, imports)
	section(3, typesOf)
	section(4, a.tables)
	section(5, memories)
	section(6, a.globals)
	section(7, exports)
	if a.start != "" {
		out += "\x08" + sized(a.start)
	}
	section(9, a.elements)
	if len(a.data) > 0 {
		out += "\x0c" + sized(num(len(a.data)))
	}
	section(10, bodies)
	section(11, a.data)
	for _, c := range a.customs {
		out += "\x00" + sized(c)
	}
	return []byte(out)
}

// Instructions.
func i32Of(v int) string        { return "\x41" + signed(int64(int32(v))) } //nolint:gosec // a test's number
func i64Of(v int64) string      { return "\x42" + signed(v) }
func get(local int) string      { return "\x20" + num(local) }
func set(local int) string      { return "\x21" + num(local) }
func calls(function int) string { return "\x10" + num(function) }

// args are constants: i32s, and i64s where they are int64.
func args(values ...any) string {
	var out strings.Builder
	for _, v := range values {
		switch v := v.(type) {
		case int:
			out.WriteString(i32Of(v))
		case int64:
			out.WriteString(i64Of(v))
		}
	}
	return out.String()
}

// endless is a loop without an end.
func endless(body string) string { return "\x03\x40" + body + "\x0c\x00\x0b" }

// counting does body until a local of 0 is n; the local is as it was for each.
func counting(local, n, step int, body string) string {
	return "\x03\x40" + body + get(local) + i32Of(step) + "\x6a\x22" + num(local) + i32Of(n) + "\x49\x0d\x00\x0b"
}

const (
	drop        = "\x1a"
	unreachable = "\x00"
	oneI32      = "\x01\x01" + i32t // a declaration of locals
)

// iovecs is the content of memory that is n buffers, each of size bytes at
// address.
func iovecs(n, address, size int) string {
	one := leb.LittleEndian.AppendUint32(leb.LittleEndian.AppendUint32(nil, uint32(address)), uint32(size)) //nolint:gosec // a test's numbers
	return string(slices.Repeat(one, n))
}

// active is a data segment at an address.
func active(address int, content string) string {
	return "\x00" + i32Of(address) + "\x0b" + sized(content)
}
