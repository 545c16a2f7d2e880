package decant

import (
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
)

// PackageSpec is a package as its author writes it in package.yaml. A package
// is a module or a model: exactly one of Module and Model is set.
type PackageSpec struct {
	Name        string              `json:"package"`
	Version     string              `json:"version" doc:"Semantic version: 1.2.3"`
	Description string              `json:"description,omitempty"`
	Licence     string              `json:"licence,omitempty" doc:"SPDX expression"`
	Module      *ModuleSpec         `json:"module,omitempty"`
	Model       *ModelSpec          `json:"model,omitempty"`
	Functions   map[string]Function `json:"functions,omitempty" doc:"Content types of a module's functions"`
	Models      map[string]ModelUse `json:"models,omitempty" doc:"Models a module loads, by the name it loads them under"`
	Requires    map[string]string   `json:"requires,omitempty" doc:"Other packages this one needs: name to version range"`
	Needs       Needs               `json:"needs,omitzero"`
}

// ModuleSpec says where a package's Wasm file is and how it is made.
type ModuleSpec struct {
	Build  string         `json:"build,omitempty" doc:"Command run in the package's folder before a push"`
	File   string         `json:"file" doc:"The .wasm file, relative to package.yaml"`
	Limits map[string]int `json:"limits,omitempty" doc:"Limits of the module, where they are tighter than decant's own: it is not pushed beyond them"`
}

// ModelSpec says where a package's model file is and what it is.
type ModelSpec struct {
	File      string   `json:"file" doc:"The model file, relative to package.yaml"`
	Format    string   `json:"format" doc:"onnx"`
	Interface string   `json:"interface,omitempty" doc:"Name of the inputs and outputs it agrees to; the package's name where absent"`
	Files     []string `json:"files,omitempty" doc:"Files that travel with it, such as labels"`
}

// Function describes an export that can be called.
type Function struct {
	In  string `json:"in,omitempty" doc:"Content type of the request"`
	Out string `json:"out,omitempty" doc:"Content type of the response"`
}

// ModelUse is what a module asks of a model bound to it.
type ModelUse struct {
	Interface string `json:"interface,omitempty"`
	Accepts   string `json:"accepts,omitempty" doc:"Version range"`
}

// Needs are what a device must have to run something. Zero fields ask nothing.
type Needs struct {
	Peripherals []string          `json:"peripherals,omitempty" doc:"Peripherals by name or type, bound as /dev/<need>"`
	Memory      Bytes             `json:"memory,omitempty" doc:"Most memory an instance may take"`
	Inference   bool              `json:"inference,omitempty" doc:"A backend for models, through wasi-nn"`
	Labels      map[string]string `json:"labels,omitempty" doc:"Labels the device must carry"`
}

// And returns what asks for both n and m; of two memory sizes the larger, of
// two values of a label m's.
func (n Needs) And(m Needs) Needs {
	out := Needs{
		Peripherals: slices.Concat(n.Peripherals, m.Peripherals),
		Memory:      max(n.Memory, m.Memory),
		Inference:   n.Inference || m.Inference,
		Labels:      maps.Clone(n.Labels),
	}
	slices.Sort(out.Peripherals)
	out.Peripherals = slices.Compact(out.Peripherals)
	if out.Labels == nil && m.Labels != nil {
		out.Labels = map[string]string{}
	}
	maps.Copy(out.Labels, m.Labels)
	return out
}

// Blob is a file of a package in the content-addressed store.
type Blob struct {
	Name      string `json:"name" doc:"File name within the package"`
	MediaType string `json:"media_type"`
	Digest    Digest `json:"digest"`
	Size      Bytes  `json:"size"`
}

// Media types of blobs.
const (
	MediaTypeWasm = "application/wasm"
	MediaTypeONNX = "application/vnd.cncf.model.weight.v1.raw"
	MediaTypeFile = "application/octet-stream"
)

