package fetch

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/decant-project/decant"
)

const (
	libName = "package/lib/libx.so.1"
	lib     = "a library"
	docName = "package/LICENSE"
	doc     = "a licence"
)

// content is what each source of these tests has.
var content = map[string]string{libName: lib, docName: doc}

// testSource is what holds of each source, however it gets its files. make
// makes one that has these files.
func testSource(t *testing.T, make func(t *testing.T, files map[string]string) Source) {
	t.Run("gives what it is asked for", func(t *testing.T) {
		p := newPlace(t)
		s := make(t, content)
		a, b := p.file(libName, lib), p.file(docName, doc)
		must(t, p.Get(t.Context(), []File{a}, s))
		p.holds(a, lib)
		p.holds(b, "")
		must(t, p.Get(t.Context(), []File{a, b}, s))
		p.holds(b, doc)
		p.tidy()
	})
	t.Run("gives what it has", func(t *testing.T) {
		p := newPlace(t)
		none, b := p.file("package/none", "none"), p.file(docName, doc)
		err := p.Get(t.Context(), []File{none, b}, make(t, content))
		if !errors.Is(err, decant.Unavailable) || !strings.Contains(err.Error(), "it has no none") {
			t.Errorf("got %v", err)
		}
		must(t, p.Get(t.Context(), []File{b})) // from the cache
		p.holds(b, doc)
		p.holds(none, "")
		p.tidy()
	})
	for name, other := range map[string]string{
		"another file": "a Library", "a larger file": lib + strings.Repeat(" and more", 10_000), "a part of the file": lib[:4], "nothing": "",
	} {
		t.Run("refuses "+name, func(t *testing.T) {
			p := newPlace(t)
			a := p.file(libName, lib)
			err := p.Get(t.Context(), []File{a}, make(t, map[string]string{libName: other}))
			if !errors.Is(err, decant.Unavailable) || !strings.Contains(err.Error(), "libx.so.1 is not what it must be") {
				t.Errorf("got %v", err)
			}
			p.holds(a, "")
			if _, err := os.Stat(p.cached(a)); err == nil {
				t.Error("it is in the cache")
			}
			p.tidy()
		})
	}
}

func TestFolder(t *testing.T) {
	testSource(t, func(t *testing.T, files map[string]string) Source {
		dir := t.TempDir()
		for name, content := range files {
			must(t, os.WriteFile(filepath.Join(dir, path.Base(name)), []byte(content), 0o600))
		}
		return Folder(dir)
	})
	p := newPlace(t)
	for name, s := range map[string]Source{"no folder": Folder(filepath.Join(t.TempDir(), "none")), "a file": Folder(os.Args[0])} {
		if err := p.Get(t.Context(), []File{p.file(libName, lib)}, s); !errors.Is(err, decant.Unavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWeb(t *testing.T) {
	defer http.DefaultClient.CloseIdleConnections()
	testSource(t, func(t *testing.T, files map[string]string) Source {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			for name, content := range files {
				if r.URL.Path == "/v1/"+path.Base(name) {
					_, _ = io.WriteString(w, content)
					return
				}
			}
			http.NotFound(w, r)
		}))
		t.Cleanup(srv.Close)
		return Web(srv.URL + "/v1")
	})
}

func TestWebFails(t *testing.T) {
	defer http.DefaultClient.CloseIdleConnections()
	for name, h := range map[string]http.HandlerFunc{
		"an error": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, lib, http.StatusBadGateway) },
		"an answer that breaks off": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "9")
			_, _ = io.WriteString(w, "a lib")
		},
	} {
		srv := httptest.NewServer(h)
		p := newPlace(t)
		a := p.file(libName, lib)
		if err := p.Get(t.Context(), []File{a}, Web(srv.URL)); !errors.Is(err, decant.Unavailable) {
			t.Errorf("%s: %v", name, err)
		}
		p.holds(a, "")
		p.tidy()
		srv.Close()
	}
	p := newPlace(t)
	for _, address := range []string{"http://127.0.0.1:1", "gopher://x", "http://%"} {
		if err := p.Get(t.Context(), []File{p.file(libName, lib)}, Web(address)); !errors.Is(err, decant.Unavailable) {
			t.Errorf("%s: %v", address, err)
		}
	}
}

