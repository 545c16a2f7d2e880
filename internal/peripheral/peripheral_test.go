package peripheral

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/decant-project/decant"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func write(t testing.TB, dir, name string, data []byte) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, dir string, c Config) Peripheral {
	t.Helper()
	p, err := Open(dir, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// tone returns d of sound that counts its frames.
func tone(f wavFormat, d time.Duration) []byte {
	sound := make([]byte, f.bytes(d))
	for i := 0; i < len(sound); i += 2 {
		binary.LittleEndian.PutUint16(sound[i:], uint16(1+i/2))
	}
	return sound
}

func TestCheck(t *testing.T) {
	good := Config{Name: "mic", Type: "microphone", Driver: "file", Path: "*.wav"}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	if got := good.Describe(); got != (decant.Peripheral{Name: "mic", Type: "microphone"}) {
		t.Errorf("described as %+v", got)
	}
	for want, change := range map[string]func(*Config){
		"peripheral has no name":                              func(c *Config) { c.Name = "" },
		"peripheral type name":                                func(c *Config) { c.Type = "A B" },
		`there is no driver "usb"; there are file, simulated`: func(c *Config) { c.Driver = "usb" },
		"set path to the files":                               func(c *Config) { c.Path = "" },
		"chunk 1µs":                                           func(c *Config) { c.Chunk = decant.Duration(time.Microsecond) },
		"chunk 1m0s":                                          func(c *Config) { c.Chunk = decant.Duration(time.Minute) },
		"gap 1h0m0s":                                          func(c *Config) { c.Gap = decant.Duration(time.Hour) },
	} {
		c := good
		change(&c)
		if _, err := Open(t.TempDir(), c); !errors.Is(err, decant.Invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "notes.wav", []byte("not a recording"))
	write(t, dir, "folder/x", nil)
	for _, tt := range []struct {
		kind, path string
		code       decant.Code
		want       string
	}{
		{"camera", "*.jpg", decant.NotFound, `no file matches "*.jpg" in ` + dir},
		{"camera", "folde[r]", decant.NotFound, "no file matches"},
		{"camera", "[", decant.Invalid, "syntax error in pattern"},
		{"microphone", "*.wav", decant.Invalid, "notes.wav: not a WAV file"},
		{"screen", "folder", decant.Invalid, "cannot write"},
		{"screen", "notes.wav/x", decant.Invalid, "cannot write"},
	} {
		_, err := Open(dir, Config{Name: "p", Type: tt.kind, Driver: "file", Path: tt.path})
		if !errors.Is(err, tt.code) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s %s: got %v, want %q", tt.kind, tt.path, err, tt.want)
		}
	}
}

// All sound of all recordings comes in order, in WAV files that are complete,
// each recording followed by its gap.
func TestMicrophone(t *testing.T) {
	const chunk, gap = 96 * time.Millisecond, 200 * time.Millisecond
	dir := filepath.Join(t.TempDir(), "odd [name]*")
	recorded := map[string]wavFormat{"a b": {1, 48000}, "c": {2, 16000}, "d": {1, 11025}}
	want := map[string][]byte{}
	for name, f := range recorded {
		sound := tone(f, 1234*time.Millisecond)
		write(t, dir, "r/"+name+".wav", wavFile(f, "", sound))
		want[name] = append(sound, make([]byte, f.bytes(gap))...)
	}
	mic := open(t, dir, Config{Name: "mic", Type: "microphone", Driver: "file", Path: "r/*.wav", Gap: decant.Duration(gap), Every: 1})

	got, order := map[string][]byte{}, []string{}
	for {
		s, err := mic.Read(t.Context())
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		f, sound, err := readWAV(bytes.NewReader(s.Data), int64(len(s.Data)))
		if err != nil {
			t.Fatal(err)
		}
		if size := binary.LittleEndian.Uint32(s.Data[4:]); int(size) != len(s.Data)-8 || s.ContentType != "audio/wav" {
			t.Errorf("size %d of %d, %s", size, len(s.Data)-8, s.ContentType)
		}
		name := title(t, s.Data)
		if len(order) == 0 || order[len(order)-1] != name {
			order = append(order, name)
		}
		if f != recorded[name] || sound.Size() > f.bytes(chunk) {
			t.Errorf("%s: %v, chunk of %d bytes", name, f, sound.Size())
		}
		all, _ := io.ReadAll(sound)
		got[name] = append(got[name], all...)
	}
	if fmt.Sprint(order) != "[a b c d]" {
		t.Errorf("order %q", order)
	}
	for name := range want {
		if !bytes.Equal(got[name], want[name]) {
			t.Errorf("%s: sound differs (%d bytes of %d)", name, len(got[name]), len(want[name]))
		}
	}
	if _, err := mic.Read(t.Context()); err != io.EOF {
		t.Errorf("after the end: %v", err)
	}
	if err := mic.Write(t.Context(), nil); !errors.Is(err, decant.Unsupported) {
		t.Errorf("written: %v", err)
	}
}

// title returns a WAV file's INAM, as a reader of RIFF finds it.
func title(t *testing.T, wav []byte) string {
	t.Helper()
	_, list, ok := bytes.Cut(wav, []byte("LIST"))
	if !ok || string(list[4:12]) != "INFOINAM" {
		t.Fatalf("no title: %q", wav[:min(len(wav), 80)])
	}
	n := binary.LittleEndian.Uint32(list[12:])
	if padded := binary.LittleEndian.Uint32(list); padded != n+12 || n%2 != 0 {
		t.Errorf("title of %d in a list of %d", n, padded)
	}
	return strings.TrimRight(string(list[16:16+n]), "\x00")
}

func TestMicrophonePace(t *testing.T) {
	f := wavFormat{1, 16000}
	dir := t.TempDir()
	write(t, dir, "a.wav", wavFile(f, "", tone(f, 250*time.Millisecond)))
	synctest.Test(t, func(t *testing.T) {
		mic := open(t, dir, Config{Name: "mic", Type: "microphone", Driver: "file", Path: "a.wav", Chunk: decant.Duration(100 * time.Millisecond), Repeat: true})
		time.Sleep(time.Hour) // time runs from the first Read
		start := time.Now()
		read := func(at, given time.Duration) {
			t.Helper()
			s, err := mic.Read(t.Context())
			if err != nil || s.At.Sub(start) != at || time.Since(start) != given {
				t.Errorf("due at %v, given at %v, %v; want %v, %v", s.At.Sub(start), time.Since(start), err, at, given)
			}
		}
		ms := time.Millisecond
		read(100*ms, 100*ms)
		read(200*ms, 200*ms)
		read(250*ms, 250*ms) // what was left of the recording

		time.Sleep(180 * ms) // a slow reader catches up and loses nothing
		read(350*ms, 430*ms)
		read(450*ms, 450*ms)

		// A reader that gives up loses nothing either.
		ctx, cancel := context.WithTimeout(t.Context(), 20*ms)
		defer cancel()
		if _, err := mic.Read(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		read(500*ms, 500*ms)

		// Closing ends who waits, for the sample and for their turn.
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				if _, err := mic.Read(t.Context()); !errors.Is(err, decant.Unavailable) {
					t.Errorf("got %v", err)
				}
			})
		}
		synctest.Wait()
		if err := mic.Close(); err != nil {
			t.Error(err)
		}
		wg.Wait()
		if _, err := mic.Read(t.Context()); !errors.Is(err, decant.Unavailable) {
			t.Errorf("after Close: %v", err)
		}
	})
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	png := []byte("\x89PNG\r\n\x1a\n")
	write(t, dir, "in/2.png", png)
	write(t, dir, "in/1.json", []byte("{}"))
	write(t, dir, "in/3", png)
	write(t, dir, "in/sub/4", png)
	synctest.Test(t, func(t *testing.T) {
		cam := open(t, dir, Config{Name: "cam", Type: "camera", Driver: "file", Path: "in/*", Every: decant.Duration(2 * time.Second)})
		start := time.Now()
		for i, want := range []Sample{
			{ContentType: "application/json", Data: []byte("{}")},
			{ContentType: "image/png", Data: png},
			{ContentType: "image/png", Data: png}, // by its bytes
		} {
			s, err := cam.Read(t.Context())
			if err != nil || s.ContentType != want.ContentType || !bytes.Equal(s.Data, want.Data) {
				t.Errorf("sample %d: %+v, %v", i, s, err)
			}
			if after := time.Since(start); after != time.Duration(i+1)*2*time.Second {
				t.Errorf("sample %d after %v", i, after)
			}
		}
		if _, err := cam.Read(t.Context()); err != io.EOF {
			t.Errorf("at the end: %v", err)
		}
	})
}

