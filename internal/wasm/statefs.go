package wasm

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	expsys "github.com/tetratelabs/wazero/experimental/sys"
	"github.com/tetratelabs/wazero/sys"

	"github.com/decant-project/decant"
)

// stateFS is /state: a folder of the host that a guest cannot leave (os.Root
// follows no link out of it, and guests cannot make any) nor fill beyond its
// limit.
type stateFS struct {
	dir    string
	root   *os.Root
	limit  int64
	used   int64 // at least what is there; what was freed counts until it is needed
	opened map[*osFile]bool
}

// Paths within /state are bounded, so that the host can always walk and remove
// what a guest has made.
const (
	maxPath   = 1024
	maxLevels = 32
)

// refused refuses a path beyond the bounds, and one that is no text: a snapshot
// could not hold it.
func refused(name string) expsys.Errno {
	switch {
	case len(name) > maxPath || strings.Count(name, "/") >= maxLevels:
		return expsys.ENAMETOOLONG
	case !utf8.ValidString(name):
		return expsys.EINVAL
	}
	return 0
}

// fileCost is what a file or folder counts beside its bytes, so that there
// cannot be any number of empty ones.
const fileCost = 4 << 10

func openStateFS(dir string, limit int64) (*stateFS, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, decant.Errorf(decant.Internal, "cannot make the guest's state folder: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, decant.Errorf(decant.Internal, "cannot open the guest's state folder: %w", err)
	}
	s := &stateFS{dir: dir, root: root, limit: limit, opened: map[*osFile]bool{}}
	if s.used, err = s.count(); err != nil {
		return nil, errors.Join(decant.Errorf(decant.Internal, "cannot count what is in the guest's state folder: %w", err), root.Close())
	}
	return s, nil
}

// count returns what is there: all that has a name, and files without one that
// are open still.
func (s *stateFS) count() (total int64, err error) {
	err = s.walk(".", func(_ string, info fs.FileInfo) error {
		total += cost(info)
		return nil
	})
	if err != nil {
		return 0, err
	}
	type inode struct{ dev, ino uint64 }
	counted := map[inode]bool{}
	for f := range s.opened {
		info, err := f.f.Stat()
		if err != nil {
			return 0, err
		}
		st := sys.NewStat_t(info)
		if id := (inode{st.Dev, st.Ino}); st.Nlink == 0 && !counted[id] {
			counted[id] = true
			total += cost(info)
		}
	}
	return total, nil
}

func cost(info fs.FileInfo) int64 {
	if info.Mode().IsRegular() {
		return fileCost + info.Size()
	}
	return fileCost
}

// walk does f with all that is in a folder; below is its path from there.
func (s *stateFS) walk(folder string, f func(below string, info fs.FileInfo) error) error {
	top := filepath.Join(s.dir, filepath.FromSlash(folder))
	return filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
		if err == nil && p != top {
			var info fs.FileInfo
			if info, err = d.Info(); err == nil {
				return f(filepath.ToSlash(p[len(top)+1:]), info)
			}
		}
		if p != top && errors.Is(err, fs.ErrNotExist) {
			return nil // another of a command's calls has removed it
		}
		return err
	})
}

// take counts n more bytes, if they fit.
func (s *stateFS) take(n int64) expsys.Errno {
	if s.used+n > s.limit { // something may have been removed
		used, err := s.count()
		if err != nil {
			return errnoOf(err)
		}
		s.used = used
	}
	if s.used+n > s.limit {
		return expsys.EIO // there is no ENOSPC to tell it by
	}
	s.used += n
	return 0
}

func (s *stateFS) open(name string, flag expsys.Oflag, perm fs.FileMode) (expsys.File, expsys.Errno) {
	if errno := refused(name); errno != 0 {
		return nil, errno
	}
	if name == "" {
		name = "."
	}
	if flag&expsys.O_CREAT != 0 {
		if _, err := s.root.Lstat(name); err != nil {
			if errno := s.take(fileCost); errno != 0 {
				return nil, errno
			}
		}
	}
	f, err := s.root.OpenFile(name, hostFlags(flag), perm&0o700|0o600)
	if err != nil {
		return nil, errnoOf(err)
	}
	info, err := f.Stat()
	if err != nil || flag&expsys.O_DIRECTORY != 0 && !info.IsDir() {
		_ = f.Close()
		return nil, expsys.ENOTDIR
	}
	o := &osFile{f: f, state: s, appends: flag&expsys.O_APPEND != 0}
	s.opened[o] = true
	return o, 0
}

func hostFlags(flag expsys.Oflag) int {
	out := os.O_RDONLY
	switch {
	case flag&expsys.O_RDWR != 0:
		out = os.O_RDWR
	case flag&expsys.O_WRONLY != 0:
		out = os.O_WRONLY
	}
	for guest, host := range map[expsys.Oflag]int{
		expsys.O_APPEND: os.O_APPEND, expsys.O_CREAT: os.O_CREATE, expsys.O_EXCL: os.O_EXCL,
		expsys.O_TRUNC: os.O_TRUNC, expsys.O_SYNC: os.O_SYNC, expsys.O_DSYNC: os.O_SYNC,
	} {
		if flag&guest != 0 {
			out |= host
		}
	}
	return out
}

