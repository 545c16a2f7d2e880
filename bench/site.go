package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/e2e/fleet"
	"github.com/decant-project/decant/internal/identity"
)

// site is an orchestrator and a device, each a process.
type site struct {
	*fleet.Fleet
	device decant.Device
	proc   *fleet.Process // the device's
}

const echoApp = "application: bench\ncomponents: {echo: {package: bench-echo, function: echo}}\n"

// newSite starts a site whose only device has joined.
func newSite(ctx context.Context) (_ *site, err error) {
	dir, err := os.MkdirTemp("", "decant-bench-")
	if err != nil {
		return nil, err
	}
	f, err := fleet.New(dir, "bin")
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	s := &site{Fleet: f}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if _, err := f.StartOrchestrator(ctx, "--site", "bench"); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(dir, "board"), 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "board", "device.yaml"), []byte("name: board\nlisten: \"127.0.0.1:0\"\n"), 0o644); err != nil {
		return nil, err
	}
	if s.proc, err = f.Join(ctx, "board"); err != nil {
		return nil, err
	}
	online, err := f.WaitOnline(ctx, 1)
	s.device = online["board"]
	return s, err
}

func (s *site) close() {
	_ = s.StopAll()
	_ = os.RemoveAll(s.Dir)
}

// runEcho runs the echo module on the device.
func (s *site) runEcho(ctx context.Context) (decant.Device, error) {
	if _, err := s.Push(ctx, "bench/echo"); err != nil {
		return s.device, err
	}
	_, err := s.Decant(ctx, strings.NewReader(echoApp), "deploy", "-f", "-")
	return s.device, err
}

// member makes this program a member of the site.
func (s *site) member(role identity.Role) (*identity.Member, error) {
	return issue(filepath.Join(s.Home(), "authority"), s.Dir, role)
}
