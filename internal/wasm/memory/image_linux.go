package memory

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// newFile makes a file in memory of size bytes, all of it a hole.
func newFile(size uint64) (*os.File, error) {
	fd, err := unix.MemfdCreate("guest image", unix.MFD_CLOEXEC|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3 none could be kept from being executed
		fd, err = unix.MemfdCreate("guest image", unix.MFD_CLOEXEC)
	}
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		return nil, fmt.Errorf("memfd_create: %w", errors.ErrUnsupported) // an old kernel, or a container that forbids it
	}
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	file := os.NewFile(uintptr(fd), "guest image")
	if err := file.Truncate(int64(size)); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// punch makes a hole of length bytes at offset, which reads as zeros.
func punch(file *os.File, offset int64, length int) error {
	if length == 0 {
		return nil
	}
	err := unix.Fallocate(int(file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, offset, int64(length))
	return os.NewSyscallError("fallocate", err)
}

// findData returns the parts of a file that hold data. Holes between them are
// large: a process may have some 65,000 mappings, and no memory needs more than
// a hundred of them.
func findData(file *os.File, size uint64) ([]Range, error) {
	var found []Range
	largeHole := max(1<<20, size/64)
	for end := int64(0); uint64(end) < size; {
		start, err := unix.Seek(int(file.Fd()), end, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break // a hole up to the end
		}
		if err == nil {
			end, err = unix.Seek(int(file.Fd()), start, unix.SEEK_HOLE)
		}
		if err != nil {
			return nil, os.NewSyscallError("lseek", err)
		}
		found = extend(found, Range{uint64(start), uint64(end - start)}, largeHole)
	}
	return found, nil
}

// mapPrivate makes b the contents of a file: pages of its data take the place of
// those of b, copy-on-write, and elsewhere b becomes memory that is zero. What
// is read or written in a hole of the file would take memory in the file too.
func mapPrivate(file *os.File, data []Range, b []byte) error {
	if err := mapOver(b, -1, 0, unix.MAP_ANON); err != nil {
		return err
	}
	for _, r := range data {
		if err := mapOver(b[r.Offset:r.Offset+r.Length], int(file.Fd()), int64(r.Offset), 0); err != nil {
			return err
		}
	}
	useSmallPages(b)
	return nil
}

func mapOver(b []byte, fd int, offset int64, flags int) error {
	_, err := unix.MmapPtr(fd, offset, unsafe.Pointer(&b[0]), uintptr(len(b)),
		unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_FIXED|unix.MAP_NORESERVE|flags)
	return os.NewSyscallError("mmap", err)
}
