package wasm_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/wasm"
)

// raced is whether the race detector is at work, which takes several times the
// time and the memory: few of the rows are run, and none is measured.
var raced bool

// hostile is a module that somebody made to harm the device that runs it. It is
// compiled, started and called until something of that fails.
type hostile struct {
	name   string
	module func() []byte
	config func(t *testing.T, c *wasm.GuestConfig)
	calls  []string // of functions, f where there are none

	code   decant.Code  // "" is no error
	says   string       // some of the error
	alive  bool         // the guest serves on after an error
	grows  decant.Bytes // what the process may grow by; 0 is 64 MiB of memory and as much again
	engine string       // the only one that runs it
}

const (
	hostileMemory   = 64 * decant.MiB
	hostileDeadline = 100 * time.Millisecond

	// A call may end this much after its deadline, on machines that do much else.
	mostLate = 350 * time.Millisecond
	// mostStall is for how long nothing in the process may run.
	mostStall = 50 * time.Millisecond
)

// f is a module whose function f is this code, with 64 MiB of memory and an i32
// and an i64 as locals.
func f(code string, imports ...string) func() []byte {
	return func() []byte {
		return assembly{imports: imports, pages: 1024, code: []assembled{{locals: "\x02\x02" + i32t + "\x02" + i64t, code: code}}}.bytes()
	}
}

// made is a module that an assembly makes.
func made(make func() assembly) func() []byte {
	return func() []byte { return make().bytes() }
}

