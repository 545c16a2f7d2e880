package api_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/api/device"
	"github.com/decant-project/decant/internal/api/site"
	"github.com/decant-project/decant/internal/identity"
)

// document is an OpenAPI description as a reader meets it.
type document struct {
	OpenAPI string `json:"openapi"`
	Info    struct {
		Title, Version string
	} `json:"info"`
	Paths      map[string]map[string]operation `json:"paths"`
	Components struct {
		Schemas map[string]schema `json:"schemas"`
	} `json:"components"`
	whole any
}

type operation struct {
	OperationID string
	Summary     string
	Parameters  []struct {
		Name, In string
		Required bool
		Schema   map[string]any
	}
	RequestBody *struct {
		Required bool
		Content  map[string]media
	}
	Responses map[string]struct {
		Description string
		Content     map[string]media
	}
}

type media struct{ Schema *schema }

type schema struct {
	Ref        string `json:"$ref"`
	Type       any
	Properties map[string]json.RawMessage
	Required   []string
}

// interfaces are all REST interfaces of decant, without anything behind them.
func interfaces() map[string]http.Handler {
	users := http.NewServeMux()
	site.Register(users, "1.2.3", nil)
	orchestrator := func(*tls.ConnectionState) identity.Peer {
		return identity.Peer{Verified: true, Role: identity.RoleOrchestrator, ID: "o"}
	}
	return map[string]http.Handler{
		"site users":   users,
		"site devices": site.DeviceHandler("1.2.3", nil, orchestrator),
		"device":       device.Handler(nothing{}, "1.2.3", orchestrator),
	}
}

// nothing is a device that says nothing of itself.
type nothing struct{ device.Service }

func (nothing) Info() decant.DeviceInfo      { return decant.DeviceInfo{ID: "d1", Name: "nothing"} }
func (nothing) Functions() []device.Function { return nil }

func describe(t *testing.T, h http.Handler) document {
	t.Helper()
	r := httptest.NewRequest("GET", "/openapi.json", nil)
	r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{{NotAfter: time.Now().Add(24 * time.Hour)}}}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	if rec.Code != 200 || !strings.Contains(rec.Header().Get("Content-Type"), "openapi+json") {
		t.Fatalf("status %d, %s: %s", rec.Code, rec.Header().Get("Content-Type"), rec.Body)
	}
	var doc document
	for _, into := range []any{&doc, &doc.whole} {
		if err := json.Unmarshal(rec.Body.Bytes(), into); err != nil {
			t.Fatal(err)
		}
	}
	return doc
}

var (
	versionPattern = regexp.MustCompile(`^3\.1\.\d+$`)
	pathParameter  = regexp.MustCompile(`\{([^}]+)\}`)
	methods        = []string{"get", "put", "post", "delete", "options", "head", "patch", "trace"}
)

func TestDescriptions(t *testing.T) {
	for name, h := range interfaces() {
		t.Run(name, func(t *testing.T) {
			doc := describe(t, h)
			if !versionPattern.MatchString(doc.OpenAPI) || doc.Info.Title == "" || doc.Info.Version != "1.2.3" {
				t.Errorf("openapi %q, title %q, version %q", doc.OpenAPI, doc.Info.Title, doc.Info.Version)
			}
			checkRefs(t, doc.whole, doc.whole, "#")
			ids := map[string]string{}
			for path, item := range doc.Paths {
				for method, op := range item {
					where := method + " " + path
					if !slices.Contains(methods, method) || !strings.HasPrefix(path, "/") {
						t.Errorf("%s is no operation", where)
					}
					if other := ids[op.OperationID]; op.OperationID == "" || other != "" {
						t.Errorf("%s: operationId %q is that of %q too", where, op.OperationID, other)
					}
					ids[op.OperationID] = where
					checkOperation(t, where, path, op)
				}
			}
			if len(ids) < 5 {
				t.Errorf("it has only %d operations", len(ids))
			}
		})
	}
}

