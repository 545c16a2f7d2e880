package device

import (
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/api"
	"github.com/decant-project/decant/internal/transport"
)

func (a rest) models(s Service) {
	a.handle(huma.Operation{
		Method: "PUT", Path: "/v1/models/{name}", OperationID: "put-model",
		Summary:     "Put a model on the device; the body is its file",
		Parameters:  []*huma.Param{api.Query("digest", "string", "sha256:...; the bytes must have it")},
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{octets: {}}},
		Responses:   a.doc.Answer("The model", Model{}),
	}, func(w http.ResponseWriter, r *http.Request) (any, error) {
		want := decant.Digest(r.URL.Query().Get("digest"))
		if want != "" {
			if err := want.Check(); err != nil {
				return nil, err
			}
		}
		return s.PutModel(r.Context(), r.PathValue("name"), api.Upload(w, r), want)
	})
	get(a, "/v1/models", "list-models", "The models that were put on the device", s.ListModels)
	a.handle(huma.Operation{
		Method: "DELETE", Path: "/v1/models/{name}", OperationID: "remove-model",
		Summary: "Delete a model that was put on the device",
	}, func(_ http.ResponseWriter, r *http.Request) (any, error) {
		return nil, s.RemoveModel(r.PathValue("name"))
	})
	a.infer(s)
}

func (a rest) infer(s Service) {
	op := huma.Operation{
		Method: "POST", Path: "/v1/models/{name}/infer", OperationID: "infer",
		Summary: "Run a model on the data of the request",
		Description: "application/octet-stream: the little-endian elements of the only input. " +
			"application/json: {\"inputs\": [{\"name\", \"shape\", \"data\"}]}, data being a list of numbers or the elements in base64. " +
			"The answer is JSON, or the elements of the first output where Accept asks for application/octet-stream.",
		Parameters:  []*huma.Param{api.Query("shape", "string", "Of a raw input, such as 1,3,224,224; the model's where absent")},
		RequestBody: &huma.RequestBody{Required: true, Content: a.doc.JSON(inferRequest{})},
		Responses:   a.doc.Answer("The outputs", inferAnswer{}),
	}
	op.RequestBody.Content[octets] = &huma.MediaType{}
	op.Responses["200"].Content[octets] = &huma.MediaType{}
	a.handle(op, func(w http.ResponseWriter, r *http.Request) (any, error) {
		body, err := readBody(w, r, transport.MaxBody)
		if err != nil {
			return nil, err
		}
		model, err := s.OpenModel(r.Context(), r.PathValue("name"))
		if err != nil {
			return nil, err
		}
		defer model.Close()
		return run(r, model, body)
	})
}