// endlessly are modules that never end.
func endlessly() []hostile {
	rows := []hostile{
		{name: "an empty loop", module: f("\x03\x40\x0c\x00\x0b")},
		{name: "a loop by br_table", module: f("\x03\x40" + i32Of(7) + "\x0e\x03\x00\x00\x00\x00\x0b")},
		{name: "a loop by br_if", module: f("\x03\x40" + i32Of(1) + "\x0d\x00\x0b")},
		{name: "a loop out of an if", module: f("\x03\x40" + i32Of(1) + "\x04\x40\x0c\x01\x05\x0c\x01\x0b\x0b")},
		{name: "loops in loops", module: f(strings.Repeat("\x03\x40", 500) + "\x0c\xf3\x03" + strings.Repeat("\x0b", 500))},
		{name: "the outermost of many loops", module: f("\x03\x40" + strings.Repeat("\x03\x40", 500) + "\x0c\xf4\x03" + strings.Repeat("\x0b", 501))},
		{name: "one loop after the other, for ever", module: f(endless(strings.Repeat(get(0)+drop+"\x03\x40\x0b", 2000)))},
		{name: "a loop with two entries", module: f("\x03\x40\x02\x40" + get(0) + "\x45\x22\x00\x0d\x00\x0c\x01\x0b\x0c\x00\x0b")},
		{name: "a loop of 2 MiB in one line", module: f(endless(strings.Repeat(get(0)+drop, 690_000))), engine: "compiler"},
		{name: "a loop of divisions", module: f(i64Of(3) + set(2) + endless(strings.Repeat(i64Of(-1)+get(2)+"\x7f"+set(3), 20_000)))},
		{name: "a loop with parameters", module: made(func() assembly {
			return assembly{
				types: []string{signature(strings.Repeat(i64t, 200), "")},
				code:  []assembled{{code: strings.Repeat(i64Of(1), 200) + "\x03\x02\x0c\x00\x0b"}},
			}
		})},
		{name: "calls of a light function", module: made(func() assembly {
			return assembly{code: []assembled{{code: endless(strings.Repeat(calls(1), 1000))}, {code: strings.Repeat("\x01", 90)}}}
		})},
		{name: "calls of functions that call", module: made(func() assembly {
			a := assembly{code: []assembled{{code: endless(calls(1))}}}
			for i := range 60 {
				a.code = append(a.code, assembled{code: strings.Repeat(calls(i+2), 4)})
			}
			a.code = append(a.code, assembled{})
			return a
		})},
		{name: "4^60 calls without a loop", module: made(func() assembly {
			a := assembly{}
			for i := range 60 {
				a.code = append(a.code, assembled{code: strings.Repeat(calls(i+1), 4)})
			}
			a.code = append(a.code, assembled{})
			return a
		})},
		{name: "calls through a table", module: made(func() assembly {
			return assembly{
				tables: []string{"\x70\x00\x01"}, elements: []string{"\x00" + i32Of(0) + "\x0b\x01\x01"},
				code: []assembled{{code: endless(strings.Repeat(i32Of(0)+"\x11\x00\x00", 1000))}, {}},
			}
		})},
		{name: "references to functions", module: made(func() assembly {
			return assembly{
				tables: []string{"\x70\x00\x01"}, elements: []string{"\x00" + i32Of(0) + "\x0b\x01\x01"},
				code: []assembled{{code: endless(strings.Repeat("\xd2\x01"+drop, 50_000))}, {}},
			}
		})},
		{name: "a start function", module: made(func() assembly { return assembly{start: "\x00", code: []assembled{{code: endless("")}}} })},
		{name: "_initialize", module: made(func() assembly {
			return assembly{exports: []string{exporting("_initialize", 0), exporting("f", 0)}, code: []assembled{{code: endless("")}}}
		})},
		{name: "a command", module: made(func() assembly {
			return assembly{exports: []string{exporting("_start", 0)}, code: []assembled{{code: endless("")}}}
		}), calls: []string{"_start"}, alive: true},

		{name: "memory.grow(0)", module: f(endless(i32Of(0) + "\x40\x00" + drop))},
		{name: "memory.grow(1), refused", module: f(endless(i32Of(1) + "\x40\x00" + drop))},
		{name: "memory.fill of everything", module: f(endless(args(0, 1, 64<<20) + "\xfc\x0b\x00"))},
		{name: "memory.copy of everything", module: f(endless(args(1, 0, 64<<20-1) + "\xfc\x0a\x00\x00" + args(0, 1, 64<<20-1) + "\xfc\x0a\x00\x00"))},
		{name: "memory.init of 32 MiB", module: made(func() assembly {
			return assembly{pages: 1024, data: []string{"\x01" + sized(strings.Repeat("x", 32<<20))}, code: []assembled{{code: endless(args(0, 0, 32<<20) + "\xfc\x08\x00\x00")}}}
		}), grows: 400 * decant.MiB},
		{name: "a function with 10,000 locals", module: made(func() assembly {
			return assembly{code: []assembled{{code: endless(calls(1))}, {locals: "\x01" + num(10_000) + i64t}}}
		})},
		{name: "a loop that shifts what it carries", module: made(func() assembly {
			return assembly{types: []string{signature(strings.Repeat(i64t, 255), "")}, code: []assembled{{code: strings.Repeat(i64Of(1), 255) + "\x03\x02" + i64Of(1) + "\x0c\x00\x0b"}}}
		})},
		{name: "table.grow", module: made(func() assembly {
			return assembly{tables: []string{"\x70\x01\x00" + num(400_000)}, code: []assembled{{code: endless("\xd0\x70" + i32Of(100_000) + "\xfc\x0f\x00" + drop)}}}
		})},
		{name: "table.fill", module: made(func() assembly {
			return assembly{tables: []string{"\x70\x00" + num(400_000)}, code: []assembled{{code: endless(i32Of(0) + "\xd0\x70" + i32Of(400_000) + "\xfc\x11\x00")}}}
		})},
		{name: "table.copy", module: made(func() assembly {
			return assembly{tables: []string{"\x70\x00" + num(400_000)}, code: []assembled{{code: endless(args(1, 0, 399_999) + "\xfc\x0e\x00\x00")}}}
		})},
		{name: "table.init", module: made(func() assembly {
			return assembly{
				tables: []string{"\x70\x00" + num(200_000)}, elements: []string{"\x01\x00" + num(200_000) + strings.Repeat("\x00", 200_000)},
				code: []assembled{{code: endless(args(0, 0, 200_000) + "\xfc\x0c\x00\x00")}},
			}
		}), grows: 400 * decant.MiB},

		{name: "sched_yield", module: f(endless(calls(0)+drop), "sched_yield")},
		{name: "the clock", module: f(endless(i32Of(1)+i64Of(1)+i32Of(0)+calls(0)+drop), "clock_time_get")},
		{name: "sleeping", module: f(endless(args(0, 1024, 1, 2048)+calls(0)+drop), "poll_oneoff"), config: nil},
		{name: "arguments", module: f(endless(args(0, 1024)+calls(0)+drop), "args_get"), config: func(_ *testing.T, c *wasm.GuestConfig) {
			c.Args = slices.Repeat([]string{strings.Repeat("x", 1000)}, 1000)
		}},
		{name: "random numbers", module: f(endless(args(0, 64<<20)+calls(0)+drop), "random_get")},
		{name: "looking for what is not there", module: f(endless(args(3, 0, 0, 10, 1024)+calls(0)+drop), "path_filestat_get")},
		{name: "writing nothing, in 8 million pieces", module: f(endless(args(1, 0, 8<<20-1, 0)+calls(0)+drop), "fd_write")},
		{name: "reading nothing, in 8 million pieces", module: f(endless(args(0, 0, 8<<20-1, 0)+calls(0)+drop), "fd_read")},
		{
			name: "a folder that is read from its beginning", config: fullState, module: f(openState(0)+endless(get(0)+args(1024, 64<<10)+i64Of(0)+i32Of(0)+calls(1)+drop), "path_open", "fd_readdir"),
		},
		{name: "folders beyond the limit", config: fullState, module: func() []byte {
			return assembly{pages: 1, imports: []string{"path_create_directory"}, data: []string{active(0, "state/new")}, code: []assembled{{code: endless(args(3, 0, 9) + calls(0) + drop)}}}.bytes()
		}},
		{
			name: "files that are synchronized", config: aState, module: f(openState(1)+endless(get(0)+calls(1)+drop), "path_open", "fd_sync"),
		},
	}
	for i := range rows {
		rows[i].code, rows[i].says = decant.Deadline, "the call ran out of time while"
	}
	return rows
}