// checkRefs resolves each $ref of part, as JSON pointers into whole.
func checkRefs(t *testing.T, whole, part any, where string) {
	switch part := part.(type) {
	case map[string]any:
		if ref, ok := part["$ref"].(string); ok {
			at := whole
			for step := range strings.SplitSeq(strings.TrimPrefix(ref, "#/"), "/") {
				m, _ := at.(map[string]any)
				at = m[strings.NewReplacer("~1", "/", "~0", "~").Replace(step)]
			}
			if !strings.HasPrefix(ref, "#/") || at == nil {
				t.Errorf("%s: $ref %q leads nowhere", where, ref)
			}
		}
		for k, v := range part {
			checkRefs(t, whole, v, where+"/"+k)
		}
	case []any:
		for i, v := range part {
			checkRefs(t, whole, v, where+"/"+strconv.Itoa(i))
		}
	}
}

func checkOperation(t *testing.T, where, path string, op operation) {
	if op.Summary == "" {
		t.Errorf("%s has no summary", where)
	}
	declared, seen := []string{}, map[string]bool{}
	for _, p := range op.Parameters {
		if !slices.Contains([]string{"path", "query", "header", "cookie"}, p.In) || p.Schema == nil || seen[p.In+p.Name] {
			t.Errorf("%s: parameter %q in %q: twice, or without a place or a schema", where, p.Name, p.In)
		}
		seen[p.In+p.Name] = true
		if p.In == "path" {
			declared = append(declared, p.Name)
			if !p.Required {
				t.Errorf("%s: parameter %s of the path is not required", where, p.Name)
			}
		}
	}
	var inPath []string
	for _, m := range pathParameter.FindAllStringSubmatch(path, -1) {
		inPath = append(inPath, m[1])
	}
	slices.Sort(declared)
	slices.Sort(inPath)
	if !slices.Equal(declared, inPath) {
		t.Errorf("%s declares the parameters %v", where, declared)
	}
	if len(op.Responses) == 0 || op.Responses["default"].Content["application/problem+json"].Schema == nil {
		t.Errorf("%s does not say how it fails", where)
	}
	success := false
	for status, r := range op.Responses {
		success = success || strings.HasPrefix(status, "2")
		if r.Description == "" {
			t.Errorf("%s: response %s has no description", where, status)
		}
	}
	if !success {
		t.Errorf("%s does not say how it succeeds", where)
	}
	if op.RequestBody != nil && len(op.RequestBody.Content) == 0 {
		t.Errorf("%s: its body is of no media type", where)
	}
}

// TestDescribedBodies: whoever reads the description learns what to send.
func TestDescribedBodies(t *testing.T) {
	docs := map[string]document{}
	for name, h := range interfaces() {
		docs[name] = describe(t, h)
	}
	tests := []struct {
		api, method, path, mediaType string
		members                      []string // of the body; none: it is bytes
	}{
		{"site users", "put", "/v1/apps/{name}", "application/json", []string{"application", "components", "links", "objective", "constraints"}},
		{"site users", "post", "/v1/packages", "application/json", []string{"spec", "blobs"}},
		{"site users", "put", "/v1/blobs/{digest}", "application/octet-stream", nil},
		{"site users", "post", "/v1/apps/{name}/invoke", "application/octet-stream", nil},
		{"site devices", "post", "/v1/devices/{id}/report", "application/json", []string{"device", "applied", "instances", "events"}},
		{"site devices", "post", "/v1/join", "application/json", []string{"code", "csr", "proof"}},
		{"site devices", "post", "/v1/renew", "application/json", []string{"csr"}},
		{"device", "post", "/v1/join-code", "application/json", []string{"code", "orchestrators"}},
		{"device", "put", "/v1/models/{name}", "application/octet-stream", nil},
		{"device", "post", "/v1/models/{name}/infer", "application/json", []string{"inputs"}},
		{"device", "post", "/v1/models/{name}/infer", "application/octet-stream", nil},
		{"device", "post", "/v1/apps/{app}/{component}/{function}", "application/octet-stream", nil},
	}
	for _, tt := range tests {
		t.Run(tt.api+" "+tt.path+" "+tt.mediaType, func(t *testing.T) {
			op, ok := docs[tt.api].Paths[tt.path][tt.method]
			if !ok || op.RequestBody == nil {
				t.Fatalf("no body is described: %+v", op)
			}
			content, ok := op.RequestBody.Content[tt.mediaType]
			if !ok {
				t.Fatalf("no body of this type is described: %+v", op.RequestBody)
			}
			if tt.members == nil {
				return
			}
			if content.Schema == nil {
				t.Fatal("the body has no schema")
			}
			s := *content.Schema
			if name, isRef := strings.CutPrefix(s.Ref, "#/components/schemas/"); isRef {
				s = docs[tt.api].Components.Schemas[name]
			}
			if s.Type != "object" {
				t.Errorf("the body is of type %v", s.Type)
			}
			for _, m := range tt.members {
				if s.Properties[m] == nil {
					t.Errorf("the body has no member %s: %v", m, s.Properties)
				}
			}
		})
	}
}

