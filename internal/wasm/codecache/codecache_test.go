package codecache

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"go.uber.org/goleak"

	"github.com/decant-project/decant"
)

// What the test's own program does when it is started as a child.
const (
	childMode  = "child"  // compiles; writes that it began and that it ended to a file
	heldMode   = "held"   // compiles when the test lets it; tells the test at a socket
	brokenMode = "broken" // is another program than it should be
	parentMode = "parent" // has a cache, and held children
)

func TestMain(m *testing.M) {
	if len(os.Args) > 2 {
		switch os.Args[1] {
		case childMode:
			note(os.Args[2], "(")
			status := Child(runtimeConfig(), os.Args[3])
			note(os.Args[2], ")")
			syscall.Exit(status) // os.Exit waits a second for the race detector
		case heldMode:
			hold(os.Args[2])
			syscall.Exit(Child(runtimeConfig(), os.Args[3]))
		case brokenMode:
			fmt.Fprintln(os.Stderr, "unknown command\x1b[2J")
			os.Exit(2)
		case parentMode:
			os.Exit(parent(os.Args[2], os.Args[3]))
		}
	}
	goleak.VerifyTestMain(m)
}

func runtimeConfig() wazero.RuntimeConfig { return wazero.NewRuntimeConfig() }

func note(path, what string) {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600)
	if err == nil {
		_, err = f.WriteString(what)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		panic(err)
	}
}

// hold reads the module, so that the parent is not needed for it, tells the test
// its process id and waits for its word. The connection, alive, stays open until
// the process dies.
func hold(socket string) {
	read, err := os.CreateTemp("", "module")
	if err == nil {
		_, err = io.Copy(read, os.Stdin)
	}
	if err != nil {
		panic(err)
	}
	_, _ = read.Seek(0, io.SeekStart)
	_ = os.Remove(read.Name())
	os.Stdin = read
	conn, err := net.Dial("unix", socket)
	if err != nil {
		panic(err)
	}
	alive = conn
	fmt.Fprintln(conn, os.Getpid())
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		panic(err)
	}
}

var alive net.Conn // or it would be closed as garbage

