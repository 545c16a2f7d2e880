package orchestrator

import (
	"context"
	"io"
	"slices"
	"strings"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/api/site"
	"github.com/decant-project/decant/internal/packages"
)

// Site returns which site this is.
func (o *Orchestrator) Site(context.Context) (site.Info, error) {
	return site.Info{Site: o.Authority.Site(), Version: o.Version, Pin: o.Authority.Pin().String(), Addresses: o.Addresses()}, nil
}

// PutBlob stores a blob. Corrupt: the bytes are not those of the digest.
func (o *Orchestrator) PutBlob(ctx context.Context, digest decant.Digest, body io.Reader) error {
	_, _, err := o.Blobs.Put(ctx, body, digest, packages.MaxModel)
	return err
}

// StatBlob returns a blob's size. Who asks may leave out putting it: it stays as
// long as one just put. NotFound: it is not here.
func (o *Orchestrator) StatBlob(_ context.Context, digest decant.Digest) (decant.Bytes, error) {
	if err := o.Blobs.Touch(digest); err != nil {
		return 0, err
	}
	return o.Blobs.Stat(digest)
}

// OpenBlob opens a blob. NotFound: it is not here.
func (o *Orchestrator) OpenBlob(_ context.Context, digest decant.Digest) (io.ReadSeekCloser, error) {
	return o.Blobs.Open(digest)
}

// PushPackage makes a package of stored blobs.
func (o *Orchestrator) PushPackage(ctx context.Context, spec decant.PackageSpec, files []decant.Blob) (decant.Package, error) {
	return o.Packages.Push(ctx, spec, files)
}

// ListPackages returns all packages, by name, the newest first.
func (o *Orchestrator) ListPackages(ctx context.Context) ([]decant.Package, error) {
	return o.Packages.List(ctx)
}

// Package returns the newest version that ref, name or name@range, allows.
func (o *Orchestrator) Package(ctx context.Context, ref string) (decant.Package, error) {
	r, err := decant.ParsePackageRef(ref)
	if err != nil {
		return decant.Package{}, err
	}
	return o.Packages.Get(ctx, r)
}

// RemovePackage removes a version. Conflict names the applications that use it.
func (o *Orchestrator) RemovePackage(ctx context.Context, name, version string) error {
	var users []string
	err := each(ctx, o.State, appsPrefix, func(_ string, r appRecord, _ int64) {
		if slices.ContainsFunc(r.Packages, func(p decant.Package) bool { return p.Name == name && p.Version == version }) {
			users = append(users, r.Application.Name)
		}
	})
	if err != nil {
		return err
	}
	if len(users) > 0 {
		return decant.Errorf(decant.Conflict, "package %s@%s is in use by %s", name, version, strings.Join(users, ", ")).
			WithHelp("remove or update these first: decant app rm, decant deploy")
	}
	return o.Packages.Remove(ctx, name, version)
}
