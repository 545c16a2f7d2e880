package site_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/client"
	"github.com/decant-project/decant/internal/api"
	"github.com/decant-project/decant/internal/api/site"
	"github.com/decant-project/decant/internal/problem"
	"github.com/decant-project/decant/internal/transport"
)

// odd is a name that no path, query or JSON carries as it is.
const odd = `a/b ä?x=1&y#z%2F+;"' <e> ../@^1.0 || >=2`

var (
	blobDigest = decant.DigestOf([]byte("blob"))
	errEnough  = errors.New("enough")
)

// method is a method of the client, what it must ask the service for, and what
// it must return.
type method struct {
	name string
	call func(ctx context.Context, c *client.Client) (any, error)
	asks string
	want any
}

// methods are all that the client asks, with the values that a service of full
// answers gives.
func methods() []method {
	app, spec, blobs := full[decant.Application](), full[decant.PackageSpec](), full[[]decant.Blob]()
	app.Name = odd
	var (
		quoted = toJSON(odd)
		digest = toJSON(blobDigest)
		device = full[decant.Device]()
		pkg    = full[decant.Package]()
		deploy = full[decant.Deployment]()
		event  = full[decant.Event]()
	)
	firstDeployment, firstEvent := deploy, event
	firstDeployment.Revision, firstEvent.Message = 1, "1"
	type ctx = context.Context
	type cl = *client.Client
	return []method{
		{"Site", func(x ctx, c cl) (any, error) { return c.Site(x) }, "Site", client.Site(full[site.Info]())},
		{"NewJoinCode", func(x ctx, c cl) (any, error) { return c.NewJoinCode(x) }, "NewJoinCode", client.JoinCode(full[site.JoinCode]())},
		{"Devices", func(x ctx, c cl) (any, error) { return c.Devices(x) }, "ListDevices", []decant.Device{device, device}},
		{"Device", func(x ctx, c cl) (any, error) { return c.Device(x, odd) }, "Device " + quoted, device},
		{"ApproveDevice", func(x ctx, c cl) (any, error) { return nil, c.ApproveDevice(x, odd) }, "ApproveDevice " + quoted, nil},
		{"RemoveDevice", func(x ctx, c cl) (any, error) { return nil, c.RemoveDevice(x, odd) }, "RemoveDevice " + quoted, nil},
		{"Packages", func(x ctx, c cl) (any, error) { return c.Packages(x) }, "ListPackages", []decant.Package{pkg, pkg}},
		{"Package", func(x ctx, c cl) (any, error) { return c.Package(x, odd) }, "Package " + quoted, pkg},
		{"RemovePackage", func(x ctx, c cl) (any, error) { return nil, c.RemovePackage(x, odd, odd) }, "RemovePackage " + quoted + " " + quoted, nil},
		{"HasBlob", func(x ctx, c cl) (any, error) { return c.HasBlob(x, blobDigest) }, "StatBlob " + digest, true},
		{"PutBlob", func(x ctx, c cl) (any, error) {
			return nil, c.PutBlob(x, blobDigest, 4, strings.NewReader("blob"))
		}, "PutBlob " + digest + ` "blob"`, nil},
		{"Push", func(x ctx, c cl) (any, error) { return c.Push(x, spec, blobs) }, "PushPackage " + toJSON(spec) + " " + toJSON(blobs), pkg},
		{"Deploy", func(x ctx, c cl) (any, error) { return c.Deploy(x, app, 41) }, "Deploy " + toJSON(app) + " 41", deploy},
		{"Deployments", func(x ctx, c cl) (any, error) { return c.Deployments(x) }, "Deployments", []decant.Deployment{deploy, deploy}},
		{"Deployment", func(x ctx, c cl) (any, error) { return c.Deployment(x, odd) }, "Deployment " + quoted, deploy},
		{"History", func(x ctx, c cl) (any, error) { return c.History(x, odd) }, "History " + quoted, []decant.Deployment{deploy, deploy}},
		{"Undeploy", func(x ctx, c cl) (any, error) { return nil, c.Undeploy(x, odd) }, "Undeploy " + quoted, nil},
		{"WatchDeployment", func(x ctx, c cl) (any, error) {
			return firstOf(func(f func(decant.Deployment) error) error { return c.WatchDeployment(x, odd, f) })
		}, "WatchDeployment " + quoted, firstDeployment},
		{"Events", func(x ctx, c cl) (any, error) { return c.Events(x, 42) }, "Events 42", []decant.Event{event, event}},
		{"WatchEvents", func(x ctx, c cl) (any, error) {
			return firstOf(func(f func(decant.Event) error) error { return c.WatchEvents(x, 43, f) })
		}, "WatchEvents 43", firstEvent},
		{"Invoke", func(x ctx, c cl) (any, error) {
			answer, contentType, err := c.Invoke(x, client.Call{Application: odd, Component: odd, Function: odd, ContentType: "audio/L16; rate=16000"}, []byte("\x00body"))
			return contentType + ": " + string(answer), err
		}, "Invoke " + toJSON(transport.Request{Application: odd, Component: odd, Function: odd, ContentType: "audio/L16; rate=16000"}) + ` "\u0000body"`, "text/x: answer"},
		{"Log", func(x ctx, c cl) (any, error) {
			r, err := c.Log(x, odd, odd, true)
			if err != nil {
				return nil, err
			}
			defer r.Close()
			lines, err := io.ReadAll(r)
			return string(lines), err
		}, "ComponentLog " + quoted + " " + quoted + " true", "a line\nanother\n"},
	}
}

