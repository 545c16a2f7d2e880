package codecache

import (
	"cmp"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/durable"
)

// names in the folder.
const (
	lockName    = "lock"
	recordsName = "modules"
	codePrefix  = "wazero-"
	workPrefix  = "compile-"
)

// openFolder makes and checks the folder of a cache, and returns its lock. Who
// has the folder alone clears up in it.
func openFolder(c Config) (lock *os.File, err error) {
	records := filepath.Join(c.Dir, recordsName)
	if err := os.MkdirAll(records, 0o700); err != nil {
		return nil, decant.Errorf(decant.Internal, "cannot make the folder of compiled modules: %w", err)
	}
	code, _ := filepath.Glob(filepath.Join(c.Dir, codePrefix+"*"))
	for _, dir := range append(code, c.Dir, records) {
		if err := checkFolder(dir); err != nil {
			return nil, err
		}
	}
	lock, alone, err := lockFolder(filepath.Join(c.Dir, lockName))
	if err != nil {
		return nil, decant.Errorf(decant.Internal, "cannot lock the folder of compiled modules: %w", err)
	}
	if alone {
		err = errors.Join(c.sweep(), c.evict(func(digest) bool { return false }))
	}
	if err = errors.Join(err, share(lock)); err != nil {
		return nil, errors.Join(decant.Errorf(decant.Internal, "cannot clear up the folder of compiled modules: %w", err), lock.Close())
	}
	return lock, nil
}

// checkFolder returns an error where others than this process's user may get at a
// folder's files. Denied.
func checkFolder(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return decant.Errorf(decant.Internal, "cannot use the folder of compiled modules: %w", err)
	}
	if !info.IsDir() {
		return decant.Errorf(decant.Denied, "%s is not a folder", dir).WithHelp("remove it: it holds nothing but compiled modules")
	}
	if !private(info) {
		return decant.Errorf(decant.Denied, "machine code is not kept in %s: others than its owner may write there", dir).
			WithHelp("remove the folder, or make it yours alone: chown $(id -u) and chmod 700")
	}
	return nil
}

// checkFile returns an error where path is anything but a file of this process's
// user alone. Denied.
func checkFile(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || !private(info) {
		return decant.Errorf(decant.Denied, "%s is not a file of its owner alone", path)
	}
	return nil
}

func (c Config) recordPath(key digest) string {
	return filepath.Join(c.Dir, recordsName, hex.EncodeToString(key[:]))
}

// find returns what is known of a module. Code that was found is as it was kept.
func (c *Cache) find(key digest) (record, bool) {
	c.mu.Lock()
	verified := c.verified[key]
	c.mu.Unlock()
	if verified {
		return record{}, true
	}
	r, err := readRecord(c.config.recordPath(key))
	if err != nil || !r.usable(c.config) {
		return record{}, false
	}
	if r.Failure != nil {
		return r, true
	}
	if r.Code.verify(c.config.Dir) != nil {
		return record{}, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.verified[key] = true
	return r, true
}

// touch keeps when a module was last used: the time of its record.
func (c *Cache) touch(key digest) {
	now := time.Now()
	_ = os.Chtimes(c.config.recordPath(key), now, now) // in doubt it goes earlier
}

// keep moves what a child made from the folder work to where it belongs. Code
// comes before its record: a crash leaves code that the next Open removes.
func (c *Cache) keep(work string, key digest, r record) error {
	if r.Code != nil {
		if err := move(filepath.Join(work, r.Code.Path), filepath.Join(c.config.Dir, r.Code.Path)); err != nil {
			return err
		}
	}
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	made := filepath.Join(work, recordsName)
	if err := durable.WriteFile(made, data); err != nil {
		return err
	}
	return move(made, c.config.recordPath(key))
}

// move renames a file that is on the disk already, so that its name lasts.
func move(from, to string) error {
	dir := filepath.Dir(to)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return durable.SyncDir(dir)
}

// drop forgets a module.
func (c *Cache) drop(key digest) {
	c.mu.Lock()
	delete(c.verified, key)
	c.mu.Unlock()
	c.config.remove(key)
}

// remove removes the record of a module and then its code; what stays behind is
// written over, or goes at the next Open.
func (c Config) remove(key digest) {
	path := c.recordPath(key)
	r, err := readRecord(path)
	_ = os.RemoveAll(path)
	if err == nil && r.Code != nil {
		_ = os.Remove(filepath.Join(c.Dir, r.Code.Path))
	}
}

// evict removes the modules that were not used for longest while the folder is
// beyond its size, but none that a call is at.
func (c *Cache) evict() error {
	return c.config.evict(func(key digest) bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		_, busy := c.busy[key]
		return busy
	})
}

// recordSize is the space that a record takes, on most disks.
const recordSize = 4096

// evict removes modules, the oldest first, unless spare says not to.
func (c Config) evict(spare func(digest) bool) error {
	type module struct {
		key  digest
		size int64
		used time.Time
	}
	var all []module
	total := int64(0)
	err := c.eachRecord(func(key digest, r record, info fs.FileInfo) {
		m := module{key: key, size: recordSize, used: info.ModTime()}
		if r.Code != nil {
			m.size += r.Code.Size
		}
		total += m.size
		all = append(all, m)
	})
	slices.SortFunc(all, func(a, b module) int { return cmp.Or(a.used.Compare(b.used), slices.Compare(a.key[:], b.key[:])) })
	for _, m := range all {
		if total <= c.Size {
			break
		}
		if !spare(m.key) {
			c.remove(m.key)
			total -= m.size
		}
	}
	return err
}

// eachRecord calls do for each record that can be read.
func (c Config) eachRecord(do func(digest, record, fs.FileInfo)) error {
	entries, err := os.ReadDir(filepath.Join(c.Dir, recordsName))
	for _, e := range entries {
		key, ok := parseDigest(e.Name())
		if !ok {
			continue
		}
		info, err := e.Info()
		if err != nil {
			continue // another process removed it
		}
		if r, err := readRecord(c.recordPath(key)); err == nil {
			do(key, r, info)
		}
	}
	return err
}

// sweep removes what a killed process left, what another version made and what is
// not known. It is called where no other process has the folder open.
func (c Config) sweep() error {
	known := map[string]bool{}
	err := c.eachRecord(func(key digest, r record, _ fs.FileInfo) {
		if !r.usable(c) {
			return
		}
		known[c.recordPath(key)] = true
		if r.Code != nil {
			known[filepath.Join(c.Dir, r.Code.Path)] = true
		}
	})
	entries, err2 := os.ReadDir(c.Dir)
	err = errors.Join(err, err2)
	for _, e := range entries {
		path := filepath.Join(c.Dir, e.Name())
		switch {
		case strings.HasPrefix(e.Name(), workPrefix):
			err = errors.Join(err, os.RemoveAll(path))
		case e.Name() == recordsName, strings.HasPrefix(e.Name(), codePrefix):
			err = errors.Join(err, removeOthers(path, known))
		}
	}
	return err
}

// removeOthers removes what is in dir and not known.
func removeOthers(dir string, known map[string]bool) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if path := filepath.Join(dir, e.Name()); !known[path] {
			err = errors.Join(err, os.RemoveAll(path))
		}
	}
	return err
}
