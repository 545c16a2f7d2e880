// Package onnxruntime runs models through the native ONNX Runtime library,
// called without cgo, so that one build of the supervisor serves devices with
// the library and without.
package onnxruntime

import (
	"os"
	"path/filepath"
)

// Name is the backend's name.
const Name = "onnxruntime"

const libraryName = "libonnxruntime.so.1"

// Find returns where the library is: what DECANT_ONNXRUNTIME names, else beside
// the program or in lib/ beside it, else in the system's usual folders.
func Find() (path string, ok bool) {
	if p := os.Getenv("DECANT_ONNXRUNTIME"); p != "" {
		return p, true
	}
	var dirs []string
	if self, err := os.Executable(); err == nil {
		dir := filepath.Dir(self)
		dirs = append(dirs, dir, filepath.Join(dir, "lib"), filepath.Join(dir, "..", "lib"))
	}
	dirs = append(dirs, "/usr/local/lib", "/usr/lib", "/usr/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu")
	for _, dir := range dirs {
		p := filepath.Join(dir, libraryName)
		if info, err := os.Stat(p); err == nil && info.Mode().IsRegular() {
			return p, true
		}
	}
	return "", false
}
