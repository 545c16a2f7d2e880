// Package problem carries decant's errors over HTTP as RFC 9457 problem
// documents, and back. An error goes in at one end with its code, message and
// help; out comes an error for which errors.Is(err, decant.NotFound) and the
// like still hold. Causes, stacks and whatever else an error may hold stay at
// home.
package problem

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/decant-project/decant"
)

// ContentType is the media type of a problem document.
const ContentType = "application/problem+json"

const (
	typePrefix = "urn:decant:error:"
	maxBody    = 64 << 10 // bytes read of a problem document
	maxText    = 4 << 10  // bytes kept of a message or a help
)

// Problem is an error as it is on the wire. It has the methods that huma wants
// of an error model (StatusError, ContentTypeFilter).
type Problem struct {
	Type   string      `json:"type" doc:"urn:decant:error: and the code"`
	Title  string      `json:"title" doc:"The code in words"`
	Status int         `json:"status" doc:"HTTP status"`
	Detail string      `json:"detail" doc:"What went wrong"`
	Code   decant.Code `json:"code" doc:"What kind of failure it is: invalid, not_found, conflict, denied, infeasible, unsupported, exhausted, unavailable, deadline, guest, corrupt or internal"`
	Help   string      `json:"help,omitempty" doc:"What to do about it"`
}

// statuses gives each code its HTTP status. Several codes may share one: the
// code travels beside it.
var statuses = map[decant.Code]int{
	decant.Invalid:     http.StatusBadRequest,
	decant.NotFound:    http.StatusNotFound,
	decant.Conflict:    http.StatusConflict,
	decant.Denied:      http.StatusForbidden,
	decant.Infeasible:  http.StatusUnprocessableEntity,
	decant.Unsupported: http.StatusNotImplemented,
	decant.Exhausted:   http.StatusTooManyRequests,
	decant.Unavailable: http.StatusServiceUnavailable,
	decant.Deadline:    http.StatusGatewayTimeout,
	decant.GuestFailed: http.StatusBadGateway,
	decant.Corrupt:     http.StatusUnprocessableEntity,
	decant.Internal:    http.StatusInternalServerError,
}

// StatusOf returns the HTTP status for code, 500 for one it does not know.
func StatusOf(code decant.Code) int {
	if s, ok := statuses[code]; ok {
		return s
	}
	return http.StatusInternalServerError
}

// CodeOf returns the code for the status of a response that carries none: a
// proxy's page, or net/http's own answers.
func CodeOf(status int) decant.Code {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired:
		return decant.Denied
	case http.StatusNotFound, http.StatusGone:
		return decant.NotFound
	case http.StatusConflict, http.StatusPreconditionFailed:
		return decant.Conflict
	case http.StatusRequestEntityTooLarge, http.StatusTooManyRequests, http.StatusInsufficientStorage:
		return decant.Exhausted
	case http.StatusNotImplemented:
		return decant.Unsupported
	case http.StatusServiceUnavailable:
		return decant.Unavailable
	case http.StatusRequestTimeout, http.StatusGatewayTimeout:
		return decant.Deadline
	}
	if status >= 400 && status < 500 {
		return decant.Invalid
	}
	return decant.Internal
}

// New returns err as a problem. The end of a context is Deadline; any other
// error without a code is Internal.
func New(err error) *Problem {
	code := decant.CodeOf(err)
	message, help := err.Error(), ""
	if e, ok := errors.AsType[*decant.Error](err); ok && e.Help != "" {
		// What wraps e stays in the message; the help has a place of its own.
		message, help = strings.Replace(message, e.Error(), e.Message, 1), e.Help
	}
	if code == decant.Internal && (errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)) {
		code = decant.Deadline
	}
	return newProblem(StatusOf(code), code, message, help)
}

// NewHumaError makes a problem of what huma has to say, so that huma.NewError
// can be set to it. A decant error among errs speaks for itself; else the
// status decides the code, and errs are details such as which field is wrong.
func NewHumaError(status int, msg string, errs ...error) *Problem {
	for _, err := range errs {
		if hasCode(err) {
			return New(err)
		}
	}
	var details []string
	for _, err := range errs {
		if err != nil {
			details = append(details, err.Error())
		}
	}
	if len(details) > 0 {
		msg += ": " + strings.Join(details, ", ")
	}
	return newProblem(status, CodeOf(status), msg, "")
}

func hasCode(err error) bool {
	if _, ok := errors.AsType[decant.Code](err); ok {
		return true
	}
	_, ok := errors.AsType[*decant.Error](err)
	return ok || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

func newProblem(status int, code decant.Code, detail, help string) *Problem {
	return &Problem{
		Type:   typePrefix + string(code),
		Title:  strings.ReplaceAll(string(code), "_", " "),
		Status: status,
		Detail: decant.Line(detail, maxText),
		Code:   code,
		Help:   decant.Line(help, maxText),
	}
}

// GetStatus returns the HTTP status to answer with.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType turns JSON's media type into that of problems.
func (p *Problem) ContentType(ct string) string {
	if ct == "application/json" {
		return ContentType
	}
	return ct
}

func (p *Problem) Error() string { return p.Unwrap().Error() }

// Unwrap returns p as a *decant.Error, so that errors.Is finds its code.
func (p *Problem) Unwrap() error {
	e := decant.Errorf(p.Code, "%s", p.Detail)
	e.Help = p.Help
	return e
}

// Write answers a request with err. Nothing must have been written to w.
func Write(w http.ResponseWriter, err error) {
	p := New(err)
	body, jsonErr := json.Marshal(p)
	if jsonErr != nil {
		panic(jsonErr) // strings and a number
	}
	h := w.Header()
	h.Set("Content-Type", ContentType)
	h.Set("Cache-Control", "no-store")
	h.Del("Content-Length")
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(body, '\n')) // the caller has gone: nobody to tell
}

// Read returns nil for a response with a status of 2xx, and leaves its body
// alone. Else it returns the error that the response carries, a *decant.Error,
// having read a bounded part of the body. Closing the body is the caller's.
func Read(resp *http.Response) error {
	if resp.StatusCode >= 200 && resp.StatusCode <= 299 {
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	media, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err == nil && media == ContentType {
		var p Problem
		if json.Unmarshal(body, &p) == nil && p.Detail != "" {
			return p.received(resp.StatusCode).Unwrap()
		}
	}
	return newProblem(resp.StatusCode, CodeOf(resp.StatusCode), describe(resp, media, body), "").Unwrap()
}

// Parse returns the error that a problem document holds: one that came other
// than as a response, in a stream of events.
func Parse(data []byte) error {
	var p Problem
	if err := json.Unmarshal(data, &p); err != nil || p.Detail == "" {
		return decant.Errorf(decant.Internal, "an error came that cannot be read: %.100q", data)
	}
	return p.received(http.StatusInternalServerError).Unwrap()
}

// received returns p with all in it bounded and known.
func (p *Problem) received(status int) *Problem {
	code := p.Code
	if !code.Known() {
		code = CodeOf(status)
	}
	return newProblem(status, code, p.Detail, p.Help)
}

// describe says in a line what a response that is no problem document was.
func describe(resp *http.Response, media string, body []byte) string {
	s := fmt.Sprintf("the answer was %d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
	if r := resp.Request; r != nil && r.URL != nil {
		s = fmt.Sprintf("%s %s: %s", r.Method, r.URL.Redacted(), s)
	}
	if first, _, _ := strings.Cut(strings.TrimSpace(string(body)), "\n"); media == "text/plain" && first != "" {
		s += ": " + first
	}
	return s
}
