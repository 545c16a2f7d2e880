package onnxruntime_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/nn"
	"github.com/decant-project/decant/internal/nn/nntest"
	"github.com/decant-project/decant/internal/nn/onnxruntime"
)

func backend(t testing.TB) nn.Backend {
	t.Helper()
	path, ok := onnxruntime.Find()
	if !ok {
		path = filepath.Join("..", "..", "..", "bin", "libonnxruntime.so.1")
		_, err := os.Stat(path)
		ok = err == nil
	}
	if !ok {
		if os.Getenv("DECANT_REQUIRE_ORT") != "" {
			t.Fatal("there is no ONNX Runtime library: run `make fetch-ort`")
		}
		t.Skip("there is no ONNX Runtime library: run `make fetch-ort`")
	}
	b, err := onnxruntime.New(path)
	if errors.Is(err, decant.Unsupported) && os.Getenv("DECANT_REQUIRE_ORT") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

func TestConformance(t *testing.T) { nntest.Run(t, backend(t)) }

func TestNotALibrary(t *testing.T) {
	for _, path := range []string{"/does/not/exist.so", "/etc/passwd"} {
		if _, err := onnxruntime.New(path); !errors.Is(err, decant.Unsupported) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
