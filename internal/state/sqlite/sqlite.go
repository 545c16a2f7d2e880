// Package sqlite keeps the orchestrator's state in one SQLite file: the
// default. The file is a log of commits; a Store holds the state in memory
// (package mem) and the file makes it last.
package sqlite

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/ncruces/go-sqlite3"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/state"
	"github.com/decant-project/decant/internal/state/mem"
)

// schemaVersion is kept in the file's user_version.
const schemaVersion = 1

const schema = `
CREATE TABLE log (
	rev      INTEGER NOT NULL, -- of the commit
	key      TEXT    NOT NULL,
	value    BLOB,             -- NULL: deleted
	created  INTEGER NOT NULL, -- CreateRevision
	version  INTEGER NOT NULL,
	lease    INTEGER NOT NULL,
	PRIMARY KEY (rev, key)
) WITHOUT ROWID;
CREATE INDEX log_key ON log (key, rev);
CREATE TABLE lease (id INTEGER PRIMARY KEY, ttl INTEGER NOT NULL); -- ttl in nanoseconds
CREATE TABLE compaction (one INTEGER PRIMARY KEY CHECK (one = 1), compacted INTEGER NOT NULL, last INTEGER NOT NULL);
INSERT INTO compaction VALUES (1, 0, 0);
`

// Open opens the store in file, which it makes if there is none. Conflict:
// another process has it open. Corrupt: it is damaged, or no such file.
// Unsupported: a newer decant made it.
func Open(file string) (*mem.Store, error) {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return nil, decant.Errorf(decant.Internal, "cannot make the state's folder: %w", err)
	}
	lock, err := lockFile(file + ".lock")
	if err != nil {
		return nil, err
	}
	if err := touchPrivate(file); err != nil {
		_ = lock.Close()
		return nil, err
	}
	j, err := open(file, false)
	if err != nil {
		_ = lock.Close()
		return nil, err
	}
	j.lock = lock
	return start(j)
}

// touchPrivate makes file its owner's alone, before SQLite does: the files beside
// it get the same mode.
func touchPrivate(file string) error {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o600)
	if err == nil {
		err = errors.Join(f.Chmod(0o600), f.Close())
	}
	if err != nil {
		return decant.Errorf(decant.Internal, "cannot make the state's file: %w", err)
	}
	return nil
}

// OpenReadOnly opens the store in file beside the process that has it open, as
// it is at this moment. Every change fails.
func OpenReadOnly(file string) (*mem.Store, error) {
	if _, err := os.Stat(file); err != nil {
		return nil, decant.Errorf(decant.NotFound, "there is no state in %s", file)
	}
	j, err := open(file, true)
	if err != nil {
		return nil, err
	}
	return start(j)
}

func start(j *journal) (*mem.Store, error) {
	s, err := mem.Open(j)
	if err != nil {
		_ = j.Close()
		return nil, err
	}
	return s, nil
}

func lockFile(name string) (*os.File, error) {
	lock, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, decant.Errorf(decant.Internal, "cannot open the state's lock: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = lock.Close()
		return nil, decant.Errorf(decant.Conflict, "another orchestrator uses %s", filepath.Dir(name)).
			WithHelp("stop it first, or start with another --dir")
	}
	return lock, nil
}

// journal implements mem.Journal. Only one goroutine uses it at a time.
type journal struct {
	conn     *sqlite3.Conn
	readOnly bool
	lock     *os.File

	appendLog, addLease, endLease *sqlite3.Stmt
}

func open(file string, readOnly bool) (*journal, error) {
	flags := sqlite3.OPEN_READWRITE | sqlite3.OPEN_CREATE
	if readOnly {
		flags = sqlite3.OPEN_READWRITE // a WAL cannot be read without its index
	}
	conn, err := sqlite3.OpenFlags(file, flags)
	if err != nil {
		return nil, fault("open the state", err)
	}
	j := &journal{conn: conn, readOnly: readOnly}
	if err := j.prepare(); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return j, nil
}

func (j *journal) prepare() error {
	if err := j.conn.BusyTimeout(10 * time.Second); err != nil {
		return fault("open the state", err)
	}
	version, err := j.int("PRAGMA user_version")
	if err != nil {
		return fault("read the state", err)
	}
	switch {
	case version > schemaVersion:
		return decant.Errorf(decant.Unsupported, "the state was made by a newer decant (format %d, this one knows %d)", version, schemaVersion)
	case version == 0 && j.readOnly:
		return decant.Errorf(decant.Corrupt, "the file holds no state")
	case version == 0:
		if err := j.create(); err != nil {
			return err
		}
	}
	// FULL: a commit is on disk when it is acknowledged. NORMAL loses the tail
	// of the log with the power.
	for _, pragma := range []string{"PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "PRAGMA wal_autocheckpoint=200"} {
		if err := j.conn.Exec(pragma); err != nil {
			return fault("open the state", err)
		}
	}
	for sql, stmt := range map[string]**sqlite3.Stmt{
		"INSERT INTO log VALUES (?, ?, ?, ?, ?, ?)":  &j.appendLog,
		"INSERT OR REPLACE INTO lease VALUES (?, ?)": &j.addLease,
		"DELETE FROM lease WHERE id = ?":             &j.endLease,
	} {
		if *stmt, _, err = j.conn.Prepare(sql); err != nil {
			return fault("open the state", err)
		}
	}
	return nil
}

// create makes the tables. Page checksums must be switched on while the file
// is empty.
func (j *journal) create() error {
	if err := j.conn.EnableChecksums("main"); err != nil {
		return fault("make the state", err)
	}
	return j.transaction("make the state", func() error {
		return j.conn.Exec(schema + fmt.Sprintf("PRAGMA user_version=%d", schemaVersion))
	})
}

