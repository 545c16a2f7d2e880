//go:build unix

package main

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/decant-project/decant"
)

// lock takes a data folder for this process until it ends, however it ends.
func lock(data string) (unlock func() error, err error) {
	f, err := os.OpenFile(filepath.Join(data, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, decant.Errorf(decant.Invalid, "cannot use the data folder: %w", err).WithHelp("name another with --data")
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, decant.Errorf(decant.Conflict, "another supervisor runs on the data folder %s", data).
			WithHelp("stop it, or name another folder with --data")
	}
	return f.Close, nil
}
