package wasm

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	expsys "github.com/tetratelabs/wazero/experimental/sys"

	"github.com/decant-project/decant"
)

// newState is the root of a session with a /state of its own.
func newState(t *testing.T, limit int) (r *rootFS, dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "state")
	s := &session{ctx: t.Context(), guest: &Guest{config: GuestConfig{State: dir, StateLimit: decant.Bytes(limit), Output: 1000, Log: &strings.Builder{}}}}
	s.guest.stopped = t.Context()
	r, err := newRootFS(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.close() })
	return r, dir
}

const create = expsys.O_CREAT | expsys.O_RDWR

// TestUnlinkedFilesCount: a file without a name counts until it is closed.
func TestUnlinkedFilesCount(t *testing.T) {
	r, _ := newState(t, 10<<10)
	fill := func() (expsys.File, expsys.Errno) {
		f, errno := r.OpenFile("state/a", create, 0o600)
		if errno == 0 {
			_, errno = f.Write(make([]byte, 5<<10))
		}
		return f, errno
	}
	first, errno := fill()
	if errno != 0 {
		t.Fatal(errno)
	}
	again, errno := r.OpenFile("state/a", expsys.O_RDONLY, 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	if errno := r.Unlink("state/a"); errno != 0 {
		t.Fatal(errno)
	}
	if _, errno := fill(); errno == 0 {
		t.Error("it did not count after it had lost its name")
	}
	if _, errno := first.Write(make([]byte, 512)); errno != 0 {
		t.Errorf("with two handles it counts twice: %v", errno)
	}
	_ = first.Close()
	if _, errno := fill(); errno == 0 {
		t.Error("it did not count with another handle open")
	}
	_ = again.Close()
	if _, errno := fill(); errno != 0 {
		t.Errorf("it counts after it was closed: %v", errno)
	}
}

// TestLongPaths: no path can be made that the host could not walk or remove.
func TestLongPaths(t *testing.T) {
	r, dir := newState(t, 64<<20)
	levels := func(n int) string { return "state" + strings.Repeat("/d", n) }
	long := func(n int) string { return "state" + strings.Repeat("/"+strings.Repeat("n", 200), n) }
	above := "state/" + strings.Repeat("a", 240)
	for _, path := range []func(int) string{levels, long} {
		n := 1
		for ; n < 2000; n++ {
			if errno := r.Mkdir(path(n), 0o700); errno != 0 {
				break
			}
		}
		if errno := r.Mkdir(path(n), 0o700); errno != expsys.ENAMETOOLONG || n < 6 || n > 33 {
			t.Errorf("the folder at level %d of %.20s: %v", n, path(1), errno)
		}
		if _, errno := r.OpenFile(path(n), create, 0o600); errno != expsys.ENAMETOOLONG {
			t.Errorf("a file at level %d of %.20s: %v", n, path(1), errno)
		}
		if errno := r.Mkdir(above, 0o700); errno != 0 {
			t.Fatal(errno)
		}
		for _, to := range []string{above + "/d", path(n)} {
			if errno := r.Rename(path(1), to); errno != expsys.ENAMETOOLONG {
				t.Errorf("moving %d levels of %.20s to %.20s: %v", n-1, path(1), to, errno)
			}
		}
		if errno := r.Rename(path(2), above+"/d"); errno != 0 {
			t.Errorf("moving as many levels as there may be: %v", errno)
		}
		if err := os.RemoveAll(filepath.Join(dir, "..", above)); err != nil {
			t.Error(err)
		}
	}
	if _, err := r.state.count(); err != nil {
		t.Error(err)
	}
}

// TestUncountable: what cannot be counted is not taken for nothing.
func TestUncountable(t *testing.T) {
	r, dir := newState(t, 10<<10)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if n, err := r.state.count(); err == nil {
		t.Errorf("counted %d", n)
	}
	if errno := r.state.take(20 << 10); errno == 0 {
		t.Error("took what cannot be counted")
	}
}

// TestEndedHandle: an open file neither reads nor writes once the call has
// ended, and the call fails whatever the guest makes of that.
func TestEndedHandle(t *testing.T) {
	r, _ := newState(t, 64<<10)
	f, errno := r.OpenFile("state/a", create, 0o600)
	if errno != 0 {
		t.Fatal(errno)
	}
	ctx, cancel := context.WithCancel(t.Context())
	s := r.session
	s.in.Reset([]byte("request"))
	s.ctx = ctx
	at := func(f func([]byte, int64) (int, expsys.Errno)) func([]byte) (int, error) {
		return func(p []byte) (int, error) { return errnoIn(f(p, 0)) }
	}
	plain := func(f func([]byte) (int, expsys.Errno)) func([]byte) (int, error) {
		return func(p []byte) (int, error) { return errnoIn(f(p)) }
	}
	all := map[string]func([]byte) (int, error){
		"write": plain(f.Write), "pwrite": at(f.Pwrite), "pread": at(f.Pread), "read": plain(f.Read),
		"standard input": s.read, "standard output": s.write, "standard error": s.log,
	}
	for name, do := range all {
		if _, err := do([]byte("x")); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := s.finish(); err != nil {
		t.Error(err)
	}
	cancel()
	for name, do := range all {
		s.cut = nil
		if _, err := do([]byte("x")); err == nil {
			t.Errorf("%s after the call's end", name)
		}
		if _, err := s.finish(); !errors.Is(err, decant.Deadline) {
			t.Errorf("%s: the call ends with %v", name, err)
		}
	}
}

// errnoIn makes an error of an errno, if it is one.
func errnoIn(n int, errno expsys.Errno) (int, error) {
	if errno != 0 {
		return n, errno
	}
	return n, nil
}
