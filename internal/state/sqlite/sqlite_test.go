package sqlite_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/state"
	"github.com/decant-project/decant/internal/state/mem"
	"github.com/decant-project/decant/internal/state/sqlite"
	"github.com/decant-project/decant/internal/state/statetest"
)

func TestMain(m *testing.M) {
	if file := os.Getenv("DECANT_TEST_WRITER"); file != "" {
		writer(file)
		return
	}
	os.Exit(m.Run())
}

func open(t testing.TB, file string) *mem.Store {
	t.Helper()
	s, err := sqlite.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestConformance(t *testing.T) {
	statetest.Run(t, func(t testing.TB) state.Store {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		return open(t, filepath.Join(dir, "state.db"))
	})
}

// TestReopen: all is there again, history and revision too, and leases with
// their whole time.
func TestReopen(t *testing.T) {
	file := filepath.Join(t.TempDir(), "state.db")
	ctx := context.Background()
	s := open(t, file)
	lease, err := s.Grant(ctx, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	var revs []int64
	for _, ops := range [][]state.Op{
		{{Key: "a", Value: []byte("1")}, {Key: "empty", Value: nil}},
		{{Key: "a", Value: []byte("2")}, {Key: "present", Lease: lease}},
		{{Key: "a", Delete: true}},
	} {
		rev, err := s.Commit(ctx, state.Txn{Then: ops})
		if err != nil {
			t.Fatal(err)
		}
		revs = append(revs, rev)
	}
	if err := s.Compact(ctx, revs[1]); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	s = open(t, file)
	defer s.Close()
	kvs, rev, err := s.List(ctx, "", 0)
	if err != nil || rev != revs[2] || len(kvs) != 2 {
		t.Errorf("reopened: %v at %d, %v", kvs, rev, err)
	}
	if kvs, _, err := s.List(ctx, "a", revs[1]); err != nil || len(kvs) != 1 || string(kvs[0].Value) != "2" {
		t.Errorf("history: %v, %v", kvs, err)
	}
	if _, _, err := s.List(ctx, "a", revs[0]); !errors.Is(err, state.ErrCompacted) {
		t.Errorf("compacted history: %v", err)
	}
	if err := s.KeepAlive(ctx, lease); err != nil {
		t.Errorf("lease: %v", err)
	}
	if next, _ := s.Grant(ctx, time.Hour); next == lease {
		t.Error("a lease's ID was given twice")
	}
}

func TestCannotOpen(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "state.db")
	s := open(t, file)
	if _, err := sqlite.Open(file); !errors.Is(err, decant.Conflict) {
		t.Errorf("opened twice: %v", err)
	}
	reader, err := sqlite.OpenReadOnly(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := reader.Commit(context.Background(), state.Txn{Then: []state.Op{{Key: "k"}}}); !errors.Is(err, decant.Unsupported) {
		t.Errorf("commit to a store open for reading: %v", err)
	}
	_ = reader.Close()
	_ = s.Close()

	if _, err := sqlite.OpenReadOnly(filepath.Join(dir, "none.db")); !errors.Is(err, decant.NotFound) {
		t.Errorf("no file: %v", err)
	}
	notes := filepath.Join(dir, "notes.txt")
	if err := os.WriteFile(notes, bytes.Repeat([]byte("not a database. "), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := sqlite.Open(notes); !errors.Is(err, decant.Corrupt) {
		t.Errorf("no database: %v", err)
	}
}

// writer commits ever higher numbers under two keys and prints each number
// once it is acknowledged.
func writer(file string) {
	s, err := sqlite.Open(file)
	if err != nil {
		fmt.Fprintln(os.Stdout, err)
		return
	}
	ctx := context.Background()
	kv, _ := s.Get(ctx, "a")
	n, _ := strconv.Atoi(string(kv.Value))
	for {
		n++
		v := []byte(strconv.Itoa(n))
		if _, err := s.Commit(ctx, state.Txn{Then: []state.Op{{Key: "a", Value: v}, {Key: "b", Value: v}}}); err != nil {
			fmt.Fprintln(os.Stdout, err)
			return
		}
		fmt.Fprintln(os.Stdout, "ack", n)
	}
}

// TestKill: whenever the writer is killed, what it acknowledged is there, and
// no transaction is there by half. DECANT_KILL_ROUNDS makes it a campaign.
func TestKill(t *testing.T) {
	rounds := 10
	if n, err := strconv.Atoi(os.Getenv("DECANT_KILL_ROUNDS")); err == nil {
		rounds = n
	}
	file := filepath.Join(t.TempDir(), "state.db")
	total := 0
	for range rounds {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "DECANT_TEST_WRITER="+file)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		acknowledged := 0
		lines := bufio.NewScanner(out)
		for after := 1 + rand.IntN(200); lines.Scan(); {
			n, ok := strings.CutPrefix(lines.Text(), "ack ")
			if !ok {
				t.Fatal(lines.Text())
			}
			acknowledged, _ = strconv.Atoi(n)
			if after--; after == 0 {
				_ = cmd.Process.Kill() // and read on: it may have got further
			}
		}
		_ = cmd.Wait()
		if acknowledged <= total {
			t.Fatalf("the writer acknowledged nothing: %d after %d", acknowledged, total)
		}
		s := open(t, file)
		a, errA := s.Get(context.Background(), "a")
		b, errB := s.Get(context.Background(), "b")
		_ = s.Close()
		if errA != nil || errB != nil || string(a.Value) != string(b.Value) {
			t.Fatalf("half a transaction: a=%s b=%s, %v, %v", a.Value, b.Value, errA, errB)
		}
		if total, _ = strconv.Atoi(string(a.Value)); total < acknowledged {
			t.Fatalf("acknowledged %d, but %d is there", acknowledged, total)
		}
	}
	t.Logf("%d commits over %d kills", total, rounds)
}

func BenchmarkPut(b *testing.B) {
	for _, writers := range []int{1, 128} {
		b.Run(fmt.Sprint("writers=", writers), func(b *testing.B) {
			s := open(b, filepath.Join(b.TempDir(), "state.db"))
			defer s.Close()
			b.SetParallelism(writers)
			value := bytes.Repeat([]byte("v"), 256)
			run := func(next func() bool) {
				for next() {
					if _, err := s.Commit(context.Background(), state.Txn{Then: []state.Op{{Key: "k", Value: value}}}); err != nil {
						b.Error(err)
					}
				}
			}
			if writers == 1 {
				run(b.Loop)
			} else {
				b.RunParallel(func(pb *testing.PB) { run(pb.Next) })
			}
		})
	}
}
