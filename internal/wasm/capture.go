package wasm

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tetratelabs/wazero/api"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/wasm/binary"
	"github.com/decant-project/decant/internal/wasm/memory"
	"github.com/decant-project/decant/internal/wasm/snapshot"
)

// Snapshot is a guest between two calls: all that it takes to go on from there,
// here or elsewhere, under another engine, on another processor. Any number of
// guests can begin with it; where the machine can, they share the memory that
// none of them has written to. It is safe for concurrent use.
type Snapshot struct {
	state  snapshot.Snapshot
	memory *memory.Image // nil of a module without memory
}

// Keeper is a host module that keeps something for a guest from call to call,
// which a snapshot has to hold.
type Keeper interface {
	// Capture returns what is kept, nil for nothing. Unsupported: it cannot be
	// taken along.
	Capture() ([]byte, error)
	// Restore sets what is kept, in place of all that was.
	Restore(ctx context.Context, kept []byte) error
}

// Module returns the digest of the module that the snapshot is of.
func (s *Snapshot) Module() decant.Digest { return s.state.Module }

// Memory returns the size of the guest's memory.
func (s *Snapshot) Memory() decant.Bytes { return s.state.Memory }

// Encode writes the snapshot, as snapshot/FORMAT.md says, and returns its
// digest.
func (s *Snapshot) Encode(w io.Writer) (decant.Digest, error) {
	var failed error
	digest, err := snapshot.Encode(w, &s.state, func(yield func(int64, []byte) bool) {
		failed = s.pages(yield)
	})
	return digest, errors.Join(failed, err)
}

// pages gives the memory in pieces.
func (s *Snapshot) pages(yield func(int64, []byte) bool) error {
	const piece = 1 << 20
	size := int64(s.state.Memory)
	buf := make([]byte, min(piece, size))
	for at := int64(0); at < size; at += piece {
		b := buf[:min(piece, size-at)]
		if _, err := s.memory.ReadAt(b, at); err != nil {
			return err
		}
		if !yield(at, b) {
			return nil
		}
	}
	return nil
}

// Decode reads a snapshot that Encode has written, and returns it with its
// digest.
func Decode(r io.Reader, limits snapshot.Limits) (*Snapshot, decant.Digest, error) {
	s := &Snapshot{}
	state, digest, err := snapshot.Decode(r, limits, func(state *snapshot.Snapshot) (_ io.WriterAt, err error) {
		if state.Memory == 0 {
			return snapshot.Memory(nil), nil
		}
		s.memory, err = memory.NewImage(uint64(state.Memory)) //nolint:gosec // within the limits
		return s.memory, err
	})
	if err != nil {
		return nil, "", errors.Join(err, s.Close())
	}
	s.state = *state
	return s, digest, nil
}

// Close frees the snapshot; guests that began with it go on.
func (s *Snapshot) Close() error {
	if s.memory == nil {
		return nil
	}
	return s.memory.Close()
}

// Capture takes a snapshot of a reactor, once the call under way has ended.
//
//   - Unsupported: none can be taken of such a module, or of what a host module
//     keeps for it
//   - Conflict: the guest has files open, which another machine has not
//   - GuestFailed: it broke down before
func (g *Guest) Capture(ctx context.Context) (*Snapshot, error) {
	if err := g.enter(ctx); err != nil {
		return nil, err
	}
	defer g.leave()
	if err := g.movable(); err != nil {
		return nil, err
	}
	snap, err := g.reactor.capture()
	if err != nil {
		return nil, err
	}
	if snap.state.Files, err = g.reactor.files.capture(); err != nil {
		return nil, errors.Join(err, snap.Close())
	}
	return snap, nil
}

// Checkpoint takes the snapshot that the guest is set back to when a call breaks
// down, in place of the one before. Files of /state are not set back. Its errors
// are those of Capture.
func (g *Guest) Checkpoint(ctx context.Context) error {
	if err := g.enter(ctx); err != nil {
		return err
	}
	defer g.leave()
	if err := g.movable(); err != nil {
		return err
	}
	snap, err := g.reactor.capture()
	if err != nil {
		return err
	}
	return g.keep(snap)
}

// keep replaces the checkpoint.
func (g *Guest) keep(snap *Snapshot) error {
	last := g.checkpoint
	g.checkpoint = snap
	if last == nil {
		return nil
	}
	return last.Close()
}

// setBack puts an instance made of the checkpoint in place of one that broke
// down. It is lost where that fails.
func (g *Guest) setBack(ctx context.Context) {
	ctx = context.WithoutCancel(ctx) // the call may have ended by its deadline
	s, err := g.restore(ctx, g.checkpoint)
	if err != nil {
		_ = g.reactor.keepLog([]byte("decant: the instance cannot be set back to its checkpoint: " + err.Error() + "\n"))
		return
	}
	_ = g.reactor.keepLog([]byte("decant: the instance is set back to its checkpoint\n"))
	g.reactor.close()
	g.reactor = s
}

