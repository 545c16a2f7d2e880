package supervisor

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/api/device"
	"github.com/decant-project/decant/internal/blobs"
	"github.com/decant-project/decant/internal/durable"
	"github.com/decant-project/decant/internal/nn"
)

// Bounds of uploaded models.
const (
	maxModels = 64
	maxModel  = 2 * decant.GiB
)

// models loads models: those bound to instances, from the blobs, and those
// uploaded under a name, from a store of their own that holds a blob each and
// a file "<name>" with its digest. A model is loaded once, whoever uses it.
type models struct {
	dir     string
	blobs   *blobs.Store // of bound models
	uploads *blobs.Store
	open    func() (nn.Backend, error)

	naming sync.Mutex // held while names change

	mu      sync.Mutex
	backend nn.Backend // nil until the first model
	cache   *nn.Cache  // of backend's models
}

func openModels(dir string, bound *blobs.Store, open func() (nn.Backend, error)) (*models, error) {
	uploads, err := blobs.Open(filepath.Join(dir, "blobs"))
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(dir, "names"), 0o700); err != nil {
		return nil, decant.Errorf(decant.Internal, "cannot make the folder of models: %w", err)
	}
	m := &models{dir: dir, blobs: bound, uploads: uploads, open: open}
	_ = m.sweep() // the next start tries again
	return m, nil
}

// start opens the backend at the first call.
func (m *models) start() (*nn.Cache, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cache != nil {
		return m.cache, nil
	}
	if m.open == nil {
		return nil, decant.Errorf(decant.Unsupported, "this device has no backend for models").
			WithHelp("install ONNX Runtime and set onnxruntime in device.yaml to the path of its library")
	}
	b, err := m.open()
	if err != nil {
		return nil, err
	}
	m.backend, m.cache = b, nn.NewCache(b)
	return m.cache, nil
}

func (m *models) close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.backend == nil {
		return nil
	}
	err := m.backend.Close()
	m.backend, m.cache = nil, nil
	return err
}

// load returns the model of a blob; the caller closes it.
func (m *models) load(ctx context.Context, store *blobs.Store, d decant.Digest) (nn.Model, error) {
	cache, err := m.start()
	if err != nil {
		return nil, err
	}
	return cache.Open(ctx, string(d), func(context.Context) ([]byte, error) { return store.Read(d) })
}

// bind loads a model for an instance, which closes it. Unsupported: the device
// cannot.
func (m *models) bind(ctx context.Context, bound decant.BoundModel) (GuestModel, error) {
	files := map[string]string{}
	for _, b := range append([]decant.Blob{bound.Model}, bound.Files...) {
		file, err := m.blobs.Path(b.Digest)
		if err != nil {
			return GuestModel{}, err
		}
		files[path.Base(b.Name)] = file
	}
	model, err := m.load(ctx, m.blobs, bound.Model.Digest)
	if err != nil {
		return GuestModel{}, decant.Errorf(decant.CodeOf(err), "cannot load model %s: %w", bound.Package, err)
	}
	return GuestModel{Model: model, Files: files}, nil
}

// fromBytes loads a model that a guest brings along; its user closes it.
func (m *models) fromBytes(ctx context.Context, data []byte) (nn.Model, error) {
	cache, err := m.start()
	if err != nil {
		return nil, err
	}
	data = slices.Clone(data) // the guest may change its own while others load it
	return cache.Open(ctx, string(decant.DigestOf(data)), func(context.Context) ([]byte, error) { return data, nil })
}

func (m *models) nameFile(name string) string { return filepath.Join(m.dir, "names", name) }

// digestOf returns what is stored under name.
func (m *models) digestOf(name string) (decant.Digest, error) {
	if err := decant.CheckName("model", name); err != nil {
		return "", err
	}
	data, err := os.ReadFile(m.nameFile(name))
	if errors.Is(err, fs.ErrNotExist) {
		return "", decant.Errorf(decant.NotFound, "there is no model %s on this device", name)
	}
	if err != nil {
		return "", decant.Errorf(decant.Internal, "cannot read model %s: %w", name, err)
	}
	d := decant.Digest(strings.TrimSpace(string(data)))
	return d, d.Check()
}

