// Bench measures what decant promises and writes it down as a table. Each
// figure is taken beside its limit, in turns within one run: on a busy machine
// the ratios hold where times do not.
//
//	go run ./bench [-out bench/RESULTS.md] [-rounds N] [hop inference device deploy engine]
package main

import (
	"context"
	"flag"
	"fmt"
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
	rounds := flag.Int("rounds", 4000, "calls of each kind; inferences are a tenth of it, rounds of the engine a fortieth")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 20*time.Minute)
	defer cancel()

	var r report
	for _, part := range []struct {
		name    string
		measure func(context.Context, int) ([]figure, error)
	}{{"hop", hops}, {"inference", inferences}, {"device", devices}, {"deploy", deploys}, {"engine", r.engine}} {
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
		r.figures = append(r.figures, found...)
	}
	r.write(os.Stdout)
	if flag.NArg() > 0 {
		return 0 // a part is no table
	}
	f, err := os.Create(*out)
	if err == nil {
		r.write(f)
		err = f.Close()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	return 0
}
