package device

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/api"
	"github.com/decant-project/decant/internal/nn"
	"github.com/decant-project/decant/internal/problem"
	"github.com/decant-project/decant/internal/transport"
	"github.com/decant-project/decant/internal/transport/transporttest"
)

const asJSON = "application/json"

// inferred is an answer as a client reads it.
type inferred struct {
	Outputs []struct {
		Name  string
		Type  string
		Shape []int64
		Data  json.RawMessage
	}
}

// bits makes the little-endian bytes of numbers.
func bits(values any) []byte {
	var b bytes.Buffer
	if err := binary.Write(&b, binary.LittleEndian, values); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func inText(b []byte) string { return toJSON(base64.StdEncoding.EncodeToString(b)) }

var (
	nan, inf = math.NaN(), math.Inf(1)
	nan32    = float32(math.NaN())
)

// TestTypesInJSON sends each type through a model that returns what it gets,
// as numbers and in base64.
func TestTypesInJSON(t *testing.T) {
	tests := []struct {
		name string
		typ  nn.Type
		data []byte
		send []string // JSON that means data
		want string   // JSON that data leaves as
	}{
		{"f32", nn.F32, bits([]float32{0, -1.5, 3e38, 0.1}), []string{`[0,-1.5,3e38,0.1]`, `[0.0, -15e-1, 3E+38, 0.1]`}, `[0,-1.5,3e+38,0.1]`},
		{"f32, the smallest", nn.F32, bits([]float32{math.SmallestNonzeroFloat32, float32(math.Copysign(0, -1))}), []string{`[1e-45,-0]`}, `[1e-45,-0]`},
		{"f32, no numbers", nn.F32, bits([]float32{nan32, float32(inf), float32(-inf), 1}), nil, `[null,null,null,1]`},
		{"f64", nn.F64, bits([]float64{0.1, 1e308, -2}), []string{`[0.1,1e308,-2]`}, `[0.1,1e+308,-2]`},
		{"f64, no numbers", nn.F64, bits([]float64{nan, inf, -inf}), nil, `[null,null,null]`},
		{"i64", nn.I64, bits([]int64{math.MinInt64, math.MaxInt64, 0, 1<<53 + 1}), []string{`[-9223372036854775808,9223372036854775807,0,9007199254740993]`}, `[-9223372036854775808,9223372036854775807,0,9007199254740993]`},
		{"i32", nn.I32, bits([]int32{math.MinInt32, math.MaxInt32}), []string{`[-2147483648,2147483647]`}, `[-2147483648,2147483647]`},
		{"i8", nn.I8, bits([]int8{-128, 127}), []string{`[-128,127]`}, `[-128,127]`},
		{"u8", nn.U8, bits([]uint8{0, 255}), []string{`[0,255]`}, `[0,255]`},
		{"bool", nn.Bool, bits([]bool{true, false}), []string{`[1,0]`}, `[1,0]`},
		{"f16", nn.F16, []byte{0, 0x3c, 0, 0xbc}, nil, `"ADwAvA=="`},
		{"nothing", nn.F32, []byte{}, []string{`[]`, ` [ ] `}, `[]`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, data := range append(tt.send, inText(tt.data)) {
				f := &fakeDevice{model: &fakeModel{inputs: []nn.Info{{Name: "x", Type: tt.typ, Shape: []int64{-1}}}}}
				resp := f.ask("POST", "/v1/models/m/infer", asJSON+"; charset=utf-8", []byte(`{"inputs":[{"name":"x","data":`+data+`}]}`))
				text := bodyOf(t, resp)
				var got inferred
				if err := json.Unmarshal([]byte(text), &got); err != nil || len(got.Outputs) != 1 {
					t.Fatalf("%s: %d %s", data, resp.StatusCode, text)
				}
				if !bytes.Equal(f.model.got[0].Data, tt.data) || f.model.got[0].Type != tt.typ {
					t.Errorf("%s: the model got %+v", data, f.model.got)
				}
				out := got.Outputs[0]
				if out.Name != "x" || out.Type != tt.typ.String() || string(out.Data) != tt.want || !slices.Equal(out.Shape, []int64{int64(len(tt.data) / tt.typ.Size())}) {
					t.Errorf("%s: got %s", data, text)
				}
				if f.model.open != 0 {
					t.Error("the model was not closed")
				}
			}
		})
	}
}

