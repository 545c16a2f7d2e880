package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/identity"
	"github.com/decant-project/decant/internal/state"
)

// ListDevices returns all devices that are known, by name.
func (o *Orchestrator) ListDevices(ctx context.Context) ([]decant.Device, error) {
	online := map[string]bool{}
	reports := map[string]reportRecord{}
	out := []decant.Device{}
	err := errors.Join(
		each(ctx, o.State, presencePrefix, func(key string, _ time.Time, _ int64) {
			online[strings.TrimPrefix(key, presencePrefix)] = true
		}),
		each(ctx, o.State, reportsPrefix, func(key string, r reportRecord, _ int64) {
			reports[strings.TrimPrefix(key, reportsPrefix)] = r
		}),
		each(ctx, o.State, devicesPrefix, func(_ string, r deviceRecord, _ int64) {
			d := decant.Device{DeviceInfo: r.Info, Status: r.Status, Online: online[r.Info.ID], FirstSeen: r.FirstSeen, LastSeen: r.LastSeen}
			if rep, ok := reports[r.Info.ID]; ok {
				d.State, d.LastSeen = rep.State, rep.At
			}
			out = append(out, d)
		}),
	)
	slices.SortFunc(out, func(a, b decant.Device) int {
		return strings.Compare(a.Name+"\x00"+a.ID, b.Name+"\x00"+b.ID)
	})
	return out, err
}

