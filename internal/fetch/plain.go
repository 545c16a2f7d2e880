package fetch

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"

	"github.com/decant-project/decant"
)

// Folder is a folder of this machine.
type Folder string

func (d Folder) String() string { return "folder " + string(d) }

func (d Folder) each(_ context.Context, _ *progress, _ string, names []string, put func(string, io.Reader) error) error {
	for _, name := range names {
		f, err := os.Open(filepath.Join(string(d), path.Base(name)))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fault(err)
		}
		err = put(name, f)
		_ = f.Close() // only read
		if err != nil {
			return err
		}
	}
	return nil
}

// Web is an address that files lie below.
type Web string

func (w Web) String() string { return string(w) }

func (w Web) each(ctx context.Context, p *progress, _ string, names []string, put func(string, io.Reader) error) error {
	for _, name := range names {
		if err := w.get(ctx, p, name, put); err != nil {
			return err
		}
	}
	return nil
}

func (w Web) get(ctx context.Context, p *progress, name string, put func(string, io.Reader) error) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, string(w)+"/"+path.Base(name), nil)
	if err != nil {
		return decant.Errorf(decant.Invalid, "address %q: %w", string(w), err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return decant.Errorf(decant.Unavailable, "%w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotFound {
		return nil // it may have the others
	}
	if resp.StatusCode != http.StatusOK {
		return decant.Errorf(decant.NotFound, "%s: %s", name, resp.Status)
	}
	r, stop := p.count(name, resp.Body, resp.ContentLength)
	defer stop()
	return put(name, r)
}