func TestRefusedInputs(t *testing.T) {
	one := func(typ nn.Type, shape ...int64) []nn.Info { return []nn.Info{{Name: "x", Type: typ, Shape: shape}} }
	two := []nn.Info{{Name: "x", Type: nn.F32, Shape: []int64{1}}, {Name: "y", Type: nn.I64}}
	x := func(data string) string { return `{"inputs":[{"name":"x","data":` + data + `}]}` }
	tests := []struct {
		name   string
		inputs []nn.Info
		body   string
		text   string // in the message
	}{
		{"no JSON", one(nn.F32, 1), `inputs`, "cannot read the request"},
		{"nothing", one(nn.F32, 1), ``, "cannot read the request"},
		{"an unknown member", one(nn.F32, 1), `{"inputs":[{"name":"x","values":[1]}]}`, `"values"`},
		{"no inputs", one(nn.F32, 1), `{}`, "inputs are x"},
		{"another input", one(nn.F32, 1), `{"inputs":[{"name":"z","data":[1]}]}`, "inputs are x"},
		{"the same input twice", one(nn.F32, 1), `{"inputs":[{"name":"x","data":[1]},{"name":"x","data":[2]}]}`, "inputs are x"},
		{"one of two", two, x(`[1]`), "inputs are x, y"},
		{"one too many", two, `{"inputs":[{"name":"x","data":[1]},{"name":"y","data":[1]},{"name":"z","data":[1]}]}`, "inputs are x, y"},
		{"no data", one(nn.F32, 1), `{"inputs":[{"name":"x"}]}`, "list of numbers"},
		{"null for data", one(nn.F32, -1), x(`null`), "list of numbers"},
		{"an object", one(nn.F32, 1), x(`{}`), "list of numbers"},
		{"a number", one(nn.F32, 1), x(`1`), "list of numbers"},
		{"lists of lists", one(nn.F32, 1, 1), x(`[[1]]`), "list of numbers"},
		{"true", one(nn.Bool, 1), x(`[true]`), "list of numbers"},
		{"null", one(nn.F32, 1), x(`[null]`), "not a number of type f32"},
		{"no base64", one(nn.F32, 1), x(`"?"`), "base64"},
		{"base64 without its end", one(nn.U8, 1), x(`"AA"`), "base64"},
		{"too large for f32", one(nn.F32, 1), x(`[1e39]`), "1e39 is not a number of type f32"},
		{"too large for f64", one(nn.F64, 1), x(`[1e309]`), "not a number of type f64"},
		{"too large for i64", one(nn.I64, 1), x(`[9223372036854775808]`), "not a number of type i64"},
		{"a fraction for i64", one(nn.I64, 1), x(`[1.5]`), "not a number of type i64"},
		{"too large for i32", one(nn.I32, 1), x(`[2147483648]`), "not a number of type i32"},
		{"too large for i8", one(nn.I8, 1), x(`[128]`), "not a number of type i8"},
		{"negative for u8", one(nn.U8, 1), x(`[-1]`), "not a number of type u8"},
		{"two for bool", one(nn.Bool, 1), x(`[2]`), "not a number of type bool"},
		{"numbers for f16", one(nn.F16, 1), x(`[1]`), "send base64"},
		{"another type", one(nn.I64, 1), `{"inputs":[{"name":"x","type":"f64","data":"AAAAAAAA8D8="}]}`, "not of type f64"},
		{"a type that is none", one(nn.F32, 1), `{"inputs":[{"name":"x","type":"f31","data":[1]}]}`, "f31"},
		{"too few elements", one(nn.F32, 2), x(`[1]`), "bytes"},
		{"too many elements", one(nn.F32, 1), x(`[1,2]`), "bytes"},
		{"half an element", one(nn.F32, -1), x(`"AAAAAAA="`), "bytes"},
		{"another shape", one(nn.F32, 2, 1), `{"inputs":[{"name":"x","shape":[1,2],"data":[1,2]}]}`, "input x is f32 [2,1], not f32 [1,2]"},
		{"another rank", one(nn.F32, 2), `{"inputs":[{"name":"x","shape":[2,1],"data":[1,2]}]}`, "not f32 [2,1]"},
		{"a scalar for one", one(nn.F32, 1), `{"inputs":[{"name":"x","shape":[],"data":[1]}]}`, "not f32 []"},
		{"a negative dimension", one(nn.F32, -1), `{"inputs":[{"name":"x","shape":[-2],"data":[1]}]}`, "no machine"},
		{"too large a shape", one(nn.F32, -1, -1, -1), `{"inputs":[{"name":"x","shape":[4611686018427387904,4,-1],"data":[1]}]}`, "shape"},
		{"two open dimensions", one(nn.F32, -1, -1), x(`[1,2]`), "several dimensions open"},
		{"two open dimensions asked for", one(nn.F32, -1, -1), `{"inputs":[{"name":"x","shape":[-1,-1],"data":[1,2]}]}`, "several dimensions open"},
		{"not a whole number of rows", one(nn.F32, -1, 2), x(`[1,2,3]`), "bytes"},
		{"a fraction as dimension", one(nn.F32, -1), `{"inputs":[{"name":"x","shape":[1.5],"data":[1]}]}`, "cannot read"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := &fakeDevice{model: &fakeModel{inputs: tt.inputs}}
			err := problem.Read(f.ask("POST", "/v1/models/m/infer", asJSON, []byte(tt.body)))
			if !errors.Is(err, decant.Invalid) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v (%s), want %q", err, decant.CodeOf(err), tt.text)
			}
			if f.model.got != nil {
				t.Errorf("the model got %+v", f.model.got)
			}
			if f.model.open != 0 {
				t.Error("the model was not closed")
			}
		})
	}
}

