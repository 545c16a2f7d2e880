package orchestrator

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"

	"github.com/decant-project/decant"
)

// target is where an application's components should be, and as what.
type target struct {
	app    decant.Application
	device map[string]string                                               // component to device; empty when the application goes
	spec   func(component string, epoch int64) decant.InstanceSpec         // without links
	route  func(link decant.Link, device string, epoch int64) decant.Route // to the component at link.To
}

// actual is what the state says of an application now.
type actual struct {
	owner    map[string]owner                // by component
	desired  map[place]decant.InstanceSpec   // what devices were told
	reported map[place]decant.InstanceStatus // what devices said
}

// place is a component on a device.
type place struct{ component, device string }

// owner is the record of who owns a component's instance. Its epoch only ever
// grows, and outlives the application: a device that comes back after an
// absence of any length finds a higher one.
type owner struct {
	Device string `json:"device,omitempty"` // "" once the application is removed
	Epoch  int64  `json:"epoch"`
}

// steps returns the way from what is to what should be; none when they agree.
// Components start before those that link to them, and those with a trigger
// last, so that nothing is called that is not there yet; nothing stops before
// all that replaces it runs and is routed to.
func steps(now actual, want target) []decant.Step {
	order, _ := want.app.Order()
	var plan []decant.Step
	epochs := map[string]int64{}
	for _, triggered := range []bool{false, true} {
		var starts, waits []decant.Step
		for _, c := range order {
			if (want.app.Components[c].Trigger != nil) != triggered || want.device[c] == "" {
				continue
			}
			step, settled := startStep(now, want, c)
			epochs[c] = step.Epoch
			if step.Kind == decant.StepStart {
				starts = append(starts, step)
			}
			if !settled {
				step.Kind = decant.StepReady
				waits = append(waits, step)
			}
		}
		plan = append(append(plan, starts...), waits...)
	}
	return slices.Concat(plan, routeSteps(now, want, order, epochs), stopSteps(now, want))
}

// startStep returns the step that makes component run where it should, of no
// kind if it was taken, and whether the device runs it.
func startStep(now actual, want target, component string) (step decant.Step, settled bool) {
	at := place{component, want.device[component]}
	own := now.owner[component]
	step = decant.Step{Component: component, Device: at.device, Epoch: own.Epoch}
	if own.Device != at.device {
		step.Kind = decant.StepStart
		step.Epoch++
		return step, false
	}
	told, ok := now.desired[at]
	spec := want.spec(component, own.Epoch)
	spec.Links = told.Links // routes have their own step
	if !ok || !sameJSON(told, spec) {
		step.Kind = decant.StepStart
		return step, false
	}
	said := now.reported[at]
	return step, said.State == decant.InstanceRunning && said.Epoch == told.Epoch && said.Revision == told.Revision
}

// routeSteps returns a step for each instance that was told other places for
// its links than they have. An instance that is yet to start gets its routes
// with its start.
func routeSteps(now actual, want target, order []string, epochs map[string]int64) []decant.Step {
	var out []decant.Step
	for _, c := range order {
		if want.device[c] == "" {
			continue
		}
		step, _ := startStep(now, want, c)
		if step.Kind == decant.StepStart {
			continue
		}
		told := now.desired[place{c, step.Device}]
		if !sameJSON(told.Links, routes(want, c, epochs)) {
			step.Kind = decant.StepRoute
			out = append(out, step)
		}
	}
	return out
}

// routes returns the routes of component's links when each target has the
// epoch of epochs.
func routes(want target, component string, epochs map[string]int64) []decant.Route {
	var out []decant.Route
	for _, l := range want.app.LinksFrom(component) {
		out = append(out, want.route(l, want.device[l.To], epochs[l.To]))
	}
	return out
}

// stopSteps returns a step for each instance on a device that it should not be
// on.
func stopSteps(now actual, want target) []decant.Step {
	var out []decant.Step
	for at, told := range now.desired {
		if want.device[at.component] != at.device {
			out = append(out, decant.Step{Kind: decant.StepStop, Component: at.component, Device: at.device, Epoch: told.Epoch})
		}
	}
	slices.SortFunc(out, func(a, b decant.Step) int {
		if a.Component != b.Component {
			return strings.Compare(a.Component, b.Component)
		}
		return strings.Compare(a.Device, b.Device)
	})
	return out
}

// merge notes in the stored plan which of its steps are no longer ahead. Where
// the way ahead has a step that the stored plan lacks, it is a new plan.
func merge(stored *decant.Plan, app string, revision int, ahead []decant.Step) *decant.Plan {
	fresh := &decant.Plan{Application: app, Revision: revision, Steps: ahead}
	if stored == nil || stored.Revision != revision {
		return fresh
	}
	left := map[decant.Step]bool{}
	for _, s := range ahead {
		left[s] = true
	}
	merged := &decant.Plan{Application: app, Revision: revision, Steps: slices.Clone(stored.Steps)}
	for i, s := range merged.Steps {
		s.Done = false
		merged.Steps[i].Done = !left[s]
		delete(left, s)
	}
	if len(left) > 0 {
		return fresh
	}
	return merged
}

// sameJSON compares what was stored with what would be stored.
func sameJSON(a, b any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}
