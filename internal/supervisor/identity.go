package supervisor

import (
	"crypto/ecdsa"
	"crypto/tls"
	"path/filepath"
	"sync/atomic"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/identity"
)

// Identity is the device's key and, once it has joined, its membership.
type Identity struct {
	file     string // keeps the credential
	key      *ecdsa.PrivateKey
	id       string
	stranger *tls.Config // serves until the device has joined
	member   atomic.Pointer[identity.Member]
	joined   chan struct{} // closed when member is set
}

// OpenIdentity reads the device's identity from its data folder, or makes a key
// at the first start.
func OpenIdentity(data string) (*Identity, error) {
	key, err := identity.OpenKey(filepath.Join(data, "key.pem"))
	if err != nil {
		return nil, err
	}
	i := &Identity{file: filepath.Join(data, "credential.json"), key: key, joined: make(chan struct{})}
	if i.id, err = identity.DeviceID(key.Public()); err != nil {
		return nil, err
	}
	if i.stranger, err = identity.StrangerServerTLS(key); err != nil {
		return nil, err
	}
	member, err := identity.OpenMember(i.file, key)
	switch {
	case err == nil:
		i.set(member)
	case decant.CodeOf(err) != decant.NotFound:
		return nil, err
	}
	return i, nil
}

// ID returns the device's ID.
func (i *Identity) ID() string { return i.id }

// Site returns the site the device has joined, "" before.
func (i *Identity) Site() string {
	if m := i.member.Load(); m != nil {
		return m.Site()
	}
	return ""
}

// ServerTLS serves the device's own API, also while the device joins.
func (i *Identity) ServerTLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			if m := i.member.Load(); m != nil {
				return m.ServerTLS(), nil
			}
			return i.stranger, nil
		},
	}
}

// PeerOf returns who is at the other end of a connection.
func (i *Identity) PeerOf(state *tls.ConnectionState) identity.Peer {
	if m := i.member.Load(); m != nil {
		return m.PeerOf(state)
	}
	return identity.StrangerOf(state)
}

// ToDevice dials another device of the site.
func (i *Identity) ToDevice(id string) *tls.Config {
	if m := i.member.Load(); m != nil {
		return m.ToDevice(id)
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, //nolint:gosec // refused below
		VerifyConnection: func(tls.ConnectionState) error {
			return decant.Errorf(decant.Denied, "this device has not joined a site")
		},
	}
}

// adopt makes a fresh credential the device's membership, or renews that.
func (i *Identity) adopt(cred identity.Credential) error {
	if m := i.member.Load(); m != nil {
		return m.Take(cred)
	}
	m, err := identity.NewMember(i.file, i.key, cred)
	if err != nil {
		return err
	}
	i.set(m)
	return nil
}

func (i *Identity) set(m *identity.Member) {
	i.member.Store(m)
	close(i.joined)
}