// TestInputsByName: the order in a request is no matter, and each shape may be
// left out, given, or given with one open dimension.
func TestInputsByName(t *testing.T) {
	infos := []nn.Info{{Name: "b", Type: nn.F32, Shape: []int64{-1, 2}}, {Name: "a", Type: nn.I64}, {Name: "c", Type: nn.U8, Shape: []int64{1, 3}}}
	f := &fakeDevice{model: &fakeModel{inputs: infos}}
	resp := f.ask("POST", "/v1/models/m/infer", asJSON, []byte(
		`{"inputs":[{"name":"a","shape":[],"data":[7]},{"name":"c","type":"u8","data":[1,2,3]},{"name":"b","shape":[-1,2],"data":[1,2,3,4]}]}`))
	if err := problem.Read(resp); err != nil {
		t.Fatal(err)
	}
	want := []nn.Tensor{
		{Type: nn.F32, Shape: []int64{2, 2}, Data: bits([]float32{1, 2, 3, 4})},
		{Type: nn.I64, Shape: []int64{}, Data: bits([]int64{7})},
		{Type: nn.U8, Shape: []int64{1, 3}, Data: []byte{1, 2, 3}},
	}
	if !reflect.DeepEqual(f.model.got, want) {
		t.Errorf("the model got %+v", f.model.got)
	}
	if infos[0].Shape[0] != -1 {
		t.Error("the model's own shape was changed")
	}
	const answer = `{"outputs":[{"name":"b","type":"f32","shape":[2,2],"data":[1,2,3,4]},{"name":"a","type":"i64","shape":[],"data":[7]},{"name":"c","type":"u8","shape":[1,3],"data":[1,2,3]}]}`
	if got := strings.TrimSpace(bodyOf(t, resp)); got != answer {
		t.Errorf("got %s", got)
	}
}

