package fetch

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/decant-project/decant"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeSource has files by name.
type fakeSource struct {
	name  string
	files map[string]string
	err   error // after its files
	asked []string
	wait  bool // until the context ends
}

func (s *fakeSource) String() string { return s.name }

func (s *fakeSource) each(ctx context.Context, _ *progress, dir string, names []string, put func(string, io.Reader) error) error {
	s.asked = append(s.asked, strings.Join(names, " "))
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		return errors.Join(err, errors.New("the folder is not empty"))
	}
	if err := os.WriteFile(filepath.Join(dir, "meanwhile"), nil, 0o600); err != nil {
		return err
	}
	for _, name := range names {
		if content, ok := s.files[name]; ok {
			if err := put(name, strings.NewReader(content)); err != nil {
				return err
			}
		}
	}
	if s.wait {
		<-ctx.Done()
		return decant.Errorf(decant.Deadline, "it did not end in time")
	}
	return s.err
}

// place is where the files of a test go.
type place struct {
	t *testing.T
	Fetcher
	dir string
}

func newPlace(t *testing.T) *place {
	dir := t.TempDir()
	return &place{t, Fetcher{Cache: filepath.Join(dir, "cache"), Timeout: time.Minute}, dir}
}

// file is one that must hold content in the end.
func (p *place) file(name, content string) File {
	return File{Name: name, Path: filepath.Join(p.dir, "to", filepath.Base(name)), Digest: decant.DigestOf([]byte(content)), Size: decant.Bytes(len(content))}
}

// holds checks what is at a file's path; "" is nothing.
func (p *place) holds(f File, content string) {
	p.t.Helper()
	got, err := os.ReadFile(f.Path)
	if string(got) != content || content != "" && err != nil {
		p.t.Errorf("%s holds %q, %v; want %q", f.Name, got, err, content)
	}
}

// tidy checks that nothing is left of what was under way.
func (p *place) tidy() {
	p.t.Helper()
	for _, pattern := range []string{"cache/tmp-*", "cache/.new-*", "to/.new-*"} {
		if left, _ := filepath.Glob(filepath.Join(p.dir, pattern)); len(left) > 0 {
			p.t.Errorf("left over: %v", left)
		}
	}
}

func TestGet(t *testing.T) {
	broken := decant.Errorf(decant.Unavailable, "no network")
	all := map[string]string{"lib/a.so": "content of a", "lib/b.so": "content of b"}
	tests := []struct {
		name    string
		sources []*fakeSource
		asked   []string // of each source, what it was asked for
		text    string   // in the error; "" is none
	}{
		{"one source", []*fakeSource{{name: "one", files: all}}, []string{"lib/a.so lib/b.so"}, ""},
		{"the first that has it", []*fakeSource{{name: "one", files: all}, {name: "two", files: all}}, []string{"lib/a.so lib/b.so", ""}, ""},
		{"the second", []*fakeSource{{name: "one", err: broken}, {name: "two", files: all}}, []string{"lib/a.so lib/b.so", "lib/a.so lib/b.so"}, ""},
		{
			"a file each",
			[]*fakeSource{{name: "one", files: map[string]string{"lib/b.so": all["lib/b.so"]}}, {name: "two", files: map[string]string{"lib/a.so": all["lib/a.so"]}}},
			[]string{"lib/a.so lib/b.so", "lib/a.so"},
			"",
		},
		{"an error after all files", []*fakeSource{{name: "one", files: all, err: broken}}, []string{"lib/a.so lib/b.so"}, ""},
		{"another file under its name", []*fakeSource{{name: "one", files: map[string]string{"lib/a.so": "content of x"}}, {name: "two", files: all}}, []string{"lib/a.so lib/b.so", "lib/a.so lib/b.so"}, ""},
		{"none", nil, nil, "cannot get a.so: "},
		{
			"none has it",
			[]*fakeSource{{name: "one", err: broken}, {name: "two", files: map[string]string{"lib/a.so": all["lib/a.so"]}}},
			[]string{"lib/a.so lib/b.so", "lib/a.so lib/b.so"},
			"cannot get b.so: one: no network; two: it has no b.so",
		},
		{
			"another file everywhere",
			[]*fakeSource{{name: "one", files: map[string]string{"lib/a.so": "content of x", "lib/b.so": all["lib/b.so"]}}},
			[]string{"lib/a.so lib/b.so"},
			"one: a.so is not what it must be: its digest is " + decant.DigestOf([]byte("content of x")).Short() + ", not " + decant.DigestOf([]byte("content of a")).Short(),
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newPlace(t)
			a, b := p.file("lib/a.so", "content of a"), p.file("lib/b.so", "content of b")
			var sources []Source
			for _, s := range tt.sources {
				sources = append(sources, s)
			}
			err := p.Get(t.Context(), []File{a, b}, sources...)
			if tt.text == "" {
				if err != nil {
					t.Fatal(err)
				}
				p.holds(a, "content of a")
				p.holds(b, "content of b")
				if info, err := os.Stat(a.Path); err != nil || info.Mode() != 0o644 {
					t.Errorf("mode %v, %v", info.Mode(), err)
				}
			} else if !errors.Is(err, decant.Unavailable) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v", err)
			}
			if tt.text != "" {
				for _, f := range []File{a, b} {
					if got, err := os.ReadFile(f.Path); err == nil && decant.DigestOf(got) != f.Digest {
						t.Errorf("%s holds %q", f.Name, got)
					}
				}
			}
			for i, s := range tt.sources {
				if got := strings.Join(s.asked, "; "); got != tt.asked[i] {
					t.Errorf("%s was asked for %q, want %q", s.name, got, tt.asked[i])
				}
			}
			p.tidy()
		})
	}
}

