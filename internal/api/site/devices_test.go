package site_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/api/site"
	"github.com/decant-project/decant/internal/identity"
	"github.com/decant-project/decant/internal/problem"
	"github.com/decant-project/decant/internal/sse"
)

// fakeFleet is what stands behind the devices' interface. Of all IDs only d1
// and d2 have joined.
type fakeFleet struct {
	err     error // of all but Joined
	desired []error
	blob    []byte

	mu     sync.Mutex
	calls  []string
	conn   *tls.ConnectionState // of the last join
	open   atomic.Int32         // blobs
	report decant.Report
	ended  chan struct{} // gets an element when a stream has ended
}

var _ site.DeviceService = (*fakeFleet)(nil)

func newFakeFleet() *fakeFleet { return &fakeFleet{ended: make(chan struct{}, 1)} }

func (f *fakeFleet) note(method string, args ...any) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, strings.TrimSuffix(fmt.Sprintln(append([]any{method}, args...)...), "\n"))
	return f.err
}

func (f *fakeFleet) noted() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer func() { f.calls = nil }()
	return strings.Join(f.calls, "; ")
}

func (f *fakeFleet) Join(_ context.Context, req identity.JoinRequest, conn *tls.ConnectionState) (identity.Credential, error) {
	f.conn = conn
	return full[identity.Credential](), f.note("Join", req.Code, string(req.CSR), string(req.Proof))
}

func (f *fakeFleet) Renew(_ context.Context, id string, csr []byte) (identity.Credential, error) {
	if err := f.Joined(context.Background(), id); err != nil {
		return identity.Credential{}, err
	}
	return full[identity.Credential](), f.note("Renew", id, string(csr))
}

func (f *fakeFleet) Joined(_ context.Context, id string) error {
	if id != "d1" && id != "d2" {
		return decant.Errorf(decant.Denied, "device %s is not of this site any more", id)
	}
	return nil
}

func (f *fakeFleet) WatchDesired(ctx context.Context, id string, send func(decant.Desired) error) error {
	defer func() { f.ended <- struct{}{} }()
	if err := f.note("WatchDesired", id); err != nil {
		return err
	}
	for n, err := range f.desired {
		if err != nil {
			return err
		}
		d := full[decant.Desired]()
		d.Revision = int64(n + 1)
		if err := send(d); err != nil {
			return err
		}
	}
	<-ctx.Done()
	return ctx.Err()
}

func (f *fakeFleet) Report(_ context.Context, id string, report decant.Report) error {
	f.report = report
	return f.note("Report", id)
}

func (f *fakeFleet) OpenBlob(_ context.Context, d decant.Digest) (io.ReadSeekCloser, error) {
	if err := f.note("OpenBlob", d.Short()); err != nil {
		return nil, err
	}
	f.open.Add(1)
	return &openBlob{bytes.NewReader(f.blob), f}, nil
}

type openBlob struct {
	*bytes.Reader
	fleet *fakeFleet
}

func (b *openBlob) Close() error { b.fleet.open.Add(-1); return nil }

// peers, by the name in the certificate that they show; "" shows none. Device
// gone has a certificate still, but was removed.
var peers = map[string]identity.Peer{
	"":             {},
	"stranger":     {ID: "stranger"},
	"d1":           {Verified: true, Site: "s", Role: identity.RoleDevice, ID: "d1"},
	"d2":           {Verified: true, Site: "s", Role: identity.RoleDevice, ID: "d2"},
	"gone":         {Verified: true, Site: "s", Role: identity.RoleDevice, ID: "gone"},
	"orchestrator": {Verified: true, Site: "s", Role: identity.RoleOrchestrator, ID: "o1"},
	"namesake":     {Verified: true, Site: "s", Role: identity.RoleOrchestrator, ID: "d1"},
}

func as(peer string, r *http.Request) *http.Request {
	r.TLS = &tls.ConnectionState{ServerName: "of " + peer}
	if peer != "" {
		r.TLS.PeerCertificates = []*x509.Certificate{{Subject: pkix.Name{CommonName: peer}, NotAfter: time.Now().Add(24 * time.Hour)}}
	}
	return r
}

func (f *fakeFleet) handler() http.Handler {
	return site.DeviceHandler("test", f, func(state *tls.ConnectionState) identity.Peer {
		if len(state.PeerCertificates) == 0 {
			return peers[""]
		}
		return peers[state.PeerCertificates[0].Subject.CommonName]
	})
}

