package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/state"
	"github.com/decant-project/decant/internal/transport"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// Deploy admits an application: a new one, or the next revision of one. What
// follows is reconciled; see Watch. It is checked first whether its packages
// resolve, so that a mistyped name is an answer and not a note. after is the
// revision the change is based on, 0 for any. Conflict: it has another.
func (o *Orchestrator) Deploy(ctx context.Context, app decant.Application, after int) (decant.Deployment, error) {
	if err := app.Check(); err != nil {
		return decant.Deployment{}, err
	}
	pkgs, bindings, err := o.resolve(ctx, app)
	if err != nil {
		return decant.Deployment{}, err
	}
	var old stored[appRecord]
	key := appsPrefix + app.Name
	if err := load(ctx, o.State, key, &old); err != nil {
		return decant.Deployment{}, err
	}
	switch {
	case old.rev != 0 && old.value.Removed:
		return decant.Deployment{}, decant.Errorf(decant.Conflict, "application %s is being removed", app.Name).
			WithHelp("deploy again once `decant app ls` no longer lists it")
	case after != 0 && after != old.value.Revision:
		return decant.Deployment{}, decant.Errorf(decant.Conflict, "application %s has revision %d, not %d: somebody changed it", app.Name, old.value.Revision, after).
			WithHelp("look at it with `decant app show %s` and deploy again", app.Name)
	}
	now := time.Now().UTC()
	record := appRecord{Application: app, Revision: old.value.Revision + 1, CreatedAt: now, ChangedAt: now, Packages: pkgs, Bindings: bindings}
	if old.rev != 0 {
		record.CreatedAt = old.value.CreatedAt
		if sameJSON(old.value.Application, app) && sameJSON(old.value.Packages, pkgs) {
			return o.Deployment(ctx, app.Name) // nothing has changed
		}
	}
	err = o.commit(ctx, []state.Cond{old.cond(key)}, put(key, record), put(historyKey(app.Name, record.Revision), record))
	if err != nil {
		return decant.Deployment{}, err
	}
	o.event(ctx, decant.Event{Kind: "app.deployed", Application: app.Name, Message: fmt.Sprintf("application %s is at revision %d", app.Name, record.Revision)})
	return o.Deployment(ctx, app.Name)
}

// Undeploy takes an application off its devices and then forgets it.
func (o *Orchestrator) Undeploy(ctx context.Context, name string) error {
	var old stored[appRecord]
	key := appsPrefix + name
	if err := load(ctx, o.State, key, &old); err != nil {
		return err
	}
	if old.rev == 0 {
		return noApplication(name)
	}
	if old.value.Removed {
		return nil
	}
	old.value.Removed, old.value.ChangedAt = true, time.Now().UTC()
	return o.commit(ctx, []state.Cond{old.cond(key)}, put(key, old.value))
}

func noApplication(name string) error {
	return decant.Errorf(decant.NotFound, "there is no application %q", name).WithHelp("`decant app ls` lists them")
}

