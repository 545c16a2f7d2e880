// Package examples_test builds the examples' modules and runs them as a device
// would, in one process: recordings through frames, detector and timeline,
// photographs through classify and captions.
package examples_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/examples/internal/picture"
	"github.com/decant-project/decant/examples/internal/sound"
	"github.com/decant-project/decant/examples/internal/voice"
	"github.com/decant-project/decant/internal/nn"
	"github.com/decant-project/decant/internal/nn/onnxruntime"
	"github.com/decant-project/decant/internal/wasinn"
	"github.com/decant-project/decant/internal/wasm"
)

// TestFiles checks every package.yaml and app.yaml, and that each application
// finds its packages, functions and models among them.
func TestFiles(t *testing.T) {
	packages := map[string]decant.PackageSpec{}
	var apps []decant.Application
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		switch entry.Name() {
		case "package.yaml":
			spec := read[decant.PackageSpec](t, path)
			if err := spec.Check(); err != nil {
				t.Errorf("%s: %v", path, err)
			}
			packages[spec.Name] = spec
		case "app.yaml":
			apps = append(apps, read[decant.Application](t, path))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(packages) != 14 || len(apps) != 2 {
		t.Errorf("found %d packages and %d applications", len(packages), len(apps))
	}
	for _, app := range apps {
		if err := app.Check(); err != nil {
			t.Errorf("%s: %v", app.Name, err)
		}
		for name, c := range app.Components {
			ref, _ := decant.ParsePackageRef(c.Package)
			spec := packages[ref.Name]
			if _, ok := spec.Functions[c.Function]; !ok {
				t.Errorf("%s: component %s: package %s has no function %s", app.Name, name, ref.Name, c.Function)
			}
			if bound, used := slices.Sorted(maps.Keys(c.Models)), slices.Sorted(maps.Keys(spec.Models)); !slices.Equal(bound, used) {
				t.Errorf("%s: component %s binds models %v, its package uses %v", app.Name, name, bound, used)
			}
			for m, model := range c.Models {
				ref, _ := decant.ParsePackageRef(model)
				if bound := packages[ref.Name].Model; bound == nil || bound.Interface != spec.Models[m].Interface {
					t.Errorf("%s: component %s: model %s is bound to %s, which is not a %s", app.Name, name, m, model, spec.Models[m].Interface)
				}
			}
		}
	}
}

func read[T any](t *testing.T, path string) (v T) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err == nil {
		err = yaml.UnmarshalStrict(data, &v)
	}
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return v
}

func TestShout(t *testing.T) {
	for _, dir := range []string{"shout", "shout-c"} {
		t.Run(dir, func(t *testing.T) {
			g := newBench(t).start(dir, guest{})
			for range 2 { // a call begins where the one before has ended
				if got := g.call("shout", []byte("is anybody there?")); string(got) != "IS ANYBODY THERE?" {
					t.Errorf("got %q", got)
				}
			}
		})
	}
}

func TestCounter(t *testing.T) { stayAndMove(t, checkCounter) }

func checkCounter(t *testing.T, b *bench) {
	t.Helper()
	first, second := b.start("counter", guest{}), b.start("counter", guest{})
	for i, g := range []*guest{first, first, second, first} {
		want := []string{"1\n", "2\n", "1\n", "3\n"}[i]
		if got := g.call("count", nil); string(got) != want {
			t.Errorf("call %d: got %q, want %q", i+1, got, want)
		}
	}
}

// TestSpeech plays the recordings as a microphone would, in chunks of 96 ms with
// a gap of silence after each.
func TestSpeech(t *testing.T) { stayAndMove(t, checkSpeech) }

