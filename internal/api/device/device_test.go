package device

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/problem"
)

// who may use each route. A route that is not here fails TestWhoMayWhat.
var rules = map[string][]string{
	"GET /v1/device":                             {"", "stranger", "device", "orchestrator"},
	"GET /.well-known/wot":                       {"", "stranger", "device", "orchestrator"},
	"POST /v1/join-code":                         {"", "stranger", "device", "orchestrator"},
	"POST /v1/apps/{app}/{component}/{function}": {"device", "orchestrator"},
	"GET /v1/instances":                          {"orchestrator"},
	"GET /v1/state":                              {"orchestrator"},
	"GET /v1/apps/{app}/{component}/log":         {"orchestrator"},
	"GET /v1/models":                             {"orchestrator"},
	"PUT /v1/models/{name}":                      {"orchestrator"},
	"DELETE /v1/models/{name}":                   {"orchestrator"},
	"POST /v1/models/{name}/infer":               {"orchestrator"},
	"GET /openapi.json":                          {"orchestrator"},
}

// routes returns all that the device serves: what it describes, and the two
// descriptions. TestEachRouteIsDescribed of the package above sees to it that
// there is nothing else.
func routes(t *testing.T) (all []string) {
	t.Helper()
	f := &fakeDevice{}
	var doc struct{ Paths map[string]map[string]any }
	if err := json.Unmarshal([]byte(bodyOf(t, f.ask("GET", "/openapi.json", "", nil))), &doc); err != nil {
		t.Fatal(err)
	}
	for path, item := range doc.Paths {
		for method := range item {
			all = append(all, strings.ToUpper(method)+" "+path)
		}
	}
	return append(all, "GET /openapi.json", "GET /.well-known/wot")
}

var wildcard = regexp.MustCompile(`\{\w+\}`)

func TestWhoMayWhat(t *testing.T) {
	all := routes(t)
	for _, route := range all {
		if _, ok := rules[route]; !ok {
			t.Errorf("no rule says who may %s", route)
		}
	}
	for route, allowed := range rules {
		if !slices.Contains(all, route) {
			t.Errorf("there is no route %s any more", route)
		}
		method, path, _ := strings.Cut(route, " ")
		path = wildcard.ReplaceAllString(path, "x")
		for peer := range peers {
			f := &fakeDevice{model: &fakeModel{}}
			rec := httptest.NewRecorder()
			f.handler().ServeHTTP(rec, as(peer, httptest.NewRequest(method, path, strings.NewReader(`{"code":"c"}`))))
			denied := errors.Is(problem.Read(rec.Result()), decant.Denied)
			if may := slices.Contains(allowed, peer); denied == may {
				t.Errorf("%s as %q: status %d %s", route, peer, rec.Code, rec.Body)
			}
			if asked := f.noted(); denied && asked != "" {
				t.Errorf("%s as %q is denied, after %s", route, peer, asked)
			}
		}
	}
}

// TestWaysRound: no spelling of a path, and no other method, lets a stranger or
// a device past the rules.
func TestWaysRound(t *testing.T) {
	tests := []struct{ method, target string }{
		{"GET", "/v1/apps/a/b/../../../instances"},
		{"POST", "/v1/apps/a/b/../../../models/m/infer"},
		{"POST", "//v1/models/m/infer"},
		{"POST", "/v1/models/m/infer/"},
		{"POST", "/v1/models/%2e%2e/infer"},
		{"DELETE", "/v1/device/../models/m"},
		{"DELETE", "/v1/models/v1%2Fapps"},
		{"PUT", "/v1/models/m"},
		{"HEAD", "/v1/instances"},
		{"HEAD", "/v1/models"},
		{"GET", "/v1/join-code/../models"},
		{"GET", "/v1//state"},
		{"OPTIONS", "/v1/models/m"},
		{"CONNECT", "/v1/instances"},
		{"GET", "/v1/apps/a/b/log"},
		{"GET", "/v1/apps/a/b/log/"},
	}
	for _, tt := range tests {
		for _, peer := range []string{"", "stranger", "device"} {
			f := &fakeDevice{model: &fakeModel{}, info: decant.DeviceInfo{Name: "secret"}}
			rec := httptest.NewRecorder()
			f.handler().ServeHTTP(rec, as(peer, httptest.NewRequest(tt.method, tt.target, nil)))
			if asked := f.noted(); asked != "" {
				t.Errorf("%s %s as %q: %s", tt.method, tt.target, peer, asked)
			}
			if rec.Code < 300 {
				t.Errorf("%s %s as %q: status %d %s", tt.method, tt.target, peer, rec.Code, rec.Body)
			}
		}
	}
}

