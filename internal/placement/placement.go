// Package placement decides which component runs on which device. It is pure:
// a snapshot of the fleet and an application enter, assignments with their
// reasons leave; no clock, no I/O, no chance. The same input gives the same
// placement.
package placement

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/decant-project/decant"
)

// Fleet is the devices there are and what they already carry.
type Fleet struct {
	Devices []decant.Device
	Carries map[string]Burden // by device ID, without the application being placed
}

// Burden is what a device carries for other applications.
type Burden struct {
	Instances int
	Memory    decant.Bytes
}

// Request is the application to place. The maps are by component.
type Request struct {
	Application decant.Application
	Needs       map[string]decant.Needs // of the component and its package together
	Formats     map[string][]string     // formats of the models bound to it
	Current     map[string]string       // device ID it is on now, if any
}

// maxSteps bounds the search; beyond it the request is refused as too hard
// rather than held for ever.
const maxSteps = 200_000

// Place returns an assignment for each component, or an Infeasible error that
// says which need fails on which device. Feasible devices come first, of those
// the one the component is on, then the least loaded.
func Place(fleet Fleet, req Request) (map[string]decant.Assignment, error) {
	s := &search{
		fleet:    fleet,
		req:      req,
		rejected: map[string][]decant.Rejection{},
		fits:     map[string][]*decant.Device{},
		chosen:   map[string]*decant.Device{},
		carries:  maps.Clone(fleet.Carries),
	}
	if s.carries == nil {
		s.carries = map[string]Burden{}
	}
	names := req.Application.ComponentNames()
	for _, c := range names {
		if err := s.filter(c); err != nil {
			return nil, err
		}
	}
	// The most constrained component chooses first: failures show early.
	slices.SortStableFunc(names, func(a, b string) int { return cmp.Compare(len(s.fits[a]), len(s.fits[b])) })
	s.order = names
	if !s.assign(0) {
		return nil, s.conflict()
	}
	return s.explain(), nil
}

type search struct {
	fleet    Fleet
	req      Request
	rejected map[string][]decant.Rejection
	fits     map[string][]*decant.Device
	order    []string
	chosen   map[string]*decant.Device
	carries  map[string]Burden
	steps    int
	deepest  int // how many components could be assigned together
}

// filter splits the devices into those that can run component and those that
// cannot, with the reason.
func (s *search) filter(component string) error {
	for i := range s.fleet.Devices {
		d := &s.fleet.Devices[i]
		if reason := s.unfit(component, d); reason != "" {
			s.rejected[component] = append(s.rejected[component], decant.Rejection{Device: d.ID, Reason: reason})
			continue
		}
		s.fits[component] = append(s.fits[component], d)
	}
	if len(s.fits[component]) > 0 {
		return nil
	}
	if len(s.fleet.Devices) == 0 {
		return decant.Errorf(decant.Infeasible, "component %s fits no device: no device has joined", component).
			WithHelp("start decant-supervisor on a device with a code from: decant join-code")
	}
	var why []string
	for _, r := range s.rejected[component] {
		why = append(why, s.name(r.Device)+" "+r.Reason)
	}
	const most = 8
	if len(why) > most {
		why = append(why[:most], fmt.Sprintf("and %d more", len(why)-most))
	}
	return decant.Errorf(decant.Infeasible, "component %s fits no device: %s", component, strings.Join(why, ", "))
}

// unfit says why d cannot run component, "" if it can.
func (s *search) unfit(component string, d *decant.Device) string {
	needs := s.req.Needs[component]
	if d.Status != decant.DeviceJoined {
		return "has not joined"
	}
	for _, p := range needs.Peripherals {
		if _, ok := d.Capabilities.PeripheralOf(p); !ok {
			return "has no " + p
		}
	}
	if needs.Inference && len(d.Capabilities.Inference) == 0 {
		return "has no inference backend"
	}
	for _, f := range s.req.Formats[component] {
		if !d.Capabilities.Loads(f) {
			return "has no inference backend for " + f
		}
	}
	for _, k := range slices.Sorted(maps.Keys(needs.Labels)) {
		if got, want := d.Labels[k], needs.Labels[k]; got != want {
			return fmt.Sprintf("has label %s=%q, not %q", k, got, want)
		}
	}
	if free := d.Capabilities.Memory - s.fleet.Carries[d.ID].Memory; needs.Memory > free {
		return fmt.Sprintf("has %s of memory to give, not %s", max(free, 0), needs.Memory)
	}
	// A device out of reach keeps what it runs, and is given nothing new.
	if !d.Online && s.req.Current[component] != d.ID {
		return "is offline"
	}
	return ""
}

