// Package orchestrator turns what users ask for into what devices shall run.
// What enters are applications, packages and the devices' reports; what leaves
// is a desired state for each device. Between them is one path, taken anew
// whenever anything it depends on has changed: resolve packages, place
// components, plan steps, take them, observe. Deploying, updating, moving,
// removing and going on after a crash differ only in what has changed.
//
// All that matters is in the state store. A step is one transaction,
// conditional on what it was planned from, so several orchestrators may work
// on one state, and killing one at any moment loses nothing.
package orchestrator

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/blobs"
	"github.com/decant-project/decant/internal/discovery"
	"github.com/decant-project/decant/internal/identity"
	"github.com/decant-project/decant/internal/packages"
	"github.com/decant-project/decant/internal/state"
	"github.com/decant-project/decant/internal/transport"
)

// LeaseTTL is how long a device counts as online after it was last heard of.
// Devices report each third of it at least.
const LeaseTTL = 15 * time.Second

// Config is what an Orchestrator works with. It owns none of it.
type Config struct {
	State     state.Store
	Packages  *packages.Manager
	Blobs     *blobs.Store
	Authority *identity.Authority
	Devices   DeviceAPI
	Caller    transport.Caller
	Discovery discovery.Discoverer
	// Addresses returns the host:port at which devices reach this orchestrator.
	Addresses func() []string
	Version   string
	Log       *slog.Logger
}

// DeviceAPI is how the orchestrator speaks to a device first: to look at one
// that has not joined, to offer it a join code, and to read logs.
type DeviceAPI interface {
	// Describe asks the device at one of addresses what it is. Denied: who
	// answers there does not hold the key that id is derived from.
	Describe(ctx context.Context, id string, addresses []string) (decant.DeviceInfo, error)
	// OfferCode gives a join code to a device that has not joined.
	OfferCode(ctx context.Context, id string, addresses []string, code string, orchestrators []string) error
	// Log streams the log of an instance.
	Log(ctx context.Context, to transport.Target, app, component string, follow bool) (io.ReadCloser, error)
}

// Orchestrator is one orchestrator of a site. Its methods are safe for
// concurrent use.
type Orchestrator struct {
	Config
	wake    chan struct{} // has an element when dirty may have one
	written atomic.Int64  // events

	mu    sync.Mutex
	dirty map[string]bool // applications to reconcile
}

// New makes an Orchestrator. Its API answers from now on; Run does the work.
func New(c Config) *Orchestrator {
	return &Orchestrator{
		Config: c,
		wake:   make(chan struct{}, 1),
		dirty:  map[string]bool{},
	}
}

// Run reconciles, discovers and keeps house until ctx ends, and returns when
// all of it has stopped.
func (o *Orchestrator) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, part := range []func(context.Context) error{o.watch, o.work, o.discover, o.keepHouse} {
		group.Go(func() error {
			if err := part(ctx); ctx.Err() == nil {
				return err
			}
			return nil
		})
	}
	return group.Wait()
}

// watch marks the applications that a change in the state may concern.
func (o *Orchestrator) watch(ctx context.Context) error {
	for ctx.Err() == nil {
		_, rev, err := o.State.List(ctx, appsPrefix, 0)
		if err != nil {
			return err
		}
		if err := o.markAll(ctx); err != nil {
			return err
		}
		for batch := range o.State.Watch(ctx, "", rev) {
			if errors.Is(batch.Err, state.ErrCompacted) {
				break // fell too far behind: look at everything again
			}
			if batch.Err != nil {
				return batch.Err
			}
			for _, change := range batch.Changes {
				if err := o.touched(ctx, change); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (o *Orchestrator) touched(ctx context.Context, change state.Change) error {
	kind, rest, _ := strings.Cut(change.Key, "/")
	switch kind + "/" {
	case appsPrefix:
		if change.Deleted {
			return o.markAll(ctx) // there is room for others now
		}
		o.mark(rest)
	case devicesPrefix, packagesPrefix:
		return o.markAll(ctx)
	case presencePrefix:
		if err := o.presenceChanged(ctx, rest, change.Deleted); err != nil {
			return err
		}
		return o.markAll(ctx)
	case reportsPrefix:
		told, _, err := o.State.List(ctx, desiredPrefix+rest+"/", 0)
		if err != nil {
			return err
		}
		for _, kv := range told {
			_, app, _ := splitDesired(kv.Key)
			o.mark(app)
		}
	}
	return nil
}

func (o *Orchestrator) mark(apps ...string) {
	o.mu.Lock()
	for _, app := range apps {
		o.dirty[app] = true
	}
	o.mu.Unlock()
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

func (o *Orchestrator) markAll(ctx context.Context) error {
	kvs, _, err := o.State.List(ctx, appsPrefix, 0)
	if err != nil {
		return err
	}
	for _, kv := range kvs {
		o.mark(strings.TrimPrefix(kv.Key, appsPrefix))
	}
	return nil
}

// retryAfter is the pause before an application is looked at again whose state
// could not be read or written: a full disk may have room by then.
const retryAfter = time.Second

// work reconciles marked applications, one after the other. No failure of one
// stops the others.
func (o *Orchestrator) work(ctx context.Context) error {
	again := time.NewTicker(retryAfter)
	defer again.Stop()
	failed := map[string]bool{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-again.C:
			o.mark(slices.Collect(maps.Keys(failed))...)
			clear(failed)
		case <-o.wake:
			for _, app := range o.takeDirty() {
				switch err := o.reconcile(ctx, app); {
				case err == nil || ctx.Err() != nil:
				case errors.Is(err, decant.Conflict):
					o.mark(app) // somebody changed what we planned from
				default:
					o.Log.Error("cannot reconcile", "application", app, "error", err)
					failed[app] = true
				}
			}
		}
	}
}

func (o *Orchestrator) takeDirty() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	apps := slices.Sorted(maps.Keys(o.dirty))
	clear(o.dirty)
	return apps
}