func (s *stateFS) stat(name string) (sys.Stat_t, expsys.Errno) {
	if errno := refused(name); errno != 0 {
		return sys.Stat_t{}, errno
	}
	if name == "" {
		name = "."
	}
	info, err := s.root.Stat(name)
	if err != nil {
		return sys.Stat_t{}, errnoOf(err)
	}
	return sys.NewStat_t(info), 0
}

func (s *stateFS) mkdir(name string, perm fs.FileMode) expsys.Errno {
	if errno := s.take(fileCost); errno != 0 {
		return errno
	}
	return errnoOf(s.root.Mkdir(name, perm&0o700|0o700))
}

func (s *stateFS) remove(name string, folder bool) expsys.Errno {
	info, err := s.root.Lstat(name)
	switch {
	case err != nil:
		return errnoOf(err)
	case folder && !info.IsDir():
		return expsys.ENOTDIR
	case !folder && info.IsDir():
		return expsys.EISDIR
	}
	return errnoOf(s.root.Remove(name))
}

// rename moves a file or a folder, with all that is in it.
func (s *stateFS) rename(from, to string) expsys.Errno {
	info, err := s.root.Lstat(from)
	if err != nil {
		return errnoOf(err)
	}
	if info.IsDir() {
		err = s.walk(from, func(below string, _ fs.FileInfo) error {
			if errno := refused(to + "/" + below); errno != 0 {
				return errno
			}
			return nil
		})
	}
	if err == nil {
		err = s.root.Rename(from, to)
	}
	return errnoOf(err)
}

// osFile is an open file or folder of the host: of /state, or a model's.
type osFile struct {
	expsys.UnimplementedFile
	f       *os.File
	state   *stateFS // nil: read-only
	appends bool
}

func (o *osFile) Stat() (sys.Stat_t, expsys.Errno) {
	info, err := o.f.Stat()
	if err != nil {
		return sys.Stat_t{}, errnoOf(err)
	}
	return sys.NewStat_t(info), 0
}

func (o *osFile) IsDir() (bool, expsys.Errno) {
	st, errno := o.Stat()
	return st.Mode.IsDir(), errno
}

func (o *osFile) IsAppend() bool { return o.appends }

func (o *osFile) Read(buf []byte) (int, expsys.Errno) { return ended(o.f.Read(buf)) }

func (o *osFile) Pread(buf []byte, off int64) (int, expsys.Errno) { return ended(o.f.ReadAt(buf, off)) }

// ended makes the end of a file what it is in POSIX: no bytes, no error.
func ended(n int, err error) (int, expsys.Errno) {
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, errnoOf(err)
}

func (o *osFile) Seek(offset int64, whence int) (int64, expsys.Errno) {
	n, err := o.f.Seek(offset, whence)
	return n, errnoOf(err)
}

func (o *osFile) Write(buf []byte) (int, expsys.Errno) {
	if o.state == nil {
		return 0, expsys.EBADF
	}
	at, err := o.f.Seek(0, io.SeekCurrent)
	if info, statErr := o.f.Stat(); err == nil && statErr == nil && o.appends {
		at = info.Size()
	}
	if err != nil {
		return 0, errnoOf(err)
	}
	if errno := o.growTo(at + int64(len(buf))); errno != 0 {
		return 0, errno
	}
	n, err := o.f.Write(buf)
	return n, errnoOf(err)
}

func (o *osFile) Pwrite(buf []byte, off int64) (int, expsys.Errno) {
	if o.state == nil {
		return 0, expsys.EBADF
	}
	if errno := o.growTo(off + int64(len(buf))); errno != 0 {
		return 0, errno
	}
	n, err := o.f.WriteAt(buf, off)
	return n, errnoOf(err)
}

func (o *osFile) Truncate(size int64) expsys.Errno {
	if o.state == nil {
		return expsys.EBADF
	}
	if errno := o.growTo(size); errno != 0 {
		return errno
	}
	return errnoOf(o.f.Truncate(size))
}

// growTo counts what the file will have more of when it is size bytes long.
func (o *osFile) growTo(size int64) expsys.Errno {
	info, err := o.f.Stat()
	if err != nil {
		return errnoOf(err)
	}
	if size < 0 || size > o.state.limit {
		return expsys.EIO
	}
	if size <= info.Size() {
		return 0
	}
	return o.state.take(size - info.Size())
}

func (o *osFile) Sync() expsys.Errno     { return errnoOf(o.f.Sync()) }
func (o *osFile) Datasync() expsys.Errno { return errnoOf(o.f.Sync()) }

func (o *osFile) Close() expsys.Errno {
	if o.state != nil {
		delete(o.state.opened, o)
	}
	return errnoOf(o.f.Close())
}

func (o *osFile) Readdir(n int) ([]expsys.Dirent, expsys.Errno) {
	found, err := o.f.ReadDir(n)
	if err != nil && err != io.EOF {
		return nil, errnoOf(err)
	}
	out := make([]expsys.Dirent, len(found))
	for i, e := range found {
		out[i] = expsys.Dirent{Name: e.Name(), Type: e.Type()}
	}
	return out, 0
}