func TestReads(t *testing.T) {
	f := &fakeDevice{
		info:      decant.DeviceInfo{ID: "d1", Name: "board", Labels: map[string]string{"site": "hall"}, State: decant.DeviceState{Load: .5, FreeMemory: 7}},
		instances: []decant.InstanceStatus{{Application: "a", Component: "b", State: decant.InstanceRunning}},
	}
	for path, want := range map[string]any{
		"/v1/device":    f.info,
		"/v1/state":     f.info.State,
		"/v1/instances": f.instances,
		"/v1/models":    []Model{{Name: "m", Digest: decant.DigestOf(nil), Size: 7}},
	} {
		resp := f.ask("GET", path, "", nil)
		got := reflect.New(reflect.TypeOf(want))
		if err := json.Unmarshal([]byte(bodyOf(t, resp)), got.Interface()); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		if resp.Header.Get("Content-Type") != "application/json" || !reflect.DeepEqual(got.Elem().Interface(), want) {
			t.Errorf("%s: %s %+v", path, resp.Header.Get("Content-Type"), got.Elem())
		}
	}
}

func TestOffer(t *testing.T) {
	tests := []struct {
		name, body, asked string
		code              decant.Code
	}{
		{"an offer", `{"code":"c-1","orchestrators":["h:7443","[::1]:7443"]}`, "Offer c-1 [h:7443 [::1]:7443]", ""},
		{"of nobody", `{"code":"c-1"}`, "Offer c-1 []", ""},
		{"an unknown member", `{"code":"c-1","site":"x"}`, "", decant.Invalid},
		{"not JSON", `code`, "", decant.Invalid},
		{"nothing", ``, "", decant.Invalid},
		{"too much", `{"code":"` + strings.Repeat("x", maxJSON) + `"}`, "", decant.Exhausted},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := &fakeDevice{}
			resp := f.ask("POST", "/v1/join-code", "application/json", []byte(tt.body))
			if got := decant.CodeOf(problem.Read(resp)); got != tt.code {
				t.Errorf("status %d, code %q", resp.StatusCode, got)
			}
			if tt.code == "" && resp.StatusCode != http.StatusNoContent {
				t.Errorf("status %d", resp.StatusCode)
			}
			if asked := f.noted(); asked != tt.asked {
				t.Errorf("asked for %q", asked)
			}
		})
	}
}

// TestErrors: what the service refuses is refused with its own words.
func TestErrors(t *testing.T) {
	want := decant.Errorf(decant.Conflict, "it is taken").WithHelp("wait")
	for route := range maps.Keys(rules) {
		method, path, _ := strings.Cut(wildcard.ReplaceAllString(route, "x"), " ")
		switch path {
		case "/v1/device", "/v1/instances", "/v1/state", "/openapi.json", "/.well-known/wot":
			continue // cannot fail
		}
		f := &fakeDevice{err: want}
		err := problem.Read(f.ask(method, path, "application/json", []byte(`{"code":"c"}`)))
		if e, ok := errors.AsType[*decant.Error](err); !ok || e.Code != want.Code || e.Message != want.Message || e.Help != want.Help {
			t.Errorf("%s: %#v", route, err)
		}
	}
}

func TestModels(t *testing.T) {
	f := &fakeDevice{}
	digest := decant.DigestOf([]byte("a model"))

	resp := f.ask("PUT", "/v1/models/vad?digest="+string(digest), "application/octet-stream", []byte("a model"))
	var m Model
	if err := json.Unmarshal([]byte(bodyOf(t, resp)), &m); err != nil || resp.StatusCode != 200 {
		t.Fatalf("status %d, %v", resp.StatusCode, err)
	}
	if m.Name != "vad" || m.Digest != digest || m.Size != 7 || len(m.Inputs) != 1 || m.Inputs[0].String() != "f32 [?,2]" {
		t.Errorf("got %+v", m)
	}
	if asked := f.noted(); asked != "PutModel vad 7 "+string(digest) {
		t.Errorf("asked for %s", asked)
	}

	if resp := f.ask("PUT", "/v1/models/vad", "", bytes.Repeat([]byte("x"), 1<<20)); resp.StatusCode != 200 {
		t.Errorf("without a digest: %s", bodyOf(t, resp))
	}
	if asked := f.noted(); asked != "PutModel vad 1048576 " {
		t.Errorf("asked for %s", asked)
	}

	err := problem.Read(f.ask("PUT", "/v1/models/vad?digest=sha256:12", "", []byte("a model")))
	if asked := f.noted(); !errors.Is(err, decant.Invalid) || asked != "" {
		t.Errorf("a digest that is none: %v, %s", err, asked)
	}

	if resp := f.ask("DELETE", "/v1/models/a%2Fb", "", nil); resp.StatusCode != http.StatusNoContent {
		t.Errorf("delete: %d", resp.StatusCode)
	}
	if asked := f.noted(); asked != "RemoveModel a/b" {
		t.Errorf("asked for %s", asked)
	}
}

