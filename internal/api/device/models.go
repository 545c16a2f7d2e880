package device

import (
	"context"
	"io"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/api"
	"github.com/decant-project/decant/internal/transport"
)

type NameInput struct {
	Name string `path:"name" maxLength:"63"`
}

// uploadInput hands the request's body on without reading it into memory.
type uploadInput struct {
	NameInput
	Digest decant.Digest `query:"digest" doc:"sha256:...; the bytes must have it"`
	body   io.Reader
}

// Resolve is called by huma before the operation.
func (in *uploadInput) Resolve(ctx huma.Context) []error {
	in.body = ctx.BodyReader()
	return nil
}

func registerModels(a huma.API, s Service) {
	api.Handle(a, op("PUT", "/v1/models/{name}", "put-model", "Put a model on the device; the body is its file"),
		func(ctx context.Context, in *uploadInput) (*body[Model], error) {
			if in.Digest != "" {
				if err := in.Digest.Check(); err != nil {
					return nil, err
				}
			}
			m, err := s.PutModel(ctx, in.Name, in.body, in.Digest)
			return &body[Model]{m}, err
		})
	api.Handle(a, op("GET", "/v1/models", "list-models", "The models that were put on the device"),
		func(context.Context, *none) (*body[[]Model], error) {
			list, err := s.ListModels()
			return &body[[]Model]{list}, err
		})
	remove := op("DELETE", "/v1/models/{name}", "remove-model", "Delete a model that was put on the device")
	remove.DefaultStatus = http.StatusNoContent
	api.Handle(a, remove, func(_ context.Context, in *NameInput) (*none, error) {
		return nil, s.RemoveModel(in.Name)
	})
	infer := op("POST", "/v1/models/{name}/infer", "infer", "Run a model on the data of the request")
	infer.Description = "application/octet-stream: the little-endian elements of the only input. " +
		"application/json: {\"inputs\": [{\"name\", \"shape\", \"data\"}]}, data being a list of numbers or the elements in base64. " +
		"The answer is JSON, or the elements of the first output where Accept asks for application/octet-stream."
	infer.MaxBodyBytes = transport.MaxBody
	infer.SkipValidateBody = true
	api.Handle(a, infer, func(ctx context.Context, in *inferInput) (*inferOutput, error) {
		model, err := s.OpenModel(ctx, in.Name)
		if err != nil {
			return nil, err
		}
		defer model.Close()
		return run(ctx, model, in)
	})
}
