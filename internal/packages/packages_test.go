package packages_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/blobs"
	"github.com/decant-project/decant/internal/packages"
	"github.com/decant-project/decant/internal/state/mem"
)

var ctx = context.Background()

// inspector takes any bytes for a module and their words for its functions.
type inspector struct{}

func (inspector) Exports(_ context.Context, binary []byte, _ map[string]int) ([]string, error) {
	if bytes.HasPrefix(binary, []byte("not")) {
		return nil, decant.Errorf(decant.Invalid, "this is not a WebAssembly module")
	}
	return strings.Fields(string(binary)), nil
}

func newManager(t testing.TB) (*packages.Manager, func(text string) decant.Blob) {
	t.Helper()
	bl, err := blobs.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	st := mem.New()
	t.Cleanup(func() { _ = st.Close() })
	put := func(text string) decant.Blob {
		d, n, err := bl.Put(ctx, strings.NewReader(text), "", decant.MiB)
		if err != nil {
			t.Fatal(err)
		}
		return decant.Blob{Name: "f", MediaType: decant.MediaTypeWasm, Digest: d, Size: n}
	}
	return packages.New(st, bl, inspector{}), put
}

func module(name, version string, requires ...string) decant.PackageSpec {
	spec := decant.PackageSpec{Name: name, Version: version, Module: &decant.ModuleSpec{File: "f.wasm"}, Requires: map[string]string{}}
	for _, r := range requires {
		ref, err := decant.ParsePackageRef(r)
		if err != nil {
			panic(err)
		}
		spec.Requires[ref.Name] = ref.Range
	}
	return spec
}

func TestPush(t *testing.T) {
	m, put := newManager(t)
	good := put("detect status")
	first, err := m.Push(ctx, module("ear", "1.0.0"), []decant.Blob{good})
	if err != nil || strings.Join(first.Exports, " ") != "detect status" {
		t.Fatalf("push: %+v, %v", first, err)
	}
	again, err := m.Push(ctx, module("ear", "1.0.0"), []decant.Blob{good})
	if err != nil || again.Digest != first.Digest || !again.PushedAt.Equal(first.PushedAt) {
		t.Errorf("the same again: %+v, %v", again, err)
	}
	for name, tt := range map[string]struct {
		spec  decant.PackageSpec
		files []decant.Blob
		code  decant.Code
		says  string
	}{
		"other bytes":      {module("ear", "1.0.0"), []decant.Blob{put("other")}, decant.Conflict, "raise the version"},
		"a missing blob":   {module("ear", "1.1.0"), []decant.Blob{{Name: "f", Digest: decant.DigestOf([]byte("absent"))}}, decant.NotFound, "file f: blob"},
		"no files":         {module("ear", "1.1.0"), nil, decant.Invalid, "0 files"},
		"not a module":     {module("ear", "1.1.0"), []decant.Blob{put("not wasm")}, decant.Invalid, "not a WebAssembly module"},
		"no functions":     {module("ear", "1.1.0"), []decant.Blob{put(" ")}, decant.Invalid, "has no functions"},
		"a bad version":    {module("ear", "1"), []decant.Blob{good}, decant.Invalid, "semantic version"},
		"a bad range":      {module("ear", "1.1.0", "x@what"), []decant.Blob{good}, decant.Invalid, `version range "what"`},
		"a lying function": {decant.PackageSpec{Name: "ear", Version: "1.1.0", Module: &decant.ModuleSpec{File: "f"}, Functions: map[string]decant.Function{"listen": {}}}, []decant.Blob{good}, decant.Invalid, `function "listen" that the module does not export; it has detect, status`},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := m.Push(ctx, tt.spec, tt.files); !errors.Is(err, tt.code) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v", err)
			}
		})
	}
	if all, _ := m.List(ctx); len(all) != 1 {
		t.Errorf("after the refusals there are %d packages", len(all))
	}
	if err := m.Remove(ctx, "ear", "1.0.0"); err != nil {
		t.Error(err)
	}
	if err := m.Remove(ctx, "ear", "1.0.0"); !errors.Is(err, decant.NotFound) {
		t.Errorf("removed twice: %v", err)
	}
}

func TestGetNewest(t *testing.T) {
	m, put := newManager(t)
	for _, v := range []string{"1.2.0", "1.10.0", "2.0.0-rc.1", "0.9.0"} {
		if _, err := m.Push(ctx, module("p", v), []decant.Blob{put("f")}); err != nil {
			t.Fatal(err)
		}
	}
	for ref, want := range map[string]string{"p": "1.10.0", "p@^1.2": "1.10.0", "p@~1.2": "1.2.0", "p@<1": "0.9.0", "p@2.0.0-rc.1": "2.0.0-rc.1"} {
		r, err := decant.ParsePackageRef(ref)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := m.Get(ctx, r); err != nil || got.Version != want {
			t.Errorf("%s gave %s, %v; want %s", ref, got.Version, err, want)
		}
	}
}

