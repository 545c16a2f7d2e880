package supervisor

import (
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/api/device"
	"github.com/decant-project/decant/internal/machine"
	"github.com/decant-project/decant/internal/peripheral"
)

// maxAddresses bounds what a device says of where it is reached.
const maxAddresses = 8

// Info returns what the device is and how it is doing.
func (s *Supervisor) Info() decant.DeviceInfo {
	return decant.DeviceInfo{
		ID:           s.id,
		Name:         s.config.Name,
		Site:         s.parts.Identity.Site(),
		Version:      s.parts.Version,
		Labels:       s.config.Labels,
		Addresses:    addresses(s.parts.Listen),
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

// addresses returns where others reach what listens on listen: its own host, or
// all of the machine's, those that reach farthest first. The loopback is named
// only where there is nothing else.
func addresses(listen net.Addr) []string {
	tcp, ok := listen.(*net.TCPAddr)
	if !ok {
		return nil
	}
	if !tcp.IP.IsUnspecified() {
		return []string{tcp.String()}
	}
	var v4, v6 []string
	all, _ := net.InterfaceAddrs()
	for _, a := range all {
		ip, ok := a.(*net.IPNet)
		if !ok || !ip.IP.IsGlobalUnicast() {
			continue
		}
		at := net.JoinHostPort(ip.IP.String(), strconv.Itoa(tcp.Port))
		if ip.IP.To4() != nil {
			v4 = append(v4, at)
		} else {
			v6 = append(v6, at)
		}
	}
	found := slices.Concat(v4, v6)
	if len(found) == 0 {
		return []string{net.JoinHostPort("127.0.0.1", strconv.Itoa(tcp.Port))}
	}
	return found[:min(len(found), maxAddresses)]
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
