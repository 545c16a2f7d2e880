package api

import (
	"encoding/json"
	"net/http"
	"reflect"
	"regexp"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/problem"
)

// Description is an OpenAPI 3.1 document, made from the code beside what it
// describes. It serves an API that huma itself would serve were its programs
// large: on a device each operation of huma's costs 30 kB.
type Description struct{ doc *huma.OpenAPI }

// Describe starts the description of an API.
func Describe(title, version string) *Description {
	return &Description{&huma.OpenAPI{
		OpenAPI: "3.1.0",
		Info:    &huma.Info{Title: title, Version: version},
		Components: &huma.Components{
			Schemas: aliases(huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer)),
		},
	}}
}

var pathParameter = regexp.MustCompile(`\{(\w+)\}`)

// Add adds an operation, with the parameters of its path and with the errors
// that each has.
func (d *Description) Add(op huma.Operation) {
	for _, m := range pathParameter.FindAllStringSubmatch(op.Path, -1) {
		op.Parameters = append(op.Parameters, &huma.Param{Name: m[1], In: "path", Required: true, Schema: &huma.Schema{Type: "string"}})
	}
	if op.Responses == nil {
		op.Responses = map[string]*huma.Response{"204": {Description: "Done"}}
	}
	op.Responses["default"] = &huma.Response{
		Description: "What went wrong",
		Content:     map[string]*huma.MediaType{problem.ContentType: {Schema: d.schema(reflect.TypeFor[problem.Problem]())}},
	}
	d.doc.AddOperation(&op)
}

// Answer describes a response of status 200 that is like v, as JSON.
func (d *Description) Answer(description string, v any) map[string]*huma.Response {
	return map[string]*huma.Response{"200": {Description: description, Content: d.JSON(v)}}
}

// JSON describes a body that is like v.
func (d *Description) JSON(v any) map[string]*huma.MediaType {
	return map[string]*huma.MediaType{"application/json": {Schema: d.schema(reflect.TypeOf(v))}}
}

func (d *Description) schema(t reflect.Type) *huma.Schema {
	return d.doc.Components.Schemas.Schema(t, true, t.Name())
}

// Query describes a parameter of the query that may be left out.
func Query(name, kind, description string) *huma.Param {
	return &huma.Param{Name: name, In: "query", Description: description, Schema: &huma.Schema{Type: kind}}
}

// ServeHTTP answers with the document.
func (d *Description) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/openapi+json")
	_ = json.NewEncoder(w).Encode(d.doc)
}

// QueryInt reads a number of the query, fallback where there is none.
func QueryInt(r *http.Request, name string, fallback, most int) (int, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return fallback, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > most {
		return 0, decant.Errorf(decant.Invalid, "%s %.40q: must be a number from 0 to %d", name, text, most)
	}
	return n, nil
}

// aliases makes r describe the types that read more than one form of JSON.
func aliases(r huma.Registry) huma.Registry {
	r.RegisterTypeAlias(reflect.TypeFor[decant.Bytes](), reflect.TypeFor[bytesForm]())
	r.RegisterTypeAlias(reflect.TypeFor[decant.Link](), reflect.TypeFor[linkForm]())
	return r
}

type (
	bytesForm struct{}
	linkForm  struct{}
)

// Schema implements huma.SchemaProvider.
func (bytesForm) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{
		OneOf:       []*huma.Schema{{Type: "integer", Format: "int64"}, {Type: "string", Examples: []any{"64MiB"}}},
		Description: "Bytes: a number, or a text with a unit",
	}
}

// Schema implements huma.SchemaProvider.
func (linkForm) Schema(huma.Registry) *huma.Schema {
	name := &huma.Schema{Type: "string"}
	return &huma.Schema{
		OneOf: []*huma.Schema{
			{Type: "string", Examples: []any{"ear -> detector"}},
			{
				Type: "object", AdditionalProperties: false, Required: []string{"from", "to"},
				Properties: map[string]*huma.Schema{"from": name, "to": name, "name": name},
			},
		},
		Description: "A pipe as text, or a named link as an object",
	}
}
