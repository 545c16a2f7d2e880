package decant_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/decant-project/decant"
)

// wantCheck holds what a Check returned to Invalid and a line that says what is
// wrong; to nothing where says is "".
func wantCheck(t *testing.T, name string, err error, says string) {
	t.Helper()
	if says == "" {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		return
	}
	if !errors.Is(err, decant.Invalid) || !strings.Contains(err.Error(), says) || decant.Line(err.Error(), 600) != err.Error() {
		t.Errorf("%s: %v; want %q", name, err, says)
	}
}

func TestCheckDeviceInfo(t *testing.T) {
	long := strings.Repeat("x", 257)
	for _, tt := range []struct {
		name   string
		change func(*decant.DeviceInfo)
		says   string
	}{
		{"honest", func(*decant.DeviceInfo) {}, ""},
		{"one that says little", func(d *decant.DeviceInfo) { *d = decant.DeviceInfo{ID: d.ID, Name: d.Name} }, ""},
		{"an ID", func(d *decant.DeviceInfo) { d.ID = esc }, "device name"},
		{"a name", func(d *decant.DeviceInfo) { d.Name = long }, "device name"},
		{"site", func(d *decant.DeviceInfo) { d.Site = esc }, "site"},
		{"version", func(d *decant.DeviceInfo) { d.Version = "1" + esc }, "version"},
		{"long version", func(d *decant.DeviceInfo) { d.Version = long }, "version is longer than 256 bytes"},
		{"os", func(d *decant.DeviceInfo) { d.Capabilities.OS = "linux\n" }, "os"},
		{"arch", func(d *decant.DeviceInfo) { d.Capabilities.Arch = esc }, "arch"},
		{"kernel", func(d *decant.DeviceInfo) { d.Capabilities.Kernel = esc }, "kernel"},
		{"engine", func(d *decant.DeviceInfo) { d.Capabilities.Engine = "\u202eretpretni" }, "engine"},
		{"label", func(d *decant.DeviceInfo) { d.Labels["site"] = esc }, "label site"},
		{"long label", func(d *decant.DeviceInfo) { d.Labels["site"] = long }, "label site is longer than 256 bytes"},
		{"label's name", func(d *decant.DeviceInfo) { d.Labels[esc] = "" }, "label name"},
		{"backend", func(d *decant.DeviceInfo) { d.Capabilities.Inference[0].Name += esc }, "backend"},
		{"backend's version", func(d *decant.DeviceInfo) { d.Capabilities.Inference[0].Version = long }, "backend"},
		{"format", func(d *decant.DeviceInfo) { d.Capabilities.Inference[0].Formats[0] = "on\xffnx" }, "backend"},
		{"formats", func(d *decant.DeviceInfo) { d.Capabilities.Inference[0].Formats = make([]string, 17) }, "17 formats"},
		{"peripheral", func(d *decant.DeviceInfo) { d.Capabilities.Peripherals[0].Type = esc }, "peripheral type"},
		{"address", func(d *decant.DeviceInfo) { d.Addresses[0] = strings.Repeat("<", 4<<20) }, "address is longer than 256 bytes"},
		{"address of no port", func(d *decant.DeviceInfo) { d.Addresses[0] = "10.0.0.1" }, "host:port"},
		{"address of no host", func(d *decant.DeviceInfo) { d.Addresses[0] = ":7445" }, "host:port"},
		{"address of a service", func(d *decant.DeviceInfo) { d.Addresses[0] = "host:https" }, "host:port"},
		{"address of port 0", func(d *decant.DeviceInfo) { d.Addresses[0] = "host:0" }, "host:port"},
		{"address that writes", func(d *decant.DeviceInfo) { d.Addresses[0] = esc + ":1" }, "address"},
	} {
		d := decant.DeviceInfo{
			ID: "d1", Name: "board", Site: "hall", Version: "1.2.3-rc1+4", Labels: map[string]string{"site": "Hämeen sali, 2nd", "none": ""},
			Addresses: []string{"10.0.0.1:7445", "[fe80::1%eth0]:7445", "board.local:7445"},
			Capabilities: decant.Capabilities{
				OS: "linux", Arch: "arm64", Kernel: "6.1.0-18-arm64 #1 SMP", Engine: "compiler",
				Inference:   []decant.Backend{{Name: "onnxruntime", Version: "1.22.0", Formats: []string{"onnx"}}},
				Peripherals: []decant.Peripheral{{Name: "mic", Type: "microphone"}},
			},
		}
		tt.change(&d)
		wantCheck(t, tt.name, d.Check(), tt.says)
	}
}

func TestCheckReported(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	for _, tt := range []struct {
		name string
		what interface{ Check() error }
		says string
	}{
		{"instance", decant.InstanceStatus{Application: "app", Component: "ear", State: decant.InstanceRunning, Message: "pulling\n" + long}, ""},
		{"instance of no application", decant.InstanceStatus{Component: "ear", State: decant.InstanceRunning}, "application"},
		{"instance of a long application", decant.InstanceStatus{Application: long, Component: "ear", State: decant.InstanceRunning}, "application name"},
		{"instance of a component that writes", decant.InstanceStatus{Application: "app", Component: esc, State: decant.InstanceRunning}, "component name"},
		{"state", decant.InstanceStatus{Application: "app", Component: "ear", State: "running" + esc}, "app/ear: there is no state"},
		{"no state", decant.InstanceStatus{Application: "app", Component: "ear"}, "there is no state"},
		{"event", decant.Event{Kind: "instance.call-failed", Application: "app", Component: "ear", Message: esc}, ""},
		{"event of nothing", decant.Event{Kind: "trigger.ended"}, ""},
		{"event of no kind", decant.Event{}, "event kind"},
		{"event of a kind that writes", decant.Event{Kind: "x" + esc}, "event kind"},
		{"event of a long kind", decant.Event{Kind: long}, "event kind"},
		{"event of a long application", decant.Event{Kind: "x", Application: long}, "application name"},
		{"event of a component that writes", decant.Event{Kind: "x", Component: "a\nb"}, "component name"},
	} {
		wantCheck(t, tt.name, tt.what.Check(), tt.says)
	}
}
