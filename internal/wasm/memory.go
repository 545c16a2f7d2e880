package wasm

import "github.com/tetratelabs/wazero/experimental"

// memoryLimit is an allocator that holds a guest's memory to a limit: beyond
// it memory.grow fails, as WebAssembly foresees.
type memoryLimit struct {
	limit   uint64
	refused bool // something was asked for beyond the limit
}

// Allocate implements experimental.MemoryAllocator.
func (m *memoryLimit) Allocate(capacity, _ uint64) experimental.LinearMemory {
	l := &linearMemory{limit: m}
	if capacity <= m.limit {
		l.buf = make([]byte, 0, capacity)
	}
	return l
}

type linearMemory struct {
	limit *memoryLimit
	buf   []byte
}

// Reallocate implements experimental.LinearMemory.
func (l *linearMemory) Reallocate(size uint64) []byte {
	if size > l.limit.limit {
		l.limit.refused = true
		return nil
	}
	if size <= uint64(cap(l.buf)) {
		l.buf = l.buf[:size]
		return l.buf
	}
	// Guests grow step by step: leave room, within the limit.
	grown := make([]byte, size, min(max(size, size+size/4), l.limit.limit))
	copy(grown, l.buf)
	l.buf = grown
	return l.buf
}

// Free implements experimental.LinearMemory.
func (l *linearMemory) Free() { l.buf = nil }
