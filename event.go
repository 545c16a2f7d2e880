package decant

import (
	"regexp"
	"time"
)

// Event is something that happened and that a person may want to know.
type Event struct {
	At          time.Time `json:"at"`
	Kind        string    `json:"kind" doc:"device.known, device.joined, device.online, device.offline, app.placed, app.infeasible, instance.running, instance.failed, ..."`
	Device      string    `json:"device,omitempty"`
	Application string    `json:"application,omitempty"`
	Component   string    `json:"component,omitempty"`
	Message     string    `json:"message"`
}

var kindPattern = regexp.MustCompile(`^[A-Za-z.-]{1,64}$`)

// Check returns an Invalid error for an Event that cannot be kept: devices
// write it. Its message may be anything; see Line.
func (e Event) Check() error {
	if !kindPattern.MatchString(e.Kind) {
		return Errorf(Invalid, "event kind %.80q: use 1 to 64 letters, dots and dashes", e.Kind)
	}
	if e.Application != "" {
		if err := CheckName("application", e.Application); err != nil {
			return err
		}
	}
	if e.Component != "" {
		return CheckName("component", e.Component)
	}
	return nil
}
