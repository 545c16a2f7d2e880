package memory

import (
	"syscall"
	"testing"
)

// TestHolesStay has a memory read and write where its image is zero, which must
// not take memory in the image.
func TestHolesStay(t *testing.T) {
	const size = 256 * wasmPage
	image, err := NewImage(size)
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	for _, at := range []int64{0, 20 * wasmPage, 200 * wasmPage} {
		if _, err := image.WriteAt([]byte{1}, at); err != nil {
			t.Fatal(err)
		}
	}
	used := blocks(t, image)
	m := New(size)
	defer m.Free()
	m.Allocate(0, size).Reallocate(size)
	if err := m.Load(image); err != nil {
		t.Fatal(err)
	}
	for at := 21 * wasmPage; at < 200*wasmPage; at += 2 * PageSize {
		m.Bytes()[at] = m.Bytes()[at+PageSize] + 1
	}
	if now := blocks(t, image); now != used {
		t.Errorf("the image takes %d bytes, it took %d", now, used)
	}
}

// TestImageIsSparse has no memory used for pages that are zero, also if they
// were something else before.
func TestImageIsSparse(t *testing.T) {
	image, err := NewImage(1 << 30)
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	part := make([]byte, 64*wasmPage)
	for _, step := range []struct {
		write byte // to the first byte of part
		want  int64
	}{{0, 0}, {1, wasmPage}, {0, 0}} {
		part[0] = step.write
		if _, err := image.WriteAt(part, 10*wasmPage); err != nil {
			t.Fatal(err)
		}
		if used := blocks(t, image); used > step.want || (used > 0) != (step.want > 0) {
			t.Errorf("after a write of %d: %d bytes are used, want %d at most", step.write, used, step.want)
		}
	}
}

// blocks returns how many bytes of memory an image takes.
func blocks(t *testing.T, image *Image) int64 {
	t.Helper()
	if image.file == nil {
		t.Skip("no files in memory here")
	}
	info, err := image.file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Blocks * 512
}
