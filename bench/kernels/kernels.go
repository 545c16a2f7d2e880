// Package kernels measures what it costs that guests are metered: fourteen
// kernels in C, each without and with SIMD, and one in Go, as wazero runs them,
// as it runs them when it has to look for a deadline at each turn of a loop, and
// as binary.Prepare rewrites them. The three run in turns within one process, and
// what counts are the ratios of their fastest rounds.
package kernels

import (
	"context"
	"embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Kernel is a module that exports run(n i32) i32: it does the same work n times,
// and returns a checksum.
type Kernel struct {
	Name   string // SIMD's end with ".simd"
	Module []byte
}

//go:embed guests/*.wasm
var guests embed.FS

// C returns the kernels in C, by name.
func C() ([]Kernel, error) {
	files, err := guests.ReadDir("guests")
	if err != nil {
		return nil, err
	}
	var all []Kernel
	for _, f := range files {
		k, err := Named(strings.TrimSuffix(f.Name(), ".wasm"))
		if err != nil {
			return nil, err
		}
		all = append(all, k)
	}
	slices.SortFunc(all, func(a, b Kernel) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// Named returns a kernel in C.
func Named(name string) (Kernel, error) {
	module, err := guests.ReadFile("guests/" + name + ".wasm")
	return Kernel{name, module}, err
}

// Go builds the kernel in Go: it is too large to be kept. It also exports
// keep(n i32) i32, which keeps n MiB more in memory.
func Go(ctx context.Context) (Kernel, error) {
	module, err := Build(ctx, "github.com/decant-project/decant/bench/kernels/guests/gojson")
	return Kernel{"gojson", module}, err
}

// Build builds a reactor from a package in Go.
func Build(ctx context.Context, importPath string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "decant-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "guest.wasm")
	build := exec.CommandContext(ctx, "go", "build", "-buildmode=c-shared", "-ldflags=-s -w", "-o", file, importPath)
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("cannot build %s: %w: %s", importPath, err, text)
	}
	return os.ReadFile(file)
}