// assign gives the components from order[i] on a device each, trying the best
// first and going back where a constraint or memory does not allow it.
func (s *search) assign(i int) bool {
	s.deepest = max(s.deepest, i)
	if i == len(s.order) {
		return true
	}
	c := s.order[i]
	needs := s.req.Needs[c]
	for _, d := range s.ranked(c) {
		if s.steps++; s.steps > maxSteps {
			return false
		}
		before := s.carries[d.ID]
		if before.Memory+needs.Memory > d.Capabilities.Memory && needs.Memory > 0 {
			continue
		}
		s.chosen[c] = d
		if s.holds(c) {
			s.carries[d.ID] = Burden{before.Instances + 1, before.Memory + needs.Memory}
			if s.assign(i + 1) {
				return true
			}
			s.carries[d.ID] = before
		}
		delete(s.chosen, c)
	}
	return false
}

// ranked returns the devices that fit, best first.
func (s *search) ranked(component string) []*decant.Device {
	current := s.req.Current[component]
	return slices.SortedStableFunc(slices.Values(s.fits[component]), func(a, b *decant.Device) int {
		if stay := cmp.Compare(btoi(b.ID == current), btoi(a.ID == current)); stay != 0 {
			return stay
		}
		return cmp.Or(
			cmp.Compare(s.carries[a.ID].Instances, s.carries[b.ID].Instances),
			cmp.Compare(a.State.Load, b.State.Load),
			strings.Compare(a.Name, b.Name),
			strings.Compare(a.ID, b.ID),
		)
	})
}

// holds reports whether every constraint on component holds among the
// components chosen so far.
func (s *search) holds(component string) bool {
	for _, c := range s.req.Application.Constraints {
		if slices.Contains(c.Components, component) && !s.satisfied(c) {
			return false
		}
	}
	return true
}

func (s *search) satisfied(c decant.Constraint) bool {
	label, same := c.Same, true
	if label == "" {
		label, same = c.Apart, false
	}
	var seen []string
	for _, name := range slices.Compact(slices.Sorted(slices.Values(c.Components))) {
		d := s.chosen[name]
		if d == nil {
			continue
		}
		v := d.Labels[label]
		if label == "device" {
			v = d.ID
		}
		if v == "" || len(seen) > 0 && slices.Contains(seen, v) != same {
			return false // a device without the label satisfies neither
		}
		seen = append(seen, v)
	}
	return true
}

// conflict says why no assignment was found although each component fits
// somewhere.
func (s *search) conflict() error {
	if s.steps > maxSteps {
		return decant.Errorf(decant.Infeasible, "application %s: no placement found within %d steps", s.req.Application.Name, maxSteps).
			WithHelp("loosen its constraints, or pin components by needs.labels")
	}
	var rules []string
	for _, c := range s.req.Application.Constraints {
		rule := "same " + c.Same
		if c.Apart != "" {
			rule = "apart by " + c.Apart
		}
		rules = append(rules, fmt.Sprintf("%s %s", strings.Join(c.Components, " and "), rule))
	}
	what := "memory"
	if len(rules) > 0 {
		what += " and constraints (" + strings.Join(rules, "; ") + ")"
	}
	return decant.Errorf(decant.Infeasible, "application %s: each component fits a device, but not all together: %s leave no place for %s",
		s.req.Application.Name, what, s.order[min(s.deepest, len(s.order)-1)])
}

// explain turns the choices into assignments with their reasons.
func (s *search) explain() map[string]decant.Assignment {
	out := make(map[string]decant.Assignment, len(s.chosen))
	for c, d := range s.chosen {
		a := decant.Assignment{Device: d.ID, Rejected: s.rejected[c]}
		switch {
		case len(s.fits[c]) == 1:
			a.Reason = "the only device that " + s.offers(c)
		case s.req.Current[c] == d.ID:
			a.Reason = "it runs here already"
		default:
			a.Reason = fmt.Sprintf("least loaded of %d devices that fit", len(s.fits[c]))
			for _, other := range s.fits[c] {
				if other != d {
					a.Rejected = append(a.Rejected, decant.Rejection{Device: other.ID, Reason: "fits, but ranks lower"})
				}
			}
		}
		out[c] = a
	}
	return out
}

// offers says in words what component needs.
func (s *search) offers(component string) string {
	needs := s.req.Needs[component]
	var parts []string
	for _, p := range needs.Peripherals {
		parts = append(parts, "a "+p)
	}
	if needs.Inference || len(s.req.Formats[component]) > 0 {
		parts = append(parts, "inference")
	}
	for _, k := range slices.Sorted(maps.Keys(needs.Labels)) {
		parts = append(parts, k+"="+needs.Labels[k])
	}
	if len(parts) == 0 {
		return "can take it"
	}
	return "has " + strings.Join(parts, " and ")
}

func (s *search) name(id string) string {
	for _, d := range s.fleet.Devices {
		if d.ID == id {
			return d.Name
		}
	}
	return id
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