// Deployments returns all applications, by name.
func (o *Orchestrator) Deployments(ctx context.Context) ([]decant.Deployment, error) {
	kvs, _, err := o.State.List(ctx, appsPrefix, 0)
	if err != nil {
		return nil, err
	}
	out := make([]decant.Deployment, 0, len(kvs))
	for _, kv := range kvs {
		d, err := o.Deployment(ctx, strings.TrimPrefix(kv.Key, appsPrefix))
		if decant.CodeOf(err) == decant.NotFound {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}

// Deployment returns an application with all that is known of it.
func (o *Orchestrator) Deployment(ctx context.Context, name string) (decant.Deployment, error) {
	v, err := o.look(ctx, name)
	if err != nil {
		return decant.Deployment{}, err
	}
	if v.record.rev == 0 {
		return decant.Deployment{}, noApplication(name)
	}
	d := v.record.value.deployment()
	if v.placement.rev != 0 {
		d.Placement = &v.placement.value
	}
	if v.plan.rev != 0 {
		d.Plan = &v.plan.value
	}
	d.Instances = map[string]decant.InstanceStatus{}
	for c, own := range v.now.owner {
		if _, part := d.Application.Components[c]; !part || own.Device == "" {
			continue
		}
		s := v.now.reported[place{c, own.Device}]
		if s.State == "" || s.Epoch != own.Epoch {
			s = decant.InstanceStatus{Application: name, Component: c, State: decant.InstancePending, Epoch: own.Epoch, Revision: d.Revision}
		}
		s.Device = own.Device
		d.Instances[c] = s
	}
	d.Status, d.Message = v.status(d)
	return d, nil
}

// History returns every revision of an application, the newest first.
func (o *Orchestrator) History(ctx context.Context, name string) ([]decant.Deployment, error) {
	var out []decant.Deployment
	err := each(ctx, o.State, historyPrefix+name+"/", func(_ string, r appRecord, _ int64) {
		out = append(out, r.deployment())
	})
	if err == nil && len(out) == 0 {
		return nil, noApplication(name)
	}
	slices.Reverse(out)
	return out, err
}

func (r appRecord) deployment() decant.Deployment {
	return decant.Deployment{
		Application: r.Application, Revision: r.Revision, Removed: r.Removed, Packages: r.Packages,
		CreatedAt: r.CreatedAt, ChangedAt: r.ChangedAt,
	}
}

// status sums up d, and says what stands in its way.
func (v *view) status(d decant.Deployment) (decant.DeploymentStatus, string) {
	message := v.note.value.Message
	switch {
	case d.Removed:
		return decant.DeployRemoving, message
	case d.Placement == nil:
		return decant.DeployPending, message
	case d.Plan == nil || d.Plan.Revision != d.Revision || !d.Plan.Done():
		return decant.DeployRolling, message
	}
	for _, c := range d.Application.ComponentNames() {
		s := d.Instances[c]
		if s.State != decant.InstanceRunning {
			message = fmt.Sprintf("component %s on %s is %s", c, deviceName(v.devices, s.Device), s.State)
			if s.Error != nil {
				message += ": " + s.Error.Error()
			}
			return decant.DeployDegraded, message
		}
		if i := slices.IndexFunc(v.devices, func(d decant.Device) bool { return d.ID == s.Device }); i >= 0 && !v.devices[i].Online {
			return decant.DeployDegraded, fmt.Sprintf("%s, which runs %s, is offline since %s", v.devices[i].Name, c, v.devices[i].LastSeen.Format(time.DateTime))
		}
	}
	if message != "" {
		return decant.DeployDegraded, message
	}
	return decant.DeployRunning, ""
}

// WatchDeployment sends an application as it is now and whenever it changes,
// until ctx ends or send fails. NotFound: there is none, or no more; that it was
// being removed may have passed too soon to be sent.
func (o *Orchestrator) WatchDeployment(ctx context.Context, name string, send func(decant.Deployment) error) error {
	var last decant.Deployment
	show := func() error {
		d, err := o.Deployment(ctx, name)
		if err != nil || sameJSON(d, last) {
			return err
		}
		last = d
		return send(d)
	}
	for {
		if err := o.atEachChange(ctx, show); !errors.Is(err, state.ErrCompacted) {
			return err
		}
	}
}

// atEachChange calls f now and whenever the state has changed, until f fails or
// ctx ends. ErrCompacted: it fell too far behind.
func (o *Orchestrator) atEachChange(ctx context.Context, f func() error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	_, rev, err := o.State.List(ctx, appsPrefix, 0)
	if err != nil {
		return err
	}
	if err := f(); err != nil {
		return err
	}
	for batch := range o.State.Watch(ctx, "", rev) {
		if batch.Err != nil {
			return batch.Err
		}
		if err := f(); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// Invoke calls a component of a running application, its entry where component
// is "", and returns what comes back along its links.
func (o *Orchestrator) Invoke(ctx context.Context, req *transport.Request) (*transport.Response, error) {
	to, err := o.Locate(ctx, req.Application, &req.Component)
	if err != nil {
		return nil, err
	}
	return o.Caller.Call(ctx, to, req)
}

// ComponentLog streams the log of one component.
func (o *Orchestrator) ComponentLog(ctx context.Context, app, component string, follow bool) (io.ReadCloser, error) {
	to, err := o.Locate(ctx, app, &component)
	if err != nil {
		return nil, err
	}
	return o.Devices.Log(ctx, to, app, component, follow)
}

// Locate returns where a component runs. A component of "" is set to the
// application's entry.
func (o *Orchestrator) Locate(ctx context.Context, app string, component *string) (transport.Target, error) {
	var record stored[appRecord]
	if err := load(ctx, o.State, appsPrefix+app, &record); err != nil {
		return transport.Target{}, err
	}
	if record.rev == 0 {
		return transport.Target{}, noApplication(app)
	}
	spec := record.value.Application
	if *component == "" {
		var err error
		if *component, err = spec.Entry(); err != nil {
			return transport.Target{}, err
		}
	}
	if _, ok := spec.Components[*component]; !ok {
		return transport.Target{}, decant.Errorf(decant.NotFound, "application %s has no component %q; it has %s", app, *component, strings.Join(spec.ComponentNames(), ", "))
	}
	var own stored[owner]
	if err := load(ctx, o.State, ownerKey(app, *component), &own); err != nil {
		return transport.Target{}, err
	}
	if own.value.Device == "" {
		return transport.Target{}, decant.Errorf(decant.Unavailable, "component %s runs nowhere yet", *component).
			WithHelp("`decant app show %s` says what it waits for", app)
	}
	d, err := o.device(ctx, own.value.Device)
	if err != nil {
		return transport.Target{}, err
	}
	return transport.Target{Device: d.value.Info.ID, Addresses: d.value.Info.Addresses}, nil
}
