package supervisor

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestQuantileIsWithinThirtySecondth(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.Int64Range(0, int64(10*time.Minute)), 1, 200).Draw(t, "values")
		q := rapid.SampledFrom([]float64{0, 0.5, 0.9, 0.99, 1}).Draw(t, "q")
		var h histogram
		for _, v := range values {
			h.add(time.Duration(v))
		}
		slices.Sort(values)
		exact := values[int(q*float64(len(values)-1))]
		got := int64(h.quantile(q))
		if diff := max(got-exact, exact-got); diff > exact/32+1 {
			t.Fatalf("quantile %g of %d values = %d, exactly %d", q, len(values), got, exact)
		}
	})
}

func TestBucketsAreInOrderAndBounded(t *testing.T) {
	last := -1
	for d := time.Duration(1); d > 0 && d < 1<<62; d *= 2 {
		for _, v := range []time.Duration{d - 1, d, d + d/2} {
			b := bucketOf(v)
			if b < last || b >= len(histogram{}.counts) {
				t.Fatalf("bucket of %d is %d, after %d", v, b, last)
			}
			last = b
		}
	}
	if got := new(histogram).quantile(0.5); got != 0 {
		t.Errorf("quantile of nothing = %s", got)
	}
	if got := bucketOf(-time.Second); got != 0 {
		t.Errorf("bucket of a negative duration = %d", got)
	}
}
