package binary

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"

	"github.com/decant-project/decant"
)

// num is a number in LEB128.
func num(n int) string {
	var b []byte
	for ; n >= 0x80; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return string(append(b, byte(n)))
}

func sized(content string) string { return num(len(content)) + content }

func section(id byte, content string) string { return string([]byte{id}) + sized(content) }

const header = magic + "\x01\x00\x00\x00"

// code is a module of n functions without parameters, each of these locals and
// instructions.
func code(n int, locals, instructions string) string {
	return header + section(1, "\x01\x60\x00\x00") +
		section(3, num(n)+strings.Repeat("\x00", n)) +
		section(10, num(n)+strings.Repeat(sized(locals+instructions+"\x0b"), n))
}

// growing is a module with these tables, that grows some of them.
func growing(tables string, grown ...int) string {
	body := none
	for _, table := range grown {
		body += "\xd0\x70\x41\x01\xfc\x0f" + num(table) + "\x1a"
	}
	return header + section(1, "\x01\x60\x00\x00") + section(3, "\x01\x00") + section(4, tables) + section(10, "\x01"+sized(body+"\x0b"))
}

func i32s(n int) string { return "\x01" + num(n) + "\x7f" }

const none = "\x00"

// brIf is a block that is left at once.
const brIf = "\x02\x40\x41\x00\x0d\x00\x0b"