// fakeProgram puts a shell script into the path, under the name of a program.
func fakeProgram(t *testing.T, name, script string) {
	t.Helper()
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script), 0o700)) //nolint:gosec // a program
	t.Setenv("PATH", dir+string(filepath.ListSeparator)+os.Getenv("PATH"))
}

// tarOf makes a tar archive, its entries in order.
func tarOf(t testing.TB, entries ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		content := e.Linkname
		if e.Typeflag == tar.TypeReg {
			e.Size, e.Linkname = int64(len(content)), ""
		}
		e.Mode = 0o644
		if err := w.WriteHeader(&e); err != nil {
			t.Fatal(err)
		}
		if e.Typeflag == tar.TypeReg {
			_, _ = io.WriteString(w, content)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// regular is an entry for tarOf: its content stands in for the link's name.
func regular(name, content string) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Linkname: content}
}

func gzipped(t *testing.T, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write(data)
	must(t, w.Close())
	return b.Bytes()
}

// npmWith makes an npm that packs tarball, and the package of it.
func npmWith(t *testing.T, tarball []byte) NPM {
	t.Helper()
	file := filepath.Join(t.TempDir(), "it.tgz")
	must(t, os.WriteFile(file, tarball, 0o600))
	// What it is told is checked: nothing in a package may run.
	fakeProgram(t, "npm", `test "$1 $2 $3 $4 $5" = "pack x@1.0.0 --silent --ignore-scripts --cache" || { echo "told $*" >&2; exit 1; }
cp '`+file+`' ./x-1.0.0.tgz && mkdir -p "$6" && echo x > "$6"/x`)
	sum := sha512.Sum512(tarball)
	return NPM{Package: "x@1.0.0", Integrity: "sha512-" + base64.StdEncoding.EncodeToString(sum[:]), Size: decant.Bytes(len(tarball))}
}

func TestNPM(t *testing.T) {
	testSource(t, func(t *testing.T, files map[string]string) Source {
		entries := []tar.Header{{Typeflag: tar.TypeDir, Name: "package/"}, regular("package/package.json", "{}")}
		for name, content := range files {
			entries = append(entries, regular(name, content))
		}
		return npmWith(t, gzipped(t, tarOf(t, entries...)))
	})
}

func TestNPMFails(t *testing.T) {
	good := gzipped(t, tarOf(t, regular(libName, lib)))
	tests := []struct {
		name string
		make func(t *testing.T) NPM
		text string
	}{
		{"another tarball", func(t *testing.T) NPM {
			n := npmWith(t, good)
			n.Integrity = "sha512-AAAA"
			return n
		}, "its tarball is not what it must be"},
		{"no tarball", func(t *testing.T) NPM {
			fakeProgram(t, "npm", "true")
			return NPM{Package: "x@1.0.0"}
		}, "left no tarball"},
		{"two tarballs", func(t *testing.T) NPM {
			fakeProgram(t, "npm", "touch a.tgz b.tgz")
			return NPM{Package: "x@1.0.0"}
		}, "left no tarball"},
		{"no gzip", func(t *testing.T) NPM { return npmWith(t, []byte("x")) }, "cannot be read"},
		{"cut gzip", func(t *testing.T) NPM { return npmWith(t, good[:len(good)/2]) }, "cannot be read"},
		{"no tar", func(t *testing.T) NPM { return npmWith(t, gzipped(t, bytes.Repeat([]byte("x"), 1024))) }, "cannot be read"},
		{"npm fails", func(t *testing.T) NPM {
			fakeProgram(t, "npm", "echo 'npm error code E404' >&2; echo 'npm error not found' >&2; exit 1")
			return NPM{Package: "x@1.0.0"}
		}, "npm failed: exit status 1: npm error not found"},
		{"no npm", func(t *testing.T) NPM {
			t.Setenv("PATH", t.TempDir())
			return NPM{Package: "x@1.0.0"}
		}, "cannot run npm"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newPlace(t)
			a := p.file(libName, lib)
			err := p.Get(t.Context(), []File{a}, tt.make(t))
			if !errors.Is(err, decant.Unavailable) || !strings.Contains(err.Error(), "npm package x@1.0.0: ") || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v", err)
			}
			p.holds(a, "")
			p.tidy()
		})
	}
}