// openState opens /state itself, or a file in it that it makes, and leaves its
// number in local 0.
func openState(create int) string {
	path, flags, rights := "state", 2, int64(2) // a folder, to read
	if create != 0 {
		path, flags, rights = "state/a", 1, 2|64
	}
	var code strings.Builder
	for i := range path {
		code.WriteString(i32Of(i) + i32Of(int(path[i])) + "\x3a\x00\x00")
	}
	return code.String() + args(3, 0, 0, len(path), flags, rights, rights, 0, 64) + calls(0) + drop + i32Of(64) + "\x28\x02\x00" + set(0)
}

// aState gives the guest an empty /state.
func aState(t *testing.T, c *wasm.GuestConfig) { c.State = filepath.Join(t.TempDir(), "state") }

// fullState gives the guest as many files as it may have, with long names.
func fullState(t *testing.T, c *wasm.GuestConfig) {
	dir, err := fullFolder()
	if err != nil {
		t.Fatal(err)
	}
	c.State = dir
}

var fullFolder = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(guests.dir, "full")
	err := os.Mkdir(dir, 0o700)
	for i := 0; err == nil && i < int(wasm.DefaultStateLimit)/(4<<10); i++ {
		err = os.WriteFile(filepath.Join(dir, fmt.Sprintf("%0200d", i)), nil, 0o600)
	}
	return dir, err
})

// patient gives the guest time.
func patient(_ *testing.T, c *wasm.GuestConfig) { c.Deadline = 10 * time.Second }

func patientFullState(t *testing.T, c *wasm.GuestConfig) {
	fullState(t, c)
	patient(t, c)
}

// deeply are modules that call functions within functions.
func deeply() []hostile {
	load := i32Of(0) + "\xfd\x00\x00\x00"
	xor := strings.Repeat("\xfd\x51", 199) + "\xfd\x0b\x00\x00"
	many := func(n int, code func(i int) string) string {
		var b strings.Builder
		for i := range n {
			b.WriteString(code(i))
		}
		return b.String()
	}
	rows := []hostile{
		{name: "itself", module: f(calls(0))},
		{name: "one another, through a table", module: made(func() assembly {
			return assembly{
				tables: []string{"\x70\x00\x02"}, elements: []string{"\x00" + i32Of(0) + "\x0b\x02\x00\x01"},
				code: []assembled{{code: i32Of(1) + "\x11\x00\x00"}, {code: i32Of(0) + "\x11\x00\x00"}},
			}
		})},
		{name: "with 10,000 locals", module: made(func() assembly {
			return assembly{pages: 1, code: []assembled{{
				locals: "\x01" + num(10_000) + i64t,
				code:   many(10_000, func(i int) string { return i32Of(0) + "\x29\x00\x00" + set(i) }) + calls(0) + many(10_000, func(i int) string { return i32Of(0) + get(i) + "\x37\x00\x00" }),
			}}}
		})},
		{name: "with 200 vectors", module: made(func() assembly {
			return assembly{pages: 1, code: []assembled{{code: i32Of(0) + strings.Repeat(load, 200) + calls(0) + xor}}}
		})},
		{name: "with 256 parameters", module: made(func() assembly {
			return assembly{pages: 1, types: []string{signature(strings.Repeat(i64t, 256), "")}, exports: []string{exporting("f", 1)}, code: []assembled{
				{typeOf: 2, code: many(256, get) + calls(0)}, {code: strings.Repeat(i64Of(1), 256) + calls(0)},
			}}
		})},
		{name: "in its start function", module: made(func() assembly { return assembly{start: "\x00", code: []assembled{{code: calls(0)}}} })},
	}
	for i := range rows {
		rows[i].code, rows[i].says = decant.Exhausted, "the guest calls functions within functions deeper than its stack allows"
	}
	// deep returns, from as deep as it may go.
	deep := func(names ...string) func() []byte {
		return made(func() assembly {
			a := assembly{types: []string{signature(i32t, "")}, code: []assembled{{typeOf: 2, code: get(0) + "\x04\x40" + get(0) + i32Of(1) + "\x6b" + calls(0) + "\x0b"}}}
			for i, name := range names {
				a.exports = append(a.exports, exporting(name, i+1))
				a.code = append(a.code, assembled{code: i32Of(25_000) + calls(0)})
			}
			return a
		})
	}
	return append(
		rows,
		hostile{name: "and back, a hundred times", module: deep("f"), calls: slices.Repeat([]string{"f"}, 100), engine: "compiler"},
		hostile{
			name: "and back, from each of a hundred exports", module: deep(numbered("f", 100)...), calls: numbered("f", 100), engine: "compiler",
		},
		hostile{name: "ten thousand exports", module: made(func() assembly {
			a := assembly{code: []assembled{{}}}
			for _, name := range numbered("f", 9000) {
				a.exports = append(a.exports, exporting(name, 0))
			}
			return a
		}), calls: numbered("f", 9000), grows: 48 * decant.MiB},
	)
}