// TestHostile holds what becomes of modules that were made to take a compiler's
// time or memory: each is refused at once, by the limit and the place.
func TestHostile(t *testing.T) {
	deep := func(op string, n int) string { return strings.Repeat(op+"\x40", n) + strings.Repeat("\x0b", n) }
	name := strings.Repeat("x", 5000)
	for what, c := range map[string]struct{ binary, want string }{
		"4 G locals in 30 bytes":      {code(1, "\x01\xff\xff\xff\xff\x0f\x7f", ""), "function 0 of the code has 4294967295 locals: 10000 at most"},
		"locals in many declarations": {code(1, num(2000)+strings.Repeat("\x06\x7f", 2000), ""), "function 0 of the code has 12000 locals"},
		"locals that add up":          {code(500, i32s(9000), ""), "the module's functions have 2007000 locals up to function 222: 2000000 at most"},
		"4 G declarations of locals":  {code(1, "\xff\xff\xff\xff\x0f", ""), "damaged, or cut short"},
		"nested blocks":               {code(1, none, deep("\x02", 100_000)), "function 0 of the code has 2001 blocks in one another at byte"},
		"nested loops":                {code(1, none, deep("\x03", 3000)), "2001 blocks in one another"},
		"nested ifs":                  {code(1, none, strings.Repeat("\x41\x00\x04\x40", 3000)), "2001 blocks in one another"},
		"blocks in a row":             {code(1, none, strings.Repeat(brIf, 30_000)), "function 0 of the code has 30000 blocks: 20000 at most"},
		"blocks of all functions":     {code(20, none, strings.Repeat(brIf, 9000)), "blocks: 1000000000 at most"},
		"a large br_table":            {code(1, none, "\x41\x00\x0e"+num(60_000)+strings.Repeat("\x00", 60_001)), "60001 targets in the br_table at byte"},
		"a br_table of 4 G":           {code(1, none, "\x41\x00\x0e\xff\xff\xff\xff\x0f"), "damaged, or cut short"},
		"br_tables that add up":       {code(300, none, "\x41\x00\x0e"+num(9000)+strings.Repeat("\x00", 9001)), "br_tables have 2007223 targets"},
		"a large function":            {code(1, none, strings.Repeat("\x01", 3<<20)), "function 0 of the code has 3145730 bytes: 2097152 at most"},
		"functions":                   {header + section(3, num(300_000)+strings.Repeat("\x00", 300_000)), "the module has 300000 functions: 200000 at most"},
		"types":                       {header + section(1, num(20_000)+strings.Repeat("\x60\x00\x00", 20_000)), "the module has 20000 types"},
		"parameters":                  {header + section(1, "\x01\x60"+num(300)+strings.Repeat("\x7f", 300)+"\x00"), "type 0 has 300 parameters: 256 at most"},
		"results":                     {header + section(1, "\x01\x60\x00"+num(40)+strings.Repeat("\x7f", 40)), "type 0 has 40 results: 32 at most"},
		"a structure":                 {header + section(1, "\x01\x5f\x00"), "type 0 has the form 0x5f"},
		"imports":                     {header + section(2, num(2000)), "the module has 2000 imports"},
		"exports":                     {header + section(7, num(20_000)), "the module has 20000 exports"},
		"a long name":                 {header + section(2, "\x01"+sized(name)+"\x00\x00\x00"), "the name 5000 bytes at byte"},
		"a long name of an export":    {header + section(7, "\x01"+sized(name)+"\x00\x00"), "the name 5000 bytes at byte"},
		"globals":                     {header + section(6, num(30_000)), "the module has 30000 globals"},
		"a table of 4 G":              {header + section(4, "\x01\x70\x00\xff\xff\xff\xff\x0f"), "the module's tables have 4294967295 elements"},
		"an imported table of 4 G":    {header + section(2, "\x01\x01a\x01b\x01\x70\x00\xff\xff\xff\xff\x0f"), "the module's tables have 4294967295 elements"},
		"a table without end":         {growing("\x01\x70\x00\x01", 0), "with the table.grow of table 0 at byte 33 the module's tables may have 4294967295 elements for want of a lower maximum: 400000 at most"},
		"tables that grow":            {growing("\x02\x70\x01\x00"+num(300_000)+"\x70\x01\x00"+num(300_000), 0, 1, 1), "with the table.grow of table 1 at byte 50 the module's tables may have 600000 elements"},
		"tables":                      {header + section(4, num(17)+strings.Repeat("\x70\x00\x00", 17)), "the module has 17 tables"},
		"two memories":                {header + section(5, "\x02\x00\x01\x00\x01"), "the module has 2 memories: 1 at most"},
		"data segments":               {header + section(11, num(600_000)), "segments of data and elements"},
		"element segments":            {header + section(9, num(600_000)), "segments of data and elements"},
		"a section longer than it":    {header + "\x01\xff\xff\xff\xff\x0f\x01\x60", "damaged, or cut short, at byte 14"},
		"a function longer than it":   {header + section(10, "\x01\x7f\x00"), "damaged, or cut short"},
		"an endless number":           {header + "\x01\x80\x80\x80\x80\x80\x80\x80", "damaged, or cut short"},
		"a number beyond 32 bits":     {header + "\x01\xff\xff\xff\xff\x7f", "damaged, or cut short"},
		"no version":                  {"\x00asm", "damaged, or cut short"},
		"a component":                 {"\x00asm\x0d\x00\x01\x00", "a component, perhaps"},
		"threads":                     {code(1, none, "\xfe\x03\x00"), "the instruction 0xfe at byte 23 is not of WebAssembly 2.0"},
		"exceptions":                  {code(1, none, "\x06\x40\x0b"), "the instruction 0x06 at byte"},
		"a tail call":                 {code(1, none, "\x12\x00"), "is not of WebAssembly 2.0"},
		"relaxed SIMD":                {code(1, none, "\xfd\x80\x02"), "the instruction 0xfd 256 at byte"},
		"misc of the future":          {code(1, none, "\xfc\x20"), "the instruction 0xfc 32 at byte"},
		"a module of 65 MiB":          {header + strings.Repeat("\x00", 65<<20), "the module has 68157448 bytes: 67108864 at most"},
	} {
		began := time.Now()
		_, err := Prepare([]byte(c.binary), DefaultLimits)
		if !errors.Is(err, decant.Invalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", what, err, c.want)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%s: took %s", what, took)
		}
	}
}

// TestAtTheLimits: what is just within the limits compiles, in bounded time.
func TestAtTheLimits(t *testing.T) {
	r := wazero.NewRuntime(t.Context())
	defer r.Close(t.Context())
	if _, err := r.NewHostModuleBuilder(YieldModule).NewFunctionBuilder().WithFunc(func(m int64) int64 { return m }).Export(YieldName).Instantiate(t.Context()); err != nil {
		t.Fatal(err)
	}
	for what, binary := range map[string]string{
		"locals": code(200, i32s(10_000), ""),
		"nested": code(10, none, strings.Repeat("\x02\x40", 2000)+strings.Repeat("\x0b", 2000)),
		"blocks": code(1, none, strings.Repeat(brIf, 5000)),
		"grown":  growing("\x02\x70\x00\x01\x70\x01\x01"+num(399_999), 1, 1),
		"table":  code(1, none, "\x41\x00\x0e"+num(9000)+strings.Repeat("\x00", 9001)),
	} {
		p, err := Prepare([]byte(binary), DefaultLimits)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		m, err := r.CompileModule(t.Context(), p.Binary)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		_ = m.Close(t.Context())
	}
}