func toJSON(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(data)
}

// firstOf returns the first event of a stream.
func firstOf[T any](watch func(func(T) error) error) (first T, err error) {
	err = watch(func(v T) error {
		first = v
		return errEnough
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return first, err
}

// TestEachMethod: what a user asks for reaches the service, and what it answers
// comes back, with nothing of either lost on the way.
func TestEachMethod(t *testing.T) {
	f := newFakeSite()
	c, _ := f.serve(t)
	tested := map[string]bool{"Close": true}
	for _, m := range methods() {
		tested[m.name] = true
		t.Run(m.name, func(t *testing.T) {
			f.log = io.NopCloser(strings.NewReader("a line\nanother\n"))
			f.events = []error{nil, nil}
			got, err := m.call(t.Context(), c)
			if err != nil || !reflect.DeepEqual(got, m.want) {
				t.Errorf("got %+v, %v\nwant %+v", got, err, m.want)
			}
			if asked := f.noted(); asked != m.asks {
				t.Errorf("asked for %s\nwant %s", asked, m.asks)
			}
			if strings.HasPrefix(m.name, "Watch") {
				<-f.streams // the service learns that the user has gone
			}
		})
	}
	for i := range reflect.TypeFor[*client.Client]().NumMethod() {
		if name := reflect.TypeFor[*client.Client]().Method(i).Name; !tested[name] {
			t.Errorf("%s is not tested here", name)
		}
	}
}

var codes = []decant.Code{
	decant.Invalid, decant.NotFound, decant.Conflict, decant.Denied, decant.Infeasible, decant.Unsupported,
	decant.Exhausted, decant.Unavailable, decant.Deadline, decant.GuestFailed, decant.Corrupt, decant.Internal,
}

// TestErrors: each method returns the service's error with its code, message
// and help.
func TestErrors(t *testing.T) {
	f := newFakeSite()
	c, _ := f.serve(t)
	for _, m := range methods() {
		t.Run(m.name, func(t *testing.T) {
			for _, code := range codes {
				want := decant.Errorf(code, "cannot do it: %s", code).WithHelp("do `that`")
				f.err = want
				got, err := m.call(t.Context(), c)
				if m.name == "HasBlob" && code == decant.NotFound {
					if err != nil || got != false {
						t.Errorf("a blob that is not there: %v, %v", got, err)
					}
					continue
				}
				e, ok := errors.AsType[*decant.Error](err)
				if !ok || !errors.Is(err, code) || e.Message != want.Message || e.Help != want.Help {
					t.Errorf("got %#v, want %#v", err, want)
				}
			}
		})
	}
}

// TestNamesThatAreNone: where a path has no name, or steps up, nothing is done
// to anything.
func TestNamesThatAreNone(t *testing.T) {
	f := newFakeSite()
	c, _ := f.serve(t)
	for _, name := range []string{"", ".", ".."} {
		for what, act := range map[string]func() error{
			"approve":         func() error { return c.ApproveDevice(t.Context(), name) },
			"remove":          func() error { return c.RemoveDevice(t.Context(), name) },
			"remove package":  func() error { return c.RemovePackage(t.Context(), name, "1.0.0") },
			"remove version":  func() error { return c.RemovePackage(t.Context(), "p", name) },
			"undeploy":        func() error { return c.Undeploy(t.Context(), name) },
			"deploy":          func() error { _, err := c.Deploy(t.Context(), decant.Application{Name: name}, 0); return err },
			"put a blob":      func() error { return c.PutBlob(t.Context(), decant.Digest(name), 1, strings.NewReader("b")) },
			"invoke":          func() error { _, _, err := c.Invoke(t.Context(), client.Call{Application: name}, nil); return err },
			"get a device":    func() error { _, err := c.Device(t.Context(), name); return err },
			"get an app":      func() error { _, err := c.Deployment(t.Context(), name); return err },
			"watch an app":    func() error { return c.WatchDeployment(t.Context(), name, nil) },
			"get its history": func() error { _, err := c.History(t.Context(), name); return err },
		} {
			if err := act(); err == nil {
				t.Errorf("%s %q: no error", what, name)
			}
			if asked := f.noted(); strings.HasPrefix(asked, "Remove") || strings.HasPrefix(asked, "Approve") || strings.HasPrefix(asked, "Un") {
				t.Errorf("%s %q did %s", what, name, asked)
			}
		}
	}
}

func TestStreams(t *testing.T) {
	gone := decant.Errorf(decant.NotFound, "it is gone").WithHelp("deploy it")
	type watch struct {
		name string
		do   func(context.Context, *client.Client, func(n string) error) error
	}
	watches := []watch{
		{"deployment", func(ctx context.Context, c *client.Client, f func(string) error) error {
			return c.WatchDeployment(ctx, "a", func(d decant.Deployment) error { return f(fmt.Sprint(d.Revision)) })
		}},
		{"events", func(ctx context.Context, c *client.Client, f func(string) error) error {
			return c.WatchEvents(ctx, 5, func(e decant.Event) error { return f(e.Message) })
		}},
	}
	tests := []struct {
		name   string
		events []error
		after  func(n int, leave func(), srv *httptest.Server) error // what happens with the n-th event
		got    string
		want   func(error) bool
	}{
		{name: "an error after events", events: []error{nil, nil, gone}, got: "1 2", want: func(err error) bool {
			e, ok := errors.AsType[*decant.Error](err)
			return ok && e.Code == decant.NotFound && e.Message == gone.Message && e.Help == gone.Help
		}},
		{name: "an error at first", events: []error{gone}, want: func(err error) bool { return errors.Is(err, decant.NotFound) }},
		{name: "enough", events: []error{nil, nil, nil}, got: "1 2", after: func(n int, _ func(), _ *httptest.Server) error {
			if n == 2 {
				return errEnough
			}
			return nil
		}, want: func(err error) bool { return err == errEnough }},
		{name: "cancelled", events: []error{nil, nil}, got: "1 2", after: func(n int, leave func(), _ *httptest.Server) error {
			if n == 2 {
				leave()
			}
			return nil
		}, want: func(err error) bool { return errors.Is(err, context.Canceled) }},
		{name: "the server goes away", events: []error{nil, nil}, got: "1 2", after: func(n int, _ func(), srv *httptest.Server) error {
			if n == 2 {
				srv.CloseClientConnections()
			}
			return nil
		}, want: func(err error) bool { return errors.Is(err, decant.Unavailable) }},
	}
	for _, w := range watches {
		for _, tt := range tests {
			t.Run(w.name+" "+tt.name, func(t *testing.T) {
				f := newFakeSite()
				f.events = tt.events
				c, srv := f.serve(t)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				var got []string
				err := w.do(ctx, c, func(n string) error {
					got = append(got, n)
					if tt.after == nil {
						return nil
					}
					return tt.after(len(got), cancel, srv)
				})
				if !tt.want(err) {
					t.Errorf("ended with %v", err)
				}
				if strings.Join(got, " ") != tt.got {
					t.Errorf("got events %v, want %s", got, tt.got)
				}
				if tt.after != nil {
					<-f.streams // the service learns that nobody reads
				}
			})
		}
	}
}

// TestWatchIsAlreadyOver: a context that has ended asks nothing.
func TestWatchIsAlreadyOver(t *testing.T) {
	f := newFakeSite()
	c, _ := f.serve(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, m := range methods() {
		if _, err := m.call(ctx, c); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", m.name, err)
		}
		if asked := f.noted(); asked != "" {
			t.Errorf("%s asked for %s", m.name, asked)
		}
	}
}

// stepReader gives a part of a body at a time, each only when the receiver has
// the one before.
type stepReader struct {
	left     int
	received chan struct{}
	waited   int
}

const step = 1 << 20

func (r *stepReader) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	if r.left%step == 0 && r.waited > 0 {
		<-r.received
	}
	r.waited++
	n := min(len(p), (r.left-1)%step+1)
	r.left -= n
	return n, nil
}

// TestPutBlobStreams: neither side holds a blob in memory. Its bytes are made
// only once those before have arrived.
func TestPutBlobStreams(t *testing.T) {
	f := newFakeSite()
	const steps = 4
	body := &stepReader{left: steps * step, received: make(chan struct{}, steps)}
	f.put = func(r io.Reader) error {
		for range steps {
			// What is under way in buffers need not have arrived.
			if n, err := io.CopyN(io.Discard, r, step-64<<10); err != nil {
				return fmt.Errorf("got %d: %w", n, err)
			}
			body.received <- struct{}{}
			if n, err := io.CopyN(io.Discard, r, 64<<10); err != nil {
				return fmt.Errorf("got %d: %w", n, err)
			}
		}
		if n, err := r.Read(make([]byte, 1)); err != io.EOF {
			return fmt.Errorf("%d bytes more, %w", n, err)
		}
		return nil
	}
	c, _ := f.serve(t)
	if err := c.PutBlob(t.Context(), blobDigest, steps*step, body); err != nil {
		t.Fatal(err)
	}
}

func TestPutBlobRefused(t *testing.T) {
	f := newFakeSite()
	c, _ := f.serve(t)
	if err := c.PutBlob(t.Context(), "sha256:x", 1, strings.NewReader("b")); !errors.Is(err, decant.Invalid) {
		t.Errorf("no digest: %v", err)
	}
	if _, err := c.HasBlob(t.Context(), "sha256:x"); !errors.Is(err, decant.Invalid) {
		t.Errorf("no digest: %v", err)
	}
	if asked := f.noted(); asked != "" {
		t.Errorf("asked for %s", asked)
	}
	if err := c.PutBlob(t.Context(), blobDigest, 0, strings.NewReader("")); err != nil {
		t.Errorf("empty: %v", err)
	}
	// The service answers before it has read the body.
	f.put = func(io.Reader) error { return decant.Errorf(decant.Exhausted, "full") }
	if err := c.PutBlob(t.Context(), blobDigest, 100, strings.NewReader(strings.Repeat("x", 100))); !errors.Is(err, decant.Exhausted) {
		t.Errorf("refused: %v", err)
	}
}

// ask sends a request past the client, which would not send it.
func ask(t *testing.T, f *fakeSite, method, target, contentType string, body io.Reader) *http.Response {
	t.Helper()
	mux := http.NewServeMux()
	site.Register(mux, "test", f)
	r := httptest.NewRequest(method, target, body)
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	rec := httptest.NewRecorder()
	mux.ServeHTTP(rec, r)
	return rec.Result()
}

func TestRefusedRequests(t *testing.T) {
	const app = `{"application":"a","components":{"c":{"package":"p"}}`
	large := `{"application":"a","objective":"` + strings.Repeat("x", api.MaxJSON) + `"}`
	tests := []struct {
		name, method, target, body string
		code                       decant.Code
		text                       string
	}{
		{"unknown member", "PUT", "/v1/apps/a", app + `,"replicas":3}`, decant.Invalid, `"replicas"`},
		{"unknown member of a component", "PUT", "/v1/apps/a", `{"application":"a","components":{"c":{"package":"p","image":"x"}}}`, decant.Invalid, `"image"`},
		{"unknown member of needs", "PUT", "/v1/apps/a", `{"application":"a","components":{"c":{"package":"p","needs":{"gpu":true}}}}`, decant.Invalid, `"gpu"`},
		{"unknown member of a link", "PUT", "/v1/apps/a", app + `,"links":[{"from":"c","to":"d","weight":1}]}`, decant.Invalid, `"weight"`},
		{"a link that is none", "PUT", "/v1/apps/a", app + `,"links":["c => d"]}`, decant.Invalid, `from -\u003e to|from -> to`},
		{"a size that is none", "PUT", "/v1/apps/a", `{"application":"a","components":{"c":{"package":"p","needs":{"memory":"much"}}}}`, decant.Invalid, "64MiB"},
		{"a deadline that is none", "PUT", "/v1/apps/a", `{"application":"a","components":{"c":{"package":"p","deadline":"-1s"}}}`, decant.Invalid, "200ms"},
		{"another name", "PUT", "/v1/apps/b", app + `}`, decant.Invalid, `"a" put as "b"`},
		{"no body", "PUT", "/v1/apps/a", "", decant.Invalid, "body is required"},
		{"more than one value", "PUT", "/v1/apps/a", app + `}}`, decant.Invalid, "more than one"},
		{"too large an application", "PUT", "/v1/apps/a", large, decant.Exhausted, "too large"},
		{"after nothing", "PUT", "/v1/apps/a?after=-1", app + `}`, decant.Invalid, "query.after"},
		{"after no number", "PUT", "/v1/apps/a?after=x", app + `}`, decant.Invalid, "query.after"},
		{"unknown member of a package", "POST", "/v1/packages", `{"spec":{"package":"p","flavour":1},"blobs":[]}`, decant.Invalid, `"flavour"`},
		{"unknown member of a push", "POST", "/v1/packages", `{"spec":{},"blobs":[],"force":true}`, decant.Invalid, `"force"`},
		{"too large a package", "POST", "/v1/packages", large, decant.Exhausted, "too large"},
		{"too many events", "GET", "/v1/events?newest=5001", "", decant.Invalid, "query.newest"},
		{"events less than none", "GET", "/v1/events/watch?newest=-1", "", decant.Invalid, "query.newest"},
		{"a log of nothing", "GET", "/v1/apps/a/log", "", decant.Invalid, "query.component"},
		{"too long a name", "GET", "/v1/apps/" + strings.Repeat("a", 129), "", decant.Invalid, "path.name"},
		{"a digest that is none", "GET", "/v1/blobs/sha256:12", "", decant.Invalid, "digest"},
		{"an unknown path", "GET", "/v1/elsewhere", "", decant.NotFound, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFakeSite()
			err := problem.Read(ask(t, f, tt.method, tt.target, "application/json", strings.NewReader(tt.body)))
			if !errors.Is(err, tt.code) {
				t.Fatalf("got %v (%s), want %s", err, decant.CodeOf(err), tt.code)
			}
			found := false
			for text := range strings.SplitSeq(tt.text, "|") {
				found = found || strings.Contains(err.Error(), text)
			}
			if !found {
				t.Errorf("%v does not mention %s", err, tt.text)
			}
			if asked := f.noted(); asked != "" {
				t.Errorf("asked for %s", asked)
			}
		})
	}
}

