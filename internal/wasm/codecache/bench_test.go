package codecache

import (
	"os"
	"path/filepath"
	"testing"
)

// BenchmarkCompile compiles a Go guest: cold in a child, then as the first of a
// process that finds its code, and as a later one. What verifying costs of the
// first, and starting a child of cold, is told apart.
func BenchmarkCompile(b *testing.B) {
	binary, err := os.ReadFile("../../../examples/counter/counter.wasm")
	if err != nil {
		b.Fatal(err)
	}
	large := func(c *Config) { c.Limits = DefaultLimits }
	w := open(b, large)
	key := digestOf(binary)
	compile := func(b *testing.B, before func()) {
		for b.Loop() {
			before()
			if err := w.compile(b.Context(), binary); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("cold", func(b *testing.B) { compile(b, func() { w.drop(key) }) })
	b.Run("first", func(b *testing.B) { compile(b, func() { delete(w.verified, key) }) })
	b.Run("later", func(b *testing.B) { compile(b, func() {}) })
	b.Run("verify", func(b *testing.B) {
		r, err := readRecord(w.config.recordPath(key))
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(r.Code.Size)
		for b.Loop() {
			if err := r.Code.verify(w.config.Dir); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("child", func(b *testing.B) {
		for b.Loop() {
			w.drop(digestOf(module(1)))
			if err := w.compile(b.Context(), module(1)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("here", func(b *testing.B) { // as it would be without a child
		r, err := readRecord(w.config.recordPath(key))
		if err != nil {
			b.Fatal(err)
		}
		made := filepath.Join(w.config.Dir, r.Code.Path)
		_ = os.RemoveAll(made)
		for b.Loop() {
			m, err := w.runtime.CompileModule(b.Context(), binary)
			if err != nil {
				b.Fatal(err)
			}
			_ = m.Close(b.Context())
			_ = os.RemoveAll(made)
		}
	})
}
