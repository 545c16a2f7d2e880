package orchestrator

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/api/site"
	"github.com/decant-project/decant/internal/discovery"
	"github.com/decant-project/decant/internal/identity"
	"github.com/decant-project/decant/internal/state"
	"github.com/decant-project/decant/internal/state/mem"
)

func newAuthority(t testing.TB) *identity.Authority {
	t.Helper()
	a, err := identity.OpenAuthority(t.TempDir(), "hall")
	must(t, err)
	return a
}

// newKey makes the key of a device, and its ID.
func newKey(t testing.TB) (*ecdsa.PrivateKey, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	id, err := identity.DeviceID(key.Public())
	must(t, err)
	return key, id
}

// serveDevices serves a fresh orchestrator to devices over TLS: a join is
// bound to its connection. Nothing reconciles.
func serveDevices(t *testing.T) (o *Orchestrator, address string) {
	t.Helper()
	st := mem.New()
	t.Cleanup(func() { must(t, st.Close()) })
	o = New(Config{State: st, Authority: newAuthority(t), Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	key, id := newKey(t)
	cred, err := o.Authority.Issue(identity.RoleOrchestrator, id, key.Public())
	must(t, err)
	self, err := identity.NewMember("", key, cred)
	must(t, err)
	server := httptest.NewUnstartedServer(site.DeviceHandler("test", o, self.PeerOf))
	server.Listener = tls.NewListener(server.Listener, self.ServerTLS())
	server.Start()
	t.Cleanup(server.Close)
	return o, server.Listener.Addr().String()
}

func TestJoin(t *testing.T) {
	o, address := serveDevices(t)
	first, firstID := newKey(t)
	second, secondID := newKey(t)
	fresh := func(device string) identity.Code {
		t.Helper()
		code, _, err := o.newCode(t.Context(), device)
		must(t, err)
		return code
	}
	old := fresh("")
	changeCode(t, o, old, func(r *identity.CodeRecord) { r.Expires = time.Now().Add(-time.Minute) })
	given, err := o.NewJoinCode(t.Context())
	must(t, err)
	code, err := identity.ParseCode(given.Code)
	must(t, err)
	if left := time.Until(given.Expires); left <= 0 || left > identity.CodeLife {
		t.Errorf("the code is good for %s", left)
	}
	for _, tt := range []struct {
		name string
		code identity.Code
		key  *ecdsa.PrivateKey
		says string // "": it joins
	}{
		{"wrong", identity.NewCode(o.Authority.Pin()), first, "not one of this site"},
		{"expired", old, first, "the join code expired at"},
		{"of another device", fresh(secondID), first, "the join code is for another device"},
		{"good", code, first, ""},
		{"used by another", code, second, "the join code was used before"},
		{"used by itself, whose answer was lost", code, first, ""},
		{"of this device", fresh(secondID), second, ""},
		{"again with a new one", fresh(""), first, ""},
	} {
		cred, err := identity.Join(t.Context(), tt.code, []string{address}, tt.key)
		if tt.says == "" {
			must(t, err)
			if _, err := identity.NewMember("", tt.key, cred); err != nil || cred.Site != "hall" {
				t.Errorf("%s: credential of %q, %v", tt.name, cred.Site, err)
			}
			continue
		}
		if wantErr(t, err, decant.Denied, tt.says, "decant join-code"); t.Failed() {
			t.Fatalf("a code that is %s", tt.name)
		}
		if all, _ := o.ListDevices(t.Context()); len(all) != 0 && tt.key == first {
			t.Errorf("after a code that is %s there is %+v", tt.name, all)
		}
	}
	for _, id := range []string{firstID, secondID} {
		d, err := o.Device(t.Context(), id)
		if err != nil || d.Status != decant.DeviceJoined || d.Name != id || d.Online {
			t.Errorf("joined: %+v, %v", d, err)
		}
		must(t, o.Joined(t.Context(), id))
	}
	must(t, o.RemoveDevice(t.Context(), firstID))
	wantErr(t, o.Joined(t.Context(), firstID), decant.Denied)
	_, err = identity.Join(t.Context(), code, []string{address}, first)
	wantErr(t, err, decant.Denied, "not one of this site", "decant join-code") // its code went with it
	wantErr(t, o.Joined(t.Context(), firstID), decant.Denied)
	_, err = identity.Join(t.Context(), fresh(""), []string{address}, first)
	must(t, err)
}

// TestRemovedDeviceHasNoCode: neither the code that a device used nor one made
// for it lets it in again; those of others hold.
func TestRemovedDeviceHasNoCode(t *testing.T) {
	o, address := serveDevices(t)
	key, id := newKey(t)
	other, otherID := newKey(t)
	codes := map[string]identity.Code{}
	for name, device := range map[string]string{"used": "", "made for it": id, "free": "", "another's": otherID} {
		var err error
		codes[name], _, err = o.newCode(t.Context(), device)
		must(t, err)
	}
	_, err := identity.Join(t.Context(), codes["used"], []string{address}, key)
	must(t, err)
	must(t, o.RemoveDevice(t.Context(), id))
	for _, name := range []string{"used", "made for it"} {
		_, err := identity.Join(t.Context(), codes[name], []string{address}, key)
		wantErr(t, err, decant.Denied, "not one of this site")
		wantErr(t, o.Joined(t.Context(), id), decant.Denied)
	}
	for name, key := range map[string]*ecdsa.PrivateKey{"free": key, "another's": other} {
		_, err := identity.Join(t.Context(), codes[name], []string{address}, key)
		must(t, err)
	}
}

// changeCode changes what the site keeps of a code.
func changeCode(t *testing.T, o *Orchestrator, code identity.Code, change func(*identity.CodeRecord)) {
	t.Helper()
	var r stored[identity.CodeRecord]
	must(t, load(t.Context(), o.State, codesPrefix+code.ID(), &r))
	change(&r.value)
	must(t, o.commit(t.Context(), nil, put(codesPrefix+code.ID(), r.value)))
}

// TestJoinUsesTheCodeOnce has a device use a code after another was found to be
// the first and before that is written down.
func TestJoinUsesTheCodeOnce(t *testing.T) {
	o, address := serveDevices(t)
	between := &faults{Store: o.State}
	o.State = between
	code, _, err := o.newCode(t.Context(), "")
	must(t, err)
	quick, quickID := newKey(t)
	slow, slowID := newKey(t)
	between.failing(false, func(tx state.Txn) error {
		if tx.Then[0].Key == codesPrefix+code.ID() {
			between.failing(false, nil)
			_, err := identity.Join(t.Context(), code, []string{address}, quick)
			return err
		}
		return nil
	})
	_, err = identity.Join(t.Context(), code, []string{address}, slow)
	wantErr(t, err, decant.Conflict)
	_, err = identity.Join(t.Context(), code, []string{address}, slow)
	wantErr(t, err, decant.Denied, "was used before")
	must(t, o.Joined(t.Context(), quickID))
	wantErr(t, o.Joined(t.Context(), slowID), decant.Denied)
	if kv, err := o.State.Get(t.Context(), codesPrefix+code.ID()); err != nil || kv.Lease == 0 {
		t.Errorf("the used code is kept for ever: %+v, %v", kv, err)
	}
}

func TestCodesAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, func(c *Config) { c.Authority = newAuthority(t) })
		_, err := s.o().NewJoinCode(t.Context())
		must(t, err)
		time.Sleep(keepCodes - time.Second)
		if s.keys(codesPrefix) == "" {
			t.Error("forgotten too early to tell an expired code from a wrong one")
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if left := s.keys(codesPrefix); left != "" {
			t.Errorf("left: %s", left)
		}
	})
}