// Package is a package as the package manager has stored it. Digest covers
// all of it: two packages of one digest are the same.
type Package struct {
	PackageSpec
	Digest   Digest    `json:"digest" doc:"Digest of the manifest"`
	Blobs    []Blob    `json:"blobs" doc:"The module or model first, then the files beside it"`
	Exports  []string  `json:"exports,omitempty" doc:"Functions found in the module"`
	PushedAt time.Time `json:"pushed_at"`
}

// Ref returns name@version.
func (p PackageSpec) Ref() string { return p.Name + "@" + p.Version }

// PackageRef names a package and a range of versions: silero-vad@^5. A range
// is what semantic versioning tools know: ^1, ~1.2, 1.2.3, >=1 <3; none means
// the newest.
type PackageRef struct {
	Name  string
	Range string
}

// ParsePackageRef reads name or name@range.
func ParsePackageRef(s string) (PackageRef, error) {
	name, rng, hasRange := strings.Cut(s, "@")
	if err := CheckName("package", name); err != nil {
		return PackageRef{}, err
	}
	if hasRange && strings.TrimSpace(rng) == "" {
		return PackageRef{}, Errorf(Invalid, "package %q: nothing after @: write a version or a range such as ^1", s)
	}
	return PackageRef{Name: name, Range: strings.TrimSpace(rng)}, nil
}

func (r PackageRef) String() string {
	if r.Range == "" {
		return r.Name
	}
	return r.Name + "@" + r.Range
}

// Semantic versions, as https://semver.org gives them.
var versionPattern = regexp.MustCompile(`^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$`)

// Check returns an Invalid error that says what to change.
func (p PackageSpec) Check() error {
	if err := CheckName("package", p.Name); err != nil {
		return err
	}
	if !versionPattern.MatchString(p.Version) || len(p.Version) > 128 {
		return Errorf(Invalid, "package %s: version %q: write a semantic version such as 1.0.0", p.Name, p.Version)
	}
	switch {
	case p.Module == nil && p.Model == nil:
		return Errorf(Invalid, "package %s has neither a module nor a model: set module.file or model.file", p.Name)
	case p.Module != nil && p.Model != nil:
		return Errorf(Invalid, "package %s has both a module and a model: make two packages of it", p.Name)
	case p.Model != nil && p.Model.Format != "onnx":
		return Errorf(Invalid, "package %s: model format %q is not supported: use onnx", p.Name, p.Model.Format)
	case p.Model != nil && (len(p.Functions) > 0 || len(p.Models) > 0):
		return Errorf(Invalid, "package %s is a model: functions and models belong to modules", p.Name)
	}
	for _, f := range p.files() {
		if !isLocalFile(f) {
			return Errorf(Invalid, "package %s: file %q: must lie in the package's folder", p.Name, f)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.Models)) {
		if err := CheckName("model", name); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.Requires)) {
		if err := CheckName("required package", name); err != nil {
			return err
		}
	}
	return p.Needs.Check()
}

// files returns every file the package names, the main one first.
func (p PackageSpec) files() []string {
	if p.Module != nil {
		return []string{p.Module.File}
	}
	return append([]string{p.Model.File}, p.Model.Files...)
}

func isLocalFile(name string) bool {
	return name != "" && !path.IsAbs(name) && path.Clean(name) == name && name != ".." &&
		!strings.HasPrefix(name, "../") && !strings.ContainsAny(name, "\\\x00") && name != "."
}

// Check returns an Invalid error that says what to change.
func (n Needs) Check() error {
	if n.Memory > 4*GiB {
		return Errorf(Invalid, "needs.memory %s: a module can have 4GiB at most", n.Memory)
	}
	for _, p := range n.Peripherals {
		if err := CheckName("peripheral", p); err != nil {
			return err
		}
	}
	for _, k := range slices.Sorted(maps.Keys(n.Labels)) {
		if err := CheckName("label", k); err != nil {
			return err
		}
	}
	return nil
}
