package identity

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/decant-project/decant"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newTestKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func idOf(t testing.TB, key crypto.PublicKey) string {
	t.Helper()
	id, err := DeviceID(key)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func newTestAuthority(t testing.TB, site string) *Authority {
	t.Helper()
	a, err := OpenAuthority(t.TempDir(), site)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func newTestMember(t testing.TB, a *Authority, role Role) *Member {
	t.Helper()
	key := newTestKey(t)
	cred, err := a.Issue(role, idOf(t, key.Public()), key.Public())
	if err != nil {
		t.Fatal(err)
	}
	m, err := NewMember("", key, cred)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// handshake connects a client to a server and returns what each saw of the
// other. The server speaks last, so that the client hears of a refusal.
func handshake(t *testing.T, client, server *tls.Config) (atClient, atServer tls.ConnectionState, err error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	served := make(chan tls.ConnectionState)
	go func() {
		conn, err := tls.NewListener(l, server).Accept()
		if err != nil {
			close(served)
			return
		}
		defer conn.Close()
		if err := conn.(*tls.Conn).Handshake(); err == nil {
			_, _ = conn.Write([]byte{1})
		}
		served <- conn.(*tls.Conn).ConnectionState()
	}()
	raw, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	conn := tls.Client(raw, client)
	if err = conn.Handshake(); err == nil {
		_, err = conn.Read(make([]byte, 1))
	}
	return conn.ConnectionState(), <-served, err
}

func TestDeviceID(t *testing.T) {
	key := newTestKey(t)
	id := idOf(t, key.Public())
	if err := decant.CheckName("device", id); err != nil || len(id) != 25 || id[0] != 'd' {
		t.Errorf("ID %q: %v", id, err)
	}
	if again := idOf(t, key.Public()); again != id {
		t.Errorf("ID was %s, then %s", id, again)
	}
	if other := idOf(t, newTestKey(t).Public()); other == id {
		t.Error("two keys have one ID")
	}
	if _, err := DeviceID("no key"); !errors.Is(err, decant.Invalid) {
		t.Errorf("no key: %v", err)
	}
}

func TestOpenKey(t *testing.T) {
	file := filepath.Join(t.TempDir(), "new", "key.pem")
	key, err := OpenKey(file)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	// A crash in the middle of a write leaves the old key whole.
	if err := os.WriteFile(file+".tmp", []byte("-----BEGIN"), 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := OpenKey(file)
	if err != nil || !again.Equal(key) {
		t.Errorf("opened again: another key, %v", err)
	}
}

func TestOpenKeyDamaged(t *testing.T) {
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	der384, _ := x509.MarshalPKCS8PrivateKey(p384)
	file := filepath.Join(t.TempDir(), "key.pem")
	if _, err := OpenKey(file); err != nil {
		t.Fatal(err)
	}
	good, _ := os.ReadFile(file)
	for name, data := range map[string][]byte{
		"empty":     {},
		"cut":       good[:len(good)/2],
		"flipped":   []byte(strings.Replace(string(good), "MIG", "MIx", 1)),
		"other PEM": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")}),
		"P-384":     pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der384}),
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(file, data, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := OpenKey(file)
			if !errors.Is(err, decant.Corrupt) || !strings.Contains(err.Error(), "restore") {
				t.Errorf("got %v", err)
			}
			if now, _ := os.ReadFile(file); string(now) != string(data) {
				t.Error("the damaged file was written over")
			}
		})
	}
}

