package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/client"
	"github.com/decant-project/decant/internal/yaml"
)

func deployCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "deploy -f FILE",
		Short: "Deploy an application, and follow it until it runs",
		Long: `Deploy an application, or the next revision of one, and follow it until each
component was observed running. Interrupting it stops the following, not the
deployment.`,
		Example: "  decant deploy -f app.yaml\n  decant deploy -f app.yaml --no-wait -o json",
		Args:    usage(cobra.NoArgs),
		RunE:    withClient(deploy),
	}
	cmd.Flags().StringP("file", "f", "", "the application (YAML or JSON); - is standard input")
	cmd.Flags().Int("after", 0, "fail unless the application is at this revision now")
	cmd.Flags().Bool("no-wait", false, "do not follow it")
	cmd.Flags().Duration("timeout", 5*time.Minute, "how long to follow it")
	return addOutput(cmd)
}

func deploy(cmd *cobra.Command, c *client.Client, _ []string) error {
	file, _ := cmd.Flags().GetString("file")
	if file == "" {
		return decant.Errorf(decant.Invalid, "no application is named").WithHelp("name its file: decant deploy -f app.yaml")
	}
	app, err := readApplication(cmd, file)
	if err != nil {
		return err
	}
	after, _ := cmd.Flags().GetInt("after")
	d, err := c.Deploy(cmd.Context(), app, after)
	if err != nil {
		return err
	}
	if noWait, _ := cmd.Flags().GetBool("no-wait"); !noWait {
		timeout, _ := cmd.Flags().GetDuration("timeout")
		if d, err = follow(cmd, c, d, timeout); err != nil {
			return err
		}
	}
	return show(cmd, d, func(w io.Writer) { printDeployment(cmd, c, w, d) })
}

func readApplication(cmd *cobra.Command, file string) (app decant.Application, err error) {
	var data []byte
	if file == "-" {
		data, err = io.ReadAll(cmd.InOrStdin())
	} else {
		data, err = os.ReadFile(file)
	}
	if err != nil {
		return app, decant.Errorf(decant.Invalid, "cannot read the application: %w", err)
	}
	if err := yaml.Unmarshal(data, &app); err != nil {
		return app, decant.Errorf(decant.Invalid, "cannot read %s: %w", file, err)
	}
	return app, app.Check()
}

var errRunning = errors.New("runs")

// follow shows on standard error how a deployment gets on until it runs.
func follow(cmd *cobra.Command, c *client.Client, d decant.Deployment, timeout time.Duration) (decant.Deployment, error) {
	names := deviceNames(cmd, c)
	ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
	defer cancel()
	said := map[string]string{}
	say := func(key, text string) {
		if said[key] != text {
			said[key] = text
			fmt.Fprintln(cmd.ErrOrStderr(), "  "+shown(text))
		}
	}
	revision := d.Revision
	err := c.WatchDeployment(ctx, d.Application.Name, func(now decant.Deployment) error {
		d = now
		for _, name := range now.Application.ComponentNames() {
			if s, ok := now.Instances[name]; ok {
				line := fmt.Sprintf("%s on %s: %s", name, names(s.Device), s.State)
				if s.Error != nil {
					line += ": " + s.Error.Error()
				}
				say(name, line)
			}
		}
		switch {
		case now.Revision > revision:
			return decant.Errorf(decant.Conflict, "somebody deployed revision %d of %s meanwhile", now.Revision, now.Application.Name)
		case now.Status == decant.DeployRunning && now.Revision == revision:
			return errRunning
		case now.Status == decant.DeployPending && now.Message != "":
			say("", "pending: "+now.Message)
		}
		return nil
	})
	switch {
	case errors.Is(err, errRunning):
		return d, nil
	case ctx.Err() != nil && cmd.Context().Err() == nil:
		return d, decant.Errorf(decant.Deadline, "application %s does not run after %s: it is %s: %s", d.Application.Name, timeout, d.Status, d.Message).
			WithHelp("it goes on trying; see `decant app show %s`", d.Application.Name)
	}
	return d, err
}

func appCommand() *cobra.Command {
	return group("app", "See and manage applications", appLs(), appShow(), appRm())
}

