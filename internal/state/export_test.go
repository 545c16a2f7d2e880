package state_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/state"
	"github.com/decant-project/decant/internal/state/mem"
)

func export(t testing.TB, keys int) []byte {
	t.Helper()
	ctx := context.Background()
	s := mem.New()
	defer s.Close()
	lease, err := s.Grant(ctx, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for i := range keys {
		if _, err := s.Commit(ctx, state.Txn{Then: []state.Op{{Key: fmt.Sprintf("k/%04d", i), Value: []byte{byte(i), 0, 255}}}}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Commit(ctx, state.Txn{Then: []state.Op{{Key: "present", Lease: lease}}}); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := state.Export(ctx, s, &out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestExportImport(t *testing.T) {
	ctx := context.Background()
	data := export(t, 1200)
	s := mem.New()
	defer s.Close()
	if err := state.Import(ctx, s, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	kvs, _, _ := s.List(ctx, "", 0)
	if len(kvs) != 1200 || !bytes.Equal(kvs[7].Value, []byte{7, 0, 255}) {
		t.Errorf("imported %d keys", len(kvs))
	}
	if err := state.Import(ctx, s, bytes.NewReader(data)); !errors.Is(err, decant.Conflict) {
		t.Errorf("import into a store with keys: %v", err)
	}
}

// TestImportDamaged: whatever is cut off or changed, nothing is imported.
func TestImportDamaged(t *testing.T) {
	data := export(t, 5)
	lines := strings.SplitAfter(string(data), "\n")
	for name, damaged := range map[string]string{
		"nothing":            "",
		"something else":     "hello\n",
		"a newer format":     strings.Replace(string(data), `"format":1`, `"format":2`, 1),
		"cut at a line":      strings.Join(lines[:4], ""),
		"cut within a line":  string(data[:len(data)-20]),
		"a line less":        strings.Join(append(append([]string{}, lines[:2]...), lines[3:]...), ""),
		"a line twice":       strings.Join(append(append([]string{}, lines[:3]...), lines[2:]...), ""),
		"another value":      strings.Replace(string(data), "k/0003", "k/0009", 1),
		"more after the end": string(data) + lines[2],
	} {
		t.Run(name, func(t *testing.T) {
			s := mem.New()
			defer s.Close()
			if err := state.Import(context.Background(), s, strings.NewReader(damaged)); err == nil {
				t.Error("it was imported")
			}
			if kvs, _, _ := s.List(context.Background(), "", 0); len(kvs) != 0 {
				t.Errorf("%d keys are there", len(kvs))
			}
		})
	}
}

// FuzzImport: any bytes are an error or an export, which exports as it was.
func FuzzImport(f *testing.F) {
	f.Add(export(f, 3))
	f.Add([]byte(`{"decant":"state","format":1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := mem.New()
		defer s.Close()
		ctx := context.Background()
		if err := state.Import(ctx, s, bytes.NewReader(data)); err != nil {
			return
		}
		var once bytes.Buffer
		if err := state.Export(ctx, s, &once); err != nil {
			t.Fatal(err)
		}
		again := mem.New()
		defer again.Close()
		if err := state.Import(ctx, again, bytes.NewReader(once.Bytes())); err != nil {
			t.Fatal(err)
		}
		a, _, _ := s.List(ctx, "", 0)
		b, _, _ := again.List(ctx, "", 0)
		if len(a) != len(b) || len(a) > 0 && !reflect.DeepEqual(a[0].Value, b[0].Value) {
			t.Fatalf("%d keys became %d", len(a), len(b))
		}
	})
}