func (g *Guest) movable() error {
	if g.module.command {
		return decant.Errorf(decant.Unsupported, "there is nothing to take along of a command: it keeps nothing from call to call")
	}
	if why := g.module.prepared.Unmovable; why != "" {
		return decant.Errorf(decant.Unsupported, "no snapshot can be taken of the module: %s", why)
	}
	if g.reactor.lost {
		return decant.Errorf(decant.GuestFailed, "the guest broke down in an earlier call")
	}
	return nil
}

// capture takes a snapshot, but for the files.
func (s *session) capture() (*Snapshot, error) {
	if open := s.files.opened(); len(open) > 0 {
		return nil, decant.Errorf(decant.Conflict, "the guest has files open, which cannot be taken along: %s", strings.Join(open, ", ")).
			WithHelp("have the module close what it opens before a call ends")
	}
	m := s.guest.module
	snap := &Snapshot{state: snapshot.Snapshot{Module: m.digest, Clock: s.clock()}}
	for _, i := range m.prepared.Globals {
		g := s.module.ExportedGlobal(binary.GlobalName(i))
		snap.state.Globals = append(snap.state.Globals, snapshot.Global{Index: i, Type: snapshot.Type(g.Type()), Bits: bitsOf(g)})
	}
	for _, segment := range m.prepared.Dropped {
		if s.module.ExportedGlobal(binary.DroppedName(segment)).Get() != 0 {
			snap.state.Dropped = append(snap.state.Dropped, segment)
		}
	}
	if k := s.guest.config.Keeper; k != nil {
		kept, err := k.Capture()
		if err != nil {
			return nil, err
		}
		if kept != nil {
			snap.state.Extra = []snapshot.Extra{{Name: keeperName, Data: kept}}
		}
	}
	if b := s.memory.Bytes(); len(b) > 0 {
		var err error
		if snap.memory, err = s.memory.Image(); err != nil {
			return nil, err
		}
		snap.state.Memory = decant.Bytes(len(b))
	}
	return snap, nil
}

// keeperName is the name of what the Keeper keeps, in a snapshot.
const keeperName = "host"

// bitsOf returns the value of a global, without what may be left in the upper
// half of a short one.
func bitsOf(g api.Global) uint64 {
	if t := g.Type(); t == api.ValueTypeI32 || t == api.ValueTypeF32 {
		return g.Get() & 0xffffffff
	}
	return g.Get()
}

// Restore makes a guest that goes on where a snapshot was taken. What it is given
// should be what the captured one was given, but /state: that must be empty, and
// becomes what it was.
//
//   - Invalid: the snapshot is of another module, or damaged
//   - Exhausted: its memory or files are more than the guest may have
//   - Conflict: there are files in the folder of /state
func (h *Host) Restore(ctx context.Context, m *Module, c GuestConfig, snap *Snapshot) (*Guest, error) {
	g := newGuest(m, c)
	err := g.movableInto(snap)
	if err == nil {
		err = restoreFiles(g.config, snap.state.Files)
	}
	if err == nil {
		ctx, cancel := g.callContext(ctx)
		defer cancel()
		g.reactor, err = g.restore(ctx, snap)
	}
	if err != nil {
		g.stop()
		return nil, err
	}
	return g, nil
}

func (g *Guest) movableInto(snap *Snapshot) error {
	if g.module.command || g.module.prepared.Unmovable != "" || snap.state.Module != g.module.digest {
		return decant.Errorf(decant.Invalid, "the snapshot is of the module %s, not of %s", snap.state.Module.Short(), g.module.digest.Short())
	}
	if snap.state.Memory > g.config.Memory {
		return decant.Errorf(decant.Exhausted, "the snapshot's memory is %s, and the guest may have %s", snap.state.Memory, g.config.Memory).
			WithHelp("raise needs.memory")
	}
	return nil
}

// restore makes an instance of a snapshot, but for the files.
func (g *Guest) restore(ctx context.Context, snap *Snapshot) (*session, error) {
	s, err := g.instantiate(ctx)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(s.restoreMemory(snap), s.restoreGlobals(snap), s.restoreDropped(ctx, snap), s.restoreKept(ctx, snap)); err != nil {
		s.close()
		return nil, err
	}
	s.ran = snap.state.Clock
	return s, nil
}

var errSnapshot = decant.Errorf(decant.Invalid, "the snapshot does not fit its module: it is damaged, or was made by hand")