func (f *fakeFleet) ask(peer, method, target, body string, header ...string) *http.Response {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r := as(peer, httptest.NewRequestWithContext(ctx, method, target, strings.NewReader(body)))
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	rec := httptest.NewRecorder()
	f.handler().ServeHTTP(rec, r)
	return rec.Result()
}

func text(t *testing.T, resp *http.Response) string {
	t.Helper()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

const (
	joinBody  = `{"code":"c","csr":"Y3Ny","proof":"cHJvb2Y="}`
	renewBody = `{"csr":"Y3Ny"}`
)

// TestWhoMayWhat holds each route, also those to come, to a rule.
func TestWhoMayWhat(t *testing.T) {
	members := []string{"d1", "d2", "gone", "orchestrator", "namesake"} // devices and others of the site
	all := append([]string{"", "stranger"}, members...)
	type rule struct {
		target, body string
		who          []string
		asked        string // of the service, by those who may
	}
	rules := map[string]rule{
		"POST /v1/join":                {"/v1/join", joinBody, all, "Join c csr proof"},
		"POST /v1/renew":               {"/v1/renew", renewBody, []string{"d1", "d2", "namesake"}, "Renew"}, // whose ID the site knows
		"GET /v1/devices/{id}/desired": {"/v1/devices/d1/desired", "", []string{"d1"}, "WatchDesired d1"},
		"POST /v1/devices/{id}/report": {"/v1/devices/d1/report", "{}", []string{"d1"}, "Report d1"},
		"GET /v1/blobs/{digest}":       {"/v1/blobs/" + string(blobDigest), "", []string{"d1", "d2", "namesake"}, "OpenBlob " + blobDigest.Short()},
		"GET /openapi.json":            {"/openapi.json", "", members, ""},
		"GET /openapi.yaml":            {"/openapi.yaml", "", members, ""},
	}
	f := newFakeFleet()
	var doc struct{ Paths map[string]map[string]any }
	if err := json.Unmarshal([]byte(text(t, f.ask("d1", "GET", "/openapi.json", ""))), &doc); err != nil {
		t.Fatal(err)
	}
	for path, item := range doc.Paths {
		for method := range item {
			if _, ok := rules[strings.ToUpper(method)+" "+path]; !ok {
				t.Errorf("no rule says who may %s %s", method, path)
			}
		}
	}
	f.desired = []error{nil, decant.Errorf(decant.Internal, "the end")}
	for route, rule := range rules {
		for _, peer := range all {
			method, _, _ := strings.Cut(route, " ")
			resp := f.ask(peer, method, rule.target, rule.body)
			denied := errors.Is(problem.Read(resp), decant.Denied)
			asked := f.noted()
			if may := slices.Contains(rule.who, peer); denied == may || !denied && resp.StatusCode >= 300 {
				t.Errorf("%s as %q: status %d", route, peer, resp.StatusCode)
			}
			if !denied && !strings.HasPrefix(asked, rule.asked) || denied && asked != "" {
				t.Errorf("%s as %q asked for %q", route, peer, asked)
			}
			select {
			case <-f.ended:
			default:
			}
		}
	}
}

func TestJoinAndRenew(t *testing.T) {
	f := newFakeFleet()
	for _, tt := range []struct{ peer, target, body, asked string }{
		{"stranger", "/v1/join", joinBody, "Join c csr proof"},
		{"d2", "/v1/renew", renewBody, "Renew d2 csr"},
	} {
		var cred identity.Credential
		resp := f.ask(tt.peer, "POST", tt.target, tt.body)
		if err := json.Unmarshal([]byte(text(t, resp)), &cred); err != nil || cred != full[identity.Credential]() {
			t.Errorf("%s: %v, %+v", tt.target, err, cred)
		}
		if asked := f.noted(); asked != tt.asked {
			t.Errorf("%s asked for %s", tt.target, asked)
		}
	}
	if f.conn == nil || f.conn.ServerName != "of stranger" {
		t.Errorf("joined over %+v", f.conn)
	}
	for name, body := range map[string]string{
		"nothing": "", "no JSON": "x", "no proof": `{"code":"c","csr":"Y3Ny"}`, "no base64": `{"code":"c","csr":"?","proof":""}`,
		"too long a code":   `{"code":"` + strings.Repeat("c", 65) + `","csr":"","proof":""}`,
		"an unknown member": `{"code":"c","csr":"Y3Ny","proof":"cHJvb2Y=","role":"orchestrator"}`,
	} {
		if err := problem.Read(f.ask("stranger", "POST", "/v1/join", body)); !errors.Is(err, decant.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	large := `{"code":"c","csr":"` + strings.Repeat("A", 1<<20) + `","proof":""}`
	if err := problem.Read(f.ask("stranger", "POST", "/v1/join", large)); !errors.Is(err, decant.Exhausted) {
		t.Errorf("too large: %v", err)
	}
	if asked := f.noted(); asked != "" {
		t.Errorf("asked for %s", asked)
	}
	f.err = decant.Errorf(decant.Denied, "wrong code").WithHelp("get another")
	if e, ok := errors.AsType[*decant.Error](problem.Read(f.ask("stranger", "POST", "/v1/join", joinBody))); !ok || e.Code != decant.Denied || e.Help != "get another" {
		t.Errorf("got %v", e)
	}
}

func TestReport(t *testing.T) {
	whole := full[decant.Report]()
	tests := []struct {
		name, body string
		want       *decant.Report // nil: it is refused
		code       decant.Code
	}{
		{"all of it", toJSON(whole), &whole, ""},
		{"of a newer device", `{"applied":7,"mood":"fine"}`, &decant.Report{Applied: 7}, ""},
		{"not JSON", `{`, nil, decant.Invalid},
		{"nothing", ``, nil, decant.Invalid},
		{"large", `{"applied":7,"more":"` + strings.Repeat("x", 3<<20) + `"}`, &decant.Report{Applied: 7}, ""},
		{"too large", `{"applied":7,"more":"` + strings.Repeat("x", 4<<20) + `"}`, nil, decant.Exhausted},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFakeFleet()
			resp := f.ask("d1", "POST", "/v1/devices/d1/report", tt.body)
			if got := decant.CodeOf(problem.Read(resp)); got != tt.code {
				t.Fatalf("status %d, code %q", resp.StatusCode, got)
			}
			if tt.want == nil {
				if asked := f.noted(); asked != "" {
					t.Errorf("asked for %s", asked)
				}
				return
			}
			if resp.StatusCode != http.StatusNoContent || !reflect.DeepEqual(f.report, *tt.want) {
				t.Errorf("status %d, reported %+v", resp.StatusCode, f.report)
			}
		})
	}
}

func TestBlobs(t *testing.T) {
	const blob = "0123456789"
	target := "/v1/blobs/" + string(blobDigest)
	etag := `"` + string(blobDigest) + `"`
	tests := []struct {
		name   string
		header []string
		status int
		body   string
		ranges string
	}{
		{"whole", nil, 200, blob, ""},
		{"the rest", []string{"Range", "bytes=4-"}, 206, "456789", "bytes 4-9/10"},
		{"the last byte", []string{"Range", "bytes=9-"}, 206, "9", "bytes 9-9/10"},
		{"a part", []string{"Range", "bytes=2-3"}, 206, "23", "bytes 2-3/10"},
		{"past its end", []string{"Range", "bytes=10-"}, 416, "", "bytes */10"},
		{"the rest of the same", []string{"Range", "bytes=4-", "If-Range", etag}, 206, "456789", "bytes 4-9/10"},
		{"the rest of another", []string{"Range", "bytes=4-", "If-Range", `"sha256:00"`}, 200, blob, ""},
		{"what it has", []string{"If-None-Match", etag}, 304, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFakeFleet()
			f.blob = []byte(blob)
			resp := f.ask("d1", "GET", target, "", tt.header...)
			body := text(t, resp)
			if resp.StatusCode != tt.status || tt.status < 300 && body != tt.body || resp.Header.Get("Content-Range") != tt.ranges {
				t.Errorf("status %d, %s: %q", resp.StatusCode, resp.Header, body)
			}
			if tt.status < 300 && (resp.Header.Get("Content-Type") != "application/octet-stream" || resp.Header.Get("ETag") != etag || resp.ContentLength != int64(len(tt.body))) {
				t.Errorf("length %d, %s", resp.ContentLength, resp.Header)
			}
			if f.open.Load() != 0 {
				t.Error("the blob was not closed")
			}
		})
	}
}

