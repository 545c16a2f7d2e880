package identity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/decant-project/decant"
)

func TestMemberIsKept(t *testing.T) {
	hall := newTestAuthority(t, "hall")
	key, other := newTestKey(t), newTestKey(t)
	file := filepath.Join(t.TempDir(), "member.json")
	if _, err := OpenMember(file, key); !errors.Is(err, decant.NotFound) {
		t.Errorf("before it joined: %v", err)
	}
	cred, err := hall.Issue(RoleDevice, idOf(t, key.Public()), key.Public())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewMember(file, other, cred); !errors.Is(err, decant.Denied) {
		t.Errorf("with another's key: %v", err)
	}
	if _, err := NewMember(file, key, cred); err != nil {
		t.Fatal(err)
	}
	m, err := OpenMember(file, key)
	if err != nil {
		t.Fatal(err)
	}
	if m.ID() != idOf(t, key.Public()) || m.Site() != "hall" || m.Pin() != hall.Pin() {
		t.Errorf("got %s of %s with pin %s", m.ID(), m.Site(), m.Pin())
	}
	if info, _ := os.Stat(file); info.Mode() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	if _, err := OpenMember(file, other); !errors.Is(err, decant.Corrupt) {
		t.Errorf("opened with another's key: %v", err)
	}
	data, _ := os.ReadFile(file)
	if err := os.WriteFile(file, data[:len(data)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenMember(file, key); decant.CodeOf(err) != decant.Corrupt {
		t.Errorf("cut: %v", err)
	}
}

func TestMemberRefusesCredential(t *testing.T) {
	hall, cellar := newTestAuthority(t, "hall"), newTestAuthority(t, "cellar")
	key := newTestKey(t)
	id := idOf(t, key.Public())
	good, err := hall.Issue(RoleDevice, id, key.Public())
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := cellar.Issue(RoleDevice, id, key.Public())
	if err != nil {
		t.Fatal(err)
	}
	misnamed, err := hall.Issue(RoleDevice, "dsomebody", key.Public())
	if err != nil {
		t.Fatal(err)
	}
	for name, cred := range map[string]Credential{
		"empty":             {},
		"no certificate":    {Authority: good.Authority},
		"no authority":      {Certificate: good.Certificate},
		"another authority": {Certificate: good.Certificate, Authority: foreign.Authority},
		"a leaf as one":     {Certificate: good.Certificate, Authority: good.Certificate},
		"another's name":    misnamed,
	} {
		if _, err := NewMember("", key, cred); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestRenewal lives through two days: the certificate is renewed after a third
// of its life, failures are tried again, and who is connected to sees the new
// one without a restart.
func TestRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hall := newTestAuthority(t, "hall")
		orch := newTestMember(t, hall, RoleOrchestrator)
		key := newTestKey(t)
		cred, err := hall.Issue(RoleDevice, idOf(t, key.Public()), key.Public())
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "member.json")
		m, err := NewMember(file, key, cred)
		if err != nil {
			t.Fatal(err)
		}
		server := m.ServerTLS()
		first := m.Expires()
		var down atomic.Bool
		var tries, failures atomic.Int64
		down.Store(true)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			m.KeepRenewed(ctx, func(ctx context.Context, csr []byte) (Credential, error) {
				tries.Add(1)
				if down.Load() {
					return Credential{}, errRenew
				}
				return hall.IssueFor(csr)
			}, func(err error) {
				failures.Add(1)
				if !errors.Is(err, errRenew) {
					t.Errorf("told of %v", err)
				}
			})
		}()

		pass := func(d time.Duration) {
			time.Sleep(d)
			synctest.Wait()
		}
		pass(7*time.Hour + 59*time.Minute)
		if tries.Load() != 0 {
			t.Errorf("%d tries in the first third", tries.Load())
		}
		pass(4 * time.Hour)
		if tries.Load() < 100 || tries.Load() != failures.Load() || m.Expires() != first {
			t.Errorf("%d tries, %d failures; ends %v", tries.Load(), failures.Load(), m.Expires())
		}
		down.Store(false)
		pass(2 * time.Minute)
		if !m.Expires().After(first.Add(11 * time.Hour)) {
			t.Errorf("ends %v, was %v", m.Expires(), first)
		}
		kept, err := OpenMember(file, key)
		if err != nil || kept.Expires() != m.Expires() {
			t.Errorf("kept one that ends at %v, not %v: %v", kept.Expires(), m.Expires(), err)
		}
		state, _, err := handshake(t, orch.ToDevice(m.ID()), server)
		if err != nil || !state.PeerCertificates[0].NotAfter.Equal(m.Expires()) {
			t.Errorf("the server shows the old certificate, %v", err)
		}
		tries.Store(0)
		pass(48 * time.Hour)
		if n := tries.Load(); n < 5 || n > 6 || time.Until(m.Expires()) < 15*time.Hour {
			t.Errorf("%d renewals in two days; ends in %v", n, time.Until(m.Expires()))
		}
		cancel()
		<-done
	})
}

