package placement_test

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/placement"
)

func device(id string, change func(*decant.Device)) decant.Device {
	d := decant.Device{
		DeviceInfo: decant.DeviceInfo{
			ID: id, Name: id + "-name", Labels: map[string]string{},
			Capabilities: decant.Capabilities{Memory: decant.GiB},
		},
		Status: decant.DeviceJoined, Online: true,
	}
	if change != nil {
		change(&d)
	}
	return d
}

func app(components ...string) decant.Application {
	a := decant.Application{Name: "app", Components: map[string]decant.Component{}}
	for _, c := range components {
		a.Components[c] = decant.Component{Package: "p"}
	}
	return a
}

func TestPlace(t *testing.T) {
	mic := device("mic", func(d *decant.Device) {
		d.Capabilities.Peripherals = []decant.Peripheral{{Name: "front", Type: "microphone"}}
		d.Labels["site"] = "hall"
	})
	gateway := device("gateway", func(d *decant.Device) {
		d.Capabilities.Inference = []decant.Backend{{Name: "onnxruntime", Formats: []string{"onnx"}}}
		d.Labels["site"] = "hall"
	})
	attic := device("attic", func(d *decant.Device) {
		d.Capabilities.Inference = gateway.Capabilities.Inference
		d.Labels["site"] = "attic"
	})
	offline := device("a-offline", func(d *decant.Device) { d.Online = false })
	stranger := device("a-stranger", func(d *decant.Device) { d.Status = decant.DeviceKnown })
	fleet := []decant.Device{attic, gateway, mic, offline, stranger}

	for _, tt := range []struct {
		name    string
		needs   map[string]decant.Needs
		formats map[string][]string
		current map[string]string
		carries map[string]placement.Burden
		rules   []decant.Constraint
		want    map[string]string
		wantErr string
	}{
		{
			name:  "a need that one device meets",
			needs: map[string]decant.Needs{"ear": {Peripherals: []string{"microphone"}}},
			want:  map[string]string{"ear": "mic"},
		},
		{
			name:    "what stays together stays together",
			needs:   map[string]decant.Needs{"ear": {Peripherals: []string{"microphone"}}, "detector": {Inference: true}},
			rules:   []decant.Constraint{{Components: []string{"ear", "detector"}, Same: "site"}},
			want:    map[string]string{"ear": "mic", "detector": "gateway"},
			formats: map[string][]string{"detector": {"onnx"}},
		},
		{
			name:    "the least loaded",
			needs:   map[string]decant.Needs{"detector": {Inference: true}},
			carries: map[string]placement.Burden{"attic": {Instances: 1}},
			want:    map[string]string{"detector": "gateway"},
		},
		{
			name:    "it stays where it is, offline or not",
			needs:   map[string]decant.Needs{"any": {}},
			current: map[string]string{"any": "a-offline"},
			want:    map[string]string{"any": "a-offline"},
		},
		{
			name:  "spread over what fits",
			needs: map[string]decant.Needs{"one": {Inference: true}, "two": {Inference: true}},
			want:  map[string]string{"one": "attic", "two": "gateway"},
		},
		{
			name:  "apart by device",
			needs: map[string]decant.Needs{"one": {Labels: map[string]string{"site": "hall"}}, "two": {Inference: true, Labels: map[string]string{"site": "hall"}}},
			rules: []decant.Constraint{{Components: []string{"one", "two"}, Apart: "device"}},
			want:  map[string]string{"one": "mic", "two": "gateway"},
		},
		{
			name:    "memory that others have taken",
			needs:   map[string]decant.Needs{"big": {Inference: true, Memory: 800 * decant.MiB}},
			carries: map[string]placement.Burden{"attic": {Memory: 300 * decant.MiB}},
			want:    map[string]string{"big": "gateway"},
		},
		{
			name:    "no device: each says why",
			needs:   map[string]decant.Needs{"ear": {Peripherals: []string{"camera"}}},
			wantErr: "component ear fits no device: attic-name has no camera, gateway-name has no camera, mic-name has no camera, a-offline-name has no camera, a-stranger-name has not joined",
		},
		{
			name:    "a format nobody loads",
			needs:   map[string]decant.Needs{"net": {Inference: true}},
			formats: map[string][]string{"net": {"tflite"}},
			wantErr: "attic-name has no inference backend for tflite",
		},
		{
			name:    "each fits, but not all together",
			needs:   map[string]decant.Needs{"ear": {Peripherals: []string{"microphone"}}, "net": {Labels: map[string]string{"site": "attic"}}},
			rules:   []decant.Constraint{{Components: []string{"ear", "net"}, Same: "site"}},
			wantErr: "not all together: memory and constraints (ear and net same site)",
		},
		{
			name:    "two that fill a device each",
			needs:   map[string]decant.Needs{"one": {Inference: true, Memory: decant.GiB}, "two": {Inference: true, Memory: decant.GiB}, "three": {Inference: true, Memory: decant.GiB}},
			wantErr: "not all together",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := app(slices.Collect(maps.Keys(tt.needs))...)
			a.Constraints = tt.rules
			got, err := placement.Place(placement.Fleet{Devices: fleet, Carries: tt.carries}, placement.Request{
				Application: a, Needs: tt.needs, Formats: tt.formats, Current: tt.current,
			})
			if tt.wantErr != "" {
				if !errors.Is(err, decant.Infeasible) || !strings.Contains(err.Error(), tt.wantErr) {
					t.Fatalf("got error %v, want infeasible with %q", err, tt.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			devices := map[string]string{}
			for c, assigned := range got {
				devices[c] = assigned.Device
				if assigned.Reason == "" {
					t.Errorf("%s has no reason", c)
				}
			}
			if !reflect.DeepEqual(devices, tt.want) {
				t.Errorf("placed %v, want %v", devices, tt.want)
			}
		})
	}
}

func TestNoDevices(t *testing.T) {
	_, err := placement.Place(placement.Fleet{}, placement.Request{Application: app("a")})
	if !errors.Is(err, decant.Infeasible) || !strings.Contains(err.Error(), "no device has joined") {
		t.Errorf("got %v", err)
	}
}

// TestAgainstBruteForce: on small fleets a placement is found exactly when
// there is one, it satisfies all that was asked, and it is always the same.
func TestAgainstBruteForce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sites := rapid.SampledFrom([]string{"", "a", "b"})
		var fleet placement.Fleet
		for i := range rapid.IntRange(1, 4).Draw(t, "devices") {
			fleet.Devices = append(fleet.Devices, device(fmt.Sprint("d", i), func(d *decant.Device) {
				d.Labels["site"] = sites.Draw(t, "site")
				d.Online = rapid.Bool().Draw(t, "online")
				d.Capabilities.Memory = decant.Bytes(rapid.IntRange(0, 3).Draw(t, "memory"))
				if rapid.Bool().Draw(t, "microphone") {
					d.Capabilities.Peripherals = []decant.Peripheral{{Name: "m", Type: "microphone"}}
				}
			}))
		}
		names := []string{"c0", "c1", "c2"}[:rapid.IntRange(1, 3).Draw(t, "components")]
		req := placement.Request{Application: app(names...), Needs: map[string]decant.Needs{}, Current: map[string]string{}}
		for _, c := range names {
			n := decant.Needs{Memory: decant.Bytes(rapid.IntRange(0, 2).Draw(t, "needs memory"))}
			if rapid.Bool().Draw(t, "needs microphone") {
				n.Peripherals = []string{"microphone"}
			}
			req.Needs[c] = n
			if rapid.Bool().Draw(t, "runs") {
				req.Current[c] = fleet.Devices[rapid.IntRange(0, len(fleet.Devices)-1).Draw(t, "current")].ID
			}
		}
		for range rapid.IntRange(0, 2).Draw(t, "constraints") {
			rule := decant.Constraint{Components: names}
			if label := rapid.SampledFrom([]string{"site", "device"}).Draw(t, "label"); rapid.Bool().Draw(t, "same") {
				rule.Same = label
			} else {
				rule.Apart = label
			}
			if len(names) > 1 {
				req.Application.Constraints = append(req.Application.Constraints, rule)
			}
		}
		got, err := placement.Place(fleet, req)
		if possible := bruteForce(fleet, req, names, map[string]decant.Device{}); possible != (err == nil) {
			t.Fatalf("a placement exists: %v; got %v, %v", possible, got, err)
		}
		if err != nil {
			return
		}
		chosen := map[string]decant.Device{}
		for c, a := range got {
			chosen[c] = fleet.Devices[slices.IndexFunc(fleet.Devices, func(d decant.Device) bool { return d.ID == a.Device })]
		}
		if !valid(req, chosen) {
			t.Fatalf("placed %v, which does not hold", got)
		}
		if again, _ := placement.Place(fleet, req); !reflect.DeepEqual(got, again) {
			t.Fatalf("placed %v, then %v", got, again)
		}
	})
}