// TestCache: what was got once is not got again, unless it is damaged.
func TestCache(t *testing.T) {
	const content = "a model"
	tests := []struct {
		name   string
		damage func(t *testing.T, p *place, f File)
		asked  int // of the source, after that
	}{
		{"all is well", func(*testing.T, *place, File) {}, 0},
		{"the file is lost", func(t *testing.T, _ *place, f File) { must(t, os.Remove(f.Path)) }, 0},
		{"the file is damaged", func(t *testing.T, _ *place, f File) { must(t, os.WriteFile(f.Path, []byte("a mOdel"), 0o600)) }, 0},
		{"the file is cut", func(t *testing.T, _ *place, f File) { must(t, os.Truncate(f.Path, 3)) }, 0},
		{"the file has grown", func(t *testing.T, _ *place, f File) {
			must(t, os.WriteFile(f.Path, []byte(content+" and more"), 0o600))
		}, 0},
		{"the cache is damaged, but not the file", func(t *testing.T, p *place, f File) { must(t, os.Truncate(p.cached(f), 3)) }, 0},
		{"both are damaged", func(t *testing.T, p *place, f File) {
			must(t, os.Truncate(f.Path, 3))
			must(t, os.WriteFile(p.cached(f), []byte("a mOdel"), 0o600))
		}, 1},
		{"the cache is cut, and the file lost", func(t *testing.T, p *place, f File) {
			must(t, os.Remove(f.Path))
			must(t, os.Truncate(p.cached(f), 3))
		}, 1},
		{"both are lost", func(t *testing.T, p *place, f File) { must(t, os.RemoveAll(p.dir)) }, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newPlace(t)
			f := p.file("m.onnx", content)
			must(t, p.Get(t.Context(), []File{f}, &fakeSource{files: map[string]string{"m.onnx": content}}))
			tt.damage(t, p, f)
			if tt.asked > 0 {
				// Without a source what is damaged is not taken for the file.
				if err := p.Get(t.Context(), []File{f}); !errors.Is(err, decant.Unavailable) {
					t.Errorf("without a source: %v", err)
				}
			}
			s := &fakeSource{files: map[string]string{"m.onnx": content}}
			must(t, p.Get(t.Context(), []File{f}, s))
			p.holds(f, content)
			if len(s.asked) != tt.asked {
				t.Errorf("the source was asked %d times", len(s.asked))
			}
			p.tidy()
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// endless counts what is read of it.
type endless struct{ read int }

func (e *endless) Read(p []byte) (int, error) {
	e.read += len(p)
	return len(p), nil
}

func TestSave(t *testing.T) {
	dir := t.TempDir()
	f := File{Name: "x/f", Digest: decant.DigestOf([]byte("content")), Size: 7}
	large := &endless{}
	broken := errors.New("broken")
	tests := []struct {
		name string
		r    io.Reader
		code decant.Code // "" is success
	}{
		{"the file", strings.NewReader("content"), ""},
		{"the file, a byte at a time", iotest.OneByteReader(strings.NewReader("content")), ""},
		{"another", strings.NewReader("contenT"), decant.Corrupt},
		{"shorter", strings.NewReader("conten"), decant.Corrupt},
		{"longer", strings.NewReader("content!"), decant.Corrupt},
		{"without end", large, decant.Corrupt},
		{"nothing", strings.NewReader(""), decant.Corrupt},
		{"broken off", io.MultiReader(strings.NewReader("con"), iotest.ErrReader(broken)), decant.Internal},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(dir, "to", "f")
			must(t, os.MkdirAll(filepath.Dir(path), 0o700))
			must(t, os.WriteFile(path, []byte("before"), 0o600))
			err := save(path, tt.r, f)
			want := "before" // whole or not at all
			if tt.code == "" {
				want = "content"
			}
			if got, _ := os.ReadFile(path); decant.CodeOf(err) != tt.code || string(got) != want {
				t.Errorf("%v (%s), and %q", err, decant.CodeOf(err), got)
			}
			if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 1 {
				t.Errorf("left over: %v", left)
			}
		})
	}
	if large.read > 1<<20 {
		t.Errorf("read %d bytes of a file of 7", large.read)
	}
	must(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	if err := save(filepath.Join(dir, "file", "f"), strings.NewReader("content"), f); !errors.Is(err, decant.Internal) {
		t.Errorf("into no folder: %v", err)
	}
}

// TestTimeout, in a time of its own: a source that hangs does not keep the
// next from its turn, but the end of the caller's own context ends all.
func TestTimeout(t *testing.T) {
	p := newPlace(t)
	f := p.file("f", "content")
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		err := p.Get(t.Context(), []File{f}, &fakeSource{name: "slow", wait: true})
		if !errors.Is(err, decant.Unavailable) || !strings.Contains(err.Error(), "slow: it did not end in time") || time.Since(began) != p.Timeout {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		must(t, p.Get(t.Context(), []File{f}, &fakeSource{wait: true}, &fakeSource{files: map[string]string{"f": "content"}}))
		p.holds(f, "content")

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		next := &fakeSource{}
		if err := p.Get(ctx, []File{p.file("g", "other")}, &fakeSource{wait: true}, next); !errors.Is(err, context.DeadlineExceeded) || next.asked != nil {
			t.Errorf("%v, then asked for %v", err, next.asked)
		}
	})
	p.tidy()
}

// TestSweep: what killed fetches left goes, but not what is under way.
func TestSweep(t *testing.T) {
	p := newPlace(t)
	old, fresh := filepath.Join(p.Cache, "tmp-old"), filepath.Join(p.Cache, "tmp-fresh")
	for _, dir := range []string{old, fresh} {
		must(t, os.MkdirAll(filepath.Join(dir, "in", "it"), 0o700))
	}
	must(t, os.Chtimes(old, time.Time{}, time.Now().Add(-2*time.Hour)))
	must(t, p.Get(t.Context(), []File{p.file("f", "content")}, &fakeSource{files: map[string]string{"f": "content"}}))
	if _, err := os.Stat(old); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the old: %v", err)
	}
	if _, err := os.Stat(fresh); err != nil {
		t.Errorf("the fresh: %v", err)
	}
}