// TestPrepareTheSpecification: whatever wazero compiles of the modules of
// the specification's tests, the check lets through. They come with wazero.
func TestPrepareTheSpecification(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/tetratelabs/wazero").Output()
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(strings.TrimSpace(string(out)), "internal", "integration_test", "spectest")
	r := wazero.NewRuntimeWithConfig(t.Context(), wazero.NewRuntimeConfigInterpreter())
	defer r.Close(t.Context())
	limits := DefaultLimits
	limits.Parameters, limits.Results, limits.Tables, limits.Elements = 1000, 1000, 100, math.MaxInt // some try what no compiler makes
	looked, passed := 0, 0
	for _, version := range []string{"v1", "v2"} {
		err := filepath.WalkDir(filepath.Join(root, version), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".wasm" {
				return err
			}
			binary, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			looked++
			m, err := r.CompileModule(t.Context(), binary)
			if err != nil {
				return nil // made to be refused
			}
			passed++
			defer m.Close(t.Context())
			p, err := Prepare(binary, limits)
			if err != nil {
				t.Errorf("%s: %v", path, err)
				return nil
			}
			m, err = r.CompileModule(t.Context(), p.Binary)
			if err != nil {
				t.Errorf("%s, prepared: %v", path, err)
				return nil
			}
			return m.Close(t.Context())
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d modules, %d of them valid", looked, passed)
	if passed < 1000 {
		t.Errorf("only %d valid modules were found", passed)
	}
}

// FuzzPrepare: the check ends, without a panic, and what it lets through does not
// bring the compiler down.
func FuzzPrepare(f *testing.F) {
	for _, seed := range []string{
		code(2, i32s(3), brIf), header, code(1, none, "\x41\x00\x0e\x02\x00\x00\x00\xfd\x0c0123456789abcdef\x1a"),
		header + section(2, "\x01\x01a\x01b\x00\x00") + section(4, "\x01\x70\x00\x01") + section(5, "\x01\x00\x01") + section(7, "\x01\x01c\x00\x00"),
	} {
		f.Add([]byte(seed))
	}
	r := wazero.NewRuntimeWithConfig(context.Background(), wazero.NewRuntimeConfigInterpreter())
	limits := DefaultLimits
	limits.Size, limits.AllLocals = 1<<20, 1<<16
	f.Fuzz(func(_ *testing.T, binary []byte) {
		if len(binary) < 4 || !bytes.HasPrefix(binary, []byte("\x00asm")) {
			binary = append([]byte("\x00asm"), binary...)
		}
		p, err := Prepare(binary, limits)
		if err != nil {
			return
		}
		if m, err := r.CompileModule(context.Background(), p.Binary); err == nil {
			_ = m.Close(context.Background())
		}
	})
}

func TestTightened(t *testing.T) {
	l := DefaultLimits.Tightened(Limits{Size: 100, Functions: DefaultLimits.Functions + 1, Nesting: 3})
	if l.Size != 100 || l.Nesting != 3 || l.Functions != DefaultLimits.Functions || l.Body != DefaultLimits.Body {
		t.Errorf("got %+v", l)
	}
	if l, err := NamedLimits(map[string]int{"bytes": 100, "nesting": 3}); err != nil || l != (Limits{Size: 100, Nesting: 3}) {
		t.Errorf("by name: %+v, %v", l, err)
	}
	if _, err := NamedLimits(map[string]int{"byte": 100}); !errors.Is(err, decant.Invalid) {
		t.Errorf("by a wrong name: %v", err)
	}
	if _, err := Prepare([]byte(code(1, none, strings.Repeat("\x02\x40", 4)+strings.Repeat("\x0b", 4))), l); !errors.Is(err, decant.Invalid) {
		t.Errorf("with 4 blocks in one another: %v", err)
	}
}
