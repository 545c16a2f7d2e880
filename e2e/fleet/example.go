package fleet

import (
	"context"
	"os"
	"path/filepath"
	"slices"

	"github.com/decant-project/decant"
)

// Example is an application with all that it needs, in a folder: app.yaml,
// devices/<name> with a device.yaml each, and the folders of its packages.
type Example struct {
	App      string   // path of app.yaml
	Devices  []string // folders, sorted
	Packages []string // folders, sorted
}

// OpenExample finds an example's parts. NotFound: there is no example in dir.
func OpenExample(dir string) (Example, error) {
	e := Example{App: filepath.Join(dir, "app.yaml")}
	if _, err := os.Stat(e.App); err != nil {
		return e, decant.Errorf(decant.NotFound, "there is no example in %s: run this in the project's folder", dir)
	}
	folders := func(patterns ...string) (out []string) {
		for _, pattern := range patterns {
			files, _ := filepath.Glob(filepath.Join(dir, filepath.FromSlash(pattern))) // the pattern is good
			for _, file := range files {
				out = append(out, filepath.Dir(file))
			}
		}
		slices.Sort(out)
		return out
	}
	e.Devices = folders("devices/*/device.yaml")
	e.Packages = folders("*/package.yaml", "models/*/package.yaml")
	return e, nil
}

// AddDevice gives a device its own folder in the fleet, a copy of template,
// and returns its name, the template's. What the processes write stays there.
func (f *Fleet) AddDevice(template string) (name string, err error) {
	name = filepath.Base(template)
	return name, os.CopyFS(filepath.Join(f.Dir, name), os.DirFS(template))
}

// Join starts a device and lets it join with a code of its own.
func (f *Fleet) Join(ctx context.Context, name string, args ...string) (*Process, error) {
	code, err := f.JoinCode(ctx)
	if err != nil {
		return nil, err
	}
	return f.StartDevice(name, code, args...)
}

// Push builds packages and pushes them.
func (f *Fleet) Push(ctx context.Context, folders ...string) ([]decant.Package, error) {
	var pushed []decant.Package
	return pushed, f.Query(ctx, &pushed, append([]string{"package", "push"}, folders...)...)
}
