package orchestrator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/state"
)

// The keys of the orchestrator's state, and what each holds as JSON.
//
//	devices/<id>                      deviceRecord
//	presence/<id>                     when the device came online; under its lease
//	reports/<id>                      reportRecord: what the device said last
//	codes/<id>                        identity.CodeRecord; under a lease
//	apps/<app>                        appRecord: what the user asked for, resolved
//	history/<app>/<revision>          appRecord as of that revision
//	placements/<app>                  decant.Placement
//	plans/<app>                       decant.Plan
//	notes/<app>                       note: why the application is not further
//	owners/<app>/<component>          owner
//	desired/<device>/<app>/<component> decant.InstanceSpec
//	events/<time>                     decant.Event
//	packages/...                      see internal/packages
const (
	devicesPrefix    = "devices/"
	presencePrefix   = "presence/"
	reportsPrefix    = "reports/"
	codesPrefix      = "codes/"
	appsPrefix       = "apps/"
	historyPrefix    = "history/"
	placementsPrefix = "placements/"
	plansPrefix      = "plans/"
	notesPrefix      = "notes/"
	ownersPrefix     = "owners/"
	desiredPrefix    = "desired/"
	eventsPrefix     = "events/"
	packagesPrefix   = "packages/"
)

func ownerKey(app, component string) string { return ownersPrefix + app + "/" + component }

func desiredKey(device, app, component string) string {
	return desiredPrefix + device + "/" + app + "/" + component
}

func historyKey(app string, revision int) string {
	return fmt.Sprintf("%s%s/%08d", historyPrefix, app, revision)
}

func eventKey(at time.Time) string {
	return eventsPrefix + at.UTC().Format("20060102T150405.000000000")
}

// splitDesired returns the parts of a desired/ key.
func splitDesired(key string) (device, app, component string) {
	parts := strings.SplitN(strings.TrimPrefix(key, desiredPrefix), "/", 3)
	if len(parts) != 3 {
		return "", "", ""
	}
	return parts[0], parts[1], parts[2]
}

// deviceRecord is what lasts of a device.
type deviceRecord struct {
	Info      decant.DeviceInfo   `json:"info"`
	Status    decant.DeviceStatus `json:"status"`
	FirstSeen time.Time           `json:"first_seen"`
	LastSeen  time.Time           `json:"last_seen"`
}

// reportRecord is a device's last report.
type reportRecord struct {
	State     decant.DeviceState      `json:"state"`
	Applied   int64                   `json:"applied"`
	Instances []decant.InstanceStatus `json:"instances"`
	At        time.Time               `json:"at"`
}

// appRecord is an application as a user asked for it, and its packages once
// they are resolved: from then on its revision runs these bytes only.
type appRecord struct {
	Application decant.Application `json:"application"`
	Revision    int                `json:"revision"`
	Removed     bool               `json:"removed,omitempty"`
	Packages    []decant.Package   `json:"packages,omitempty"`
	Bindings    map[string]binding `json:"bindings,omitempty"` // by component
	CreatedAt   time.Time          `json:"created_at"`
	ChangedAt   time.Time          `json:"changed_at"`
}

// binding is what a component's package and models were resolved to: indices
// into the record's Packages.
type binding struct {
	Module int            `json:"module"`
	Models map[string]int `json:"models,omitempty"`
}

// note says why an application is not further than it is.
type note struct {
	Code    decant.Code `json:"code"`
	Message string      `json:"message"`
}

// stored is a value with the revision of its key, for compare-and-swap.
type stored[T any] struct {
	value T
	rev   int64 // 0: absent
}

func (s stored[T]) cond(key string) state.Cond { return state.Cond{Key: key, ModRevision: s.rev} }

// load reads a key into s, which stays zero if the key is absent.
func load[T any](ctx context.Context, st state.Store, key string, s *stored[T]) error {
	kv, err := st.Get(ctx, key)
	if errors.Is(err, decant.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	s.rev = kv.ModRevision
	return decode(kv, &s.value)
}

// each calls f with every value under prefix.
func each[T any](ctx context.Context, st state.Store, prefix string, f func(key string, value T, rev int64)) error {
	kvs, _, err := st.List(ctx, prefix, 0)
	if err != nil {
		return err
	}
	for _, kv := range kvs {
		var value T
		if err := decode(kv, &value); err != nil {
			return err
		}
		f(kv.Key, value, kv.ModRevision)
	}
	return nil
}

func decode(kv state.KV, into any) error {
	if err := json.Unmarshal(kv.Value, into); err != nil {
		return decant.Errorf(decant.Corrupt, "state key %s cannot be read: %w", kv.Key, err)
	}
	return nil
}

// change is an op whose value is yet to be encoded.
type change struct {
	key   string
	value any
	lease state.LeaseID
}

func put(key string, value any) change { return change{key: key, value: value} }
func remove(key string) change         { return change{key: key} }

// commit applies the changes in one transaction if all of conds hold.
func (o *Orchestrator) commit(ctx context.Context, conds []state.Cond, changes ...change) error {
	t := state.Txn{If: conds}
	for _, c := range changes {
		op := state.Op{Key: c.key, Lease: c.lease, Delete: c.value == nil}
		if c.value != nil {
			var err error
			if op.Value, err = json.Marshal(c.value); err != nil {
				return err
			}
		}
		t.Then = append(t.Then, op)
	}
	_, err := o.State.Commit(ctx, t)
	return err
}
