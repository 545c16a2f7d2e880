package fetch

import (
	"archive/tar"
	"io"
	"path"
	"slices"

	"github.com/decant-project/decant"
)

// maxArchive bounds what an archive may unpack to.
const maxArchive = int64(decant.GiB)

// untar calls put with the first file of each of names that an archive has. It
// writes nothing itself, so nothing in an archive can choose a place.
func untar(archive io.Reader, names []string, put func(name string, r io.Reader) error) error {
	left := slices.Clone(names)
	entries := tar.NewReader(io.LimitReader(archive, maxArchive))
	for len(left) > 0 {
		entry, err := entries.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return decant.Errorf(decant.Corrupt, "its archive cannot be read: %w", err)
		}
		i := slices.Index(left, path.Clean(entry.Name))
		if i < 0 || entry.Typeflag != tar.TypeReg {
			continue
		}
		if err := put(left[i], entries); err != nil {
			return err
		}
		left = slices.Delete(left, i, i+1)
	}
	return nil
}