func (s *session) restoreMemory(snap *Snapshot) error {
	have, want := uint64(len(s.memory.Bytes())), uint64(snap.state.Memory) //nolint:gosec // not negative
	if want < have || want > 0 && s.module.Memory() == nil {
		return errSnapshot
	}
	if want == 0 {
		return nil
	}
	if want > have {
		const page = 64 << 10
		if _, ok := s.module.Memory().Grow(uint32((want - have) / page)); !ok { //nolint:gosec // at most 4 GiB in all
			return decant.Errorf(decant.Exhausted, "the guest's memory cannot grow to the %s of the snapshot", snap.state.Memory)
		}
	}
	return s.memory.Load(snap.memory)
}

func (s *session) restoreGlobals(snap *Snapshot) error {
	want := s.guest.module.prepared.Globals
	if len(want) != len(snap.state.Globals) {
		return errSnapshot
	}
	for i, have := range snap.state.Globals {
		g, ok := s.module.ExportedGlobal(binary.GlobalName(want[i])).(api.MutableGlobal)
		if !ok || have.Index != want[i] || have.Type != snapshot.Type(g.Type()) {
			return errSnapshot
		}
		g.Set(have.Bits)
	}
	return nil
}

func (s *session) restoreDropped(ctx context.Context, snap *Snapshot) error {
	if len(snap.state.Dropped) == 0 {
		return nil
	}
	for _, segment := range snap.state.Dropped {
		if !slices.Contains(s.guest.module.prepared.Dropped, segment) {
			return errSnapshot
		}
		s.module.ExportedGlobal(binary.DroppedName(segment)).(api.MutableGlobal).Set(1) //nolint:forcetypeassert // binary.Prepare has made it
	}
	s.fill()
	_, err := s.module.ExportedFunction(binary.DropName).Call(s.begin(ctx, nil))
	return err
}

func (s *session) restoreKept(ctx context.Context, snap *Snapshot) error {
	k := s.guest.config.Keeper
	if len(snap.state.Extra) == 0 {
		if k != nil {
			return k.Restore(ctx, nil)
		}
		return nil
	}
	if k == nil || len(snap.state.Extra) > 1 || snap.state.Extra[0].Name != keeperName {
		return decant.Errorf(decant.Unsupported, "the snapshot holds what this host has no module for: %s", snap.state.Extra[0].Name)
	}
	return k.Restore(ctx, snap.state.Extra[0].Data)
}

// capture reads all of /state.
func (r *rootFS) capture() ([]snapshot.File, error) {
	if r.state == nil {
		return nil, nil
	}
	var files []snapshot.File
	err := r.state.walk(".", func(below string, info fs.FileInfo) error {
		f := snapshot.File{Path: below, Folder: info.IsDir(), Modified: info.ModTime().UTC().Truncate(time.Nanosecond)}
		if !f.Folder {
			var err error
			if f.Data, err = r.state.root.ReadFile(below); err != nil {
				return err
			}
		}
		files = append(files, f)
		return nil
	})
	if err != nil {
		return nil, decant.Errorf(decant.Internal, "cannot read the guest's state folder: %w", err)
	}
	slices.SortFunc(files, func(a, b snapshot.File) int { return strings.Compare(a.Path, b.Path) })
	return files, nil
}

// restoreFiles makes the folder of /state what it was. It is there with all that
// is in it, or not at all.
func restoreFiles(c GuestConfig, files []snapshot.File) error {
	if len(files) == 0 {
		return nil
	}
	if c.State == "" {
		return decant.Errorf(decant.Invalid, "the snapshot has files in /state, and the guest has no such folder")
	}
	if there, err := os.ReadDir(c.State); err == nil && len(there) > 0 {
		return decant.Errorf(decant.Conflict, "there are files in %s already, where those of the snapshot belong", c.State)
	}
	total := decant.Bytes(0)
	for _, f := range files {
		total += fileCost + decant.Bytes(len(f.Data))
	}
	if total > c.StateLimit {
		return decant.Errorf(decant.Exhausted, "the snapshot's files in /state are %s, and the guest may have %s", total, c.StateLimit)
	}
	if err := writeFiles(c.State, files); err != nil {
		return decant.Errorf(decant.Internal, "cannot restore the guest's state folder: %w", err)
	}
	return nil
}

func writeFiles(dir string, files []snapshot.File) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return err
	}
	beside, err := os.MkdirTemp(filepath.Dir(dir), "."+filepath.Base(dir)+"-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(beside)
	root, err := os.OpenRoot(beside)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, f := range files {
		if f.Folder {
			err = root.Mkdir(f.Path, 0o700)
		} else {
			err = root.WriteFile(f.Path, f.Data, 0o600)
		}
		if err != nil {
			return err
		}
	}
	for _, f := range slices.Backward(files) { // what is in a folder is made before its time is set
		if err := root.Chtimes(f.Path, f.Modified, f.Modified); err != nil {
			return err
		}
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Rename(beside, dir)
}
