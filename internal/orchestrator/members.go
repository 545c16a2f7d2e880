package orchestrator

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/api/site"
	"github.com/decant-project/decant/internal/discovery"
	"github.com/decant-project/decant/internal/identity"
	"github.com/decant-project/decant/internal/state"
)

// keepCodes is how long a code is remembered, so that a used or expired one is
// told from a wrong one.
const keepCodes = 24 * time.Hour

// NewJoinCode makes a code that lets one device join.
func (o *Orchestrator) NewJoinCode(ctx context.Context) (site.JoinCode, error) {
	code, record, err := o.newCode(ctx, "")
	return site.JoinCode{Code: code.String(), Expires: record.Expires}, err
}

// newCode makes a code, for one device only where that is named.
func (o *Orchestrator) newCode(ctx context.Context, device string) (identity.Code, identity.CodeRecord, error) {
	code := identity.NewCode(o.Authority.Pin())
	record := code.Record(device)
	lease, err := o.State.Grant(ctx, keepCodes)
	if err == nil {
		err = o.commit(ctx, nil, change{key: codesPrefix + record.ID, value: record, lease: lease})
	}
	return code, record, err
}

// Join gives a device that knows a code its certificate. One transaction uses
// the code up and takes the device in.
func (o *Orchestrator) Join(ctx context.Context, req identity.JoinRequest, conn *tls.ConnectionState) (identity.Credential, error) {
	var code stored[identity.CodeRecord]
	key := codesPrefix + req.Code
	if err := load(ctx, o.State, key, &code); err != nil {
		return identity.Credential{}, err
	}
	if code.rev == 0 {
		return identity.Credential{}, identity.WrongCode()
	}
	id, err := identity.VerifyJoin(code.value, req, conn)
	if err != nil {
		return identity.Credential{}, err
	}
	var device stored[deviceRecord]
	if err := load(ctx, o.State, devicesPrefix+id, &device); err != nil {
		return identity.Credential{}, err
	}
	now := time.Now().UTC()
	if device.rev == 0 {
		device.value = deviceRecord{Info: decant.DeviceInfo{ID: id, Name: id}, FirstSeen: now}
	}
	device.value.Status, device.value.LastSeen = decant.DeviceJoined, now
	kv, err := o.State.Get(ctx, key)
	if err != nil {
		return identity.Credential{}, err
	}
	err = o.commit(ctx, []state.Cond{code.cond(key), device.cond(devicesPrefix + id)},
		change{key: key, value: code.value.UsedBy(id), lease: kv.Lease}, put(devicesPrefix+id, device.value))
	if err != nil {
		return identity.Credential{}, err
	}
	o.event(ctx, decant.Event{Kind: "device.joined", Device: id, Message: "device " + device.value.Info.Name + " has joined"})
	return o.Authority.IssueFor(req.CSR)
}

// Renew gives a member device a new certificate for the same key.
func (o *Orchestrator) Renew(ctx context.Context, id string, csr []byte) (identity.Credential, error) {
	if err := o.Joined(ctx, id); err != nil {
		return identity.Credential{}, err
	}
	return o.Authority.Renew(id, csr)
}

// ApproveDevice lets a device join that was started without a code: it makes
// one for that device alone and gives it to it.
func (o *Orchestrator) ApproveDevice(ctx context.Context, nameOrID string) error {
	d, err := o.Device(ctx, nameOrID)
	if err != nil {
		return err
	}
	if d.Status == decant.DeviceJoined {
		return decant.Errorf(decant.Conflict, "device %s has joined already", d.Name)
	}
	code, _, err := o.newCode(ctx, d.ID)
	if err != nil {
		return err
	}
	return o.Devices.OfferCode(ctx, d.ID, d.Addresses, code.String(), o.Addresses())
}

// describeTimeout bounds the first look at a device.
const describeTimeout = 10 * time.Second