func appLs() *cobra.Command {
	return addOutput(&cobra.Command{
		Use:   "ls",
		Short: "List applications",
		Args:  usage(cobra.NoArgs),
		RunE: withClient(func(cmd *cobra.Command, c *client.Client, _ []string) error {
			apps, err := c.Deployments(cmd.Context())
			if err != nil {
				return err
			}
			return show(cmd, apps, func(w io.Writer) {
				row(w, "NAME", "STATUS", "REVISION", "COMPONENTS", "CHANGED", "MESSAGE")
				for _, d := range apps {
					row(w, d.Application.Name, d.Status, d.Revision, len(d.Application.Components), ago(d.ChangedAt), d.Message)
				}
			})
		}),
	})
}

func appShow() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "show APP",
		Short:   "Show an application: what runs where, and why",
		Example: "  decant app show listening-post\n  decant app show listening-post --history",
		Args:    usage(cobra.ExactArgs(1)),
		RunE: withClient(func(cmd *cobra.Command, c *client.Client, args []string) error {
			if history, _ := cmd.Flags().GetBool("history"); history {
				return showHistory(cmd, c, args[0])
			}
			d, err := c.Deployment(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return show(cmd, d, func(w io.Writer) { printDeployment(cmd, c, w, d) })
		}),
	}
	cmd.Flags().Bool("history", false, "show its revisions instead")
	return addOutput(cmd)
}

func showHistory(cmd *cobra.Command, c *client.Client, app string) error {
	revisions, err := c.History(cmd.Context(), app)
	if err != nil {
		return err
	}
	return show(cmd, revisions, func(w io.Writer) {
		row(w, "REVISION", "DEPLOYED", "PACKAGES")
		for _, d := range revisions {
			var refs []string
			for _, p := range d.Packages {
				refs = append(refs, p.Ref())
			}
			row(w, d.Revision, d.ChangedAt.Local().Format(time.DateTime), refs)
		}
	})
}

func appRm() *cobra.Command {
	return &cobra.Command{
		Use:     "rm APP",
		Short:   "Take an application off its devices",
		Example: "  decant app rm listening-post",
		Args:    usage(cobra.ExactArgs(1)),
		RunE: withClient(func(cmd *cobra.Command, c *client.Client, args []string) error {
			if err := c.Undeploy(cmd.Context(), args[0]); err != nil {
				return err
			}
			err := c.WatchDeployment(cmd.Context(), args[0], func(decant.Deployment) error { return nil })
			if errors.Is(err, decant.NotFound) {
				return nil // it is gone
			}
			return err
		}),
	}
}

func printDeployment(cmd *cobra.Command, c *client.Client, w io.Writer, d decant.Deployment) {
	names := deviceNames(cmd, c)
	head := fmt.Sprintf("%s revision %d is %s", d.Application.Name, d.Revision, d.Status)
	if d.Message != "" {
		head += ": " + d.Message
	}
	fmt.Fprintf(w, "%s\n\n", shown(head))
	row(w, "COMPONENT", "DEVICE", "STATE", "CALLS", "FAILED", "P50", "P99", "WHY THERE")
	for _, name := range d.Application.ComponentNames() {
		s := d.Instances[name]
		why := ""
		if d.Placement != nil {
			why = d.Placement.Components[name].Reason
		}
		row(w, name, names(s.Device), s.State, s.Calls.Count, s.Calls.Failed, rounded(s.Calls.P50), rounded(s.Calls.P99), why)
	}
	if len(d.Packages) > 0 {
		fmt.Fprintln(w)
		row(w, "PACKAGE", "DIGEST")
		for _, p := range d.Packages {
			row(w, p.Ref(), p.Digest.Short())
		}
	}
}

func rounded(d decant.Duration) string {
	t := time.Duration(d)
	switch {
	case t == 0:
		return ""
	case t < 10*time.Millisecond:
		return t.Round(10 * time.Microsecond).String()
	}
	return t.Round(100 * time.Microsecond).String()
}

// deviceNames returns what turns an ID into a name; IDs stay where the devices
// cannot be had.
func deviceNames(cmd *cobra.Command, c *client.Client) func(id string) string {
	names := map[string]string{}
	devices, _ := c.Devices(cmd.Context())
	for _, d := range devices {
		names[d.ID] = d.Name
	}
	return func(id string) string {
		if name := names[id]; name != "" {
			return name
		}
		return id
	}
}
