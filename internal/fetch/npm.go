package fetch

import (
	"compress/gzip"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"io"
	"os"
	"path/filepath"

	"github.com/decant-project/decant"
)

// NPM is a package as npm gets it, from the registry that the user has set.
// Nothing in it is executed.
type NPM struct {
	Package   string       // name@version
	Integrity string       // of its tarball: sha512-... as npm writes it
	Size      decant.Bytes // of its tarball
}

func (n NPM) String() string { return "npm package " + n.Package }

func (n NPM) each(ctx context.Context, p *progress, dir string, names []string, put func(string, io.Reader) error) error {
	// npm says nothing of how far it is; a cache of its own shows it.
	cache := filepath.Join(dir, "cache")
	stop := p.watch(n.String(), cache, int64(n.Size))
	err := run(ctx, dir, "npm", "pack", n.Package, "--silent", "--ignore-scripts", "--cache", cache)
	stop()
	if err != nil {
		return err
	}
	tarballs, _ := filepath.Glob(filepath.Join(dir, "*.tgz"))
	if len(tarballs) != 1 {
		return decant.Errorf(decant.NotFound, "npm left no tarball")
	}
	f, err := os.Open(tarballs[0])
	if err != nil {
		return fault(err)
	}
	defer f.Close()
	if err := n.verify(f); err != nil {
		return err
	}
	unzipped, err := gzip.NewReader(f)
	if err != nil {
		return decant.Errorf(decant.Corrupt, "its tarball cannot be read: %w", err)
	}
	return untar(unzipped, names, put)
}

// verify reads all of f and goes back to its start.
func (n NPM) verify(f *os.File) error {
	sum := sha512.New()
	if _, err := io.Copy(sum, f); err != nil {
		return fault(err)
	}
	if got := "sha512-" + base64.StdEncoding.EncodeToString(sum.Sum(nil)); got != n.Integrity {
		return decant.Errorf(decant.Corrupt, "its tarball is not what it must be: its integrity is %s, not %s", got, n.Integrity)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return fault(err)
	}
	return nil
}
