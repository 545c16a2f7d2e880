package supervisor

import (
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/api/device"
	"github.com/decant-project/decant/internal/listen"
	"github.com/decant-project/decant/internal/machine"
	"github.com/decant-project/decant/internal/peripheral"
)

// Info returns what the device is and how it is doing.
func (s *Supervisor) Info() decant.DeviceInfo {
	return decant.DeviceInfo{
		ID:           s.id,
		Name:         s.config.Name,
		Site:         s.parts.Identity.Site(),
		Version:      s.parts.Version,
		Labels:       s.config.Labels,
		Addresses:    listen.Addresses(s.parts.Listen),
		Capabilities: s.caps,
		State:        machine.State(),
	}
}

// Instances returns all instances, sorted.
func (s *Supervisor) Instances() []decant.InstanceStatus {
	s.mu.Lock()
	all := make([]*instance, 0, len(s.instances))
	for _, in := range s.instances {
		all = append(all, in)
	}
	s.mu.Unlock()
	slices.SortFunc(all, func(a, b *instance) int { return strings.Compare(a.key, b.key) })
	list := make([]decant.InstanceStatus, len(all))
	for i, in := range all {
		list[i] = in.status()
	}
	return list
}

func (s *Supervisor) capabilities() decant.Capabilities {
	c := machine.Capabilities()
	c.Engine = s.parts.Engine
	c.Inference = s.parts.Inference
	for _, p := range s.config.Peripherals {
		c.Peripherals = append(c.Peripherals, p.Describe())
	}
	return c
}

// openPeripheral opens what serves a need. Infeasible: nothing does.
func (s *Supervisor) openPeripheral(need string) (peripheral.Peripheral, error) {
	found, ok := s.caps.PeripheralOf(need)
	if !ok {
		return nil, decant.Errorf(decant.Infeasible, "this device has no peripheral %q: add it to device.yaml", need)
	}
	i := slices.IndexFunc(s.config.Peripherals, func(c peripheral.Config) bool { return c.Name == found.Name })
	p, err := s.parts.OpenPeripheral(s.config.Peripherals[i])
	if err != nil {
		return nil, decant.Errorf(decant.CodeOf(err), "cannot open peripheral %s: %w", found.Name, err)
	}
	return p, nil
}

// hostName returns the machine's name as a device name.
func hostName() string {
	host, _ := os.Hostname()
	host, _, _ = strings.Cut(strings.ToLower(host), ".")
	name := strings.Trim(strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, host), "-")
	if decant.CheckName("device", name) != nil {
		return "device"
	}
	return name
}

// Functions returns what can be called now.
func (s *Supervisor) Functions() []device.Function {
	var list []device.Function
	for _, st := range s.Instances() {
		in := s.instance(st.Application + "/" + st.Component)
		if in == nil || st.State != decant.InstanceRunning {
			continue
		}
		spec := in.specs()[0]
		names := slices.Collect(maps.Keys(spec.Functions))
		if spec.Function != "" && !slices.Contains(names, spec.Function) {
			names = append(names, spec.Function)
		}
		slices.Sort(names)
		for _, name := range names {
			list = append(list, device.Function{Application: st.Application, Component: st.Component, Name: name, Types: spec.Functions[name]})
		}
	}
	return list
}
