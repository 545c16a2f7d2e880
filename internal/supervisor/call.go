package supervisor

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/transport"
)

// Pauses between the attempts to reach the target of a link.
const (
	reachFirst = 20 * time.Millisecond
	reachMost  = time.Second
)

// Call calls an instance of this device, for callers of other devices and of
// this one alike. It returns when the guest has answered, though the caller may
// have gone before. Where the instance is unknown the answer is Unavailable for a
// caller that was sent here by a route, for it may come yet and nothing was
// executed, and NotFound for others.
func (s *Supervisor) Call(ctx context.Context, req *transport.Request) (*transport.Response, error) {
	if in := s.instance(req.Application + "/" + req.Component); in != nil {
		return in.call(ctx, req)
	}
	return nil, s.absent(req)
}

// Admit implements transport.Admitter: it looks whether the instance is here and
// has room for one more call.
func (s *Supervisor) Admit(req *transport.Request) error {
	in := s.instance(req.Application + "/" + req.Component)
	if in == nil {
		return s.absent(req)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.admitLocked(req.Epoch)
}

// absent is the error of a call of an instance that is not here.
func (s *Supervisor) absent(req *transport.Request) error {
	key := req.Application + "/" + req.Component
	if req.Epoch > 0 || !s.settled() {
		return decant.Errorf(decant.Unavailable, "%s is not here yet", key)
	}
	return decant.Errorf(decant.NotFound, "%s does not run on %s", key, s.config.Name)
}

// call calls a function of the instance's guest, and hands its output along the
// pipes if the function is the component's own choice. The caller's ctx bounds
// waiting and links; the guest, once called, is ended by the instance's
// deadline alone, so that no caller can make it lose its memory.
func (in *instance) call(ctx context.Context, req *transport.Request) (*transport.Response, error) {
	began := time.Now()
	guest, spec, err := in.take(ctx, req.Epoch)
	if err != nil {
		return nil, err
	}
	if len(spec.Links) > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(withSpan(ctx, req.TraceParent), began.Add(spec.Deadline.Or(defaultDeadline)))
		defer cancel()
	}
	out, err := in.execute(ctx, guest, spec, req)
	if err == nil && (req.Function == "" || req.Function == spec.Function) {
		out, err = in.flow(ctx, spec, out)
	}
	in.stats.add(time.Since(began), err)
	if err != nil {
		in.noteFailed(err)
	}
	return out, err
}

// take waits for the guest's turn. Its errors mean that nothing was executed:
// Exhausted when too many wait, else Unavailable.
func (in *instance) take(ctx context.Context, epoch int64) (Guest, decant.InstanceSpec, error) {
	guest, down, err := in.enqueue(epoch)
	if err != nil {
		return nil, decant.InstanceSpec{}, err
	}
	if guest == nil {
		ctx, cancel := context.WithTimeout(ctx, in.deadline())
		defer cancel()
		select {
		case guest = <-in.slot:
		case <-down:
			err = decant.Errorf(decant.Unavailable, "%s is being stopped", in.key)
		case <-ctx.Done():
			err = decant.Errorf(decant.Unavailable, "%s: the call did not get its turn in time", in.key)
		}
		in.mu.Lock()
		in.queued--
		in.mu.Unlock()
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	return guest, in.spec, err // the spec of now: it may have changed while the call waited
}

func (in *instance) deadline() time.Duration {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.spec.Deadline.Or(defaultDeadline)
}

// enqueue returns the guest if it is free, and else counts the call among those
// that wait until down is closed.
func (in *instance) enqueue(epoch int64) (guest Guest, down chan struct{}, err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if err := in.admitLocked(epoch); err != nil {
		return nil, nil, err
	}
	select {
	case guest = <-in.slot:
		return guest, nil, nil
	default:
	}
	in.queued++
	return nil, in.down, nil
}

// admitLocked returns why a call cannot be taken, if it cannot; mu is held.
func (in *instance) admitLocked(epoch int64) error {
	switch {
	case !in.servingLocked():
		return decant.Errorf(decant.Unavailable, "%s is %s", in.key, in.state)
	case epoch > in.spec.Epoch:
		return decant.Errorf(decant.Unavailable, "%s is here in epoch %d, not yet %d", in.key, in.spec.Epoch, epoch)
	case in.queued == maxQueue:
		return decant.Errorf(decant.Exhausted, "%s: %d calls wait already", in.key, maxQueue)
	}
	return nil
}

// execute runs one function in the guest and gives the guest back. It does so in
// the caller's own goroutine: a switch to another would cost more than the call.
func (in *instance) execute(ctx context.Context, guest Guest, spec decant.InstanceSpec, req *transport.Request) (*transport.Response, error) {
	function := req.Function
	if function == "" {
		function = spec.Function
	}
	in.busy.Add(1)
	defer in.busy.Done()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), spec.Deadline.Or(defaultDeadline))
	defer cancel()
	defer context.AfterFunc(in.sup.kill, cancel)()
	body, err := guest.Call(ctx, function, req.Body)
	if guest.Lost() {
		in.lose()
	} else {
		in.slot <- guest
	}
	switch {
	case errors.Is(err, decant.Unavailable): // it means that nothing was executed
		return nil, decant.Errorf(decant.Internal, "%s was stopped in the middle of a call: %v", in.key, err)
	case err != nil:
		return nil, err
	}
	return &transport.Response{ContentType: contentType(spec, function), Body: body}, nil
}

