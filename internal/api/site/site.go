// Package site is the orchestrator's REST interface: Register serves the users
// of a site, DeviceHandler its devices. Both describe themselves at
// /openapi.json; errors are problem+json (RFC 9457) with decant's codes.
package site

import (
	"context"
	"io"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/api"
	"github.com/decant-project/decant/internal/transport"
)

// Service is what stands behind the users' interface.
type Service interface {
	Site(ctx context.Context) (Info, error)
	NewJoinCode(ctx context.Context) (JoinCode, error)

	ListDevices(ctx context.Context) ([]decant.Device, error)
	Device(ctx context.Context, nameOrID string) (decant.Device, error)
	ApproveDevice(ctx context.Context, nameOrID string) error
	RemoveDevice(ctx context.Context, nameOrID string) error

	PutBlob(ctx context.Context, digest decant.Digest, body io.Reader) error
	StatBlob(ctx context.Context, digest decant.Digest) (decant.Bytes, error)
	PushPackage(ctx context.Context, spec decant.PackageSpec, blobs []decant.Blob) (decant.Package, error)
	ListPackages(ctx context.Context) ([]decant.Package, error)
	Package(ctx context.Context, ref string) (decant.Package, error)
	RemovePackage(ctx context.Context, name, version string) error

	Deploy(ctx context.Context, app decant.Application, after int) (decant.Deployment, error)
	Deployments(ctx context.Context) ([]decant.Deployment, error)
	Deployment(ctx context.Context, name string) (decant.Deployment, error)
	History(ctx context.Context, name string) ([]decant.Deployment, error)
	WatchDeployment(ctx context.Context, name string, send func(decant.Deployment) error) error
	Undeploy(ctx context.Context, name string) error
	Invoke(ctx context.Context, req *transport.Request) (*transport.Response, error)
	ComponentLog(ctx context.Context, app, component string, follow bool) (io.ReadCloser, error)

	Events(ctx context.Context, newest int) ([]decant.Event, error)
	WatchEvents(ctx context.Context, newest int, send func(decant.Event) error) error
}

// Info says which site an orchestrator is of.
type Info struct {
	Site      string   `json:"site"`
	Version   string   `json:"version"`
	Pin       string   `json:"pin" doc:"Hash of the site's CA: what join codes begin with"`
	Addresses []string `json:"addresses" doc:"Where devices reach this orchestrator"`
}

// JoinCode lets one device join.
type JoinCode struct {
	Code    string    `json:"code"`
	Expires time.Time `json:"expires"`
}

// Push is the body of a package push. The bytes of its blobs were put before.
type Push struct {
	Spec  decant.PackageSpec `json:"spec"`
	Blobs []decant.Blob      `json:"blobs"`
}

const octets = "application/octet-stream"

type (
	none        struct{}
	body[T any] struct{ Body T }
)

// NameInput is a part of inputs; huma sees exported ones only.
type NameInput struct {
	Name string `path:"name" maxLength:"128"`
}

// DigestInput is a part of inputs.
type DigestInput struct {
	Digest decant.Digest `path:"digest"`
}

// Register adds the users' interface to mux.
func Register(mux *http.ServeMux, version string, s Service) huma.API {
	a := api.New(mux, "decant site", version)
	registerDevices(a, s)
	registerPackages(a, s)
	registerApps(a, s)
	registerEvents(a, s)
	return a
}

func registerDevices(a huma.API, s Service) {
	get(a, "/v1/site", "site", "Which site this is", func(ctx context.Context, _ *none) (Info, error) {
		return s.Site(ctx)
	})
	api.Handle(a, op("POST", "/v1/join-codes", "make-join-code", "Make a code that lets one device join"),
		func(ctx context.Context, _ *none) (*body[JoinCode], error) {
			code, err := s.NewJoinCode(ctx)
			return &body[JoinCode]{code}, err
		})
	get(a, "/v1/devices", "list-devices", "All devices", func(ctx context.Context, _ *none) ([]decant.Device, error) {
		return s.ListDevices(ctx)
	})
	get(a, "/v1/devices/{name}", "get-device", "A device, by name or ID", func(ctx context.Context, in *NameInput) (decant.Device, error) {
		return s.Device(ctx, in.Name)
	})
	act(a, "POST", "/v1/devices/{name}/approve", "approve-device", "Let a device join that waits for it", func(ctx context.Context, in *NameInput) error {
		return s.ApproveDevice(ctx, in.Name)
	})
	act(a, "DELETE", "/v1/devices/{name}", "remove-device", "Forget a device", func(ctx context.Context, in *NameInput) error {
		return s.RemoveDevice(ctx, in.Name)
	})
}

// putBlobInput hands the request's body on without reading it into memory.
type putBlobInput struct {
	DigestInput
	body io.Reader
}