func TestRenewalMustBeOurs(t *testing.T) {
	hall, cellar := newTestAuthority(t, "hall"), newTestAuthority(t, "hall")
	m := newTestMember(t, hall, RoleDevice)
	before := m.Expires()
	for name, renew := range map[string]func(context.Context, []byte) (Credential, error){
		"another site": issuer(cellar),
		"another machine": func(context.Context, []byte) (Credential, error) {
			key := newTestKey(t)
			return hall.Issue(RoleDevice, idOf(t, key.Public()), key.Public())
		},
		"another name": func(context.Context, []byte) (Credential, error) {
			return hall.Issue(RoleOrchestrator, "other", m.key.Public())
		},
	} {
		if err := m.renewOnce(t.Context(), renew); !errors.Is(err, decant.Denied) || m.Expires() != before {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestClockBehind is a machine without a battery: in the bubble it is the year
// 2000, while its site lives now.
func TestClockBehind(t *testing.T) {
	hall := newTestAuthority(t, "hall")
	orch, peer := newTestMember(t, hall, RoleOrchestrator), newTestMember(t, hall, RoleDevice)
	key := newTestKey(t)
	cred, err := hall.Issue(RoleDevice, idOf(t, key.Public()), key.Public())
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(cred)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "member.json")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	ended := oddCertificate(t, hall, newTestKey(t).Public(), func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-24*time.Hour), time.Now().Add(-time.Minute)
	})
	synctest.Test(t, func(t *testing.T) {
		m, err := OpenMember(file, key)
		if err != nil {
			t.Fatal(err)
		}
		for name, config := range map[string]*tls.Config{"orchestrator": m.ToOrchestrator(), "joining": mustPin(t, hall.Pin())} {
			if _, _, err := handshake(t, config, orch.ServerTLS()); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if got := m.PeerOf(&tls.ConnectionState{PeerCertificates: []*x509.Certificate{ended}}); got.Verified {
			t.Error("takes a certificate that ended before its own began")
		}
		if !m.NeedsRenewal(m.now()) {
			t.Error("cannot tell how old its certificate is, and does not renew it")
		}
		if err := m.renewOnce(t.Context(), func(context.Context, []byte) (Credential, error) { return cred, nil }); err != nil {
			t.Fatal(err)
		}
		if m.NeedsRenewal(m.now()) {
			t.Error("renews without end")
		}
		// Time passes for it as for others, though its clock is wrong.
		time.Sleep(12 * time.Hour)
		if !m.NeedsRenewal(m.now()) {
			t.Error("does not renew after 12 hours")
		}
		time.Sleep(12*time.Hour + time.Minute)
		if _, _, err := handshake(t, m.ToDevice(peer.ID()), peer.ServerTLS()); !errors.Is(err, decant.Denied) {
			t.Errorf("takes a certificate a day later: %v", err)
		}
	})
}

func mustPin(t *testing.T, pin Pin) *tls.Config {
	t.Helper()
	config, err := pinnedTLS(pin, newTestKey(t))
	if err != nil {
		t.Fatal(err)
	}
	return config
}