func TestDiscovery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := &discovery.Memory{}
		s := newSite(t, func(c *Config) { c.Discovery, c.Authority = network, newAuthority(t) })
		advertise := func(id string, info decant.DeviceInfo) (lost func()) {
			t.Helper()
			s.api.mu.Lock()
			s.api.describe[id] = info
			s.api.mu.Unlock()
			ctx, cancel := context.WithCancel(t.Context())
			go func() {
				_ = network.Advertise(ctx, discovery.Service{Kind: discovery.Devices, ID: id, Port: 1, Addresses: []string{id + ":1"}})
			}()
			synctest.Wait()
			return func() {
				cancel()
				synctest.Wait()
			}
		}
		known := func() (out string) {
			t.Helper()
			all, err := s.o().ListDevices(t.Context())
			must(t, err)
			for _, d := range all {
				out += fmt.Sprintf("%s %s at %v; ", d.Name, d.Status, d.Addresses)
			}
			return out
		}
		advertise("liar-id", decant.DeviceInfo{ID: "new-id", Name: "liar"})
		advertise("bad-id", decant.DeviceInfo{ID: "bad-id", Name: "not a name"})
		lost := advertise("new-id", decant.DeviceInfo{ID: "new-id", Name: "new", Addresses: []string{"elsewhere:1"}})
		advertise("other-id", decant.DeviceInfo{ID: "other-id", Name: "other", Site: "cellar"})
		if got, want := known(), "new known at [new-id:1]; "; got != want {
			t.Errorf("known: %s want %s", got, want)
		}
		if got := s.events(); got != "device.known" { // who is of another site is not ours to take
			t.Errorf("events %q", got)
		}

		must(t, s.o().ApproveDevice(t.Context(), "new"))
		code, err := identity.ParseCode(s.api.offered["new-id"])
		must(t, err)
		var record stored[identity.CodeRecord]
		must(t, load(t.Context(), s.o().State, codesPrefix+code.ID(), &record))
		if record.value.Device != "new-id" {
			t.Errorf("the code is for %q", record.value.Device)
		}
		wantErr(t, s.o().ApproveDevice(t.Context(), "nobody"), decant.NotFound)

		lost()
		if got, want := known(), ""; got != want {
			t.Errorf("known: %s want %s", got, want)
		}
		s.join("member")
		synctest.Wait()
		wantErr(t, s.o().ApproveDevice(t.Context(), "member"), decant.Conflict, "has joined already")
		advertise("member-id", decant.DeviceInfo{ID: "member-id", Name: "somebody"})()
		if got, want := known(), "member joined at [member:1]; "; got != want {
			t.Errorf("known: %s want %s", got, want)
		}
	})
}