// discover looks at each device that advertises itself, and keeps what it is.
func (o *Orchestrator) discover(ctx context.Context) error {
	if o.Discovery == nil {
		return nil
	}
	var looks sync.WaitGroup
	defer looks.Wait()
	slots := make(chan struct{}, 8) // devices may be slow, or not there
	err := o.Discovery.Browse(ctx, discovery.Devices, func(e discovery.Event) {
		if e.Lost {
			if err := o.lost(ctx, e.Service.ID); err != nil && ctx.Err() == nil {
				o.Log.Warn("cannot forget a device that left", "device", e.Service.ID, "error", err)
			}
			return
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		looks.Go(func() {
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(ctx, describeTimeout)
			defer cancel()
			if err := o.found(ctx, e.Service.ID, e.Service.Addresses); err != nil && ctx.Err() == nil {
				o.Log.Info("cannot look at a device", "device", e.Service.ID, "addresses", e.Service.Addresses, "error", err)
			}
		})
	})
	if err != nil && ctx.Err() == nil {
		// A site without multicast still has devices that are told where we are.
		o.Log.Warn("cannot discover devices; they must be started with --orchestrator", "error", err)
	}
	return nil
}

// maxKnown bounds the devices that are kept without having joined: anybody on
// the network can make some up.
const maxKnown = 1000

// found keeps what a device that was discovered says of itself, once it has
// proven its ID.
func (o *Orchestrator) found(ctx context.Context, id string, addresses []string) error {
	info, err := o.Devices.Describe(ctx, id, addresses)
	if err != nil {
		return err
	}
	if info.ID != id {
		return decant.Errorf(decant.Denied, "it says that it is %q", info.ID)
	}
	if info.Site != "" {
		return nil // it is of a site: of ours it reports for itself, another's is not ours to take
	}
	info.Addresses, info.State = addresses, decant.DeviceState{}
	if err := info.Check(); err != nil {
		return err
	}
	said, err := json.Marshal(info)
	if err != nil {
		return err
	}
	if size := decant.Bytes(len(said)); size > decant.MaxInfo {
		return decant.Errorf(decant.Invalid, "it says %s of itself: %s at most", size, decant.MaxInfo)
	}
	var old stored[deviceRecord]
	key := devicesPrefix + id
	if err := load(ctx, o.State, key, &old); err != nil {
		return err
	}
	if old.value.Status == decant.DeviceJoined {
		return nil // it reports for itself
	}
	if old.rev != 0 && sameJSON(old.value.Info, info) {
		return nil // that it was seen again is no news
	}
	if old.rev == 0 {
		waiting := 0
		err := each(ctx, o.State, devicesPrefix, func(_ string, r deviceRecord, _ int64) {
			if r.Status != decant.DeviceJoined {
				waiting++
			}
		})
		if err != nil {
			return err
		}
		if waiting >= maxKnown {
			return decant.Errorf(decant.Exhausted, "%d devices are known that have not joined", waiting)
		}
	}
	now := time.Now().UTC()
	record := deviceRecord{Info: info, Status: decant.DeviceKnown, FirstSeen: now, LastSeen: now}
	if old.rev != 0 {
		record.FirstSeen = old.value.FirstSeen
	}
	err = o.commit(ctx, []state.Cond{old.cond(key)}, put(key, record))
	if errors.Is(err, decant.Conflict) {
		return nil // it has joined meanwhile
	}
	if err != nil {
		return err
	}
	if old.rev == 0 {
		o.event(ctx, decant.Event{Kind: "device.known", Device: id, Message: fmt.Sprintf("device %s waits for approval: decant device approve %s", info.Name, info.Name)})
	}
	return nil
}

// lost forgets a device that left before it joined.
func (o *Orchestrator) lost(ctx context.Context, id string) error {
	var old stored[deviceRecord]
	key := devicesPrefix + id
	if err := load(ctx, o.State, key, &old); err != nil || old.rev == 0 || old.value.Status == decant.DeviceJoined {
		return err
	}
	return o.commit(ctx, []state.Cond{old.cond(key)}, remove(key))
}