func TestFilesRepeatAndErrors(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"1", "2", "3"} {
		write(t, dir, name, []byte(name))
	}
	cam := open(t, dir, Config{Name: "cam", Type: "camera", Driver: "file", Path: "?", Repeat: true})
	if err := os.Remove(filepath.Join(dir, "1")); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(dir, "2"), int64(maxFile)+1); err != nil { // sparse
		t.Fatal(err)
	}
	for range 2 {
		for _, code := range []decant.Code{decant.NotFound, decant.Exhausted} {
			if _, err := cam.Read(t.Context()); !errors.Is(err, code) {
				t.Errorf("got %v, want %s", err, code)
			}
		}
		before := time.Now()
		if s, err := cam.Read(t.Context()); err != nil || string(s.Data) != "3" || s.At.Before(before) {
			t.Errorf("got %v, %v", s, err)
		}
	}
}

// Each Read gets a sample of its own.
func TestReadersShare(t *testing.T) {
	dir := t.TempDir()
	for i := range 100 {
		write(t, dir, fmt.Sprint(i), fmt.Append(nil, i))
	}
	cam := open(t, dir, Config{Name: "cam", Type: "camera", Driver: "file", Path: "*"})
	var mu sync.Mutex
	seen := map[string]bool{}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				s, err := cam.Read(t.Context())
				if err != nil {
					return
				}
				mu.Lock()
				if seen[string(s.Data)] {
					t.Errorf("%s twice", s.Data)
				}
				seen[string(s.Data)] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(seen) != 100 {
		t.Errorf("%d of 100", len(seen))
	}
}

