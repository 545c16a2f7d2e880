//go:build !(linux && (amd64 || arm64))

package onnxruntime

import (
	"runtime"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/nn"
)

func errNone() error {
	return decant.Errorf(decant.Unsupported, "this build has no ONNX Runtime: there is none for %s/%s", runtime.GOOS, runtime.GOARCH)
}

// Version returns an Unsupported error.
func Version(string) (string, error) { return "", errNone() }

// New returns an Unsupported error.
func New(string) (nn.Backend, error) { return nil, errNone() }
