package memory

import (
	"bytes"
	"errors"
	"math"
	"os"
	"sync"

	"github.com/decant-project/decant"
)

// Image is the contents of a memory, for many memories to begin with. Pages
// that are zero take no memory where the machine has files in memory (Linux).
// It is safe for concurrent use.
type Image struct {
	size uint64

	mu     sync.Mutex // guards what follows
	file   *os.File   // in memory, nil if the machine has none
	bytes  []byte     // instead of the file
	loaded bool       // memories share the file's pages: they must not change
	data   []Range    // where the file holds any, once loaded
	closed bool
}

// NewImage makes an image of size bytes, all zero: whole pages of WebAssembly,
// of 64 KiB, and 4 GiB at most. Exhausted: the machine has no room for it.
func NewImage(size uint64) (*Image, error) {
	if size%wasmPage != 0 || size > min(math.MaxUint32+1, math.MaxInt) {
		return nil, decant.Errorf(decant.Invalid, "cannot make an image of %d bytes: no memory has that size", size)
	}
	file, err := newFile(size)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return &Image{size: size, bytes: make([]byte, size)}, nil
	case err != nil:
		return nil, decant.Errorf(decant.Exhausted, "cannot make an image of %s: %w", decant.Bytes(size), err)
	}
	return &Image{size: size, file: file}, nil
}

// Size returns the size in bytes.
func (i *Image) Size() uint64 { return i.size }

// WriteAt implements io.WriterAt, until the image is first loaded: from then on
// it is Conflict. Invalid: it would write beyond the image.
func (i *Image) WriteAt(p []byte, offset int64) (int, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	switch {
	case i.loaded || i.closed:
		return 0, decant.Errorf(decant.Conflict, "cannot write to an image that is in use or closed")
	case offset < 0 || uint64(offset) > i.size || uint64(len(p)) > i.size-uint64(offset):
		return 0, decant.Errorf(decant.Invalid, "cannot write %d bytes at %d into an image of %s", len(p), offset, decant.Bytes(i.size))
	case i.file == nil:
		return copy(i.bytes[offset:], p), nil
	}
	if err := writeSparse(i.file, p, offset); err != nil {
		return 0, decant.Errorf(decant.Exhausted, "cannot write to an image: %w", err)
	}
	return len(p), nil
}

// writeSparse writes p with holes for its pages that are zero.
func writeSparse(file *os.File, p []byte, offset int64) error {
	done := 0
	err := Runs(p, func(at int, data []byte) error {
		if err := punch(file, offset+int64(done), at-done); err != nil {
			return err
		}
		done = at + len(data)
		_, err := file.WriteAt(data, offset+int64(at))
		return err
	})
	if err != nil {
		return err
	}
	return punch(file, offset+int64(done), len(p)-done)
}

// load makes b the image's contents; mapped says that pages may take the place
// of those of b.
func (i *Image) load(b []byte, mapped bool) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed {
		return decant.Errorf(decant.Conflict, "cannot load an image that is closed")
	}
	i.loaded = true
	var err error
	switch {
	case len(b) == 0:
	case i.file == nil:
		copy(b, i.bytes)
	case mapped:
		err = i.mapInto(b)
	default:
		_, err = i.file.ReadAt(b, 0)
	}
	if err != nil {
		return decant.Errorf(decant.Exhausted, "cannot load an image of %s: %w", decant.Bytes(i.size), err)
	}
	return nil
}

// mapInto makes b the image's contents, copy-on-write.
func (i *Image) mapInto(b []byte) (err error) {
	if i.data == nil {
		if i.data, err = findData(i.file, i.size); err != nil {
			return err
		}
	}
	return mapPrivate(i.file, i.data, b)
}

// ReadAt implements io.ReaderAt.
func (i *Image) ReadAt(p []byte, offset int64) (int, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	switch {
	case i.closed:
		return 0, decant.Errorf(decant.Conflict, "cannot read an image that is closed")
	case i.file == nil:
		return bytes.NewReader(i.bytes).ReadAt(p, offset)
	}
	return i.file.ReadAt(p, offset)
}

// Close frees the image; the memories that began with it keep what they have.
func (i *Image) Close() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed {
		return nil
	}
	i.closed, i.bytes = true, nil
	if i.file == nil {
		return nil
	}
	return i.file.Close()
}
