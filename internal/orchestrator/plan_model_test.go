package orchestrator

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/decant-project/decant"
)

// planModel is a fleet and a state on which steps are taken one by one, as
// take does, and what must never happen on the way.
type planModel struct {
	t        *rapid.T
	now      actual
	want     target
	revision int // of want
	stored   *decant.Plan
	owners   map[string]string // component/epoch to the device that owned it
}

// TestPlansConverge takes the steps of plans, with crashes, reports and changes
// of mind at any moment, and holds that it ends where it should, that no epoch
// has two owners or goes down, and that nothing stops before what replaces it
// runs and is routed to.
func TestPlansConverge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &planModel{t: t, now: settled(decant.Application{}, 1, ""), owners: map[string]string{}}
		for range rapid.IntRange(1, 4).Draw(t, "changes of mind") {
			// The fleet changes, or the user does.
			if app := m.want.app; m.revision > 0 && rapid.Bool().Draw(t, "other places only") {
				m.want = wanted(app, m.revision, drawPlaces(t, app))
			} else {
				m.revision++
				app := drawApp(t)
				m.want = wanted(app, m.revision, drawPlaces(t, app))
			}
			for range rapid.IntRange(0, 6).Draw(t, "crashes") {
				ahead := m.plan()
				m.walk(ahead[:rapid.IntRange(0, len(ahead)).Draw(t, "steps until it crashes")])
			}
		}
		m.walk(m.plan())
		if left := m.plan(); len(left) > 0 || !m.stored.Done() {
			t.Fatalf("left at the end: %s; plan %s", describeSteps(left), describeSteps(m.stored.Steps))
		}
		m.arrived()
	})
}

func drawApp(t *rapid.T) decant.Application {
	names := []string{"a", "b", "c", "d"}[:rapid.IntRange(1, 4).Draw(t, "components")]
	var parts, links []string
	for i, c := range names {
		parts = append(parts, c+rapid.SampledFrom([]string{"", "", "*"}).Draw(t, "trigger"))
		for _, to := range names[i+1:] {
			if rapid.Bool().Draw(t, "link") {
				links = append(links, c+"->"+to)
			}
		}
	}
	return appOf(strings.Join(parts, " "), strings.Join(links, " "))
}

// drawPlaces draws where the components of app shall be, or that it goes.
func drawPlaces(t *rapid.T, app decant.Application) string {
	if rapid.IntRange(0, 4).Draw(t, "removed") == 0 {
		return ""
	}
	var places []string
	for _, c := range app.ComponentNames() {
		places = append(places, c+"@"+rapid.SampledFrom([]string{"d1", "d2", "d3"}).Draw(t, "device"))
	}
	return strings.Join(places, " ")
}

func (m *planModel) plan() []decant.Step {
	ahead := steps(m.now, m.want)
	m.stored = merge(m.stored, "app", m.revision, ahead)
	undone := slices.DeleteFunc(slices.Clone(m.stored.Steps), func(s decant.Step) bool { return s.Done })
	if describeSteps(undone) != describeSteps(ahead) {
		m.t.Fatalf("ahead is %s, but the stored plan says %s", describeSteps(ahead), describeSteps(m.stored.Steps))
	}
	if len(ahead) == 0 && len(m.want.device) == 0 { // it is forgotten, but for its epochs
		for c, own := range m.now.owner {
			m.now.owner[c] = owner{Epoch: own.Epoch}
		}
	}
	return ahead
}

func (m *planModel) walk(ahead []decant.Step) {
	epochs := map[string]int64{}
	for c, own := range m.now.owner {
		epochs[c] = own.Epoch
	}
	for _, s := range ahead {
		if s.Kind == decant.StepStart {
			epochs[s.Component] = s.Epoch
		}
	}
	for i, s := range ahead {
		at := place{s.Component, s.Device}
		switch s.Kind {
		case decant.StepStart:
			m.start(s, epochs)
		case decant.StepReady:
			told, ok := m.now.desired[at]
			if !ok || told.Epoch != s.Epoch {
				m.t.Fatalf("%s was not told to run what is waited for", describeSteps(ahead[i:i+1]))
			}
			m.now.reported[at] = runs(told)
		case decant.StepRoute:
			told := m.now.desired[at]
			told.Links = routes(m.want, s.Component, epochs)
			m.now.desired[at] = told
		case decant.StepStop:
			m.stop(s)
		}
	}
}

