package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/decant-project/decant"
)

// addOutput gives cmd the flag -o.
func addOutput(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringP("output", "o", "table", "table for people, json for programs")
	return cmd
}

// show prints v as JSON, or, for people, what table writes: cells separated by
// tabs.
func show(cmd *cobra.Command, v any, table func(w io.Writer)) error {
	switch format, _ := cmd.Flags().GetString("output"); format {
	case "json":
		enc := json.NewEncoder(cmd.OutOrStdout())
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	case "table":
		w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 3, ' ', 0)
		table(w)
		return w.Flush()
	default:
		return decant.Errorf(decant.Invalid, "output %q: use table or json", format)
	}
}

// maxLine bounds a line for people, in bytes.
const maxLine = 16 << 10

// shown makes text a line for a terminal: devices and modules wrote parts of it.
func shown(text string) string { return decant.Line(text, maxLine) }

// shownLog is shown for a line of a log, which keeps its tabs and indentation.
func shownLog(line []byte) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' || unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, string(line))
}

func row(w io.Writer, cells ...any) {
	texts := make([]string, len(cells))
	for i, c := range cells {
		if texts[i] = shown(fmt.Sprint(c)); texts[i] == "" {
			texts[i] = "-"
		}
	}
	fmt.Fprintln(w, strings.Join(texts, "\t"))
}

// ago says how long ago t was, in one unit.
func ago(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	d := time.Since(t)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", max(0, int(d.Seconds())))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}
