package supervisor

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/peripheral"
	"github.com/decant-project/decant/internal/wasm/binary"
	"github.com/decant-project/decant/internal/yaml"
)

// Config is device.yaml.
type Config struct {
	Name          string              `json:"name"`
	Labels        map[string]string   `json:"labels,omitempty"`
	Peripherals   []peripheral.Config `json:"peripherals,omitempty"`
	Listen        string              `json:"listen,omitempty" doc:"host:port of the device's own API; port 0 takes a free one and keeps it"`
	Orchestrators []string            `json:"orchestrators,omitempty" doc:"host:port of orchestrators that discovery does not find"`
	Inference     *bool               `json:"inference,omitempty" doc:"false: no backend for models, even where there is one"`
	ONNXRuntime   string              `json:"onnxruntime,omitempty" doc:"Path of libonnxruntime; searched for where absent"`
	Adopt         *bool               `json:"adopt,omitempty" doc:"false: join by a code given here only, never by one that comes over the network"`
	Engine        string              `json:"engine,omitempty" doc:"interpreter: do not compile to machine code"`
	Modules       binary.Limits       `json:"modules,omitzero" doc:"Limits of modules, where they are tighter than decant's own"`
	Discovery     *bool               `json:"discovery,omitempty" doc:"false: no mDNS; set orchestrators"`

	dir string // what paths of peripherals are relative to
}

// ReadConfig reads a device's configuration. Without a path it is device.yaml,
// which may be absent: then the device is named after its host and has no
// peripherals.
func ReadConfig(path string) (Config, error) {
	mayBeAbsent := path == ""
	if mayBeAbsent {
		path = "device.yaml"
	}
	data, err := os.ReadFile(path)
	if err != nil && (!mayBeAbsent || !errors.Is(err, fs.ErrNotExist)) {
		return Config{}, decant.Errorf(decant.Invalid, "cannot read the device's configuration: %w", err)
	}
	c, err := parseConfig(data)
	if err != nil {
		return Config{}, decant.Errorf(decant.Invalid, "%s: %w", path, err)
	}
	if c.dir, err = filepath.Abs(filepath.Dir(path)); err != nil {
		return Config{}, decant.Errorf(decant.Invalid, "cannot find the folder of %s: %w", path, err)
	}
	return c, nil
}

func parseConfig(data []byte) (Config, error) {
	var c Config
	if err := yaml.Unmarshal(data, &c); err != nil {
		return Config{}, err
	}
	if c.Name == "" {
		c.Name = hostName()
	}
	if c.Listen == "" {
		c.Listen = ":7445"
	}
	return c, c.Check()
}

// Check returns an Invalid error that says what to change.
func (c Config) Check() error {
	if err := decant.CheckName("device", c.Name); err != nil {
		return err
	}
	if err := decant.CheckLabels(c.Labels); err != nil {
		return err
	}
	names := map[string]bool{}
	for _, p := range c.Peripherals {
		if err := p.Check(); err != nil {
			return err
		}
		if names[p.Name] {
			return decant.Errorf(decant.Invalid, "peripheral %s is there twice", p.Name)
		}
		names[p.Name] = true
	}
	if c.Engine != "" && c.Engine != "interpreter" {
		return decant.Errorf(decant.Invalid, "engine %q: leave it out, or write interpreter", c.Engine)
	}
	for _, a := range append([]string{c.Listen}, c.Orchestrators...) {
		if _, _, err := net.SplitHostPort(a); err != nil {
			return decant.Errorf(decant.Invalid, "address %q: write it as host:port", a)
		}
	}
	return nil
}

// OpenPeripheral opens one of the configured peripherals.
func (c Config) OpenPeripheral(p peripheral.Config) (peripheral.Peripheral, error) {
	return peripheral.Open(c.dir, p)
}

// Off reports whether a switch of the configuration is set to false.
func Off(b *bool) bool { return b != nil && !*b }
