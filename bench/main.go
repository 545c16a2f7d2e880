// Bench measures what decant promises and writes it down as a table. Each
// figure is taken beside its limit, in turns within one run: on a busy machine
// the ratios hold where times do not.
//
//	go run ./bench [-out bench/RESULTS.md] [-rounds N] [hop inference device deploy]
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"time"
)

func main() {
	if len(os.Args) == 4 && os.Args[1] == bareServer {
		os.Exit(serveBare(os.Args[2], os.Args[3]))
	}
	os.Exit(bench())
}

// bench returns the exit status: 1 if something could not be measured. A goal
// that is missed is a figure, not a failure.
func bench() int {
	out := flag.String("out", "bench/RESULTS.md", "where the table goes")
	rounds := flag.Int("rounds", 4000, "calls of each kind; inferences are a tenth of it")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 20*time.Minute)
	defer cancel()

	var figures []figure
	for _, part := range []struct {
		name    string
		measure func(context.Context, int) ([]figure, error)
	}{{"hop", hops}, {"inference", inferences}, {"device", devices}, {"deploy", deploys}} {
		if flag.NArg() > 0 && !slices.Contains(flag.Args(), part.name) {
			continue
		}
		fmt.Fprintln(os.Stderr, "measuring:", part.name)
		found, err := part.measure(ctx, *rounds)
		if err != nil {
			fmt.Fprintf(os.Stderr, "bench: %s: %v\n", part.name, err)
			return 1
		}
		for _, f := range found {
			fmt.Fprintln(os.Stderr, "  ", f)
		}
		figures = append(figures, found...)
	}
	write(os.Stdout, figures)
	if flag.NArg() > 0 {
		return 0 // a part is no table
	}
	f, err := os.Create(*out)
	if err == nil {
		write(f, figures)
		err = f.Close()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	return 0
}

// figure is a row of the table. Where there is no limit to measure beside,
// limit and ratio are "".
type figure struct {
	what, ours, limit, ratio, goal string
	held                           bool
}

func (f figure) String() string {
	return fmt.Sprintf("%s: %s, limit %s, ratio %s, goal %s", f.what, f.ours, orDash(f.limit), orDash(f.ratio), orDash(f.goal))
}

// compare makes a figure of samples that were taken in turns with those of the
// limit.
func compare(what string, q float64, ours, limit []time.Duration, goal float64) figure {
	o, l := quantile(ours, q), quantile(limit, q)
	ratio := float64(o) / float64(l)
	f := figure{what: fmt.Sprintf("%s, p%.0f", what, 100*q), ours: rounded(o), limit: rounded(l), ratio: fmt.Sprintf("%.3f", ratio), held: true}
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

func write(w io.Writer, figures []figure) {
	fmt.Fprintf(w, "# What was measured\n\n`make bench`, %s: %s. Times are of this machine, which others use too; ratios are what counts.\n\n",
		time.Now().UTC().Format(time.DateOnly), machineName())
	fmt.Fprintln(w, "| figure | decant | its limit | ratio | goal | |\n|---|---|---|---|---|---|")
	for _, f := range figures {
		held := ""
		switch {
		case f.goal != "" && f.held:
			held = "held"
		case f.goal != "":
			held = "missed"
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s |\n", f.what, f.ours, orDash(f.limit), orDash(f.ratio), orDash(f.goal), held)
	}
	fmt.Fprint(w, limits)
}

// limits says what each figure was measured beside.
const limits = `
- Hop: a call of a warm module in another process, through mutual TLS, kept alive. Its limit: a net/http echo in another
  process, called by net/http over the same mutual TLS, kept alive.
- Inference: MobileNetV2, one picture, called in a guest that has its tensor, through wasi-nn. Its limit: the same session of ONNX Runtime
  called directly by the same binding in the same process.
- Deploy: from the start of ` + "`decant deploy`" + ` to the first answer of the application. First: the device has to pull and compile
  the module. Again: it has both from before.
`

func orDash(s string) string {
	if s == "" {
		return "–"
	}
	return s
}