// parent compiles a bomb and stays, as a program does that is killed while it
// compiles.
func parent(dir, socket string) int {
	exe, _ := os.Executable()
	c, err := Open(Config{Dir: dir, Command: []string{exe, heldMode, socket}, Limits: Limits{Memory: 1 << 30, Code: 1 << 20, CPU: time.Hour, Wall: time.Hour}})
	if err == nil {
		r := wazero.NewRuntimeWithConfig(context.Background(), runtimeConfig().WithCompilationCache(c.Compilation()))
		_, err = c.Compile(context.Background(), r, timeBomb)
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// workshop is a cache, a runtime that loads from it, and the children that it starts.
type workshop struct {
	*Cache
	runtime wazero.Runtime
	log     string // what children note
}

// limits are what the tests' modules need, and little more.
var limits = Limits{Memory: 256 << 20, Code: 1 << 20, CPU: 20 * time.Second, Wall: time.Minute}

func open(t testing.TB, change func(*Config)) *workshop {
	t.Helper()
	w, err := tryOpen(t, change)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func tryOpen(t testing.TB, change func(*Config)) (*workshop, error) {
	t.Helper()
	if runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64" {
		t.Skip("wazero does not compile here")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	w := &workshop{log: filepath.Join(t.TempDir(), "log")}
	config := Config{Dir: filepath.Join(t.TempDir(), "cache"), Command: []string{exe, childMode, w.log}, Version: "1", Limits: limits}
	if change != nil {
		change(&config)
	}
	if w.Cache, err = Open(config); err != nil {
		return nil, err
	}
	w.runtime = wazero.NewRuntimeWithConfig(t.Context(), runtimeConfig().WithCompilationCache(w.Compilation()))
	t.Cleanup(w.close)
	return w, nil
}

func (w *workshop) close() {
	_ = w.runtime.Close(context.Background())
	_ = w.Close()
}

// again opens the folder of w anew, as a program does that starts again.
func (w *workshop) again(t testing.TB, change func(*Config)) *workshop {
	t.Helper()
	w.close()
	return open(t, func(c *Config) {
		c.Dir = w.config.Dir
		if change != nil {
			change(c)
		}
	})
}

// compile compiles a module and frees it.
func (w *workshop) compile(ctx context.Context, binary []byte) error {
	m, err := w.Compile(ctx, w.runtime, binary)
	if err != nil {
		return err
	}
	return m.Close(ctx)
}

// children returns how many children began.
func (w *workshop) children(t testing.TB) int {
	t.Helper()
	b, err := os.ReadFile(w.log)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return bytes.Count(b, []byte("("))
}

// files returns the names of the files below the folder, but for the lock.
func (w *workshop) files(t testing.TB) (names []string) {
	t.Helper()
	err := filepath.WalkDir(w.config.Dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && (!e.IsDir() || strings.HasPrefix(e.Name(), workPrefix)) && e.Name() != lockName {
			names = append(names, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// codeFile returns the only file of code.
func (w *workshop) codeFile(t testing.TB) string {
	t.Helper()
	found, _ := filepath.Glob(filepath.Join(w.config.Dir, codePrefix+"*", "*"))
	if len(found) != 1 {
		t.Fatalf("files of code: %v", found)
	}
	return found[0]
}

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

const magic = "\x00asm\x01\x00\x00\x00"

// function is a module of one function, exported as f.
func function(locals, instructions string) []byte {
	return []byte(magic + section(1, "\x01\x60\x00\x01\x7f") + section(3, "\x01\x00") + section(7, "\x01\x01f\x00\x00") +
		section(10, "\x01"+sized(locals+instructions+"\x0b")))
}

// module returns a small module whose function returns n, below 64.
func module(n int) []byte { return function("\x00", "\x41"+num(n)) }

var (
	// memoryBomb has 4 G locals.
	memoryBomb = function("\x01\xff\xff\xff\xff\x0f\x7f", "\x41\x00")
	// timeBomb has blocks in one another: wazero takes half a minute for it.
	timeBomb = function("\x00", strings.Repeat("\x02\x40", 100_000)+strings.Repeat("\x0b", 100_000)+"\x41\x00")
)

func TestCompile(t *testing.T) {
	w := open(t, nil)
	m, err := w.Compile(t.Context(), w.runtime, module(7))
	if err != nil {
		t.Fatal(err)
	}
	guest, err := w.runtime.InstantiateModule(t.Context(), m, wazero.NewModuleConfig())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := guest.ExportedFunction("f").Call(t.Context()); err != nil || got[0] != 7 {
		t.Errorf("got %v, %v", got, err)
	}
	_ = m.Close(t.Context())
	if len(w.files(t)) != 2 {
		t.Errorf("the folder holds %v", w.files(t))
	}
	if err := w.compile(t.Context(), module(7)); err != nil || w.children(t) != 1 {
		t.Errorf("again: %v, %d children", err, w.children(t))
	}
	w = w.again(t, nil)
	if err := w.compile(t.Context(), module(7)); err != nil || w.children(t) != 0 {
		t.Errorf("after a restart: %v, %d children", err, w.children(t))
	}
	if err := w.compile(t.Context(), []byte(magic)); err != nil {
		t.Errorf("a module without functions: %v", err)
	}
}

// TestLoadNeverCompiles: where there is no code, this process is not held up by
// what a compiler would be.
func TestLoadNeverCompiles(t *testing.T) {
	w := open(t, nil)
	began := time.Now()
	if _, err := load(t.Context(), w.runtime, timeBomb); !errors.Is(err, errMissing) {
		t.Errorf("got %v", err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("took %s", took)
	}
	if files := w.files(t); len(files) > 0 {
		t.Errorf("left %v", files)
	}
}

func TestFailures(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("there are no limits of memory and processor time here")
	}
	for name, c := range map[string]struct {
		binary []byte
		limits Limits
		want   string
	}{
		"memory":    {memoryBomb, limits, "that takes more than 256 MiB of memory|ThreadSanitizer failed to allocate"},
		"processor": {timeBomb, Limits{Memory: 1 << 30, Code: 1 << 20, CPU: time.Second, Wall: time.Hour}, "that takes more than 1s of processor time"},
		"clock":     {timeBomb, Limits{Memory: 1 << 30, Code: 1 << 20, CPU: time.Hour, Wall: 300 * time.Millisecond}, "that takes longer than 300ms"},
		"code":      {module(1), Limits{Memory: 256 << 20, Code: 16, CPU: time.Hour, Wall: time.Hour}, "it has more than 0 MiB of machine code"},
		"damaged":   {module(1)[:20], limits, `cannot compile the module \(20 bytes\): `},
		"invalid":   {function("\x00", ""), limits, `cannot compile the module \(32 bytes\): invalid function\[0\]`},
		"none":      {nil, limits, `cannot compile the module \(0 bytes\): invalid magic number`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := open(t, func(config *Config) { config.Limits = c.limits })
			first := w.compile(t.Context(), c.binary)
			if !errors.Is(first, decant.Invalid) || !regexp.MustCompile(c.want).MatchString(first.Error()) || decantHelp(first) == "" {
				t.Fatalf("got %v, want %q", first, c.want)
			}
			if files := w.files(t); len(files) != 1 || filepath.Dir(files[0]) != filepath.Join(w.config.Dir, recordsName) {
				t.Errorf("left %v", files)
			}
			same := func(c *Config) { c.Limits = w.config.Limits }
			w = w.again(t, same)
			if err := w.compile(t.Context(), c.binary); err == nil || err.Error() != first.Error() || w.children(t) != 0 {
				t.Errorf("remembered: %v, %d children", err, w.children(t))
			}
		})
	}
}

func decantHelp(err error) string {
	e, _ := errors.AsType[*decant.Error](err)
	return e.Help
}

// TestTriedAnew: what is remembered holds for the same version and, where a module
// failed, the same limits.
func TestTriedAnew(t *testing.T) {
	w := open(t, func(c *Config) { c.Limits.Code = 16 })
	if err := w.compile(t.Context(), module(1)); !errors.Is(err, decant.Invalid) {
		t.Fatal(err)
	}
	w = w.again(t, nil)
	if err := w.compile(t.Context(), module(1)); err != nil {
		t.Fatalf("with other limits: %v", err)
	}
	w = w.again(t, func(c *Config) { c.Limits.Code = 16 })
	if err := w.compile(t.Context(), module(1)); err != nil || w.children(t) != 0 {
		t.Errorf("code that is there: %v, %d children", err, w.children(t))
	}
	w = w.again(t, func(c *Config) { c.Version = "2" })
	if files := w.files(t); len(files) != 0 {
		t.Errorf("another version keeps %v", files)
	}
	if err := w.compile(t.Context(), module(1)); err != nil || w.children(t) != 1 {
		t.Errorf("another version: %v, %d children", err, w.children(t))
	}
}

// TestNotOfTheModule: what has other reasons is not remembered.
func TestNotOfTheModule(t *testing.T) {
	exe, _ := os.Executable()
	for name, c := range map[string]struct {
		command []string
		want    string
		code    decant.Code
	}{
		"no such program":    {[]string{"/does/not/exist"}, "cannot start the compiler", decant.Internal},
		"another program":    {[]string{exe, brokenMode, "-"}, "the compiler did not start: status 2:  unknown command [2J", decant.Internal},
		"one that says none": {[]string{"/bin/true"}, "the compiler did not start: status 0", decant.Internal},
	} {
		w := open(t, func(config *Config) { config.Command = c.command })
		err := w.compile(t.Context(), module(1))
		if !errors.Is(err, c.code) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
		if files := w.files(t); len(files) > 0 {
			t.Errorf("%s: left %v", name, files)
		}
	}
	for _, command := range [][]string{nil, {"relative"}} {
		if _, err := Open(Config{Dir: t.TempDir(), Command: command}); !errors.Is(err, decant.Internal) {
			t.Errorf("command %v: %v", command, err)
		}
	}
}

// TestJudge holds how each ending of a child is told.
func TestJudge(t *testing.T) {
	l := Limits{Memory: 1 << 20, Code: 1 << 20, CPU: 10 * time.Second, Wall: time.Minute}
	for _, c := range []struct {
		end  ending
		want string
	}{
		{ending{status: exitDone, out: begun}, ""},
		{ending{status: exitRefused, out: begun + "no\n"}, "invalid: cannot compile the module (3 bytes): no"},
		{ending{status: exitMemory, out: begun}, "invalid: cannot compile the module (3 bytes): that takes more than 1 MiB of memory"},
		{ending{status: 2, out: begun, log: "fatal error: runtime: out of memory"}, "invalid: cannot compile the module (3 bytes): that takes more than 1 MiB of memory"},
		{ending{status: exitCode, out: begun}, "invalid: cannot compile the module (3 bytes): it has more than 1 MiB of machine code"},
		{ending{status: -1, out: begun, cpu: l.CPU}, "invalid: cannot compile the module (3 bytes): that takes more than 10s of processor time"},
		{ending{status: -1, out: begun, late: true}, "invalid: cannot compile the module (3 bytes): that takes longer than 1m0s"},
		{ending{status: 2, out: begun, log: "panic: oh\t\nmore"}, "invalid: cannot compile the module (3 bytes): the compiler broke down: panic: oh "},
		{ending{status: 2, out: begun, log: "runtime: failed to create new OS thread (have 5 already; errno=11)\nfatal error: runtime.newosproc"}, "exhausted: the compiler of a module got no thread"},
		{ending{status: exitWrite, out: begun + "full"}, "exhausted: cannot keep a compiled module: full"},
		{ending{status: -1, out: begun, cpu: 8 * time.Second}, "exhausted: the compiler of a module was killed"},
		{ending{status: -1}, "exhausted: the compiler of a module was killed"},
		{ending{status: 2, log: "fatal error: out of memory"}, "internal: the compiler did not start: status 2:  fatal error: out of memory"},
		{ending{status: exitOrder, out: "not permitted"}, fmt.Sprintf("internal: the compiler did not start: status %d: not permitted ", exitOrder)},
	} {
		failure, err := c.end.judge(l, 3)
		if failure != nil && err == nil {
			err = failure
		}
		if (failure != nil) != strings.HasPrefix(c.want, "invalid") {
			t.Errorf("%+v: it is remembered: %v", c.end, failure != nil)
		}
		got := ""
		if e, ok := errors.AsType[*decant.Error](err); ok {
			got = string(e.Code) + ": " + e.Message
		}
		if got != c.want {
			t.Errorf("%+v: got %q, want %q", c.end, got, c.want)
		}
	}
}

func TestStatusOf(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, exitDone},
		{errors.New("invalid magic number"), exitRefused},
		{&fs.PathError{Op: "write", Path: "x", Err: syscall.EFBIG}, exitCode},
		{&fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}, exitWrite},
		{os.NewSyscallError("mmap", syscall.ENOMEM), exitMemory},
	} {
		if got := statusOf(c.err); got != c.want {
			t.Errorf("%v: got %d, want %d", c.err, got, c.want)
		}
	}
}

// TestDamaged: code that is not what was kept is never loaded.
func TestDamaged(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, code string) error{
		"a flipped bit": func(t *testing.T, code string) error {
			b, err := os.ReadFile(code)
			b[len(b)/2] ^= 1
			return errors.Join(err, os.WriteFile(code, b, 0o600))
		},
		"cut short":  func(_ *testing.T, code string) error { return os.Truncate(code, 10) },
		"gone":       func(_ *testing.T, code string) error { return os.Remove(code) },
		"for others": func(_ *testing.T, code string) error { return os.Chmod(code, 0o620) },
		"of another": func(t *testing.T, code string) error {
			if os.Geteuid() != 0 {
				t.Skip("only root gives files away")
			}
			return os.Chown(code, 1, 1)
		},
		"a link": func(_ *testing.T, code string) error {
			return errors.Join(os.Rename(code, code+".x"), os.Symlink(code+".x", code))
		},
		"no record": func(_ *testing.T, code string) error {
			return os.RemoveAll(filepath.Join(filepath.Dir(filepath.Dir(code)), recordsName))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := open(t, nil)
			if err := w.compile(t.Context(), module(1)); err != nil {
				t.Fatal(err)
			}
			code := w.codeFile(t)
			was, _ := os.ReadFile(code)
			if err := damage(t, code); err != nil {
				t.Fatal(err)
			}
			w = w.again(t, nil)
			if err := w.compile(t.Context(), module(1)); err != nil || w.children(t) != 1 {
				t.Errorf("got %v, %d children", err, w.children(t))
			}
			if now, _ := os.ReadFile(w.codeFile(t)); !bytes.Equal(now, was) {
				t.Error("the code is not what it was")
			}
		})
	}
}

// TestRemovedWhileOpen: code that another process removed is made again, once it
// is missed.
func TestRemovedWhileOpen(t *testing.T) {
	w := open(t, nil)
	for want := 1; want <= 2; want++ {
		if err := w.compile(t.Context(), module(1)); err != nil || w.children(t) != want {
			t.Errorf("got %v, %d children", err, w.children(t))
		}
		if err := os.Remove(w.codeFile(t)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestOtherEngine: a child that compiles for another engine than the runtime is
// found out, and the runtime does not compile in its place.
func TestOtherEngine(t *testing.T) {
	w := open(t, nil)
	r := wazero.NewRuntimeWithConfig(t.Context(), runtimeConfig().WithCloseOnContextDone(true).WithCompilationCache(w.Compilation()))
	defer r.Close(t.Context())
	if _, err := w.Compile(t.Context(), r, module(1)); !errors.Is(err, decant.Internal) || w.children(t) != 2 {
		t.Errorf("got %v, %d children", err, w.children(t))
	}
}

func TestRefusedFolders(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, dir string) error{
		"for others to read": func(_ *testing.T, dir string) error { return os.Chmod(dir, 0o750) },
		"of another": func(t *testing.T, dir string) error {
			if os.Geteuid() != 0 {
				t.Skip("only root gives folders away")
			}
			return os.Chown(dir, 1, 1)
		},
		"a link": func(_ *testing.T, dir string) error {
			return errors.Join(os.Rename(dir, dir+".x"), os.Symlink(dir+".x", dir))
		},
		"records for others": func(_ *testing.T, dir string) error { return os.Chmod(filepath.Join(dir, recordsName), 0o702) },
		"code elsewhere": func(t *testing.T, dir string) error {
			return os.Symlink(t.TempDir(), filepath.Join(dir, codePrefix+"v9"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := open(t, nil)
			w.close()
			if err := change(t, w.config.Dir); err != nil {
				t.Fatal(err)
			}
			_, err := tryOpen(t, func(c *Config) { c.Dir = w.config.Dir })
			if !errors.Is(err, decant.Denied) || decantHelp(err) == "" {
				t.Errorf("got %v", err)
			}
		})
	}
}

// listen makes a socket for held children, and accept waits for the next one.
func listen(t *testing.T) (socket string, accept func() (net.Conn, int)) {
	t.Helper()
	dir, err := os.MkdirTemp("", "held") // short: a socket's path is
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String(), func() (net.Conn, int) {
		soon := time.Now().Add(20 * time.Second)
		_ = l.(*net.UnixListener).SetDeadline(soon)
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(soon)
		t.Cleanup(func() { conn.Close() })
		pid := 0
		if _, err := fmt.Fscanln(conn, &pid); err != nil {
			t.Fatal(err)
		}
		return conn, pid
	}
}

// let lets a child go on.
func let(conn net.Conn) { _, _ = conn.Write([]byte{1}) }

// gone waits until a child is dead.
func gone(t *testing.T, conn net.Conn, pid int) {
	t.Helper()
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the child lives on: %v", err)
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

func TestCancel(t *testing.T) {
	socket, accept := listen(t)
	w := open(t, func(c *Config) { c.Command = []string{c.Command[0], heldMode, socket} })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- w.compile(ctx, timeBomb) }()
	conn, pid := accept()
	let(conn)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	gone(t, conn, pid)
	if _, err := os.Stat(fmt.Sprint("/proc/", pid)); err == nil {
		t.Error("the child is a zombie")
	}
	if files := w.files(t); len(files) > 0 {
		t.Errorf("left %v", files)
	}
}

// TestWaiting: who waits for another's compiling goes when its context ends, and
// takes over when the other's does.
func TestWaiting(t *testing.T) {
	socket, accept := listen(t)
	w := open(t, func(c *Config) { c.Command = []string{c.Command[0], heldMode, socket} })
	first, cancel := context.WithCancel(t.Context())
	firstDone, secondDone := make(chan error), make(chan error)
	go func() { firstDone <- w.compile(first, module(1)) }()
	conn, pid := accept()
	ended, end := context.WithCancel(t.Context())
	end()
	if err := w.compile(ended, module(1)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	go func() { secondDone <- w.compile(t.Context(), module(1)) }()
	cancel()
	if err := <-firstDone; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	gone(t, conn, pid)
	conn, _ = accept()
	let(conn)
	if err := <-secondDone; err != nil {
		t.Error(err)
	}
}

// TestKilled: a program that is killed while it compiles takes its child with it,
// and what it leaves is cleared up.
func TestKilled(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("children outlive their parents here")
	}
	w := open(t, nil)
	w.close()
	socket, accept := listen(t)
	exe, _ := os.Executable()
	program := exec.Command(exe, parentMode, w.config.Dir, socket)
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	conn, pid := accept()
	let(conn)
	if err := program.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = program.Wait()
	gone(t, conn, pid)
	if files := w.files(t); len(files) != 1 {
		t.Errorf("it was not at work: %v", files)
	}
	w = w.again(t, nil)
	if files := w.files(t); len(files) != 0 {
		t.Errorf("left %v", files)
	}
	if err := w.compile(t.Context(), module(1)); err != nil {
		t.Error(err)
	}
}

// TestCrashes: whatever a crash leaves of what keep does, the next Open takes.
func TestCrashes(t *testing.T) {
	w := open(t, nil)
	if err := w.compile(t.Context(), module(1)); err != nil {
		t.Fatal(err)
	}
	code, record := w.codeFile(t), w.config.recordPath(digestOf(module(1)))
	for name, crash := range map[string]func() error{
		"code without a record":   func() error { return os.Remove(record) },
		"a record without code":   func() error { return os.Remove(code) },
		"an empty record":         func() error { return os.Truncate(record, 0) },
		"the record's other name": func() error { return os.Rename(record, record+".tmp") },
		"a file of wazero's":      func() error { return os.WriteFile(code+".123.tmp", nil, 0o600) },
		"a folder at work":        func() error { return os.MkdirAll(filepath.Join(w.config.Dir, workPrefix+"1", "x"), 0o700) },
	} {
		if err := crash(); err != nil {
			t.Fatal(name, err)
		}
		w = w.again(t, nil)
		if err := w.compile(t.Context(), module(1)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if files := w.files(t); len(files) != 2 {
			t.Errorf("%s: left %v", name, files)
		}
	}
}

// TestShared: who opens a folder that is in use does not clear up.
func TestShared(t *testing.T) {
	a := open(t, nil)
	work := filepath.Join(a.config.Dir, workPrefix+"1")
	if err := os.Mkdir(work, 0o700); err != nil {
		t.Fatal(err)
	}
	b := open(t, func(c *Config) { c.Dir = a.config.Dir })
	if _, err := os.Stat(work); err != nil {
		t.Error(err)
	}
	if err := errors.Join(a.compile(t.Context(), module(1)), b.compile(t.Context(), module(1))); err != nil || b.children(t) != 0 {
		t.Errorf("got %v, %d children", err, b.children(t))
	}
}

// TestConcurrent: one child a module, and no more at a time than there are slots.
func TestConcurrent(t *testing.T) {
	w := open(t, nil)
	var all sync.WaitGroup
	for n := range 4 {
		for range 4 {
			all.Go(func() {
				if err := w.compile(t.Context(), module(n)); err != nil {
					t.Error(err)
				}
			})
		}
	}
	all.Wait()
	b, err := os.ReadFile(w.log)
	if err != nil || w.children(t) != 4 {
		t.Errorf("children: %s, %v", b, err)
	}
	at := 0
	for _, c := range b {
		if at += map[byte]int{'(': 1, ')': -1}[c]; at > cap(w.slots) {
			t.Errorf("%d children at a time: %s", at, b)
		}
	}
	if len(w.busy) != 0 {
		t.Errorf("%d are busy", len(w.busy))
	}
}

func digestOf(binary []byte) digest { return sha256.Sum256(binary) }

func TestEvict(t *testing.T) {
	w := open(t, nil)
	if err := w.compile(t.Context(), module(1)); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(w.codeFile(t))
	if err != nil {
		t.Fatal(err)
	}
	w = w.again(t, func(c *Config) { c.Size = 2 * (recordSize + info.Size()) })
	if err := w.compile(t.Context(), module(2)); err != nil {
		t.Fatal(err)
	}
	for n, ago := range []time.Duration{time.Hour, 2 * time.Hour} { // 2 is older
		then := time.Now().Add(-ago)
		if err := os.Chtimes(w.config.recordPath(digestOf(module(n+1))), then, then); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.compile(t.Context(), module(2)); err != nil { // but used
		t.Fatal(err)
	}
	if err := w.compile(t.Context(), module(3)); err != nil {
		t.Fatal(err)
	}
	for n, want := range []bool{false, true, true} {
		if _, err := os.Stat(w.config.recordPath(digestOf(module(n + 1)))); (err == nil) != want {
			t.Errorf("module %d: %v", n+1, err)
		}
	}
	if files := w.files(t); len(files) != 4 {
		t.Errorf("left %v", files)
	}
	if err := w.compile(t.Context(), module(1)); err != nil {
		t.Errorf("the one that went: %v", err)
	}
	w = w.again(t, func(c *Config) { c.Size = 1 })
	if files := w.files(t); len(files) != 0 {
		t.Errorf("opened smaller, it keeps %v", files)
	}
	if err := w.compile(t.Context(), module(1)); err != nil {
		t.Errorf("one that is too large is still loaded: %v", err)
	}
}
