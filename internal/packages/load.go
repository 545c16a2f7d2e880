package packages

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/yaml"
)

// File is a file of a package on its author's disk.
type File struct {
	decant.Blob
	Path string
}

// ManifestName is the file that describes a package in its folder.
const ManifestName = "package.yaml"

// maxSpec bounds a package.yaml, in bytes.
const maxSpec = 1 << 20

// ReadSpec reads and checks the package.yaml in dir.
func ReadSpec(dir string) (decant.PackageSpec, error) {
	var spec decant.PackageSpec
	f, err := os.Open(filepath.Join(dir, ManifestName))
	if err != nil {
		e := decant.Errorf(decant.NotFound, "cannot read the package: %w", err)
		if errors.Is(err, fs.ErrNotExist) {
			return spec, e.WithHelp("push a folder with a %s, or a .wasm or .onnx file with --as NAME@VERSION", ManifestName)
		}
		return spec, e
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSpec))
	if err != nil {
		return spec, decant.Errorf(decant.Invalid, "cannot read the package: %w", err)
	}
	return ParseSpec(data)
}

// ParseSpec reads and checks a package.yaml.
func ParseSpec(data []byte) (decant.PackageSpec, error) {
	var spec decant.PackageSpec
	if err := yaml.Unmarshal(data, &spec); err != nil {
		return spec, decant.Errorf(decant.Invalid, "cannot read %s: %w", ManifestName, err)
	}
	if err := spec.Check(); err != nil {
		return spec, err
	}
	return spec, checkRanges(spec)
}

// FileSpec describes a single module or model file as the package ref, which
// is name@version.
func FileSpec(file string, ref decant.PackageRef) (decant.PackageSpec, error) {
	spec := decant.PackageSpec{Name: ref.Name, Version: ref.Range}
	switch name := filepath.Base(file); filepath.Ext(file) {
	case ".wasm":
		spec.Module = &decant.ModuleSpec{File: name}
	case ".onnx":
		spec.Model = &decant.ModelSpec{File: name, Format: "onnx"}
	default:
		return spec, decant.Errorf(decant.Invalid, "%s is neither a .wasm nor an .onnx file", file).
			WithHelp("put it into a folder with a %s", ManifestName)
	}
	return spec, spec.Check()
}

// Build runs the command that makes a module, in the package's folder.
func Build(ctx context.Context, dir string, spec decant.PackageSpec, stdout, stderr io.Writer) error {
	if spec.Module == nil || spec.Module.Build == "" {
		return nil
	}
	cmd := exec.CommandContext(ctx, "sh", "-c", spec.Module.Build)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, stdout, stderr
	if err := cmd.Run(); err != nil {
		return decant.Errorf(decant.Invalid, "package %s: building it (%s) failed: %w", spec.Ref(), spec.Module.Build, err)
	}
	return nil
}

// Files finds the files of a package in its folder, which no link leads out
// of, and what they are.
func Files(dir string, spec decant.PackageSpec) ([]File, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, decant.Errorf(decant.NotFound, "cannot open the package's folder: %w", err)
	}
	defer root.Close()
	names, mediaType := []string{}, decant.MediaTypeWasm
	if spec.Module != nil {
		names = append(names, spec.Module.File)
	} else {
		names, mediaType = append(append(names, spec.Model.File), spec.Model.Files...), decant.MediaTypeONNX
	}
	var out []File
	for i, name := range names {
		if i > 0 {
			mediaType = decant.MediaTypeFile
		}
		f := File{Path: filepath.Join(dir, filepath.FromSlash(name))}
		f.Name, f.MediaType = path.Base(name), mediaType
		if err := digestFile(root, name, &f.Blob); err != nil {
			return nil, decant.Errorf(decant.NotFound, "package %s: cannot read its file: %w", spec.Ref(), err).
				WithHelp("where it has to be built first, say how in module.build")
		}
		out = append(out, f)
	}
	return out, nil
}

func digestFile(root *os.Root, name string, b *decant.Blob) error {
	f, err := root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, f)
	b.Digest, b.Size = decant.NewDigest(sum.Sum(nil)), decant.Bytes(n)
	return err
}
