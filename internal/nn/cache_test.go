package nn_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/nn"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// counting is a backend that counts its open models; a model of "bad" does not
// load.
type counting struct {
	nn.Backend
	loads, open atomic.Int64
}

type counted struct {
	nn.Model
	b *counting
}

func (b *counting) Load(ctx context.Context, model []byte) (nn.Model, error) {
	b.loads.Add(1)
	if string(model) == "bad" {
		return nil, decant.Errorf(decant.Invalid, "bad")
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	b.open.Add(1)
	return &counted{b: b}, nil
}

func (m *counted) Close() error { m.b.open.Add(-1); return nil }

func bytesOf(text string) func(context.Context) ([]byte, error) {
	return func(context.Context) ([]byte, error) { return []byte(text), nil }
}

func TestCacheShares(t *testing.T) {
	ctx, b := t.Context(), &counting{}
	c := nn.NewCache(b)
	var models []nn.Model
	for range 3 {
		m, err := c.Open(ctx, "a", bytesOf("good"))
		if err != nil {
			t.Fatal(err)
		}
		models = append(models, m)
	}
	for i, m := range models {
		if b.open.Load() != 1 || b.loads.Load() != 1 {
			t.Errorf("with %d users: %d open, %d loads", len(models)-i, b.open.Load(), b.loads.Load())
		}
		for range 2 { // a second Close takes nobody else's share
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	if b.open.Load() != 0 {
		t.Error("it is open, and nobody uses it")
	}
}

func TestCacheForgetsFailures(t *testing.T) {
	ctx, b := t.Context(), &counting{}
	c := nn.NewCache(b)
	lost := errors.New("lost")
	if _, err := c.Open(ctx, "a", func(context.Context) ([]byte, error) { return nil, lost }); !errors.Is(err, lost) {
		t.Errorf("got %v", err)
	}
	if _, err := c.Open(ctx, "a", bytesOf("bad")); !errors.Is(err, decant.Invalid) {
		t.Errorf("got %v", err)
	}
	m, err := c.Open(ctx, "a", bytesOf("good"))
	if err != nil {
		t.Fatal(err)
	}
	_ = m.Close()
}

// TestCacheOutlivesFirst: who began to load gives up; the others still get the
// model. When all have given up, loading ends.
func TestCacheOutlivesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &counting{}
		c := nn.NewCache(b)
		slow := func(ctx context.Context) ([]byte, error) {
			select {
			case <-time.After(time.Hour):
				return nil, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		open := func(patience time.Duration) (nn.Model, error) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			return c.Open(ctx, "a", slow)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := open(time.Minute); !errors.Is(err, decant.Deadline) {
				t.Errorf("the first got %v", err)
			}
		})
		synctest.Wait()
		m, err := open(2 * time.Hour)
		wg.Wait()
		if err != nil || b.loads.Load() != 1 {
			t.Fatalf("the second got %v after %d loads", err, b.loads.Load())
		}
		_ = m.Close()
		start := time.Now()
		if _, err := open(time.Minute); !errors.Is(err, decant.Deadline) || time.Since(start) > time.Minute {
			t.Errorf("alone, it got %v after %s", err, time.Since(start))
		}
		if b.open.Load() != 0 {
			t.Errorf("%d are open", b.open.Load())
		}
	})
}

func TestCacheConcurrently(t *testing.T) {
	b := &counting{}
	c := nn.NewCache(b)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 500 {
				ctx, cancel := context.WithCancel(t.Context())
				if rand.IntN(4) == 0 {
					cancel()
				}
				text := "good"
				if rand.IntN(8) == 0 {
					text = "bad"
				}
				if m, err := c.Open(ctx, fmt.Sprint(rand.IntN(3)), bytesOf(text)); err == nil {
					_ = m.Close()
				}
				cancel()
			}
		})
	}
	wg.Wait()
	if b.open.Load() != 0 {
		t.Errorf("%d are open", b.open.Load())
	}
}
