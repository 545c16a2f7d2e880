// Package listen opens what the programs serve at: a port that stays the same,
// a socket for the owner alone.
package listen

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/durable"
)

// Port listens at host:port. A port that the system chose, for port 0, is kept
// in file: others come back to it after a restart. Invalid: it is no address, or
// in use.
func Port(ctx context.Context, address, file string) (net.Listener, error) {
	var lc net.ListenConfig
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, decant.Errorf(decant.Invalid, "cannot listen at %q", address).WithHelp("write it as host:port or :port")
	}
	if kept, err := os.ReadFile(file); err == nil && len(kept) > 0 && port == "0" {
		if l, err := lc.Listen(ctx, "tcp", net.JoinHostPort(host, strings.TrimSpace(string(kept)))); err == nil {
			return l, nil
		}
	}
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, decant.Errorf(decant.Invalid, "cannot listen: %w", err)
	}
	if port == "0" {
		chosen := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
		if err := durable.WriteFile(file, []byte(chosen)); err != nil {
			return nil, errors.Join(err, l.Close())
		}
	}
	return l, nil
}

// Socket listens at a socket that only its owner may open, in a folder that is
// the program's alone: what a dead process left there goes. Invalid: the path is
// too long, as it soon is.
func Socket(ctx context.Context, path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, decant.Errorf(decant.Internal, "cannot take over the socket: %w", err)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return nil, decant.Errorf(decant.Invalid, "cannot listen at the socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(decant.Errorf(decant.Internal, "cannot keep the socket to its owner: %w", err), l.Close())
	}
	return l, nil
}

// PerHost returns l accepting so many connections from one host at a time, and
// closing more at once: who holds many shall keep nobody else out.
func PerHost(l net.Listener, most int) net.Listener {
	return &perHost{Listener: l, most: most, open: map[string]int{}}
}

type perHost struct {
	net.Listener
	most int

	mu   sync.Mutex
	open map[string]int // connections by host
}

// Accept implements net.Listener.
func (p *perHost) Accept() (net.Conn, error) {
	for {
		c, err := p.Listener.Accept()
		if err != nil {
			return nil, err
		}
		host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
		if p.count(host, 1) {
			return &counted{Conn: c, done: sync.OnceFunc(func() { p.count(host, -1) })}, nil
		}
		_ = c.Close()
	}
}

// count adds to the connections of a host, and reports whether there was room.
func (p *perHost) count(host string, n int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open[host]+n > p.most {
		return false
	}
	if p.open[host] += n; p.open[host] == 0 {
		delete(p.open, host)
	}
	return true
}

type counted struct {
	net.Conn
	done func()
}

// Close implements net.Conn.
func (c *counted) Close() error {
	c.done()
	return c.Conn.Close()
}

// maxAddresses bounds what a machine says of where it is reached.
const maxAddresses = 8

// Addresses returns where others reach what listens at at: its own host, or all
// of the machine's, those that reach farthest first. The loopback is named only
// where there is nothing else.
func Addresses(at net.Addr) []string {
	tcp, ok := at.(*net.TCPAddr)
	if !ok {
		return nil
	}
	if !tcp.IP.IsUnspecified() {
		return []string{tcp.String()}
	}
	port := strconv.Itoa(tcp.Port)
	var v4, v6 []string
	all, _ := net.InterfaceAddrs()
	for _, a := range all {
		ip, ok := a.(*net.IPNet)
		if !ok || !ip.IP.IsGlobalUnicast() {
			continue
		}
		if ip.IP.To4() != nil {
			v4 = append(v4, net.JoinHostPort(ip.IP.String(), port))
		} else {
			v6 = append(v6, net.JoinHostPort(ip.IP.String(), port))
		}
	}
	found := slices.Concat(v4, v6)
	if len(found) == 0 {
		return []string{net.JoinHostPort("127.0.0.1", port)}
	}
	return found[:min(len(found), maxAddresses)]
}