func TestQueryDefaults(t *testing.T) {
	tests := []struct{ method, target, body, asks string }{
		{"PUT", "/v1/apps/a", `{"application":"a","components":{}}`, `Deploy {"application":"a","components":{}} 0`},
		{"GET", "/v1/events", "", "Events 100"},
		{"GET", "/v1/events?newest=5000", "", "Events 5000"},
		{"GET", "/v1/apps/a/log?component=c", "", `ComponentLog "a" "c" false`},
	}
	for _, tt := range tests {
		f := newFakeSite()
		f.log = io.NopCloser(strings.NewReader(""))
		if err := problem.Read(ask(t, f, tt.method, tt.target, "application/json", strings.NewReader(tt.body))); err != nil {
			t.Errorf("%s: %v", tt.target, err)
		}
		if asked := f.noted(); asked != tt.asks {
			t.Errorf("%s asked for %s", tt.target, asked)
		}
	}
}

func TestInvoke(t *testing.T) {
	f := newFakeSite()
	c, _ := f.serve(t)
	tests := []struct {
		name   string
		body   []byte
		answer transport.Response
		want   string // content type of the answer
	}{
		{"empty", nil, transport.Response{}, ""},
		{"no content type", []byte("x"), transport.Response{Body: []byte("<html>")}, ""},
		{"bytes", []byte{0, 255}, transport.Response{ContentType: "application/octet-stream", Body: []byte{0, 254}}, "application/octet-stream"},
		{"JSON", []byte("1"), transport.Response{ContentType: "application/json", Body: []byte("not JSON")}, "application/json"},
		{"a problem that is an answer", nil, transport.Response{ContentType: problem.ContentType, Body: []byte(`{"code":"denied","detail":"x"}`)}, problem.ContentType},
		{"several reads", bytes.Repeat([]byte("x"), 3<<20), transport.Response{ContentType: "a/b", Body: bytes.Repeat([]byte("y"), 3<<20)}, "a/b"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f.answer = &tt.answer
			answer, contentType, err := c.Invoke(t.Context(), client.Call{Application: "a"}, tt.body)
			if err != nil || contentType != tt.want || !bytes.Equal(answer, tt.answer.Body) {
				t.Errorf("got %.40q of %q, %v", answer, contentType, err)
			}
			if asked, want := f.noted(), "Invoke "+toJSON(transport.Request{Application: "a"})+" "+toJSON(string(tt.body)); asked != want {
				t.Errorf("asked for %.200s", asked)
			}
		})
	}
}

