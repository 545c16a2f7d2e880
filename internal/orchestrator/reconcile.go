package orchestrator

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/placement"
	"github.com/decant-project/decant/internal/state"
)

// view is all that the state says of one application and of the fleet.
type view struct {
	name      string
	record    stored[appRecord]
	placement stored[decant.Placement]
	plan      stored[decant.Plan]
	note      stored[note]
	now       actual
	ownerRev  map[string]int64 // by component
	toldRev   map[place]int64
	devices   []decant.Device
	carries   map[string]placement.Burden
}

// reconcile takes an application as far towards what its user asked for as it
// can go now. Only failures of the state store, and Conflict, are errors:
// others concern this application alone and become its note.
func (o *Orchestrator) reconcile(ctx context.Context, name string) error {
	v, err := o.look(ctx, name)
	if err != nil || v.record.rev == 0 {
		return err
	}
	want := target{app: v.record.value.Application}
	if !v.record.value.Removed {
		if v.record.value.Bindings == nil {
			return o.resolveStep(ctx, v)
		}
		assigned, err := o.placeStep(ctx, v)
		if err != nil || assigned == nil {
			return err
		}
		want = v.target(assigned)
	}
	ahead := steps(v.now, want)
	if err := o.storePlan(ctx, v, ahead); err != nil {
		return err
	}
	if len(ahead) > 0 {
		return o.take(ctx, v, want, ahead)
	}
	if v.record.value.Removed {
		return o.forget(ctx, v)
	}
	return o.setNote(ctx, v, nil)
}

// look reads the view.
func (o *Orchestrator) look(ctx context.Context, name string) (*view, error) {
	v := &view{
		name: name,
		now: actual{
			owner:    map[string]owner{},
			desired:  map[place]decant.InstanceSpec{},
			reported: map[place]decant.InstanceStatus{},
		},
		ownerRev: map[string]int64{},
		toldRev:  map[place]int64{},
		carries:  map[string]placement.Burden{},
	}
	err := errors.Join(
		load(ctx, o.State, appsPrefix+name, &v.record),
		load(ctx, o.State, placementsPrefix+name, &v.placement),
		load(ctx, o.State, plansPrefix+name, &v.plan),
		load(ctx, o.State, notesPrefix+name, &v.note),
		each(ctx, o.State, ownersPrefix+name+"/", func(key string, own owner, rev int64) {
			component := strings.TrimPrefix(key, ownersPrefix+name+"/")
			v.now.owner[component], v.ownerRev[component] = own, rev
		}),
		each(ctx, o.State, desiredPrefix, func(key string, spec decant.InstanceSpec, rev int64) {
			device, app, component := splitDesired(key)
			if app == name {
				at := place{component, device}
				v.now.desired[at], v.toldRev[at] = spec, rev
				return
			}
			b := v.carries[device]
			v.carries[device] = placement.Burden{Instances: b.Instances + 1, Memory: b.Memory + spec.Memory}
		}),
		each(ctx, o.State, reportsPrefix, func(key string, r reportRecord, _ int64) {
			device := strings.TrimPrefix(key, reportsPrefix)
			for _, s := range r.Instances {
				if s.Application == name {
					v.now.reported[place{s.Component, device}] = s
				}
			}
		}),
	)
	if err != nil {
		return nil, err
	}
	v.devices, err = o.ListDevices(ctx)
	return v, err
}

// resolveStep fixes the revision's packages by digest.
func (o *Orchestrator) resolveStep(ctx context.Context, v *view) error {
	record := v.record.value
	pkgs, bindings, err := o.resolve(ctx, record.Application)
	if code := decant.CodeOf(err); code == decant.Internal || ctx.Err() != nil {
		return err // the state could not be read
	}
	if err != nil {
		return o.setNote(ctx, v, err)
	}
	record.Packages, record.Bindings = pkgs, bindings
	return o.commit(ctx, []state.Cond{v.record.cond(appsPrefix + v.name)},
		put(appsPrefix+v.name, record), put(historyKey(v.name, record.Revision), record))
}

// placeStep returns the device of each component, after it has stored the
// placement if that is new; nil where there is none.
func (o *Orchestrator) placeStep(ctx context.Context, v *view) (map[string]string, error) {
	record := v.record.value
	req := placement.Request{
		Application: record.Application,
		Needs:       map[string]decant.Needs{},
		Formats:     map[string][]string{},
		Current:     map[string]string{},
	}
	for c := range record.Application.Components {
		req.Needs[c] = record.needs(c)
		for _, m := range record.Bindings[c].Models {
			req.Formats[c] = append(req.Formats[c], record.Packages[m].Model.Format)
		}
		if own := v.now.owner[c]; own.Device != "" {
			req.Current[c] = own.Device
		}
	}
	assignments, err := placement.Place(placement.Fleet{Devices: v.devices, Carries: v.carries}, req)
	if err != nil {
		return nil, o.setNote(ctx, v, err)
	}
	devices := make(map[string]string, len(assignments))
	for c, a := range assignments {
		devices[c] = a.Device
	}
	if v.placement.rev != 0 && v.placement.value.Revision == record.Revision && samePlaces(v.placement.value, devices) {
		return devices, nil
	}
	placed := decant.Placement{Application: v.name, Revision: record.Revision, Components: assignments, At: time.Now().UTC()}
	err = o.commit(ctx, []state.Cond{v.record.cond(appsPrefix + v.name), v.placement.cond(placementsPrefix + v.name)},
		put(placementsPrefix+v.name, placed))
	if err != nil {
		return nil, err
	}
	o.event(ctx, decant.Event{Kind: "app.placed", Application: v.name, Message: describePlacement(placed, v.devices)})
	return devices, nil
}

