// Package snapshot writes and reads snapshots: all that an instance needs to go
// on elsewhere, on another engine and architecture, taken between two calls.
// What enters is a Snapshot and the pages of its memory, what leaves are bytes,
// and the other way round. FORMAT.md describes them.
//
// A snapshot may come from anywhere: what is read of it is bounded, and nothing
// of it may be used before Decode has returned without an error.
package snapshot

import (
	"io"
	"strconv"
	"time"

	"github.com/decant-project/decant"
)

// Snapshot is an instance at a call boundary, but for the pages of its memory.
type Snapshot struct {
	Module  decant.Digest // of the module's binary as it was pushed
	Clock   time.Duration // the guest's monotonic clock; not negative
	Memory  decant.Bytes  // size, a multiple of 64 KiB; 0 also for a module without a memory
	Globals []Global      // all that are mutable, by Index
	Dropped []uint32      // data segments that were dropped, ascending
	Files   []File        // all of /state, by Path
	Extra   []Extra       // by Name, at most 256
}

// Global is a mutable global.
type Global struct {
	Index uint32 // in the module as it was pushed
	Type  Type
	Bits  uint64 // of an i32 or f32 the lower 32, the others are 0
}

// Type is the type of a global, numbered as in a module's binary.
type Type byte

// The types that a mutable global may have.
const (
	F64 Type = 0x7c
	F32 Type = 0x7d
	I64 Type = 0x7e
	I32 Type = 0x7f
)

func (t Type) String() string {
	switch t {
	case F64:
		return "f64"
	case F32:
		return "f32"
	case I64:
		return "i64"
	case I32:
		return "i32"
	}
	return "type " + strconv.Itoa(int(t))
}

// File is a file or folder of /state. The folder that it is in is one of the
// snapshot's too, unless that is /state itself.
type File struct {
	Path     string // within /state, such as "log/today"
	Folder   bool
	Modified time.Time // in nanoseconds that fit 64 bits: from 1678 to 2262
	Data     []byte    // none of a folder
}

// Extra is what a host module keeps for the guest.
type Extra struct {
	Name string // a name as decant.CheckName has it
	Data []byte
}

// FileCost is what a file or folder counts beside its bytes, so that there
// cannot be any number of empty ones.
const FileCost = 4 << 10

// Limits bounds what Decode accepts.
type Limits struct {
	Memory decant.Bytes // size of the memory
	Files  decant.Bytes // of all files, FileCost for each included
	Extra  decant.Bytes // of all extras, their names included
}

// PageSize is the granularity of memory in a snapshot, in bytes: that of most
// processors, not the 64 KiB of WebAssembly.
const PageSize = 4096

// Memory is a guest's memory in one piece.
type Memory []byte

// Pages gives Encode all of the memory.
func (m Memory) Pages() Pages {
	return func(yield func(int64, []byte) bool) error {
		if len(m) > 0 {
			yield(0, m)
		}
		return nil
	}
}

// WriteAt takes pages from Decode. io.ErrShortWrite: m ends before them.
func (m Memory) WriteAt(data []byte, offset int64) (int, error) {
	if offset > int64(len(m)) {
		return 0, io.ErrShortWrite
	}
	n := copy(m[offset:], data)
	if n < len(data) {
		return n, io.ErrShortWrite
	}
	return n, nil
}
