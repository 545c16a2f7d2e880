package peripheral

import (
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/decant-project/decant"
)

// maxFile bounds a sample that is a whole file.
const maxFile = 64 * decant.MiB

// files returns the regular files that c.Path matches, sorted.
func files(dir string, c Config) ([]string, error) {
	literal := strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`)
	names, err := filepath.Glob(place(literal.Replace(dir), c.Path))
	if err != nil {
		return nil, decant.Errorf(decant.Invalid, "peripheral %s: path %q: %w", c.Name, c.Path, err)
	}
	names = slices.DeleteFunc(names, func(name string) bool {
		info, err := os.Stat(name)
		return err != nil || !info.Mode().IsRegular()
	})
	if len(names) == 0 {
		return nil, decant.Errorf(decant.NotFound, "peripheral %s: no file matches %q in %s", c.Name, c.Path, dir)
	}
	slices.Sort(names)
	return names, nil
}

// list hands out file names, over and over where it repeats.
type list struct {
	names  []string
	repeat bool
	i      int
}

func (l *list) next() (string, error) {
	if l.i == len(l.names) {
		if !l.repeat {
			return "", io.EOF
		}
		l.i = 0
	}
	l.i++
	return l.names[l.i-1], nil
}

// wholeFiles is the source of a camera and the like: each sample is a file.
type wholeFiles struct{ *list }

func (w wholeFiles) next() (Sample, time.Duration, error) {
	name, err := w.list.next()
	if err != nil {
		return Sample{}, 0, err
	}
	f, err := os.Open(name)
	if err != nil {
		return Sample{}, 0, decant.Errorf(decant.NotFound, "cannot read a sample: %w", err)
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > int64(maxFile) {
		return Sample{}, 0, decant.Errorf(decant.Exhausted, "sample %s is larger than %s", name, maxFile)
	}
	data, err := io.ReadAll(io.LimitReader(f, int64(maxFile)))
	if err != nil {
		return Sample{}, 0, decant.Errorf(decant.Internal, "cannot read a sample: %w", err)
	}
	kind := mime.TypeByExtension(filepath.Ext(name))
	if kind == "" {
		kind = http.DetectContentType(data)
	}
	return Sample{ContentType: kind, Data: data}, 0, nil
}

func (wholeFiles) close() error { return nil }

// writer is a Peripheral whose actions are appended to a file.
type writer struct {
	name, kind string

	mu   sync.Mutex // one action at a time
	file *os.File
	own  bool // Close closes file
}

func openWriter(dir string, c Config) (*writer, error) {
	w := &writer{name: c.Name, kind: c.Type, file: os.Stdout}
	if c.Path == stdout {
		return w, nil
	}
	path := place(dir, c.Path)
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		w.own = true
		w.file, err = os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	}
	if err != nil {
		return nil, decant.Errorf(decant.Invalid, "peripheral %s: cannot write: %w", c.Name, err)
	}
	return w, nil
}

// Read implements Peripheral: it cannot.
func (w *writer) Read(context.Context) (Sample, error) {
	return Sample{}, decant.Errorf(decant.Unsupported, "peripheral %s, a %s, cannot be read", w.name, w.kind)
}

// Write implements Peripheral. An action is one write to the file.
func (w *writer) Write(ctx context.Context, action []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	_, err := w.file.Write(action)
	switch {
	case errors.Is(err, os.ErrClosed):
		return decant.Errorf(decant.Unavailable, "peripheral %s is closed", w.name)
	case err != nil:
		return decant.Errorf(decant.Internal, "peripheral %s: %w", w.name, err)
	}
	return nil
}

// Close closes the file, after the action under way.
func (w *writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.own {
		return nil
	}
	w.own = false
	return w.file.Close()
}