func numbered(name string, n int) []string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprint(name, i))
	}
	return out
}

// breaking are modules that break down or end in ways of their own.
func breaking() []hostile {
	broken := func(name, code, says string) hostile {
		return hostile{name: name, module: f(code), code: decant.GuestFailed, says: "broke down while calling f: wasm error: " + says}
	}
	exits := func(status int) hostile {
		return hostile{name: fmt.Sprint("exit with ", status), module: f(i32Of(status)+calls(0), "proc_exit"), code: decant.GuestFailed, says: fmt.Sprintf("failed with status %d", status)}
	}
	return []hostile{
		broken("unreachable", unreachable, "unreachable"),
		broken("division by zero", args(1, 0)+"\x6d"+drop, "integer divide by zero"),
		broken("division that overflows", args(-1<<31, -1)+"\x6d"+drop, "integer overflow"),
		broken("conversion", "\x43\x00\x00\xc0\x7f\xa8"+drop, "invalid conversion to integer"),
		broken("out of bounds", i32Of(64<<20-3)+"\x28\x00\x00"+drop, "out of bounds memory access"),
		broken("far out of bounds", i32Of(-1)+"\x28\x00\xff\xff\xff\xff\x0f"+drop, "out of bounds memory access"),
		broken("memory.fill out of bounds", args(1, 0, -1)+"\xfc\x0b\x00", "out of bounds memory access"),
		broken("memory.copy out of bounds", args(64<<20-1, 0, 2)+"\xfc\x0a\x00\x00", "out of bounds memory access"),
		exits(0), exits(1), exits(-1), exits(1 << 30),
		{name: "no table", module: made(func() assembly {
			return assembly{tables: []string{"\x70\x00\x01"}, code: []assembled{{code: i32Of(0) + "\x11\x00\x00"}}}
		}), code: decant.GuestFailed, says: "invalid table access"},
		{name: "a function of another type", module: made(func() assembly {
			return assembly{tables: []string{"\x70\x00\x01"}, elements: []string{"\x00" + i32Of(0) + "\x0b\x01\x00"}, code: []assembled{{code: i32Of(0) + "\x11\x01\x00" + drop}}}
		}), code: decant.GuestFailed, says: "indirect call type mismatch"},
		{name: "data beyond its memory", module: made(func() assembly { return assembly{pages: 1, data: []string{active(64<<10, "x")}, code: []assembled{{}}} }), code: decant.GuestFailed, says: "out of bounds memory access"},
		{name: "a start function that breaks down", module: made(func() assembly { return assembly{start: "\x00", code: []assembled{{code: unreachable}}} }), code: decant.GuestFailed, says: "broke down while initializing: wasm error: unreachable"},
		{name: "a start function that exits", module: made(func() assembly {
			return assembly{imports: []string{"proc_exit"}, start: "\x01", code: []assembled{{code: i32Of(0) + calls(0)}}}
		}), code: decant.GuestFailed, says: "status 0"},
		{name: "a start function with parameters", module: made(func() assembly {
			return assembly{types: []string{signature(i32t, "")}, start: "\x00", code: []assembled{{typeOf: 2}}, exports: []string{}}
		}), code: decant.Invalid, says: "the start function 0 has parameters"},
		{name: "files without memory", module: made(func() assembly {
			return assembly{imports: []string{"fd_write"}, code: []assembled{{code: args(1, 0, 1, 0) + calls(0) + drop}}}
		}), code: decant.GuestFailed, says: "broke down while calling f"},
		{name: "the host's exit as its own", module: made(func() assembly {
			return assembly{imports: []string{"proc_exit"}, pages: 1, exports: []string{exporting("f", 0)}}
		}), calls: []string{"f [3]"}, code: decant.Invalid, says: `a function of the host is the export "f" of the module`},
		{name: "the host's files as its own", module: made(func() assembly {
			return assembly{imports: []string{"fd_write"}, pages: 1, exports: []string{exporting("f", 0)}}
		}), calls: []string{"f [1,0,1,8]"}, code: decant.Invalid, says: `a function of the host is the export "f" of the module`},
		{name: "all its memory to begin with", module: made(func() assembly { return assembly{pages: 1025, code: []assembled{{}}} }), code: decant.Exhausted, says: "more than the 64MiB"},
		{name: "64 MiB of data", module: made(func() assembly {
			return assembly{pages: 1024, data: []string{active(0, strings.Repeat("x", 63<<20))}, code: []assembled{{}}}
		}), grows: 900 * decant.MiB},
		{name: "a page at a time", module: f(counting(0, 64<<20, 4096, get(0)+i64Of(1)+"\x37\x00\x00"))},
		{name: "a GiB, page by page, in one line", module: made(func() assembly {
			return assembly{pages: 16384, code: []assembled{{locals: "\x02\x02" + i32t + "\x02" + i64t, code: counting(0, 1<<30, 1<<20, func() string {
				var b strings.Builder
				for at := 4092; at < 1<<20; at += 8192 {
					b.WriteString(get(0) + get(2) + "\x37\x00" + num(at))
				}
				return b.String()
			}())}}}
		}), config: func(_ *testing.T, c *wasm.GuestConfig) { c.Memory, c.Deadline = decant.GiB, 10*time.Second }, grows: 1200 * decant.MiB},
		{name: "tiny numbers, in one line", module: made(func() assembly {
			return assembly{code: []assembled{{code: "\x43\x01\x00\x00\x00" + strings.Repeat("\xbb\xb6", 1_000_000) + drop}}}
		}), engine: "compiler"},
	}
}