// TestEachRouteIsDescribed looks for routes in the source that are served past
// the description.
func TestEachRouteIsDescribed(t *testing.T) {
	all := interfaces()
	tests := map[string]string{
		"site/site.go":    "site users",
		"site/devices.go": "site devices",
		"device/*.go":     "device",
	}
	mounted := 0
	for files, name := range tests {
		described := map[string]bool{
			// What describes does not describe itself.
			"GET /openapi.json":    true,
			"GET /.well-known/wot": true,
			"/":                    true, // hands on to another mux
		}
		for path, item := range describe(t, all[name]).Paths {
			for method := range item {
				described[strings.ToUpper(method)+" "+path] = true
			}
		}
		for _, pattern := range mountedIn(t, files) {
			mounted++
			if !described[pattern] {
				t.Errorf("%s: %q is served, but no description has it", files, pattern)
			}
		}
	}
	if mounted < 4 {
		t.Errorf("found %d mounted routes only: look for them elsewhere", mounted)
	}
}

// mountedIn returns the patterns that files give to HandleFunc and Handle as
// they stand there. Those that are computed come from an operation, which is
// described in the same place.
func mountedIn(t *testing.T, glob string) (patterns []string) {
	t.Helper()
	files, err := filepath.Glob(glob)
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: %v, %v", glob, files, err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) != 2 {
				return true
			}
			f, ok := call.Fun.(*ast.SelectorExpr)
			lit, isLit := call.Args[0].(*ast.BasicLit)
			if ok && isLit && (f.Sel.Name == "Handle" || f.Sel.Name == "HandleFunc") {
				if s, err := strconv.Unquote(lit.Value); err == nil {
					patterns = append(patterns, s)
				}
			}
			return true
		})
	}
	return patterns
}

// TestEachDescribedRouteIsServed: no operation of a description is a 404 or a
// 405. There is nothing behind the interfaces, so one that is served may well
// panic.
func TestEachDescribedRouteIsServed(t *testing.T) {
	for name, h := range interfaces() {
		for path, item := range describe(t, h).Paths {
			for method := range item {
				ctx, cancel := context.WithCancel(t.Context())
				cancel()
				r := httptest.NewRequestWithContext(ctx, strings.ToUpper(method), pathParameter.ReplaceAllString(path, "x"), nil)
				r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{{NotAfter: time.Now().Add(24 * time.Hour)}}}
				rec := httptest.NewRecorder()
				func() {
					defer func() { _ = recover() }()
					h.ServeHTTP(rec, r)
				}()
				if served := rec.Header().Get("Content-Type") != "text/plain; charset=utf-8"; !served && rec.Code >= 400 {
					t.Errorf("%s: %s %s: %d %s", name, method, path, rec.Code, rec.Body)
				}
			}
		}
	}
}
