package orchestrator

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/decant-project/decant"
)

// appOf makes an application of components, those with a star have a trigger,
// and of links, a->b.
func appOf(components, links string) decant.Application {
	a := decant.Application{Name: "app", Components: map[string]decant.Component{}}
	for _, c := range strings.Fields(components) {
		name, triggered := strings.CutSuffix(c, "*")
		part := decant.Component{Package: "p"}
		if triggered {
			part.Trigger = &decant.Trigger{Peripheral: "microphone"}
		}
		a.Components[name] = part
	}
	for _, l := range strings.Fields(links) {
		from, to, _ := strings.Cut(l, "->")
		a.Links = append(a.Links, decant.Link{From: from, To: to})
	}
	return a
}

// parsePlaces reads component@device/epoch; the epoch may be left out.
func parsePlaces(text string) map[place]int64 {
	out := map[place]int64{}
	for _, word := range strings.Fields(text) {
		component, at, _ := strings.Cut(word, "@")
		device, epoch, _ := strings.Cut(at, "/")
		n, _ := strconv.ParseInt(epoch, 10, 64)
		out[place{component, device}] = n
	}
	return out
}

// wanted is a target of the places in text, with none that the application
// goes. An instance differs with its revision, a route with the place of its
// target.
func wanted(app decant.Application, revision int, places string) target {
	want := target{app: app, device: map[string]string{}}
	for at := range parsePlaces(places) {
		want.device[at.component] = at.device
	}
	if len(want.device) == 0 {
		return want
	}
	want.spec = func(c string, epoch int64) decant.InstanceSpec {
		return decant.InstanceSpec{Application: app.Name, Component: c, Revision: revision, Epoch: epoch, Trigger: app.Components[c].Trigger}
	}
	want.route = func(l decant.Link, device string, epoch int64) decant.Route {
		return decant.Route{Component: l.To, Device: device, Epoch: epoch}
	}
	return want
}

// settled is what the state says when app runs at places and all is done.
func settled(app decant.Application, revision int, places string) actual {
	now := actual{owner: map[string]owner{}, desired: map[place]decant.InstanceSpec{}, reported: map[place]decant.InstanceStatus{}}
	want := wanted(app, revision, places)
	epochs := map[string]int64{}
	for at, epoch := range parsePlaces(places) {
		epochs[at.component] = epoch
		now.owner[at.component] = owner{Device: at.device, Epoch: epoch}
	}
	for at, epoch := range parsePlaces(places) {
		spec := want.spec(at.component, epoch)
		spec.Links = routes(want, at.component, epochs)
		now.desired[at] = spec
		now.reported[at] = runs(spec)
	}
	return now
}

// runs is what a device reports of an instance that it was told of and runs.
func runs(spec decant.InstanceSpec) decant.InstanceStatus {
	return decant.InstanceStatus{Application: spec.Application, Component: spec.Component, Revision: spec.Revision, Epoch: spec.Epoch, State: decant.InstanceRunning}
}

