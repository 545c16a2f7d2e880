//go:build linux || darwin

package memory

import (
	"math/bits"

	"golang.org/x/sys/unix"
)

// reserve takes address space for size bytes, without memory behind it, and
// reports whether there is any.
func reserve(size uint64) ([]byte, bool) {
	// With 32 bits a few guests that may grow far would use up all there is.
	if bits.UintSize == 32 && size > 64<<20 {
		return []byte{}, false
	}
	space, err := unix.Mmap(-1, 0, int(size), unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return []byte{}, false
	}
	useSmallPages(space)
	return space, true
}

// commit makes b, a part of a space, memory that can be used. It is zero.
func commit(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	return unix.Mprotect(b, unix.PROT_READ|unix.PROT_WRITE)
}

// release gives a space back.
func release(space []byte) {
	if err := unix.Munmap(space); err != nil {
		panic(err) // it was not a space
	}
}