// TestBlobResumes reads a blob over a connection that breaks, in parts.
func TestBlobResumes(t *testing.T) {
	f := newFakeFleet()
	f.blob = bytes.Repeat([]byte("0123456789abcdef"), 1<<14)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f.handler().ServeHTTP(w, as("d1", r)) }))
	defer srv.Close()
	defer srv.Client().CloseIdleConnections()
	var got []byte
	for parts := 0; len(got) < len(f.blob); parts++ {
		req, err := http.NewRequestWithContext(t.Context(), "GET", srv.URL+"/v1/blobs/"+string(blobDigest), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", len(got)))
		resp, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != http.StatusPartialContent {
			t.Fatalf("status %d", resp.StatusCode)
		}
		part, err := io.ReadAll(io.LimitReader(resp.Body, 100_000))
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, part...)
		_ = resp.Body.Close() // in the middle of it
		if parts > 10 {
			t.Fatal("does not end")
		}
	}
	if !bytes.Equal(got, f.blob) {
		t.Error("other bytes")
	}
}

func TestBlobErrors(t *testing.T) {
	for digest, want := range map[string]decant.Code{
		"sha256:12":                         decant.Invalid,
		"..%2f..%2fpasswd":                  decant.Invalid,
		strings.ToUpper(string(blobDigest)): decant.Invalid,
		string(blobDigest):                  decant.NotFound,
	} {
		f := newFakeFleet()
		f.err = decant.Errorf(decant.NotFound, "no such blob")
		if err := problem.Read(f.ask("d1", "GET", "/v1/blobs/"+digest, "")); !errors.Is(err, want) {
			t.Errorf("%s: %v", digest, err)
		}
		if asked := f.noted(); want == decant.Invalid && asked != "" {
			t.Errorf("%s asked for %s", digest, asked)
		}
	}
}

