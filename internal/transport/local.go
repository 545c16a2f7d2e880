package transport

import (
	"context"
	"log/slog"
	"runtime/debug"
	"strings"
	"sync"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/problem"
)

// Local is a Caller to handlers of this process, under addresses of any form.
// It behaves as a network does: only bytes, codes and messages come through.
// Bodies are not copied, so neither side may change one. The zero Local is
// ready for use.
type Local struct {
	mu     sync.Mutex
	served map[string]*served // by address
}

type served struct {
	device  string
	handler Handler
	ctx     context.Context // ends when it is stopped
	calls   sync.WaitGroup  // under way; added to under Local.mu
}

// Serve makes h reachable at addr as device, until stop is called: that ends the
// contexts of calls under way and waits for them.
func (l *Local) Serve(addr, device string, h Handler) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.served == nil {
		l.served = map[string]*served{}
	}
	s := &served{device: device, handler: h, ctx: ctx}
	l.served[addr] = s
	return func() {
		l.mu.Lock()
		if l.served[addr] == s {
			delete(l.served, addr)
		}
		l.mu.Unlock()
		cancel()
		s.calls.Wait()
	}
}

// Call implements Caller. It returns when the handler does.
func (l *Local) Call(ctx context.Context, to Target, req *Request) (*Response, error) {
	if err := CheckRequest(req); err != nil {
		return nil, err
	}
	s, err := l.reach(to)
	if err != nil {
		return nil, err
	}
	defer s.calls.Done()
	return s.call(ctx, req)
}

// reach finds the target and notes a call of it.
func (l *Local) reach(to Target) (*served, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	others := 0
	for _, addr := range to.Addresses {
		s := l.served[addr]
		if s != nil && s.device == to.Device {
			s.calls.Add(1)
			return s, nil
		}
		if s != nil {
			others++
		}
	}
	code := decant.Unavailable
	if others > 0 && others == len(to.Addresses) {
		code = decant.Denied
	}
	return nil, decant.Errorf(code, "cannot reach device %s at %s", to.Device, strings.Join(to.Addresses, ", "))
}

func (s *served) call(caller context.Context, req *Request) (*Response, error) {
	ctx, cancel := context.WithCancel(caller)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()

	own := *req // the handler may change it
	resp, err := s.run(ctx, &own)
	switch {
	case err == nil:
		return resp, nil
	case caller.Err() != nil:
		return nil, decant.Errorf(decant.Deadline, "call of %s/%s ended before its answer: %w", req.Application, req.Component, caller.Err())
	case s.ctx.Err() != nil:
		return nil, decant.Errorf(decant.Internal, "device %s stopped during the call, which may have been executed", s.device)
	}
	return nil, problem.New(err).Unwrap()
}

// run calls the handler and turns a panic into an error, as a server would.
func (s *served) run(ctx context.Context, req *Request) (resp *Response, err error) {
	defer func() {
		if p := recover(); p != nil {
			slog.ErrorContext(ctx, "handler panicked", "panic", p, "stack", string(debug.Stack()))
			err = Panicked()
		}
	}()
	resp, err = s.handler.Call(ctx, req)
	if err != nil {
		return nil, err
	}
	return resp, CheckResponse(resp)
}
