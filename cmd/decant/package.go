package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/client"
	"github.com/decant-project/decant/internal/packages"
)

func packageCommand() *cobra.Command {
	return group("package", "See and manage packages: modules and models", packagePush(), packageLs(), packageShow(), packageRm())
}

func packagePush() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "push DIR|FILE...",
		Short: "Build packages and push them to the orchestrator",
		Long: `Push packages: folders with a package.yaml, which are built first if it says
how, or single .wasm or .onnx files, named with --as.`,
		Example: "  decant package push examples/speech/detector\n  decant package push model.onnx --as my-model@1.0.0",
		Args:    usage(cobra.MinimumNArgs(1)),
		RunE: withClient(func(cmd *cobra.Command, c *client.Client, args []string) error {
			as, _ := cmd.Flags().GetString("as")
			if as != "" && len(args) > 1 {
				return decant.Errorf(decant.Invalid, "--as names one file, but %d are given", len(args))
			}
			var pushed []decant.Package
			for _, path := range args {
				p, err := push(cmd, c, path, as)
				if err != nil {
					return err
				}
				pushed = append(pushed, p)
			}
			return show(cmd, pushed, func(w io.Writer) {
				for _, p := range pushed {
					row(w, p.Ref(), p.Digest.Short(), strings.Join(p.Exports, " "))
				}
			})
		}),
	}
	cmd.Flags().String("as", "", "NAME@VERSION for a single file")
	return addOutput(cmd)
}

func push(cmd *cobra.Command, c *client.Client, path, as string) (decant.Package, error) {
	spec, files, err := load(cmd, path, as)
	if err != nil {
		return decant.Package{}, err
	}
	var stored []decant.Blob
	for _, f := range files {
		if err := upload(cmd.Context(), c, spec, f, cmd.ErrOrStderr()); err != nil {
			return decant.Package{}, err
		}
		stored = append(stored, f.Blob)
	}
	return c.Push(cmd.Context(), spec, stored)
}

// load reads a package from its folder, or makes one of a file.
func load(cmd *cobra.Command, path, as string) (spec decant.PackageSpec, files []packages.File, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return spec, nil, decant.Errorf(decant.NotFound, "cannot read the package: %w", err)
	}
	if info.IsDir() {
		if spec, err = packages.ReadSpec(path); err != nil {
			return spec, nil, err
		}
		if err := packages.Build(cmd.Context(), path, spec, cmd.ErrOrStderr(), cmd.ErrOrStderr()); err != nil {
			return spec, nil, err
		}
		files, err = packages.Files(path, spec)
		return spec, files, err
	}
	ref, err := decant.ParsePackageRef(as)
	if err != nil || ref.Range == "" {
		return spec, nil, decant.Errorf(decant.Invalid, "a single file needs a name and a version").WithHelp("add --as NAME@VERSION")
	}
	if spec, err = packages.FileSpec(path, ref); err != nil {
		return spec, nil, err
	}
	files, err = packages.Files(filepath.Dir(path), spec)
	return spec, files, err
}

// upload stores a file's bytes, unless they are there.
func upload(ctx context.Context, c *client.Client, spec decant.PackageSpec, f packages.File, stderr io.Writer) error {
	if there, err := c.HasBlob(ctx, f.Digest); there || err != nil {
		return err
	}
	file, err := os.Open(f.Path)
	if err != nil {
		return decant.Errorf(decant.NotFound, "package %s: %w", spec.Ref(), err)
	}
	defer file.Close()
	var r io.Reader = file
	if out, ok := stderr.(*os.File); ok && term.IsTerminal(int(out.Fd())) {
		bar := progressbar.NewOptions64(int64(f.Size), progressbar.OptionSetWriter(out), progressbar.OptionShowBytes(true),
			progressbar.OptionSetDescription(spec.Ref()+" "+f.Name), progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())
		defer bar.Close()
		r = io.TeeReader(file, bar)
	} else {
		fmt.Fprintf(stderr, "pushing %s %s, %s\n", spec.Ref(), f.Name, f.Size)
	}
	return c.PutBlob(ctx, f.Digest, f.Size, r)
}

func packageLs() *cobra.Command {
	return addOutput(&cobra.Command{
		Use:   "ls",
		Short: "List packages, the newest version of each first",
		Args:  usage(cobra.NoArgs),
		RunE: withClient(func(cmd *cobra.Command, c *client.Client, _ []string) error {
			all, err := c.Packages(cmd.Context())
			if err != nil {
				return err
			}
			return show(cmd, all, func(w io.Writer) {
				row(w, "NAME", "VERSION", "KIND", "SIZE", "FUNCTIONS", "DIGEST", "PUSHED")
				for _, p := range all {
					row(w, p.Name, p.Version, kind(p), size(p), strings.Join(p.Exports, " "), p.Digest.Short(), ago(p.PushedAt))
				}
			})
		}),
	})
}

func packageShow() *cobra.Command {
	return addOutput(&cobra.Command{
		Use:     "show NAME[@RANGE]",
		Short:   "Show the newest version of a package",
		Example: "  decant package show silero-vad@^5",
		Args:    usage(cobra.ExactArgs(1)),
		RunE: withClient(func(cmd *cobra.Command, c *client.Client, args []string) error {
			p, err := c.Package(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return show(cmd, p, func(w io.Writer) {
				row(w, "package", p.Ref())
				row(w, "kind", kind(p))
				row(w, "description", p.Description)
				row(w, "licence", p.Licence)
				row(w, "functions", strings.Join(p.Exports, " "))
				for name, m := range p.Models {
					row(w, "loads model "+name, m.Interface+" "+m.Accepts)
				}
				for name, r := range p.Requires {
					row(w, "requires", name+"@"+r)
				}
				row(w, "manifest", p.Digest)
				for _, b := range p.Blobs {
					row(w, "file "+b.Name, fmt.Sprintf("%s, %s", b.Size, b.Digest))
				}
			})
		}),
	})
}

func packageRm() *cobra.Command {
	return &cobra.Command{
		Use:     "rm NAME@VERSION",
		Short:   "Remove a version that no application uses",
		Example: "  decant package rm silero-vad@5.0.0",
		Args:    usage(cobra.ExactArgs(1)),
		RunE: withClient(func(cmd *cobra.Command, c *client.Client, args []string) error {
			name, version, ok := strings.Cut(args[0], "@")
			if !ok {
				return decant.Errorf(decant.Invalid, "name the version to remove, as %s@1.0.0", name)
			}
			return c.RemovePackage(cmd.Context(), name, version)
		}),
	}
}

func kind(p decant.Package) string {
	if p.Model != nil {
		return "model, " + p.Model.Format
	}
	return "module"
}

func size(p decant.Package) decant.Bytes {
	var n decant.Bytes
	for _, b := range p.Blobs {
		n += b.Size
	}
	return n
}
