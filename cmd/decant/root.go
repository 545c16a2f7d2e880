package main

import (
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/client"
)

// rootCommand wires the commands together, one file each.
func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "decant",
		Short: "Pour running WebAssembly modules and their models from one machine to another",
		Long: `decant runs applications made of WebAssembly modules and AI models on a site's
devices, each component where it runs best.

  decant up             start the orchestrator of a site
  decant join-code      let a device join: decant-supervisor --join CODE
  decant deploy -f FILE deploy an application
  decant run FILE.wasm  try a module alone
  decant inspect FILE.wasm  see what a module is`,
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	holdsOthers(root)
	root.PersistentFlags().String("dir", "", "data folder of the orchestrator (default $DECANT_HOME, else "+defaultDir("~/.local/share")+")")
	root.PersistentFlags().String("orchestrator", os.Getenv("DECANT_ORCHESTRATOR"), "socket or http:// URL of the orchestrator (default: the socket in --dir); a URL is given $DECANT_TOKEN, else, on this machine, the token in --dir")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return decant.Errorf(decant.Invalid, "%w", err).WithHelp("see `%s --help`", cmd.CommandPath())
	})
	root.AddCommand(
		upCommand(), joinCodeCommand(), deviceCommand(),
		packageCommand(), deployCommand(), appCommand(),
		invokeCommand(), logsCommand(), eventsCommand(),
		runCommand(), inspectCommand(), stateCommand(),
	)
	return root
}

func defaultDir(dataHome string) string { return filepath.Join(dataHome, "decant") }

// dataDir returns the orchestrator's data folder.
func dataDir(cmd *cobra.Command) (string, error) {
	if dir, _ := cmd.Flags().GetString("dir"); dir != "" {
		return dir, nil
	}
	if dir := os.Getenv("DECANT_HOME"); dir != "" {
		return dir, nil
	}
	if data := os.Getenv("XDG_DATA_HOME"); data != "" {
		return defaultDir(data), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", decant.Errorf(decant.Invalid, "cannot find a data folder: %w", err).WithHelp("name one with --dir")
	}
	return defaultDir(filepath.Join(home, ".local", "share")), nil
}

const (
	socketName = "decant.sock"
	tokenName  = "token"
)

// connect makes a client of the orchestrator that the flags name.
func connect(cmd *cobra.Command) (*client.Client, error) {
	dir, err := dataDir(cmd)
	if err != nil {
		return nil, err
	}
	endpoint, _ := cmd.Flags().GetString("orchestrator")
	if endpoint == "" {
		return client.New(filepath.Join(dir, socketName), "")
	}
	return client.New(endpoint, tokenFor(endpoint, dir))
}

// tokenFor returns the token for a URL: the one that the user names, or, on this
// machine, that of the data folder, which nobody else may learn.
func tokenFor(endpoint, dir string) string {
	if token := os.Getenv("DECANT_TOKEN"); token != "" {
		return token
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "http" || u.Hostname() != "localhost" && !net.ParseIP(u.Hostname()).IsLoopback() {
		return ""
	}
	token, _ := os.ReadFile(filepath.Join(dir, tokenName)) // there may be none
	return strings.TrimSpace(string(token))
}

// withClient runs f with a client, as the body of a command.
func withClient(f func(*cobra.Command, *client.Client, []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		c, err := connect(cmd)
		if err != nil {
			return err
		}
		defer c.Close()
		return f(cmd, c, args)
	}
}

// usage makes an argument check an error with a way out.
func usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return decant.Errorf(decant.Invalid, "%w", err).WithHelp("usage: %s", cmd.UseLine())
		}
		return nil
	}
}

// group makes a command that only holds others.
func group(use, short string, subs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short}
	holdsOthers(cmd)
	cmd.AddCommand(subs...)
	return cmd
}

// holdsOthers makes cmd show its help, and say which command was meant where
// there is none of that name.
func holdsOthers(cmd *cobra.Command) {
	cmd.SuggestionsMinimumDistance = 2
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		err := decant.Errorf(decant.Invalid, "there is no command `%s %s`", cmd.CommandPath(), args[0])
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			return err.WithHelp("did you mean %s?", strings.Join(near, " or "))
		}
		return err.WithHelp("`%s --help` lists them", cmd.CommandPath())
	}
}