// TestSameFileTwice: one file of a source may have two places.
func TestSameFileTwice(t *testing.T) {
	p := newPlace(t)
	a, b := p.file("f", "content"), p.file("f", "content")
	b.Path += "2"
	must(t, p.Get(t.Context(), []File{a, b}, &fakeSource{files: map[string]string{"f": "content"}}))
	p.holds(a, "content")
	p.holds(b, "content")
}

func TestCopy(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "sub", "to")
	must(t, os.WriteFile(from, []byte("content"), 0o600))
	for range 2 { // over itself too
		must(t, Copy(from, to))
		if got, err := os.ReadFile(to); err != nil || string(got) != "content" {
			t.Fatalf("%q, %v", got, err)
		}
	}
	must(t, Copy(from, from))
	if got, _ := os.ReadFile(from); string(got) != "content" {
		t.Errorf("copied to itself it holds %q", got)
	}
	link := filepath.Join(dir, "link")
	must(t, os.Symlink(from, link))
	must(t, Copy(from, link))
	if target, err := os.Readlink(link); err != nil || target != from {
		t.Errorf("a link to itself is now %q, %v", target, err)
	}
	if err := Copy(filepath.Join(dir, "none"), to); !errors.Is(err, decant.NotFound) {
		t.Errorf("no file: %v", err)
	}
	if err := Copy(dir, to); err == nil {
		t.Error("copied a folder")
	}
	if got, _ := os.ReadFile(to); string(got) != "content" {
		t.Errorf("after failures it holds %q", got)
	}
}

func TestProgressWithoutTerminal(t *testing.T) {
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	must(t, err)
	defer out.Close()
	p := &progress{out: out}
	p.watch("a package", t.TempDir(), -1)()
	r, stop := p.count("a file", strings.NewReader("content"), 7<<20)
	if got, err := io.ReadAll(r); err != nil || string(got) != "content" {
		t.Errorf("%q, %v", got, err)
	}
	stop()
	if got, err := os.ReadFile(out.Name()); err != nil || string(got) != "getting a package\ngetting a file (7MiB)\n" {
		t.Errorf("%q, %v", got, err)
	}
	silent := &progress{}
	silent.watch("a package", t.TempDir(), 7)()
}

func TestTail(t *testing.T) {
	tests := []struct{ in, want string }{
		{"", ""},
		{"one", "one"},
		{"one\ntwo\n", "two"},
		{"one\n two \r\n\n\n", "two"},
		{strings.Repeat("x", 3*maxTail) + "\nlast", "last"},
		{strings.Repeat("x", 3*maxTail), strings.Repeat("x", maxTail)},
	}
	for _, tt := range tests {
		for _, step := range []int{1, 1000, 1 << 20} {
			var said tail
			for in := tt.in; in != ""; in = in[min(step, len(in)):] {
				if n, err := io.WriteString(&said, in[:min(step, len(in))]); err != nil || n != min(step, len(in)) {
					t.Fatal(n, err)
				}
			}
			if got := said.line(); got != tt.want {
				t.Errorf("%.20q in steps of %d: %.20q", tt.in, step, got)
			}
		}
	}
}
