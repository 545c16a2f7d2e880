// Package transport is how one component's call reaches another, whatever
// carries it. Caller and Handler are one contract: what a Handler returns is
// what the Caller's user gets, bytes and error codes alike, in one process or
// over HTTP. transporttest has the suite that each implementation passes.
package transport

import (
	"context"
	"strings"
	"unicode"

	"github.com/decant-project/decant"
)

// MaxBody bounds a request and a response, in bytes.
const MaxBody = 64 << 20

// Admitter is a Handler that tells before a request's body has come whether
// the call would be refused anyway; req has no body yet.
type Admitter interface {
	Admit(req *Request) error
}

// Request is a call of a function of an instance.
type Request struct {
	Application string
	Component   string
	Function    string // "" is the component's own choice
	ContentType string
	TraceParent string // W3C trace context, carried along every link
	Epoch       int64  // lowest epoch of the instance that may answer; 0 is any
	Body        []byte // at most MaxBody
}

// Response is the answer to a Request.
type Response struct {
	ContentType string
	Body        []byte // at most MaxBody
}

// Target is where a Request goes: the device whose certificate must be shown,
// and the addresses, host:port, to try in order.
type Target struct {
	Device    string
	Addresses []string
}

// Handler answers calls. Its errors carry a decant.Code, which reaches the
// caller.
type Handler interface {
	Call(ctx context.Context, req *Request) (*Response, error)
}

// Caller sends calls. It returns the Handler's error, or:
//
//   - decant.Unavailable: the target was not reached, or answered before it
//     executed anything; calling again is safe
//   - decant.Deadline: ctx ended; the call may have been executed
//   - decant.Denied: the target is not the device it should be
//   - decant.Internal: the answer was lost midway; the call may have been executed
type Caller interface {
	Call(ctx context.Context, to Target, req *Request) (*Response, error)
}

// CheckRequest returns an Invalid error for a request that no Caller sends.
func CheckRequest(req *Request) error {
	switch {
	case req.Application == "" || req.Component == "":
		return decant.Errorf(decant.Invalid, "call of %q/%q: name an application and a component", req.Application, req.Component)
	case strings.ContainsFunc(req.ContentType+req.TraceParent, unicode.IsControl):
		return decant.Errorf(decant.Invalid, "call of %s/%s: content type %q and trace parent %q must be plain text", req.Application, req.Component, req.ContentType, req.TraceParent)
	case len(req.Body) > MaxBody:
		return decant.Errorf(decant.Invalid, "request of %d bytes to %s/%s: can be %s at most", len(req.Body), req.Application, req.Component, decant.Bytes(MaxBody))
	}
	return nil
}

// CheckResponse returns an Exhausted error for a response that no Handler's
// caller gets.
func CheckResponse(resp *Response) error {
	if len(resp.Body) > MaxBody {
		return decant.Errorf(decant.Exhausted, "response of %d bytes: can be %s at most", len(resp.Body), decant.Bytes(MaxBody))
	}
	return nil
}

// Panicked is what a caller is told when the handler panicked.
func Panicked() error {
	return decant.Errorf(decant.Internal, "the device failed while it handled the call, which may have been executed").WithHelp("see the device's log")
}
