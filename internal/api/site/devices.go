package site

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/api"
	"github.com/decant-project/decant/internal/identity"
	"github.com/decant-project/decant/internal/problem"
)

// DeviceService is what stands behind the devices' interface.
type DeviceService interface {
	Join(ctx context.Context, req identity.JoinRequest, conn *tls.ConnectionState) (identity.Credential, error)
	Renew(ctx context.Context, id string, csr []byte) (identity.Credential, error)
	Joined(ctx context.Context, id string) error
	WatchDesired(ctx context.Context, id string, send func(decant.Desired) error) error
	Report(ctx context.Context, id string, report decant.Report) error
	OpenBlob(ctx context.Context, digest decant.Digest) (io.ReadSeekCloser, error)
}

const joinPath = "/v1/join"

// DeviceHandler serves the site's devices. Everybody may ask to join; all else
// is for members, and what a path names a device for is for that device alone.
func DeviceHandler(version string, s DeviceService, peerOf func(*tls.ConnectionState) identity.Peer) http.Handler {
	mux := http.NewServeMux()
	a := api.New(mux, "decant devices", version)
	registerJoin(a, s)
	registerDesired(a, s)
	describeBlobs(a)
	mux.HandleFunc("GET /v1/blobs/{digest}", func(w http.ResponseWriter, r *http.Request) { serveBlob(w, r, s) })
	open := func(r *http.Request) bool { return r.Method == http.MethodPost && r.URL.Path == joinPath }
	return identity.RequireSite(peerOf, open, mux)
}

// Connected gives an operation the TLS connection it came by.
type Connected struct{ tls *tls.ConnectionState }

// Resolve is called by huma before the operation.
func (in *Connected) Resolve(ctx huma.Context) []error {
	r, _ := humago.Unwrap(ctx)
	in.tls = r.TLS
	return nil
}

func registerJoin(a huma.API, s DeviceService) {
	type joinInput struct {
		Connected
		Body identity.JoinRequest
	}
	api.Handle(a, op("POST", joinPath, "join", "Become a member, with a join code"),
		func(ctx context.Context, in *joinInput) (*body[identity.Credential], error) {
			cred, err := s.Join(ctx, in.Body, in.tls)
			return &body[identity.Credential]{cred}, err
		})
	type renewInput struct {
		Body struct {
			CSR []byte `json:"csr" doc:"Certificate request, DER"`
		}
	}
	api.Handle(a, op("POST", "/v1/renew", "renew", "Renew the device's certificate"),
		func(ctx context.Context, in *renewInput) (*body[identity.Credential], error) {
			cred, err := s.Renew(ctx, identity.PeerFrom(ctx).ID, in.Body.CSR)
			return &body[identity.Credential]{cred}, err
		})
}

// DeviceInput is the path of what belongs to one device.
type DeviceInput struct {
	ID string `path:"id" maxLength:"64"`
}

// own returns a Denied error unless the device asks for what is its own.
func (in DeviceInput) own(ctx context.Context, s DeviceService) error {
	if peer := identity.PeerFrom(ctx); peer.Role != identity.RoleDevice || peer.ID != in.ID {
		return decant.Errorf(decant.Denied, "%s %s asks for what is of device %s", peer.Role, peer.ID, in.ID)
	}
	return s.Joined(ctx, in.ID)
}

// maxReport bounds a report, in bytes.
const maxReport = 4 << 20

func registerDesired(a huma.API, s DeviceService) {
	stream(a, "/v1/devices/{id}/desired", "watch-desired", "What the device shall run, now and whenever that changes",
		func(ctx context.Context, in *DeviceInput, send func(string, any) error) error {
			if err := in.own(ctx, s); err != nil {
				return err
			}
			return s.WatchDesired(ctx, in.ID, func(d decant.Desired) error { return send("desired", d) })
		})
	type reportInput struct {
		DeviceInput
		RawBody []byte `contentType:"application/json"`
	}
	report := op("POST", "/v1/devices/{id}/report", "report", "What the device is and runs; keeps it present")
	report.MaxBodyBytes = maxReport
	report.DefaultStatus = http.StatusNoContent
	api.HandleJSON[decant.Report](a, report, func(ctx context.Context, in *reportInput) (*none, error) {
		if err := in.own(ctx, s); err != nil {
			return nil, err
		}
		var rep decant.Report
		// Not strict: a newer device may say more.
		if err := api.Decode(in.RawBody, &rep); err != nil {
			return nil, err
		}
		return nil, s.Report(ctx, in.ID, rep)
	})
}

// describeBlobs describes what serveBlob serves: huma has no ranges.
func describeBlobs(a huma.API) {
	o := op("GET", "/v1/blobs/{digest}", "get-blob", "The bytes of a blob, or a range of them")
	o.Parameters = []*huma.Param{
		{Name: "digest", In: "path", Required: true, Schema: &huma.Schema{Type: "string"}},
		{Name: "Range", In: "header", Schema: &huma.Schema{Type: "string"}},
	}
	failed := a.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[problem.Problem](), true, "Problem")
	o.Responses = map[string]*huma.Response{
		"200":     {Description: "All of it", Content: map[string]*huma.MediaType{octets: {}}},
		"206":     {Description: "The range", Content: map[string]*huma.MediaType{octets: {}}},
		"default": {Description: "Error", Content: map[string]*huma.MediaType{problem.ContentType: {Schema: failed}}},
	}
	a.OpenAPI().AddOperation(&o)
}

// serveBlob serves a blob, or a range of it.
func serveBlob(w http.ResponseWriter, r *http.Request, s DeviceService) {
	digest := decant.Digest(r.PathValue("digest"))
	err := s.Joined(r.Context(), identity.PeerFrom(r.Context()).ID)
	if err == nil {
		err = digest.Check()
	}
	if err != nil {
		problem.Write(w, err)
		return
	}
	blob, err := s.OpenBlob(r.Context(), digest)
	if err != nil {
		problem.Write(w, err)
		return
	}
	defer blob.Close()
	w.Header().Set("Content-Type", octets)
	w.Header().Set("ETag", `"`+string(digest)+`"`)
	http.ServeContent(w, r, "", time.Time{}, blob)
}
