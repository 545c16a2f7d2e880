package memory

// TryKernel returns why trackers of kind Kernel do not work here.
func TryKernel() error { return tryKernel() }

// OnHeap makes an allocated memory one of a machine without address space.
func (m *Memory) OnHeap() {
	if m.mapped {
		release(m.space)
		m.space, m.mapped = []byte{}, false
	}
}

// NewHeapImage is NewImage on a machine without files in memory.
func NewHeapImage(size uint64) *Image { return &Image{size: size, bytes: make([]byte, size)} }