func TestRawInput(t *testing.T) {
	pair := []nn.Info{{Name: "x", Type: nn.U8, Shape: []int64{-1, 2}}}
	tests := []struct {
		name, query, contentType string
		inputs                   []nn.Info
		body                     []byte
		shape                    []int64 // nil: it is refused
	}{
		{"the model's shape", "", octets, []nn.Info{{Name: "x", Type: nn.U8, Shape: []int64{2, 2}}}, []byte{1, 2, 3, 4}, []int64{2, 2}},
		{"an open dimension", "", octets, pair, []byte{1, 2, 3, 4}, []int64{2, 2}},
		{"a photograph", "", "image/jpeg", pair, []byte{1, 2}, []int64{1, 2}},
		{"no content type", "", "", pair, []byte{1, 2}, []int64{1, 2}},
		{"a content type that is none", "", ";;", pair, []byte{1, 2}, []int64{1, 2}},
		{"nothing", "", octets, pair, []byte{}, []int64{0, 2}},
		{"a shape", "?shape=1,%202", octets, pair, []byte{1, 2}, []int64{1, 2}},
		{"an open shape", "?shape=-1,2", octets, pair, []byte{1, 2}, []int64{1, 2}},
		{"a shape that does not fit", "?shape=2,1", octets, pair, []byte{1, 2}, nil},
		{"a shape that is none", "?shape=1,,2", octets, pair, []byte{1, 2}, nil},
		{"a shape of words", "?shape=one", octets, pair, []byte{1, 2}, nil},
		{"too large a shape", "?shape=99999999999999999999", octets, pair, []byte{1, 2}, nil},
		{"half a row", "", octets, pair, []byte{1, 2, 3}, nil},
		{"two inputs", "", octets, append(pair, nn.Info{Name: "y", Type: nn.U8}), []byte{1, 2}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := &fakeDevice{model: &fakeModel{inputs: tt.inputs}}
			resp := f.ask("POST", "/v1/models/m/infer"+tt.query, tt.contentType, tt.body)
			err := problem.Read(resp)
			if tt.shape == nil {
				if !errors.Is(err, decant.Invalid) || f.model.got != nil {
					t.Errorf("got %v, the model %v", err, f.model.got)
				}
				return
			}
			if err != nil || len(f.model.got) != 1 || !slices.Equal(f.model.got[0].Shape, tt.shape) || !bytes.Equal(f.model.got[0].Data, tt.body) {
				t.Errorf("got %v, the model %v", err, f.model.got)
			}
		})
	}
}

// TestRawAnswer: who accepts bytes gets those of the first output.
func TestRawAnswer(t *testing.T) {
	f := &fakeDevice{model: &fakeModel{inputs: []nn.Info{{Name: "x", Type: nn.F32, Shape: []int64{-1}}}}}
	data := bits([]float32{1, nan32})
	r := as("orchestrator", httptest.NewRequest("POST", "/v1/models/m/infer", bytes.NewReader(data)))
	r.Header.Set("Accept", octets)
	rec := httptest.NewRecorder()
	f.handler().ServeHTTP(rec, r)
	if rec.Code != 200 || rec.Header().Get("Content-Type") != octets || !bytes.Equal(rec.Body.Bytes(), data) {
		t.Errorf("status %d, %s %q", rec.Code, rec.Header(), rec.Body)
	}
}

func TestInferErrors(t *testing.T) {
	inputs := []nn.Info{{Name: "x", Type: nn.U8, Shape: []int64{-1}}}
	f := &fakeDevice{model: &fakeModel{inputs: inputs, run: func(context.Context) error { return decant.Errorf(decant.Unsupported, "no") }}}
	if err := problem.Read(f.ask("POST", "/v1/models/m/infer", octets, []byte{1})); !errors.Is(err, decant.Unsupported) || f.model.open != 0 {
		t.Errorf("the model fails: %v; open %d times", err, f.model.open)
	}
	f = &fakeDevice{err: decant.Errorf(decant.NotFound, "no model")}
	if err := problem.Read(f.ask("POST", "/v1/models/m/infer", octets, []byte{1})); !errors.Is(err, decant.NotFound) {
		t.Errorf("no model: %v", err)
	}
}

// zeros is a body without end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func TestInferBounds(t *testing.T) {
	f := &fakeDevice{model: &fakeModel{inputs: []nn.Info{{Name: "x", Type: nn.U8, Shape: []int64{-1}}}}}
	r := as("orchestrator", httptest.NewRequest("POST", "/v1/models/m/infer", io.LimitReader(zeros{}, transport.MaxBody+1)))
	rec := httptest.NewRecorder()
	f.handler().ServeHTTP(rec, r)
	if err := problem.Read(rec.Result()); !errors.Is(err, decant.Exhausted) || !strings.Contains(err.Error(), "64MiB") {
		t.Errorf("got %v", err)
	}
	if asked := f.noted(); asked != "" {
		t.Errorf("asked for %s", asked)
	}
}