// TestDesired watches over a real connection.
func TestDesired(t *testing.T) {
	lost := decant.Errorf(decant.Unavailable, "the state is lost")
	tests := []struct {
		name   string
		err    error
		events []error
		status int
		want   []string
	}{
		{"changes, until the device leaves", nil, []error{nil, nil, nil}, 200, []string{"desired 1", "desired 2", "desired 3"}},
		{"an error later", nil, []error{nil, lost}, 200, []string{"desired 1", "error unavailable"}},
		{"an error at first", lost, nil, 503, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFakeFleet()
			f.err, f.desired = tt.err, tt.events
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f.handler().ServeHTTP(w, as("d1", r)) }))
			defer srv.Close()
			defer srv.Client().CloseIdleConnections()
			req, err := http.NewRequestWithContext(t.Context(), "GET", srv.URL+"/v1/devices/d1/desired", nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := srv.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if resp.StatusCode != tt.status {
				t.Fatalf("status %d: %s", resp.StatusCode, text(t, resp))
			}
			if got := readDesired(t, resp.Body, len(tt.want)); !slices.Equal(got, tt.want) {
				t.Errorf("got %v", got)
			}
			_ = resp.Body.Close()
			<-f.ended
		})
	}
}

// readDesired reads most events.
func readDesired(t *testing.T, r io.Reader, most int) (got []string) {
	t.Helper()
	if most == 0 {
		return nil
	}
	err := sse.Read(t.Context(), r, func(e sse.Event) error {
		var v struct {
			Revision int64
			Code     string
		}
		if err := json.Unmarshal(e.Data, &v); err != nil {
			return err
		}
		if e.Name == "error" {
			got = append(got, "error "+v.Code)
		} else {
			got = append(got, fmt.Sprint(e.Name, " ", v.Revision))
			want := full[decant.Desired]()
			want.Revision = v.Revision
			var whole decant.Desired
			if err := json.Unmarshal(e.Data, &whole); err != nil || !reflect.DeepEqual(whole, want) {
				t.Errorf("desired %+v, %v", whole, err)
			}
		}
		if len(got) == most {
			return errEnough
		}
		return nil
	})
	if err != errEnough {
		t.Error(err)
	}
	return got
}

// TestServiceErrors: a device hears the service's own words.
func TestServiceErrors(t *testing.T) {
	want := decant.Errorf(decant.Conflict, "not now").WithHelp("later")
	for _, route := range []string{"POST /v1/renew", "GET /v1/devices/d1/desired", "POST /v1/devices/d1/report", "GET /v1/blobs/" + string(blobDigest)} {
		f := newFakeFleet()
		f.err = want
		method, target, _ := strings.Cut(route, " ")
		err := problem.Read(f.ask("d1", method, target, renewBody))
		if e, ok := errors.AsType[*decant.Error](err); !ok || e.Code != want.Code || e.Message != want.Message || e.Help != want.Help {
			t.Errorf("%s: %#v", route, err)
		}
	}
}
