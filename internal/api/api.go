// Package api is what the REST interfaces of both programs share: how an
// operation is registered, documented and how its errors leave. The interfaces
// themselves are api/site (the orchestrator) and api/device (the supervisor).
package api

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"reflect"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/problem"
)

// huma lets the shape of errors be set once, for the whole process.
var setErrors = sync.OnceFunc(func() {
	huma.NewError = func(status int, msg string, errs ...error) huma.StatusError {
		return problem.NewHumaError(status, msg, errs...)
	}
})

// New makes an API on mux that serves its own description at /openapi.json.
func New(mux *http.ServeMux, title, version string) huma.API {
	setErrors()
	config := huma.DefaultConfig(title, version)
	config.DocsPath = ""
	config.SchemasPath = ""
	config.CreateHooks = nil // no $schema members: clients decode strictly
	aliases(config.Components.Schemas)
	return humago.New(mux, config)
}

// Handle registers an operation whose errors are decant's.
func Handle[I, O any](api huma.API, op huma.Operation, h func(context.Context, *I) (*O, error)) {
	huma.Register(api, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := h(ctx, in)
		if err != nil {
			return nil, problem.New(err)
		}
		return out, nil
	})
}

// MaxJSON bounds a body of JSON, in bytes, where an operation says nothing else:
// huma bounds only bodies that it decodes itself.
const MaxJSON = 4 << 20

// BodyTimeout is how long a body may take to arrive that is read as a whole.
const BodyTimeout = time.Minute

// HandleJSON registers an operation that decodes its body, a T as JSON, by
// itself. The description shows T, but only decant's own checks judge it: they
// say what to change.
func HandleJSON[T, I, O any](api huma.API, op huma.Operation, h func(context.Context, *I) (*O, error)) {
	op.SkipValidateBody = true
	op.RequestBody = &huma.RequestBody{Required: true}
	op.MaxBodyBytes = cmp.Or(op.MaxBodyBytes, MaxJSON)
	op.BodyReadTimeout = BodyTimeout
	Handle(api, op, h)
	schema := api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[T](), true, op.OperationID)
	op.RequestBody.Content = map[string]*huma.MediaType{"application/json": {Schema: schema}}
}

// Decode reads a JSON value.
func Decode(data []byte, into any) error {
	if err := json.Unmarshal(data, into); err != nil {
		return decant.Errorf(decant.Invalid, "cannot read the request: %w", err)
	}
	return nil
}

// DecodeStrict reads one JSON value and refuses members it does not know.
func DecodeStrict(data []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return decant.Errorf(decant.Invalid, "cannot read the request: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) { // More takes a closing bracket for the end
		return decant.Errorf(decant.Invalid, "cannot read the request: more than one JSON value")
	}
	return nil
}