func TestScreen(t *testing.T) {
	dir := t.TempDir()
	c := Config{Name: "screen", Type: "screen", Driver: "file", Path: "out/wall.txt"}
	one, two := open(t, dir, c), open(t, dir, c)
	line := strings.Repeat("x", 5000) + "\n"
	var wg sync.WaitGroup
	for _, p := range []Peripheral{one, two, one, two} {
		wg.Go(func() {
			for range 50 {
				if err := p.Write(t.Context(), []byte(line)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	got, err := os.ReadFile(filepath.Join(dir, "out/wall.txt"))
	if err != nil || string(got) != strings.Repeat(line, 200) {
		t.Errorf("%d bytes, want %d whole lines, %v", len(got), 200, err)
	}
	if _, err := one.Read(t.Context()); !errors.Is(err, decant.Unsupported) {
		t.Errorf("read: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := one.Write(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	_ = one.Close()
	if err := one.Write(t.Context(), []byte(line)); !errors.Is(err, decant.Unavailable) {
		t.Errorf("after Close: %v", err)
	}
}

func TestStandardOutput(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	real := os.Stdout
	os.Stdout = w
	p, err := Open(t.TempDir(), Config{Name: "out", Type: "printer", Driver: "file", Path: "-"})
	os.Stdout = real
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Write(t.Context(), []byte("shown\n")); err != nil {
		t.Error(err)
	}
	_ = p.Close() // leaves standard output open
	if _, err := io.WriteString(w, "more"); err != nil {
		t.Error(err)
	}
	_ = w.Close()
	if got, _ := io.ReadAll(r); string(got) != "shown\nmore" {
		t.Errorf("got %q", got)
	}
}

func TestSimulated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		values := func() (out []float64) {
			p := open(t, t.TempDir(), Config{Name: "thermometer", Type: "thermometer", Driver: "simulated"})
			for range 100 {
				s, err := p.Read(t.Context())
				var v struct{ Value float64 }
				if err != nil || json.Unmarshal(s.Data, &v) != nil || v.Value < -2 || v.Value > 2 {
					t.Fatalf("%s, %v", s.Data, err)
				}
				out = append(out, v.Value)
			}
			return out
		}
		start := time.Now()
		first := values()
		if after := time.Since(start); after != 100*time.Second {
			t.Errorf("100 samples in %v", after)
		}
		if fmt.Sprint(first) != fmt.Sprint(values()) || first[15]-first[45] < 1 {
			t.Errorf("not a wave that comes again: %v", first)
		}
	})
}

func TestReadWAV(t *testing.T) {
	f := wavFormat{1, 8000}
	good := wavFile(f, "t", []byte{1, 2, 3, 4})
	change := func(at int, b ...byte) []byte {
		out := bytes.Clone(good)
		copy(out[at:], b)
		return out
	}
	junk := append(bytes.Clone(good[:12]), bytes.Repeat([]byte("junk\x00\x00\x00\x00"), 2*maxWAVChunks)...)
	extensible := append(bytes.Clone(good[:12]), "fmt \x28\x00\x00\x00\xfe\xff\x02\x00\x80\xbb\x00\x00\x00\xee\x02\x00\x04\x00\x10\x00\x16\x00\x10\x00\x03\x00\x00\x00\x01\x00\x00\x00\x00\x00\x10\x00\x80\x00\x00\xaa\x00\x38\x9b\x71data\x08\x00\x00\x0012345678"...)
	data := len(good) - 8 // where "data" has its length, less 4
	for _, tt := range []struct {
		name  string
		in    []byte
		want  wavFormat
		sound int64
		err   string
	}{
		{"good", good, f, 4, ""},
		{"extensible", extensible, wavFormat{2, 48000}, 8, ""},
		{"cut off", good[:len(good)-1], f, 2, ""},
		{"header never completed", change(data, 0xff, 0xff, 0xff, 0xff), f, 4, ""},
		{"odd chunk before", append(append(bytes.Clone(good[:12]), "odd \x01\x00\x00\x00x\x00"...), good[12:]...), f, 4, ""},
		{"empty", nil, wavFormat{}, 0, "not a WAV file"},
		{"only a header", good[:12], wavFormat{}, 0, "no sound"},
		{"no sound", good[:len(good)-4], wavFormat{}, 0, "no sound"},
		{"no data", good[:len(good)-12], wavFormat{}, 0, "no sound"},
		{"no format", append(bytes.Clone(good[:12]), "data\x02\x00\x00\x0012"...), wavFormat{}, 0, "before its format"},
		{"format cut off", good[:30], wavFormat{}, 0, "cut off"},
		{"float", change(20, 3, 0), wavFormat{}, 0, "convert it to PCM"},
		{"24 bits", change(34, 24, 0), wavFormat{}, 0, "convert it to PCM"},
		{"surround", change(22, 6, 0), wavFormat{}, 0, "6 channels"},
		{"no rate", change(24, 0, 0, 0, 0), wavFormat{}, 0, "0 frames a second"},
		{"odd frame", change(32, 3, 0), wavFormat{}, 0, "odd size"},
		{"endless chunks", junk, wavFormat{}, 0, "chunks before"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, sound, err := readWAV(bytes.NewReader(tt.in), int64(len(tt.in)))
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("got %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil || got != tt.want || sound.Size() != tt.sound {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}

func FuzzReadWAV(f *testing.F) {
	f.Add(wavFile(wavFormat{2, 44100}, "title", make([]byte, 8)))
	f.Fuzz(func(t *testing.T, in []byte) {
		format, sound, err := readWAV(bytes.NewReader(in), int64(len(in)))
		if err != nil {
			return
		}
		data, err := io.ReadAll(sound)
		if err != nil || len(data) == 0 || len(data)%format.frame() != 0 || len(data) > len(in) {
			t.Fatalf("%v: %d bytes of sound, %v", format, len(data), err)
		}
		again, sound, err := readWAV(bytes.NewReader(wavFile(format, "t", data)), 1<<40)
		if err != nil || again != format || sound.Size() != int64(len(data)) {
			t.Fatalf("%v became %v, %v", format, again, err)
		}
	})
}