// lose tells run that the guest is gone, and calls it from whatever it does:
// calls wait for the next guest.
func (in *instance) lose() {
	in.lost <- struct{}{}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.abandon()
}

func contentType(spec decant.InstanceSpec, function string) string {
	if out := spec.Functions[function].Out; out != "" {
		return out
	}
	return "application/octet-stream"
}

// flow hands out along spec's pipes, at once where there are several, and
// returns the responses of their targets, one after the other in the order of
// the links. Nothing flows of empty output. Any failure is the call's, after
// all pipes have ended.
func (in *instance) flow(ctx context.Context, spec decant.InstanceSpec, out *transport.Response) (*transport.Response, error) {
	pipes := slices.DeleteFunc(slices.Clone(spec.Links), func(r decant.Route) bool { return r.Name != "" })
	if len(pipes) == 0 || len(out.Body) == 0 {
		return out, nil
	}
	responses := make([]*transport.Response, len(pipes))
	var all errgroup.Group
	for i, pipe := range pipes {
		all.Go(func() (err error) {
			responses[i], err = in.send(ctx, pipe, out)
			return err
		})
	}
	if err := all.Wait(); err != nil {
		return nil, err
	}
	return concat(responses)
}

func concat(responses []*transport.Response) (*transport.Response, error) {
	all := &transport.Response{ContentType: responses[0].ContentType}
	bodies := make([][]byte, len(responses))
	size := 0
	for i, r := range responses {
		if r.ContentType != all.ContentType {
			all.ContentType = "application/octet-stream"
		}
		bodies[i] = r.Body
		size += len(r.Body)
	}
	if size > transport.MaxBody {
		return nil, decant.Errorf(decant.Exhausted, "the responses of %d links are larger than %s together", len(responses), decant.Bytes(transport.MaxBody))
	}
	if len(bodies) == 1 {
		return responses[0], nil
	}
	all.Body = bytes.Join(bodies, nil)
	return all, nil
}

// callLink is what a guest does at /link/<name>; ctx is that of its call.
func (in *instance) callLink(ctx context.Context, name string, request []byte) ([]byte, error) {
	in.mu.Lock()
	i := slices.IndexFunc(in.spec.Links, func(r decant.Route) bool { return r.Name == name })
	var route decant.Route
	if i >= 0 {
		route = in.spec.Links[i]
	}
	in.mu.Unlock()
	if i < 0 {
		return nil, decant.Errorf(decant.NotFound, "%s has no link %q", in.key, name)
	}
	resp, err := in.send(ctx, route, &transport.Response{ContentType: "application/octet-stream", Body: request})
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// send calls a link's target, again and again while it is not there, at the
// place it is known to have then. It never returns Unavailable: this instance
// has executed something, so calling it again is not safe.
func (in *instance) send(ctx context.Context, link decant.Route, out *transport.Response) (*transport.Response, error) {
	app, _, _ := strings.Cut(in.key, "/")
	pause := backoff{first: reachFirst, most: reachMost}
	for {
		route := in.place(link)
		resp, err := in.sup.reach(ctx, route, &transport.Request{
			Application: app,
			Component:   route.Component,
			Function:    route.Function,
			ContentType: out.ContentType,
			TraceParent: childSpan(spanOf(ctx)),
			Epoch:       route.Epoch,
			Body:        out.Body,
		})
		if !errors.Is(err, decant.Unavailable) {
			return resp, err
		}
		if !sleep(ctx, pause.next()) {
			return nil, decant.Errorf(decant.Deadline, "%s could not hand its output to %s in time: %v", in.key, route.Component, err)
		}
	}
}

// place returns the newest route of a link: its target may have moved since the
// call began.
func (in *instance) place(link decant.Route) decant.Route {
	for _, s := range in.specs() {
		for _, r := range s.Links {
			if r.Name == link.Name && r.Component == link.Component {
				return r
			}
		}
	}
	return link
}

// reach calls the target of a route: in this process where it is on this
// device, with the same meaning.
func (s *Supervisor) reach(ctx context.Context, r decant.Route, req *transport.Request) (*transport.Response, error) {
	if r.Device != s.id {
		return s.parts.Caller.Call(ctx, transport.Target{Device: r.Device, Addresses: r.Addresses}, req)
	}
	type answer struct {
		resp *transport.Response
		err  error
	}
	answered := make(chan answer, 1)
	go func() {
		resp, err := s.Call(ctx, req)
		answered <- answer{resp, err}
	}()
	select {
	case a := <-answered:
		return a.resp, a.err
	case <-ctx.Done():
		return nil, decant.Errorf(decant.Deadline, "%s did not answer in time", r.Component)
	}
}

// noteFailed makes an event of a failed call, a few a minute at most.
func (in *instance) noteFailed(err error) {
	if more, ok := in.noted.allow(); ok {
		in.log.Remark("a call failed (%d more since the last remark): %v", more, err)
		in.sup.event("instance.call-failed", in.key, err.Error())
	}
}
