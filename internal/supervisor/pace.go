package supervisor

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// backoff is the pause between attempts: it doubles from first to most, and
// each is shortened by up to a quarter so that devices do not act in step.
type backoff struct {
	first, most time.Duration
	last        time.Duration
}

func (b *backoff) next() time.Duration {
	b.last = min(max(2*b.last, b.first), b.most)
	return b.last - rand.N(b.last/4+1)
}

func (b *backoff) reset() { b.last = 0 }

// sleep reports whether d passed before ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// poke wakes who waits on c, a channel with room for one.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// quiet is how long a throttle keeps silent.
const quiet = 10 * time.Second

// throttle lets something be said at most once in a while.
type throttle struct {
	mu      sync.Mutex
	last    time.Time
	skipped int
}

// allow reports whether to speak now, and how often it was not since.
func (t *throttle) allow() (skipped int, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now := time.Now(); now.Sub(t.last) >= quiet {
		skipped, t.skipped, t.last = t.skipped, 0, now
		return skipped, true
	}
	t.skipped++
	return 0, false
}