func bruteForce(fleet placement.Fleet, req placement.Request, left []string, chosen map[string]decant.Device) bool {
	if len(left) == 0 {
		return valid(req, chosen)
	}
	for _, d := range fleet.Devices {
		chosen[left[0]] = d
		if bruteForce(fleet, req, left[1:], chosen) {
			return true
		}
	}
	delete(chosen, left[0])
	return false
}

// valid is what a placement must satisfy, said once more and plainly.
func valid(req placement.Request, chosen map[string]decant.Device) bool {
	taken := map[string]decant.Bytes{}
	for c, d := range chosen {
		n := req.Needs[c]
		taken[d.ID] += n.Memory
		if len(n.Peripherals) > 0 && len(d.Capabilities.Peripherals) == 0 || !d.Online && req.Current[c] != d.ID {
			return false
		}
	}
	for _, d := range chosen {
		if taken[d.ID] > d.Capabilities.Memory {
			return false
		}
	}
	for _, rule := range req.Application.Constraints {
		values := map[string]int{}
		for _, c := range rule.Components {
			v := chosen[c].Labels[rule.Same+rule.Apart]
			if rule.Same+rule.Apart == "device" {
				v = chosen[c].ID
			}
			if v == "" {
				return false
			}
			values[v]++
		}
		if rule.Same != "" && len(values) != 1 || rule.Apart != "" && len(values) != len(rule.Components) {
			return false
		}
	}
	return true
}
