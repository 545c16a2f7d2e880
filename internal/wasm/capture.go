package wasm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tetratelabs/wazero/api"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/durable"
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
	return snapshot.Encode(w, &s.state, s.pages)
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
	g.keep(snap)
	return nil
}

// keep replaces the checkpoint.
func (g *Guest) keep(snap *Snapshot) {
	if g.checkpoint != nil {
		_ = g.checkpoint.Close() // whoever maps it goes on
	}
	g.checkpoint = snap
}

// setBack puts an instance made of the checkpoint in place of one that broke
// down. It is lost where that fails.
func (g *Guest) setBack(ctx context.Context) {
	g.reactor.close()                                             // its memory is free for the next
	s, err := g.restore(context.WithoutCancel(ctx), g.checkpoint) // the call may have ended by its deadline
	if err != nil {
		fmt.Fprintf(g.config.Log, "decant: the instance cannot be set back to its checkpoint: %v\n", err)
		return
	}
	fmt.Fprintln(g.config.Log, "decant: the instance is set back to its checkpoint")
	g.reactor = s
}

// movable says why no snapshot can be taken of the guest.
func (g *Guest) movable() error {
	if err := g.module.movable(); err != nil {
		return err
	}
	if g.reactor.lost {
		return decant.Errorf(decant.GuestFailed, "the guest broke down in an earlier call")
	}
	return nil
}

// movable says why no snapshot can be taken of the module's guests.
func (m *Module) movable() error {
	if m.command {
		return decant.Errorf(decant.Unsupported, "there is nothing to take along of a command: it keeps nothing from call to call")
	}
	if why := m.prepared.Unmovable; why != "" {
		return decant.Errorf(decant.Unsupported, "no snapshot can be taken of the module: %s", why)
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
	if err := g.goOn(ctx, snap); err != nil {
		g.stop()
		return nil, err
	}
	return g, nil
}

// goOn makes the guest what a snapshot says. Nothing of /state is left behind
// where that fails.
func (g *Guest) goOn(ctx context.Context, snap *Snapshot) (err error) {
	if err := g.fits(snap); err != nil {
		return err
	}
	if err := restoreFiles(g.config, snap.state.Files); err != nil {
		return err
	}
	ctx, cancel := g.callContext(ctx)
	defer cancel()
	if g.reactor, err = g.restore(ctx, snap); err != nil && len(snap.state.Files) > 0 {
		err = errors.Join(err, os.RemoveAll(g.config.State))
	}
	return err
}

// fits refuses a snapshot that is not of the guest's module, or larger than it may
// be.
func (g *Guest) fits(snap *Snapshot) error {
	m := g.module
	if snap.state.Module != m.digest {
		return decant.Errorf(decant.Invalid, "the snapshot is of the module %s, not of %s", snap.state.Module.Short(), m.digest.Short())
	}
	if err := m.movable(); err != nil {
		return err
	}
	if want := uint64(snap.state.Memory); m.prepared.Memory == nil && want > 0 || m.prepared.Memory != nil && want > m.prepared.Memory.Most { //nolint:gosec // not negative
		return errSnapshot
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
	for _, step := range []func(context.Context, *Snapshot) error{s.restoreMemory, s.restoreGlobals, s.restoreDropped, s.restoreKept} {
		if err := step(ctx, snap); err != nil {
			s.close()
			return nil, err
		}
	}
	s.ran = snap.state.Clock
	return s, nil
}

var errSnapshot = decant.Errorf(decant.Invalid, "the snapshot does not fit its module: it is damaged, or was made by hand")

func (s *session) restoreMemory(_ context.Context, snap *Snapshot) error {
	have, want := uint64(len(s.memory.Bytes())), uint64(snap.state.Memory) //nolint:gosec // not negative
	if want < have {
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

func (s *session) restoreGlobals(_ context.Context, snap *Snapshot) error {
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
		f := snapshot.File{Path: below, Folder: info.IsDir(), Modified: info.ModTime().UTC()}
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
// is in it, or not at all, also after a loss of power.
func restoreFiles(c GuestConfig, files []snapshot.File) error {
	if c.State != "" {
		there, err := os.ReadDir(c.State)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return decant.Errorf(decant.Internal, "cannot look into the guest's state folder: %w", err)
		}
		if len(there) > 0 {
			return decant.Errorf(decant.Conflict, "there are files in %s already, where those of the snapshot belong", c.State)
		}
	}
	if len(files) == 0 {
		return nil
	}
	if c.State == "" {
		return decant.Errorf(decant.Invalid, "the snapshot has files in /state, and the guest has no such folder")
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

// writeFiles makes dir of files, aside and synced first.
func writeFiles(dir string, files []snapshot.File) error {
	beside := filepath.Join(filepath.Dir(dir), "."+filepath.Base(dir)+".restoring")
	if err := os.RemoveAll(beside); err != nil { // a crash may have left it
		return err
	}
	if err := os.MkdirAll(beside, 0o700); err != nil {
		return err
	}
	defer os.RemoveAll(beside)
	root, err := os.OpenRoot(beside)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, f := range files {
		if err := writeOne(root, f); err != nil {
			return err
		}
	}
	for _, f := range slices.Backward(files) { // what is in a folder is made before its time is set
		if err := root.Chtimes(f.Path, f.Modified, f.Modified); err != nil {
			return err
		}
		if f.Folder {
			if err := durable.SyncDir(filepath.Join(beside, filepath.FromSlash(f.Path))); err != nil {
				return err
			}
		}
	}
	if err := durable.SyncDir(beside); err != nil {
		return err
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Rename(beside, dir); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(dir))
}

// writeOne makes a folder, or a file that is on the disk when it returns.
func writeOne(root *os.Root, f snapshot.File) error {
	if f.Folder {
		return root.Mkdir(f.Path, 0o700)
	}
	file, err := root.OpenFile(f.Path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(f.Data)
	return errors.Join(err, file.Sync(), file.Close())
}
