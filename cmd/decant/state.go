package main

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/state"
	"github.com/decant-project/decant/internal/state/sqlite"
)

func stateCommand() *cobra.Command {
	return group("state", "Back up and restore the orchestrator's state", stateExport(), stateImport())
}

func stateExport() *cobra.Command {
	return &cobra.Command{
		Use:   "export [FILE]",
		Short: "Write the state to a file or standard output",
		Long: `Write the state, as it is at this moment, to a file or to standard output. The
orchestrator may be running. Packages' files and the site's authority are not in
it: back up the folders blobs and authority of the data folder too.`,
		Example: "  decant state export backup.jsonl",
		Args:    usage(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := dataDir(cmd)
			if err != nil {
				return err
			}
			s, err := sqlite.OpenReadOnly(filepath.Join(dir, "state.db"))
			if e, ok := errors.AsType[*decant.Error](err); ok && e.Code == decant.NotFound {
				return e.WithHelp("name the orchestrator's data folder with --dir")
			}
			if err != nil {
				return err
			}
			defer s.Close()
			if len(args) == 0 {
				return state.Export(cmd.Context(), s, cmd.OutOrStdout())
			}
			f, err := os.OpenFile(args[0], os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
			if err != nil {
				return decant.Errorf(decant.Invalid, "cannot write the export: %w", err)
			}
			defer f.Close()
			if err := state.Export(cmd.Context(), s, f); err != nil {
				return err
			}
			return f.Sync()
		},
	}
}

func stateImport() *cobra.Command {
	return &cobra.Command{
		Use:     "import [FILE]",
		Short:   "Read an export into a new data folder",
		Long:    "Read an export into a data folder that has no state yet, while no orchestrator runs there.",
		Example: "  decant --dir restored state import backup.jsonl",
		Args:    usage(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := dataDir(cmd)
			if err != nil {
				return err
			}
			in := cmd.InOrStdin()
			if len(args) == 1 {
				f, err := os.Open(args[0])
				if err != nil {
					return decant.Errorf(decant.NotFound, "cannot read the export: %w", err)
				}
				defer f.Close()
				in = f
			}
			s, err := sqlite.Open(filepath.Join(dir, "state.db"))
			if err != nil {
				return err
			}
			defer s.Close()
			return state.Import(cmd.Context(), s, in)
		},
	}
}
