package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/client"
)

func logsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "logs APP[/COMPONENT]",
		Short:   "Print what an application's modules wrote to standard error",
		Example: "  decant logs listening-post\n  decant logs -f listening-post/detector",
		Args:    usage(cobra.ExactArgs(1)),
		RunE:    withClient(logs),
	}
	cmd.Flags().BoolP("follow", "f", false, "go on with what is written from now on")
	return cmd
}

func logs(cmd *cobra.Command, c *client.Client, args []string) error {
	app, only, _ := strings.Cut(args[0], "/")
	d, err := c.Deployment(cmd.Context(), app)
	if err != nil {
		return err
	}
	components := d.Application.ComponentNames()
	if only != "" {
		components = []string{only}
	}
	followed, _ := cmd.Flags().GetBool("follow")
	out := &lines{w: cmd.OutOrStdout()}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var failed error
	for _, component := range components {
		wg.Go(func() {
			log, err := c.Log(cmd.Context(), app, component, followed)
			if err == nil {
				defer log.Close()
				err = out.copy(component, log)
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil && failed == nil {
				failed = decant.Errorf(decant.CodeOf(err), "component %s: %w", component, err)
			}
		})
	}
	wg.Wait()
	return failed
}

// lines writes lines of several logs, each with its component's name.
type lines struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lines) copy(component string, r io.Reader) error {
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		l.mu.Lock()
		_, err := fmt.Fprintf(l.w, "%s | %s\n", component, shownLog(s.Bytes()))
		l.mu.Unlock()
		if err != nil {
			return err
		}
	}
	return s.Err()
}

func eventsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Print what happened on the site",
		Args:  usage(cobra.NoArgs),
		RunE: withClient(func(cmd *cobra.Command, c *client.Client, _ []string) error {
			newest, _ := cmd.Flags().GetInt("newest")
			names := deviceNames(cmd, c)
			if follow, _ := cmd.Flags().GetBool("follow"); follow {
				return c.WatchEvents(cmd.Context(), newest, func(e decant.Event) error {
					return show(cmd, e, func(w io.Writer) { printEvent(w, e, names) })
				})
			}
			events, err := c.Events(cmd.Context(), newest)
			if err != nil {
				return err
			}
			return show(cmd, events, func(w io.Writer) {
				for _, e := range events {
					printEvent(w, e, names)
				}
			})
		}),
	}
	cmd.Flags().BoolP("follow", "f", false, "go on with what happens from now on")
	cmd.Flags().IntP("newest", "n", 100, "how many of the past")
	return addOutput(cmd)
}

// printEvent prints a line. What instances report says nothing of where.
func printEvent(w io.Writer, e decant.Event, names func(id string) string) {
	where := ""
	if e.Component != "" {
		where = e.Application + "/" + e.Component + " on " + names(e.Device) + ": "
	}
	fmt.Fprintln(w, shown(fmt.Sprintf("%s  %-18s %s%s", e.At.Local().Format(time.DateTime), e.Kind, where, e.Message)))
}

func isTerminal(r io.Reader) bool {
	f, ok := r.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
