package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/decant-project/decant"
)

// esc sets the title of a terminal, and writes over the line before.
const esc = "\x1b]0;title\a\x1b[1A\x1b[2K"

// TestForTerminals: whatever others wrote, a line is a line, and a cell a cell.
func TestForTerminals(t *testing.T) {
	for _, tt := range []struct {
		name  string
		print func(w *bytes.Buffer)
		want  string
	}{
		{"row", func(w *bytes.Buffer) { row(w, "board", "linux"+esc, "a\tb\nc", "", 4) }, "board\tlinux ]0;title  [1A [2K\ta b c\t-\t4\n"},
		{"long cell", func(w *bytes.Buffer) { row(w, strings.Repeat("x", 1<<20)) }, strings.Repeat("x", maxLine-4) + " ...\n"},
		{
			"event", func(w *bytes.Buffer) {
				e := decant.Event{
					At: time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local), Kind: "x" + esc, Application: "app", Component: "a\nb", Device: "d1",
					Message: "x\n2026-11-25 00:00:00  device.removed",
				}
				printEvent(w, e, func(id string) string { return id + esc })
			},
			"2026-01-02 03:04:05  x ]0;title  [1A [2K app/a b on d1 ]0;title  [1A [2K: x 2026-11-25 00:00:00  device.removed\n",
		},
		{
			"log", func(w *bytes.Buffer) {
				out := &lines{w: w}
				if err := out.copy("ear", strings.NewReader("\tat\tline 1\r\n  ä → b"+esc+"\n\xff\u009b2J\n")); err != nil {
					t.Error(err)
				}
			},
			"ear | \tat\tline 1\near |   ä → b�]0;title��[1A�[2K\near | ��2J\n",
		},
	} {
		var out bytes.Buffer
		if tt.print(&out); out.String() != tt.want {
			t.Errorf("%s: %.400q\nwant %.400q", tt.name, out.String(), tt.want)
		}
	}
}

// TestDeployForTerminals: nor does what devices said of an application write
// over what deploy says.
func TestDeployForTerminals(t *testing.T) {
	d := decant.Deployment{
		Application: decant.Application{Name: "app", Components: map[string]decant.Component{"ear": {Package: "frames"}}}, Revision: 1,
		Status: decant.DeployPending, Message: "no " + esc + "\nluck",
		Instances: map[string]decant.InstanceStatus{"ear": {Device: "d1", State: "running" + esc, Error: decant.Errorf(decant.Internal, "it\nbroke%s", esc)}},
	}
	runs := d
	runs.Status = decant.DeployRunning
	mux := http.NewServeMux()
	answer := func(pattern string, v any) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(v)
		})
	}
	answer("GET /v1/devices", []decant.Device{{DeviceInfo: decant.DeviceInfo{ID: "d1", Name: "board" + esc}}})
	answer("PUT /v1/apps/app", d)
	mux.HandleFunc("GET /v1/apps/app/watch", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for _, now := range []decant.Deployment{d, runs} {
			data, _ := json.Marshal(now)
			fmt.Fprintf(w, "event: deployment\ndata: %s\n\n", data)
		}
	})
	server := httptest.NewServer(mux)
	defer server.Close()

	cmd := rootCommand()
	var stdout, stderr bytes.Buffer
	cmd.SetOut(&stdout)
	cmd.SetErr(&stderr)
	cmd.SetIn(strings.NewReader("application: app\ncomponents: {ear: {package: frames}}\n"))
	cmd.SetArgs([]string{"deploy", "-f", "-", "--orchestrator", server.URL})
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	const shownEsc = " ]0;title  [1A [2K"
	if got, want := stderr.String(), "  ear on board"+shownEsc+": running"+shownEsc+": it broke"+shownEsc+"\n  pending: no "+shownEsc+" luck\n"; got != want {
		t.Errorf("it says %q\nwant %q", got, want)
	}
	if got := stdout.String(); !strings.HasPrefix(got, "app revision 1 is running: no "+shownEsc+" luck\n\n") || strings.Contains(got, "\x1b") {
		t.Errorf("it prints %q", got)
	}
}
