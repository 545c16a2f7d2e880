// Package guesthost is the supervisor's host of guests: modules by internal/wasm
// with wasi-nn by internal/wasinn, in this process.
package guesthost

import (
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/nn"
	"github.com/decant-project/decant/internal/peripheral"
	"github.com/decant-project/decant/internal/supervisor"
	"github.com/decant-project/decant/internal/wasinn"
	"github.com/decant-project/decant/internal/wasm"
)

// Host implements supervisor.Guests.
type Host struct{ *wasm.Host }

// New makes a host. The modules of c are those that are here.
func New(ctx context.Context, c wasm.Config) (*Host, error) {
	c.Modules = []wasm.HostModule{wasinn.Instantiate}
	h, err := wasm.New(ctx, c)
	if err != nil {
		return nil, err
	}
	return &Host{h}, nil
}

// Compile implements supervisor.Guests.
func (h *Host) Compile(ctx context.Context, binary []byte) (supervisor.Module, error) {
	m, err := h.Host.Compile(ctx, binary)
	if err != nil {
		return nil, err
	}
	return module{m, h.Host}, nil
}

type module struct {
	*wasm.Module
	host *wasm.Host
}

// Start implements supervisor.Module.
func (m module) Start(ctx context.Context, c supervisor.GuestConfig) (supervisor.Guest, error) {
	newSession := func() *wasinn.Session { return wasinn.NewSession(models{c}, c.Log) }
	session := newSession()
	config := wasm.GuestConfig{
		Memory:  c.Memory,
		Log:     c.Log,
		Devices: map[string]wasm.Device{},
		Links:   map[string]wasm.Link{},
		Models:  map[string]map[string]string{},
		State:   c.State,
		Keeper:  session,
		Context: func(ctx context.Context) (context.Context, func()) { return wasinn.With(ctx, session), func() {} },
	}
	if m.Command() { // a command keeps nothing from call to call
		config.Keeper = nil
		config.Context = func(ctx context.Context) (context.Context, func()) {
			session := newSession()
			return wasinn.With(ctx, session), func() { _ = session.Close() }
		}
	}
	for name, p := range c.Devices {
		config.Devices[name] = device{p}
	}
	for name, model := range c.Models {
		config.Models[name] = model.Files
	}
	for _, name := range c.Links {
		config.Links[name] = func(ctx context.Context, request []byte) ([]byte, error) {
			return c.Link(ctx, name, request)
		}
	}
	g, err := m.host.Start(ctx, m.Module, config)
	if err != nil {
		return nil, errors.Join(err, session.Close())
	}
	return guest{g, session}, nil
}

type guest struct {
	*wasm.Guest
	session io.Closer
}

// Close implements supervisor.Guest.
func (g guest) Close() error { return errors.Join(g.Guest.Close(), g.session.Close()) }

// device shows a guest the bytes of a peripheral's samples.
type device struct{ peripheral.Peripheral }

// Read implements wasm.Device.
func (d device) Read(ctx context.Context) ([]byte, error) {
	s, err := d.Peripheral.Read(ctx)
	return s.Data, err
}

// models gives wasi-nn what is bound to a guest.
type models struct{ config supervisor.GuestConfig }

// ByName implements wasinn.Models.
func (m models) ByName(_ context.Context, name string) (nn.Model, error) {
	if bound, ok := m.config.Models[name]; ok {
		return bound.Model, nil
	}
	return nil, decant.Errorf(decant.NotFound, "no model %q is bound to %s; there are: %s", name, m.config.Name,
		strings.Join(slices.Sorted(maps.Keys(m.config.Models)), ", "))
}

// FromBytes implements wasinn.Models.
func (m models) FromBytes(ctx context.Context, model []byte) (nn.Model, error) {
	return m.config.LoadModel(ctx, model)
}
