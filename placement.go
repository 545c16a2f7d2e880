package decant

import "time"

// Placement says which component runs on which device, and why.
type Placement struct {
	Application string                `json:"application"`
	Revision    int                   `json:"revision" doc:"Revision of the application it places"`
	Components  map[string]Assignment `json:"components"`
	At          time.Time             `json:"at"`
}

// Assignment is one component's device.
type Assignment struct {
	Device   string      `json:"device"`
	Reason   string      `json:"reason" doc:"Why here"`
	Rejected []Rejection `json:"rejected,omitempty" doc:"Why not elsewhere"`
}

// Rejection says why a device cannot, or need not, run a component.
type Rejection struct {
	Device string `json:"device"`
	Reason string `json:"reason"`
}

// Deployment is an application as the registry has it.
type Deployment struct {
	Application Application               `json:"spec"`
	Revision    int                       `json:"revision" doc:"Grows with each change by a user"`
	Removed     bool                      `json:"removed,omitempty" doc:"Being taken off its devices"`
	Packages    []Package                 `json:"packages,omitempty" doc:"All packages of this revision, by digest"`
	Placement   *Placement                `json:"placement,omitempty"`
	Plan        *Plan                     `json:"plan,omitempty" doc:"The steps now being taken, or last taken"`
	Status      DeploymentStatus          `json:"status"`
	Message     string                    `json:"message,omitempty" doc:"What it waits for, or what went wrong"`
	Instances   map[string]InstanceStatus `json:"instances,omitempty" doc:"As their devices reported last"`
	CreatedAt   time.Time                 `json:"created_at"`
	ChangedAt   time.Time                 `json:"changed_at"`
}

// DeploymentStatus sums a deployment up.
type DeploymentStatus string

// A deployment is pending until it is resolved and placed, then rolling out
// until each instance was observed running.
const (
	DeployPending  DeploymentStatus = "pending"
	DeployRolling  DeploymentStatus = "rolling out"
	DeployRunning  DeploymentStatus = "running"
	DeployDegraded DeploymentStatus = "degraded"
	DeployRemoving DeploymentStatus = "removing"
)

// Plan is the way from what is to what should be, as steps that are stored
// before they are taken. Each is idempotent: after a crash it is taken again.
type Plan struct {
	Application string `json:"application"`
	Revision    int    `json:"revision"`
	Steps       []Step `json:"steps"`
}

// Step is one step of a plan.
type Step struct {
	Kind      StepKind `json:"kind"`
	Component string   `json:"component"`
	Device    string   `json:"device"`
	Epoch     int64    `json:"epoch"`
	Done      bool     `json:"done,omitempty"`
}

// StepKind is what a step does.
type StepKind string

// The steps, in the order they have within a plan.
const (
	StepStart StepKind = "start" // make the device the component's owner and give it the instance
	StepReady StepKind = "ready" // wait until the device reports that it runs
	StepRoute StepKind = "route" // give the instance the present places of those it links to
	StepStop  StepKind = "stop"  // take the instance from a device that no longer owns it
)

// Done reports whether each step was taken.
func (p *Plan) Done() bool {
	for _, s := range p.Steps {
		if !s.Done {
			return false
		}
	}
	return true
}
