package durable_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/decant-project/decant/internal/durable"
)

func TestWriteFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "file")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".tmp", []byte("of a crash, and longer"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"first", "", "second"} {
		if err := durable.WriteFile(path, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); string(got) != text || err != nil {
			t.Errorf("got %q, %v; want %q", got, err, text)
		}
	}
	entries, _ := os.ReadDir(filepath.Dir(path))
	info, err := os.Stat(path)
	if len(entries) != 1 || err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("left %v, mode %v", entries, info.Mode())
	}
	if err := durable.WriteFile(filepath.Dir(path), nil); err == nil {
		t.Error("a folder was replaced")
	}
}
