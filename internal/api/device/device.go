// Package device is a device's REST interface: Handler serves it to the
// members of the device's site, and what a device says of itself to everybody.
// It describes itself twice: as OpenAPI 3.1 at /openapi.json, and as a W3C Web
// of Things Thing Description at /.well-known/wot. Errors are problem+json (RFC
// 9457) with decant's codes.
package device

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/api"
	"github.com/decant-project/decant/internal/identity"
	"github.com/decant-project/decant/internal/nn"
	"github.com/decant-project/decant/internal/problem"
	"github.com/decant-project/decant/internal/transport"
	httptransport "github.com/decant-project/decant/internal/transport/http"
)

// Service is what stands behind the interface.
type Service interface {
	transport.Handler

	Info() decant.DeviceInfo
	Instances() []decant.InstanceStatus
	// Functions returns what can be called: the functions of running instances.
	Functions() []Function
	Offer(code string, orchestrators []string) error
	Log(ctx context.Context, app, component string, newest int, follow bool, w io.Writer) error

	PutModel(ctx context.Context, name string, body io.Reader, want decant.Digest) (Model, error)
	ListModels() ([]Model, error)
	RemoveModel(name string) error
	// OpenModel loads a model; the caller closes it.
	OpenModel(ctx context.Context, name string) (nn.Model, error)
}

// Function is a function of a running instance.
type Function struct {
	Application string
	Component   string
	Name        string
	Types       decant.Function
}

// Model is a model that was put on the device by itself.
type Model struct {
	Name    string        `json:"name"`
	Digest  decant.Digest `json:"digest"`
	Size    decant.Bytes  `json:"size"`
	Inputs  []nn.Info     `json:"inputs,omitempty"`
	Outputs []nn.Info     `json:"outputs,omitempty"`
}

// JoinCode is what an approval sends to a device that has not joined.
type JoinCode struct {
	Code          string   `json:"code" maxLength:"64"`
	Orchestrators []string `json:"orchestrators" maxItems:"16" doc:"host:port"`
}

// Handler serves s. peerOf tells who asks: everybody may read what the device
// is and offer it a join code while it has no site, the site's devices may also
// call functions, and its orchestrators may do all.
func Handler(s Service, version string, peerOf func(*tls.ConnectionState) identity.Peer) http.Handler {
	mux := http.NewServeMux()
	a := api.New(mux, "decant device", version)
	registerDevice(a, s)
	registerModels(a, s)
	registerCalls(a, s)
	mux.HandleFunc("GET /.well-known/wot", serveThing(s))
	mux.Handle(httptransport.Pattern, httptransport.Handler(s))
	return identity.RequireSite(peerOf, openToAll, allowRoles(mux))
}

// openToAll reports whether a request needs no certificate of the site.
func openToAll(r *http.Request) bool {
	switch r.Method + " " + r.URL.Path {
	case "GET /v1/device", "GET /.well-known/wot", "POST /v1/join-code":
		return true
	}
	return false
}

// allowRoles keeps devices to calling functions. Requests open to all pass.
func allowRoles(next *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, pattern := next.Handler(r)
		peer := identity.PeerFrom(r.Context())
		if peer.Role != identity.RoleOrchestrator && pattern != httptransport.Pattern && !openToAll(r) {
			problem.Write(w, decant.Errorf(decant.Denied, "%s %s may only call functions here", peer.Role, peer.ID))
			return
		}
		next.ServeHTTP(w, r)
	})
}

type (
	none        struct{}
	body[T any] struct{ Body T }
)

func op(method, path, id, summary string) huma.Operation {
	return huma.Operation{Method: method, Path: path, OperationID: id, Summary: summary}
}

func registerDevice(a huma.API, s Service) {
	api.Handle(a, op("GET", "/v1/device", "get-device", "What the device is, has and does"),
		func(context.Context, *none) (*body[decant.DeviceInfo], error) {
			return &body[decant.DeviceInfo]{s.Info()}, nil
		})
	api.Handle(a, op("GET", "/v1/instances", "list-instances", "All instances on the device"),
		func(context.Context, *none) (*body[[]decant.InstanceStatus], error) {
			return &body[[]decant.InstanceStatus]{s.Instances()}, nil
		})
	api.Handle(a, op("GET", "/v1/state", "get-state", "How the device is doing"),
		func(context.Context, *none) (*body[decant.DeviceState], error) {
			return &body[decant.DeviceState]{s.Info().State}, nil
		})
	offer := op("POST", "/v1/join-code", "offer-join-code", "Approve a device that waits: it joins with this code")
	offer.DefaultStatus = http.StatusNoContent
	api.Handle(a, offer, func(_ context.Context, in *body[JoinCode]) (*none, error) {
		return nil, s.Offer(in.Body.Code, in.Body.Orchestrators)
	})
	type logInput struct {
		App       string `path:"app" maxLength:"63"`
		Component string `path:"component" maxLength:"63"`
		Lines     int    `query:"lines" default:"200" minimum:"0" maximum:"100000" doc:"The newest so many"`
		Follow    bool   `query:"follow" doc:"Go on with each new line"`
	}
	log := op("GET", "/v1/apps/{app}/{component}/log", "get-log", "An instance's log: a line of text each, after its time")
	log.Responses = map[string]*huma.Response{"200": {
		Description: "Lines of text",
		Content:     map[string]*huma.MediaType{"text/plain": {}},
	}}
	huma.Register(a, log, func(ctx context.Context, in *logInput) (*huma.StreamResponse, error) {
		return &huma.StreamResponse{Body: func(hc huma.Context) {
			_, w := humago.Unwrap(hc)
			out := &textStream{w: w}
			if err := s.Log(ctx, in.App, in.Component, in.Lines, in.Follow, out); err != nil && !out.begun {
				problem.Write(w, err)
			}
		}}, nil
	})
}

// textStream sends each write to the client at once.
type textStream struct {
	w     http.ResponseWriter
	begun bool
}

func (t *textStream) Write(p []byte) (int, error) {
	if !t.begun {
		t.begun = true
		t.w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	}
	n, err := t.w.Write(p)
	if err == nil {
		err = http.NewResponseController(t.w).Flush()
	}
	return n, err
}

// registerCalls documents what httptransport serves.
func registerCalls(a huma.API, _ Service) {
	call := op("POST", "/v1/apps/{app}/{component}/{function}", "call", "Call a function: the request is the body, and so is the response")
	call.Parameters = []*huma.Param{pathParam("app"), pathParam("component"), pathParam("function")}
	anything := map[string]*huma.MediaType{"application/octet-stream": {}}
	call.RequestBody = &huma.RequestBody{Content: anything}
	call.Responses = map[string]*huma.Response{
		"200":     {Description: "The response", Content: anything},
		"default": {Description: "A problem", Content: map[string]*huma.MediaType{problem.ContentType: {}}},
	}
	a.OpenAPI().AddOperation(&call)
}

func pathParam(name string) *huma.Param {
	return &huma.Param{Name: name, In: "path", Required: true, Schema: &huma.Schema{Type: "string"}}
}
