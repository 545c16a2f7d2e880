package snapshot

import (
	"io/fs"
	"math"
	"path"
	"strings"
	"time"

	"github.com/decant-project/decant"
)

// What is here holds for what is written and for what is read alike.

const (
	wasmPage  = 64 << 10
	maxMemory = 4 * decant.GiB
	maxPath   = 1024
	maxLevels = 32
	maxExtras = 256
)

// check returns an Invalid error for a snapshot that cannot be written.
func (s *Snapshot) check() error {
	if err := s.checkInstance(); err != nil {
		return err
	}
	if err := checkGlobals(s.Globals); err != nil {
		return err
	}
	if err := checkDropped(s.Dropped); err != nil {
		return err
	}
	for t, i := (tree{}), 0; i < len(s.Files); i++ {
		if err := t.add(s.Files[i]); err != nil {
			return err
		}
	}
	for i := range s.Extra {
		if err := checkExtra(s.Extra[:i], s.Extra[i].Name); err != nil {
			return err
		}
	}
	return nil
}

func (s *Snapshot) checkInstance() error {
	if err := s.Module.Check(); err != nil {
		return err
	}
	if s.Clock < 0 {
		return decant.Errorf(decant.Invalid, "the clock is negative: %d ns", s.Clock)
	}
	if s.Clock > maxClock {
		return decant.Errorf(decant.Invalid, "the clock is at %d ns: %d at most", s.Clock, int64(maxClock))
	}
	if s.Memory < 0 || s.Memory%wasmPage != 0 || s.Memory > maxMemory {
		return decant.Errorf(decant.Invalid, "a memory of %d bytes: want a multiple of 64 KiB, 4 GiB at most", s.Memory)
	}
	return nil
}

func checkGlobals(globals []Global) error {
	for i, g := range globals {
		switch {
		case i > 0 && g.Index <= globals[i-1].Index:
			return decant.Errorf(decant.Invalid, "global %d comes after global %d", g.Index, globals[i-1].Index)
		case g.Type < F64 || g.Type > I32:
			return decant.Errorf(decant.Invalid, "global %d is of %s: want i32, i64, f32 or f64", g.Index, g.Type)
		case (g.Type == I32 || g.Type == F32) && g.Bits>>32 != 0:
			return decant.Errorf(decant.Invalid, "global %d: %#x is no %s", g.Index, g.Bits, g.Type)
		}
	}
	return nil
}

func checkDropped(segments []uint32) error {
	for i := 1; i < len(segments); i++ {
		if segments[i] <= segments[i-1] {
			return decant.Errorf(decant.Invalid, "segment %d comes after segment %d", segments[i], segments[i-1])
		}
	}
	return nil
}

// tree is the files so far. A path comes after that of its folder wherever
// paths are in order, so a tree can be made anew as it is read.
type tree struct {
	last    string
	folders map[string]bool
}

func (t *tree) add(f File) error {
	if err := checkPath(f.Path); err != nil {
		return err
	}
	folder := path.Dir(f.Path)
	switch {
	case f.Path <= t.last:
		return decant.Errorf(decant.Invalid, "file %.80q comes after file %.80q", f.Path, t.last)
	case folder != "." && !t.folders[folder]:
		return decant.Errorf(decant.Invalid, "file %.80q: there is no such folder", f.Path)
	case f.Folder && len(f.Data) > 0:
		return decant.Errorf(decant.Invalid, "folder %.80q has contents", f.Path)
	case !time.Unix(0, f.Modified.UnixNano()).Equal(f.Modified):
		return decant.Errorf(decant.Invalid, "file %.80q: the year %d does not fit", f.Path, f.Modified.Year())
	}
	t.last = f.Path
	if f.Folder {
		if t.folders == nil {
			t.folders = map[string]bool{}
		}
		t.folders[f.Path] = true
	}
	return nil
}

// checkPath returns an Invalid error for a path that leads out of /state, can
// be written in another way, or is none on some system.
func checkPath(p string) error {
	if len(p) > maxPath || strings.Count(p, "/") >= maxLevels {
		return decant.Errorf(decant.Invalid, "path %.80q: %d bytes and %d levels at most", p, maxPath, maxLevels)
	}
	if !fs.ValidPath(p) || p == "." || strings.Contains(p, "\x00") {
		return decant.Errorf(decant.Invalid, "path %.80q: want names in UTF-8 with slashes between, and no . and ..", p)
	}
	return nil
}

// checkExtra returns an Invalid error for an extra that cannot come after those
// before.
func checkExtra(before []Extra, name string) error {
	if err := decant.CheckName("extra", name); err != nil {
		return err
	}
	if n := len(before); n > 0 && name <= before[n-1].Name {
		return decant.Errorf(decant.Invalid, "extra %q comes after extra %q", name, before[n-1].Name)
	}
	if len(before) >= maxExtras {
		return decant.Errorf(decant.Invalid, "extra %q: there are %d at most", name, maxExtras)
	}
	return nil
}

// maxClock is so far from where a clock overflows that no guest lives to see it.
const maxClock = math.MaxInt64 / 2
