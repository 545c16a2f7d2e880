package supervisor

import (
	"math/bits"
	"sync"
	"time"

	"github.com/decant-project/decant"
)

// subBuckets is how many buckets each power of two has: a quantile is off by
// at most half a bucket, 1/32 of the value.
const subBuckets = 16

// histogram counts durations in buckets whose width grows with the value, from
// 1 ns to 18 minutes (longer ones count as that).
type histogram struct {
	counts [(40 - 3) * subBuckets]uint32
	n      int64
}

func bucketOf(d time.Duration) int {
	v := uint64(min(max(d, 0), 1<<40-1))
	shift := max(0, bits.Len64(v)-5) // leaves v>>shift below 2*subBuckets
	return shift*subBuckets + int(v>>shift)
}

// middleOf returns the middle of a bucket.
func middleOf(bucket int) time.Duration {
	if bucket < 2*subBuckets {
		return time.Duration(bucket)
	}
	shift := bucket/subBuckets - 1
	low := uint64(bucket%subBuckets+subBuckets) << shift
	return time.Duration(low + 1<<shift/2)
}

func (h *histogram) add(d time.Duration) {
	h.counts[bucketOf(d)]++
	h.n++
}

// quantile returns the value that a share q of all values does not exceed, 0
// where there are none.
func (h *histogram) quantile(q float64) time.Duration {
	rank := int64(q*float64(h.n-1)) + 1
	for i, c := range h.counts {
		if rank -= int64(c); rank <= 0 && c > 0 {
			return middleOf(i)
		}
	}
	return 0
}

// callStats counts an instance's calls.
type callStats struct {
	mu     sync.Mutex
	failed int64
	took   histogram
}

func (s *callStats) add(took time.Duration, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.took.add(took)
	if err != nil {
		s.failed++
	}
}

func (s *callStats) snapshot() decant.CallStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return decant.CallStats{
		Count:  s.took.n,
		Failed: s.failed,
		P50:    decant.Duration(s.took.quantile(0.50)),
		P99:    decant.Duration(s.took.quantile(0.99)),
	}
}
