package identity

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"time"

	"github.com/decant-project/decant"
)

// baseTLS is what every connection has. Peers are told by their keys and
// SPIFFE IDs, not by host names, so each use brings its own verification. It
// stands in VerifyConnection, which sees every handshake; sessions are not
// resumed. certificate is asked at each handshake: a renewal needs no restart.
func baseTLS(certificate func() *tls.Certificate, verify func(tls.ConnectionState) error) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		InsecureSkipVerify:     true, //nolint:gosec // see verify
		SessionTicketsDisabled: true,
		ClientAuth:             tls.RequireAnyClientCert,
		GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return certificate(), nil },
		GetClientCertificate:   func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return certificate(), nil },
		VerifyConnection:       verify,
	}
}

func anyone(tls.ConnectionState) error { return nil }

// selfSigned makes a certificate that proves the key and nothing else: what a
// device shows before it has joined.
func selfSigned(key *ecdsa.PrivateKey) (func() *tls.Certificate, error) {
	id, err := DeviceID(key.Public())
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: newSerial(),
		Subject:      pkix.Name{CommonName: id},
		NotBefore:    time.Now().Add(-clockSkew),
		NotAfter:     time.Now().Add(authorityLife),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, decant.Errorf(decant.Internal, "cannot make a certificate: %w", err)
	}
	cert := &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	return func() *tls.Certificate { return cert }, nil
}

// StrangerServerTLS serves for a device that has not joined: it proves its key
// and lets everybody in. StrangerOf tells who it is.
func StrangerServerTLS(key *ecdsa.PrivateKey) (*tls.Config, error) {
	certificate, err := selfSigned(key)
	if err != nil {
		return nil, err
	}
	return baseTLS(certificate, anyone), nil
}

// pinnedTLS dials an orchestrator of the site whose authority has this pin.
func pinnedTLS(pin Pin, key *ecdsa.PrivateKey) (*tls.Config, error) {
	certificate, err := selfSigned(key)
	if err != nil {
		return nil, err
	}
	return baseTLS(certificate, func(state tls.ConnectionState) error {
		chain := state.PeerCertificates
		if len(chain) < 2 || pinOf(chain[1]) != pin {
			return decant.Errorf(decant.Denied, "who answers belongs to another site than the join code")
		}
		peer, err := verifyPeer(chain[0], chain[1], time.Now())
		if err != nil {
			return err
		}
		return expect(peer, RoleOrchestrator, "")
	}), nil
}

// ServerTLS serves for a member. It asks every client for a certificate and
// lets each of them in: PeerOf and RequireSite tell who it is.
func (m *Member) ServerTLS() *tls.Config { return baseTLS(m.certificate, anyone) }

// ToDevice dials the member device with this ID. Whoever else answers is
// Denied, as with the others below.
func (m *Member) ToDevice(id string) *tls.Config { return m.to(RoleDevice, id) }

// ToOrchestrator dials any orchestrator of the site.
func (m *Member) ToOrchestrator() *tls.Config { return m.to(RoleOrchestrator, "") }

func (m *Member) to(role Role, id string) *tls.Config {
	return baseTLS(m.certificate, func(state tls.ConnectionState) error {
		peer, err := m.verify(&state)
		if err != nil {
			return err
		}
		return expect(peer, role, id)
	})
}

// expect returns a Denied error for a member that is not the one dialled. An
// empty id is anyone's.
func expect(peer Peer, role Role, id string) error {
	if peer.Role == role && (id == "" || peer.ID == id) {
		return nil
	}
	if id == "" {
		return decant.Errorf(decant.Denied, "%s %s answers where an %s should", peer.Role, peer.ID, role)
	}
	return decant.Errorf(decant.Denied, "%s %s answers where %s %s should", peer.Role, peer.ID, role, id)
}

// ToStranger dials a device, joined or not, that holds the key its ID is
// derived from.
func (m *Member) ToStranger(id string) *tls.Config {
	return baseTLS(m.certificate, func(state tls.ConnectionState) error {
		if StrangerOf(&state).ID != id {
			return decant.Errorf(decant.Denied, "who answers does not hold the key of device %s", id)
		}
		return nil
	})
}
