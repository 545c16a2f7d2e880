package httptransport

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/transport"
)

// dialTimeout is how long one address may take to connect and shake hands.
const dialTimeout = 5 * time.Second

// devices knows where devices are, and connects to them.
type devices struct {
	tlsFor func(device string) *tls.Config

	mu        sync.Mutex
	addresses map[string][]string // by device, the one that worked last first
}

// learn takes the addresses of a target, in their order but for the one that
// worked last.
func (d *devices) learn(to transport.Target) {
	d.mu.Lock()
	defer d.mu.Unlock()
	known := d.addresses[to.Device]
	if slices.Equal(known, to.Addresses) {
		return
	}
	if d.addresses == nil {
		d.addresses = map[string][]string{}
	}
	next := slices.Clone(to.Addresses)
	if len(known) > 0 {
		preferAddress(next, known[0])
	}
	d.addresses[to.Device] = next
}

// worked puts address first for the next time.
func (d *devices) worked(device, address string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	next := slices.Clone(d.addresses[device]) // a dial may be reading the old
	preferAddress(next, address)
	d.addresses[device] = next
}

// preferAddress moves address to the front of list, if it is there.
func preferAddress(list []string, address string) {
	if i := slices.Index(list, address); i > 0 {
		copy(list[1:i+1], list[:i])
		list[0] = address
	}
}

// dial connects to the device that hostPort names, at the first of its
// addresses that answers as that device. Its errors are Unavailable, or Denied
// where each address is somebody else's.
func (d *devices) dial(ctx context.Context, _, hostPort string) (net.Conn, error) {
	device, _, err := net.SplitHostPort(hostPort)
	if err != nil {
		return nil, decant.Errorf(decant.Invalid, "device %q: %w", hostPort, err)
	}
	d.mu.Lock()
	addresses := d.addresses[device]
	d.mu.Unlock()
	if len(addresses) == 0 {
		return nil, decant.Errorf(decant.Unavailable, "cannot reach device %s: it has no address", device)
	}
	code := decant.Denied
	var failed []string
	for _, a := range addresses {
		conn, err := d.connect(ctx, device, a)
		if err == nil {
			d.worked(device, a)
			return conn, nil
		}
		if !isWrongPeer(err) {
			code = decant.Unavailable
		}
		failed = append(failed, err.Error())
		if ctx.Err() != nil {
			break
		}
	}
	return nil, decant.Errorf(code, "cannot reach device %s: %s", device, strings.Join(failed, "; "))
}

func (d *devices) connect(ctx context.Context, device, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err // it names the address
	}
	cfg := d.tlsFor(device).Clone()
	cfg.NextProtos = []string{"http/1.1"}
	if cfg.ServerName == "" {
		cfg.ServerName = device
	}
	secure := tls.Client(raw, cfg)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, &handshakeError{address, err}
	}
	return &conn{Conn: secure}, nil
}

type handshakeError struct {
	address string
	err     error
}

func (e *handshakeError) Error() string { return e.address + ": " + e.err.Error() }
func (e *handshakeError) Unwrap() error { return e.err }

// isWrongPeer reports whether a handshake failed because the peer is not the
// device that was wanted.
func isWrongPeer(err error) bool {
	_, unverified := errors.AsType[*tls.CertificateVerificationError](err)
	return unverified || errors.Is(err, decant.Denied)
}

// conn notes how much was written, and whether all of it was. One request at a
// time uses it.
type conn struct {
	net.Conn
	written atomic.Int64
	failed  atomic.Bool
}

func (c *conn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.written.Add(int64(n))
	if err != nil {
		c.failed.Store(true)
	}
	return n, err
}