// Resolve is called by huma before the operation.
func (in *putBlobInput) Resolve(ctx huma.Context) []error {
	r, w := humago.Unwrap(ctx)
	in.body = api.Upload(w, r)
	return nil
}

func registerPackages(a huma.API, s Service) {
	type stat struct {
		Size decant.Bytes `json:"size"`
	}
	get(a, "/v1/blobs/{digest}", "stat-blob", "Whether a blob is stored, and its size", func(ctx context.Context, in *DigestInput) (stat, error) {
		if err := in.Digest.Check(); err != nil {
			return stat{}, err
		}
		size, err := s.StatBlob(ctx, in.Digest)
		return stat{size}, err
	})
	put := op("PUT", "/v1/blobs/{digest}", "put-blob", "Store a blob; the body is its bytes")
	put.DefaultStatus = http.StatusNoContent
	put.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{octets: {}}}
	api.Handle(a, put, func(ctx context.Context, in *putBlobInput) (*none, error) {
		if err := in.Digest.Check(); err != nil {
			return nil, err
		}
		return nil, s.PutBlob(ctx, in.Digest, in.body)
	})
	type rawPush struct {
		RawBody []byte `contentType:"application/json"`
	}
	api.HandleJSON[Push](a, op("POST", "/v1/packages", "push-package", "Make a package of stored blobs"),
		func(ctx context.Context, in *rawPush) (*body[decant.Package], error) {
			var p Push
			if err := api.DecodeStrict(in.RawBody, &p); err != nil {
				return nil, err
			}
			pkg, err := s.PushPackage(ctx, p.Spec, p.Blobs)
			return &body[decant.Package]{pkg}, err
		})
	get(a, "/v1/packages", "list-packages", "All packages", func(ctx context.Context, _ *none) ([]decant.Package, error) {
		return s.ListPackages(ctx)
	})
	get(a, "/v1/packages/{name}", "get-package", "The newest version that matches name or name@range", func(ctx context.Context, in *NameInput) (decant.Package, error) {
		return s.Package(ctx, in.Name)
	})
	type versionInput struct {
		NameInput
		Version string `path:"version" maxLength:"128"`
	}
	act(a, "DELETE", "/v1/packages/{name}/{version}", "remove-package", "Remove a version", func(ctx context.Context, in *versionInput) error {
		return s.RemovePackage(ctx, in.Name, in.Version)
	})
}

func registerApps(a huma.API, s Service) {
	get(a, "/v1/apps", "list-apps", "All applications", func(ctx context.Context, _ *none) ([]decant.Deployment, error) {
		return s.Deployments(ctx)
	})
	get(a, "/v1/apps/{name}", "get-app", "An application", func(ctx context.Context, in *NameInput) (decant.Deployment, error) {
		return s.Deployment(ctx, in.Name)
	})
	get(a, "/v1/apps/{name}/history", "get-app-history", "All revisions, the newest first", func(ctx context.Context, in *NameInput) ([]decant.Deployment, error) {
		return s.History(ctx, in.Name)
	})
	type deployInput struct {
		NameInput
		After   int    `query:"after" minimum:"0" doc:"Revision that the change is based on; 0 is any"`
		RawBody []byte `contentType:"application/json"`
	}
	api.HandleJSON[decant.Application](a, op("PUT", "/v1/apps/{name}", "deploy", "Deploy an application, or its next revision"),
		func(ctx context.Context, in *deployInput) (*body[decant.Deployment], error) {
			var app decant.Application
			if err := api.DecodeStrict(in.RawBody, &app); err != nil {
				return nil, err
			}
			if app.Name != in.Name {
				return nil, decant.Errorf(decant.Invalid, "application %q put as %q", app.Name, in.Name)
			}
			d, err := s.Deploy(ctx, app, in.After)
			return &body[decant.Deployment]{d}, err
		})
	act(a, "DELETE", "/v1/apps/{name}", "remove-app", "Take an application off its devices", func(ctx context.Context, in *NameInput) error {
		return s.Undeploy(ctx, in.Name)
	})
	stream(a, "/v1/apps/{name}/watch", "watch-app", "The application now and whenever it changes",
		func(ctx context.Context, in *NameInput, send func(string, any) error) error {
			return s.WatchDeployment(ctx, in.Name, func(d decant.Deployment) error { return send("deployment", d) })
		})
	registerCalls(a, s)
}

