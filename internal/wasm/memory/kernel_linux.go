//go:build amd64 || arm64 || riscv64

package memory

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// kernelScanner has the kernel protect pages from writing (userfaultfd(2)). The
// first write to each takes the protection off without asking anybody, and a
// scan (PAGEMAP_SCAN, ioctl_pagemap_scan(2)) finds the pages without and
// protects them again, in one step for each page.
type kernelScanner struct {
	faults  *os.File // a userfaultfd: as long as it is open, pages are protected
	pagemap *os.File
	armed   uint64 // bytes of the memory, from its beginning, that are protected
	found   [512]pageRegion
}

// The kernel's interface, of include/uapi/linux/{userfaultfd,fs}.h.
const (
	uffdUserModeOnly = 1
	uffdAPI          = 0xaa

	uffdFeatureWPHugetlbfsShmem = 1 << 12 // in memory that began with an image too
	uffdFeatureWPUnpopulated    = 1 << 13 // also pages that were never touched
	uffdFeatureWPAsync          = 1 << 15 // and nobody is asked

	uffdioAPI              = 0xc018aa3f
	uffdioRegister         = 0xc020aa00
	uffdioWriteProtect     = 0xc018aa06
	uffdioRegisterModeWP   = 1 << 1
	uffdioWriteProtectMode = 1 << 0

	pagemapScan        = 0xc0606610
	pageIsWritten      = 1 << 1
	pmScanWPMatching   = 1 << 0
	pmScanCheckWPAsync = 1 << 1
)

type (
	uffdioAPIArg          struct{ api, features, ioctls uint64 }
	uffdioRegisterArg     struct{ start, length, mode, ioctls uint64 }
	uffdioWriteProtectArg struct{ start, length, mode uint64 }

	pageRegion struct{ start, end, _ uint64 }

	pagemapScanArg struct {
		size, flags                       uint64
		start, end, walkEnd               uint64
		vec, vecLen, maxPages             uint64
		inverted, mask, anyOf, returnMask uint64
	}
)

// newKernelScanner tracks b, the part of space that is in use. All of space is
// registered, so that what b grows into needs no more than protection.
func newKernelScanner(space, b []byte) (_ *kernelScanner, err error) {
	s := &kernelScanner{}
	defer func() {
		if err != nil {
			_ = s.close()
		}
	}()
	fd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|uffdUserModeOnly, 0, 0)
	if errno != 0 {
		return nil, os.NewSyscallError("userfaultfd", errno)
	}
	s.faults = os.NewFile(fd, "userfaultfd")
	if s.pagemap, err = os.Open("/proc/self/pagemap"); err != nil {
		return nil, err
	}
	api := uffdioAPIArg{api: uffdAPI, features: uffdFeatureWPHugetlbfsShmem | uffdFeatureWPUnpopulated | uffdFeatureWPAsync}
	if err := ioctl(s.faults, uffdioAPI, unsafe.Pointer(&api)); err != nil {
		return nil, fmt.Errorf("UFFDIO_API: %w", err)
	}
	register := uffdioRegisterArg{start: address(space), length: uint64(len(space)), mode: uffdioRegisterModeWP}
	if err := ioctl(s.faults, uffdioRegister, unsafe.Pointer(&register)); err != nil {
		return nil, fmt.Errorf("UFFDIO_REGISTER: %w", err)
	}
	return s, s.arm(b)
}

// arm protects what of b is not yet.
func (s *kernelScanner) arm(b []byte) error {
	fresh := b[s.armed:]
	if len(fresh) == 0 {
		return nil
	}
	protect := uffdioWriteProtectArg{start: address(fresh), length: uint64(len(fresh)), mode: uffdioWriteProtectMode}
	if err := ioctl(s.faults, uffdioWriteProtect, unsafe.Pointer(&protect)); err != nil {
		return fmt.Errorf("UFFDIO_WRITEPROTECT: %w", err)
	}
	s.armed = uint64(len(b))
	return nil
}

func (s *kernelScanner) dirty(b []byte) ([]Range, error) {
	known := s.armed
	ranges, err := s.scan(b[:known])
	if err != nil {
		return nil, err
	}
	// What is new is protected before it is read: what is written meanwhile is
	// found the next time.
	if err := s.arm(b); err != nil {
		return nil, err
	}
	_ = Runs(b[known:], func(at int, data []byte) error {
		ranges = extend(ranges, Range{known + uint64(at), uint64(len(data))}, 1)
		return nil
	})
	return ranges, nil
}

// scan finds the pages of b that were written, and protects them again.
func (s *kernelScanner) scan(b []byte) ([]Range, error) {
	var ranges []Range
	base := address(b)
	arg := pagemapScanArg{
		flags: pmScanWPMatching | pmScanCheckWPAsync,
		start: base, end: base + uint64(len(b)),
		vec: uint64(uintptr(unsafe.Pointer(&s.found))), vecLen: uint64(len(s.found)),
		mask: pageIsWritten, returnMask: pageIsWritten,
	}
	arg.size = uint64(unsafe.Sizeof(arg))
	for arg.start < arg.end {
		n, _, errno := unix.Syscall(unix.SYS_IOCTL, s.pagemap.Fd(), pagemapScan, uintptr(unsafe.Pointer(&arg)))
		if errno != 0 {
			return nil, fmt.Errorf("PAGEMAP_SCAN: %w", errno)
		}
		for _, r := range s.found[:n] {
			ranges = extend(ranges, Range{r.start - base, r.end - r.start}, 1)
		}
		arg.start = arg.walkEnd
	}
	runtime.KeepAlive(s)
	return ranges, nil
}

func (s *kernelScanner) close() error {
	var err error
	for _, f := range []*os.File{s.faults, s.pagemap} {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	return err
}

// address returns where b lies. It is not on the heap, so the garbage collector
// need not know.
func address(b []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }

func ioctl(f *os.File, request uintptr, arg unsafe.Pointer) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(arg))
	if errno != 0 {
		return errno
	}
	return nil
}

// tryKernel returns why this kernel cannot track memory, nil if it can: many
// have no such interface, and containers may forbid it.
var tryKernel = sync.OnceValue(func() error {
	m := New(2 * wasmPage)
	defer m.Free()
	image, err := NewImage(wasmPage)
	if err != nil {
		return err
	}
	defer image.Close()
	m.Allocate(0, 2*wasmPage).Reallocate(wasmPage)
	if err := m.Load(image); err != nil {
		return err
	}
	b := m.Reallocate(2 * wasmPage)
	if b == nil || !m.mapped {
		return fmt.Errorf("no address space: %w", errors.ErrUnsupported)
	}
	s, err := newKernelScanner(m.space, b)
	if err != nil {
		return err
	}
	defer s.close()
	for _, half := range []uint64{0, wasmPage} {
		b[half] = 1
		want := []Range{{half, uint64(os.Getpagesize())}}
		switch ranges, err := s.dirty(b); {
		case err != nil:
			return err
		case !slices.Equal(ranges, want):
			return fmt.Errorf("of a write to %v it told %v", want, ranges)
		}
	}
	return nil
})
