// Package packages is the package manager. What enters are packages as their
// authors write them and the bytes of their files; what leaves are packages by
// name and version, and, for what an application names, the complete list of
// packages it takes, by digest.
//
// A package is stored as an OCI image manifest, so the store can be given the
// face of an OCI registry: the package's description is the config blob, its
// files are the layers.
package packages

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/Masterminds/semver/v3"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/blobs"
	"github.com/decant-project/decant/internal/state"
)

// Limits of a package's files.
const (
	MaxModule = 64 * decant.MiB
	MaxModel  = 2 * decant.GiB
)

// Prefix begins the keys of packages in the state: packages/<name>/<version>
// holds a decant.Package.
const Prefix = "packages/"

// Inspector looks into a module.
type Inspector interface {
	// Exports returns the names of the module's functions. Invalid: it is not a
	// module that can run, or beyond limits, or there is no such limit.
	Exports(ctx context.Context, binary []byte, limits map[string]int) ([]string, error)
}

// Manager manages packages. It is safe for concurrent use.
type Manager struct {
	state   state.Store
	blobs   *blobs.Store
	inspect Inspector
}

// New makes a manager. Its index is in st, its files are in bl.
func New(st state.Store, bl *blobs.Store, inspect Inspector) *Manager {
	return &Manager{state: st, blobs: bl, inspect: inspect}
}

func key(name, version string) string { return Prefix + name + "/" + version }

// Push makes a package of blobs that were stored before: the module or model
// first, then the files beside it. A package that is there already, byte for
// byte, is left as it is. Conflict: this version has other bytes. NotFound: a
// blob is missing. Invalid: the description or the module is wrong.
func (m *Manager) Push(ctx context.Context, spec decant.PackageSpec, files []decant.Blob) (decant.Package, error) {
	if err := spec.Check(); err != nil {
		return decant.Package{}, err
	}
	if err := checkRanges(spec); err != nil {
		return decant.Package{}, err
	}
	files, err := m.checkFiles(spec, files)
	if err != nil {
		return decant.Package{}, err
	}
	pkg := decant.Package{PackageSpec: spec, Blobs: files, PushedAt: time.Now().UTC()}
	if spec.Module != nil {
		if pkg.Exports, err = m.exports(ctx, spec, files[0]); err != nil {
			return decant.Package{}, err
		}
	}
	if pkg.Digest, err = m.putManifest(ctx, spec, files); err != nil {
		return decant.Package{}, err
	}
	value, err := json.Marshal(pkg)
	if err != nil {
		return decant.Package{}, err
	}
	k := key(spec.Name, spec.Version)
	_, err = m.state.Commit(ctx, state.Txn{If: []state.Cond{{Key: k}}, Then: []state.Op{{Key: k, Value: value}}})
	if !errors.Is(err, decant.Conflict) {
		return pkg, err
	}
	old, err := m.get(ctx, k)
	if err != nil {
		return decant.Package{}, err
	}
	if old.Digest != pkg.Digest {
		return decant.Package{}, decant.Errorf(decant.Conflict, "package %s is there with other bytes (%s, not %s)", spec.Ref(), old.Digest.Short(), pkg.Digest.Short()).
			WithHelp("a version never changes: raise the version in package.yaml")
	}
	return old, nil
}

// checkRanges makes sure that every range can be read.
func checkRanges(spec decant.PackageSpec) error {
	for _, name := range sorted(spec.Requires) {
		if _, err := parseRange(spec.Requires[name]); err != nil {
			return decant.Errorf(decant.Invalid, "package %s requires %s: %w", spec.Ref(), name, err)
		}
	}
	for _, name := range sorted(spec.Models) {
		if _, err := parseRange(spec.Models[name].Accepts); err != nil {
			return decant.Errorf(decant.Invalid, "package %s, model %s: %w", spec.Ref(), name, err)
		}
	}
	return nil
}

// checkFiles makes sure that each file is stored, and returns the files with
// the sizes they have.
func (m *Manager) checkFiles(spec decant.PackageSpec, files []decant.Blob) ([]decant.Blob, error) {
	if len(files) == 0 || len(files) > 100 {
		return nil, decant.Errorf(decant.Invalid, "package %s has %d files: 1 to 100", spec.Ref(), len(files))
	}
	limit := MaxModel
	if spec.Module != nil {
		limit = MaxModule
	}
	out := slices.Clone(files)
	for i := range out {
		size, err := m.blobs.Stat(out[i].Digest)
		if err != nil {
			return nil, decant.Errorf(decant.CodeOf(err), "package %s: file %s: %w", spec.Ref(), out[i].Name, err)
		}
		if size > limit {
			return nil, decant.Errorf(decant.Exhausted, "package %s: file %s has %s: %s at most", spec.Ref(), out[i].Name, size, limit)
		}
		if out[i].Name == "" || strings.ContainsAny(out[i].Name, "/\\\x00") {
			return nil, decant.Errorf(decant.Invalid, "package %s: file name %q", spec.Ref(), out[i].Name)
		}
		out[i].Size = size
	}
	return out, nil
}

