package wasm

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	expsys "github.com/tetratelabs/wazero/experimental/sys"
	"github.com/tetratelabs/wazero/sys"

	"github.com/decant-project/decant"
)

// rootFS is what a guest sees as /: folders of what its application bound.
//
//	/dev/<name>            a device
//	/link/<name>           another component
//	/models/<name>/<file>  a model's files, read-only
//	/state                 files of its own
type rootFS struct {
	expsys.UnimplementedFS
	session *session
	state   *stateFS             // nil without /state
	handles map[*handle]struct{} // what the guest has open
}

// maxOpen bounds how many files a guest has open, of all kinds.
const maxOpen = 128

var errOpen = decant.Errorf(decant.Exhausted, "the guest has %d files open, which is as many as it may", maxOpen)

func newRootFS(s *session) (*rootFS, error) {
	r := &rootFS{session: s, handles: map[*handle]struct{}{}}
	if dir := s.guest.config.State; dir != "" {
		var err error
		if r.state, err = openStateFS(dir, int64(s.guest.config.StateLimit)); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (r *rootFS) close() error {
	if r.state == nil {
		return nil
	}
	return r.state.root.Close()
}

// split cuts a path of the guest into its first element and the rest. What
// climbs out of / is not there.
func split(name string) (first, rest string) {
	name = path.Clean("/" + name)[1:]
	first, rest, _ = strings.Cut(name, "/")
	return first, rest
}

// OpenFile implements expsys.FS.
func (r *rootFS) OpenFile(name string, flag expsys.Oflag, perm fs.FileMode) (expsys.File, expsys.Errno) {
	if len(r.handles) >= maxOpen {
		r.session.failed(errOpen)
		if name == "." {
			return nil, expsys.ENOENT // of all errors that wazero itself knows of when it opens /
		}
		return nil, expsys.EIO // there is no EMFILE to tell it by
	}
	f, errno := r.file(name, flag, perm)
	if errno != 0 {
		return nil, errno
	}
	h := &handle{File: f, files: r, name: path.Clean("/" + name)}
	r.handles[h] = struct{}{}
	return h, 0
}

// opened returns what the guest has open, but for the folder / that it is given.
func (r *rootFS) opened() []string {
	var names []string
	for h := range r.handles {
		names = append(names, h.name)
	}
	slices.Sort(names)
	if len(names) > 0 && names[0] == "/" {
		names = names[1:]
	}
	return names
}

// handle is a file that the guest has open. It counts until it is closed, and
// like the streams it fails once its call has ended.
type handle struct {
	expsys.File
	files *rootFS
	name  string
}

func (h *handle) Read(buf []byte) (int, expsys.Errno) {
	if h.files.session.ended() != nil {
		return 0, expsys.EIO
	}
	return h.File.Read(buf)
}

func (h *handle) Pread(buf []byte, off int64) (int, expsys.Errno) {
	if h.files.session.ended() != nil {
		return 0, expsys.EIO
	}
	return h.File.Pread(buf, off)
}

func (h *handle) Write(buf []byte) (int, expsys.Errno) {
	if h.files.session.ended() != nil {
		return 0, expsys.EIO
	}
	return h.File.Write(buf)
}

func (h *handle) Pwrite(buf []byte, off int64) (int, expsys.Errno) {
	if h.files.session.ended() != nil {
		return 0, expsys.EIO
	}
	return h.File.Pwrite(buf, off)
}

func (h *handle) Close() expsys.Errno {
	delete(h.files.handles, h)
	return h.File.Close()
}

// file opens a file.
func (r *rootFS) file(name string, flag expsys.Oflag, perm fs.FileMode) (expsys.File, expsys.Errno) {
	first, rest := split(name)
	if first == "state" && r.state != nil {
		return r.state.open(rest, flag, perm)
	}
	if entries, ok := r.list(first, rest); ok {
		if writes(flag) {
			return nil, expsys.EISDIR
		}
		return &dirFile{entries: entries}, 0
	}
	if flag&expsys.O_DIRECTORY != 0 {
		return nil, expsys.ENOTDIR
	}
	config := &r.session.guest.config
	switch first {
	case "dev":
		if d, ok := config.Devices[rest]; ok {
			return &deviceFile{charFile: charFile{session: r.session}, device: d}, 0
		}
	case "link":
		if l, ok := config.Links[rest]; ok {
			return &linkFile{charFile: charFile{session: r.session}, link: l}, 0
		}
	case "models":
		model, file, _ := strings.Cut(rest, "/")
		if hostPath, ok := config.Models[model][file]; ok {
			if writes(flag) {
				return nil, expsys.EROFS
			}
			f, err := os.Open(hostPath)
			if err != nil {
				return nil, errnoOf(err)
			}
			return &osFile{f: f}, 0
		}
	}
	if flag&expsys.O_CREAT != 0 {
		return nil, expsys.EROFS
	}
	return nil, expsys.ENOENT
}

func writes(flag expsys.Oflag) bool {
	return flag&(expsys.O_WRONLY|expsys.O_RDWR|expsys.O_CREAT|expsys.O_TRUNC|expsys.O_APPEND) != 0
}

// list returns the entries of a folder that is not part of /state.
func (r *rootFS) list(first, rest string) ([]expsys.Dirent, bool) {
	config := &r.session.guest.config
	switch {
	case first == "":
		var out []expsys.Dirent
		for name, there := range map[string]bool{
			"dev": len(config.Devices) > 0, "link": len(config.Links) > 0,
			"models": len(config.Models) > 0, "state": r.state != nil,
		} {
			if there {
				out = append(out, expsys.Dirent{Name: name, Type: fs.ModeDir})
			}
		}
		slices.SortFunc(out, func(a, b expsys.Dirent) int { return strings.Compare(a.Name, b.Name) })
		return out, true
	case rest == "" && first == "dev" && len(config.Devices) > 0:
		return entries(config.Devices, fs.ModeDevice), true
	case rest == "" && first == "link" && len(config.Links) > 0:
		return entries(config.Links, fs.ModeDevice), true
	case rest == "" && first == "models" && len(config.Models) > 0:
		return entries(config.Models, fs.ModeDir), true
	case first == "models" && config.Models[rest] != nil:
		return entries(config.Models[rest], 0), true
	}
	return nil, false
}

func entries[V any](m map[string]V, t fs.FileMode) []expsys.Dirent {
	var out []expsys.Dirent
	for _, name := range slices.Sorted(maps.Keys(m)) {
		out = append(out, expsys.Dirent{Name: name, Type: t})
	}
	return out
}

// Stat implements expsys.FS.
func (r *rootFS) Stat(name string) (sys.Stat_t, expsys.Errno) {
	first, rest := split(name)
	if first == "state" && r.state != nil {
		return r.state.stat(rest)
	}
	// Opening does nothing yet to what is opened.
	f, errno := r.file(name, expsys.O_RDONLY, 0)
	if errno != 0 {
		return sys.Stat_t{}, errno
	}
	defer f.Close()
	return f.Stat()
}

// Lstat implements expsys.FS. There are no symbolic links.
func (r *rootFS) Lstat(name string) (sys.Stat_t, expsys.Errno) { return r.Stat(name) }

// Mkdir implements expsys.FS.
func (r *rootFS) Mkdir(name string, perm fs.FileMode) expsys.Errno {
	return r.inState(name, func(rest string) expsys.Errno { return r.state.mkdir(rest, perm) })
}

// Rmdir implements expsys.FS.
func (r *rootFS) Rmdir(name string) expsys.Errno {
	return r.inState(name, func(rest string) expsys.Errno { return r.state.remove(rest, true) })
}

// Unlink implements expsys.FS.
func (r *rootFS) Unlink(name string) expsys.Errno {
	return r.inState(name, func(rest string) expsys.Errno { return r.state.remove(rest, false) })
}

// Rename implements expsys.FS.
func (r *rootFS) Rename(from, to string) expsys.Errno {
	return r.inState(from, func(source string) expsys.Errno {
		return r.inState(to, func(target string) expsys.Errno { return r.state.rename(source, target) })
	})
}

// inState does f with a path within /state; elsewhere nothing can be changed.
func (r *rootFS) inState(name string, f func(rest string) expsys.Errno) expsys.Errno {
	first, rest := split(name)
	if first != "state" || r.state == nil {
		return expsys.EROFS
	}
	if rest == "" {
		return expsys.EACCES // /state itself stays
	}
	if errno := refused(rest); errno != 0 {
		return errno
	}
	return f(rest)
}

// errnoOf returns what a guest learns of an error of the host.
func errnoOf(err error) expsys.Errno {
	var errno expsys.Errno
	switch {
	case err == nil:
		return 0
	case errors.As(err, &errno): // our own
		return errno
	case errors.Is(err, fs.ErrNotExist):
		return expsys.ENOENT
	case errors.Is(err, syscall.ENOTEMPTY): // which is an fs.ErrExist too
		return expsys.ENOTEMPTY
	case errors.Is(err, fs.ErrExist):
		return expsys.EEXIST
	case errors.Is(err, syscall.EISDIR):
		return expsys.EISDIR
	case errors.Is(err, syscall.ENOTDIR):
		return expsys.ENOTDIR
	case errors.Is(err, fs.ErrPermission):
		return expsys.EACCES
	case errors.Is(err, syscall.EINVAL), errors.Is(err, fs.ErrInvalid):
		return expsys.EINVAL
	case errors.Is(err, fs.ErrClosed):
		return expsys.EBADF
	}
	return expsys.EIO
}

// dirFile is an open folder outside /state.
type dirFile struct {
	expsys.UnimplementedFile
	entries []expsys.Dirent
	next    int
}

func (d *dirFile) IsDir() (bool, expsys.Errno) { return true, 0 }

func (d *dirFile) Stat() (sys.Stat_t, expsys.Errno) {
	return sys.Stat_t{Mode: fs.ModeDir | 0o555, Nlink: 1}, 0
}

func (d *dirFile) Readdir(n int) ([]expsys.Dirent, expsys.Errno) {
	rest := d.entries[d.next:]
	if n > 0 {
		rest = rest[:min(n, len(rest))]
	}
	d.next += len(rest)
	return rest, 0
}

func (d *dirFile) Seek(offset int64, whence int) (int64, expsys.Errno) {
	if offset != 0 || whence != io.SeekStart {
		return 0, expsys.EINVAL
	}
	d.next = 0
	return 0, 0
}

func (d *dirFile) Read([]byte) (int, expsys.Errno) { return 0, expsys.EISDIR }

// deviceFile is an open /dev/<name>. The first read takes a sample, and reads
// go through it to its end; the next read after that takes the next sample.
// Each write is an action.
type deviceFile struct {
	charFile
	device  Device
	sample  []byte
	reading bool
}

func (d *deviceFile) Read(buf []byte) (int, expsys.Errno) {
	if !d.reading {
		sample, err := d.device.Read(d.session.ctx)
		if errors.Is(err, io.EOF) {
			return 0, 0
		}
		if err != nil {
			d.session.failed(err)
			return 0, expsys.EIO
		}
		if errno := d.hold(len(sample)); errno != 0 {
			return 0, errno
		}
		d.sample, d.reading = sample, true
	}
	n := copy(buf, d.sample)
	if d.sample = d.sample[n:]; len(d.sample) == 0 {
		d.drop()
	}
	d.reading = n > 0 || len(buf) == 0
	return n, 0
}

func (d *deviceFile) Write(buf []byte) (int, expsys.Errno) {
	if errno := d.session.hold(len(buf)); errno != 0 {
		return 0, errno
	}
	defer d.session.release(len(buf))
	if err := d.device.Write(d.session.ctx, slices.Clone(buf)); err != nil {
		d.session.failed(err)
		return 0, expsys.EIO
	}
	return len(buf), 0
}

// linkFile is an open /link/<name>. What is written is the request; the first
// read sends it, and reads go through the response to its end. Then it is
// ready for another.
type linkFile struct {
	charFile
	link     Link
	request  []byte
	response []byte
	reading  bool
}

func (l *linkFile) Write(buf []byte) (int, expsys.Errno) {
	if len(l.request)+len(buf) > DefaultOutput {
		l.session.failed(errRequest)
		return 0, expsys.EIO
	}
	if l.reading {
		l.drop()
		l.response, l.reading = nil, false
	}
	if errno := l.hold(len(buf)); errno != 0 {
		return 0, errno
	}
	l.request = append(l.request, buf...)
	return len(buf), 0
}

func (l *linkFile) Read(buf []byte) (int, expsys.Errno) {
	if !l.reading {
		if l.request == nil {
			return 0, 0
		}
		request := l.request
		l.request = nil
		response, err := l.link(l.session.ctx, request)
		l.drop()
		if err != nil {
			l.session.failed(err)
			return 0, expsys.EIO
		}
		if errno := l.hold(len(response)); errno != 0 {
			return 0, errno
		}
		l.response, l.reading = response, true
	}
	n := copy(buf, l.response)
	if l.response = l.response[n:]; len(l.response) == 0 {
		l.drop()
	}
	l.reading = n > 0 || len(buf) == 0
	return n, 0
}

var errRequest = decant.Errorf(decant.Exhausted, "the request to a link is larger than %s", decant.Bytes(DefaultOutput))

// charFile is what devices and links have in common: they have no size, no
// place to seek to, and count what they hold.
type charFile struct {
	expsys.UnimplementedFile
	session *session
	held    int
}

func (c *charFile) hold(n int) expsys.Errno {
	errno := c.session.hold(n)
	if errno == 0 {
		c.held += n
	}
	return errno
}

// drop gives back all that is held.
func (c *charFile) drop() {
	c.session.release(c.held)
	c.held = 0
}

func (c *charFile) Close() expsys.Errno {
	c.drop()
	return 0
}

func (charFile) Stat() (sys.Stat_t, expsys.Errno) {
	return sys.Stat_t{Mode: fs.ModeDevice | fs.ModeCharDevice | 0o666, Nlink: 1}, 0
}
func (charFile) IsDir() (bool, expsys.Errno)           { return false, 0 }
func (charFile) Truncate(int64) expsys.Errno           { return 0 } // shells open with O_TRUNC
func (charFile) Sync() expsys.Errno                    { return 0 }
func (charFile) Datasync() expsys.Errno                { return 0 }
func (charFile) Seek(int64, int) (int64, expsys.Errno) { return 0, expsys.EINVAL }
