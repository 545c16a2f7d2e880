// Package blobs keeps files by the SHA-256 of their bytes. A blob is there
// whole or not at all: it is written aside, checked, made durable, and then
// renamed into its place. The orchestrator keeps packages in one such store,
// each device what it pulled in another.
package blobs

import (
	"context"
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/durable"
)

// Store is a folder of blobs. It is safe for concurrent use, in one process.
type Store struct {
	dir string

	mu    sync.Mutex
	pulls map[decant.Digest]chan struct{} // closed when the pull under way ends
}

// Open opens the store in dir, which it makes if there is none. What a crash
// left half-written is removed; what was half-pulled stays, to go on with.
func Open(dir string) (*Store, error) {
	s := &Store{dir: dir, pulls: map[decant.Digest]chan struct{}{}}
	for _, d := range []string{s.blobs(), s.partials(), s.temporary()} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fault("open the blob store", err)
		}
	}
	left, err := os.ReadDir(s.temporary())
	if err != nil {
		return nil, fault("open the blob store", err)
	}
	for _, e := range left {
		if err := os.Remove(filepath.Join(s.temporary(), e.Name())); err != nil {
			return nil, fault("clean the blob store", err)
		}
	}
	return s, nil
}

func (s *Store) blobs() string     { return filepath.Join(s.dir, "sha256") }
func (s *Store) partials() string  { return filepath.Join(s.dir, "partial") }
func (s *Store) temporary() string { return filepath.Join(s.dir, "tmp") }

func (s *Store) path(d decant.Digest) string { return filepath.Join(s.blobs(), d.Hex()) }

// Path returns the file that holds a blob. NotFound: it is not here.
func (s *Store) Path(d decant.Digest) (string, error) {
	if _, err := s.Stat(d); err != nil {
		return "", err
	}
	return s.path(d), nil
}

// Stat returns a blob's size. NotFound: it is not here.
func (s *Store) Stat(d decant.Digest) (decant.Bytes, error) {
	if err := d.Check(); err != nil {
		return 0, err
	}
	info, err := os.Stat(s.path(d))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, notFound(d)
	}
	if err != nil {
		return 0, fault("look at a blob", err)
	}
	return decant.Bytes(info.Size()), nil
}

// Open opens a blob for reading. NotFound: it is not here.
func (s *Store) Open(d decant.Digest) (*os.File, error) {
	if err := d.Check(); err != nil {
		return nil, err
	}
	f, err := os.Open(s.path(d))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, notFound(d)
	}
	if err != nil {
		return nil, fault("open a blob", err)
	}
	return f, nil
}

// Read returns a blob's bytes, checked. Corrupt: the disk has changed them;
// the blob is removed, so that it can be had again.
func (s *Store) Read(d decant.Digest) ([]byte, error) {
	f, err := s.Open(d)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	if err != nil {
		return nil, fault("read a blob", err)
	}
	if decant.DigestOf(data) != d {
		return nil, errors.Join(corrupt(d), s.Delete(d))
	}
	return data, nil
}

// Put stores what r gives, at most limit bytes. If want is not empty it must
// be the digest. Corrupt: it is not. Exhausted: it is more, or the disk is
// full. After an error nothing is stored.
func (s *Store) Put(ctx context.Context, r io.Reader, want decant.Digest, limit decant.Bytes) (decant.Digest, decant.Bytes, error) {
	if want != "" {
		if err := want.Check(); err != nil {
			return "", 0, err
		}
	}
	f, err := os.CreateTemp(s.temporary(), "put-")
	if err != nil {
		return "", 0, fault("store a blob", err)
	}
	defer os.Remove(f.Name()) // gone once it is renamed
	defer f.Close()
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(f, sum), io.LimitReader(contextReader{ctx, r}, int64(limit)+1))
	if err != nil {
		return "", 0, fault("store a blob", err)
	}
	if decant.Bytes(n) > limit {
		return "", 0, decant.Errorf(decant.Exhausted, "the blob is larger than %s", limit)
	}
	got := decant.NewDigest(sum.Sum(nil))
	if want != "" && got != want {
		return "", 0, decant.Errorf(decant.Corrupt, "the bytes have digest %s, not %s", got, want)
	}
	return got, decant.Bytes(n), s.place(f, got)
}

// place makes f durable and puts it where its digest says.
func (s *Store) place(f *os.File, d decant.Digest) error {
	err := f.Sync()
	if err == nil {
		err = os.Rename(f.Name(), s.path(d))
	}
	if err == nil {
		err = durable.SyncDir(s.blobs())
	}
	if err != nil {
		return fault("store a blob", err)
	}
	return nil
}

// Delete removes a blob; one that is not here is fine.
func (s *Store) Delete(d decant.Digest) error {
	if err := d.Check(); err != nil {
		return err
	}
	if err := os.Remove(s.path(d)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault("remove a blob", err)
	}
	return nil
}

// List returns the digests of all blobs.
func (s *Store) List() ([]decant.Digest, error) {
	entries, err := os.ReadDir(s.blobs())
	if err != nil {
		return nil, fault("list blobs", err)
	}
	var out []decant.Digest
	for _, e := range entries {
		if d := decant.Digest("sha256:" + e.Name()); d.Check() == nil {
			out = append(out, d)
		}
	}
	return out, nil
}