func checkSpeech(t *testing.T, b *bench) {
	t.Helper()
	recordings, _ := filepath.Glob("speech/devices/mic-board/recordings/*.wav")
	if len(recordings) == 0 {
		missing(t, "recordings: run `make fetch-speech`")
	}
	var screen screen
	frames := b.start("speech/frames", guest{})
	detector := b.start("speech/detector", guest{models: map[string]string{"vad": "speech/models/silero-vad"}})
	timeline := b.start("speech/timeline", guest{devices: map[string]wasm.Device{"screen": &screen}})

	found := map[string][]voice.Segment{}
	for _, path := range recordings {
		for chunk := range chunks(t, path) {
			whole := frames.call("frames", chunk)
			if len(whole) == 0 {
				continue
			}
			lines := detector.call("detect", whole)
			if len(lines) == 0 {
				continue
			}
			for line := range bytes.Lines(lines) {
				var s voice.Segment
				if err := json.Unmarshal(line, &s); err != nil {
					t.Fatal(err)
				}
				found[s.Recording] = append(found[s.Recording], s)
			}
			if got, want := string(timeline.call("show", lines)), fmt.Sprintf("{\"shown\":%d}\n", bytes.Count(lines, []byte("\n"))); got != want {
				t.Errorf("timeline answered %q, want %q", got, want)
			}
		}
	}
	t.Logf("the screen shows\n%s", screen.String())
	total := 0
	for _, path := range recordings {
		name := strings.TrimSuffix(filepath.Base(path), ".wav")
		want := 2 // words
		if name == "Noise" {
			want = 0
		}
		if len(found[name]) != want {
			t.Errorf("%s: found %d segments, want %d: %v", name, len(found[name]), want, found[name])
		}
		for i, s := range found[name] {
			if s.Probability < .9 || s.Start >= s.End || s.End > 1.6 || i > 0 && s.Start <= found[name][i-1].End {
				t.Errorf("%s: segment %d is %+v", name, i, s)
			}
		}
		total += want
	}
	if lines := strings.Count(screen.String(), "\n"); lines != total {
		t.Errorf("the screen shows %d lines, want %d", lines, total)
	}
	var status struct{ Frames, Segments int }
	if err := json.Unmarshal(detector.call("status", nil), &status); err != nil || status.Segments != total || status.Frames < 500 {
		t.Errorf("the detector's status is %+v, %v", status, err)
	}
}

// TestDetectorRefuses checks that a bad request changes nothing.
func TestDetectorRefuses(t *testing.T) {
	detector := newBench(t).start("speech/detector", guest{})
	half := sound.WAV{Rate: sound.FrameRate, Channels: 1, Samples: make([]int16, sound.FrameSize/2)}
	for _, request := range [][]byte{nil, []byte("not a recording"), half.Bytes()} {
		if _, err := detector.guest.Call(t.Context(), "detect", request); decant.CodeOf(err) != decant.GuestFailed {
			t.Errorf("%.20q: got error %v, want %s", request, err, decant.GuestFailed)
		}
	}
	const want = `{"frames":0,"recording":"","segments":0,"speaking":false}`
	if got := string(detector.call("status", nil)); got != want {
		t.Errorf("status is %s, want %s", got, want)
	}
}

func chunks(t *testing.T, path string) func(yield func([]byte) bool) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	w, err := sound.ParseWAV(data)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	w.Title = strings.TrimSuffix(filepath.Base(path), ".wav")
	w.Samples = append(w.Samples, make([]int16, w.Rate*w.Channels*8/10)...)
	return func(yield func([]byte) bool) {
		for samples := range slices.Chunk(w.Samples, w.Rate*w.Channels*96/1000) {
			chunk := w
			chunk.Samples = samples
			if !yield(chunk.Bytes()) {
				return
			}
		}
	}
}

// TestVision holds the classes that ONNX Runtime gives these photographs when
// it is called directly.
func TestVision(t *testing.T) { stayAndMove(t, checkVision) }

