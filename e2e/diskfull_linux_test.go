package e2e_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/decant-project/decant"
)

// TestDiskFull fills the orchestrator's disk in the middle of a push: an error
// that says so, nothing half-done, and all goes on once there is room.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.must(os.MkdirAll(s.Home(), 0o700))
	if err := syscall.Mount("decant", s.Home(), "tmpfs", 0, "size=16m"); err != nil {
		t.Skipf("cannot make a small disk: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(s.Home(), syscall.MNT_DETACH) })
	p := s.startOrchestrator()

	file := filepath.Join(s.Dir, "large.onnx")
	s.must(os.WriteFile(file, bytes.Repeat([]byte("model"), 5<<20), 0o644))
	_, err := s.Decant(s.ctx, nil, "package", "push", file, "--as", "large@1.0.0")
	if err == nil || !strings.Contains(err.Error(), "the disk is full; make room and try again") {
		t.Errorf("the push ended with %v", err)
	}
	left, _ := filepath.Glob(filepath.Join(s.Home(), "blobs", "*", "*"))
	for _, path := range left {
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Size() > 1<<20 {
			t.Errorf("the push left %s behind", path)
		}
	}
	if p.Exited() {
		t.Fatal("the orchestrator is gone")
	}
	s.must(os.Truncate(file, 1<<20))
	s.decant(nil, "package", "push", file, "--as", "large@1.0.0")

	// The state itself: fill the disk to the last byte.
	ballast := filepath.Join(s.Home(), "ballast")
	f, err := os.Create(ballast)
	s.must(err)
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	_ = f.Close()
	var failed error
	for i := 0; failed == nil && i < 1000; i++ {
		_, failed = s.JoinCode(s.ctx)
	}
	if failed == nil || !strings.Contains(failed.Error(), "decant: ") {
		t.Errorf("with a full disk a join code ended with %v", failed)
	}
	if packages := query[[]decant.Package](s, "package", "ls"); len(packages) != 1 {
		t.Errorf("with a full disk the packages are %v", packages)
	}
	s.must(os.Remove(ballast))
	_, err = s.JoinCode(s.ctx)
	s.must(err)
	p.Kill()
	s.startOrchestrator()
	if packages := query[[]decant.Package](s, "package", "ls"); len(packages) != 1 || packages[0].Ref() != "large@1.0.0" {
		t.Errorf("after a restart the packages are %v", packages)
	}
}