func registerCalls(a huma.API, s Service) {
	type invokeInput struct {
		NameInput
		Component   string `query:"component" doc:"The application's entry where absent"`
		Function    string `query:"function" doc:"The component's own where absent"`
		ContentType string `header:"Content-Type"`
		TraceParent string `header:"Traceparent"`
		RawBody     []byte `contentType:"application/octet-stream"`
	}
	invoke := op("POST", "/v1/apps/{name}/invoke", "invoke", "Call a component; the answer is what comes back along its links")
	invoke.MaxBodyBytes = transport.MaxBody + 1 // huma refuses what reaches it
	invoke.BodyReadTimeout = api.BodyTimeout
	invoke.SkipValidateBody = true
	invoke.RequestBody = &huma.RequestBody{}
	invoke.Responses = map[string]*huma.Response{"200": {Description: "The answer", Content: map[string]*huma.MediaType{octets: {}}}}
	api.Handle(a, invoke, func(ctx context.Context, in *invokeInput) (*huma.StreamResponse, error) {
		resp, err := s.Invoke(ctx, &transport.Request{
			Application: in.Name, Component: in.Component, Function: in.Function,
			ContentType: in.ContentType, TraceParent: in.TraceParent, Body: in.RawBody,
		})
		if err != nil {
			return nil, err
		}
		return &huma.StreamResponse{Body: func(hc huma.Context) {
			_, w := humago.Unwrap(hc)
			w.Header()["Content-Type"] = nil // or net/http would guess one
			if resp.ContentType != "" {
				w.Header().Set("Content-Type", resp.ContentType)
			}
			_, _ = w.Write(resp.Body) // an error says that the caller has gone
		}}, nil
	})
	invoke.RequestBody.Required = false // an empty request is one
	type logInput struct {
		NameInput
		Component string `query:"component" required:"true"`
		Follow    bool   `query:"follow"`
	}
	api.Handle(a, op("GET", "/v1/apps/{name}/log", "get-log", "A component's log, as lines of text"),
		func(ctx context.Context, in *logInput) (*huma.StreamResponse, error) {
			log, err := s.ComponentLog(ctx, in.Name, in.Component, in.Follow)
			if err != nil {
				return nil, err
			}
			return &huma.StreamResponse{Body: func(hc huma.Context) {
				defer log.Close()
				hc.SetHeader("Content-Type", "text/plain; charset=utf-8")
				_, w := humago.Unwrap(hc)
				copyFlushing(w, log)
			}}, nil
		})
}

func registerEvents(a huma.API, s Service) {
	type eventsInput struct {
		Newest int `query:"newest" default:"100" minimum:"0" maximum:"5000"`
	}
	get(a, "/v1/events", "list-events", "What happened, the oldest first", func(ctx context.Context, in *eventsInput) ([]decant.Event, error) {
		return s.Events(ctx, in.Newest)
	})
	stream(a, "/v1/events/watch", "watch-events", "What happened, and what happens",
		func(ctx context.Context, in *eventsInput, send func(string, any) error) error {
			return s.WatchEvents(ctx, in.Newest, func(e decant.Event) error { return send("event", e) })
		})
}

func op(method, path, id, summary string) huma.Operation {
	return huma.Operation{Method: method, Path: path, OperationID: id, Summary: summary}
}

// get registers an operation that answers with a T.
func get[I, T any](a huma.API, path, id, summary string, f func(context.Context, *I) (T, error)) {
	api.Handle(a, op("GET", path, id, summary), func(ctx context.Context, in *I) (*body[T], error) {
		v, err := f(ctx, in)
		return &body[T]{v}, err
	})
}

// act registers an operation that answers with nothing.
func act[I any](a huma.API, method, path, id, summary string, f func(context.Context, *I) error) {
	o := op(method, path, id, summary)
	o.DefaultStatus = http.StatusNoContent
	api.Handle(a, o, func(ctx context.Context, in *I) (*none, error) { return nil, f(ctx, in) })
}

// stream registers an operation that answers with server-sent events. An error
// before the first of them is the answer; later ones become a last event
// "error" with the problem.
func stream[I any](a huma.API, path, id, summary string, f func(ctx context.Context, in *I, send func(event string, v any) error) error) {
	o := op("GET", path, id, summary)
	o.Responses = map[string]*huma.Response{"200": {
		Description: "Server-sent events",
		Content:     map[string]*huma.MediaType{"text/event-stream": {}},
	}}
	huma.Register(a, o, func(ctx context.Context, in *I) (*huma.StreamResponse, error) {
		return &huma.StreamResponse{Body: func(hc huma.Context) {
			_, w := humago.Unwrap(hc)
			api.ServeEvents(ctx, w, func(ctx context.Context, send func(string, any) error) error { return f(ctx, in, send) })
		}}, nil
	})
}

func copyFlushing(w http.ResponseWriter, r io.Reader) {
	rc := http.NewResponseController(w)
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return
			}
			_ = rc.Flush()
		}
		if err != nil {
			return
		}
	}
}
