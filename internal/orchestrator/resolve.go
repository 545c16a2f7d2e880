package orchestrator

import (
	"context"
	"slices"
	"strings"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/packages"
)

// resolve finds the packages of every component, by digest. Each component is
// resolved by itself: two may use two versions of one package.
func (o *Orchestrator) resolve(ctx context.Context, app decant.Application) ([]decant.Package, map[string]binding, error) {
	var all []decant.Package
	index := func(p decant.Package) int {
		if i := slices.IndexFunc(all, func(q decant.Package) bool { return q.Digest == p.Digest }); i >= 0 {
			return i
		}
		all = append(all, p)
		return len(all) - 1
	}
	bindings := map[string]binding{}
	for _, name := range app.ComponentNames() {
		b, err := o.resolveComponent(ctx, app.Components[name], index)
		if err != nil {
			return nil, nil, decant.Errorf(decant.CodeOf(err), "component %s: %w", name, err)
		}
		if err := checkFunction(app, name, all[b.Module]); err != nil {
			return nil, nil, err
		}
		bindings[name] = b
	}
	return all, bindings, nil
}

func (o *Orchestrator) resolveComponent(ctx context.Context, c decant.Component, index func(decant.Package) int) (binding, error) {
	module, err := decant.ParsePackageRef(c.Package)
	if err != nil {
		return binding{}, err
	}
	roots := []decant.PackageRef{module}
	models := map[string]decant.PackageRef{}
	for _, as := range sortedKeys(c.Models) {
		if models[as], err = decant.ParsePackageRef(c.Models[as]); err != nil {
			return binding{}, err
		}
		roots = append(roots, models[as])
	}
	found, err := o.Packages.Resolve(ctx, roots...)
	if err != nil {
		return binding{}, err
	}
	at := map[string]int{}
	byName := map[string]decant.Package{}
	for _, p := range found {
		at[p.Name], byName[p.Name] = index(p), p
	}
	b := binding{Module: at[module.Name]}
	if byName[module.Name].Module == nil {
		return binding{}, decant.Errorf(decant.Invalid, "package %s is a model: a component runs a module", byName[module.Name].Ref())
	}
	for _, as := range sortedKeys(models) {
		if err := packages.CheckBinding(byName[module.Name], as, byName[models[as].Name]); err != nil {
			return binding{}, err
		}
		if b.Models == nil {
			b.Models = map[string]int{}
		}
		b.Models[as] = at[models[as].Name]
	}
	for _, as := range sortedKeys(byName[module.Name].Models) {
		if _, bound := models[as]; !bound {
			return binding{}, decant.Errorf(decant.Invalid, "package %s loads a model %q that is not bound", byName[module.Name].Ref(), as).
				WithHelp("add to the component: models: {%s: PACKAGE@RANGE}", as)
		}
	}
	return b, nil
}

// checkFunction finds the function that links, triggers and invocations call.
func checkFunction(app decant.Application, component string, module decant.Package) error {
	if _, err := functionOf(app.Components[component], module); err != nil {
		return decant.Errorf(decant.CodeOf(err), "component %s: %w", component, err)
	}
	return nil
}

func functionOf(c decant.Component, module decant.Package) (string, error) {
	switch {
	case c.Function == "" && len(module.Exports) == 1:
		return module.Exports[0], nil
	case c.Function == "" && slices.Contains(module.Exports, "_start"):
		return "_start", nil
	case c.Function == "":
		return "", decant.Errorf(decant.Invalid, "package %s has %d functions (%s): set the component's function", module.Ref(), len(module.Exports), strings.Join(module.Exports, ", "))
	case !slices.Contains(module.Exports, c.Function):
		return "", decant.Errorf(decant.NotFound, "package %s has no function %q; it has %s", module.Ref(), c.Function, strings.Join(module.Exports, ", "))
	}
	return c.Function, nil
}

// needs returns what a device must have for component and its package.
func (r appRecord) needs(component string) decant.Needs {
	b := r.Bindings[component]
	n := r.Packages[b.Module].Needs.And(r.Application.Components[component].Needs)
	n.Inference = n.Inference || len(b.Models) > 0
	return n
}

// spec returns the instance that component is, without its links.
func (r appRecord) spec(component string, epoch int64) decant.InstanceSpec {
	c, b := r.Application.Components[component], r.Bindings[component]
	module := r.Packages[b.Module]
	function, _ := functionOf(c, module) // was checked when it was resolved
	needs := r.needs(component)
	spec := decant.InstanceSpec{
		Application: r.Application.Name,
		Component:   component,
		Revision:    r.Revision,
		Epoch:       epoch,
		Package:     module.Ref(),
		Module:      module.Blobs[0],
		Function:    function,
		Functions:   module.Functions,
		Peripherals: needs.Peripherals,
		Trigger:     c.Trigger,
		Memory:      needs.Memory,
		Deadline:    c.Deadline,
	}
	for as, i := range b.Models {
		if spec.Models == nil {
			spec.Models = map[string]decant.BoundModel{}
		}
		p := r.Packages[i]
		spec.Models[as] = decant.BoundModel{Package: p.Ref(), Format: p.Model.Format, Model: p.Blobs[0], Files: p.Blobs[1:]}
	}
	return spec
}

// target is where the view's application should be, given its placement.
func (v *view) target(device map[string]string) target {
	record := v.record.value
	addresses := map[string][]string{}
	for _, d := range v.devices {
		addresses[d.ID] = d.Addresses
	}
	return target{
		app:    record.Application,
		device: device,
		spec:   record.spec,
		route: func(l decant.Link, device string, epoch int64) decant.Route {
			function, _ := functionOf(record.Application.Components[l.To], record.Packages[record.Bindings[l.To].Module])
			return decant.Route{
				Name: l.Name, Component: l.To, Function: function,
				Device: device, Addresses: addresses[device], Epoch: epoch,
			}
		},
	}
}
