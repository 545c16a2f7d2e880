package deviceclient_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/api/device"
	"github.com/decant-project/decant/internal/api/deviceclient"
	"github.com/decant-project/decant/internal/identity"
	"github.com/decant-project/decant/internal/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeDevice says what it is, takes offers and streams a log.
type fakeDevice struct {
	device.Service
	info    decant.DeviceInfo
	err     error
	offered []string
	log     func(ctx context.Context, w io.Writer) error
	asked   string
}

func (f *fakeDevice) Info() decant.DeviceInfo { return f.info }

func (f *fakeDevice) Offer(code string, orchestrators []string) error {
	f.offered = append([]string{code}, orchestrators...)
	return f.err
}

func (f *fakeDevice) Log(ctx context.Context, app, component string, _ int, _ bool, w io.Writer) error {
	f.asked = app + " " + component
	if f.err != nil {
		return f.err
	}
	return f.log(ctx, w)
}

func newKey(t *testing.T) (*ecdsa.PrivateKey, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, err := identity.DeviceID(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return key, id
}

// newMember joins a machine to a site.
func newMember(t *testing.T, a *identity.Authority, role identity.Role) *identity.Member {
	t.Helper()
	key, id := newKey(t)
	cred, err := a.Issue(role, id, key.Public())
	if err != nil {
		t.Fatal(err)
	}
	m, err := identity.NewMember("", key, cred)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func newAuthority(t *testing.T, site string) *identity.Authority {
	t.Helper()
	a, err := identity.OpenAuthority(t.TempDir(), site)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func serve(t *testing.T, config *tls.Config, h http.Handler) (address string) {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.Listener = tls.NewListener(srv.Listener, config) // StartTLS would show a certificate of its own
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)     // refused handshakes
	srv.Start()
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String()
}

// serveMember serves f as a device that has joined.
func serveMember(t *testing.T, m *identity.Member, f *fakeDevice) string {
	return serve(t, m.ServerTLS(), device.Handler(f, "test", m.PeerOf))
}

// serveStranger serves f as a device that has not.
func serveStranger(t *testing.T, key *ecdsa.PrivateKey, h http.Handler) string {
	t.Helper()
	config, err := identity.StrangerServerTLS(key)
	if err != nil {
		t.Fatal(err)
	}
	return serve(t, config, h)
}

// nowhere is an address at which nobody listens.
func nowhere(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestDescribeAndOffer(t *testing.T) {
	hall := newAuthority(t, "hall")
	orchestrator := newMember(t, hall, identity.RoleOrchestrator)
	joined := newMember(t, hall, identity.RoleDevice)
	foreign := newMember(t, newAuthority(t, "cellar"), identity.RoleDevice)
	strangerKey, strangerID := newKey(t)

	f := &fakeDevice{info: decant.DeviceInfo{ID: "d1", Name: "board", Labels: map[string]string{"a": "b"}}}
	atJoined, atForeign := serveMember(t, joined, f), serveMember(t, foreign, f)
	atStranger := serveStranger(t, strangerKey, device.Handler(f, "test", identity.StrangerOf))
	none := nowhere(t)

	tests := []struct {
		name      string
		id        string
		addresses []string
		code      decant.Code
	}{
		{"a member", joined.ID(), []string{atJoined}, ""},
		{"one that has not joined", strangerID, []string{atStranger}, ""},
		{"one of another site", foreign.ID(), []string{atForeign}, ""},
		{"the second address", joined.ID(), []string{none, atJoined}, ""},
		{"another device at the first address", joined.ID(), []string{atStranger, atJoined}, ""},
		{"another device", joined.ID(), []string{atStranger}, decant.Denied},
		{"nobody", joined.ID(), []string{none}, decant.Unavailable},
		{"nowhere", joined.ID(), nil, decant.Unavailable},
		{"no address", joined.ID(), []string{"what?"}, decant.Unavailable},
	}
	c := deviceclient.New(orchestrator)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f.offered = nil
			info, err := c.Describe(t.Context(), tt.id, tt.addresses)
			offerErr := c.OfferCode(t.Context(), tt.id, tt.addresses, "c-1", []string{"h:1", "i:2"})
			if tt.code != "" {
				if !errors.Is(err, tt.code) || !errors.Is(offerErr, tt.code) {
					t.Errorf("describe: %v (%s), offer: %v (%s)", err, decant.CodeOf(err), offerErr, decant.CodeOf(offerErr))
				}
				if f.offered != nil {
					t.Errorf("the code was shown to another device")
				}
				return
			}
			if err != nil || !reflect.DeepEqual(info, f.info) {
				t.Errorf("describe: %+v, %v", info, err)
			}
			if offerErr != nil || strings.Join(f.offered, " ") != "c-1 h:1 i:2" {
				t.Errorf("offer: %v, %v", f.offered, offerErr)
			}
		})
	}
}