func checkVision(t *testing.T, b *bench) {
	t.Helper()
	photographs := photographs(t)
	var screen screen
	classifier := b.start("vision/classify", guest{models: map[string]string{"classifier": "vision/models/mobilenetv2"}})
	captions := b.start("vision/captions", guest{devices: map[string]wasm.Device{"screen": &screen}})
	for i, want := range []struct {
		file  string
		class int
		label string
	}{
		{"cat_720p.jpg", 285, "Egyptian cat"},
		{"hot_dog.jpg", 934, "hotdog"},
		{"parrot.jpg", 88, "macaw"},
		{"owl.jpg", 21, "kite"},
		{"bird.bmp", 19, "chickadee"},
		{"sunflower.bmp", 985, "daisy"},
		{"grace_hopper.bmp", 457, "bow tie"},
	} {
		file, err := os.ReadFile(filepath.Join(photographs, want.file))
		if err != nil {
			t.Fatal(err)
		}
		response := classifier.call("classify", file)
		var got struct {
			Image int
			Top   []picture.Class
		}
		if err := json.Unmarshal(response, &got); err != nil || got.Image != i+1 || len(got.Top) != 3 {
			t.Fatalf("%s: got %s, %v", want.file, response, err)
		}
		if top := got.Top[0]; top.Class != want.class || top.Label != want.label || top.Probability < .5 {
			t.Errorf("%s: got %+v, want %d %s", want.file, top, want.class, want.label)
		}
		if shown := captions.call("show", response); string(shown) != "{\"shown\":1}\n" {
			t.Errorf("captions answered %q", shown)
		}
		if line := fmt.Sprintf("photograph %d: %s ", i+1, want.label); !strings.Contains(screen.String(), line) {
			t.Errorf("the screen does not show %q", line)
		}
	}
	t.Logf("the screen shows\n%s", screen.String())
	if _, err := classifier.guest.Call(t.Context(), "classify", []byte("BM, but no picture")); decant.CodeOf(err) != decant.GuestFailed {
		t.Errorf("a damaged photograph: got error %v", err)
	}
}

func photographs(t *testing.T) string {
	t.Helper()
	const dir = "vision/devices/camera/photographs"
	if _, err := os.Stat(dir); err != nil {
		t.Skip("without photographs: set DECANT_DATA and run `make fetch-vision`")
	}
	return dir
}

// missing skips a test for want of something, or fails it where everything must
// be there.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("DECANT_REQUIRE_ORT") == "1" {
		t.Fatalf("without %s", what)
	}
	t.Skipf("without %s", what)
}

// screen keeps what is written to it.
type screen struct{ bytes.Buffer }

func (*screen) Read(context.Context) ([]byte, error) { return nil, decant.Unsupported }

func (s *screen) Write(_ context.Context, action []byte) error {
	_, err := s.Buffer.Write(action)
	return err
}

// stayAndMove runs a test twice: the second time its guests move now and then
// before a call, and nobody may notice.
func stayAndMove(t *testing.T, check func(*testing.T, *bench)) {
	t.Helper()
	t.Run("staying", func(t *testing.T) { check(t, newBench(t)) })
	t.Run("moving", func(t *testing.T) {
		b := newBench(t)
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		b.moves = rand.New(rand.NewPCG(seed, seed))
		check(t, b)
	})
}

// bench is a device in this process.
type bench struct {
	t       *testing.T
	moves   *rand.Rand // nil: guests stay where they are
	host    *wasm.Host
	backend nn.Backend // nil until a guest needs it
}

// cache is where compiled modules are kept, for all tests of this process.
var cache string

// TestMain makes the test's program its own compiler.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == wasm.CompilerCommand {
		os.Exit(wasm.Compiler(os.Args[2]))
	}
	var err error
	if cache, err = os.MkdirTemp("", "decant-examples-"); err != nil {
		panic(err)
	}
	status := m.Run()
	_ = os.RemoveAll(cache)
	os.Exit(status)
}

func newBench(t *testing.T) *bench {
	t.Helper()
	return &bench{t: t, host: newHost(t, wasm.Config{CacheDir: cache})}
}

func newHost(t *testing.T, c wasm.Config) *wasm.Host {
	t.Helper()
	c.Modules = []wasm.HostModule{wasinn.Instantiate}
	host, err := wasm.New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := host.Close(); err != nil {
			t.Error(err)
		}
	})
	return host
}

// guest is a module that runs, with what it was given.
type guest struct {
	models  map[string]string // name to the folder of the model's package
	devices map[string]wasm.Device
	state   string

	t      *testing.T
	guest  *wasm.Guest
	log    bytes.Buffer
	move   func() // before a call, if that is drawn; nil: never
	config func() wasm.GuestConfig
}

