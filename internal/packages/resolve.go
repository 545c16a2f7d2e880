package packages

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"

	"github.com/decant-project/decant"
)

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// parseRange reads a range of versions; "" is any but pre-releases.
func parseRange(text string) (*semver.Constraints, error) {
	if text == "" {
		text = "*"
	}
	const most = 200
	if len(text) > most {
		return nil, decant.Errorf(decant.Invalid, "version range of %d bytes: %d at most", len(text), most)
	}
	c, err := semver.NewConstraint(text)
	if err != nil {
		return nil, decant.Errorf(decant.Invalid, "version range %q: write one such as ^1, ~1.2 or 1.2.3", text)
	}
	return c, nil
}

// catalogue sorts packages, given the newest of each name first, by name.
func catalogue(all []decant.Package) map[string][]decant.Package {
	out := map[string][]decant.Package{}
	for _, p := range all {
		out[p.Name] = append(out[p.Name], p)
	}
	return out
}

// demand is a range that somebody asks of a package, and the chain to them.
type demand struct {
	ref   decant.PackageRef
	rng   *semver.Constraints
	chain []string // from a root: name@version, ...
}

// maxSteps bounds the search for versions that agree.
const maxSteps = 100_000

// resolver looks for one version of each package such that all demands hold.
type resolver struct {
	all     map[string][]decant.Package // newest first
	chosen  map[string]decant.Package
	demands map[string][]demand // on each package, by all that are chosen
	steps   int
	failure error // the first, which names the newest versions
}

// resolve returns, by name, one version of each package that roots take, the
// highest that all demands allow: versions are tried from the newest, and given
// up again where those that they require leave none. Packages may require each
// other in a circle. Failures name the chain from a root.
func resolve(all map[string][]decant.Package, roots []decant.PackageRef) ([]decant.Package, error) {
	r := &resolver{all: all, chosen: map[string]decant.Package{}, demands: map[string][]demand{}}
	var todo []demand
	for _, ref := range roots {
		d, err := newDemand(ref, nil)
		if err != nil {
			return nil, err
		}
		todo = append(todo, d)
	}
	if !r.satisfy(todo) {
		if r.steps > maxSteps {
			return nil, decant.Errorf(decant.Invalid, "no versions that agree were found within %d steps", maxSteps).WithHelp("name exact versions")
		}
		return nil, r.failure
	}
	out := make([]decant.Package, 0, len(r.chosen))
	for _, name := range sorted(r.chosen) {
		out = append(out, r.chosen[name])
	}
	return out, nil
}

func newDemand(ref decant.PackageRef, chain []string) (demand, error) {
	rng, err := parseRange(ref.Range)
	return demand{ref: ref, rng: rng, chain: chain}, err
}

// satisfy chooses packages for the demands of todo and all that follow from
// them. If that cannot be, it leaves everything as it was.
func (r *resolver) satisfy(todo []demand) bool {
	if r.steps++; r.steps > maxSteps {
		return false
	}
	if len(todo) == 0 {
		return true
	}
	d, rest := todo[0], todo[1:]
	name := d.ref.Name
	r.demands[name] = append(r.demands[name], d)
	defer func(n int) { r.demands[name] = r.demands[name][:n] }(len(r.demands[name]) - 1)

	if p, ok := r.chosen[name]; ok {
		if !d.rng.Check(version(p.Version)) {
			return r.fail(name)
		}
		return r.satisfy(rest)
	}
	tried := false
	for _, p := range r.all[name] {
		if !r.allowed(p) {
			continue
		}
		tried = true
		next, err := requirements(p, d.chain)
		if err != nil {
			continue
		}
		r.chosen[name] = p
		if r.satisfy(slices.Concat(rest, next)) {
			return true
		}
		delete(r.chosen, name)
	}
	if !tried {
		r.fail(name)
	}
	return false
}

func (r *resolver) allowed(p decant.Package) bool {
	return !slices.ContainsFunc(r.demands[p.Name], func(d demand) bool { return !d.rng.Check(version(p.Version)) })
}

func requirements(p decant.Package, chain []string) ([]demand, error) {
	chain = append(slices.Clone(chain), p.Ref())
	var out []demand
	for _, name := range sorted(p.Requires) {
		d, err := newDemand(decant.PackageRef{Name: name, Range: p.Requires[name]}, chain)
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}

// fail keeps the first reason why the demands on a package cannot hold.
func (r *resolver) fail(name string) bool {
	if r.failure != nil {
		return false
	}
	var wants []string
	for _, d := range r.demands[name] {
		want := d.ref.String()
		if len(d.chain) > 0 {
			want = strings.Join(d.chain, " -> ") + " requires " + want
		}
		if !slices.Contains(wants, want) {
			wants = append(wants, want)
		}
	}
	var have []string
	for _, p := range r.all[name] {
		have = append(have, p.Version)
	}
	switch {
	case len(have) == 0:
		what := strings.Join(wants, " and ") + ": "
		if what == name+": " {
			what = "" // nothing but the user asks for it
		}
		r.failure = decant.Errorf(decant.NotFound, "%sthere is no package %s", what, name).
			WithHelp("push it with: decant package push")
	case len(wants) > 1:
		r.failure = decant.Errorf(decant.Invalid, "no version of %s satisfies all: %s; there are %s", name, strings.Join(wants, " and "), versions(have))
	default:
		r.failure = decant.Errorf(decant.NotFound, "%s: there are only %s", wants[0], versions(have))
	}
	return false
}

func versions(have []string) string {
	const most = 10
	if more := len(have) - most; more > 0 {
		return strings.Join(have[:most], ", ") + fmt.Sprintf(" and %d more", more)
	}
	return strings.Join(have, ", ")
}
