package main

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/nn"
	"github.com/decant-project/decant/internal/nn/onnxruntime"
)

// probeTimeout bounds the trial of a library.
const probeTimeout = 20 * time.Second

// inference describes the backend for models that works on this device, and how
// to open it; nothing where there is none.
func inference(ctx context.Context, library string, log *slog.Logger) ([]decant.Backend, func() (nn.Backend, error)) {
	if library == "" {
		var ok bool
		if library, ok = onnxruntime.Find(); !ok {
			log.Info("no inference: ONNX Runtime was not found")
			return nil, nil
		}
	}
	version, err := tryLibrary(ctx, library)
	if err != nil {
		log.Warn("no inference: ONNX Runtime does not load", "library", library, "error", err)
		return nil, nil
	}
	describe := []decant.Backend{{Name: onnxruntime.Name, Version: version, Formats: []string{"onnx"}}}
	return describe, func() (nn.Backend, error) { return onnxruntime.New(library) }
}

// tryLibrary loads a library in a child and returns its version.
func tryLibrary(ctx context.Context, library string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	var stdout, stderr bytes.Buffer
	child := exec.CommandContext(ctx, self, probeCommand, library)
	child.Stdout, child.Stderr = &stdout, &stderr
	if err := child.Run(); err != nil {
		reason, _, _ := strings.Cut(strings.TrimSpace(stderr.String()), "\n")
		return "", decant.Errorf(decant.Unsupported, "%w: %.300s", err, reason)
	}
	return strings.TrimSpace(stdout.String()), nil
}