// TestRefusals: a device that answers is believed, and no other address asked.
func TestRefusals(t *testing.T) {
	hall := newAuthority(t, "hall")
	c := deviceclient.New(newMember(t, hall, identity.RoleOrchestrator))
	m := newMember(t, hall, identity.RoleDevice)
	want := decant.Errorf(decant.Conflict, "it has joined").WithHelp("remove it first")
	refuses, other := &fakeDevice{err: want}, &fakeDevice{}
	err := c.OfferCode(t.Context(), m.ID(), []string{serveMember(t, m, refuses), serveMember(t, m, other)}, "c", nil)
	if e, ok := errors.AsType[*decant.Error](err); !ok || e.Code != want.Code || e.Message != want.Message || e.Help != want.Help {
		t.Errorf("got %#v", err)
	}
	if other.offered != nil {
		t.Error("the other address was tried")
	}
}

// TestDescribesNonsense: a device may say what it likes, though not too much.
func TestDescribesNonsense(t *testing.T) {
	c := deviceclient.New(newMember(t, newAuthority(t, "hall"), identity.RoleOrchestrator))
	key, id := newKey(t)
	huge, err := json.Marshal(decant.DeviceInfo{Name: strings.Repeat("x", int(decant.MaxInfo))})
	if err != nil {
		t.Fatal(err)
	}
	for name, body := range map[string]string{
		"nothing": "", "a page": "<html>", "a list": "[]",
		"too much": string(huge), "a byte too much": "{}" + strings.Repeat(" ", int(decant.MaxInfo)-1),
	} {
		at := serveStranger(t, key, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) }))
		if _, err := c.Describe(t.Context(), id, []string{at}); !errors.Is(err, decant.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLog(t *testing.T) {
	hall := newAuthority(t, "hall")
	m := newMember(t, hall, identity.RoleDevice)
	next, left := make(chan string, 1), make(chan struct{})
	f := &fakeDevice{log: func(ctx context.Context, w io.Writer) error {
		defer close(left)
		for {
			select {
			case line := <-next:
				if _, err := io.WriteString(w, line); err != nil {
					return err
				}
			case <-ctx.Done():
				return nil
			}
		}
	}}
	c := deviceclient.New(newMember(t, hall, identity.RoleOrchestrator))
	to := transport.Target{Device: m.ID(), Addresses: []string{nowhere(t), serveMember(t, m, f)}}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	next <- "one\n"
	r, err := c.Log(ctx, to, "a/ä", "b?", true)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if f.asked != "a/ä b?" {
		t.Errorf("asked for %s", f.asked)
	}
	for _, line := range []string{"one\n", "two\n"} {
		got := make([]byte, len(line))
		if _, err := io.ReadFull(r, got); err != nil || string(got) != line {
			t.Fatalf("%q, %v", got, err)
		}
		if line == "one\n" {
			next <- "two\n"
		}
	}
	cancel()
	<-left
	if _, err := r.Read(make([]byte, 1)); err == nil {
		t.Error("goes on after the end of its context")
	}
}

func TestLogErrors(t *testing.T) {
	hall := newAuthority(t, "hall")
	m, other := newMember(t, hall, identity.RoleDevice), newMember(t, hall, identity.RoleDevice)
	f := &fakeDevice{err: decant.Errorf(decant.NotFound, "a/b does not run here")}
	at := serveMember(t, m, f)
	tests := []struct {
		name string
		as   *identity.Member
		to   string
		code decant.Code
	}{
		{"no such instance", newMember(t, hall, identity.RoleOrchestrator), m.ID(), decant.NotFound},
		{"another device", newMember(t, hall, identity.RoleOrchestrator), other.ID(), decant.Denied},
		{"not as an orchestrator", newMember(t, hall, identity.RoleDevice), m.ID(), decant.Denied},
		{"of another site", newMember(t, newAuthority(t, "cellar"), identity.RoleOrchestrator), m.ID(), decant.Denied},
	}
	for _, tt := range tests {
		f.asked = ""
		_, err := deviceclient.New(tt.as).Log(t.Context(), transport.Target{Device: tt.to, Addresses: []string{at}}, "a", "b", false)
		if !errors.Is(err, tt.code) {
			t.Errorf("%s: %v", tt.name, err)
		}
		if tt.code == decant.Denied && f.asked != "" {
			t.Errorf("%s: the log was opened", tt.name)
		}
	}
}

// TestCancelled: the end of a context ends the search for an address.
func TestCancelled(t *testing.T) {
	m := newMember(t, newAuthority(t, "hall"), identity.RoleOrchestrator)
	l, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	returned := make(chan struct{})
	go func() {
		conn, err := l.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		cancel()
		<-returned // net/http shakes hands to the end, though nobody waits for it
		_ = conn.Close()
	}()
	_, err = deviceclient.New(m).Describe(ctx, m.ID(), []string{l.Addr().String(), "127.0.0.1:1"})
	close(returned)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