func (j *journal) transaction(what string, f func() error) (err error) {
	tx, err := j.conn.BeginImmediate()
	if err != nil {
		return fault(what, err)
	}
	if err := f(); err != nil {
		return fault(what, errors.Join(err, tx.Rollback()))
	}
	if err := tx.Commit(); err != nil {
		return fault(what, errors.Join(err, tx.Rollback()))
	}
	return nil
}

// Load implements mem.Journal.
func (j *journal) Load() (mem.Image, error) {
	image := mem.Image{Leases: map[state.LeaseID]time.Duration{}}
	err := j.rows("SELECT compacted, last FROM compaction", func(s *sqlite3.Stmt) {
		image.Compacted, image.Revision = s.ColumnInt64(0), s.ColumnInt64(1)
	})
	if err == nil {
		err = j.rows("SELECT id, ttl FROM lease", func(s *sqlite3.Stmt) {
			image.Leases[state.LeaseID(s.ColumnInt64(0))] = time.Duration(s.ColumnInt64(1))
		})
	}
	if err == nil {
		err = j.rows("SELECT rev, key, value, created, version, lease FROM log ORDER BY rev, key", func(s *sqlite3.Stmt) {
			c := state.Change{KV: state.KV{
				Key: s.ColumnText(1), ModRevision: s.ColumnInt64(0),
				CreateRevision: s.ColumnInt64(3), Version: s.ColumnInt64(4), Lease: state.LeaseID(s.ColumnInt64(5)),
			}}
			if c.Deleted = s.ColumnType(2) == sqlite3.NULL; !c.Deleted {
				c.Value = s.ColumnBlob(2, nil)
			}
			if n := len(image.Commits); n == 0 || image.Commits[n-1].Revision != c.ModRevision {
				image.Commits = append(image.Commits, mem.Commit{Revision: c.ModRevision})
			}
			last := &image.Commits[len(image.Commits)-1]
			last.Changes = append(last.Changes, c)
			image.Revision = max(image.Revision, c.ModRevision)
		})
	}
	if err != nil {
		return mem.Image{}, fault("read the state", err)
	}
	return image, nil
}

// Append implements mem.Journal.
func (j *journal) Append(commits []mem.Commit, leases []mem.LeaseChange) error {
	if j.readOnly {
		return decant.Errorf(decant.Unsupported, "the state is open for reading only")
	}
	return j.transaction("keep the state", func() error {
		for _, c := range commits {
			for _, change := range c.Changes {
				if err := j.appendChange(change); err != nil {
					return err
				}
			}
		}
		for _, l := range leases {
			stmt, binds := j.endLease, []int64{int64(l.ID)}
			if l.TTL > 0 {
				stmt, binds = j.addLease, []int64{int64(l.ID), int64(l.TTL)}
			}
			for i, v := range binds {
				if err := stmt.BindInt64(i+1, v); err != nil {
					return err
				}
			}
			if err := stmt.Exec(); err != nil {
				return err
			}
		}
		return nil
	})
}

func (j *journal) appendChange(c state.Change) error {
	s := j.appendLog
	value := s.BindNull(3)
	if !c.Deleted {
		value = s.BindBlob(3, append([]byte{}, c.Value...)) // never NULL
	}
	return errors.Join(
		value, s.BindInt64(1, c.ModRevision), s.BindText(2, c.Key),
		s.BindInt64(4, c.CreateRevision), s.BindInt64(5, c.Version), s.BindInt64(6, int64(c.Lease)),
		s.Exec(),
	)
}

// Compact implements mem.Journal.
func (j *journal) Compact(revision, last int64) error {
	if j.readOnly {
		return decant.Errorf(decant.Unsupported, "the state is open for reading only")
	}
	return j.transaction("compact the state", func() error {
		return j.conn.Exec(fmt.Sprintf(`
			DELETE FROM log WHERE rev <= %[1]d AND (value IS NULL OR EXISTS (
				SELECT 1 FROM log AS later WHERE later.key = log.key AND later.rev > log.rev AND later.rev <= %[1]d));
			UPDATE compaction SET compacted = %[1]d, last = %[2]d`, revision, last))
	})
}

// Close implements mem.Journal.
func (j *journal) Close() error {
	var errs []error
	for _, s := range []*sqlite3.Stmt{j.appendLog, j.addLease, j.endLease} {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	errs = append(errs, j.conn.Close())
	if j.lock != nil {
		errs = append(errs, j.lock.Close())
	}
	return errors.Join(errs...)
}

func (j *journal) rows(sql string, f func(*sqlite3.Stmt)) error {
	s, _, err := j.conn.Prepare(sql)
	if err != nil {
		return err
	}
	for s.Step() {
		f(s)
	}
	return errors.Join(s.Err(), s.Close())
}

func (j *journal) int(sql string) (n int64, err error) {
	err = j.rows(sql, func(s *sqlite3.Stmt) { n = s.ColumnInt64(0) })
	return n, err
}

// fault turns an error of SQLite into one that says what to do.
func fault(what string, err error) error {
	switch {
	case errors.Is(err, sqlite3.FULL):
		return decant.Errorf(decant.Exhausted, "cannot %s: the disk is full", what).WithHelp("make room; nothing that was acknowledged is lost")
	case errors.Is(err, sqlite3.CORRUPT), errors.Is(err, sqlite3.NOTADB), errors.Is(err, sqlite3.IOERR_DATA):
		return decant.Errorf(decant.Corrupt, "cannot %s: the file is damaged: %w", what, err).
			WithHelp("restore it with `decant state import` from an export")
	}
	return decant.Errorf(decant.Internal, "cannot %s: %w", what, err)
}
