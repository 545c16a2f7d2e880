package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/durable"
)

// sweepEvery is how often blobs that nothing names any more are deleted.
const sweepEvery = 10 * time.Minute

// apply stores a desired state and brings the device to it. It is stored before
// anything of it happens, so that a crash leaves the old one or the new.
func (s *Supervisor) apply(desired decant.Desired) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	next, refusals := admit(s.desired, desired)
	for _, r := range refusals {
		s.event("instance.refused", r.key, r.err.Error())
	}
	if err := writeDesired(s.desiredPath(), next); err != nil {
		return err
	}
	s.desired, s.known = next, true
	if s.life != nil {
		s.applyLocked(next)
	}
	s.poke()
	return nil
}

// refusal is a part of a desired state that was not taken over.
type refusal struct {
	key string
	err *decant.Error
}

// admit returns what to take over of a desired state. Whatever a connected
// orchestrator of the site says holds, whatever its revision: it may have been
// restored from a backup. Two things do not: what is malformed, and an instance
// in a lower epoch than the one that is here, for the lower epoch always
// yields; there the present one stays.
func admit(present, next decant.Desired) (decant.Desired, []refusal) {
	had := map[string]decant.InstanceSpec{}
	for _, spec := range present.Instances {
		had[spec.Key()] = spec
	}
	var refusals []refusal
	admitted := next
	admitted.Instances = nil
	seen := map[string]bool{}
	for _, spec := range next.Instances {
		key := spec.Key()
		if err := checkSpec(spec); err != nil {
			refusals = append(refusals, refusal{key, asError(err)})
			continue
		}
		if seen[key] {
			refusals = append(refusals, refusal{key, decant.Errorf(decant.Invalid, "%s is desired twice", key)})
			continue
		}
		seen[key] = true
		if old, ok := had[key]; ok && spec.Epoch < old.Epoch {
			refusals = append(refusals, refusal{key, decant.Errorf(decant.Conflict, "epoch %d is desired, but epoch %d is here", spec.Epoch, old.Epoch)})
			spec = old
		}
		admitted.Instances = append(admitted.Instances, spec)
	}
	return admitted, refusals
}

// checkSpec checks what file names and addresses are made of.
func checkSpec(spec decant.InstanceSpec) error {
	names := []struct{ what, name string }{{"application", spec.Application}, {"component", spec.Component}}
	for _, p := range spec.Peripherals {
		names = append(names, struct{ what, name string }{"peripheral", p})
	}
	for name := range spec.Models {
		names = append(names, struct{ what, name string }{"model", name})
	}
	for _, l := range spec.Links {
		if l.Name != "" {
			names = append(names, struct{ what, name string }{"link", l.Name})
		}
	}
	for _, n := range names {
		if err := decant.CheckName(n.what, n.name); err != nil {
			return err
		}
	}
	for _, b := range spec.Blobs() {
		if err := b.Digest.Check(); err != nil {
			return err
		}
	}
	if t := spec.Trigger; t != nil && !slices.Contains(spec.Peripherals, t.Peripheral) {
		return decant.Errorf(decant.Invalid, "the trigger's peripheral %q is not bound", t.Peripheral)
	}
	return nil
}

// applyLocked starts, changes and removes instances.
func (s *Supervisor) applyLocked(desired decant.Desired) {
	wanted := map[string]bool{}
	for _, spec := range desired.Instances {
		wanted[spec.Key()] = true
		if in := s.instances[spec.Key()]; in != nil {
			in.update(&spec)
		} else {
			s.startLocked(spec)
		}
	}
	for key, in := range s.instances {
		if !wanted[key] {
			in.update(nil)
		}
	}
}

func (s *Supervisor) startLocked(spec decant.InstanceSpec) {
	in := newInstance(s, spec)
	s.instances[in.key] = in
	s.workers.Go(func() { in.run(s.life) })
}

// forget deletes what is left of an instance that was removed and has stopped.
// If it is wanted again meanwhile, it starts afresh.
func (s *Supervisor) forget(in *instance) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(s.statePath(in.key))
	delete(s.instances, in.key)
	if want := in.wanted(); want != nil && s.life.Err() == nil {
		s.startLocked(*want)
	} else {
		s.remove(s.logPath(in.key), s.logPath(in.key)+".1")
	}
	s.poke()
}

func (s *Supervisor) remove(paths ...string) {
	for _, path := range paths {
		if err := os.RemoveAll(path); err != nil {
			s.log.Warn("cannot remove what an instance left", "path", path, "error", err)
		}
	}
}

// instance returns the instance of a key, nil if there is none.
func (s *Supervisor) instance(key string) *instance {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.instances[key]
}

// settled reports whether the device knows what it shall run.
func (s *Supervisor) settled() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known
}

// sweepFolders deletes what instances left that were removed while the process
// was dying.
func (s *Supervisor) sweepFolders() {
	keep := map[string]bool{}
	for _, spec := range s.desired.Instances {
		keep[spec.Key()] = true
	}
	for _, folder := range []string{"state", "logs"} {
		root := filepath.Join(s.parts.Data, folder)
		found, _ := filepath.Glob(filepath.Join(root, "*", "*")) // the pattern is good
		for _, path := range found {
			rel, _ := filepath.Rel(root, path)
			key, _, _ := strings.Cut(filepath.ToSlash(rel), ".") // names hold no dots
			if !keep[key] {
				s.remove(path)
			}
		}
	}
}

// sweepBlobs deletes now and then the blobs that nothing names.
func (s *Supervisor) sweepBlobs(ctx context.Context) {
	for sleep(ctx, sweepEvery) {
		s.mu.Lock() // no instance is given anything else meanwhile
		keep := map[decant.Digest]bool{}
		for _, in := range s.instances {
			for _, spec := range in.specs() {
				for _, b := range spec.Blobs() {
					keep[b.Digest] = true
				}
			}
		}
		all, err := s.parts.Blobs.List()
		for _, d := range all {
			if !keep[d] {
				err = errors.Join(err, s.parts.Blobs.Delete(d))
			}
		}
		if err != nil {
			s.log.Warn("cannot delete old blobs", "error", err)
		}
		s.mu.Unlock()
	}
}

// module returns the compiled module of a blob, shared by all that use it, and
// a function that gives it back.
func (s *Supervisor) module(ctx context.Context, b decant.Blob) (Module, func(), error) {
	return s.modules.get(ctx, b.Digest, func(ctx context.Context) (Module, error) {
		wasm, err := s.parts.Blobs.Read(b.Digest)
		if err != nil {
			return nil, err
		}
		m, err := s.parts.Guests.Compile(ctx, wasm)
		if err != nil {
			return nil, decant.Errorf(decant.CodeOf(err), "cannot compile %s: %w", b.Name, err)
		}
		return m, nil
	})
}

func readDesired(path string) (d decant.Desired, found bool, err error) {
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return d, false, nil
	case err != nil:
		return d, false, decant.Errorf(decant.Internal, "cannot read what the device shall run: %w", err)
	}
	if err := json.Unmarshal(data, &d); err != nil {
		return d, false, decant.Errorf(decant.Corrupt, "%s is damaged: %w", path, err).
			WithHelp("remove it; the orchestrator sends it again")
	}
	return d, true, nil
}

func writeDesired(path string, d decant.Desired) error {
	data, err := json.Marshal(d)
	if err != nil {
		return decant.Errorf(decant.Internal, "cannot write what the device shall run: %w", err)
	}
	return durable.WriteFile(path, data)
}
