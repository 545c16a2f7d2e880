package onnx_test

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/nn/nntest"
	"github.com/decant-project/decant/internal/nn/onnx"
)

// in wraps content into fields, the innermost last.
func in(content []byte, fields ...int) []byte {
	for i := len(fields) - 1; i >= 0; i-- {
		b := binary.AppendUvarint(nil, uint64(fields[i])<<3|2)
		b = binary.AppendUvarint(b, uint64(len(content)))
		content = append(b, content...)
	}
	return content
}

func TestExternalData(t *testing.T) {
	elsewhere := []byte{14 << 3, 1}       // data_location: EXTERNAL
	path := in([]byte("/etc/shadow"), 13) // external_data
	here := []byte{14 << 3, 0}            // data_location: DEFAULT
	for name, fields := range map[string][]int{
		"an initializer":                 {7, 5},
		"values of a sparse one":         {7, 15, 1},
		"indices of a sparse one":        {7, 15, 2},
		"an attribute":                   {7, 1, 5, 5},
		"attributes":                     {7, 1, 5, 10},
		"a sparse attribute":             {7, 1, 5, 22, 1},
		"sparse attributes":              {7, 1, 5, 23, 1},
		"a graph in an attribute":        {7, 1, 5, 6, 5},
		"graphs in an attribute":         {7, 1, 5, 11, 5},
		"a function's node":              {25, 7, 5, 5},
		"a function's default attribute": {25, 11, 5},
		"a training graph":               {20, 1, 5},
		"a training algorithm":           {20, 2, 5},
	} {
		for _, tensor := range [][]byte{elsewhere, path, in(nil, 14)} {
			err := onnx.Check(append(in(here, 7, 5), in(tensor, fields...)...))
			if !errors.Is(err, decant.Invalid) || !strings.Contains(err.Error(), "in other files") {
				t.Errorf("%s: got %v", name, err)
			}
		}
		if err := onnx.Check(in(here, fields...)); err != nil {
			t.Errorf("%s, in the file: got %v", name, err)
		}
	}
}

func TestDamaged(t *testing.T) {
	var deep []byte
	for range 40 {
		deep = in(deep, 1, 5, 6) // a graph in an attribute of a node
	}
	for name, file := range map[string][]byte{
		"ONNX Runtime's own format": []byte("\x20\x00\x00\x00ORTM\x00\x00"),
		"text":                      []byte("no model"),
		"cut short":                 in(make([]byte, 10), 7)[:5],
		"a field of 2^35":           {0xf8, 0xff, 0xff, 0xff, 0xff, 0x0f, 0},
		"a group":                   {7<<3 | 3, 7<<3 | 4},
		"deep":                      in(deep, 7),
	} {
		if err := onnx.Check(file); !errors.Is(err, decant.Invalid) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// TestRealModels: models that people have pass.
func TestRealModels(t *testing.T) {
	small := nntest.Model{Inputs: []nntest.Value{{Name: "x", Shape: []int64{1}}}, Outputs: []nntest.Value{{Name: "y", Shape: []int64{1}}}, Nodes: []nntest.Node{{Op: "Relu", Inputs: []string{"x"}, Outputs: []string{"y"}}}}
	if err := onnx.Check(small.Bytes()); err != nil {
		t.Error(err)
	}
	files, _ := filepath.Glob("../../../examples/*/models/*/*.onnx")
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := onnx.Check(data); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// FuzzCheck: no file makes it panic or hang.
func FuzzCheck(f *testing.F) {
	f.Add(in([]byte{14 << 3, 1}, 7, 5))
	f.Add(in(nil, 7, 1, 5, 6, 5, 13))
	f.Fuzz(func(_ *testing.T, file []byte) { _ = onnx.Check(file) })
}
