package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/supervisor/guesthost"
	"github.com/decant-project/decant/internal/wasm"
)

func inspectCommand() *cobra.Command {
	return addOutput(&cobra.Command{
		Use:   "inspect MODULE.wasm",
		Short: "Show what a module is: functions, imports, needs, limits, movable or not",
		Long: `Show what a module is, without running it: the functions that can be called, what
it imports and whether a device offers that, what it needs, how near it comes to
the limits of modules, and whether a running instance of it can be moved. The exit
status is not 0 if no device would take it.`,
		Example: "  decant inspect detector.wasm\n  decant inspect -o json detector.wasm",
		Args:    usage(cobra.ExactArgs(1)),
		RunE:    func(cmd *cobra.Command, args []string) error { return inspect(cmd, args[0]) },
	})
}

func inspect(cmd *cobra.Command, file string) (err error) {
	binary, err := os.ReadFile(file)
	if err != nil {
		return decant.Errorf(decant.NotFound, "cannot read the module: %w", err)
	}
	host, err := guesthost.New(cmd.Context(), wasm.Config{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, host.Close()) }()
	d, err := host.Inspect(binary)
	if err != nil {
		return decant.Errorf(decant.CodeOf(err), "%s: %w", file, err)
	}
	if err := show(cmd, d, func(w io.Writer) { describe(w, d) }); err != nil {
		return err
	}
	if d.Refused != "" {
		return decant.Errorf(decant.Invalid, "no device takes %s: %s", file, d.Refused)
	}
	return nil
}

// describe writes what d says for people: labels once, before what they label.
func describe(w io.Writer, d *wasm.Description) {
	last := ""
	line := func(label, name, what string) {
		if label == last {
			label = ""
		} else {
			last = label
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", label, shown(name), shown(what))
	}
	line("MODULE", d.Digest.Short(), d.Size.String())
	line("KIND", d.Kind, map[string]string{"reactor": "keeps its memory from call to call", "command": "starts anew with each call"}[d.Kind])
	for _, f := range d.Functions {
		line("FUNCTION", f.Name, map[string]string{"stream": "standard input to standard output", "json": "JSON: " + f.Type}[f.How])
	}
	if len(d.Functions) == 0 {
		line("FUNCTION", "none", "see docs/modules.md")
	}
	for _, i := range d.Imports {
		line("IMPORT", i.Name, map[bool]string{true: "offered", false: "no device offers it"}[i.Offered])
	}
	line("NEEDS", "memory", fmt.Sprintf("%s, and %s at most", d.Memory.Least, d.Memory.Most))
	if d.Inference {
		line("NEEDS", "inference", "wasi-nn")
	}
	for _, l := range d.Limits {
		line("LIMIT", l.What, fmt.Sprintf("%d of %d", l.Has, l.Most))
	}
	switch {
	case d.Kind == "command":
		line("MOVABLE", "yes", "it keeps nothing")
	case d.Movable:
		line("MOVABLE", "yes", "between any two calls")
	default:
		line("MOVABLE", "no", d.Unmovable)
	}
}