// TestStrangersAreBounded holds what one that has not joined says of itself to
// a size, and that nothing is written when it only says it again.
func TestStrangersAreBounded(t *testing.T) {
	st := mem.New()
	defer st.Close()
	api := &fakeAPI{describe: map[string]decant.DeviceInfo{}}
	o := New(Config{State: st, Devices: api, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	many := func(n int, value string) map[string]string {
		out := map[string]string{}
		for i := range n {
			out[fmt.Sprint("l", i)] = value
		}
		return out
	}
	for _, tt := range []struct {
		name   string
		labels map[string]string
		says   string // "": it is kept
	}{
		{"modest", many(3, "x"), ""},
		{"again", many(3, "x"), ""},
		{"large", many(64, strings.Repeat("x", 256)), "KiB of itself: 16KiB at most"},
		{"large on the disk", many(20, strings.Repeat("<", 256)), "KiB of itself: 16KiB at most"}, // \u003c each
		{"a terminal's", many(1, "\x1b[2K"), "label l0"},
	} {
		_, before, err := st.List(t.Context(), "", 0)
		must(t, err)
		api.describe["new-id"] = decant.DeviceInfo{ID: "new-id", Name: "new", Labels: tt.labels}
		err = o.found(t.Context(), "new-id", []string{"new:1"})
		_, after, listErr := st.List(t.Context(), "", 0)
		must(t, listErr)
		if tt.says == "" {
			must(t, err)
		} else {
			wantErr(t, err, decant.Invalid, tt.says)
		}
		if written, news := after != before, tt.name == "modest"; written != news {
			t.Errorf("%s: written %v, want %v", tt.name, written, news)
		}
	}
	api.describe["new-id"] = decant.DeviceInfo{ID: "new-id", Name: "renamed"}
	must(t, o.found(t.Context(), "new-id", []string{"new:1"}))
	if d, err := o.Device(t.Context(), "renamed"); err != nil || d.FirstSeen.IsZero() {
		t.Errorf("what changed is not kept: %+v, %v", d, err)
	}
}

// TestDiscoveryIsBounded holds that strangers cannot fill the state, and that a
// site of many members still sees them.
func TestDiscoveryIsBounded(t *testing.T) {
	for status, want := range map[decant.DeviceStatus]decant.Code{decant.DeviceKnown: decant.Exhausted, decant.DeviceJoined: ""} {
		t.Run(string(status), func(t *testing.T) {
			st := mem.New()
			defer st.Close()
			api := &fakeAPI{describe: map[string]decant.DeviceInfo{"new-id": {ID: "new-id", Name: "new"}}}
			o := New(Config{State: st, Devices: api, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
			var many state.Txn
			for i := range maxKnown {
				id := fmt.Sprintf("d%d", i)
				many.Then = append(many.Then, state.Op{Key: devicesPrefix + id, Value: asJSON(t, deviceRecord{Info: decant.DeviceInfo{ID: id, Name: id}, Status: status})})
			}
			_, err := st.Commit(t.Context(), many)
			must(t, err)
			if err := o.found(t.Context(), "new-id", nil); decant.CodeOf(err) != want {
				t.Errorf("with %d %s devices: %v, want %q", maxKnown, status, err, want)
			}
		})
	}
}
