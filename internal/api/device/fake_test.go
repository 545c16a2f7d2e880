package device

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/identity"
	"github.com/decant-project/decant/internal/nn"
	"github.com/decant-project/decant/internal/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeDevice answers with err, or with what it has, and notes what is asked of
// it.
type fakeDevice struct {
	err       error
	info      decant.DeviceInfo
	instances []decant.InstanceStatus
	functions []Function
	model     *fakeModel
	log       func(ctx context.Context, w io.Writer) error

	mu    sync.Mutex
	calls []string
}

var _ Service = (*fakeDevice)(nil)

func (f *fakeDevice) note(method string, args ...any) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range args {
		method += fmt.Sprintf(" %+v", a)
	}
	f.calls = append(f.calls, method)
	return f.err
}

// noted returns what was asked since the last time.
func (f *fakeDevice) noted() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer func() { f.calls = nil }()
	return strings.Join(f.calls, "; ")
}

func (f *fakeDevice) Info() decant.DeviceInfo            { _ = f.note("Info"); return f.info }
func (f *fakeDevice) Instances() []decant.InstanceStatus { _ = f.note("Instances"); return f.instances }
func (f *fakeDevice) Functions() []Function              { return f.functions }

func (f *fakeDevice) Offer(code string, orchestrators []string) error {
	return f.note("Offer", code, orchestrators)
}

func (f *fakeDevice) Call(_ context.Context, req *transport.Request) (*transport.Response, error) {
	return &transport.Response{ContentType: "text/x", Body: req.Body}, f.note("Call", req.Application, req.Component, req.Function, string(req.Body))
}

func (f *fakeDevice) Log(ctx context.Context, app, component string, newest int, follow bool, w io.Writer) error {
	if err := f.note("Log", app, component, newest, follow); err != nil || f.log == nil {
		return err
	}
	return f.log(ctx, w)
}

func (f *fakeDevice) PutModel(_ context.Context, name string, body io.Reader, want decant.Digest) (Model, error) {
	data, err := io.ReadAll(body)
	if err != nil {
		return Model{}, err
	}
	return Model{Name: name, Digest: decant.DigestOf(data), Size: decant.Bytes(len(data)), Inputs: []nn.Info{{Name: "x", Type: nn.F32, Shape: []int64{-1, 2}}}},
		f.note("PutModel", name, len(data), want)
}

func (f *fakeDevice) ListModels() ([]Model, error) {
	return []Model{{Name: "m", Digest: decant.DigestOf(nil), Size: 7}}, f.note("ListModels")
}

func (f *fakeDevice) RemoveModel(name string) error { return f.note("RemoveModel", name) }

func (f *fakeDevice) OpenModel(_ context.Context, name string) (nn.Model, error) {
	if err := f.note("OpenModel", name); err != nil {
		return nil, err
	}
	f.model.open++
	return f.model, nil
}

// fakeModel returns its inputs as its outputs.
type fakeModel struct {
	inputs, outputs []nn.Info // outputs: inputs where absent
	run             func(context.Context) error
	got             []nn.Tensor
	open            int
}

func (m *fakeModel) Inputs() []nn.Info { return m.inputs }

func (m *fakeModel) Outputs() []nn.Info {
	if m.outputs == nil {
		return m.inputs
	}
	return m.outputs
}

func (m *fakeModel) Run(ctx context.Context, inputs []nn.Tensor) ([]nn.Tensor, error) {
	m.got = inputs
	if err := nn.CheckInputs(m.inputs, inputs); err != nil {
		return nil, decant.Errorf(decant.Internal, "the backend was given what does not fit: %w", err)
	}
	if m.run != nil {
		if err := m.run(ctx); err != nil {
			return nil, err
		}
	}
	return inputs, nil
}

func (m *fakeModel) Close() error { m.open--; return nil }

// peers, by the name in the certificate that they show; "" shows none.
var peers = map[string]identity.Peer{
	"":             {},
	"stranger":     {ID: "stranger"},
	"device":       {Verified: true, Site: "s", Role: identity.RoleDevice, ID: "d2"},
	"orchestrator": {Verified: true, Site: "s", Role: identity.RoleOrchestrator, ID: "o1"},
}

// as makes r come from a peer.
func as(peer string, r *http.Request) *http.Request {
	r.TLS = &tls.ConnectionState{}
	if peer != "" {
		r.TLS.PeerCertificates = []*x509.Certificate{{Subject: pkix.Name{CommonName: peer}, NotAfter: time.Now().Add(24 * time.Hour)}}
	}
	return r
}

func peerOf(state *tls.ConnectionState) identity.Peer {
	if len(state.PeerCertificates) == 0 {
		return peers[""]
	}
	return peers[state.PeerCertificates[0].Subject.CommonName]
}

// handler serves f as a device does.
func (f *fakeDevice) handler() http.Handler { return Handler(f, "test", peerOf) }

// ask sends a request as an orchestrator.
func (f *fakeDevice) ask(method, target, contentType string, body []byte) *http.Response {
	r := as("orchestrator", httptest.NewRequest(method, target, bytes.NewReader(body)))
	r.Header.Set("Content-Type", contentType)
	rec := httptest.NewRecorder()
	f.handler().ServeHTTP(rec, r)
	return rec.Result()
}

func bodyOf(t *testing.T, resp *http.Response) string {
	t.Helper()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func toJSON(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(data)
}
