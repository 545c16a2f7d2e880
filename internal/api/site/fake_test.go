package site_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/client"
	"github.com/decant-project/decant/internal/api/site"
	"github.com/decant-project/decant/internal/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fill sets all that JSON carries of v to something that is not zero.
func fill(v reflect.Value) {
	switch v.Interface().(type) {
	case time.Time:
		v.Set(reflect.ValueOf(time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)))
		return
	case json.RawMessage:
		v.SetBytes([]byte(`{"x":1}`))
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(v.Field(i))
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0))
		fill(v.Index(1))
	case reflect.Map:
		value := reflect.New(v.Type().Elem()).Elem()
		fill(value)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf("k\"ä").Convert(v.Type().Key()), value)
	case reflect.String:
		v.SetString("s <&> \"ä\"")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64, reflect.Int32:
		v.SetInt(7)
	case reflect.Uint8:
		v.SetUint(7)
	case reflect.Float64:
		v.SetFloat(1.5)
	default:
		panic("cannot fill a " + v.Type().String())
	}
}

// full returns a T with all of its members set.
func full[T any]() (v T) {
	fill(reflect.ValueOf(&v).Elem())
	return v
}

// fakeSite answers with full values, or with err, and notes what it is asked.
type fakeSite struct {
	err    error
	events []error // after each event of a stream; nil goes on
	put    func(io.Reader) error
	log    io.ReadCloser
	answer *transport.Response

	mu      sync.Mutex
	calls   []string
	streams chan struct{} // gets an element when a stream has ended
}

var _ site.Service = (*fakeSite)(nil)

func newFakeSite() *fakeSite {
	return &fakeSite{streams: make(chan struct{}, 1), answer: &transport.Response{ContentType: "text/x", Body: []byte("answer")}}
}

func (f *fakeSite) note(method string, args ...any) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range args {
		data, err := json.Marshal(a)
		if err != nil {
			return err
		}
		method += " " + string(data)
	}
	f.calls = append(f.calls, method)
	return f.err
}

// noted returns what was asked since the last time.
func (f *fakeSite) noted() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer func() { f.calls = nil }()
	return strings.Join(f.calls, "; ")
}

func (f *fakeSite) Site(context.Context) (site.Info, error) { return full[site.Info](), f.note("Site") }

func (f *fakeSite) NewJoinCode(context.Context) (site.JoinCode, error) {
	return full[site.JoinCode](), f.note("NewJoinCode")
}

func (f *fakeSite) ListDevices(context.Context) ([]decant.Device, error) {
	return full[[]decant.Device](), f.note("ListDevices")
}

func (f *fakeSite) Device(_ context.Context, name string) (decant.Device, error) {
	return full[decant.Device](), f.note("Device", name)
}

func (f *fakeSite) ApproveDevice(_ context.Context, name string) error {
	return f.note("ApproveDevice", name)
}

func (f *fakeSite) RemoveDevice(_ context.Context, name string) error {
	return f.note("RemoveDevice", name)
}

func (f *fakeSite) PutBlob(_ context.Context, d decant.Digest, body io.Reader) error {
	if f.put != nil {
		return f.put(body)
	}
	data, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	return f.note("PutBlob", d, string(data))
}

func (f *fakeSite) StatBlob(_ context.Context, d decant.Digest) (decant.Bytes, error) {
	return 7, f.note("StatBlob", d)
}

func (f *fakeSite) PushPackage(_ context.Context, spec decant.PackageSpec, blobs []decant.Blob) (decant.Package, error) {
	return full[decant.Package](), f.note("PushPackage", spec, blobs)
}

func (f *fakeSite) ListPackages(context.Context) ([]decant.Package, error) {
	return full[[]decant.Package](), f.note("ListPackages")
}

func (f *fakeSite) Package(_ context.Context, ref string) (decant.Package, error) {
	return full[decant.Package](), f.note("Package", ref)
}

func (f *fakeSite) RemovePackage(_ context.Context, name, version string) error {
	return f.note("RemovePackage", name, version)
}

func (f *fakeSite) Deploy(_ context.Context, app decant.Application, after int) (decant.Deployment, error) {
	return full[decant.Deployment](), f.note("Deploy", app, after)
}

func (f *fakeSite) Deployments(context.Context) ([]decant.Deployment, error) {
	return full[[]decant.Deployment](), f.note("Deployments")
}

func (f *fakeSite) Deployment(_ context.Context, name string) (decant.Deployment, error) {
	return full[decant.Deployment](), f.note("Deployment", name)
}

func (f *fakeSite) History(_ context.Context, name string) ([]decant.Deployment, error) {
	return full[[]decant.Deployment](), f.note("History", name)
}

func (f *fakeSite) WatchDeployment(ctx context.Context, name string, send func(decant.Deployment) error) error {
	if err := f.note("WatchDeployment", name); err != nil {
		return err
	}
	return f.stream(ctx, func(n int) error {
		d := full[decant.Deployment]()
		d.Revision = n
		return send(d)
	})
}

func (f *fakeSite) WatchEvents(ctx context.Context, newest int, send func(decant.Event) error) error {
	if err := f.note("WatchEvents", newest); err != nil {
		return err
	}
	return f.stream(ctx, func(n int) error {
		e := full[decant.Event]()
		e.Message = fmt.Sprint(n)
		return send(e)
	})
}

// stream sends an event for each of f.events, and returns the first that is an
// error; then it waits for ctx to end.
func (f *fakeSite) stream(ctx context.Context, send func(int) error) error {
	defer func() { f.streams <- struct{}{} }()
	for n, err := range f.events {
		if err != nil {
			return err
		}
		if err := send(n + 1); err != nil {
			return err
		}
	}
	<-ctx.Done()
	return ctx.Err()
}

func (f *fakeSite) Undeploy(_ context.Context, name string) error { return f.note("Undeploy", name) }

func (f *fakeSite) Invoke(_ context.Context, req *transport.Request) (*transport.Response, error) {
	note := *req
	note.Body = nil
	return f.answer, f.note("Invoke", note, string(req.Body))
}

func (f *fakeSite) ComponentLog(_ context.Context, app, component string, follow bool) (io.ReadCloser, error) {
	return f.log, f.note("ComponentLog", app, component, follow)
}

func (f *fakeSite) Events(_ context.Context, newest int) ([]decant.Event, error) {
	return full[[]decant.Event](), f.note("Events", newest)
}

// serve serves f as the orchestrator does, and returns a client of it.
func (f *fakeSite) serve(t *testing.T) (*client.Client, *httptest.Server) {
	t.Helper()
	mux := http.NewServeMux()
	site.Register(mux, "test", f)
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	c, err := client.New(srv.URL, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, srv
}
