package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/durable"
)

// Credential is a certificate with what it takes to check others.
type Credential struct {
	Site        string `json:"site"`
	Certificate string `json:"certificate" doc:"PEM"`
	Authority   string `json:"authority" doc:"The site's CA, PEM"`
}

// Member is a machine that has joined a site: its key, its certificate of now
// and its site's authority. It is safe for concurrent use.
type Member struct {
	key       *ecdsa.PrivateKey
	id        string
	authority *x509.Certificate
	file      string // where the credential is kept; "" is nowhere
	known     knownPeers

	mu      sync.Mutex // guards what a renewal changes
	leaf    *x509.Certificate
	taken   time.Time // when leaf came into use here, for the time passed since
	ageless bool      // the clock cannot tell how old leaf is
}

// newMember checks that a credential is one for key. It may have ended while
// its machine was off: it still says who that is.
func newMember(key *ecdsa.PrivateKey, cred Credential) (*Member, error) {
	authority, err := parseCertificate([]byte(cred.Authority))
	if err != nil {
		return nil, err
	}
	leaf, err := parseCertificate([]byte(cred.Certificate))
	if err != nil {
		return nil, err
	}
	if !key.PublicKey.Equal(leaf.PublicKey) {
		return nil, decant.Errorf(decant.Denied, "the certificate is for another key")
	}
	if err := leaf.CheckSignatureFrom(authority); err != nil {
		return nil, decant.Errorf(decant.Denied, "the certificate is not of its authority: %w", err)
	}
	self, err := nameOf(leaf, authority)
	if err != nil {
		return nil, err
	}
	return &Member{key: key, id: self.ID, authority: authority, leaf: leaf, taken: time.Now()}, nil
}

// OpenMember reads the credential in file. NotFound: key's machine has not
// joined. Corrupt: file is damaged, or for another key.
func OpenMember(file string, key *ecdsa.PrivateKey) (*Member, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, decant.Errorf(decant.NotFound, "this machine has not joined a site")
	}
	if err != nil {
		return nil, decant.Errorf(decant.Internal, "cannot read the certificate: %w", err)
	}
	var cred Credential
	err = json.Unmarshal(data, &cred)
	if err == nil {
		var m *Member
		if m, err = newMember(key, cred); err == nil {
			m.file = file
			m.ageless = m.taken.Before(m.leaf.NotBefore)
			return m, nil
		}
	}
	return nil, decant.Errorf(decant.Corrupt, "%s is damaged: %w", file, err).
		WithHelp("restore it from a backup, or remove it and join again")
}

// NewMember keeps a fresh credential in file, "" for nowhere, and returns its
// member.
func NewMember(file string, key *ecdsa.PrivateKey, cred Credential) (*Member, error) {
	m, err := newMember(key, cred)
	if err != nil {
		return nil, err
	}
	m.file = file
	if err := m.keep(cred); err != nil {
		return nil, err
	}
	return m, nil
}

func (m *Member) keep(cred Credential) error {
	if m.file == "" {
		return nil
	}
	data, err := json.MarshalIndent(cred, "", "  ")
	if err != nil {
		return err
	}
	return durable.WriteFile(m.file, data)
}

// Site returns the name of the member's site.
func (m *Member) Site() string { return m.authority.Subject.CommonName }

// ID returns the member's ID.
func (m *Member) ID() string { return m.id }

// Pin returns the pin of the site's authority.
func (m *Member) Pin() Pin { return pinOf(m.authority) }

// certificate returns what the member shows: its certificate and, for those
// that know the authority by its pin only, that.
func (m *Member) certificate() *tls.Certificate {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &tls.Certificate{Certificate: [][]byte{m.leaf.Raw, m.authority.Raw}, PrivateKey: m.key, Leaf: m.leaf}
}

// Expires returns when the present certificate ends.
func (m *Member) Expires() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.leaf.NotAfter
}

// now is the time as well as this machine can tell: its clock's, but not
// before the member's own certificate was issued, nor before what has passed
// since then. Clocks without a battery start in the past.
func (m *Member) now() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if least := m.leaf.NotBefore.Add(clockSkew + now.Sub(m.taken)); now.Before(least) {
		return least
	}
	return now
}

// NeedsRenewal reports whether, at now, a third of the certificate's life has
// passed. That early, because a site goes on without its orchestrator for no
// longer than its certificates last.
func (m *Member) NeedsRenewal(now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ageless || m.leaf.NotAfter.Sub(now) < certificateLife*2/3
}

// Pauses between looks at the certificate's age. They are short, because a
// timer stands still while its machine sleeps.
const (
	renewRetry = time.Minute
	renewCheck = 10 * time.Minute
)

// KeepRenewed renews the certificate whenever it needs it, until ctx ends.
// renew sends a certificate request (DER) and returns the new credential;
// failures are told to failed and tried again.
func (m *Member) KeepRenewed(ctx context.Context, renew func(ctx context.Context, csr []byte) (Credential, error), failed func(error)) {
	for {
		pause := renewCheck
		if m.NeedsRenewal(m.now()) {
			if err := m.renewOnce(ctx, renew); err != nil && ctx.Err() == nil {
				pause = renewRetry
				failed(err)
			}
		}
		// A fleet that was started together shall not renew together.
		timer := time.NewTimer(pause + rand.N(pause/4)) //nolint:gosec // jitter
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

func (m *Member) renewOnce(ctx context.Context, renew func(context.Context, []byte) (Credential, error)) error {
	csr, err := newCSR(m.key)
	if err != nil {
		return err
	}
	cred, err := renew(ctx, csr)
	if err != nil {
		return err
	}
	return m.Take(cred)
}

// Take makes a fresh credential of the same site and machine the member's.
func (m *Member) Take(cred Credential) error {
	fresh, err := newMember(m.key, cred)
	if err != nil {
		return err
	}
	if fresh.Pin() != m.Pin() || fresh.id != m.id {
		return decant.Errorf(decant.Denied, "the new certificate is of another site, or for another machine")
	}
	if err := m.keep(cred); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.leaf, m.taken, m.ageless = fresh.leaf, fresh.taken, false
	return nil
}
