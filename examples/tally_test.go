package examples_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/wasm"
)

// TestTally checks the same module in four languages: each alone, and that it
// answers as the one in Go does.
func TestTally(t *testing.T) {
	inGo := newBench(t)
	checkTally(inGo, "tally/go")
	for _, dir := range []string{"tally/go", "tally/c", "tally/assemblyscript", "tally/rust"} {
		t.Run(dir, func(t *testing.T) {
			b := newBench(t)
			if dir != "tally/go" {
				checkTally(b, dir)
			}
			checkAgrees(b, dir, inGo, "tally/go")
		})
	}
}

func checkTally(b *bench, dir string) {
	b.t.Helper()
	checkAnswers(b, dir)
	checkFile(b, dir)
	checkMemory(b, dir)
	checkUptime(b, dir)
}

// checkAnswers makes a script of calls, one after the other.
func checkAnswers(b *bench, dir string) {
	b.t.Helper()
	const report = "hall 2 3 -4 7\nkitchen 2 44 21 23\n"
	name := strings.Repeat("n", 32)
	script := []struct {
		function, request, want string
		fails                   string // what its error says
	}{
		{function: "mean", request: "[]", want: `["NaN"]`},
		{function: "report", want: ""},
		{function: "load", fails: "cannot load"},
		{function: "add", request: "", want: "0\n"},
		{function: "add", request: "kitchen 21\nhall -4\nkitchen 23\n", want: "3\n"},
		{function: "add", request: "hall +07", want: "4\n"},
		{function: "report", want: report},
		{function: "mean", request: "[]", want: "[11.75]"},
		{function: "above", request: "[6]", want: "[2]"},
		{function: "above", request: "[7]", want: "[1]"},
		{function: "above", request: "[2147483647]", want: "[0]"},

		{function: "add", request: "\n", fails: "line 1 is not a name and a number"},
		{function: "add", request: "hall 7\n\nhall 7", fails: "line 2 is not a name and a number"},
		{function: "add", request: "hall 7\nhall", fails: "line 2 is not a name and a number"},
		{function: "add", request: "hall \n7", fails: "line 1 "},
		{function: "add", request: "hall  7", fails: "line 1 "},
		{function: "add", request: "hall 7 ", fails: "line 1 "},
		{function: "add", request: "hall 7\r\n", fails: "line 1 "},
		{function: "add", request: "hall -", fails: "line 1 "},
		{function: "add", request: "hall +-7", fails: "line 1 "},
		{function: "add", request: "hall 0x7", fails: "line 1 "},
		{function: "add", request: "hall 1_0", fails: "line 1 "},
		{function: "add", request: "hall 2147483648", fails: "line 1 "},
		{function: "add", request: "hall -2147483649", fails: "line 1 "},
		{function: "add", request: "hall 18446744073709551616", fails: "line 1 "},
		{function: "add", request: "hall 7\x00", fails: "line 1 "},
		{function: "add", request: "ha\x00ll 7", fails: "line 1 "},
		{function: "add", request: "h\xc3\xa4ll 7", fails: "line 1 "},
		{function: "add", request: "hall 7\n\xff", fails: "line 2 "},
		{function: "add", request: "\xc1\xa8all 7", fails: "line 1 "}, // h, in more bytes than UTF-8 allows
		{function: "add", request: " 7", fails: "line 1 "},
		{function: "add", request: name + "n 7", fails: "line 1 "},
		{function: "above", request: "[]", fails: "(i32) -> (i64)"},
		{function: "report", want: report},

		{function: "save"},
		{function: "add", request: name + " 2147483647\n" + name + " -2147483648\n", want: "6\n"},
		{function: "report", want: report + name + " 2 -1 -2147483648 2147483647\n"},
		{function: "load"},
		{function: "report", want: report},
	}
	g := b.start(dir, guest{state: b.t.TempDir()})
	for i, c := range script {
		response, err := g.guest.Call(b.t.Context(), c.function, []byte(c.request))
		if string(response) != c.want || (err != nil) != (c.fails != "") || err != nil && !strings.Contains(err.Error(), c.fails) {
			b.t.Errorf("call %d, %s(%q): got %q, %v; want %q, %q", i+1, c.function, c.request, response, err, c.want, c.fails)
		}
	}
}

// checkFile checks that what was saved is there for the next instance, and that
// a damaged file, or none, changes nothing.
func checkFile(b *bench, dir string) {
	b.t.Helper()
	state := b.t.TempDir()
	first := b.start(dir, guest{state: state})
	first.call("add", []byte("hall 1"))
	first.call("save", nil)
	first.call("add", []byte("hall 2"))

	second := b.start(dir, guest{state: state})
	second.call("load", nil)
	second.holds("hall 1 1 1 1\n")
	for _, damaged := range []string{"hall\n", "hall 1 7 7\n", "hall 1 7 7 seven\n"} {
		if err := os.WriteFile(filepath.Join(state, "tally"), []byte(damaged), 0o600); err != nil {
			b.t.Fatal(err)
		}
		second.fails("load", "cannot load")
	}
	second.holds("hall 1 1 1 1\n")

	nowhere := b.start(dir, guest{})
	nowhere.call("add", []byte("hall 7"))
	nowhere.fails("save", "cannot save")
	nowhere.fails("load", "cannot load")
	nowhere.holds("hall 1 7 7 7\n")
}

