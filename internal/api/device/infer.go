package device

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/api"
	"github.com/decant-project/decant/internal/nn"
)

// inferDeadline bounds one inference.
const inferDeadline = 30 * time.Second

const octets = "application/octet-stream"

// tensorJSON is a tensor in a request or an answer. Data is a list of numbers
// or, as a string, the little-endian elements in base64.
type tensorJSON struct {
	Name  string          `json:"name"`
	Type  *nn.Type        `json:"type,omitempty"`
	Shape []int64         `json:"shape"`
	Data  json.RawMessage `json:"data"`
}

// Requests and answers in JSON.
type (
	inferRequest struct {
		Inputs []tensorJSON `json:"inputs"`
	}
	inferAnswer struct {
		Outputs []tensorJSON `json:"outputs"`
	}
)

// run infers what a request asks for, with body as its body.
func run(r *http.Request, model nn.Model, body []byte) (any, error) {
	ctx, cancel := context.WithTimeout(r.Context(), inferDeadline)
	defer cancel()
	inputs, err := readInputs(model.Inputs(), r, body)
	if err != nil {
		return nil, err
	}
	outputs, err := model.Run(ctx, inputs)
	if err != nil {
		return nil, err
	}
	if strings.Contains(r.Header.Get("Accept"), octets) {
		return raw(outputs[0].Data), nil
	}
	return answer(model.Outputs(), outputs)
}

// readInputs makes one tensor for each input of a model.
func readInputs(want []nn.Info, r *http.Request, body []byte) ([]nn.Tensor, error) {
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind == "application/json" {
		return readJSON(want, body)
	}
	if len(want) != 1 {
		return nil, decant.Errorf(decant.Invalid, "the model has %d inputs (%s): send them as application/json", len(want), names(want))
	}
	shape, err := parseShape(r.URL.Query().Get("shape"))
	if err != nil {
		return nil, err
	}
	t, err := newTensor(want[0], shape, body)
	return []nn.Tensor{t}, err
}

func readJSON(want []nn.Info, data []byte) ([]nn.Tensor, error) {
	var req inferRequest
	if err := api.DecodeStrict(data, &req); err != nil {
		return nil, err
	}
	tensors := make([]nn.Tensor, len(want))
	for i, info := range want {
		at := slices.IndexFunc(req.Inputs, func(t tensorJSON) bool { return t.Name == info.Name })
		if at < 0 || len(req.Inputs) != len(want) {
			return nil, decant.Errorf(decant.Invalid, "the model's inputs are %s: send each of them, and no others", names(want))
		}
		given := req.Inputs[at]
		if given.Type != nil && *given.Type != info.Type {
			return nil, decant.Errorf(decant.Invalid, "input %s is %s, not of type %s", info.Name, info, *given.Type)
		}
		elements, err := readElements(info.Type, given.Data)
		if err == nil {
			tensors[i], err = newTensor(info, given.Shape, elements)
		}
		if err != nil {
			return nil, decant.Errorf(decant.Invalid, "input %s: %w", info.Name, err)
		}
	}
	return tensors, nil
}

// readElements turns the data of a tensor in JSON into its elements' bytes.
func readElements(t nn.Type, data json.RawMessage) ([]byte, error) {
	var text *string // nil for null too
	if json.Unmarshal(data, &text) == nil && text != nil {
		b, err := base64.StdEncoding.DecodeString(*text)
		if err != nil {
			return nil, decant.Errorf(decant.Invalid, "data is not base64")
		}
		return b, nil
	}
	var values []json.Number
	if err := json.Unmarshal(data, &values); err != nil || values == nil {
		return nil, decant.Errorf(decant.Invalid, "data must be a list of numbers, or base64 in a string")
	}
	out := make([]byte, 0, len(values)*t.Size())
	for _, v := range values {
		var err error
		if out, err = appendElement(out, t, v.String()); errors.Is(err, decant.Unsupported) {
			return nil, err
		} else if err != nil {
			return nil, decant.Errorf(decant.Invalid, "%s is not a number of type %s", v, t)
		}
	}
	return out, nil
}