// TestProgramThatHangs is stopped at the end of the context.
func TestProgramThatHangs(t *testing.T) {
	fakeProgram(t, "npm", "echo started > started; exec sleep 600")
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- run(ctx, dir, "npm") }()
	for {
		if _, err := os.Stat(filepath.Join(dir, "started")); err == nil {
			break
		}
		select {
		case err := <-ended:
			t.Fatal(err)
		case <-time.After(time.Millisecond):
		}
	}
	cancel()
	if err := <-ended; !errors.Is(err, decant.Deadline) {
		t.Errorf("got %v", err)
	}
}

// debWith makes an apt-get that downloads a package with these files.
func debWith(t *testing.T, files map[string]string) Deb {
	t.Helper()
	root, file := t.TempDir(), filepath.Join(t.TempDir(), "x_1.0_all.deb")
	control := filepath.Join(root, "DEBIAN", "control")
	must(t, os.MkdirAll(filepath.Dir(control), 0o755))
	must(t, os.WriteFile(control, []byte("Package: x\nVersion: 1.0\nArchitecture: all\nMaintainer: m\nDescription: d\n"), 0o600))
	for name, content := range files {
		to := filepath.Join(root, name)
		must(t, os.MkdirAll(filepath.Dir(to), 0o755))
		must(t, os.WriteFile(to, []byte(content), 0o600))
	}
	if out, err := exec.CommandContext(t.Context(), "dpkg-deb", "--root-owner-group", "--build", root, file).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return aptWith(t, file)
}

// aptWith makes an apt-get that downloads file, once it has been updated in
// folders of its own.
func aptWith(t *testing.T, file string) Deb {
	t.Helper()
	fakeProgram(t, "apt-get", `case "$*" in
*Dir::State::Lists=*/lists*Dir::Cache=*update) touch updated ;;
*Dir::State::Lists=*/lists*Dir::Cache=*"download x") test -e updated -a -d lists/partial -a -d archives/partial && cp '`+file+`' . ;;
*) echo "told $*" >&2; exit 1 ;;
esac`)
	return Deb{Package: "x"}
}

func needDpkg(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		t.Skip("there is no dpkg-deb on this machine, which reads packages of Debian")
	}
}

func TestDeb(t *testing.T) {
	needDpkg(t)
	testSource(t, func(t *testing.T, files map[string]string) Source { return debWith(t, files) })
}

func TestDebFails(t *testing.T) {
	needDpkg(t)
	damaged := filepath.Join(t.TempDir(), "x.deb")
	must(t, os.WriteFile(damaged, []byte("!<arch>\ndebian-binary   0           0     0     100644  4         `\n2.0\n"), 0o600))
	tests := []struct {
		name string
		make func(t *testing.T) Deb
		text string
	}{
		{"a damaged package", func(t *testing.T) Deb { return aptWith(t, damaged) }, ""},
		{"no package", func(t *testing.T) Deb {
			fakeProgram(t, "apt-get", "true")
			return Deb{Package: "x"}
		}, "left no package"},
		{"apt-get fails", func(t *testing.T) Deb {
			fakeProgram(t, "apt-get", "echo 'E: Unable to locate package x' >&2; exit 100")
			return Deb{Package: "x"}
		}, "apt-get failed: exit status 100: E: Unable to locate package x"},
		{"no apt-get", func(t *testing.T) Deb {
			t.Setenv("PATH", t.TempDir())
			return Deb{Package: "x"}
		}, "cannot run apt-get"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newPlace(t)
			a := p.file(libName, lib)
			err := p.Get(t.Context(), []File{a}, tt.make(t))
			if !errors.Is(err, decant.Unavailable) || !strings.Contains(err.Error(), "Debian package x: ") || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v", err)
			}
			p.holds(a, "")
			p.tidy()
		})
	}
	t.Run("no dpkg-deb", func(t *testing.T) {
		t.Setenv("PATH", t.TempDir())
		if err := readDeb(t.Context(), damaged, []string{libName}, nil); !errors.Is(err, decant.NotFound) {
			t.Errorf("got %v", err)
		}
	})
}

// unpacked runs untar and returns what it gave, in order.
func unpacked(archive io.Reader, names ...string) (got []string, err error) {
	err = untar(archive, names, func(name string, r io.Reader) error {
		data, err := io.ReadAll(r)
		got = append(got, name+"="+string(data))
		return err
	})
	return got, err
}