func TestCallIsServed(t *testing.T) {
	f := &fakeDevice{}
	for _, peer := range []string{"device", "orchestrator"} {
		rec := httptest.NewRecorder()
		f.handler().ServeHTTP(rec, as(peer, httptest.NewRequest("POST", "/v1/apps/a/b/f", strings.NewReader("hello"))))
		if rec.Code != 200 || rec.Body.String() != "hello" || rec.Header().Get("Content-Type") != "text/x" {
			t.Errorf("%s: %d %s", peer, rec.Code, rec.Body)
		}
		if asked := f.noted(); asked != "Call a b f hello" {
			t.Errorf("asked for %s", asked)
		}
	}
}

func TestLog(t *testing.T) {
	tests := []struct {
		query, asked string
		code         decant.Code
	}{
		{"", "Log a b 200 false", ""},
		{"?lines=5&follow=true", "Log a b 5 true", ""},
		{"?lines=0&follow=false", "Log a b 0 false", ""},
		{"?lines=100000", "Log a b 100000 false", ""},
		{"?lines=100001", "", decant.Invalid},
		{"?lines=-1", "", decant.Invalid},
		{"?lines=x", "", decant.Invalid},
	}
	for _, tt := range tests {
		f := &fakeDevice{log: func(_ context.Context, w io.Writer) error {
			_, err := io.WriteString(w, "a line\n")
			return err
		}}
		resp := f.ask("GET", "/v1/apps/a/b/log"+tt.query, "", nil)
		if got := decant.CodeOf(problem.Read(resp)); got != tt.code {
			t.Errorf("%s: code %q", tt.query, got)
		}
		if asked := f.noted(); asked != tt.asked {
			t.Errorf("%s: asked for %s", tt.query, asked)
		}
		if tt.code == "" && (bodyOf(t, resp) != "a line\n" || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain")) {
			t.Errorf("%s: %s", tt.query, resp.Header)
		}
	}
}

// TestLogErrors: an error before the first line is the answer; one after it is
// not mixed with the lines.
func TestLogErrors(t *testing.T) {
	lost := decant.Errorf(decant.NotFound, "lost")
	for lines, want := range map[int]string{0: "not_found", 1: "line 1\n"} {
		f := &fakeDevice{log: func(_ context.Context, w io.Writer) error {
			for n := range lines {
				fmt.Fprintf(w, "line %d\n", n+1)
			}
			return lost
		}}
		resp := f.ask("GET", "/v1/apps/a/b/log", "", nil)
		got := bodyOf(t, resp)
		if lines == 0 && (resp.StatusCode != 404 || !strings.Contains(got, want)) || lines > 0 && (resp.StatusCode != 200 || got != want) {
			t.Errorf("%d lines: status %d %q", lines, resp.StatusCode, got)
		}
	}
}

// TestLogFollows over a real connection: each line arrives before the next is
// written, and the service learns that the reader has left.
func TestLogFollows(t *testing.T) {
	next, left := make(chan string), make(chan struct{})
	f := &fakeDevice{log: func(ctx context.Context, w io.Writer) error {
		defer close(left)
		if _, err := w.Write(nil); err != nil { // no lines yet, but the answer begins
			return err
		}
		for {
			select {
			case line := <-next:
				if _, err := io.WriteString(w, line); err != nil {
					return err
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.handler().ServeHTTP(w, as("orchestrator", r))
	}))
	defer srv.Close()
	defer srv.Client().CloseIdleConnections()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", srv.URL+"/v1/apps/a/b/log?follow=true", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := srv.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for _, line := range []string{"one\n", "two\n"} {
		next <- line
		got := make([]byte, len(line))
		if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != line {
			t.Fatalf("%q, %v", got, err)
		}
	}
	cancel()
	<-left
}
