package main

import (
	_ "embed" // of what was tried
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/decant-project/decant/bench/kernels"
)

// report is what RESULTS.md says.
type report struct {
	figures []figure
	costs   []kernels.Cost
}

// figure is a row of the table. What there is not is "".
type figure struct {
	what, ours, limit, ratio, goal string
	held                           bool
}

func (f figure) String() string {
	return fmt.Sprintf("%s: %s, limit %s, ratio %s, goal %s", f.what, orDash(f.ours), orDash(f.limit), orDash(f.ratio), orDash(f.goal))
}

// compare makes a figure of samples that were taken in turns with those of the
// limit.
func compare(what string, q float64, ours, limit []time.Duration, goal float64) figure {
	o, l := quantile(ours, q), quantile(limit, q)
	ratio := float64(o) / float64(l)
	return figure{what: fmt.Sprintf("%s, p%.0f", what, 100*q), ours: rounded(o), limit: rounded(l)}.beside(ratio, goal)
}

// beside sets the ratio, and holds it to a goal; 0 is none.
func (f figure) beside(ratio, goal float64) figure {
	f.ratio = fmt.Sprintf("%.3f", ratio)
	if goal > 0 {
		f.goal, f.held = fmt.Sprintf("≤ %.2f", goal), ratio <= goal
	}
	return f
}

func quantile(d []time.Duration, q float64) time.Duration {
	sorted := slices.Sorted(slices.Values(d))
	return sorted[int(q*float64(len(sorted)-1))]
}

func rounded(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return d.Round(100 * time.Nanosecond).String()
	case d < time.Second:
		return d.Round(10 * time.Microsecond).String()
	}
	return d.Round(10 * time.Millisecond).String()
}

func (r *report) write(w io.Writer) {
	fmt.Fprintf(w, "# What was measured\n\n`make bench`, %s: %s. Times are of this machine, which others use too; ratios are what counts.\n\n",
		time.Now().UTC().Format(time.DateOnly), machineName())
	fmt.Fprintln(w, "| figure | decant | its limit | ratio | goal | |\n|---|---|---|---|---|---|")
	for _, f := range r.figures {
		held := ""
		switch {
		case f.goal != "" && f.held:
			held = "held"
		case f.goal != "":
			held = "missed"
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s |\n", f.what, orDash(f.ours), orDash(f.limit), orDash(f.ratio), orDash(f.goal), held)
	}
	fmt.Fprint(w, limits)
	if len(r.costs) > 0 {
		r.writeCosts(w)
		fmt.Fprint(w, tried)
	}
}

// writeCosts writes what fuel costs, a row for each kernel.
func (r *report) writeCosts(w io.Writer) {
	fmt.Fprint(w, "\n## What fuel costs, by kernel\n\n"+
		"Stoppable (`WithCloseOnContextDone`) and metered are beside plain wazero. Size is that of the module.\n\n"+
		"| kernel | plain | stoppable | metered | yields/ms | size |\n|---|---|---|---|---|---|\n")
	for _, c := range r.costs {
		fmt.Fprintf(w, "| %s | %.2f ms | %.3f | %.3f | %.1f | %.2f |\n",
			c.Kernel, 1000*c.Plain.Seconds(), c.Ratio(c.Stoppable), c.Ratio(c.Metered), c.YieldsPerMs, c.Size)
	}
}

// tried is what was tried to have fuel cost less, and what came of it.
//
//go:embed tried.md
var tried string

// limits says what each figure was measured beside.
const limits = `
- Hop: a call of a warm module in another process, through mutual TLS, kept alive. Its limit: a net/http echo in another
  process, called by net/http over the same mutual TLS, kept alive.
- Inference: MobileNetV2, one picture, called in a guest that has its tensor, through wasi-nn. Its limit: the same session of ONNX Runtime
  called directly by the same binding in the same process.
- Deploy: from the start of ` + "`decant deploy`" + ` to the first answer of the application. First: the device has to pull and compile
  the module. Again: it has both from before.
- Fuel: kernels whose modules count what they use, by the time of the processor. Its limit: the same kernels in wazero as it is.
  ` + "`WithCloseOnContextDone`" + ` is wazero's own way to end a guest, which decant does not use.
- Stall: the longest time, in a second, between two ticks of a millisecond, while four guests compute on two processors and garbage is collected
  each 50 ms. Its limit: the same without guests, or with guests in wazero as it is.
- Snapshot: of a Go guest that keeps 64 MiB. Clone: a captured guest goes on in another one. Its limit: a start from scratch.
- Scan: which 16 pages of 64 MiB were written.
`

func orDash(s string) string {
	if s == "" {
		return "–"
	}
	return s
}