// PutModel stores a model under a name, after the backend has loaded it once.
// If want is set, the bytes must have that digest. Invalid: they are not a
// model; what was under the name before stays.
func (s *Supervisor) PutModel(ctx context.Context, name string, body io.Reader, want decant.Digest) (device.Model, error) {
	return s.models.put(ctx, name, body, want)
}

func (m *models) put(ctx context.Context, name string, body io.Reader, want decant.Digest) (device.Model, error) {
	if err := decant.CheckName("model", name); err != nil {
		return device.Model{}, err
	}
	if _, err := m.start(); err != nil {
		return device.Model{}, err
	}
	names, err := m.names()
	if err != nil {
		return device.Model{}, err
	}
	if _, err := m.digestOf(name); err != nil && len(names) >= maxModels {
		return device.Model{}, decant.Errorf(decant.Exhausted, "there are %d models on this device already", len(names)).
			WithHelp("delete one: DELETE /v1/models/<name>")
	}
	d, size, err := m.uploads.Put(ctx, body, want, maxModel)
	if err != nil {
		return device.Model{}, err
	}
	m.naming.Lock()
	defer m.naming.Unlock()
	old, _ := m.digestOf(name) // none, if it is new
	model, err := m.load(ctx, m.uploads, d)
	if err != nil {
		m.drop(d)
		return device.Model{}, decant.Errorf(decant.CodeOf(err), "cannot load model %s: %w", name, err)
	}
	defer model.Close()
	if err := durable.WriteFile(m.nameFile(name), []byte(d)); err != nil {
		return device.Model{}, err
	}
	m.drop(old)
	return device.Model{Name: name, Digest: d, Size: size, Inputs: model.Inputs(), Outputs: model.Outputs()}, nil
}

// ListModels lists the models that were uploaded.
func (s *Supervisor) ListModels() ([]device.Model, error) {
	names, err := s.models.names()
	if err != nil {
		return nil, err
	}
	list := []device.Model{}
	for _, name := range names {
		d, err := s.models.digestOf(name)
		if err != nil {
			return nil, err
		}
		size, err := s.models.uploads.Stat(d)
		if err != nil {
			return nil, err
		}
		list = append(list, device.Model{Name: name, Digest: d, Size: size})
	}
	return list, nil
}

// names returns the names of the uploaded models, sorted.
func (m *models) names() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(m.dir, "names"))
	if err != nil {
		return nil, decant.Errorf(decant.Internal, "cannot list the models: %w", err)
	}
	var names []string
	for _, e := range entries {
		if decant.CheckName("model", e.Name()) == nil { // else a file being written
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// RemoveModel deletes an uploaded model.
func (s *Supervisor) RemoveModel(name string) error {
	m := s.models
	m.naming.Lock()
	defer m.naming.Unlock()
	d, err := m.digestOf(name)
	if err != nil {
		return err
	}
	if err := os.Remove(m.nameFile(name)); err != nil {
		return decant.Errorf(decant.Internal, "cannot remove model %s: %w", name, err)
	}
	m.drop(d)
	return nil
}

// drop deletes uploaded bytes unless they have a name; naming is held.
func (m *models) drop(d decant.Digest) {
	if named, err := m.named(); err == nil && !named[d] && d != "" {
		_ = m.uploads.Delete(d) // a sweep gets it
	}
}

// sweep deletes the uploaded bytes without a name, which a process left that
// died.
func (m *models) sweep() error {
	named, err := m.named()
	if err != nil {
		return err
	}
	_, err = m.uploads.Sweep(time.Now().Add(time.Second), func(d decant.Digest) bool { return named[d] })
	return err
}

// named returns what names there are for.
func (m *models) named() (map[decant.Digest]bool, error) {
	names, err := m.names()
	if err != nil {
		return nil, err
	}
	named := map[decant.Digest]bool{}
	for _, name := range names {
		d, err := m.digestOf(name)
		if err != nil {
			return nil, err // rather keep too much
		}
		named[d] = true
	}
	return named, nil
}

// OpenModel loads an uploaded model; the caller closes it.
func (s *Supervisor) OpenModel(ctx context.Context, name string) (nn.Model, error) {
	d, err := s.models.digestOf(name)
	if err != nil {
		return nil, err
	}
	return s.models.load(ctx, s.models.uploads, d)
}