func appendElement(out []byte, t nn.Type, s string) ([]byte, error) {
	le := binary.LittleEndian
	switch t {
	case nn.F32:
		f, err := strconv.ParseFloat(s, 32)
		return le.AppendUint32(out, math.Float32bits(float32(f))), err
	case nn.F64:
		f, err := strconv.ParseFloat(s, 64)
		return le.AppendUint64(out, math.Float64bits(f)), err
	case nn.I64:
		n, err := strconv.ParseInt(s, 10, 64)
		return le.AppendUint64(out, uint64(n)), err
	case nn.I32:
		n, err := strconv.ParseInt(s, 10, 32)
		return le.AppendUint32(out, uint32(n)), err
	case nn.I8:
		n, err := strconv.ParseInt(s, 10, 8)
		return append(out, byte(n)), err
	case nn.U8:
		n, err := strconv.ParseUint(s, 10, 8)
		return append(out, byte(n)), err
	case nn.Bool:
		n, err := strconv.ParseUint(s, 10, 1)
		return append(out, byte(n)), err
	}
	return nil, decant.Errorf(decant.Unsupported, "type %s has no numbers in JSON: send base64", t)
}

// newTensor gives elements the shape asked for or, where none is, the model's;
// one open dimension follows from the number of elements.
func newTensor(info nn.Info, shape []int64, elements []byte) (nn.Tensor, error) {
	if shape == nil {
		shape = slices.Clone(info.Shape)
	}
	t := nn.Tensor{Type: info.Type, Shape: shape, Data: elements}
	if open := slices.Index(shape, -1); open >= 0 {
		shape[open] = 1
		one := nn.Elements(shape) * int64(info.Type.Size())
		if one <= 0 {
			return nn.Tensor{}, decant.Errorf(decant.Invalid, "the shape of %s (%s) leaves several dimensions open: give the shape", info.Name, info)
		}
		shape[open] = int64(len(elements)) / one
	}
	if err := info.Accepts(t); err != nil {
		return nn.Tensor{}, err
	}
	return t, nil
}

func parseShape(s string) ([]int64, error) {
	if s == "" {
		return nil, nil
	}
	var shape []int64
	for part := range strings.SplitSeq(s, ",") {
		d, err := strconv.ParseInt(strings.TrimSpace(part), 10, 64)
		if err != nil {
			return nil, decant.Errorf(decant.Invalid, "shape %q: write it as 1,3,224,224", s)
		}
		shape = append(shape, d)
	}
	return shape, nil
}

func answer(infos []nn.Info, tensors []nn.Tensor) (inferAnswer, error) {
	var out inferAnswer
	for i, t := range tensors {
		data, err := writeElements(t)
		if err != nil {
			return out, err
		}
		shape := t.Shape
		if shape == nil {
			shape = []int64{}
		}
		out.Outputs = append(out.Outputs, tensorJSON{infos[i].Name, &t.Type, shape, data})
	}
	return out, nil
}

// writeElements returns a list of numbers, with null for those that JSON does
// not have (NaN and the infinities), or base64 for types without numbers.
func writeElements(t nn.Tensor) (json.RawMessage, error) {
	size := t.Type.Size()
	if t.Type == nn.F16 || size == 0 {
		return json.Marshal(base64.StdEncoding.EncodeToString(t.Data))
	}
	out := []byte{'['}
	for at := 0; at+size <= len(t.Data); at += size {
		if at > 0 {
			out = append(out, ',')
		}
		out = appendNumber(out, t.Type, t.Data[at:at+size])
	}
	return append(out, ']'), nil
}

func appendNumber(out []byte, t nn.Type, b []byte) []byte {
	le := binary.LittleEndian
	switch t {
	case nn.F32:
		return appendFloat(out, float64(math.Float32frombits(le.Uint32(b))), 32)
	case nn.F64:
		return appendFloat(out, math.Float64frombits(le.Uint64(b)), 64)
	case nn.I64:
		return strconv.AppendInt(out, int64(le.Uint64(b)), 10)
	case nn.I32:
		return strconv.AppendInt(out, int64(int32(le.Uint32(b))), 10)
	case nn.I8:
		return strconv.AppendInt(out, int64(int8(b[0])), 10)
	}
	return strconv.AppendUint(out, uint64(b[0]), 10)
}

func appendFloat(out []byte, f float64, bits int) []byte {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return append(out, "null"...)
	}
	return strconv.AppendFloat(out, f, 'g', -1, bits)
}

func names(infos []nn.Info) string {
	var all []string
	for _, i := range infos {
		all = append(all, i.Name)
	}
	return strings.Join(all, ", ")
}
