package decant

import (
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

// DeviceInfo is what a device says of itself: at discovery before it has
// joined, and in each report after.
type DeviceInfo struct {
	ID           string            `json:"id" doc:"Derived from the device's public key"`
	Name         string            `json:"name"`
	Site         string            `json:"site,omitempty" doc:"The site it has joined"`
	Version      string            `json:"version" doc:"Version of the supervisor"`
	Labels       map[string]string `json:"labels,omitempty"`
	Addresses    []string          `json:"addresses,omitempty" doc:"host:port of the device's own API, best first"`
	Capabilities Capabilities      `json:"capabilities"`
	State        DeviceState       `json:"state"`
}

// Capabilities are what a device is and has; they change only by a new
// configuration or a new machine.
type Capabilities struct {
	OS          string       `json:"os"`
	Arch        string       `json:"arch" doc:"As Go names it: amd64, arm64, arm, riscv64, ..."`
	Kernel      string       `json:"kernel,omitempty"`
	Cores       int          `json:"cores"`
	Memory      Bytes        `json:"memory"`
	Engine      string       `json:"engine" doc:"How Wasm runs here: compiler or interpreter"`
	Inference   []Backend    `json:"inference,omitempty"`
	Peripherals []Peripheral `json:"peripherals,omitempty"`
}

// Backend is a runtime for models.
type Backend struct {
	Name    string   `json:"name" doc:"onnxruntime"`
	Version string   `json:"version,omitempty"`
	Formats []string `json:"formats" doc:"Model formats it loads: onnx"`
}

// Peripheral is something a device can bind into a guest as /dev/<name>.
type Peripheral struct {
	Name string `json:"name"`
	Type string `json:"type" doc:"What needs are matched on: microphone, camera, screen, ..."`
}

// DeviceState is what changes by itself while a device runs.
type DeviceState struct {
	Load       float64   `json:"load" doc:"One-minute load average divided by cores"`
	FreeMemory Bytes     `json:"free_memory"`
	Uptime     Duration  `json:"uptime,omitempty"`
	At         time.Time `json:"at"`
}

// Loads reports whether one of the device's backends loads models of format.
func (c Capabilities) Loads(format string) bool {
	return slices.ContainsFunc(c.Inference, func(b Backend) bool { return slices.Contains(b.Formats, format) })
}

// PeripheralOf returns the peripheral that serves need: the one of that name,
// else the first of that type by name.
func (c Capabilities) PeripheralOf(need string) (Peripheral, bool) {
	byName := slices.SortedFunc(slices.Values(c.Peripherals), func(a, b Peripheral) int {
		return strings.Compare(a.Name, b.Name)
	})
	for _, p := range byName {
		if p.Name == need {
			return p, true
		}
	}
	for _, p := range byName {
		if p.Type == need {
			return p, true
		}
	}
	return Peripheral{}, false
}

// DeviceStatus is how far a device has come with its site.
type DeviceStatus string

// A device is known when it was discovered, and joined once it holds a
// certificate of the site. Only joined devices are given work.
const (
	DeviceKnown  DeviceStatus = "known"
	DeviceJoined DeviceStatus = "joined"
)

// Device is a device as the orchestrator's database has it.
type Device struct {
	DeviceInfo
	Status    DeviceStatus `json:"status"`
	Online    bool         `json:"online" doc:"Holds a lease at an orchestrator now"`
	FirstSeen time.Time    `json:"first_seen"`
	LastSeen  time.Time    `json:"last_seen"`
}

// MaxInfo bounds what a device that has not joined may say of itself, as JSON:
// anybody on the network may be one.
const MaxInfo = 16 * KiB

// Check returns an Invalid error for a DeviceInfo that cannot be kept: foreign
// devices write it.
func (d DeviceInfo) Check() error {
	if err := CheckName("device", d.ID); err != nil {
		return err
	}
	if err := CheckName("device", d.Name); err != nil {
		return err
	}
	if len(d.Addresses) > 16 || len(d.Capabilities.Peripherals) > 256 || len(d.Capabilities.Inference) > 16 {
		return Errorf(Invalid, "device %s says too much of itself: at most 16 addresses, 256 peripherals, 16 backends", d.Name)
	}
	if err := CheckLabels(d.Labels); err != nil {
		return Errorf(Invalid, "device %s: %w", d.Name, err)
	}
	for _, a := range d.Addresses {
		if err := checkAddress(a); err != nil {
			return Errorf(Invalid, "device %s: %w", d.Name, err)
		}
	}
	if err := d.checkTexts(); err != nil {
		return Errorf(Invalid, "device %s: %w", d.Name, err)
	}
	for _, p := range d.Capabilities.Peripherals {
		if err := CheckName("peripheral", p.Name); err != nil {
			return err
		}
		if err := CheckName("peripheral type", p.Type); err != nil {
			return err
		}
	}
	return nil
}

// CheckLabels returns an Invalid error for labels that a device cannot have.
func CheckLabels(labels map[string]string) error {
	if len(labels) > 64 {
		return Errorf(Invalid, "%d labels: 64 at most", len(labels))
	}
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		if err := CheckName("label", k); err != nil {
			return err
		}
		if err := checkText("label "+k, labels[k]); err != nil {
			return err
		}
	}
	return nil
}

// checkTexts checks the short texts that are free.
func (d DeviceInfo) checkTexts() error {
	c := d.Capabilities
	for _, t := range []struct{ what, text string }{
		{"site", d.Site},
		{"version", d.Version},
		{"os", c.OS},
		{"arch", c.Arch},
		{"kernel", c.Kernel},
		{"engine", c.Engine},
	} {
		if err := checkText(t.what, t.text); err != nil {
			return err
		}
	}
	for _, b := range c.Inference {
		if len(b.Formats) > 16 {
			return Errorf(Invalid, "a backend has %d formats: 16 at most", len(b.Formats))
		}
		for _, text := range append([]string{b.Name, b.Version}, b.Formats...) {
			if err := checkText("backend", text); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkAddress returns an Invalid error unless a is host:port.
func checkAddress(a string) error {
	if err := checkText("address", a); err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(a)
	if n, badPort := strconv.ParseUint(port, 10, 16); err != nil || badPort != nil || host == "" || n == 0 {
		return Errorf(Invalid, "address %q: want host:port", a)
	}
	return nil
}
