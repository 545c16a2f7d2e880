package main

import (
	"io"
	"mime"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/client"
	"github.com/decant-project/decant/internal/transport"
)

func invokeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "invoke APP[/COMPONENT] [FILE|-]",
		Short: "Call a component with a file's bytes and print the answer",
		Long: `Call a component of a running application with the bytes of a file or of
standard input, and write what comes back along its links to standard output.
Without a component the application's entry is called.`,
		Example: "  decant invoke snapshots photo.jpg\n  echo hello | decant invoke shouter/shout\n  decant invoke listening-post/detector --function status",
		Args:    usage(cobra.RangeArgs(1, 2)),
		RunE:    withClient(invoke),
	}
	cmd.Flags().String("function", "", "function to call (default: the component's)")
	cmd.Flags().String("content-type", "", "content type of the request (default: by the file's name)")
	return cmd
}

func invoke(cmd *cobra.Command, c *client.Client, args []string) error {
	to := client.Call{}
	to.Application, to.Component, _ = strings.Cut(args[0], "/")
	to.Function, _ = cmd.Flags().GetString("function")
	to.ContentType, _ = cmd.Flags().GetString("content-type")
	var body []byte
	var err error
	switch {
	case len(args) == 2 && args[1] != "-":
		f, err := os.Open(args[1])
		if err != nil {
			return decant.Errorf(decant.Invalid, "cannot read the request: %w", err)
		}
		defer f.Close()
		if body, err = readRequest(f); err != nil {
			return err
		}
		if to.ContentType == "" {
			to.ContentType = mime.TypeByExtension(filepath.Ext(args[1]))
		}
	case len(args) == 2 || !isTerminal(cmd.InOrStdin()):
		if body, err = readRequest(cmd.InOrStdin()); err != nil {
			return err
		}
	}
	answer, _, err := c.Invoke(cmd.Context(), to, body)
	if err != nil {
		return err
	}
	_, err = cmd.OutOrStdout().Write(answer)
	return err
}

// readRequest reads all of r, up to what a call may take.
func readRequest(r io.Reader) ([]byte, error) {
	request, err := io.ReadAll(io.LimitReader(r, transport.MaxBody+1))
	if err != nil {
		return nil, decant.Errorf(decant.Invalid, "cannot read the request: %w", err)
	}
	if len(request) > transport.MaxBody {
		return nil, decant.Errorf(decant.Exhausted, "the request is larger than %s", decant.Bytes(transport.MaxBody))
	}
	return request, nil
}
