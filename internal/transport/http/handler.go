package httptransport

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/problem"
	"github.com/decant-project/decant/internal/transport"
)

// uploadTimeout bounds how long a request's body may take to arrive.
const (
	uploadTimeout = 5 * time.Minute
	smallBody     = 8 << 10
)

// maxInFlight bounds the bytes of the large bodies that a Handler holds at a
// time, of all callers.
const maxInFlight = 2 * transport.MaxBody

// Handler answers calls by h, mounted at Pattern. h gets the whole request at
// once, and a context that ends when the caller goes or waits no longer.
func Handler(h transport.Handler) http.Handler {
	inFlight := semaphore.NewWeighted(maxInFlight)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer answerPanic(w)
		resp, err := call(h, w, r, inFlight)
		if err != nil {
			problem.Write(w, err)
			return
		}
		header := w.Header()
		header["Content-Type"] = nil // or net/http would guess one
		if resp.ContentType != "" {
			header["Content-Type"] = []string{resp.ContentType}
		}
		header["Content-Length"] = []string{strconv.Itoa(len(resp.Body))}
		_, _ = w.Write(resp.Body) // an error says that the caller has gone
	})
}

func call(h transport.Handler, w http.ResponseWriter, r *http.Request, inFlight *semaphore.Weighted) (*transport.Response, error) {
	req := &transport.Request{
		Application: r.PathValue("app"),
		Component:   r.PathValue("component"),
		Function:    r.PathValue("function"),
		ContentType: r.Header.Get("Content-Type"),
		TraceParent: r.Header.Get(headerTrace),
	}
	if req.Function == defaultFunction {
		req.Function = ""
	}
	var err error
	if s := r.Header.Get(headerEpoch); s != "" {
		if req.Epoch, err = strconv.ParseInt(s, 10, 64); err != nil {
			return nil, decant.Errorf(decant.Invalid, "%s %.40q: must be a number", headerEpoch, s)
		}
	}
	ctx := r.Context()
	if s := r.Header.Get(headerTimeout); s != "" {
		ms, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			return nil, decant.Errorf(decant.Invalid, "%s %.40q: must be a number of milliseconds", headerTimeout, s)
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(ms)*time.Millisecond)
		defer cancel()
	}
	if size := bodySize(r); size > smallBody {
		// net/http takes the deadline back at the body's end; after a failure it
		// must stay, or what is left of the body is waited for without one.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(uploadTimeout))
		if a, ok := h.(transport.Admitter); ok {
			if err := a.Admit(req); err != nil {
				return nil, err
			}
		}
		if !inFlight.TryAcquire(size) {
			return nil, decant.Errorf(decant.Exhausted, "large requests of %s are on their way already", decant.Bytes(maxInFlight))
		}
		defer inFlight.Release(size)
	}
	if req.Body, err = receive(r); err != nil {
		return nil, err
	}
	resp, err := h.Call(ctx, req)
	if err != nil {
		return nil, err
	}
	return resp, transport.CheckResponse(resp)
}

// bodySize returns how large a request's body may be, in bytes.
func bodySize(r *http.Request) int64 {
	if r.ContentLength < 0 || r.ContentLength > transport.MaxBody {
		return transport.MaxBody
	}
	return r.ContentLength
}

func receive(r *http.Request) ([]byte, error) {
	body, err := readBody(r.Body, r.ContentLength)
	switch {
	case errors.Is(err, errTooLarge):
		return nil, decant.Errorf(decant.Invalid, "request: %w", err)
	case err != nil:
		return nil, decant.Errorf(decant.Unavailable, "request did not arrive: %w", err)
	}
	return body, nil
}

// answerPanic tells the caller of a panic, and leaves the rest to net/http: it
// logs the stack and closes the connection; the server lives.
func answerPanic(w http.ResponseWriter) {
	p := recover()
	if p == nil {
		return
	}
	if p != http.ErrAbortHandler { //nolint:errorlint // a panic's value
		problem.Write(w, transport.Panicked())
		_ = http.NewResponseController(w).Flush()
	}
	panic(p)
}
