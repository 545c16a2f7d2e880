// Package durable writes files that outlive a loss of power.
package durable

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/decant-project/decant"
)

// WriteFile replaces a file, so that after a crash it holds the old bytes or
// the new ones, and after return the new ones. Only its owner may read it. A
// file has one writer at a time.
func WriteFile(path string, data []byte) error {
	if err := replace(path, data); err != nil {
		return decant.Errorf(decant.Internal, "cannot write %s: %w", path, err)
	}
	return nil
}

func replace(path string, data []byte) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	// Always the same name: what a crash leaves behind is written over.
	tmp, err := os.OpenFile(path+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = tmp.Write(data)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	return SyncDir(dir)
}

// SyncDir makes the names in a folder last.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
