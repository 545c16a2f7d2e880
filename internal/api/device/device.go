// Package device is a device's REST interface: Handler serves it to the
// members of the device's site, and what a device says of itself to everybody.
// It describes itself twice: as OpenAPI 3.1 at /openapi.json, and as a W3C Web
// of Things Thing Description at /.well-known/wot. Errors are problem+json (RFC
// 9457) with decant's codes.
package device

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

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
	return identity.RequireSite(peerOf, openToAll, withCalls(s, forOrchestrators(all(s, version))))
}

// LocalHandler serves s to the device's own user, who may do all.
func LocalHandler(s Service, version string) http.Handler { return withCalls(s, all(s, version)) }

// withCalls serves calls of functions, and has others serve all else.
func withCalls(s Service, others http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle(httptransport.Pattern, httptransport.Handler(s))
	mux.Handle("/", others)
	return mux
}

// all serves all but calls, which it describes.
func all(s Service, version string) http.Handler {
	a := rest{http.NewServeMux(), api.Describe("decant device", version)}
	a.device(s)
	a.models(s)
	a.describeCalls()
	a.mux.HandleFunc("GET /.well-known/wot", serveThing(s))
	a.mux.Handle("GET /openapi.json", a.doc)
	return a.mux
}

// openToAll reports whether a request needs no certificate of the site.
func openToAll(r *http.Request) bool {
	switch r.Method + " " + r.URL.Path {
	case "GET /v1/device", "GET /.well-known/wot", "POST /v1/join-code":
		return true
	}
	return false
}

// forOrchestrators refuses devices. Requests open to all pass.
func forOrchestrators(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer := identity.PeerFrom(r.Context())
		if peer.Role != identity.RoleOrchestrator && !openToAll(r) {
			problem.Write(w, decant.Errorf(decant.Denied, "%s %s may only call functions here", peer.Role, peer.ID))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// rest is what operations are added to: each is served and described.
type rest struct {
	mux *http.ServeMux
	doc *api.Description
}

// raw is an answer of bytes as they are.
type raw []byte

// handle adds an operation that answers with what f returns: JSON, raw bytes,
// nothing for nil, or a problem.
func (a rest) handle(op huma.Operation, f func(w http.ResponseWriter, r *http.Request) (any, error)) {
	a.doc.Add(op)
	a.mux.HandleFunc(op.Method+" "+op.Path, func(w http.ResponseWriter, r *http.Request) {
		out, err := f(w, r)
		if err != nil {
			problem.Write(w, err)
			return
		}
		// An error of writing says that the caller has gone.
		switch out := out.(type) {
		case nil:
			w.WriteHeader(http.StatusNoContent)
		case raw:
			w.Header().Set("Content-Type", octets)
			_, _ = w.Write(out)
		default:
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(out)
		}
	})
}

// get adds an operation that answers with what f returns.
func get[T any](a rest, path, id, summary string, f func() (T, error)) {
	op := huma.Operation{Method: "GET", Path: path, OperationID: id, Summary: summary}
	op.Responses = a.doc.Answer(summary, *new(T))
	a.handle(op, func(http.ResponseWriter, *http.Request) (any, error) { return f() })
}

// maxJSON bounds what is sent to a device, unless it is a model or its input.
const maxJSON = 64 << 10

// readBody reads a request's whole body.
func readBody(w http.ResponseWriter, r *http.Request, most int64) ([]byte, error) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(api.BodyTimeout))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return nil, decant.Errorf(decant.Exhausted, "the request is larger than %s", decant.Bytes(most))
	}
	if err != nil {
		return nil, decant.Errorf(decant.Unavailable, "the request did not arrive: %w", err)
	}
	return body, nil
}

func (a rest) device(s Service) {
	get(a, "/v1/device", "get-device", "What the device is, has and does", func() (decant.DeviceInfo, error) { return s.Info(), nil })
	get(a, "/v1/instances", "list-instances", "All instances on the device", func() ([]decant.InstanceStatus, error) { return s.Instances(), nil })
	get(a, "/v1/state", "get-state", "How the device is doing", func() (decant.DeviceState, error) { return s.Info().State, nil })
	a.handle(huma.Operation{
		Method: "POST", Path: "/v1/join-code", OperationID: "offer-join-code",
		Summary:     "Approve a device that waits: it joins with this code",
		RequestBody: &huma.RequestBody{Required: true, Content: a.doc.JSON(JoinCode{})},
	}, func(w http.ResponseWriter, r *http.Request) (any, error) {
		body, err := readBody(w, r, maxJSON)
		if err != nil {
			return nil, err
		}
		var offer JoinCode
		if err := api.DecodeStrict(body, &offer); err != nil {
			return nil, err
		}
		return nil, s.Offer(offer.Code, offer.Orchestrators)
	})
	a.log(s)
}

// Bounds of the lines of a log that are asked for.
const (
	defaultLines = 200
	maxLines     = 100_000
)

func (a rest) log(s Service) {
	a.doc.Add(huma.Operation{
		Method: "GET", Path: "/v1/apps/{app}/{component}/log", OperationID: "get-log",
		Summary: "An instance's log: a line of text each, after its time",
		Parameters: []*huma.Param{
			api.Query("lines", "integer", "The newest so many; 200 where absent"),
			api.Query("follow", "boolean", "Go on with each new line"),
		},
		Responses: map[string]*huma.Response{"200": {
			Description: "Lines of text",
			Content:     map[string]*huma.MediaType{"text/plain": {}},
		}},
	})
	a.mux.HandleFunc("GET /v1/apps/{app}/{component}/log", func(w http.ResponseWriter, r *http.Request) {
		out := &textStream{w: w}
		lines, err := api.QueryInt(r, "lines", defaultLines, maxLines)
		if err == nil {
			follow, _ := strconv.ParseBool(r.URL.Query().Get("follow"))
			err = s.Log(r.Context(), r.PathValue("app"), r.PathValue("component"), lines, follow, out)
		}
		if err != nil && !out.begun {
			problem.Write(w, err)
		}
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

// describeCalls describes what httptransport serves.
func (a rest) describeCalls() {
	anything := map[string]*huma.MediaType{octets: {}}
	a.doc.Add(huma.Operation{
		Method: "POST", Path: "/v1/apps/{app}/{component}/{function}", OperationID: "call",
		Summary:     "Call a function: the request is the body, and so is the response",
		RequestBody: &huma.RequestBody{Content: anything},
		Responses:   map[string]*huma.Response{"200": {Description: "The response", Content: anything}},
	})
}