// Device returns one device, by ID or, if only one has it, by name.
func (o *Orchestrator) Device(ctx context.Context, nameOrID string) (decant.Device, error) {
	all, err := o.ListDevices(ctx)
	if err != nil {
		return decant.Device{}, err
	}
	var found []decant.Device
	for _, d := range all {
		if d.ID == nameOrID {
			return d, nil
		}
		if d.Name == nameOrID {
			found = append(found, d)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return decant.Device{}, decant.Errorf(decant.NotFound, "there is no device %q", nameOrID).WithHelp("`decant device ls` lists them")
	}
	return decant.Device{}, decant.Errorf(decant.Conflict, "%d devices are named %q: say which by its ID", len(found), nameOrID)
}

// device returns the record of a device that has joined or is known.
func (o *Orchestrator) device(ctx context.Context, id string) (stored[deviceRecord], error) {
	var r stored[deviceRecord]
	if err := load(ctx, o.State, devicesPrefix+id, &r); err != nil {
		return r, err
	}
	if r.rev == 0 {
		return r, decant.Errorf(decant.NotFound, "there is no device %q", id)
	}
	return r, nil
}

// RemoveDevice forgets a device and takes from it all it was told to run. Its
// certificate is good for nothing here any more, nor is a join code that it
// used or that was made for it. What it ran is placed anew.
func (o *Orchestrator) RemoveDevice(ctx context.Context, nameOrID string) error {
	d, err := o.Device(ctx, nameOrID)
	if err != nil {
		return err
	}
	told, _, err := o.State.List(ctx, desiredPrefix+d.ID+"/", 0)
	if err != nil {
		return err
	}
	ops := []change{remove(devicesPrefix + d.ID), remove(reportsPrefix + d.ID), remove(presencePrefix + d.ID)}
	for _, kv := range told {
		ops = append(ops, remove(kv.Key))
	}
	err = each(ctx, o.State, codesPrefix, func(key string, code identity.CodeRecord, _ int64) {
		if code.Device == d.ID {
			ops = append(ops, remove(key))
		}
	})
	if err != nil {
		return err
	}
	if err := o.commit(ctx, nil, ops...); err != nil {
		return err
	}
	o.event(ctx, decant.Event{Kind: "device.removed", Device: d.ID, Message: "device " + d.Name + " is removed"})
	return nil
}

// Joined reports whether a device may take part: it holds a certificate of the
// site, and nobody has removed it since.
func (o *Orchestrator) Joined(ctx context.Context, id string) error {
	_, err := o.member(ctx, id)
	return err
}

// member returns the record of a device that may take part.
func (o *Orchestrator) member(ctx context.Context, id string) (stored[deviceRecord], error) {
	r, err := o.device(ctx, id)
	if errors.Is(err, decant.NotFound) || err == nil && r.value.Status != decant.DeviceJoined {
		return r, decant.Errorf(decant.Denied, "device %s is not of this site any more", id).
			WithHelp("join it again with a new code from: decant join-code")
	}
	return r, err
}

// Report takes in what a device says of itself and what it runs, and renews
// its presence.
func (o *Orchestrator) Report(ctx context.Context, id string, rep decant.Report) error {
	if rep.Device.ID != id {
		return decant.Errorf(decant.Denied, "device %s reports as %q", id, rep.Device.ID)
	}
	unheard := max(0, len(rep.Events)-maxEvents) // the oldest
	rep.Events = rep.Events[unheard:]
	if err := checkReport(rep); err != nil {
		return err
	}
	old, err := o.member(ctx, id)
	if err != nil {
		return err
	}
	unchanged := old.cond(devicesPrefix + id) // nobody removes it meanwhile
	if err := o.renewPresence(ctx, id, unchanged); err != nil {
		return err
	}
	now := time.Now().UTC()
	said := reportRecord{State: rep.Device.State, Applied: rep.Applied, Instances: asLines(id, rep.Instances), At: now}
	changes := []change{put(reportsPrefix+id, said)}
	info := rep.Device
	info.State = decant.DeviceState{}
	if !sameJSON(old.value.Info, info) {
		record := old.value
		record.Info, record.LastSeen = info, now
		changes = append(changes, put(devicesPrefix+id, record))
	}
	if err := o.commit(ctx, []state.Cond{unchanged}, changes...); err != nil {
		return err
	}
	if unheard > 0 {
		o.event(ctx, decant.Event{Kind: "device.flood", Device: id, Message: fmt.Sprintf("device %s told of too much at once: %d events are not kept", info.Name, unheard)})
	}
	for _, e := range rep.Events {
		e.Device, e.At = id, time.Time{} // its clock may be anything
		e.Message = decant.Line(e.Message, maxMessage)
		o.event(ctx, e)
	}
	return nil
}

// Bounds of what is heard of one report.
const (
	maxInstances = 2000
	maxEvents    = 20
	maxMessage   = 4096 // bytes
)

func checkReport(rep decant.Report) error {
	if err := rep.Device.Check(); err != nil {
		return err
	}
	if len(rep.Instances) > maxInstances {
		return decant.Errorf(decant.Exhausted, "report of %d instances: %d at most", len(rep.Instances), maxInstances)
	}
	for _, s := range rep.Instances {
		if err := s.Check(); err != nil {
			return err
		}
	}
	for _, e := range rep.Events {
		if err := e.Check(); err != nil {
			return err
		}
		if kind, _, _ := strings.Cut(e.Kind, "."); kind == "device" || kind == "app" {
			return decant.Errorf(decant.Denied, "event kind %q: an orchestrator says that", e.Kind)
		}
	}
	return nil
}

// asLines returns what a device said of its instances, each text of it a
// bounded line.
func asLines(id string, said []decant.InstanceStatus) []decant.InstanceStatus {
	kept := slices.Clone(said)
	for i := range kept {
		s := &kept[i]
		s.Device, s.Message = id, decant.Line(s.Message, maxMessage)
		if s.Error == nil {
			continue
		}
		code := s.Error.Code
		if !code.Known() {
			code = decant.Internal // it may be newer
		}
		e := decant.Errorf(code, "%s", decant.Line(s.Error.Message, maxMessage))
		e.Help = decant.Line(s.Error.Help, maxMessage)
		s.Error = e
	}
	return kept
}

// renewPresence keeps the device's lease alive, or gives it one. The state
// alone knows which it has: another orchestrator may have given it, or removed
// the device since.
func (o *Orchestrator) renewPresence(ctx context.Context, id string, unchanged state.Cond) error {
	kv, err := o.State.Get(ctx, presencePrefix+id)
	if err == nil {
		err = o.State.KeepAlive(ctx, kv.Lease)
	}
	if !errors.Is(err, decant.NotFound) {
		return err
	}
	lease, err := o.State.Grant(ctx, LeaseTTL)
	if err != nil {
		return err
	}
	return o.commit(ctx, []state.Cond{unchanged}, change{key: presencePrefix + id, value: time.Now().UTC(), lease: lease})
}

// presenceChanged writes down that a device came or went.
func (o *Orchestrator) presenceChanged(ctx context.Context, id string, gone bool) error {
	r, err := o.device(ctx, id)
	if errors.Is(err, decant.NotFound) {
		return nil // it was removed
	}
	if err != nil {
		return err
	}
	e := decant.Event{Kind: "device.online", Device: id, Message: "device " + r.value.Info.Name + " is online"}
	if gone {
		e.Kind, e.Message = "device.offline", "device "+r.value.Info.Name+" is offline: it was not heard of for "+LeaseTTL.String()
	}
	o.event(ctx, e)
	return nil
}

// WatchDesired sends what a device shall run, now and whenever that changes,
// until ctx ends or send fails. A device that is removed meanwhile shall run
// nothing, and is then Denied.
func (o *Orchestrator) WatchDesired(ctx context.Context, id string, send func(decant.Desired) error) error {
	prefix := desiredPrefix + id + "/"
	var watch, record <-chan state.Batch
	var desired decant.Desired
	for {
		if err := o.Joined(ctx, id); err != nil {
			if watch != nil && errors.Is(err, decant.Denied) {
				desired.Instances = []decant.InstanceSpec{}
				err = errors.Join(send(desired), err)
			}
			return err
		}
		desired = decant.Desired{Device: id, Instances: []decant.InstanceSpec{}}
		kvs, at, err := o.State.List(ctx, prefix, 0)
		if err != nil {
			return err
		}
		for _, kv := range kvs {
			var spec decant.InstanceSpec
			if err := decode(kv, &spec); err != nil {
				return err
			}
			desired.Instances = append(desired.Instances, spec)
		}
		desired.Revision = at
		if err := send(desired); err != nil {
			return err
		}
		if watch == nil {
			watch, record = o.State.Watch(ctx, prefix, at), o.State.Watch(ctx, devicesPrefix+id, at)
		}
		// One look answers all the batches up to it.
		for rev := int64(0); rev <= at; {
			var batch state.Batch
			var ok bool
			select {
			case batch, ok = <-watch:
			case batch, ok = <-record:
			}
			if !ok {
				return ctx.Err()
			}
			if batch.Err != nil {
				return batch.Err
			}
			rev = batch.Revision
		}
	}
}

func deviceName(devices []decant.Device, id string) string {
	for _, d := range devices {
		if d.ID == id {
			return d.Name
		}
	}
	return id
}

// describePlacement says in a line which component went where.
func describePlacement(p decant.Placement, devices []decant.Device) string {
	var parts []string
	for _, c := range sortedKeys(p.Components) {
		parts = append(parts, c+" on "+deviceName(devices, p.Components[c].Device)+" ("+p.Components[c].Reason+")")
	}
	return "application " + p.Application + " is placed: " + strings.Join(parts, ", ")
}