// checkMemory checks that a tally grows with its names, and not with its calls:
// many large ones fit into what package.yaml says it needs.
func checkMemory(b *bench, dir string) {
	b.t.Helper()
	const names, calls = 2000, 100
	var request, report strings.Builder
	for i := range names {
		fmt.Fprintf(&request, "name-%04d %d\n", i, i)
		fmt.Fprintf(&report, "name-%04d %d %d %d %d\n", i, calls, calls*i, i, i)
	}
	g := b.start(dir, guest{})
	for i := range calls {
		if got, want := string(g.call("add", []byte(request.String()))), fmt.Sprintln((i+1)*names); got != want {
			b.t.Fatalf("call %d: got %q, want %q", i+1, got, want)
		}
	}
	g.holds(report.String())
}

// checkUptime checks that the clock never goes back.
func checkUptime(b *bench, dir string) {
	b.t.Helper()
	g := b.start(dir, guest{})
	last := int64(0)
	for range 100 {
		var now [1]int64
		if err := json.Unmarshal(g.call("uptime", []byte("[]")), &now); err != nil {
			b.t.Fatal(err)
		}
		if now[0] < last || now[0] > 60_000 {
			b.t.Fatalf("uptime %d ms follows %d ms", now[0], last)
		}
		last = now[0]
	}
}

// checkAgrees makes the same calls, drawn at random, to two modules. The second
// moves between some of them: it is captured and goes on elsewhere, by the
// compiler or the interpreter, as if nothing had happened.
func checkAgrees(b *bench, dir string, reference *bench, referenceDir string) {
	b.t.Helper()
	startFirst, startSecond := reference.forProperty(referenceDir), b.forProperty(dir)
	move := b.mover(dir)
	rapid.Check(b.t, func(t *rapid.T) {
		first, second := startFirst(t), startSecond(t)
		last := uptime(t, second)
		for range rapid.IntRange(1, 30).Draw(t, "calls") {
			if rapid.Bool().Draw(t, "move") {
				second = move(t, second)
			}
			function := rapid.SampledFrom([]string{"add", "add", "add", "report", "mean", "above", "save", "load"}).Draw(t, "function")
			request := requests[function].Draw(t, "request")
			want, wantErr := first.Call(b.t.Context(), function, []byte(request))
			got, err := second.Call(b.t.Context(), function, []byte(request))
			if string(got) != string(want) || decant.CodeOf(err) != decant.CodeOf(wantErr) {
				t.Fatalf("%s(%q): got %q, %v; want %q, %v", function, request, got, err, want, wantErr)
			}
		}
		if now := uptime(t, second); now < last {
			t.Fatalf("uptime %d ms follows %d ms", now, last)
		}
	})
}

func uptime(t *rapid.T, g *wasm.Guest) (ms int64) {
	response, err := g.Call(context.Background(), "uptime", []byte("[]"))
	if err != nil {
		t.Fatal(err)
	}
	var now [1]int64
	if err := json.Unmarshal(response, &now); err != nil {
		t.Fatal(err)
	}
	return now[0]
}

// mover returns what moves a guest of the package in dir: captured, sent, and
// restored under an engine drawn at random, with a folder of its own.
func (b *bench) mover(dir string) func(*rapid.T, *wasm.Guest) *wasm.Guest {
	b.t.Helper()
	other := &bench{t: b.t, host: newHost(b.t, wasm.Config{Interpreter: true})}
	hosts := []*wasm.Host{b.host, other.host}
	modules := []*wasm.Module{b.compile(dir), other.compile(dir)}
	folder := b.t.TempDir()
	return func(t *rapid.T, g *wasm.Guest) *wasm.Guest {
		captured, err := g.Capture(b.t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer captured.Close()
		var wire bytes.Buffer
		if _, err := captured.Encode(&wire); err != nil {
			t.Fatal(err)
		}
		_ = g.Close()
		arrived, _, err := wasm.Decode(&wire, snapshotLimits)
		if err != nil {
			t.Fatal(err)
		}
		defer arrived.Close()
		state, err := os.MkdirTemp(folder, "")
		if err != nil {
			t.Fatal(err)
		}
		engine := rapid.IntRange(0, 1).Draw(t, "engine")
		moved, err := hosts[engine].Restore(b.t.Context(), modules[engine], wasm.GuestConfig{State: state}, arrived)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = moved.Close() })
		return moved
	}
}

// requests are what a tally's functions are sent: some lines are wrong by the
// size of their number.
var requests = map[string]*rapid.Generator[string]{
	"add":    rapid.StringMatching(`([a-c]{1,2} [+-]?[0-9]{1,10}\n){0,5}`),
	"report": rapid.Just(""),
	"mean":   rapid.Just("[]"),
	"above":  rapid.StringMatching(`\[-?[1-9][0-9]{0,8}\]`),
	"save":   rapid.Just(""),
	"load":   rapid.Just(""),
}

// forProperty returns what starts the package in dir once for each check of a
// property.
func (b *bench) forProperty(dir string) func(*rapid.T) *wasm.Guest {
	b.t.Helper()
	module, folder := b.compile(dir), b.t.TempDir()
	return func(rt *rapid.T) *wasm.Guest {
		state, err := os.MkdirTemp(folder, "")
		if err != nil {
			rt.Fatal(err)
		}
		g, err := b.host.Start(b.t.Context(), module, wasm.GuestConfig{State: state})
		if err != nil {
			rt.Fatal(err)
		}
		rt.Cleanup(func() { _ = g.Close() })
		return g
	}
}

// holds checks a tally's report.
func (g *guest) holds(report string) {
	g.t.Helper()
	if got := string(g.call("report", nil)); got != report {
		g.t.Errorf("the report is %q, want %q", got, report)
	}
}

// fails makes a call that must fail.
func (g *guest) fails(function, why string) {
	g.t.Helper()
	if _, err := g.guest.Call(g.t.Context(), function, nil); decant.CodeOf(err) != decant.GuestFailed || !strings.Contains(err.Error(), why) {
		g.t.Errorf("%s: got error %v, want %q", function, err, why)
	}
}
