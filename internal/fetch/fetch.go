// Package fetch gets files by what they must be: a name and a digest enter, a
// verified file in its place leaves. Where a file comes from (a package of npm
// or Debian, a folder, a web server) is not trusted. What was got once is kept
// in a cache, verified again each time, and got again where it is damaged.
package fetch

import (
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/decant-project/decant"
)

// File is a file and where it shall be.
type File struct {
	Name   string // within an archive; its last element within a folder
	Path   string // its place
	Digest decant.Digest
	Size   decant.Bytes // no file of another size is read to its end
}

func (f File) base() string { return path.Base(f.Name) }

// Source is somewhere files may be got.
type Source interface {
	String() string
	// each calls put with those of the named files that it has, in any order.
	// dir is an empty folder for what it needs meanwhile. An error of put ends
	// it. NotFound: the source, or a program it needs, is not on this machine.
	each(ctx context.Context, p *progress, dir string, names []string, put func(name string, r io.Reader) error) error
}

// Fetcher gets files, one Get after the other.
type Fetcher struct {
	Cache    string        // folder, made where it is absent
	Progress *os.File      // shows bars if it is a terminal, lines otherwise
	Timeout  time.Duration // longest time for one source
}

// Get puts each of files in its place, unless it is there, from the first of
// sources that gives it. Unavailable: none did, and why.
func (f *Fetcher) Get(ctx context.Context, files []File, sources ...Source) error {
	missing, err := f.placeCached(files)
	var failures []string
	for _, source := range sources {
		if err != nil || len(missing) == 0 {
			return err
		}
		if err := f.fill(ctx, source, missing); err != nil {
			failures = append(failures, fmt.Sprintf("%s: %v", source, err))
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		missing, err = f.placeCached(missing)
	}
	if err != nil || len(missing) == 0 {
		return err
	}
	return decant.Errorf(decant.Unavailable, "cannot get %s: %s", missing[0].base(), strings.Join(failures, "; "))
}

// placeCached puts those files in their place that are in the cache, and
// returns the others.
func (f *Fetcher) placeCached(files []File) (missing []File, err error) {
	for _, file := range files {
		if holds(file.Path, file) {
			continue
		}
		if !holds(f.cached(file), file) {
			missing = append(missing, file)
			continue
		}
		if err := f.place(file); err != nil {
			return nil, err
		}
	}
	return missing, nil
}

func (f *Fetcher) cached(file File) string { return filepath.Join(f.Cache, file.Digest.Hex()) }

func (f *Fetcher) place(file File) error {
	in, err := os.Open(f.cached(file))
	if err != nil {
		return fault(err)
	}
	defer in.Close()
	return save(file.Path, in, file)
}

// tmpPrefix starts the names of folders that hold what is under way.
const tmpPrefix = "tmp-"

// fill puts files of one source into the cache.
func (f *Fetcher) fill(ctx context.Context, source Source, files []File) error {
	ctx, cancel := context.WithTimeout(ctx, f.Timeout)
	defer cancel()
	if err := os.MkdirAll(f.Cache, 0o755); err != nil {
		return fault(err)
	}
	f.sweep()
	cache, err := filepath.Abs(f.Cache) // for programs that run elsewhere
	if err != nil {
		return fault(err)
	}
	dir, err := os.MkdirTemp(cache, tmpPrefix)
	if err != nil {
		return fault(err)
	}
	defer os.RemoveAll(dir)
	var names []string
	for _, file := range files {
		names = append(names, file.Name)
	}
	given := map[string]bool{}
	err = source.each(ctx, &progress{out: f.Progress}, dir, names, func(name string, r io.Reader) error {
		given[name] = true
		file := files[slices.Index(names, name)]
		return save(f.cached(file), r, file)
	})
	if err != nil {
		return err
	}
	for _, file := range files {
		if !given[file.Name] {
			return decant.Errorf(decant.NotFound, "it has no %s", file.base())
		}
	}
	return nil
}

// sweep removes what fetches left that were killed.
func (f *Fetcher) sweep() {
	left, _ := filepath.Glob(filepath.Join(f.Cache, tmpPrefix+"*"))
	for _, dir := range left {
		if info, err := os.Stat(dir); err == nil && time.Since(info.ModTime()) > time.Hour {
			_ = os.RemoveAll(dir)
		}
	}
}
