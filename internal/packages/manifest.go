package packages

import (
	"bytes"
	"context"
	"encoding/json"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/decant-project/decant"
)

// Media types of a package in OCI terms.
const (
	artifactType = "application/vnd.decant.package.v1"
	configType   = "application/vnd.decant.package.config.v1+json"
)

// maxManifest bounds a manifest, and a description, in bytes.
const maxManifest = 4 * decant.MiB

// putManifest stores the description and the manifest of a package, and
// returns the manifest's digest. The same package gives the same bytes.
func (m *Manager) putManifest(ctx context.Context, spec decant.PackageSpec, files []decant.Blob) (decant.Digest, error) {
	config, err := json.Marshal(spec)
	if err != nil {
		return "", err
	}
	manifest := v1.Manifest{
		Versioned:    specs.Versioned{SchemaVersion: 2},
		MediaType:    v1.MediaTypeImageManifest,
		ArtifactType: artifactType,
		Config: v1.Descriptor{
			MediaType: configType,
			Digest:    digest.Digest(decant.DigestOf(config)),
			Size:      int64(len(config)),
		},
	}
	for _, f := range files {
		manifest.Layers = append(manifest.Layers, v1.Descriptor{
			MediaType:   f.MediaType,
			Digest:      digest.Digest(f.Digest),
			Size:        int64(f.Size),
			Annotations: map[string]string{v1.AnnotationTitle: f.Name},
		})
	}
	data, err := json.Marshal(manifest)
	if err != nil {
		return "", err
	}
	for _, b := range [][]byte{config, data} {
		if _, _, err := m.blobs.Put(ctx, bytes.NewReader(b), "", maxManifest); err != nil {
			return "", err
		}
	}
	return decant.DigestOf(data), nil
}

// manifest reads the manifest of a stored package.
func (m *Manager) manifest(d decant.Digest) (v1.Manifest, error) {
	var manifest v1.Manifest
	data, err := m.blobs.Read(d)
	if err != nil {
		return manifest, err
	}
	if err := json.Unmarshal(data, &manifest); err != nil {
		return manifest, decant.Errorf(decant.Corrupt, "manifest %s cannot be read: %w", d, err)
	}
	return manifest, nil
}