func (m *Manager) exports(ctx context.Context, spec decant.PackageSpec, module decant.Blob) ([]string, error) {
	binary, err := m.blobs.Read(module.Digest)
	if err != nil {
		return nil, err
	}
	exports, err := m.inspect.Exports(ctx, binary, spec.Module.Limits)
	if err != nil {
		return nil, decant.Errorf(decant.CodeOf(err), "package %s: %w", spec.Ref(), err)
	}
	if len(exports) == 0 {
		return nil, decant.Errorf(decant.Invalid, "package %s: the module has no functions", spec.Ref())
	}
	for _, name := range sorted(spec.Functions) {
		if !slices.Contains(exports, name) {
			return nil, decant.Errorf(decant.Invalid, "package %s describes a function %q that the module does not export; it has %s", spec.Ref(), name, strings.Join(exports, ", "))
		}
	}
	return exports, nil
}

func (m *Manager) get(ctx context.Context, k string) (decant.Package, error) {
	kv, err := m.state.Get(ctx, k)
	if err != nil {
		return decant.Package{}, err
	}
	return decode(kv)
}

func decode(kv state.KV) (decant.Package, error) {
	var p decant.Package
	if err := json.Unmarshal(kv.Value, &p); err != nil {
		return p, decant.Errorf(decant.Corrupt, "state key %s cannot be read: %w", kv.Key, err)
	}
	return p, nil
}

// List returns all packages, by name, the newest version of each first.
func (m *Manager) List(ctx context.Context) ([]decant.Package, error) {
	kvs, _, err := m.state.List(ctx, Prefix, 0)
	if err != nil {
		return nil, err
	}
	out := make([]decant.Package, 0, len(kvs))
	for _, kv := range kvs {
		p, err := decode(kv)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	slices.SortStableFunc(out, func(a, b decant.Package) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		return version(b.Version).Compare(version(a.Version))
	})
	return out, nil
}

// Get returns the newest version that ref allows, whether or not what it
// requires is here.
func (m *Manager) Get(ctx context.Context, ref decant.PackageRef) (decant.Package, error) {
	all, err := m.List(ctx)
	if err != nil {
		return decant.Package{}, err
	}
	alone := catalogue(all)
	for name, versions := range alone {
		for i := range versions {
			alone[name][i].Requires = nil
		}
	}
	found, err := resolve(alone, []decant.PackageRef{ref})
	if err != nil {
		return decant.Package{}, err
	}
	i := slices.IndexFunc(all, func(p decant.Package) bool { return p.Digest == found[0].Digest })
	return all[i], nil
}

// Remove removes a version. NotFound: there is none. The caller makes sure
// that nothing uses it.
func (m *Manager) Remove(ctx context.Context, name, version string) error {
	if _, err := m.get(ctx, key(name, version)); err != nil {
		if errors.Is(err, decant.NotFound) {
			return decant.Errorf(decant.NotFound, "there is no package %s@%s", name, version).WithHelp("`decant package ls` lists them")
		}
		return err
	}
	_, err := m.state.Commit(ctx, state.Txn{Then: []state.Op{{Key: key(name, version), Delete: true}}})
	return err
}

// Sweep deletes the blobs that belong to no package and are older than since:
// pushes under way have put, or asked for, newer ones. It returns how many.
func (m *Manager) Sweep(ctx context.Context, since time.Time) (int, error) {
	all, err := m.List(ctx)
	if err != nil {
		return 0, err
	}
	keep := map[decant.Digest]bool{}
	for _, p := range all {
		manifest, err := m.manifest(p.Digest)
		if err != nil {
			return 0, err // rather keep too much
		}
		keep[p.Digest], keep[decant.Digest(manifest.Config.Digest)] = true, true
		for _, layer := range manifest.Layers {
			keep[decant.Digest(layer.Digest)] = true
		}
	}
	return m.blobs.Sweep(since, func(d decant.Digest) bool { return keep[d] })
}

// Resolve returns all packages that roots take, by name. See resolve.
func (m *Manager) Resolve(ctx context.Context, roots ...decant.PackageRef) ([]decant.Package, error) {
	all, err := m.List(ctx)
	if err != nil {
		return nil, err
	}
	return resolve(catalogue(all), roots)
}

// CheckBinding returns an Invalid error unless model can be bound to module
// under the name as.
func CheckBinding(module decant.Package, as string, model decant.Package) error {
	if model.Model == nil {
		return decant.Errorf(decant.Invalid, "package %s is a module: bind a model as %q", model.Ref(), as)
	}
	use, declared := module.Models[as]
	if !declared {
		if len(module.Models) == 0 {
			return nil // it says nothing of its models
		}
		return decant.Errorf(decant.Invalid, "package %s loads no model %q; it loads %s", module.Ref(), as, strings.Join(sorted(module.Models), ", "))
	}
	offers := model.Model.Interface
	if offers == "" {
		offers = model.Name
	}
	if use.Interface != "" && use.Interface != offers {
		return decant.Errorf(decant.Invalid, "package %s wants a model with interface %q as %q; %s has %q", module.Ref(), use.Interface, as, model.Ref(), offers)
	}
	accepts, err := parseRange(use.Accepts)
	if err != nil {
		return err
	}
	if !accepts.Check(version(model.Version)) {
		return decant.Errorf(decant.Invalid, "package %s accepts version %s of the model %q, not %s", module.Ref(), use.Accepts, as, model.Ref())
	}
	return nil
}

// version parses a version that was checked when its package was pushed.
func version(s string) *semver.Version {
	v, err := semver.StrictNewVersion(s)
	if err != nil {
		return semver.New(0, 0, 0, "", "")
	}
	return v
}