// Touch makes a blob as new as if it were put now. NotFound: it is not here.
func (s *Store) Touch(d decant.Digest) error {
	if err := d.Check(); err != nil {
		return err
	}
	now := time.Now()
	err := os.Chtimes(s.path(d), now, now)
	if errors.Is(err, fs.ErrNotExist) {
		return notFound(d)
	}
	if err != nil {
		return fault("touch a blob", err)
	}
	return nil
}

// Sweep deletes the blobs that are older than since and that keep does not
// name, and returns how many those are.
func (s *Store) Sweep(since time.Time, keep func(decant.Digest) bool) (deleted int, err error) {
	all, err := s.List()
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, d := range all {
		if keep(d) {
			continue
		}
		info, err := os.Stat(s.path(d))
		if err != nil || !info.ModTime().Before(since) {
			continue // gone, or new
		}
		if err := s.Delete(d); err != nil {
			errs = append(errs, err)
			continue
		}
		deleted++
	}
	return deleted, errors.Join(errs...)
}

// Fetch gives the bytes of a blob from offset on.
type Fetch func(ctx context.Context, offset int64) (io.ReadCloser, error)

// Pull gets a blob that is not here. What arrived before an interruption is
// kept and gone on from. Several that pull one blob share the download.
// progress, if not nil, is told how far it is. Corrupt: the bytes are not those
// of the digest.
func (s *Store) Pull(ctx context.Context, b decant.Blob, fetch Fetch, progress func(done, total int64)) error {
	if err := b.Digest.Check(); err != nil {
		return err
	}
	for {
		if _, err := s.Stat(b.Digest); !errors.Is(err, decant.NotFound) {
			return err
		}
		s.mu.Lock()
		other := s.pulls[b.Digest]
		if other == nil {
			s.pulls[b.Digest] = make(chan struct{})
		}
		s.mu.Unlock()
		if other == nil {
			break
		}
		select {
		case <-other:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		close(s.pulls[b.Digest])
		delete(s.pulls, b.Digest)
	}()
	return s.pull(ctx, b, fetch, progress)
}

func (s *Store) pull(ctx context.Context, b decant.Blob, fetch Fetch, progress func(done, total int64)) error {
	f, err := os.OpenFile(filepath.Join(s.partials(), b.Digest.Hex()), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fault("pull a blob", err)
	}
	defer f.Close()
	sum := sha256.New()
	have, err := io.Copy(sum, f)
	if err == nil && have > int64(b.Size) {
		sum.Reset()
		have, err = 0, truncate(f)
	}
	if err != nil {
		return fault("pull a blob", err)
	}
	if have < int64(b.Size) {
		if err := s.download(ctx, f, sum, have, b, fetch, progress); err != nil {
			return err
		}
	}
	if got := decant.NewDigest(sum.Sum(nil)); got != b.Digest {
		// What is wrong would stay wrong: begin anew the next time.
		return errors.Join(corrupt(b.Digest), os.Remove(f.Name()))
	}
	return s.place(f, b.Digest)
}

func truncate(f *os.File) error {
	_, err := f.Seek(0, io.SeekStart)
	return errors.Join(f.Truncate(0), err)
}

func (s *Store) download(ctx context.Context, f *os.File, sum hash.Hash, have int64, b decant.Blob, fetch Fetch, progress func(done, total int64)) error {
	r, err := fetch(ctx, have)
	if err != nil {
		return err
	}
	defer r.Close()
	w := &counter{w: io.MultiWriter(f, sum), done: have, total: int64(b.Size), progress: progress}
	if _, err = io.Copy(w, io.LimitReader(contextReader{ctx, r}, int64(b.Size)-have)); err != nil {
		return fault("pull blob "+b.Digest.Short(), err)
	}
	if w.done < int64(b.Size) {
		return decant.Errorf(decant.Unavailable, "the download of blob %s ended at %d of %d bytes", b.Digest.Short(), w.done, b.Size)
	}
	return nil
}

// counter tells how much went through it.
type counter struct {
	w           io.Writer
	done, total int64
	progress    func(done, total int64)
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.done += int64(n)
	if c.progress != nil {
		c.progress(c.done, c.total)
	}
	return n, err
}

// contextReader ends with its context, between reads.
type contextReader struct {
	ctx context.Context //nolint:containedctx // an adapter
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

func notFound(d decant.Digest) error {
	return decant.Errorf(decant.NotFound, "blob %s is not here", d.Short())
}

func corrupt(d decant.Digest) error {
	return decant.Errorf(decant.Corrupt, "the bytes of blob %s are not those its digest promises", d.Short())
}

// fault turns an error of the system into one that says what to do.
func fault(what string, err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return decant.Errorf(decant.Exhausted, "cannot %s: the disk is full", what).WithHelp("make room and try again")
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, io.ErrUnexpectedEOF):
		return decant.Errorf(decant.Unavailable, "cannot %s: %w", what, err)
	}
	if code := decant.CodeOf(err); code != decant.Internal {
		return err
	}
	return decant.Errorf(decant.Internal, "cannot %s: %w", what, err)
}
