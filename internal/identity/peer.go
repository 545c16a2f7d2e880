package identity

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/problem"
)

// Peer is who is at the other end of a connection: a member of our site, or
// else whoever holds the key that ID is derived from.
type Peer struct {
	Verified  bool
	Site      string           // "" unless verified
	Role      Role             // "" unless verified
	ID        string           // "" where there is no key
	PublicKey crypto.PublicKey // nil where there is no certificate
}

// PeerOf returns who is at the other end, judged by our site's authority.
func (m *Member) PeerOf(state *tls.ConnectionState) Peer {
	peer, err := m.verify(state)
	if err != nil {
		return StrangerOf(state)
	}
	return peer
}

// StrangerOf returns who is at the other end as far as one who has not joined
// can tell: the ID that the peer's key stands for.
func StrangerOf(state *tls.ConnectionState) Peer {
	if state == nil || len(state.PeerCertificates) == 0 {
		return Peer{}
	}
	key := state.PeerCertificates[0].PublicKey
	id, _ := DeviceID(key)
	return Peer{ID: id, PublicKey: key}
}

// verify returns the member at the other end, or a Denied error that says why
// it is none.
func (m *Member) verify(state *tls.ConnectionState) (Peer, error) {
	if state == nil || len(state.PeerCertificates) == 0 {
		return Peer{}, decant.Errorf(decant.Denied, "the peer shows no certificate")
	}
	leaf, now := state.PeerCertificates[0], m.now()
	if peer, ok := m.known.get(leaf); ok {
		return peer, current(leaf, now)
	}
	peer, err := verifyPeer(leaf, m.authority, now)
	if err == nil {
		m.known.put(leaf, peer)
	}
	return peer, err
}

// knownPeers are certificates that were verified, and whose they are: checking
// a signature takes longer than a call does. A connection has the same
// certificate with each of its requests, so their addresses tell them apart.
type knownPeers struct {
	mu   sync.Mutex
	list map[*x509.Certificate]Peer
}

// maxKnown bounds the certificates that are known: devices have a new one from
// time to time.
const maxKnown = 1024

func (k *knownPeers) get(leaf *x509.Certificate) (Peer, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	peer, ok := k.list[leaf]
	return peer, ok
}

func (k *knownPeers) put(leaf *x509.Certificate, peer Peer) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.list == nil || len(k.list) >= maxKnown {
		k.list = map[*x509.Certificate]Peer{}
	}
	k.list[leaf] = peer
}

// current returns a Denied error for a certificate that has ended.
func current(leaf *x509.Certificate, now time.Time) error {
	if now.After(leaf.NotAfter) {
		return decant.Errorf(decant.Denied, "the peer's certificate ended at %s, and here it is %s",
			leaf.NotAfter.UTC().Format(time.DateTime), now.UTC().Format(time.DateTime)).
			WithHelp("check the clocks of both; a device renews its certificate when it reaches its orchestrator")
	}
	return nil
}

// verifyPeer checks a member's certificate against its authority.
func verifyPeer(leaf, authority *x509.Certificate, now time.Time) (Peer, error) {
	if err := current(leaf, now); err != nil {
		return Peer{}, err
	}
	// An authority issues nothing for the future: a certificate from there shows
	// that our clock is behind, as clocks without a battery are.
	if now.Before(leaf.NotBefore) {
		now = leaf.NotBefore
	}
	roots := x509.NewCertPool()
	roots.AddCert(authority)
	_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil {
		return Peer{}, decant.Errorf(decant.Denied, "the peer's certificate is not of site %s: %w", authority.Subject.CommonName, err)
	}
	return nameOf(leaf, authority)
}

// nameOf reads whom a certificate of authority is for.
func nameOf(leaf, authority *x509.Certificate) (Peer, error) {
	if len(leaf.URIs) != 1 {
		return Peer{}, decant.Errorf(decant.Denied, "the certificate has %d names, not one", len(leaf.URIs))
	}
	site, role, id, ok := cutSPIFFE(leaf.URIs[0].String())
	if !ok || site != authority.Subject.CommonName {
		return Peer{}, decant.Errorf(decant.Denied, "the certificate is for %.200q", leaf.URIs[0].String())
	}
	if own, err := DeviceID(leaf.PublicKey); role == RoleDevice && (err != nil || own != id) {
		return Peer{}, decant.Errorf(decant.Denied, "the certificate of %s is for another key", id)
	}
	return Peer{Verified: true, Site: site, Role: role, ID: id, PublicKey: leaf.PublicKey}, nil
}

func spiffeURI(site string, role Role, id string) *url.URL {
	return &url.URL{Scheme: "spiffe", Host: site, Path: "/" + string(role) + "/" + id}
}

// cutSPIFFE splits spiffe://<site>/<role>/<id>.
func cutSPIFFE(uri string) (site string, role Role, id string, ok bool) {
	rest, ok := strings.CutPrefix(uri, "spiffe://")
	parts := strings.Split(rest, "/")
	if !ok || len(parts) != 3 || decant.CheckName("site", parts[0]) != nil || decant.CheckName("id", parts[2]) != nil {
		return "", "", "", false
	}
	role = Role(parts[1])
	return parts[0], role, parts[2], role == RoleDevice || role == RoleOrchestrator
}

type peerKey struct{}

// strangerTimeout is how long the body of a stranger's request may take.
const strangerTimeout = 5 * time.Second

// RequireSite lets requests of our site's members through to next, and others
// only where open says so; those it answers with Denied. Handlers find who
// asks with PeerFrom. peerOf is a Member's PeerOf, or StrangerOf.
//
// A certificate is looked at with each request, so that it counts for nothing
// once it has ended. A kept-alive connection would outlive it; it is closed in
// good time, and the peer comes back with the certificate it has by then.
func RequireSite(peerOf func(*tls.ConnectionState) Peer, open func(*http.Request) bool, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer := peerOf(r.TLS)
		if !peer.Verified {
			// A stranger may hold a connection for one small request, and no longer.
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(strangerTimeout))
			w.Header().Set("Connection", "close")
		}
		if !peer.Verified && !open(r) {
			problem.Write(w, notMember(peer))
			return
		}
		if peer.Verified && time.Until(r.TLS.PeerCertificates[0].NotAfter) < certificateLife/4 {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), peerKey{}, peer)))
	})
}

func notMember(peer Peer) error {
	if peer.ID == "" {
		return decant.Errorf(decant.Denied, "this is for members of the site only: show a certificate of it")
	}
	return decant.Errorf(decant.Denied, "%s is not a member of this site, or its certificate has ended", peer.ID).
		WithHelp("join it with a code from: decant join-code")
}

// PeerFrom returns who sent the request that ctx belongs to.
func PeerFrom(ctx context.Context) Peer {
	peer, _ := ctx.Value(peerKey{}).(Peer)
	return peer
}
