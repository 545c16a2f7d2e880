// Package httptransport carries calls between devices over HTTP with mutual
// TLS: Caller on the near side, Handler on the far one.
//
// A call is one POST of the request's body to Pattern; the answer's body is the
// response, or a problem document. It is HTTP/1.1 on connections that are kept:
// by measurement faster than HTTP/2 for one call at a time, small or large.
package httptransport

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/problem"
	"github.com/decant-project/decant/internal/transport"
)

// Pattern is where Handler is to be mounted on an http.ServeMux.
const Pattern = "POST /v1/apps/{app}/{component}/{function}"

// defaultFunction stands in the path for the component's own choice.
const defaultFunction = "-"

// Headers of a call, beside Content-Type.
const (
	headerTrace   = "Traceparent"    // W3C trace context
	headerEpoch   = "Decant-Epoch"   // lowest epoch that may answer
	headerTimeout = "Decant-Timeout" // how long the caller still waits, in milliseconds
)

// Caller implements transport.Caller. It keeps connections to the devices it
// has called, for 90 seconds after their last use.
type Caller struct {
	http    *http.Transport
	devices devices
}

// NewCaller returns a Caller. tlsFor gives the configuration with which to
// reach a device: one that shows this device's certificate and refuses any
// other peer, by a certificate's verification or by an error of code Denied.
func NewCaller(tlsFor func(device string) *tls.Config) *Caller {
	c := &Caller{devices: devices{tlsFor: tlsFor}}
	c.http = &http.Transport{
		DialTLSContext:         c.devices.dial,
		DisableCompression:     true,
		IdleConnTimeout:        90 * time.Second,
		MaxIdleConnsPerHost:    32,
		MaxResponseHeaderBytes: 64 << 10,
		WriteBufferSize:        16 << 10, // a TLS record
		ReadBufferSize:         16 << 10,
	}
	return c
}

// Close closes the connections that no call is using.
func (c *Caller) Close() { c.http.CloseIdleConnections() }

// Call implements transport.Caller. A request is sent once: another address,
// or a new connection, is tried only where none of it can have been executed.
func (c *Caller) Call(ctx context.Context, to transport.Target, req *transport.Request) (*transport.Response, error) {
	if err := transport.CheckRequest(req); err != nil {
		return nil, err
	}
	var sent delivery
	httpReq, err := newRequest(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: sent.gotConn}), to.Device, req)
	if err != nil {
		return nil, err
	}
	c.devices.learn(to)

	resp, err := c.http.RoundTrip(httpReq)
	if err != nil {
		return nil, failure(ctx, to.Device, &sent, err)
	}
	defer resp.Body.Close()
	if err := problem.Read(resp); err != nil {
		return nil, err
	}
	body, err := readBody(resp.Body, resp.ContentLength)
	switch {
	case errors.Is(err, errTooLarge):
		return nil, decant.Errorf(decant.Exhausted, "response of %s/%s: %w", req.Application, req.Component, err)
	case err != nil:
		return nil, failure(ctx, to.Device, &sent, err)
	}
	return &transport.Response{ContentType: resp.Header.Get("Content-Type"), Body: body}, nil
}

func newRequest(ctx context.Context, device string, req *transport.Request) (*http.Request, error) {
	function := req.Function
	switch function {
	case "":
		function = defaultFunction
	case defaultFunction:
		return nil, decant.Errorf(decant.Invalid, "function %q cannot be called over HTTP: its name stands for the default one", function)
	}
	// The device is the host: connections are kept by device, whatever address
	// they go to. A dot is escaped lest ".." be taken for a way up.
	u := "https://" + device + "/v1/apps/" + url.PathEscape(req.Application) + "/" + url.PathEscape(req.Component) + "/" +
		strings.ReplaceAll(url.PathEscape(function), ".", "%2E")
	// A bytes.Reader gives the request a GetBody, with which net/http sends a
	// POST again only if its connection closed before the first byte was written.
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, u, bytes.NewReader(req.Body))
	if err != nil {
		return nil, decant.Errorf(decant.Invalid, "cannot call device %q: %w", device, err)
	}
	set := func(header, value string) {
		if value != "" {
			r.Header[header] = []string{value}
		}
	}
	set("Content-Type", req.ContentType)
	set(headerTrace, req.TraceParent)
	if req.Epoch != 0 {
		set(headerEpoch, strconv.FormatInt(req.Epoch, 10))
	}
	if deadline, ok := ctx.Deadline(); ok {
		wait := min(max(time.Until(deadline).Milliseconds(), 1), math.MaxUint32)
		set(headerTimeout, strconv.FormatInt(wait, 10))
	}
	return r, nil
}

// failure says what err, of a round trip or of reading its answer, means to
// the caller.
func failure(ctx context.Context, device string, sent *delivery, err error) error {
	coded, dialled := errors.AsType[*decant.Error](err)
	switch {
	case ctx.Err() != nil:
		return decant.Errorf(decant.Deadline, "call to device %s ended before its answer: %w", device, ctx.Err())
	case dialled:
		return coded
	case sent.conn == nil:
		return decant.Errorf(decant.Invalid, "cannot call device %s: %w", device, err)
	case sent.refused(err):
		return decant.Errorf(decant.Unavailable, "device %s refused this device's certificate: %w", device, err)
	case !sent.whole():
		return decant.Errorf(decant.Unavailable, "device %s closed the connection before it had the request: %w", device, err)
	}
	return decant.Errorf(decant.Internal, "device %s was lost before its answer, the call may have been executed: %w", device, err)
}

// delivery follows one request to the connection it is sent on, to know after
// a failure whether it can have been executed. net/http calls gotConn from
// RoundTrip itself, so a delivery needs no lock.
type delivery struct {
	conn   *conn
	before int64 // written to conn before the request
	reused bool
}

func (d *delivery) gotConn(info httptrace.GotConnInfo) {
	d.conn, d.reused = info.Conn.(*conn), info.Reused
	d.before = d.conn.written.Load()
}

// whole reports whether the far side may have the whole request. It executes
// nothing before it does.
func (d *delivery) whole() bool {
	return !d.conn.failed.Load() && d.conn.written.Load() > d.before
}

// refused reports whether err is the far side's refusal of our certificate,
// which in TLS 1.3 arrives after our handshake is done.
func (d *delivery) refused(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "remote error" && !d.reused
}

var errTooLarge = errors.New("larger than " + decant.Bytes(transport.MaxBody).String())

// readBody reads a body of length bytes, -1 where that is not known. What is
// promised but not sent takes no more than a mebibyte of memory.
func readBody(r io.Reader, length int64) ([]byte, error) {
	if length > transport.MaxBody {
		return nil, errTooLarge
	}
	if length >= 0 && length <= 1<<20 {
		body := make([]byte, length)
		_, err := io.ReadFull(r, body)
		return body, err
	}
	var body bytes.Buffer
	_, err := body.ReadFrom(io.LimitReader(r, transport.MaxBody+1))
	if body.Len() > transport.MaxBody {
		return nil, errTooLarge
	}
	return body.Bytes(), err
}