// flooding are modules that have the host do, keep or say much.
func flooding() []hostile {
	return []hostile{
		{name: "output", module: func() []byte {
			return assembly{pages: 1024, imports: []string{"fd_write"}, data: []string{active(0, iovecs(1, 0, 1<<20))}, code: []assembled{{code: endless(args(1, 0, 1, 16) + calls(0) + drop)}}}.bytes()
		}, config: func(_ *testing.T, c *wasm.GuestConfig) { c.Output = 8 << 20 }, code: decant.Deadline},
		{name: "log, byte by byte", module: func() []byte {
			return assembly{pages: 1024, imports: []string{"fd_write"}, data: []string{active(0, iovecs(1, 0, 1))}, code: []assembled{{code: endless(args(2, 0, 1, 16) + calls(0) + drop)}}}.bytes()
		}, code: decant.Deadline},
		{name: "log, all memory a thousand times", module: func() []byte {
			return assembly{pages: 1024, imports: []string{"fd_write"}, data: []string{active(0, iovecs(1000, 0, 64<<20))}, code: []assembled{{code: args(2, 0, 1000, 16) + calls(0) + drop}}}.bytes()
		}},
		{name: "buffers out of bounds", module: f(args(1, 1<<20, 1<<28, 16)+calls(0)+drop+args(1, -8, 1, 16)+calls(0)+drop+args(1, 0, 1<<29, -1)+calls(0)+drop+args(0, 64<<20-8, 2, -1)+calls(1)+drop, "fd_write", "fd_read")},
		{
			name: "a million subscriptions to input", config: patient, module: f(counting(0, 48<<20, 48, get(0)+i32Of(1)+"\x3a\x00\x08")+args(0, 0, 1<<20, 63<<20)+calls(0)+drop, "poll_oneoff"), grows: 100 * decant.MiB, code: decant.GuestFailed, says: "it waits for 1048576 things at a time: 4096 at most",
		},
		{name: "subscriptions that overflow", module: f(args(0, 0, 1<<28+1, 63<<20)+calls(0)+drop, "poll_oneoff"), code: decant.GuestFailed},
		{name: "a path of 64 MiB", module: func() []byte {
			return assembly{pages: 1024, imports: []string{"path_filestat_get"}, code: []assembled{{code: args(0, int('/'), 64<<20) + "\xfc\x0b\x00" + strings.Repeat(args(3, 0, 0, 64<<20-1, 0)+calls(0)+drop, 4)}}}.bytes()
		}, config: patient, grows: 100 * decant.MiB, code: decant.GuestFailed, says: "it gave a path of 67108863 bytes: 16384 at most"},
		{name: "files of any size", config: aState, module: f(openState(1)+get(0)+i64Of(1<<62)+calls(1)+drop+get(0)+args(int64(0), int64(1<<62))+calls(2)+drop+get(0)+args(int64(1<<62), 0, 128)+calls(3)+drop+
			get(0)+args(int64(1<<63-1), 0, 128)+calls(3)+drop+get(0)+args(1024, 1)+i64Of(-1)+i32Of(128)+calls(4)+drop, "path_open", "fd_filestat_set_size", "fd_allocate", "fd_seek", "fd_pwrite")},
		{
			name: "folders read at once", config: patientFullState, module: f(counting(1, 120, 1, openState(0)+get(0)+args(1024, 32<<20, int64(0), 0)+calls(1)+drop), "path_open", "fd_readdir"), code: decant.GuestFailed, says: "it reads 33554432 bytes of a folder at a time: 65536 at most",
		},
		{name: "folders read piece by piece", config: patientFullState, module: f(counting(1, 120, 1, openState(0)+get(0)+args(1024, 64<<10, int64(0), 0)+calls(1)+drop), "path_open", "fd_readdir")},
		{name: "a file's number", module: f(args(3, -1)+calls(0)+drop+args(0, 1<<30)+calls(0)+drop, "fd_renumber"), code: decant.GuestFailed, says: "it gave a file the number 1073741824: 256 at most"},
		{name: "256 parameters", module: made(func() assembly {
			return assembly{types: []string{signature(strings.Repeat(f64t, 256), strings.Repeat(f64t, 32))}, code: []assembled{{typeOf: 2, code: strings.Repeat("\x44\x00\x00\x00\x00\x00\x00\xf8\xff", 32)}}}
		}), calls: []string{"f [" + strings.Repeat(`"NaN",`, 255) + `"-Infinity"]`}},
		{name: "a request of brackets", module: made(func() assembly { return assembly{types: []string{signature(i32t, "")}, code: []assembled{{typeOf: 2}}} }), calls: []string{"f " + strings.Repeat("[", 60_000)}, code: decant.Invalid, says: "send a JSON array of 1 numbers", alive: true},
		{name: "a request of zeros", module: made(func() assembly { return assembly{types: []string{signature(i32t, "")}, code: []assembled{{typeOf: 2}}} }), calls: []string{"f [1e" + strings.Repeat("9", 60_000) + "]"}, code: decant.Invalid, says: "not an i32", alive: true},
	}
}