// TestSlowInference, in a time of its own: a body may take most of its minute
// to arrive and the model half a minute more, though not longer.
func TestSlowInference(t *testing.T) {
	for run, want := range map[time.Duration]decant.Code{inferDeadline - time.Second: "", inferDeadline + time.Second: decant.Deadline} {
		synctest.Test(t, func(t *testing.T) {
			f := &fakeDevice{model: &fakeModel{inputs: []nn.Info{{Name: "x", Type: nn.U8, Shape: []int64{-1}}}}}
			f.model.run = func(ctx context.Context) error {
				select {
				case <-time.After(run):
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			resp := roundTrip(t, f.handler(), func(w io.Writer) {
				_, _ = io.WriteString(w, "POST /v1/models/m/infer HTTP/1.1\r\nHost: d\r\nContent-Length: 2\r\n\r\nx")
				time.Sleep(api.BodyTimeout - 2*time.Second)
				_, _ = io.WriteString(w, "y")
			})
			if got := decant.CodeOf(problem.Read(resp)); got != want {
				t.Errorf("a run of %s: %q", run, got)
			}
		})
	}
}

// TestBodyThatNeverEnds: a request that stops arriving is given up.
func TestBodyThatNeverEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeDevice{}
		began := time.Now()
		resp := roundTrip(t, f.handler(), func(w io.Writer) {
			_, _ = io.WriteString(w, "POST /v1/join-code HTTP/1.1\r\nHost: d\r\nContent-Length: 9\r\n\r\n{")
		})
		if err := problem.Read(resp); !errors.Is(err, decant.Unavailable) || time.Since(began) != api.BodyTimeout {
			t.Errorf("%v after %s", err, time.Since(began))
		}
	})
}

// roundTrip serves one request of an orchestrator over a pipe, and reads the
// answer whole.
func roundTrip(t *testing.T, h http.Handler, send func(io.Writer)) *http.Response {
	t.Helper()
	l := transporttest.NewPipes()
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(w, as("orchestrator", r)) })}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = srv.Serve(l)
	}()
	near := l.Dial()
	go send(near)
	resp := readResponse(t, near)
	_ = srv.Close()
	_ = near.Close()
	<-served
	return resp
}

func readResponse(t *testing.T, c net.Conn) *http.Response {
	t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp
}

// FuzzReadJSON: whatever is sent, a model gets only tensors that fit it.
func FuzzReadJSON(f *testing.F) {
	for _, seed := range []string{
		`{"inputs":[{"name":"x","shape":[1,-1],"data":[1,2.5e0]}]}`, `{"inputs":[{"name":"x","data":"AAAAAAAA"},{"name":"y","data":[1]}]}`,
		`{"inputs":[{"name":"x","type":"f32","shape":[],"data":[1e39]},{"name":"y","shape":[9223372036854775807,-1],"data":[]}]}`,
		`{"inputs":[{"name":"x","data":null},{"name":"y","shape":null,"data":[0]}]}`,
	} {
		f.Add(uint8(nn.F32), uint8(nn.I64), int64(-1), []byte(seed))
	}
	f.Fuzz(func(t *testing.T, x, y uint8, dim int64, in []byte) {
		want := []nn.Info{{Name: "x", Type: nn.Type(x), Shape: []int64{1, dim}}, {Name: "y", Type: nn.Type(y), Shape: []int64{-1}}}
		tensors, err := readJSON(want, in)
		if err != nil {
			if !errors.Is(err, decant.Invalid) {
				t.Fatalf("%v is not Invalid", err)
			}
			return
		}
		if err := nn.CheckInputs(want, tensors); err != nil {
			t.Fatal(err)
		}
		out, err := answer(want, tensors)
		if err != nil {
			t.Fatal(err)
		}
		data, err := json.Marshal(out)
		if err != nil {
			t.Fatal(err)
		}
		// What leaves can be sent again, but for numbers that JSON does not have.
		if !bytes.Contains(data, []byte("null")) {
			again, err := readJSON(want, bytes.Replace(data, []byte("outputs"), []byte("inputs"), 1))
			if err != nil || len(again) != 2 || !bytes.Equal(again[0].Data, tensors[0].Data) || !bytes.Equal(again[1].Data, tensors[1].Data) {
				t.Fatalf("%s came back as %v, %v", data, again, err)
			}
		}
	})
}
