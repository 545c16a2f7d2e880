package decant

import (
	"slices"
	"time"
)

// Desired is all that a device shall run: the whole truth, not a change. It is
// made anew whenever anything in it changes, and Revision grows with it.
type Desired struct {
	Device    string         `json:"device"`
	Revision  int64          `json:"revision" doc:"Revision of the orchestrator's state"`
	Instances []InstanceSpec `json:"instances"`
}

// InstanceSpec is one instance as its device shall run it.
type InstanceSpec struct {
	Application string                `json:"application"`
	Component   string                `json:"component"`
	Revision    int                   `json:"revision" doc:"Revision of the application"`
	Epoch       int64                 `json:"epoch"`
	Package     string                `json:"package" doc:"name@version, for people"`
	Module      Blob                  `json:"module"`
	Function    string                `json:"function" doc:"Called where a caller names none"`
	Functions   map[string]Function   `json:"functions,omitempty"`
	Models      map[string]BoundModel `json:"models,omitempty"`
	Peripherals []string              `json:"peripherals,omitempty" doc:"Needs, bound as /dev/<need>"`
	Trigger     *Trigger              `json:"trigger,omitempty"`
	Memory      Bytes                 `json:"memory,omitempty"`
	Deadline    Duration              `json:"deadline,omitempty"`
	Links       []Route               `json:"links,omitempty" doc:"May change while the instance runs"`
}

// Key names an instance on its device: application/component.
func (s InstanceSpec) Key() string { return s.Application + "/" + s.Component }

// BoundModel is a model bound to an instance under a name.
type BoundModel struct {
	Package string `json:"package" doc:"name@version, for people"`
	Format  string `json:"format"`
	Model   Blob   `json:"model"`
	Files   []Blob `json:"files,omitempty"`
}

// Blobs returns all that must be on the device before the instance can start.
func (s InstanceSpec) Blobs() []Blob {
	out := []Blob{s.Module}
	for _, m := range s.Models {
		out = append(append(out, m.Model), m.Files...)
	}
	return out
}

// Route is a link resolved to the place of its target.
type Route struct {
	Name      string   `json:"name,omitempty" doc:"Bound as /link/<name>; without a name it is a pipe"`
	Component string   `json:"component"`
	Function  string   `json:"function"`
	Device    string   `json:"device" doc:"ID that the target's certificate must carry"`
	Addresses []string `json:"addresses"`
	Epoch     int64    `json:"epoch"`
}

// InstanceState is where an instance is in its life.
type InstanceState string

// An instance is pulled, compiled and started, then runs until it is stopped.
// A failed one is tried again.
const (
	InstancePending   InstanceState = "pending"
	InstancePulling   InstanceState = "pulling"
	InstanceCompiling InstanceState = "compiling"
	InstanceStarting  InstanceState = "starting"
	InstanceRunning   InstanceState = "running"
	InstanceFailed    InstanceState = "failed"
	InstanceStopping  InstanceState = "stopping"
	InstanceStopped   InstanceState = "stopped"
)

// Known reports whether s is one of the states above.
func (s InstanceState) Known() bool {
	return slices.Contains([]InstanceState{
		InstancePending, InstancePulling, InstanceCompiling, InstanceStarting,
		InstanceRunning, InstanceFailed, InstanceStopping, InstanceStopped,
	}, s)
}

// InstanceStatus is an instance as its device reports it.
type InstanceStatus struct {
	Application string        `json:"application"`
	Component   string        `json:"component"`
	Device      string        `json:"device,omitempty"`
	Revision    int           `json:"revision"`
	Epoch       int64         `json:"epoch"`
	State       InstanceState `json:"state"`
	Error       *Error        `json:"error,omitempty" doc:"Why it failed last; a running instance may carry one while its new version fails"`
	Message     string        `json:"message,omitempty" doc:"What it is doing now"`
	Since       time.Time     `json:"since"`
	Restarts    int           `json:"restarts,omitempty" doc:"Times the guest was lost and started fresh"`
	Calls       CallStats     `json:"calls"`
	Trigger     *TriggerStats `json:"trigger,omitempty"`
}

// Check returns an Invalid error for an InstanceStatus that cannot be kept:
// devices write it. Its message and error may be anything; see Line.
func (s InstanceStatus) Check() error {
	if err := CheckName("application", s.Application); err != nil {
		return err
	}
	if err := CheckName("component", s.Component); err != nil {
		return err
	}
	if !s.State.Known() {
		return Errorf(Invalid, "instance %s/%s: there is no state %.80q", s.Application, s.Component, string(s.State))
	}
	return nil
}

// CallStats counts an instance's calls since it started. The latencies hold
// the whole call, links included.
type CallStats struct {
	Count  int64    `json:"count"`
	Failed int64    `json:"failed"`
	P50    Duration `json:"p50"`
	P99    Duration `json:"p99"`
}

// TriggerStats counts the samples of a trigger.
type TriggerStats struct {
	Samples int64 `json:"samples"`
	Failed  int64 `json:"failed" doc:"Samples whose call failed"`
	Ended   bool  `json:"ended,omitempty" doc:"The peripheral has no more samples"`
}

// Report is what a device tells its orchestrator: itself and all it runs.
type Report struct {
	Device    DeviceInfo       `json:"device"`
	Applied   int64            `json:"applied" doc:"Revision of the desired state this report answers"`
	Instances []InstanceStatus `json:"instances"`
	Events    []Event          `json:"events,omitempty" doc:"What happened since the last report"`
}