// odd are modules whose binaries are odd.
func odd() []hostile {
	name := func(content string) string { return sized("name") + content }
	return []hostile{
		{
			name: "a name of 4 GiB", module: made(func() assembly {
				return assembly{code: []assembled{{}}, customs: []string{name("\x00" + sized("\xff\xff\xff\xff\x0f"))}}
			}), engine: "interpreter",
		},
		{name: "names for four billion functions", module: made(func() assembly {
			return assembly{code: []assembled{{}}, customs: []string{name("\x00" + sized("\x00\x01\x05\xff\xff\xff\xff\x0f") + "\x07" + sized(strings.Repeat("\x00", 20)))}}
		}), engine: "interpreter"},
		{name: "names for 8 million functions", module: made(func() assembly {
			return assembly{code: []assembled{{}}, customs: []string{name("\x01" + sized(num(8<<20)+strings.Repeat("\x00\x00", 8<<20)))}}
		}), grows: 200 * decant.MiB},
		{name: "a function with a name of 16 MiB", module: made(func() assembly {
			return assembly{code: []assembled{{code: get(0) + "\x04\x40" + unreachable + "\x0b" + calls(0), locals: oneI32}, {}}, customs: []string{name("\x01" + sized("\x01\x00"+sized(strings.Repeat("n", 16<<20))))}}
		}), code: decant.Exhausted, grows: 200 * decant.MiB},
		{name: "a stack of names of 16 MiB", module: made(func() assembly {
			return assembly{
				types:   []string{signature(i32t, "")},
				code:    []assembled{{typeOf: 2, code: get(0) + "\x45\x04\x40" + unreachable + "\x0b" + get(0) + i32Of(1) + "\x6b" + calls(0)}, {code: i32Of(50) + calls(0)}},
				exports: []string{exporting("f", 1)},
				customs: []string{name("\x01" + sized("\x01\x00"+sized(strings.Repeat("n", 16<<20))))},
			}
		}), code: decant.GuestFailed, says: "unreachable", grows: 200 * decant.MiB},
		{name: "8 million elements of a segment", module: made(func() assembly {
			return assembly{code: []assembled{{}}, elements: []string{"\x01\x00" + num(8<<20) + strings.Repeat("\x00", 8<<20)}}
		}), grows: 200 * decant.MiB, code: decant.Invalid, says: "elements"},
		{name: "small instructions that become large", module: made(func() assembly {
			var a assembly
			for range 20 {
				a.code = append(a.code, assembled{code: unreachable + strings.Repeat("\xfc\x11\x00", 690_000)})
			}
			a.tables = []string{"\x70\x00\x01"}
			return a
		}), code: decant.Invalid, grows: 400 * decant.MiB},
		{name: "8 MiB of code", module: made(func() assembly {
			a := assembly{pages: 1024}
			for range 8 {
				a.code = append(a.code, assembled{code: strings.Repeat(get(0)+drop, 340_000) + unreachable, locals: oneI32})
			}
			return a
		}), engine: "compiler", code: decant.GuestFailed, says: "unreachable", grows: 256 * decant.MiB},
		{name: "a MiB of code in a function", module: made(func() assembly {
			a := assembly{pages: 1024}
			for range 8 {
				a.code = append(a.code, assembled{code: strings.Repeat(get(0)+drop, 340_000) + unreachable, locals: oneI32})
			}
			return a
		}), engine: "interpreter", code: decant.Invalid, says: "262144 at most"},
		{name: "names that act on terminals", module: made(func() assembly {
			a := assembly{code: []assembled{{}}}
			for i := range 100 {
				a.exports = append(a.exports, exporting(fmt.Sprint("\x1b[2J\n", i, strings.Repeat("x", 4000)), 0))
			}
			return a
		}), calls: []string{"g"}, code: decant.NotFound, says: "the module has no function", alive: true},
		{name: "imports that act on terminals", module: func() []byte {
			return []byte("\x00asm\x01\x00\x00\x00" + "\x01\x04\x01\x60\x00\x00" + "\x02" + sized("\x01"+sized("\x1b[2J\n"+strings.Repeat("x", 4000))+sized("\xff")+"\x00\x00"))
		}, code: decant.Invalid, says: "imports what this host does not offer"},
		{name: "the yield function, imported", module: func() []byte {
			return []byte("\x00asm\x01\x00\x00\x00" + "\x01\x04\x01\x60\x00\x00" + "\x02" + sized("\x01"+sized("decant")+sized("yield")+"\x00\x00"))
		}, code: decant.Invalid, says: `imports from "decant"`},
		{name: "the meter, exported", module: made(func() assembly {
			return assembly{code: []assembled{{}}, exports: []string{sized("decant:meter") + "\x00\x00"}}
		}), code: decant.Invalid, says: `exports "decant:meter"`},
		{name: "the meter, by its number", module: made(func() assembly { return assembly{code: []assembled{{code: i64Of(-1) + "\x24\x00"}}} }), code: decant.Invalid, says: "there is no global 0"},
		{name: "the meter, exported by its number", module: made(func() assembly { return assembly{code: []assembled{{}}, exports: []string{sized("f") + "\x03\x00"}} }), code: decant.Invalid, says: "there is no global 0"},
		{name: "the meter, in a segment's place", module: made(func() assembly { return assembly{pages: 1, code: []assembled{{}}, data: []string{"\x00\x23\x00\x0bx"}} }), code: decant.Invalid},
		{name: "two exports of one name", module: made(func() assembly {
			return assembly{code: []assembled{{}}, exports: []string{exporting("f", 0), exporting("f", 0)}}
		}), code: decant.Invalid},
		{name: "another one's memory", module: func() []byte {
			return []byte("\x00asm\x01\x00\x00\x00" + "\x02" + sized("\x01"+sized("wasi_snapshot_preview1")+sized("memory")+"\x02\x00\x01"))
		}, code: decant.Invalid, says: "does not offer"},
		{name: "a function of WASI with another type", module: func() []byte {
			return []byte("\x00asm\x01\x00\x00\x00" + "\x01\x04\x01\x60\x00\x00" + "\x02" + sized("\x01"+sized("wasi_snapshot_preview1")+sized("fd_write")+"\x00\x00"))
		}, code: decant.GuestFailed, says: "signature mismatch"},
	}
}