// start builds the package in dir, and starts it.
func (b *bench) start(dir string, g guest) *guest {
	b.t.Helper()
	spec := read[decant.PackageSpec](b.t, filepath.Join(dir, "package.yaml"))
	module := b.compile(dir)
	for name := range spec.Functions {
		if _, err := module.Function(name); err != nil {
			b.t.Errorf("%s: package.yaml says function %s: %v", dir, name, err)
		}
	}
	g.t = b.t
	models, files := b.load(g.models)
	g.config = func() wasm.GuestConfig {
		session := wasinn.NewSession(models, &g.log)
		return wasm.GuestConfig{
			Memory: spec.Needs.Memory, Log: &g.log, Devices: g.devices, Models: files, State: g.state, Keeper: session,
			Context: func(ctx context.Context) (context.Context, func()) { return wasinn.With(ctx, session), func() {} },
		}
	}
	var err error
	if g.guest, err = b.host.Start(b.t.Context(), module, g.config()); err != nil {
		b.t.Fatal(err)
	}
	if b.moves != nil {
		g.move = func() {
			if b.moves.IntN(4) == 0 {
				g.moveTo(b.host, module)
			}
		}
	}
	b.t.Cleanup(func() { _ = g.guest.Close() })
	return &g
}

// moveTo goes on with the guest elsewhere.
func (g *guest) moveTo(h *wasm.Host, m *wasm.Module) {
	g.t.Helper()
	wire := encode(g.t, g.guest)
	_ = g.guest.Close()
	snap, _, err := wasm.Decode(bytes.NewReader(wire), snapshotLimits)
	if err != nil {
		g.t.Fatal(err)
	}
	defer snap.Close()
	if g.guest, err = h.Restore(g.t.Context(), m, g.config(), snap); err != nil {
		g.t.Fatal(err)
	}
}

// compile makes a module of the package in dir.
func (b *bench) compile(dir string) *wasm.Module {
	b.t.Helper()
	binary := build(b.t, dir)
	module, err := b.host.Compile(b.t.Context(), binary)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = module.Close() })
	return module
}

// call returns the response of a call that must succeed.
func (g *guest) call(function string, request []byte) []byte {
	g.t.Helper()
	if g.move != nil {
		g.move()
	}
	response, err := g.guest.Call(g.t.Context(), function, request)
	if err != nil {
		g.t.Fatalf("%s: %v; its log:\n%s", function, err, g.log.String())
	}
	return response
}

// models are the models of a guest by the names it knows them by.
type models map[string]nn.Model

func (m models) ByName(_ context.Context, name string) (nn.Model, error) {
	if model := m[name]; model != nil {
		return model, nil
	}
	return nil, decant.NotFound
}

func (models) FromBytes(context.Context, []byte) (nn.Model, error) { return nil, decant.Unsupported }

// load loads model packages, and returns their other files by their paths.
func (b *bench) load(folders map[string]string) (models, map[string]map[string]string) {
	b.t.Helper()
	loaded, files := models{}, map[string]map[string]string{}
	for name, dir := range folders {
		spec := read[decant.PackageSpec](b.t, filepath.Join(dir, "package.yaml"))
		data, err := os.ReadFile(filepath.Join(dir, spec.Model.File))
		if err != nil {
			missing(b.t, fmt.Sprintf("the model %s: run `make fetch-speech fetch-vision`", spec.Model.File))
		}
		if loaded[name], err = b.onnxruntime().Load(b.t.Context(), data); err != nil {
			b.t.Fatal(err)
		}
		b.t.Cleanup(func() { _ = loaded[name].Close() })
		files[name] = map[string]string{}
		for _, f := range spec.Model.Files {
			files[name][f] = filepath.Join(dir, f)
		}
	}
	return loaded, files
}

func (b *bench) onnxruntime() nn.Backend {
	b.t.Helper()
	if b.backend != nil {
		return b.backend
	}
	library := "../bin/libonnxruntime.so.1"
	if _, err := os.Stat(library); err != nil {
		var ok bool
		if library, ok = onnxruntime.Find(); !ok {
			missing(b.t, "ONNX Runtime: run `make fetch-ort`")
		}
	}
	var err error
	if b.backend, err = onnxruntime.New(library); err != nil {
		missing(b.t, "ONNX Runtime: "+err.Error())
	}
	b.t.Cleanup(func() { _ = b.backend.Close() })
	return b.backend
}