// zeros is a body that is never held in memory whole.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func TestInvokeBounds(t *testing.T) {
	for size, code := range map[int64]decant.Code{transport.MaxBody: "", transport.MaxBody + 1: decant.Exhausted} {
		f := &boundedSite{fakeSite: newFakeSite()}
		mux := http.NewServeMux()
		site.Register(mux, "test", f)
		rec := httptest.NewRecorder()
		mux.ServeHTTP(rec, httptest.NewRequest("POST", "/v1/apps/a/invoke", io.LimitReader(zeros{}, size)))
		if got := decant.CodeOf(problem.Read(rec.Result())); got != code {
			t.Errorf("%d bytes: %q %s", size, got, rec.Body)
		}
		if code == "" && int64(f.size) != size {
			t.Errorf("%d of %d bytes arrived", f.size, size)
		}
	}
}

// boundedSite notes only how large a request was.
type boundedSite struct {
	*fakeSite
	size int
}

func (f *boundedSite) Invoke(_ context.Context, req *transport.Request) (*transport.Response, error) {
	f.size = len(req.Body)
	return f.answer, nil
}

// TestTraceParent: a trace that a caller is in goes on.
func TestTraceParent(t *testing.T) {
	f := newFakeSite()
	mux := http.NewServeMux()
	site.Register(mux, "test", f)
	r := httptest.NewRequest("POST", "/v1/apps/a/invoke", nil)
	r.Header.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	mux.ServeHTTP(httptest.NewRecorder(), r)
	want := "Invoke " + toJSON(transport.Request{Application: "a", TraceParent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}) + ` ""`
	if asked := f.noted(); asked != want {
		t.Errorf("asked for %s", asked)
	}
}

// TestLogFollows: lines come as they are written, and the log is closed when
// the reader leaves.
func TestLogFollows(t *testing.T) {
	f := newFakeSite()
	c, _ := f.serve(t)
	lines, w := io.Pipe()
	f.log = lines
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	opened := make(chan io.ReadCloser, 1)
	go func() {
		r, err := c.Log(ctx, "a", "c", true)
		if err != nil {
			t.Error(err)
		}
		opened <- r
	}()
	if _, err := io.WriteString(w, "one\n"); err != nil {
		t.Fatal(err)
	}
	r := <-opened
	if r == nil {
		return
	}
	defer r.Close()
	for _, line := range []string{"one\n", "two\n"} {
		buf := make([]byte, len(line))
		if _, err := io.ReadFull(r, buf); err != nil || string(buf) != line {
			t.Fatalf("%q, %v", buf, err)
		}
		if line == "one\n" {
			_, _ = io.WriteString(w, "two\n")
		}
	}
	cancel()
	if _, err := r.Read(make([]byte, 1)); err == nil {
		t.Error("goes on after the end of its context")
	}
	// The service notices with a line, and closes the log: writing then fails.
	for {
		if _, err := io.WriteString(w, "more\n"); err != nil {
			break
		}
	}
}
