// Package httptransport carries calls between devices over HTTP with mutual
// TLS: Caller on the near side, Handler on the far one.
//
// A call is one POST of the request's body to Pattern; the answer's body is the
// response, or a problem document. It is HTTP/1.1 on connections that are kept:
// by measurement faster than HTTP/2 for one call at a time, small or large.
//
// Caller keeps its own connections instead of using http.Transport, for two
// reasons. It must know whether a request that failed can have been executed,
// which http.Transport does not tell. And it sends and receives in the
// goroutine that calls, which takes a fifth off the time of a small call.
package httptransport

import (
	"context"
	"crypto/tls"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/transport"
)

const (
	maxIdle     = 32               // connections kept to a device
	idleTimeout = 90 * time.Second // how long each is kept unused
	maxAge      = time.Hour        // how long each is used: then both ends show certificates again
)

// Caller implements transport.Caller. It keeps connections to the devices it
// has called, for 90 seconds after their last use.
type Caller struct {
	devices devices

	mu     sync.Mutex
	idle   map[string][]*conn // by device, the last used last
	closed bool
}

// NewCaller returns a Caller. tlsFor gives the configuration with which to
// reach a device: one that shows this device's certificate and refuses any
// other peer, by a certificate's verification or by an error of code Denied.
func NewCaller(tlsFor func(device string) *tls.Config) *Caller {
	return &Caller{devices: devices{tlsFor: tlsFor}, idle: map[string][]*conn{}}
}

// Close closes the connections that no call is using, and the others when
// their call is done.
func (c *Caller) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for device, conns := range c.idle {
		for _, conn := range conns {
			conn.close()
		}
		delete(c.idle, device)
	}
}

// Call implements transport.Caller. A request is sent once: another address,
// or another connection, is tried only where none of it was executed.
func (c *Caller) Call(ctx context.Context, to transport.Target, req *transport.Request) (*transport.Response, error) {
	if err := transport.CheckRequest(req); err != nil {
		return nil, err
	}
	httpReq, err := newRequest(ctx, to.Device, req)
	if err != nil {
		return nil, err
	}
	for {
		conn := c.take(to.Device)
		kept := conn != nil
		if !kept {
			if conn, err = c.devices.dial(ctx, to); err != nil {
				return nil, failure(ctx, to.Device, err)
			}
		}
		resp, err := conn.call(ctx, httpReq)
		c.give(to.Device, conn)
		switch {
		case err == nil:
			return resp, nil
		case kept && errors.Is(err, errNotSent) && ctx.Err() == nil:
			// It was closed just now. There are fewer such each time.
			httpReq.Body, _ = httpReq.GetBody() // a bytes.Reader again
		default:
			return nil, failure(ctx, to.Device, err)
		}
	}
}

// take returns a kept connection to device that is still open, or nil.
func (c *Caller) take(device string) *conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conns := c.idle[device]; len(conns) > 0; {
		last := conns[len(conns)-1]
		conns = conns[:len(conns)-1]
		c.idle[device] = conns
		if last.expire.Stop() && last.alive() {
			return last
		}
		last.close()
	}
	return nil
}

// give takes a connection back after a call.
func (c *Caller) give(device string, conn *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !conn.clean || time.Since(conn.born) > maxAge || c.closed || len(c.idle[device]) >= maxIdle {
		conn.close()
		return
	}
	c.idle[device] = append(c.idle[device], conn)
	if conn.expire == nil {
		conn.expire = time.AfterFunc(idleTimeout, func() { c.drop(device, conn) })
	} else {
		conn.expire.Reset(idleTimeout)
	}
}

// drop closes conn if it is idle still.
func (c *Caller) drop(device string, conn *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := slices.Index(c.idle[device], conn); i >= 0 {
		conn.close()
		c.idle[device] = slices.Delete(c.idle[device], i, i+1)
	}
	if len(c.idle[device]) == 0 {
		delete(c.idle, device)
	}
}

// failure says what err, of a dial or of a call, means to the caller.
func failure(ctx context.Context, device string, err error) error {
	coded, ok := errors.AsType[*decant.Error](err)
	switch {
	case ok:
		return coded
	case ctx.Err() != nil:
		return decant.Errorf(decant.Deadline, "call to device %s ended before its answer: %w", device, ctx.Err())
	case errors.Is(err, errRefused):
		return decant.Errorf(decant.Unavailable, "device %s refused this device's certificate: %w", device, err)
	case errors.Is(err, errNotSent):
		return decant.Errorf(decant.Unavailable, "device %s closed the connection before it had the request: %w", device, err)
	}
	return decant.Errorf(decant.Internal, "device %s was lost before its answer, the call may have been executed: %w", device, err)
}