// TestHostileGuests: no module stops, stalls or bloats the process that runs it,
// nor keeps it from serving others meanwhile or afterwards, and each gets an
// error that says what was wrong with it.
func TestHostileGuests(t *testing.T) {
	for group, rows := range map[string][]hostile{"endlessly": endlessly(), "deeply": deeply(), "breaking": breaking(), "flooding": flooding(), "odd": odd()} {
		for i, row := range rows {
			if (raced || testing.Short()) && i%8 != 0 {
				continue
			}
			for _, interpreter := range []bool{false, true} {
				engine := map[bool]string{false: "compiler", true: "interpreter"}[interpreter]
				t.Run(group+"/"+row.name+"/"+engine, func(t *testing.T) {
					row.run(t, engine, interpreter)
				})
			}
		}
	}
}

func (row hostile) run(t *testing.T, engine string, interpreter bool) {
	if row.engine != "" && row.engine != engine {
		t.Skip("it is not for this engine")
	}
	c := wasm.GuestConfig{Memory: hostileMemory, Deadline: hostileDeadline, Stack: 4 * decant.MiB}
	if row.config != nil {
		row.config(t, &c)
	}
	module := row.module()
	var harm string
	for range 3 { // other programs on the machine may be what stalled it
		h := newHost(t, wasm.Config{Interpreter: interpreter})
		neighbour := start(t, h, small, wasm.GuestConfig{})
		if harm = row.harm(t, h, c, module, neighbour); harm != "" {
			t.Log(harm)
		}
		call(t, start(t, h, small, wasm.GuestConfig{}), "f", "")
		if harm == "" {
			return
		}
	}
	t.Error(harm)
}

