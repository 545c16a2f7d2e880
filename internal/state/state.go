// Package state is the orchestrator's durable state: a small ordered key-value
// store with etcd v3's meaning, so that etcd itself can stand behind it. What
// enters are transactions over keys, what leaves are values and, to those who
// watch, every change in order. A commit is acknowledged once it would survive
// the loss of power.
//
// statetest holds the suite that each implementation passes: mem (tests),
// sqlite (default).
package state

import (
	"context"
	"time"

	"github.com/decant-project/decant"
)

// KV is a key with its value. Revisions count the store's commits: ModRevision
// is that of the key's last change, CreateRevision that of its first since it
// was absent, Version the number of changes since then, starting at 1.
type KV struct {
	Key            string
	Value          []byte
	CreateRevision int64
	ModRevision    int64
	Version        int64
	Lease          LeaseID // 0: none
}

// LeaseID names a lease.
type LeaseID int64

// Cond holds if key's ModRevision is this one; 0 holds if key is absent.
type Cond struct {
	Key         string
	ModRevision int64
}

// Op changes one key.
type Op struct {
	Key    string
	Value  []byte
	Lease  LeaseID // the key goes when the lease ends; 0: stays
	Delete bool    // remove the key; absent is fine
}

// Txn is applied whole or not at all: Then, if all of If hold. It touches each
// key once at most.
type Txn struct {
	If   []Cond
	Then []Op
}

// Change is a key's new value, or its deletion (then KV has only Key and
// ModRevision).
type Change struct {
	KV
	Deleted bool
}

// Batch is all changes of one commit, or the error that ended the watch.
type Batch struct {
	Revision int64
	Changes  []Change
	Err      error
}

// ErrCompacted is returned for a revision that was compacted away: list, and
// watch from the list's revision.
var ErrCompacted = decant.Errorf(decant.NotFound, "revision was compacted")

// Store is the contract. Keys are compared as bytes. Limits: a key of 1 KiB, a
// value of 1 MiB, 1,000 ops a transaction (Exhausted beyond). It is safe for
// concurrent use.
type Store interface {
	// Get returns a key as it is now; NotFound if it is absent.
	Get(ctx context.Context, key string) (KV, error)
	// List returns all keys that start with prefix, in order, at revision (0:
	// now), and the revision it read at. ErrCompacted; Invalid for the future.
	List(ctx context.Context, prefix string, revision int64) ([]KV, int64, error)
	// Commit applies a transaction and returns its revision. Conflict: a
	// condition did not hold. NotFound: a lease does not exist. After an error
	// of another code it may or may not have been applied.
	Commit(ctx context.Context, t Txn) (int64, error)
	// Watch sends every commit after revision that touched a key that starts
	// with prefix, each once, in order, until ctx ends; then it closes the
	// channel. A batch with Err set is the last: ErrCompacted, or the store
	// failed or was closed. A slow reader slows only itself.
	Watch(ctx context.Context, prefix string, after int64) <-chan Batch
	// Grant makes a lease that ends ttl after it was last kept alive. Leases
	// outlive the process: opening a store gives each its whole ttl again.
	Grant(ctx context.Context, ttl time.Duration) (LeaseID, error)
	// KeepAlive gives a lease its whole ttl again; NotFound if it has ended.
	KeepAlive(ctx context.Context, id LeaseID) error
	// Revoke ends a lease now and deletes its keys, in one commit.
	Revoke(ctx context.Context, id LeaseID) error
	// Compact forgets the history up to and including revision, not the values.
	Compact(ctx context.Context, revision int64) error
	Close() error
}