// TestSweep deletes what belongs to no package, once it is old.
func TestSweep(t *testing.T) {
	m, put := newManager(t)
	spec := func(name string) decant.PackageSpec {
		return decant.PackageSpec{Name: name, Version: "1.0.0", Module: &decant.ModuleSpec{File: "m.wasm"}}
	}
	file := func(text string) []decant.Blob {
		b := put(text)
		b.Name, b.MediaType = "m.wasm", decant.MediaTypeWasm
		return []decant.Blob{b}
	}
	for _, name := range []string{"kept", "gone"} {
		if _, err := m.Push(ctx, spec(name), file(name)); err != nil {
			t.Fatal(err)
		}
	}
	put("of a push that never ended")
	if err := m.Remove(ctx, "gone", "1.0.0"); err != nil {
		t.Fatal(err)
	}
	if n, err := m.Sweep(ctx, time.Now().Add(-time.Hour)); n != 0 || err != nil {
		t.Errorf("all are new: swept %d, %v", n, err)
	}
	if n, err := m.Sweep(ctx, time.Now().Add(time.Hour)); n != 4 || err != nil { // file, description and manifest of gone, and the other
		t.Errorf("swept %d, %v", n, err)
	}
	if n, err := m.Sweep(ctx, time.Now().Add(time.Hour)); n != 0 || err != nil {
		t.Errorf("again: swept %d, %v", n, err)
	}
	if _, err := m.Push(ctx, spec("kept"), file("kept")); err != nil { // all of it is there
		t.Error(err)
	}
}

func TestCheckBinding(t *testing.T) {
	uses := decant.Package{PackageSpec: module("detector", "1.0.0")}
	uses.Models = map[string]decant.ModelUse{"vad": {Interface: "silero-vad", Accepts: "^5"}}
	model := func(name, version, iface string) decant.Package {
		return decant.Package{PackageSpec: decant.PackageSpec{Name: name, Version: version, Model: &decant.ModelSpec{File: "m.onnx", Format: "onnx", Interface: iface}}}
	}
	for name, tt := range map[string]struct {
		as    string
		model decant.Package
		says  string
	}{
		"fits":              {"vad", model("silero-vad", "5.1.0", ""), ""},
		"another name fits": {"vad", model("my-vad", "5.0.0", "silero-vad"), ""},
		"version":           {"vad", model("silero-vad", "4.0.0", ""), "accepts version ^5"},
		"interface":         {"vad", model("yolo", "5.0.0", ""), `wants a model with interface "silero-vad"`},
		"name":              {"ears", model("silero-vad", "5.0.0", ""), `loads no model "ears"; it loads vad`},
		"not a model":       {"vad", uses, "is a module"},
	} {
		t.Run(name, func(t *testing.T) {
			err := packages.CheckBinding(uses, tt.as, tt.model)
			if tt.says == "" && err != nil || tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says)) {
				t.Errorf("got %v, want %q", err, tt.says)
			}
		})
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(packages.ManifestName, "package: ear\nversion: 1.0.0\nmodule: {build: 'echo hear > ear.wasm', file: ear.wasm}\nneeds: {memory: 64MiB}\n")
	spec, err := packages.ReadSpec(dir)
	if err != nil || spec.Needs.Memory != 64*decant.MiB {
		t.Fatalf("%+v, %v", spec, err)
	}
	var out bytes.Buffer
	if err := packages.Build(ctx, dir, spec, &out, &out); err != nil {
		t.Fatal(err)
	}
	files, err := packages.Files(dir, spec)
	if err != nil || len(files) != 1 || files[0].Digest != decant.DigestOf([]byte("hear\n")) || files[0].Size != 5 {
		t.Errorf("files: %+v, %v", files, err)
	}
	spec.Module.Build = "exit 3"
	if err := packages.Build(ctx, dir, spec, &out, &out); !errors.Is(err, decant.Invalid) {
		t.Errorf("a build that fails: %v", err)
	}
	write("secret", "")
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "link.wasm")); err != nil {
		t.Fatal(err)
	}
	spec.Module.File = "link.wasm"
	if _, err := packages.Files(dir, spec); err == nil {
		t.Error("a link led out of the folder")
	}
	for text, says := range map[string]string{
		"package: ear\nversion: 1.0.0\nmodul: {}\n":                              `unknown field "modul"`,
		"package: ear\nversion: 1.0.0\n":                                         "neither a module nor a model",
		"package: Ear\nversion: 1.0.0\nmodule: {file: x}\n":                      "lower-case",
		"package: ear\nversion: 1.0.0\nmodule: {file: ../x}\n":                   "must lie in the package's folder",
		"package: ear\nversion: 1.0.0\nmodel: {file: x, format: tflite}\n":       `format "tflite" is not supported`,
		"package: ear\nversion: 1.0.0\nmodule: {file: x}\nrequires: {a: what}\n": `version range "what"`,
	} {
		if _, err := packages.ParseSpec([]byte(text)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q gave %v", text, err)
		}
	}
}

func FuzzParseSpec(f *testing.F) {
	f.Add([]byte("package: ear\nversion: 1.0.0\nmodule: {file: ear.wasm}\nrequires: {a: ^1}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if spec, err := packages.ParseSpec(data); err == nil && spec.Check() != nil {
			t.Errorf("%q was taken and does not hold", data)
		}
	})
}