// describeSteps writes steps as "start a@d1/2, ready ...", done ones in brackets.
func describeSteps(steps []decant.Step) string {
	var out []string
	for _, s := range steps {
		text := fmt.Sprintf("%s %s@%s/%d", s.Kind, s.Component, s.Device, s.Epoch)
		if s.Done {
			text = "(" + text + ")"
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}

func TestSteps(t *testing.T) {
	const parts, links = "ear* detector screen", "ear->detector detector->screen"
	chain := appOf(parts, links)
	const everywhere = "ear@d1/1 detector@d2/1 screen@d3/1"
	for _, tt := range []struct {
		name     string
		app      decant.Application // chain where it has no name
		now      string             // runs, up to date
		want     string             // "": the application goes
		revision int                // wanted; now runs 1
		change   func(now *actual, want *target)
		steps    string
	}{
		{
			name: "nothing to do",
			now:  everywhere, want: everywhere, revision: 1,
		},
		{
			name: "fresh: the called before the caller, the triggered once all else runs",
			want: everywhere, revision: 1,
			steps: "start screen@d3/1, start detector@d2/1, ready screen@d3/1, ready detector@d2/1, start ear@d1/1, ready ear@d1/1",
		},
		{
			name: "a triggered one that others call starts last all the same",
			app:  appOf("a b*", "a->b"),
			want: "a@d1 b@d1", revision: 1,
			steps: "start a@d1/1, ready a@d1/1, start b@d1/1, ready b@d1/1",
		},
		{
			name: "a move: start elsewhere, wait, route, stop",
			now:  everywhere, want: "ear@d1 detector@d4 screen@d3", revision: 1,
			steps: "start detector@d4/2, ready detector@d4/2, route ear@d1/1, stop detector@d2/1",
		},
		{
			name: "two change places",
			app:  appOf("a b", "a->b"),
			now:  "a@d1/3 b@d2/5", want: "a@d2 b@d1", revision: 1,
			steps: "start b@d1/6, start a@d2/4, ready b@d1/6, ready a@d2/4, stop a@d1/3, stop b@d2/5",
		},
		{
			name: "a new revision in the same places keeps the epochs",
			now:  everywhere, want: everywhere, revision: 2,
			steps: "start screen@d3/1, start detector@d2/1, ready screen@d3/1, ready detector@d2/1, start ear@d1/1, ready ear@d1/1",
		},
		{
			name: "a new revision that moves one: its caller gets the route with its own start",
			app:  appOf("a b", "a->b"),
			now:  "a@d1/1 b@d2/1", want: "a@d1 b@d3", revision: 2,
			steps: "start b@d3/2, start a@d1/1, ready b@d3/2, ready a@d1/1, stop b@d2/1",
		},
		{
			name: "a new revision without a component",
			app:  appOf("ear* detector", "ear->detector"),
			now:  "ear@d1/1 detector@d2/1", want: "ear@d1 detector@d2", revision: 2,
			change: func(now *actual, _ *target) {
				*now = settled(chain, 1, everywhere)
			},
			steps: "start detector@d2/1, ready detector@d2/1, start ear@d1/1, ready ear@d1/1, stop screen@d3/1",
		},
		{
			name: "the application goes",
			now:  everywhere, revision: 1,
			steps: "stop detector@d2/1, stop ear@d1/1, stop screen@d3/1",
		},
		{
			name: "it is gone",
			app:  appOf("a b", "a->b"),
			change: func(now *actual, _ *target) {
				now.owner["a"], now.owner["b"] = owner{Epoch: 4}, owner{Epoch: 2}
			},
		},
		{
			name: "it comes again, after its epochs",
			app:  appOf("a", ""),
			want: "a@d1", revision: 1,
			change: func(now *actual, _ *target) { now.owner["a"] = owner{Epoch: 4} },
			steps:  "start a@d1/5, ready a@d1/5",
		},
		{
			name: "started, but not heard of",
			app:  appOf("a", ""),
			now:  "a@d1/1", want: "a@d1", revision: 1,
			change: func(now *actual, _ *target) { clear(now.reported) },
			steps:  "ready a@d1/1",
		},
		{
			name: "what ran in an older epoch does not count",
			app:  appOf("a", ""),
			now:  "a@d1/3", want: "a@d1", revision: 1,
			change: func(now *actual, _ *target) {
				now.reported[place{"a", "d1"}] = runs(decant.InstanceSpec{Revision: 1, Epoch: 1})
			},
			steps: "ready a@d1/3",
		},
		{
			name: "nor what runs of the revision before",
			app:  appOf("a", ""),
			now:  "a@d1/1", want: "a@d1", revision: 2,
			change: func(now *actual, want *target) {
				now.desired[place{"a", "d1"}] = want.spec("a", 1)
			},
			steps: "ready a@d1/1",
		},
		{
			name: "it failed since: wait for it again",
			app:  appOf("a", ""),
			now:  "a@d1/1", want: "a@d1", revision: 1,
			change: func(now *actual, _ *target) {
				s := now.reported[place{"a", "d1"}]
				s.State = decant.InstanceFailed
				now.reported[place{"a", "d1"}] = s
			},
			steps: "ready a@d1/1",
		},
		{
			name: "an owner that was told nothing is told again, in its epoch",
			app:  appOf("a", ""),
			now:  "a@d1/2", want: "a@d1", revision: 1,
			change: func(now *actual, _ *target) { clear(now.desired) },
			steps:  "start a@d1/2, ready a@d1/2",
		},
		{
			name: "a device has another address: its callers are told",
			app:  appOf("a b c", "a->b c->b"),
			now:  "a@d1/1 b@d2/1 c@d3/1", want: "a@d1 b@d2 c@d3", revision: 1,
			change: func(_ *actual, want *target) {
				route := want.route
				want.route = func(l decant.Link, device string, epoch int64) decant.Route {
					r := route(l, device, epoch)
					r.Addresses = []string{"192.0.2.7:1"}
					return r
				}
			},
			steps: "route a@d1/1, route c@d3/1",
		},
		{
			name: "left over from an owner before",
			app:  appOf("a b", "a->b"),
			now:  "a@d1/1 b@d2/2", want: "a@d1 b@d2", revision: 1,
			change: func(now *actual, want *target) { now.desired[place{"b", "d9"}] = want.spec("b", 1) },
			steps:  "stop b@d9/1",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			app := tt.app
			if app.Name == "" {
				app = chain
			}
			now, want := settled(app, 1, tt.now), wanted(app, tt.revision, tt.want)
			if tt.change != nil {
				tt.change(&now, &want)
			}
			if got := describeSteps(steps(now, want)); got != tt.steps {
				t.Errorf("\n got %s\nwant %s", got, tt.steps)
			}
		})
	}
}

func TestStepsDoNotDependOnMaps(t *testing.T) {
	components := slices.Collect(maps.Keys(appOf("a b c d e f", "").Components))
	app := appOf(strings.Join(components, " "), "a->b c->d e->f")
	now := settled(app, 1, "a@d1/1 b@d2/1 c@d3/1 d@d4/1 e@d5/1 f@d6/1")
	want := wanted(app, 2, "a@d2 b@d1 c@d3 d@d4 e@d6 f@d5")
	first := steps(now, want)
	for range 20 {
		if again := steps(now, want); !reflect.DeepEqual(first, again) {
			t.Fatalf("\nfirst %s\nthen  %s", describeSteps(first), describeSteps(again))
		}
	}
}

func TestMerge(t *testing.T) {
	start := decant.Step{Kind: decant.StepStart, Component: "a", Device: "d1", Epoch: 1}
	ready := decant.Step{Kind: decant.StepReady, Component: "a", Device: "d1", Epoch: 1}
	moved := decant.Step{Kind: decant.StepStart, Component: "a", Device: "d2", Epoch: 2}
	done := func(s decant.Step) decant.Step {
		s.Done = true
		return s
	}
	for _, tt := range []struct {
		name     string
		stored   []decant.Step
		revision int // of what is stored; 0: nothing is
		ahead    []decant.Step
		want     string
	}{
		{"there was none", nil, 0, []decant.Step{start, ready}, "start a@d1/1, ready a@d1/1"},
		{"none is taken", []decant.Step{start, ready}, 2, []decant.Step{start, ready}, "start a@d1/1, ready a@d1/1"},
		{"one is taken", []decant.Step{start, ready}, 2, []decant.Step{ready}, "(start a@d1/1), ready a@d1/1"},
		{"all are taken", []decant.Step{done(start), ready}, 2, nil, "(start a@d1/1), (ready a@d1/1)"},
		{"one must be taken again", []decant.Step{done(start), done(ready)}, 2, []decant.Step{ready}, "(start a@d1/1), ready a@d1/1"},
		{"another step: a new plan", []decant.Step{done(start), ready}, 2, []decant.Step{moved, ready}, "start a@d2/2, ready a@d1/1"},
		{"another revision: a new plan", []decant.Step{done(start), ready}, 1, []decant.Step{ready}, "ready a@d1/1"},
		{"another revision, nothing to do", []decant.Step{start}, 1, nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var stored *decant.Plan
			if tt.revision != 0 {
				stored = &decant.Plan{Application: "app", Revision: tt.revision, Steps: tt.stored}
			}
			before := describeSteps(tt.stored)
			got := merge(stored, "app", 2, tt.ahead)
			if describeSteps(got.Steps) != tt.want || got.Revision != 2 || got.Application != "app" {
				t.Errorf("got %s of revision %d, want %s of 2", describeSteps(got.Steps), got.Revision, tt.want)
			}
			if describeSteps(tt.stored) != before {
				t.Errorf("it changed what was stored to %s", describeSteps(tt.stored))
			}
		})
	}
}
