package supervisor

import (
	"context"
	"os"
	"slices"
	"time"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/peripheral"
)

// bring makes the instance what is wanted, as far as it is not.
func (in *instance) bring(ctx context.Context, want decant.InstanceSpec) error {
	select {
	case <-in.lost:
		in.dropGuest()
	default:
	}
	if in.current != nil && in.current.guest == nil {
		// Calls wait for it, so what was lost comes back before anything new.
		if err := in.swap(ctx, in.current, in.current.spec); err != nil {
			if sameParts(in.current.spec, want) {
				return err
			}
			in.refuse() // until the new one, which may cure it
		}
	}
	if in.current == nil || !sameParts(in.current.spec, want) {
		next, err := in.prepare(ctx, want)
		if err != nil {
			return err
		}
		if err := in.swap(ctx, next, want); err != nil {
			next.release()
			return err
		}
	}
	in.serve(want)
	in.setTrigger(want.Trigger)
	in.closeDevices(want.Peripherals)
	return nil
}

// prepare gets all that a guest is made of. What serves goes on meanwhile.
func (in *instance) prepare(ctx context.Context, want decant.InstanceSpec) (_ *running, err error) {
	r := &running{spec: want, models: map[string]GuestModel{}}
	defer func() {
		if err != nil {
			r.release()
		}
	}()
	in.step(decant.InstancePulling)
	for _, b := range want.Blobs() {
		err := in.sup.parts.Blobs.Pull(ctx, b, in.sup.fetch(b.Digest), func(done, _ int64) {
			in.note("pulling %s: %s of %s", b.Name, decant.Bytes(done)/decant.MiB*decant.MiB, b.Size)
		})
		if err != nil {
			return nil, err
		}
	}
	in.step(decant.InstanceCompiling)
	var done func()
	if r.module, done, err = in.sup.module(ctx, want.Module); err != nil {
		return nil, err
	}
	r.releases = append(r.releases, done)
	for name, bound := range want.Models {
		m, err := in.sup.models.bind(ctx, bound)
		if err != nil {
			return nil, err
		}
		r.models[name] = m
		r.releases = append(r.releases, func() { _ = m.Model.Close() })
	}
	return r, nil
}

// swap starts next's guest and puts it in the place of the present one, if any,
// between two calls: further calls wait. Where it fails, the present one serves
// on.
func (in *instance) swap(ctx context.Context, next *running, want decant.InstanceSpec) error {
	in.step(decant.InstanceStarting)
	if err := in.openDevices(want.Peripherals); err != nil {
		return err
	}
	old := in.takeGuest()
	guest, err := in.start(ctx, next)
	if err != nil {
		if old != nil {
			in.slot <- old
		}
		return err
	}
	if old != nil {
		in.close(old)
	}
	if in.current != nil && in.current != next {
		in.current.release()
	}
	next.guest = guest
	in.current = next
	in.serve(want) // before calls find the new guest: they go by its spec
	in.slot <- guest
	return nil
}

// startDeadline bounds how long a guest may take to initialize itself: calls of
// the one it replaces wait meanwhile.
const startDeadline = 20 * time.Second

func (in *instance) start(ctx context.Context, r *running) (Guest, error) {
	ctx, cancel := context.WithTimeout(ctx, startDeadline)
	defer cancel()
	state := in.sup.statePath(in.key)
	if err := os.MkdirAll(state, 0o700); err != nil {
		return nil, decant.Errorf(decant.Internal, "cannot make the instance's state folder: %w", err)
	}
	devices := map[string]peripheral.Peripheral{}
	for _, need := range r.spec.Peripherals {
		devices[need] = in.devices[need]
	}
	return r.module.Start(ctx, GuestConfig{
		Name:      in.key,
		Memory:    r.spec.Memory,
		Devices:   devices,
		Models:    r.models,
		LoadModel: in.sup.models.fromBytes,
		State:     state,
		Log:       in.log,
		Links:     linkNames(r.spec),
		Link:      in.callLink,
	})
}

// takeGuest waits for the call that the guest is in, and returns the guest, nil
// where there is none.
func (in *instance) takeGuest() Guest {
	if in.current == nil || in.current.guest == nil {
		return nil
	}
	select {
	case g := <-in.slot:
		return g
	case <-in.lost:
		in.dropGuest()
		return nil
	}
}

// dropGuest forgets a guest that was lost in a call. Further calls wait for the
// next one.
func (in *instance) dropGuest() {
	in.close(in.current.guest)
	in.current.guest = nil
	in.mu.Lock()
	in.restarts++
	in.mu.Unlock()
	in.log.Remark("the guest was lost; starting a fresh one")
	if in.isServing() {
		in.transition(decant.InstanceStarting)
	}
}

func (in *instance) close(g Guest) {
	if err := g.Close(); err != nil {
		in.log.Remark("cannot close the guest: %v", err)
	}
}

// serve lets calls in, and makes want what they go by.
func (in *instance) serve(want decant.InstanceSpec) {
	in.current.spec = want
	in.mu.Lock()
	in.spec, in.err = want, nil
	if !in.servingLocked() {
		in.down = make(chan struct{})
	}
	fresh := in.state != decant.InstanceRunning
	in.mu.Unlock()
	in.transition(decant.InstanceRunning)
	if fresh {
		in.log.Remark("running %s, revision %d, epoch %d", want.Package, want.Revision, want.Epoch)
		in.sup.event("instance.running", in.key, "running "+want.Package)
	}
}

// openDevices opens those peripherals that are not open yet.
func (in *instance) openDevices(needs []string) error {
	for _, need := range needs {
		if in.devices[need] != nil {
			continue
		}
		p, err := in.sup.openPeripheral(need)
		if err != nil {
			return err
		}
		in.devices[need] = p
	}
	return nil
}

// closeDevices closes the peripherals that are not among keep.
func (in *instance) closeDevices(keep []string) {
	for need, p := range in.devices {
		if slices.Contains(keep, need) {
			continue
		}
		if err := p.Close(); err != nil {
			in.log.Remark("cannot close peripheral %s: %v", need, err)
		}
		delete(in.devices, need)
	}
}