func TestUntar(t *testing.T) {
	archive := tarOf(t,
		tar.Header{Typeflag: tar.TypeDir, Name: "a"},
		tar.Header{Typeflag: tar.TypeSymlink, Name: "a/f", Linkname: "/etc/passwd"},
		tar.Header{Typeflag: tar.TypeLink, Name: "a/f", Linkname: "a/g"},
		tar.Header{Typeflag: tar.TypeFifo, Name: "a/f"},
		regular("../../a/f", "outside"),
		regular("/a/f", "absolute"),
		regular("./a/f", "the first"),
		regular("a/f", "the second"),
		regular("a//b/../g", "g"),
		regular(strings.Repeat("long/", 60)+"f", "long"),
	)
	tests := []struct {
		name  string
		names []string
		want  []string
	}{
		{"the first regular file", []string{"a/f"}, []string{"a/f=the first"}},
		{"in the archive's order", []string{"a/g", "a/f"}, []string{"a/f=the first", "a/g=g"}},
		{"what is there", []string{"none", "a/g"}, []string{"a/g=g"}},
		{"a long name", []string{strings.Repeat("long/", 60) + "f"}, []string{strings.Repeat("long/", 60) + "f=long"}},
		{"a folder", []string{"a"}, nil},
		{"no name", nil, nil},
	}
	for _, tt := range tests {
		if got, err := unpacked(bytes.NewReader(archive), tt.names...); err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, %v", tt.name, got, err)
		}
	}
	if got, err := unpacked(bytes.NewReader(nil), "a/f"); err != nil || got != nil {
		t.Errorf("nothing: %q, %v", got, err)
	}
	for _, end := range []int{100, 1024 + 200} {
		if got, err := unpacked(bytes.NewReader(archive[:end]), "a/f"); !errors.Is(err, decant.Corrupt) || got != nil {
			t.Errorf("cut at %d: %q, %v", end, got, err)
		}
	}
	stop := errors.New("stop")
	if err := untar(bytes.NewReader(archive), []string{"a/f", "a/g"}, func(string, io.Reader) error { return stop }); err != stop {
		t.Errorf("put fails: %v", err)
	}
	// No more is read than is needed: the rest may well be damaged.
	if got, err := unpacked(io.MultiReader(bytes.NewReader(archive), strings.NewReader("rubbish")), "a/f"); err != nil || len(got) != 1 {
		t.Errorf("rubbish after it: %q, %v", got, err)
	}
}

// TestUntarIsBounded: an archive that unpacks without end comes to one.
func TestUntarIsBounded(t *testing.T) {
	var head bytes.Buffer
	must(t, tar.NewWriter(&head).WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "a", Size: 1 << 40}))
	rest := &endless{}
	if got, err := unpacked(io.MultiReader(&head, rest), "none"); !errors.Is(err, decant.Corrupt) || got != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if int64(rest.read) > maxArchive+1<<20 {
		t.Errorf("read %d bytes", rest.read)
	}
}

// FuzzUntar: whatever an archive is, each name is given at most once, and none
// that was not asked for.
func FuzzUntar(f *testing.F) {
	f.Add(tarOf(f, regular("a", "one"), regular("./b", "two"), regular("a", "three"), tar.Header{Typeflag: tar.TypeSymlink, Name: "c", Linkname: "a"}))
	f.Add(tarOf(f, regular("a", strings.Repeat("x", 2000)))[:1500])
	f.Add(tarOf(f, regular(strings.Repeat("x", 200), "")))
	f.Fuzz(func(t *testing.T, archive []byte) {
		given := map[string]int{}
		err := untar(bytes.NewReader(archive), []string{"a", "b", "c"}, func(name string, r io.Reader) error {
			given[name]++
			_, err := io.Copy(io.Discard, io.LimitReader(r, 1<<20)) // as save does
			return err
		})
		for name, n := range given {
			if n > 1 || name != "a" && name != "b" && name != "c" {
				t.Fatalf("%q was given %d times", name, n)
			}
		}
		if err != nil && !errors.Is(err, decant.Corrupt) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, tar.ErrHeader) {
			t.Fatalf("got %v", err)
		}
	})
}