// small is a module whose function does nothing, without and with the host.
var small = assembly{imports: []string{"sched_yield"}, code: []assembled{{code: calls(0) + drop}}}.bytes()

// harm runs the module, and says what it did to the process.
func (row hostile) harm(t *testing.T, h *wasm.Host, c wasm.GuestConfig, module []byte, neighbour *wasm.Guest) string {
	var late time.Duration
	w := watch(t, neighbour)
	guest, err := row.attack(t, h, c, module, &late)
	w.end()
	if !errors.Is(err, row.code) && (err != nil || row.code != "") || err != nil && !strings.Contains(err.Error(), row.says) {
		t.Errorf("got %.300v, want %s: %s", err, cmp.Or(row.code, "no error"), row.says)
	}
	if err != nil && (len(err.Error()) > 2000 || strings.ContainsFunc(err.Error(), func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar })) {
		t.Errorf("its error has %d bytes: %.100q", len(err.Error()), err)
	}
	if guest != nil {
		if guest.Lost() != (err != nil && !row.alive) {
			t.Errorf("lost: %v", guest.Lost())
		}
		_ = guest.Close()
	}
	if testing.Verbose() {
		t.Logf("stalled %s, late %s, grew %s: %.200v", w.stall.Round(time.Microsecond), late.Round(time.Millisecond), w.growth, err)
	}
	switch {
	case w.served != nil:
		return fmt.Sprintf("another guest was not served: %v", w.served)
	case raced:
		return ""
	case w.stall > mostStall:
		return fmt.Sprintf("the process stalled for %s", w.stall)
	case late > mostLate:
		return fmt.Sprintf("a call ended %s after its deadline", late)
	case w.growth > cmp.Or(row.grows, 2*hostileMemory):
		return fmt.Sprintf("the process grew by %s", w.growth)
	}
	return ""
}

// attack compiles, starts and calls a module until something of that fails.
func (row hostile) attack(t *testing.T, h *wasm.Host, c wasm.GuestConfig, module []byte, late *time.Duration) (*wasm.Guest, error) {
	m, err := h.Compile(t.Context(), module)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = m.Close() })
	began := time.Now()
	ended := func() { *late = max(*late, time.Since(began)-c.Deadline) }
	g, err := h.Start(t.Context(), m, c)
	if ended(); err != nil {
		return nil, err
	}
	for _, function := range slices.Concat(row.calls, []string{"f"}[:min(1, max(0, 1-len(row.calls)))]) {
		began = time.Now()
		function, request, _ := strings.Cut(function, " ")
		_, err = g.Call(t.Context(), function, []byte(request))
		if ended(); err != nil {
			break
		}
	}
	return g, err
}

// watcher looks every millisecond whether the process runs, serves and grows.
type watcher struct {
	neighbour *wasm.Guest
	statm     *os.File
	stop      chan struct{}
	stopped   chan struct{}
	before    decant.Bytes

	// What it saw.
	stall  time.Duration // the longest
	served error
	growth decant.Bytes
}

func watch(t *testing.T, neighbour *wasm.Guest) *watcher {
	w := &watcher{neighbour: neighbour, stop: make(chan struct{}), stopped: make(chan struct{})}
	if file, err := os.Open("/proc/self/statm"); err == nil {
		w.statm = file
		t.Cleanup(func() { _ = file.Close() })
	}
	debug.FreeOSMemory()
	w.before = w.resident()
	go w.run()
	return w
}

func (w *watcher) end() {
	close(w.stop)
	<-w.stopped
}

func (w *watcher) run() {
	defer close(w.stopped)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for last := time.Now(); ; {
		w.look()
		now := time.Now()
		w.stall = max(w.stall, now.Sub(last))
		last = now
		select {
		case <-tick.C:
		case <-w.stop:
			return
		}
	}
}

func (w *watcher) look() {
	// It stops everything for a moment, as garbage collection does, and has to
	// wait for whoever cannot be stopped.
	runtime.ReadMemStats(new(runtime.MemStats))
	if _, err := w.neighbour.Call(context.Background(), "f", nil); err != nil {
		w.served = err
	}
	w.growth = max(w.growth, w.resident()-w.before)
}

// resident returns how much memory the process has, 0 where that cannot be known.
func (w *watcher) resident() decant.Bytes {
	line := make([]byte, 200)
	if w.statm == nil {
		return 0
	}
	n, _ := w.statm.ReadAt(line, 0)
	var size, pages int64
	_, _ = fmt.Sscan(string(line[:n]), &size, &pages)
	return decant.Bytes(pages * int64(os.Getpagesize()))
}
