//go:build unix

package codecache

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// private reports whether a file is this process's user's, and nobody else may
// use it.
func private(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Geteuid() && info.Mode().Perm()&0o077 == 0
}

// lockFolder opens a lock, and takes it alone if no other process has it.
func lockFolder(path string) (lock *os.File, alone bool, err error) {
	lock, err = os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, false, err
	}
	switch err := flock(lock, unix.LOCK_EX|unix.LOCK_NB); {
	case err == nil:
		return lock, true, nil
	case errors.Is(err, unix.EWOULDBLOCK):
		return lock, false, nil
	default:
		return nil, false, errors.Join(err, lock.Close())
	}
}

// share takes a lock with others, until it is closed. It waits for who clears up.
func share(lock *os.File) error { return flock(lock, unix.LOCK_SH) }

func flock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
