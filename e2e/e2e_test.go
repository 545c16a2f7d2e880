// Package e2e_test runs sites of real processes, from bin/, and does to them
// what happens to machines: they are killed, cut off, filled up, lied to.
package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/e2e/fleet"
)

// site is a fleet with the test it is of.
type site struct {
	*fleet.Fleet
	t   *testing.T
	ctx context.Context
}

// patience bounds a whole test.
const patience = 2 * time.Minute

// newSite makes a site in a folder of its own, with a short path: sockets are
// in it. What is still running at the end of the test is stopped.
func newSite(t *testing.T) *site {
	t.Helper()
	if _, err := os.Stat("../bin/decant-supervisor"); err != nil {
		missing(t, "the programs: run `make build`")
	}
	dir, err := os.MkdirTemp("", "decant-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	f, err := fleet.New(dir, "../bin")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(func() {
		cancel()
		if err := f.StopAll(); err != nil && !t.Failed() {
			t.Error(err)
		}
		if t.Failed() {
			logs(t, filepath.Join(dir, "logs"))
		}
		_ = os.RemoveAll(dir)
	})
	return &site{Fleet: f, t: t, ctx: ctx}
}

// missing skips a test for want of something, or fails it where everything must
// be there.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("DECANT_REQUIRE_ORT") == "1" {
		t.Fatalf("without %s", what)
	}
	t.Skipf("without %s", what)
}

func logs(t *testing.T, dir string) {
	files, _ := filepath.Glob(filepath.Join(dir, "*.log"))
	for _, file := range files {
		text, _ := os.ReadFile(file)
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		t.Logf("%s ends with\n%s", filepath.Base(file), strings.Join(lines[max(0, len(lines)-30):], "\n"))
	}
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) startOrchestrator(args ...string) *fleet.Process {
	s.t.Helper()
	p, err := s.StartOrchestrator(s.ctx, args...)
	s.must(err)
	return p
}

// device makes a device of a configuration, and lets it join.
func (s *site) device(name, config string) *fleet.Process {
	s.t.Helper()
	s.configure(name, config)
	p, err := s.Join(s.ctx, name)
	s.must(err)
	return p
}

func (s *site) configure(name, config string) {
	s.t.Helper()
	s.must(os.MkdirAll(filepath.Join(s.Dir, name), 0o755))
	s.must(os.WriteFile(filepath.Join(s.Dir, name, "device.yaml"), fmt.Appendf(nil, "name: %s\nlisten: \":0\"\n%s", name, config), 0o644))
}

func (s *site) restart(name string) *fleet.Process {
	s.t.Helper()
	p, err := s.StartDevice(name, "")
	s.must(err)
	return p
}

// decant runs the command line, which must succeed.
func (s *site) decant(stdin []byte, args ...string) string {
	s.t.Helper()
	out, err := s.Decant(s.ctx, bytes.NewReader(stdin), args...)
	s.must(err)
	return string(out)
}

func (s *site) deploy(app string, args ...string) {
	s.t.Helper()
	s.decant([]byte(app), append([]string{"deploy", "-f", "-"}, args...)...)
}

func (s *site) push(folders ...string) {
	s.t.Helper()
	for i, folder := range folders {
		folders[i] = filepath.Join("../examples", folder)
	}
	_, err := s.Push(s.ctx, folders...)
	s.must(err)
}

// status waits until an application has a status.
func (s *site) status(app string, want decant.DeploymentStatus) decant.Deployment {
	s.t.Helper()
	d, err := s.WaitDeployment(s.ctx, app, fmt.Sprintf("%s is %s", app, want), func(d decant.Deployment) bool { return d.Status == want })
	s.must(err)
	return d
}

func (s *site) until(what string, done func() bool) {
	s.t.Helper()
	s.must(s.Until(s.ctx, nil, what, func(context.Context) (bool, error) { return done(), nil }))
}

func (s *site) logOf(name string) string {
	text, err := os.ReadFile(s.LogPath(name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.t.Fatal(err)
	}
	return string(text)
}

func query[T any](s *site, args ...string) (v T) {
	s.t.Helper()
	if err := json.Unmarshal([]byte(s.decant(nil, append(args, "-o", "json")...)), &v); err != nil {
		s.t.Fatal(err)
	}
	return v
}