func TestOpenAuthority(t *testing.T) {
	dir := t.TempDir()
	open := func(site string) (*Authority, error) { return OpenAuthority(dir, site) }
	a, err := open("hall")
	if err != nil {
		t.Fatal(err)
	}
	again, err := open("hall")
	if err != nil || again.Pin() != a.Pin() || again.Site() != "hall" {
		t.Fatalf("opened again: %v, pin %v, was %v", err, again.Pin(), a.Pin())
	}
	if _, err := open("Hall!"); !errors.Is(err, decant.Invalid) {
		t.Errorf("bad name: %v", err)
	}
	if _, err := open("cellar"); !errors.Is(err, decant.Conflict) || !strings.Contains(err.Error(), `"hall"`) {
		t.Errorf("other site: %v", err)
	}
	for _, file := range []string{"ca.pem", "ca.key"} {
		path := filepath.Join(dir, file)
		good, _ := os.ReadFile(path)
		if err := os.WriteFile(path, good[:len(good)/2], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := open("hall"); !errors.Is(err, decant.Corrupt) {
			t.Errorf("%s cut: %v", file, err)
		}
		if err := os.WriteFile(path, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(filepath.Join(dir, "ca.key")); err != nil {
		t.Fatal(err)
	}
	if _, err := open("hall"); err == nil {
		t.Error("opened without its key")
	}
	if _, err := os.Stat(filepath.Join(dir, "ca.key")); !errors.Is(err, os.ErrNotExist) {
		t.Error("made another key for the old authority")
	}
}

// A crash at the first start leaves a key without a certificate.
func TestOpenAuthorityAfterCrash(t *testing.T) {
	dir := t.TempDir()
	key, err := OpenKey(filepath.Join(dir, "ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	a, err := OpenAuthority(dir, "hall")
	if err != nil || !a.key.Equal(key) {
		t.Errorf("the key was not kept, %v", err)
	}
}

func TestHandshakes(t *testing.T) {
	hall, cellar := newTestAuthority(t, "hall"), newTestAuthority(t, "cellar")
	impostor := newTestAuthority(t, "hall") // the same name, another key
	a, b := newTestMember(t, hall, RoleDevice), newTestMember(t, hall, RoleDevice)
	orch := newTestMember(t, hall, RoleOrchestrator)
	foreign, fake := newTestMember(t, cellar, RoleOrchestrator), newTestMember(t, impostor, RoleOrchestrator)
	strangerKey := newTestKey(t)
	strangerID := idOf(t, strangerKey.Public())
	stranger, err := StrangerServerTLS(strangerKey)
	if err != nil {
		t.Fatal(err)
	}
	joining := func(pin Pin) *tls.Config {
		config, err := pinnedTLS(pin, strangerKey)
		if err != nil {
			t.Fatal(err)
		}
		return config
	}
	for _, tt := range []struct {
		name           string
		client, server *tls.Config
		denied         string // "" where it goes through
	}{
		{"device to device", a.ToDevice(b.ID()), b.ServerTLS(), ""},
		{"device to orchestrator", a.ToOrchestrator(), orch.ServerTLS(), ""},
		{"orchestrator to device", orch.ToDevice(a.ID()), a.ServerTLS(), ""},
		{"orchestrator to stranger", orch.ToStranger(strangerID), stranger, ""},
		{"orchestrator to stranger that has joined", orch.ToStranger(a.ID()), a.ServerTLS(), ""},
		{"stranger to the code's site", joining(hall.Pin()), orch.ServerTLS(), ""},
		{"the wrong device", a.ToDevice(b.ID()), a.ServerTLS(), "answers where device"},
		{"an orchestrator for a device", a.ToDevice(orch.ID()), orch.ServerTLS(), "answers where device"},
		{"a device for an orchestrator", a.ToOrchestrator(), b.ServerTLS(), "answers where an orchestrator"},
		{"an orchestrator of another site", a.ToOrchestrator(), foreign.ServerTLS(), "not of site hall"},
		{"an orchestrator of a site with our name", a.ToOrchestrator(), fake.ServerTLS(), "not of site hall"},
		{"a stranger for a member", a.ToDevice(strangerID), stranger, "not of site hall"},
		{"another stranger", orch.ToStranger(strangerID), a.ServerTLS(), "does not hold the key"},
		{"another site than the code's", joining(hall.Pin()), foreign.ServerTLS(), "another site"},
		{"a site with the name of the code's", joining(hall.Pin()), fake.ServerTLS(), "another site"},
		{"a device of the code's site", joining(hall.Pin()), a.ServerTLS(), "answers where an orchestrator"},
		{"a stranger for the code's site", joining(hall.Pin()), stranger, "another site"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := handshake(t, tt.client, tt.server)
			if tt.denied == "" && err != nil {
				t.Errorf("got %v", err)
			}
			if tt.denied != "" && (!errors.Is(err, decant.Denied) || !strings.Contains(err.Error(), tt.denied)) {
				t.Errorf("got %v, want Denied with %q", err, tt.denied)
			}
		})
	}
}

// A chain that ends in the pinned authority proves nothing unless the leaf is
// of it.
func TestPinnedChainMustHold(t *testing.T) {
	hall, cellar := newTestAuthority(t, "hall"), newTestAuthority(t, "cellar")
	liar := newTestMember(t, cellar, RoleOrchestrator)
	chain := liar.certificate()
	chain.Certificate[1] = hall.cert.Raw
	config, err := pinnedTLS(hall.Pin(), newTestKey(t))
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = handshake(t, config, baseTLS(func() *tls.Certificate { return chain }, anyone))
	if !errors.Is(err, decant.Denied) {
		t.Errorf("got %v", err)
	}
}

func TestServerSeesPeer(t *testing.T) {
	hall := newTestAuthority(t, "hall")
	device, orch := newTestMember(t, hall, RoleDevice), newTestMember(t, hall, RoleOrchestrator)
	_, state, err := handshake(t, device.ToOrchestrator(), orch.ServerTLS())
	if err != nil {
		t.Fatal(err)
	}
	got := orch.PeerOf(&state)
	want := Peer{Verified: true, Site: "hall", Role: RoleDevice, ID: device.ID(), PublicKey: got.PublicKey}
	if got != want || !device.key.PublicKey.Equal(got.PublicKey) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := StrangerOf(&state); got.Verified || got.ID != device.ID() {
		t.Errorf("stranger %+v", got)
	}
	if state.Version != tls.VersionTLS13 || state.DidResume {
		t.Errorf("version %x, resumed %v", state.Version, state.DidResume)
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	hall := newTestAuthority(t, "hall")
	device, orch := newTestMember(t, hall, RoleDevice), newTestMember(t, hall, RoleOrchestrator)
	config := device.ToOrchestrator()
	config.MinVersion, config.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if _, _, err := handshake(t, config, orch.ServerTLS()); err == nil {
		t.Error("TLS 1.2 went through")
	}
	config = device.ToOrchestrator()
	config.GetClientCertificate = nil
	if _, _, err := handshake(t, config, orch.ServerTLS()); err == nil {
		t.Error("a client without a certificate went through")
	}
}

// TestSessionsAreNotResumed holds that a client which remembers sessions is
// looked at anew each time.
func TestSessionsAreNotResumed(t *testing.T) {
	hall := newTestAuthority(t, "hall")
	device, orch := newTestMember(t, hall, RoleDevice), newTestMember(t, hall, RoleOrchestrator)
	config := device.ToOrchestrator()
	config.ClientSessionCache = tls.NewLRUClientSessionCache(8)
	config.ServerName = "orchestrator"
	for range 2 {
		state, _, err := handshake(t, config, orch.ServerTLS())
		if err != nil || state.DidResume {
			t.Errorf("resumed %v, %v", state.DidResume, err)
		}
	}
}

// oddCertificate signs what an authority never would.
func oddCertificate(t *testing.T, a *Authority, key crypto.PublicKey, change func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: newSerial(),
		URIs:         []*url.URL{spiffeURI(a.site, RoleDevice, idOf(t, key))},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
	}
	change(template)
	cert, err := sign(template, a.cert, key, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestPeerOf(t *testing.T) {
	hall, impostor := newTestAuthority(t, "hall"), newTestAuthority(t, "hall")
	orch := newTestMember(t, hall, RoleOrchestrator)
	key := newTestKey(t)
	id := idOf(t, key.Public())
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	uri := func(text string) func(*x509.Certificate) {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		return func(c *x509.Certificate) { c.URIs = []*url.URL{u} }
	}
	other := idOf(t, newTestKey(t).Public())
	for _, tt := range []struct {
		name     string
		by       *Authority
		key      crypto.PublicKey
		change   func(*x509.Certificate)
		verified bool
	}{
		{"as issued", hall, key.Public(), func(*x509.Certificate) {}, true},
		{"an orchestrator", hall, key.Public(), uri("spiffe://hall/orchestrator/one"), true},
		{"from the future", hall, key.Public(), func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(time.Hour), time.Now().Add(2*time.Hour)
		}, true},
		{"ended", hall, key.Public(), func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) }, false},
		{"ends before it begins", hall, key.Public(), func(c *x509.Certificate) { c.NotAfter = c.NotBefore.Add(-time.Hour) }, false},
		{"of another authority of this name", impostor, key.Public(), func(*x509.Certificate) {}, false},
		{"no name", hall, key.Public(), func(c *x509.Certificate) { c.URIs = nil }, false},
		{"a DNS name", hall, key.Public(), func(c *x509.Certificate) { c.URIs, c.DNSNames = nil, []string{id} }, false},
		{"two names", hall, key.Public(), func(c *x509.Certificate) { c.URIs = append(c.URIs, c.URIs[0]) }, false},
		{"another key's name", hall, key.Public(), uri("spiffe://hall/device/" + other), false},
		{"another site", hall, key.Public(), uri("spiffe://cellar/device/" + id), false},
		{"another role", hall, key.Public(), uri("spiffe://hall/admin/" + id), false},
		{"another scheme", hall, key.Public(), uri("https://hall/device/" + id), false},
		{"upper case", hall, key.Public(), uri("spiffe://hall/device/" + strings.ToUpper(id)), false},
		{"a longer path", hall, key.Public(), uri("spiffe://hall/device/" + id + "/x"), false},
		{"a path that is none", hall, key.Public(), uri("spiffe://hall"), false},
		{"a port", hall, key.Public(), uri("spiffe://hall:1/device/" + id), false},
		{"a user", hall, key.Public(), uri("spiffe://u@hall/device/" + id), false},
		{"a query", hall, key.Public(), uri("spiffe://hall/device/" + id + "?x"), false},
		{"a fragment", hall, key.Public(), uri("spiffe://hall/device/" + id + "#x"), false},
		{"an RSA key", hall, rsaKey.Public(), func(*x509.Certificate) {}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cert := oddCertificate(t, tt.by, tt.key, tt.change)
			got := orch.PeerOf(&tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}})
			if got.Verified != tt.verified {
				t.Errorf("got %+v", got)
			}
			if !got.Verified && (got.ID != id || got.Site != "" || got.Role != "") {
				t.Errorf("got %+v, want the key's ID only", got)
			}
		})
	}
	for _, state := range []*tls.ConnectionState{nil, {}} {
		if got := orch.PeerOf(state); got != (Peer{}) {
			t.Errorf("without a certificate: %+v", got)
		}
	}
	// An authority's own certificate is nobody's.
	if got := orch.PeerOf(&tls.ConnectionState{PeerCertificates: []*x509.Certificate{hall.cert}}); got.Verified {
		t.Errorf("the authority: %+v", got)
	}
}

func TestIssueForRefuses(t *testing.T) {
	hall := newTestAuthority(t, "hall")
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	rsaCSR, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, rsaKey)
	if err != nil {
		t.Fatal(err)
	}
	good, err := newCSR(newTestKey(t))
	if err != nil {
		t.Fatal(err)
	}
	forged := append([]byte(nil), good...)
	forged[len(forged)-1] ^= 1
	for name, csr := range map[string][]byte{
		"nothing": nil, "cut": good[:len(good)-1], "forged": forged, "RSA": rsaCSR, "huge": make([]byte, maxCSR+1),
	} {
		if _, err := hall.IssueFor(csr); !errors.Is(err, decant.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	cred, err := hall.IssueFor(good)
	if err != nil || cred.Site != "hall" {
		t.Errorf("good: %+v, %v", cred, err)
	}
}

var errRenew = errors.New("out of reach")

func issuer(a *Authority) func(context.Context, []byte) (Credential, error) {
	return func(_ context.Context, csr []byte) (Credential, error) { return a.IssueFor(csr) }
}