// storePlan stores the way ahead before any of it is gone.
func (o *Orchestrator) storePlan(ctx context.Context, v *view, ahead []decant.Step) error {
	var old *decant.Plan
	if v.plan.rev != 0 {
		old = &v.plan.value
	}
	if old == nil && len(ahead) == 0 {
		return nil
	}
	merged := merge(old, v.name, v.record.value.Revision, ahead)
	if old != nil && (sameJSON(old, merged) || len(ahead) == 0 && old.Done() && old.Revision == merged.Revision) {
		return nil
	}
	return o.commit(ctx, []state.Cond{v.record.cond(appsPrefix + v.name), v.plan.cond(plansPrefix + v.name)},
		put(plansPrefix+v.name, merged))
}

// take takes the steps up to the first that must be waited for. Each is a
// transaction of its own that holds only if nothing it was planned from has
// changed.
func (o *Orchestrator) take(ctx context.Context, v *view, want target, ahead []decant.Step) error {
	epochs := map[string]int64{}
	for c, own := range v.now.owner {
		epochs[c] = own.Epoch
	}
	for _, s := range ahead {
		if s.Kind == decant.StepStart {
			epochs[s.Component] = s.Epoch
		}
	}
	unchanged := v.record.cond(appsPrefix + v.name)
	for _, s := range ahead {
		at := place{s.Component, s.Device}
		key := desiredKey(s.Device, v.name, s.Component)
		told := state.Cond{Key: key, ModRevision: v.toldRev[at]}
		ownedBefore := state.Cond{Key: ownerKey(v.name, s.Component), ModRevision: v.ownerRev[s.Component]}
		var err error
		switch s.Kind {
		case decant.StepStart:
			spec := want.spec(s.Component, s.Epoch)
			spec.Links = routes(want, s.Component, epochs)
			err = o.commit(ctx, []state.Cond{unchanged, ownedBefore, told},
				put(ownedBefore.Key, owner{Device: s.Device, Epoch: s.Epoch}), put(key, spec))
		case decant.StepReady:
			return o.setNote(ctx, v, v.waiting(s))
		case decant.StepRoute:
			spec := v.now.desired[at]
			spec.Links = routes(want, s.Component, epochs)
			err = o.commit(ctx, []state.Cond{unchanged, told}, put(key, spec))
		case decant.StepStop:
			changes := []change{remove(key)}
			if own := v.now.owner[s.Component]; own.Device == s.Device {
				changes = append(changes, put(ownedBefore.Key, owner{Epoch: own.Epoch})) // it goes altogether
			}
			err = o.commit(ctx, []state.Cond{unchanged, ownedBefore, told}, changes...)
		}
		if err != nil {
			return err
		}
	}
	o.mark(v.name) // look whether anything is left
	return nil
}

// forget deletes a removed application once no device is told to run it. The
// owners stay, without a device, so that epochs go on where they were.
func (o *Orchestrator) forget(ctx context.Context, v *view) error {
	ops := []change{
		remove(appsPrefix + v.name), remove(placementsPrefix + v.name),
		remove(plansPrefix + v.name), remove(notesPrefix + v.name),
	}
	for c, own := range v.now.owner {
		ops = append(ops, put(ownerKey(v.name, c), owner{Epoch: own.Epoch}))
	}
	history, _, err := o.State.List(ctx, historyPrefix+v.name+"/", 0)
	if err != nil {
		return err
	}
	const most = 100 // revisions forgotten in one transaction; the rest go one by one
	for i, kv := range history {
		if i < most {
			ops = append(ops, remove(kv.Key))
		} else if err := o.commit(ctx, nil, remove(kv.Key)); err != nil {
			return err
		}
	}
	if err := o.commit(ctx, []state.Cond{v.record.cond(appsPrefix + v.name)}, ops...); err != nil {
		return err
	}
	o.event(ctx, decant.Event{Kind: "app.removed", Application: v.name, Message: "application " + v.name + " is removed"})
	return nil
}

// setNote keeps why the application is not further, or that nothing is in its
// way.
func (o *Orchestrator) setNote(ctx context.Context, v *view, reason error) error {
	key := notesPrefix + v.name
	if reason == nil {
		if v.note.rev == 0 {
			return nil
		}
		return o.commit(ctx, []state.Cond{v.note.cond(key)}, remove(key))
	}
	n := note{Code: decant.CodeOf(reason), Message: reason.Error()}
	if v.note.value == n {
		return nil
	}
	if err := o.commit(ctx, []state.Cond{v.note.cond(key)}, put(key, n)); err != nil {
		return err
	}
	if n.Code != decant.Unavailable {
		o.event(ctx, decant.Event{Kind: "app." + string(n.Code), Application: v.name, Message: n.Message})
	}
	return nil
}

// waiting says what a ready step waits for.
func (v *view) waiting(s decant.Step) error {
	device := deviceName(v.devices, s.Device)
	said, ok := v.now.reported[place{s.Component, s.Device}]
	switch {
	case ok && said.Epoch == s.Epoch && said.Error != nil:
		return decant.Errorf(said.Error.Code, "component %s on %s: %s", s.Component, device, said.Error.Error())
	case ok && said.Epoch == s.Epoch:
		return decant.Errorf(decant.Unavailable, "component %s on %s is %s", s.Component, device, said.State)
	}
	return decant.Errorf(decant.Unavailable, "component %s waits for %s to answer", s.Component, device)
}

func samePlaces(p decant.Placement, devices map[string]string) bool {
	if len(p.Components) != len(devices) {
		return false
	}
	for c, d := range devices {
		if p.Components[c].Device != d {
			return false
		}
	}
	return true
}
