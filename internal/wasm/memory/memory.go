// Package memory holds the linear memories of guests, off Go's heap where the
// machine can: they grow without being copied, many can begin with one image,
// and what a guest wrote since is known without reading all of it.
//
// What enters are sizes that guests ask for, which are hostile, and the contents
// of images; what leaves are a guest's bytes, and ranges of those that changed.
package memory

import (
	"math"
	"sync"

	"github.com/tetratelabs/wazero/experimental"

	"github.com/decant-project/decant"
)

// wasmPage is the unit that memories grow by. No kernel has larger pages, so
// every size here is one of whole pages for it too.
const wasmPage = 64 << 10

// Memory is one guest's linear memory. It is the experimental.MemoryAllocator
// to instantiate the guest with, and hands out itself.
//
// It is safe for concurrent use. Its bytes are the guest's: who reads them
// while the guest runs may see a write half done.
type Memory struct {
	mu      sync.Mutex // guards what follows
	limit   uint64
	space   []byte // what bytes can grow into
	mapped  bool   // space is reserved off the heap, and never moves
	bytes   []byte
	given   bool
	freed   bool
	refused bool
	tracked bool
}

// New makes a memory that may grow to limit bytes. It takes none before it is
// allocated.
func New(limit uint64) *Memory {
	limit = min(limit, math.MaxUint32+1, math.MaxInt)
	return &Memory{limit: limit - limit%wasmPage}
}

// Allocate implements experimental.MemoryAllocator: maximum is what the module
// itself says it will ever ask for. It panics when asked a second time: each
// guest has a memory of its own.
func (m *Memory) Allocate(_, maximum uint64) experimental.LinearMemory {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.given {
		panic("memory: two guests were given the same memory")
	}
	m.given = true
	m.limit = min(m.limit, maximum)
	m.space, m.mapped = reserve(m.limit)
	return m
}

// Reallocate implements experimental.LinearMemory. It returns nil beyond the
// limit, and where the machine has no more memory: memory.grow then fails as
// WebAssembly foresees, and instantiation panics. The bytes move only where the
// machine cannot reserve address space.
func (m *Memory) Reallocate(size uint64) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	if size > m.limit || size%wasmPage != 0 || !m.extend(size) {
		m.refused = true
		return nil
	}
	return m.bytes
}

func (m *Memory) extend(size uint64) bool {
	switch have := uint64(len(m.bytes)); {
	case m.mapped:
		if commit(m.space[have:size]) != nil {
			return false
		}
	case size > uint64(len(m.space)):
		// Guests grow step by step: leave room, within the limit.
		space := make([]byte, min(size+size/4, m.limit))
		copy(space, m.bytes)
		m.space = space
	}
	m.bytes = m.space[:size:size]
	return true
}

// Free implements experimental.LinearMemory: nobody may touch the bytes any
// more, not through wazero either, for they are gone from the address space and
// the whole process would crash. wazero frees when it closes the module, but
// not where instantiation failed. To free again is harmless.
func (m *Memory) Free() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mapped {
		release(m.space)
	}
	m.limit, m.space, m.mapped, m.bytes, m.freed = 0, nil, false, nil, true
}

// Bytes returns what the guest sees now. It is valid until the memory grows or
// is freed.
func (m *Memory) Bytes() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.bytes
}

// Refused reports whether more was asked for than there is.
func (m *Memory) Refused() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.refused
}

// Image returns the contents as they are now, for other memories to begin with.
// The guest does not run meanwhile.
func (m *Memory) Image() (*Image, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	i, err := NewImage(uint64(len(m.bytes)))
	if err != nil {
		return nil, err
	}
	if _, err := i.WriteAt(m.bytes, 0); err != nil {
		_ = i.Close()
		return nil, err
	}
	return i, nil
}

// Load makes the contents those of an image of the same size: by copy-on-write
// where the machine can, so that only pages that are written to take memory of
// their own. The guest does not run meanwhile. Conflict: the memory is tracked.
// After any other error free the memory, as its contents are undefined.
func (m *Memory) Load(i *Image) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.tracked:
		// What takes the place of the pages would not be tracked.
		return decant.Errorf(decant.Conflict, "cannot load an image into a memory that is tracked")
	case i.size != uint64(len(m.bytes)):
		return decant.Errorf(decant.Invalid, "cannot load an image of %s into a memory of %s", decant.Bytes(i.size), decant.Bytes(len(m.bytes)))
	}
	return i.load(m.bytes, m.mapped)
}
