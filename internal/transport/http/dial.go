package httptransport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/transport"
)

// dialTimeout is how long one address may take to connect and shake hands.
const dialTimeout = 5 * time.Second

// devices connects to devices, and remembers which of their addresses worked.
type devices struct {
	tlsFor func(device string) *tls.Config

	mu   sync.Mutex
	good map[string]string // by device, the address that worked last
}

// order returns the addresses of a target in the order to try them: as given,
// but the one that worked last before the others.
func (d *devices) order(to transport.Target) []string {
	d.mu.Lock()
	good := d.good[to.Device]
	d.mu.Unlock()
	i := slices.Index(to.Addresses, good)
	if i <= 0 {
		return to.Addresses
	}
	return slices.Concat([]string{good}, to.Addresses[:i], to.Addresses[i+1:])
}

func (d *devices) worked(device, address string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.good == nil {
		d.good = map[string]string{}
	}
	d.good[device] = address
}

// dial connects to a device, at the first of its addresses that answers as that
// device. Its errors are Unavailable, or Denied where each address is somebody
// else's.
func (d *devices) dial(ctx context.Context, to transport.Target) (*conn, error) {
	if len(to.Addresses) == 0 {
		return nil, decant.Errorf(decant.Unavailable, "cannot reach device %s: it has no address", to.Device)
	}
	code := decant.Denied
	var failed []string
	for _, address := range d.order(to) {
		conn, err := d.connect(ctx, to.Device, address)
		if err == nil {
			d.worked(to.Device, address)
			return conn, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if !isWrongPeer(err) {
			code = decant.Unavailable
		}
		failed = append(failed, err.Error())
	}
	return nil, decant.Errorf(code, "cannot reach device %s: %s", to.Device, strings.Join(failed, "; "))
}

func (d *devices) connect(ctx context.Context, device, address string) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	netConn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err // it names the address
	}
	cfg := d.tlsFor(device).Clone()
	cfg.NextProtos = []string{"http/1.1"}
	if cfg.ServerName == "" {
		cfg.ServerName = device
	}
	secure := tls.Client(netConn, cfg)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = netConn.Close()
		return nil, fmt.Errorf("%s: %w", address, err)
	}
	raw, err := netConn.(*net.TCPConn).SyscallConn()
	if err != nil {
		_ = netConn.Close()
		return nil, fmt.Errorf("%s: %w", address, err)
	}
	return newConn(secure, raw), nil
}

// isWrongPeer reports whether a handshake failed because the peer is not the
// device that was wanted.
func isWrongPeer(err error) bool {
	_, unverified := errors.AsType[*tls.CertificateVerificationError](err)
	return unverified || errors.Is(err, decant.Denied)
}
