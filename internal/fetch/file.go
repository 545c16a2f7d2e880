package fetch

import (
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/durable"
)

// holds reports whether path holds file, by its digest.
func holds(path string, file File) bool {
	in, err := os.Open(path)
	if err != nil {
		return false
	}
	defer in.Close()
	sum := sha256.New()
	_, err = io.Copy(sum, io.LimitReader(in, int64(file.Size)+1))
	return err == nil && decant.NewDigest(sum.Sum(nil)) == file.Digest
}

// save writes r to path, whole or not at all. Corrupt: r is not file.
func save(path string, r io.Reader, file File) error {
	sum := sha256.New()
	return write(path, io.TeeReader(io.LimitReader(r, int64(file.Size)+1), sum), func() error {
		if got := decant.NewDigest(sum.Sum(nil)); got != file.Digest {
			return decant.Errorf(decant.Corrupt, "%s is not what it must be: its digest is %s, not %s", file.base(), got.Short(), file.Digest.Short())
		}
		return nil
	})
}

// Copy puts a file that the user chose in a place. Nothing is known of what is
// in it; a copy of the same bytes stays as it is.
func Copy(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return decant.Errorf(decant.NotFound, "cannot read %s: %w", from, err)
	}
	defer in.Close()
	if same(in, to) {
		return nil
	}
	return write(to, in, func() error { return nil })
}

func same(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Stat(path)
	return err == nil && os.SameFile(a, b)
}

// write puts r's bytes at path once all of them are on the disk and check has
// no objection.
func write(path string, r io.Reader, check func() error) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fault(err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return fault(err)
	}
	defer func() {
		if err != nil {
			_ = tmp.Close()
			_ = os.Remove(tmp.Name())
		}
	}()
	if _, err := io.Copy(tmp, r); err != nil {
		return fault(err)
	}
	if err := check(); err != nil {
		return err
	}
	if err := errors.Join(tmp.Chmod(0o644), tmp.Sync(), tmp.Close()); err != nil {
		return fault(err)
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return fault(err)
	}
	if err := durable.SyncDir(filepath.Dir(path)); err != nil {
		return fault(err)
	}
	return nil
}

func fault(err error) error { return decant.Errorf(decant.Internal, "cannot keep a file: %w", err) }
