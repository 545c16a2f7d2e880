// Package statetest is the suite that each implementation of state.Store
// passes. It asks for nothing that etcd v3 would not give.
package statetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/state"
)

// Run runs the suite. open makes a new, empty store; the suite closes it.
func Run(t *testing.T, open func(t testing.TB) state.Store) {
	for name, test := range map[string]func(*testing.T, state.Store){
		"revisions":          testRevisions,
		"transactions":       testTransactions,
		"limits":             testLimits,
		"list at a revision": testListAtRevision,
		"watch":              testWatch,
		"slow watcher":       testSlowWatcher,
		"compaction":         testCompaction,
		"leases":             testLeases,
		"concurrent CAS":     testConcurrentCAS,
		"close":              testClose,
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			defer s.Close()
			test(t, s)
		})
	}
	t.Run("model", func(t *testing.T) {
		rapid.Check(t, func(rt *rapid.T) {
			s := open(t)
			defer s.Close()
			testModel(rt, s)
		})
	})
}

var ctx = context.Background()

func put(key, value string) state.Op { return state.Op{Key: key, Value: []byte(value)} }
func del(key string) state.Op        { return state.Op{Key: key, Delete: true} }

func commit(t testing.TB, s state.Store, ops ...state.Op) int64 {
	t.Helper()
	rev, err := s.Commit(ctx, state.Txn{Then: ops})
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

func wantCode(t testing.TB, err error, code decant.Code) {
	t.Helper()
	if !errors.Is(err, code) {
		t.Errorf("got error %v, want %s", err, code)
	}
}

func testRevisions(t *testing.T, s state.Store) {
	a := commit(t, s, put("k", "1"))
	b := commit(t, s, put("other", ""))
	c := commit(t, s, put("k", "2"))
	if b != a+1 || c != b+1 {
		t.Errorf("revisions %d, %d, %d: want each one more", a, b, c)
	}
	kv, err := s.Get(ctx, "k")
	if err != nil || string(kv.Value) != "2" || kv.CreateRevision != a || kv.ModRevision != c || kv.Version != 2 {
		t.Errorf("got %+v, %v", kv, err)
	}
	commit(t, s, del("k"))
	_, err = s.Get(ctx, "k")
	wantCode(t, err, decant.NotFound)
	e := commit(t, s, put("k", "3"))
	if kv, _ := s.Get(ctx, "k"); kv.CreateRevision != e || kv.Version != 1 {
		t.Errorf("after a deletion: got %+v", kv)
	}
}

func testTransactions(t *testing.T, s state.Store) {
	rev := commit(t, s, put("a", "1"), put("b", "1"))
	_, err := s.Commit(ctx, state.Txn{
		If:   []state.Cond{{Key: "a", ModRevision: rev}, {Key: "b", ModRevision: rev + 7}},
		Then: []state.Op{put("a", "2"), put("b", "2")},
	})
	wantCode(t, err, decant.Conflict)
	if kv, _ := s.Get(ctx, "a"); string(kv.Value) != "1" {
		t.Errorf("a failed transaction changed a to %q", kv.Value)
	}
	_, err = s.Commit(ctx, state.Txn{If: []state.Cond{{Key: "new"}}, Then: []state.Op{put("new", "x")}})
	if err != nil {
		t.Errorf("create of an absent key: %v", err)
	}
	_, err = s.Commit(ctx, state.Txn{If: []state.Cond{{Key: "new"}}, Then: []state.Op{put("new", "y")}})
	wantCode(t, err, decant.Conflict)
	_, err = s.Commit(ctx, state.Txn{Then: []state.Op{put("a", "1"), del("a")}})
	wantCode(t, err, decant.Invalid)
	_, err = s.Commit(ctx, state.Txn{Then: []state.Op{put("", "1")}})
	wantCode(t, err, decant.Invalid)
}

func testLimits(t *testing.T, s state.Store) {
	_, err := s.Commit(ctx, state.Txn{Then: []state.Op{put(strings.Repeat("k", 1<<10+1), "")}})
	wantCode(t, err, decant.Exhausted)
	_, err = s.Commit(ctx, state.Txn{Then: []state.Op{put("k", strings.Repeat("v", 1<<20+1))}})
	wantCode(t, err, decant.Exhausted)
	commit(t, s, put(strings.Repeat("k", 1<<10), strings.Repeat("v", 1<<20)))
	var many []state.Op
	for i := range 1001 {
		many = append(many, put(fmt.Sprint(i), ""))
	}
	_, err = s.Commit(ctx, state.Txn{Then: many})
	wantCode(t, err, decant.Exhausted)
	commit(t, s, many[:1000]...)
}

func keys(kvs []state.KV) string {
	var out []string
	for _, kv := range kvs {
		out = append(out, kv.Key+"="+string(kv.Value))
	}
	return strings.Join(out, " ")
}

func testListAtRevision(t *testing.T, s state.Store) {
	commit(t, s, put("p/b", "1"), put("q", "1"))
	early := commit(t, s, put("p/a", "1"))
	commit(t, s, put("p/b", "2"), del("p/a"))
	now := commit(t, s, put("p/c", "1"))
	for _, tt := range []struct {
		prefix string
		rev    int64
		want   string
	}{
		{"p/", 0, "p/b=2 p/c=1"},
		{"p/", now, "p/b=2 p/c=1"},
		{"p/", early, "p/a=1 p/b=1"},
		{"", early, "p/a=1 p/b=1 q=1"},
		{"nothing", 0, ""},
	} {
		got, rev, err := s.List(ctx, tt.prefix, tt.rev)
		wantRev := tt.rev
		if wantRev == 0 {
			wantRev = now
		}
		if err != nil || keys(got) != tt.want || rev != wantRev {
			t.Errorf("List(%q, %d) = %q at %d, %v; want %q", tt.prefix, tt.rev, keys(got), rev, err, tt.want)
		}
	}
	_, _, err := s.List(ctx, "", now+1)
	wantCode(t, err, decant.Invalid)
}

// testWatch: with writers at work, a watcher sees each commit that concerns it
// once, whole and in order, from where it asked.
func testWatch(t *testing.T, s state.Store) {
	start := commit(t, s, put("w/before", ""))
	var wg sync.WaitGroup
	const writers, each = 4, 50
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				if _, err := s.Commit(ctx, state.Txn{Then: []state.Op{put(fmt.Sprintf("w/%d", w), fmt.Sprint(i)), put("w/same", fmt.Sprint(w, i)), put("elsewhere", "")}}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	last, next := start, map[string]int{}
	n := 0
	for b := range s.Watch(ctx, "w/", start) {
		if b.Err != nil {
			t.Fatal(b.Err)
		}
		if b.Revision != last+1 || len(b.Changes) != 2 {
			t.Fatalf("after revision %d came %+v", last, b)
		}
		last = b.Revision
		for _, c := range b.Changes {
			if c.Key != "w/same" {
				if string(c.Value) != fmt.Sprint(next[c.Key]) || c.ModRevision != b.Revision {
					t.Fatalf("%s: got %q, want %d", c.Key, c.Value, next[c.Key])
				}
				next[c.Key]++
			}
		}
		if n++; n == writers*each {
			cancel()
		}
	}
	wg.Wait()
	if n != writers*each {
		t.Errorf("saw %d commits, want %d", n, writers*each)
	}
}

func testSlowWatcher(t *testing.T, s state.Store) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	slow := s.Watch(ctx, "", 0)
	for i := range 500 {
		commit(t, s, put("k", fmt.Sprint(i))) // nobody reads slow meanwhile
	}
	for i := range 500 {
		if b := <-slow; b.Err != nil || string(b.Changes[0].Value) != fmt.Sprint(i) {
			t.Fatalf("batch %d: got %+v", i, b)
		}
	}
	del := commit(t, s, del("k"))
	if b := <-slow; len(b.Changes) != 1 || !b.Changes[0].Deleted || b.Changes[0].ModRevision != del || b.Changes[0].Key != "k" {
		t.Errorf("deletion: got %+v", b)
	}
}

func testCompaction(t *testing.T, s state.Store) {
	old := commit(t, s, put("a", "1"), put("gone", "1"))
	commit(t, s, put("a", "2"), del("gone"))
	at := commit(t, s, put("b", "1"))
	now := commit(t, s, put("b", "2"))
	if err := s.Compact(ctx, at); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.List(ctx, "", old); !errors.Is(err, state.ErrCompacted) {
		t.Errorf("list before compaction: %v", err)
	}
	for rev, want := range map[int64]string{at: "a=2 b=1", now: "a=2 b=2"} {
		if got, _, err := s.List(ctx, "", rev); err != nil || keys(got) != want {
			t.Errorf("list at %d: %q, %v; want %q", rev, keys(got), err, want)
		}
	}
	if b := <-s.Watch(t.Context(), "", old); !errors.Is(b.Err, state.ErrCompacted) {
		t.Errorf("watch before compaction: %+v", b)
	}
	if b := <-s.Watch(t.Context(), "", at); b.Revision != now {
		t.Errorf("watch after compaction: %+v", b)
	}
	if err := s.Compact(ctx, at); !errors.Is(err, state.ErrCompacted) {
		t.Errorf("compact again: %v", err)
	}
	wantCode(t, s.Compact(ctx, now+10), decant.Invalid)
}

func testLeases(t *testing.T, s state.Store) {
	kept, err := s.Grant(ctx, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	short, err := s.Grant(ctx, 1500*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Commit(ctx, state.Txn{Then: []state.Op{{Key: "x", Lease: short + 1000}}})
	wantCode(t, err, decant.NotFound)
	rev, err := s.Commit(ctx, state.Txn{Then: []state.Op{
		{Key: "s/1", Lease: short}, {Key: "s/2", Lease: short}, {Key: "kept", Lease: kept}, {Key: "freed", Lease: short},
	}})
	if err != nil {
		t.Fatal(err)
	}
	freed := commit(t, s, put("freed", "by a put without the lease"))
	_ = rev
	b := <-s.Watch(t.Context(), "s/", freed) // waits for the lease's end
	if len(b.Changes) != 2 || !b.Changes[0].Deleted || !b.Changes[1].Deleted {
		t.Errorf("at the lease's end: %+v", b)
	}
	wantCode(t, s.KeepAlive(ctx, short), decant.NotFound)
	wantCode(t, s.Revoke(ctx, short), decant.NotFound)
	if err := s.KeepAlive(ctx, kept); err != nil {
		t.Error(err)
	}
	if got, _, _ := s.List(ctx, "", 0); len(got) != 2 {
		t.Errorf("left are %q", keys(got))
	}
	if err := s.Revoke(ctx, kept); err != nil {
		t.Error(err)
	}
	_, err = s.Get(ctx, "kept")
	wantCode(t, err, decant.NotFound)
}

// testConcurrentCAS: of increments that each read, then write if nothing has
// changed, none is lost.
func testConcurrentCAS(t *testing.T, s state.Store) {
	commit(t, s, put("n", ""))
	var wg sync.WaitGroup
	const workers, each = 8, 25
	for range workers {
		wg.Go(func() {
			for done := 0; done < each; {
				kv, err := s.Get(ctx, "n")
				if err != nil {
					t.Error(err)
					return
				}
				_, err = s.Commit(ctx, state.Txn{If: []state.Cond{{Key: "n", ModRevision: kv.ModRevision}}, Then: []state.Op{put("n", string(kv.Value)+"x")}})
				if err == nil {
					done++
				} else if !errors.Is(err, decant.Conflict) {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if kv, _ := s.Get(ctx, "n"); len(kv.Value) != workers*each || kv.Version != workers*each+1 {
		t.Errorf("%d increments are left, version %d; want %d", len(kv.Value), kv.Version, workers*each)
	}
}

func testClose(t *testing.T, s state.Store) {
	w := s.Watch(t.Context(), "", 0)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if b := <-w; b.Err == nil {
		t.Errorf("a watch of a closed store got %+v", b)
	}
	_, err := s.Commit(ctx, state.Txn{Then: []state.Op{put("k", "")}})
	wantCode(t, err, decant.Unavailable)
}

// testModel runs commits at random against a map for each revision.
func testModel(t *rapid.T, s state.Store) {
	names := rapid.SampledFrom([]string{"a", "a/1", "a/2", "b", "b/1"})
	model := []map[string]string{{}}
	base := int64(-1)
	for range rapid.IntRange(1, 20).Draw(t, "commits") {
		next := maps.Clone(model[len(model)-1])
		var ops []state.Op
		changed := false
		for _, k := range slices.Compact(slices.Sorted(slices.Values(rapid.SliceOfN(names, 1, 3).Draw(t, "keys")))) {
			_, there := next[k]
			if rapid.Bool().Draw(t, "delete") {
				ops = append(ops, del(k))
				changed = changed || there
				delete(next, k)
			} else {
				v := rapid.StringN(0, 4, -1).Draw(t, "value")
				ops = append(ops, put(k, v))
				next[k] = v
				changed = true
			}
		}
		rev, err := s.Commit(ctx, state.Txn{Then: ops})
		if err != nil {
			t.Fatal(err)
		}
		if base < 0 {
			base = rev - 1
			if !changed {
				base = rev
			}
		}
		if changed {
			model = append(model, next)
		}
		if rev != base+int64(len(model))-1 {
			t.Fatalf("revision %d after %d changes", rev, len(model)-1)
		}
	}
	for i := 1; i < len(model); i++ {
		got, _, err := s.List(ctx, "a", base+int64(i))
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]string{}
		for k, v := range model[i] {
			if strings.HasPrefix(k, "a") {
				want[k] = v
			}
		}
		have := map[string]string{}
		for _, kv := range got {
			have[kv.Key] = string(kv.Value)
		}
		if !maps.Equal(want, have) {
			t.Fatalf("at revision %d: %v, want %v", i, have, want)
		}
	}
}
