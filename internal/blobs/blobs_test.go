package blobs_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"pgregory.net/rapid"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/blobs"
)

var ctx = context.Background()

func open(t testing.TB, dir string) *blobs.Store {
	t.Helper()
	s, err := blobs.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// empty fails unless nothing at all is stored or left over.
func empty(t testing.TB, dir string) {
	t.Helper()
	_ = filepath.WalkDir(dir, func(p string, d os.DirEntry, _ error) error {
		if !d.IsDir() {
			t.Errorf("left over: %s", p)
		}
		return nil
	})
}

func TestPut(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	text := "the bytes of a blob"
	want := decant.DigestOf([]byte(text))
	for name, tt := range map[string]struct {
		r     io.Reader
		want  decant.Digest
		limit decant.Bytes
		code  decant.Code
	}{
		"wrong digest": {strings.NewReader("other"), want, 100, decant.Corrupt},
		"no digest":    {strings.NewReader(text), "sha256:12", 100, decant.Invalid},
		"too large":    {strings.NewReader(text), want, 5, decant.Exhausted},
		"source fails": {io.MultiReader(strings.NewReader("the"), iotest.ErrReader(io.ErrUnexpectedEOF)), want, 100, decant.Unavailable},
		"disk is full": {iotest.ErrReader(syscall.ENOSPC), want, 100, decant.Exhausted},
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, err := s.Put(ctx, tt.r, tt.want, tt.limit); !errors.Is(err, tt.code) {
				t.Errorf("got %v, want %s", err, tt.code)
			}
			empty(t, dir)
		})
	}
	for range 2 { // the second finds it there
		d, n, err := s.Put(ctx, strings.NewReader(text), "", 100)
		if err != nil || d != want || int(n) != len(text) {
			t.Fatalf("put: %s, %d, %v", d, n, err)
		}
	}
	if data, err := s.Read(want); err != nil || string(data) != text {
		t.Errorf("read: %q, %v", data, err)
	}
	if all, _ := s.List(); len(all) != 1 || all[0] != want {
		t.Errorf("list: %v", all)
	}
	// A disk that changes bytes is noticed, and the blob can be had again.
	path, _ := s.Path(want)
	if err := os.WriteFile(path, []byte("the bytes of a blub"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(want); !errors.Is(err, decant.Corrupt) {
		t.Errorf("read of a damaged blob: %v", err)
	}
	if _, err := s.Open(want); !errors.Is(err, decant.NotFound) {
		t.Errorf("open after that: %v", err)
	}
}

func TestOpenCleansUp(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	if err := os.WriteFile(filepath.Join(dir, "tmp", "put-123"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	open(t, dir)
	empty(t, dir)
}

// TestPull: over any number of interruptions, each anywhere, a blob arrives
// whole, and no byte that arrived is asked for again.
func TestTouch(t *testing.T) {
	s := open(t, t.TempDir())
	d, _, err := s.Put(t.Context(), strings.NewReader("old"), "", decant.MiB)
	if err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-2 * time.Hour)
	path, err := s.Path(d)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	none := func(decant.Digest) bool { return false }
	if err := s.Touch(d); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Sweep(time.Now().Add(-time.Hour), none); n != 0 || err != nil {
		t.Errorf("it was touched: swept %d, %v", n, err)
	}
	if n, err := s.Sweep(time.Now().Add(time.Hour), none); n != 1 || err != nil {
		t.Errorf("swept %d, %v", n, err)
	}
	if err := s.Touch(d); !errors.Is(err, decant.NotFound) {
		t.Errorf("touching what is gone: %v", err)
	}
}

func TestPull(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			rt.Fatal(err)
		}
		s := open(t, dir)
		data := rapid.SliceOfN(rapid.Byte(), 1, 2000).Draw(rt, "data")
		b := decant.Blob{Digest: decant.DigestOf(data), Size: decant.Bytes(len(data))}
		at := int64(0)
		for {
			stop := at + int64(rapid.IntRange(1, 700).Draw(rt, "chunk"))
			err := s.Pull(ctx, b, func(_ context.Context, offset int64) (io.ReadCloser, error) {
				if offset != at {
					rt.Fatalf("asked for %d, had %d", offset, at)
				}
				return io.NopCloser(bytes.NewReader(data[offset:min(stop, int64(len(data)))])), nil
			}, nil)
			if err == nil {
				break
			}
			if !errors.Is(err, decant.Unavailable) {
				rt.Fatal(err)
			}
			at = stop
			if rapid.Bool().Draw(rt, "restart") {
				s = open(t, dir)
			}
		}
		if got, err := s.Read(b.Digest); err != nil || !bytes.Equal(got, data) {
			rt.Fatalf("pulled %d bytes, %v", len(got), err)
		}
	})
}

func TestPullErrors(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	b := decant.Blob{Digest: decant.DigestOf([]byte("right")), Size: 5}
	give := func(text string) blobs.Fetch {
		return func(context.Context, int64) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil }
	}
	if err := s.Pull(ctx, b, give("wrong"), nil); !errors.Is(err, decant.Corrupt) {
		t.Errorf("wrong bytes: %v", err)
	}
	empty(t, dir)
	denied := decant.Errorf(decant.Denied, "no")
	if err := s.Pull(ctx, b, func(context.Context, int64) (io.ReadCloser, error) { return nil, denied }, nil); !errors.Is(err, decant.Denied) {
		t.Errorf("refused: %v", err)
	}
	if err := s.Pull(ctx, b, give("right and more"), nil); err != nil {
		t.Errorf("more than was asked for: %v", err)
	}
}

func TestPullOnce(t *testing.T) {
	s := open(t, t.TempDir())
	data := bytes.Repeat([]byte("x"), 1<<16)
	b := decant.Blob{Digest: decant.DigestOf(data), Size: decant.Bytes(len(data))}
	var fetched atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := s.Pull(ctx, b, func(context.Context, int64) (io.ReadCloser, error) {
				fetched.Add(1)
				return io.NopCloser(iotest.HalfReader(bytes.NewReader(data))), nil
			}, nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if fetched.Load() != 1 {
		t.Errorf("fetched %d times", fetched.Load())
	}
}