func (m *planModel) start(s decant.Step, epochs map[string]int64) {
	if own := m.now.owner[s.Component]; s.Epoch < own.Epoch || s.Epoch == own.Epoch && s.Device != own.Device {
		m.t.Fatalf("%s after %+v", describeSteps([]decant.Step{s}), own)
	}
	key := fmt.Sprint(s.Component, "/", s.Epoch)
	if other := m.owners[key]; other != "" && other != s.Device {
		m.t.Fatalf("%s is owned by %s and by %s", key, other, s.Device)
	}
	m.owners[key] = s.Device
	// What it links to was told to run before it, but for triggered ones,
	// which start last; and those start once all else runs.
	triggered := func(c string) bool { return m.want.app.Components[c].Trigger != nil }
	for _, l := range m.want.app.LinksFrom(s.Component) {
		if _, told := m.now.desired[place{l.To, m.want.device[l.To]}]; !told && (triggered(s.Component) || !triggered(l.To)) {
			m.t.Fatalf("%s starts before %s, which it links to", s.Component, l.To)
		}
	}
	for c := range m.want.device {
		if triggered(s.Component) && !triggered(c) && !m.runs(c) {
			m.t.Fatalf("the triggered %s starts before %s runs", s.Component, c)
		}
	}
	spec := m.want.spec(s.Component, s.Epoch)
	spec.Links = routes(m.want, s.Component, epochs)
	m.now.owner[s.Component] = owner{Device: s.Device, Epoch: s.Epoch}
	m.now.desired[place{s.Component, s.Device}] = spec
}

// runs says whether the owner of c has reported that it runs what it should.
func (m *planModel) runs(c string) bool {
	own := m.now.owner[c]
	said := m.now.reported[place{c, own.Device}]
	return own.Device == m.want.device[c] && said.State == decant.InstanceRunning && said.Epoch == own.Epoch
}

func (m *planModel) stop(s decant.Step) {
	at := place{s.Component, s.Device}
	if _, told := m.now.desired[at]; !told {
		m.t.Fatalf("%s, which was not there", describeSteps([]decant.Step{s}))
	}
	if replaced := m.want.device[s.Component]; replaced != "" {
		if !m.runs(s.Component) {
			m.t.Fatalf("%s before it runs on %s", describeSteps([]decant.Step{s}), replaced)
		}
		m.routedTo(s.Component)
	}
	delete(m.now.desired, at)
	if rapid.Bool().Draw(m.t, "it reports that it stopped") {
		delete(m.now.reported, at)
	}
}

// routedTo holds that all who call component were told where it is.
func (m *planModel) routedTo(component string) {
	own := m.now.owner[component]
	for c, device := range m.want.device {
		for _, r := range m.now.desired[place{c, device}].Links {
			if r.Component == component && (r.Device != own.Device || r.Epoch != own.Epoch) {
				m.t.Fatalf("%s calls %s at %s/%d, its owner is %+v", c, component, r.Device, r.Epoch, own)
			}
		}
	}
}

// arrived holds that devices are told what they should be and no more.
func (m *planModel) arrived() {
	epochs := map[string]int64{}
	for c, own := range m.now.owner {
		epochs[c] = own.Epoch
	}
	expect := map[place]decant.InstanceSpec{}
	for c, device := range m.want.device {
		if !m.runs(c) {
			m.t.Fatalf("%s does not run on %s: owner %+v", c, device, m.now.owner[c])
		}
		spec := m.want.spec(c, epochs[c])
		spec.Links = routes(m.want, c, epochs)
		expect[place{c, device}] = spec
	}
	if !reflect.DeepEqual(m.now.desired, expect) {
		m.t.Fatalf("devices are told %+v, want %+v", m.now.desired, expect)
	}
}
