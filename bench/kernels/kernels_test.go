package kernels

import (
	"strings"
	"testing"
	"time"
)

// TestWaysAgree: each kernel answers the same in all ways, and a metered one
// yields.
func TestWaysAgree(t *testing.T) {
	all, err := C()
	if err != nil {
		t.Fatal(err)
	}
	answers := map[string]uint64{}
	for _, k := range all {
		for _, w := range ways {
			g, err := w.start(t.Context(), k.Module)
			if err != nil {
				t.Fatalf("%s, %s: %v", k.Name, w.name, err)
			}
			if _, err := g.call(t.Context(), 3); err != nil {
				t.Fatalf("%s, %s: %v", k.Name, w.name, err)
			}
			name := strings.TrimSuffix(k.Name, ".simd")
			if want, ok := answers[name]; ok && g.result != want {
				t.Errorf("%s, %s: got %d, want %d", k.Name, w.name, g.result, want)
			}
			answers[name] = g.result
			if metered := w.prepare != nil; metered != (g.yields > 0) {
				t.Errorf("%s, %s: it yielded %d times", k.Name, w.name, g.yields)
			}
			_ = g.runtime.Close(t.Context())
		}
	}
	if len(answers) < 10 {
		t.Errorf("there are %d kernels", len(answers))
	}
}

func TestMeasure(t *testing.T) {
	k, err := Named("fib.simd")
	if err != nil {
		t.Fatal(err)
	}
	c, err := k.Measure(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	if c.Kernel != "fib.simd" || !c.SIMD() || min(c.Plain, c.Stoppable, c.Metered) <= 0 || c.YieldsPerMs <= 0 || c.Size <= 1 {
		t.Errorf("got %+v", c)
	}
	k.Module = k.Module[:20]
	if _, err := k.Measure(t.Context(), 2); err == nil || !strings.Contains(err.Error(), "fib.simd: plain: ") {
		t.Errorf("of a damaged module: %v", err)
	}
}

func TestSummarize(t *testing.T) {
	costs := []Cost{
		{Kernel: "a", Plain: 1, Metered: 2},
		{Kernel: "b", Plain: 2, Metered: 16},
		{Kernel: "c", Plain: 3, Metered: 12},
	}
	mean, worst := Summarize(costs, func(c Cost) time.Duration { return c.Metered })
	if mean < 3.9999 || mean > 4.0001 || worst.Kernel != "b" {
		t.Errorf("got a mean of %v, and %s is worst", mean, worst.Kernel)
	}
}
