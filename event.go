package decant

import "time"

// Event is something that happened and that a person may want to know.
type Event struct {
	At          time.Time `json:"at"`
	Kind        string    `json:"kind" doc:"device.known, device.joined, device.online, device.offline, app.placed, app.infeasible, instance.running, instance.failed, ..."`
	Device      string    `json:"device,omitempty"`
	Application string    `json:"application,omitempty"`
	Component   string    `json:"component,omitempty"`
	Message     string    `json:"message"`
}
