// Package transporttest is what every transport must do: a suite that each
// implementation of transport.Caller runs against its far side.
package transporttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/transport"
)

// Net is a transport under test.
type Net struct {
	Caller transport.Caller
	// Serve makes h reachable as device and returns its address. stop ends it
	// the way a crash does, calls under way included, and waits for them; it
	// may be called twice.
	Serve func(t testing.TB, device string, h transport.Handler) (addr string, stop func())
}

// HandlerFunc is a transport.Handler of one function.
type HandlerFunc func(ctx context.Context, req *transport.Request) (*transport.Response, error)

// Call implements transport.Handler.
func (f HandlerFunc) Call(ctx context.Context, req *transport.Request) (*transport.Response, error) {
	return f(ctx, req)
}

// Echo answers a request with its own body.
var Echo = HandlerFunc(func(_ context.Context, req *transport.Request) (*transport.Response, error) {
	return &transport.Response{ContentType: req.ContentType, Body: req.Body}, nil
})

// Run runs the suite. start gives a fresh transport for each test.
func Run(t *testing.T, start func(t testing.TB) Net) {
	for _, tt := range []struct {
		name string
		test func(t *testing.T, n Net)
	}{
		{"Bodies", testBodies},
		{"TooLarge", testTooLarge},
		{"Fields", testFields},
		{"NotSendable", testNotSendable},
		{"Codes", testCodes},
		{"HandlerWithoutCode", testHandlerWithoutCode},
		{"Deadline", testDeadline},
		{"DeadlineEnds", testDeadlineEnds},
		{"Cancel", testCancel},
		{"Concurrent", testConcurrent},
		{"WrongDevice", testWrongDevice},
		{"Unreachable", testUnreachable},
		{"NextAddress", testNextAddress},
		{"Panic", testPanic},
		{"KilledMidway", testKilledMidway},
		{"Restarted", testRestarted},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.test(t, start(t)) })
	}
}

const device = "board-1"

// serve returns a target at which h answers until the test ends.
func (n Net) serve(t *testing.T, h HandlerFunc) transport.Target {
	t.Helper()
	addr, stop := n.Serve(t, device, h)
	t.Cleanup(stop)
	return transport.Target{Device: device, Addresses: []string{addr}}
}

func request(body []byte) *transport.Request {
	return &transport.Request{Application: "app", Component: "part", Function: "run", ContentType: "text/plain", Body: body}
}

func wantCode(t *testing.T, err error, want decant.Code) {
	t.Helper()
	if !errors.Is(err, want) || decant.CodeOf(err) != want {
		t.Errorf("got %v (%s), want %s", err, decant.CodeOf(err), want)
	}
}

func testBodies(t *testing.T, n Net) {
	to := n.serve(t, Echo)
	for _, size := range []int{0, 1, 1 << 10, 1<<20 - 1, 1 << 20, 3 << 20} {
		body := bytes.Repeat([]byte{0, 'x', 0xff, '\r', '\n', '<'}, size/6+1)[:size]
		resp, err := n.Caller.Call(t.Context(), to, request(body))
		if err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		if !bytes.Equal(resp.Body, body) {
			t.Errorf("%d bytes: came back as %d others", size, len(resp.Body))
		}
	}
}

func testTooLarge(t *testing.T, n Net) {
	var executed atomic.Int64
	to := n.serve(t, func(_ context.Context, req *transport.Request) (*transport.Response, error) {
		executed.Add(1)
		return &transport.Response{Body: make([]byte, transport.MaxBody+len(req.Body))}, nil
	})
	_, err := n.Caller.Call(t.Context(), to, request(make([]byte, transport.MaxBody+1)))
	wantCode(t, err, decant.Invalid)
	if executed.Load() != 0 {
		t.Error("a request that is too large was executed")
	}
	_, err = n.Caller.Call(t.Context(), to, request([]byte("x")))
	wantCode(t, err, decant.Exhausted)

	if resp, err := n.Caller.Call(t.Context(), to, request(nil)); err != nil || len(resp.Body) != transport.MaxBody {
		t.Errorf("largest response: %v", err)
	}
}

func testFields(t *testing.T, n Net) {
	var got transport.Request
	to := n.serve(t, func(_ context.Context, req *transport.Request) (*transport.Response, error) {
		got = *req
		got.Body = nil
		return &transport.Response{ContentType: req.ContentType}, nil
	})
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for _, want := range []transport.Request{
		{Application: "app", Component: "part", Function: "run", ContentType: "audio/L16; rate=16000", TraceParent: trace, Epoch: 7},
		{Application: "app", Component: "part"},
		{Application: "app", Component: "part", Function: "_start"},
		{Application: "app", Component: "part", Function: "a/b?c#d %2F é"},
		{Application: "app", Component: "part", Function: ".."},
		{Application: "app", Component: "part", Function: ".", Epoch: 1<<63 - 1},
	} {
		resp, err := n.Caller.Call(t.Context(), to, &want)
		if err != nil {
			t.Errorf("%+v: %v", want, err)
			continue
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
		if resp.ContentType != want.ContentType {
			t.Errorf("response of type %q, want %q", resp.ContentType, want.ContentType)
		}
	}
}

func testNotSendable(t *testing.T, n Net) {
	to := n.serve(t, Echo)
	for _, req := range []transport.Request{
		{Component: "part"},
		{Application: "app"},
		{Application: "app", Component: "part", ContentType: "text/plain\r\nHost: other"},
		{Application: "app", Component: "part", TraceParent: "00\n"},
	} {
		_, err := n.Caller.Call(t.Context(), to, &req)
		wantCode(t, err, decant.Invalid)
	}
}

func testCodes(t *testing.T, n Net) {
	to := n.serve(t, func(_ context.Context, req *transport.Request) (*transport.Response, error) {
		return nil, fmt.Errorf("cannot run: %w", decant.Errorf(decant.Code(req.Body), "it is %s", req.Body).WithHelp("try %d", 2))
	})
	for _, code := range []decant.Code{
		decant.Invalid, decant.NotFound, decant.Conflict, decant.Denied, decant.Infeasible, decant.Unsupported,
		decant.Exhausted, decant.Unavailable, decant.Deadline, decant.GuestFailed, decant.Corrupt, decant.Internal,
	} {
		_, err := n.Caller.Call(t.Context(), to, request([]byte(code)))
		wantCode(t, err, code)
		e, ok := errors.AsType[*decant.Error](err)
		if !ok || e.Message != "cannot run: it is "+string(code) || e.Help != "try 2" {
			t.Errorf("%s: got %#v", code, err)
		}
	}
}

func testHandlerWithoutCode(t *testing.T, n Net) {
	to := n.serve(t, func(_ context.Context, req *transport.Request) (*transport.Response, error) {
		if len(req.Body) == 0 {
			return nil, fmt.Errorf("own limit: %w", context.DeadlineExceeded)
		}
		return nil, errors.New("first line\nsecond line")
	})
	_, err := n.Caller.Call(t.Context(), to, request(nil))
	wantCode(t, err, decant.Deadline)
	_, err = n.Caller.Call(t.Context(), to, request([]byte("x")))
	wantCode(t, err, decant.Internal)
	if err == nil || err.Error() != "first line second line" {
		t.Errorf("got %v", err)
	}
}

func testDeadline(t *testing.T, n Net) {
	var left time.Duration
	var has bool
	to := n.serve(t, func(ctx context.Context, _ *transport.Request) (*transport.Response, error) {
		var at time.Time
		at, has = ctx.Deadline()
		left = time.Until(at)
		return &transport.Response{}, nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	if _, err := n.Caller.Call(ctx, to, request(nil)); err != nil || left < 59*time.Minute || left > time.Hour {
		t.Errorf("%v left of an hour, %v", left, err)
	}
	if _, err := n.Caller.Call(context.WithoutCancel(ctx), to, request(nil)); err != nil || has {
		t.Errorf("has a deadline: %v, %v", has, err)
	}
}

func testDeadlineEnds(t *testing.T, n Net) {
	to := n.serve(t, func(ctx context.Context, _ *transport.Request) (*transport.Response, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := n.Caller.Call(ctx, to, request(nil))
	wantCode(t, err, decant.Deadline)

	_, err = n.Caller.Call(ctx, to, request(nil)) // already over
	wantCode(t, err, decant.Deadline)
}

func testCancel(t *testing.T, n Net) {
	ctx, cancel := context.WithCancel(t.Context())
	reached := make(chan error, 1)
	to := n.serve(t, func(ctx context.Context, _ *transport.Request) (*transport.Response, error) {
		cancel()
		<-ctx.Done()
		reached <- ctx.Err()
		return nil, ctx.Err()
	})
	_, err := n.Caller.Call(ctx, to, request([]byte("x")))
	wantCode(t, err, decant.Deadline)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want one that is context.Canceled", err)
	}
	if err := <-reached; err == nil {
		t.Error("the handler's context has not ended")
	}
}

func testConcurrent(t *testing.T, n Net) {
	to := n.serve(t, Echo)
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			for k := range 8 {
				body := bytes.Repeat(fmt.Appendf(nil, "%d-%d ", i, k), 1000)
				if resp, err := n.Caller.Call(t.Context(), to, request(body)); err != nil || !bytes.Equal(resp.Body, body) {
					t.Errorf("call %d-%d: %v", i, k, err)
				}
			}
		})
	}
	wg.Wait()
}

func testWrongDevice(t *testing.T, n Net) {
	addr, stop := n.Serve(t, "board-2", HandlerFunc(func(context.Context, *transport.Request) (*transport.Response, error) {
		t.Error("executed by another device")
		return &transport.Response{}, nil
	}))
	defer stop()
	_, err := n.Caller.Call(t.Context(), transport.Target{Device: device, Addresses: []string{addr}}, request(nil))
	wantCode(t, err, decant.Denied)

	// Among the addresses of a device may be one that is now somebody else's.
	to := n.serve(t, Echo)
	to.Addresses = []string{addr, to.Addresses[0]}
	if _, err := n.Caller.Call(t.Context(), to, request(nil)); err != nil {
		t.Errorf("with the right one second: %v", err)
	}
}

func testUnreachable(t *testing.T, n Net) {
	addr, stop := n.Serve(t, device, Echo)
	stop()
	for _, addresses := range [][]string{nil, {addr}, {addr, addr}} {
		_, err := n.Caller.Call(t.Context(), transport.Target{Device: device, Addresses: addresses}, request(nil))
		wantCode(t, err, decant.Unavailable)
	}
	other, stop := n.Serve(t, "board-2", Echo)
	defer stop()
	_, err := n.Caller.Call(t.Context(), transport.Target{Device: device, Addresses: []string{other, addr}}, request(nil))
	wantCode(t, err, decant.Unavailable) // it may come back where it was
	if errors.Is(err, decant.Denied) {
		t.Errorf("%v is Denied too", err)
	}
}

func testNextAddress(t *testing.T, n Net) {
	dead, stop := n.Serve(t, device, Echo)
	stop()
	var executed atomic.Int64
	to := n.serve(t, func(context.Context, *transport.Request) (*transport.Response, error) {
		executed.Add(1)
		return &transport.Response{}, nil
	})
	good := to.Addresses[0]
	for _, to.Addresses = range [][]string{{dead, good}, {good, dead}, {dead, dead, good}} {
		if _, err := n.Caller.Call(t.Context(), to, request([]byte("x"))); err != nil {
			t.Errorf("%v: %v", to.Addresses, err)
		}
	}
	if executed.Load() != 3 {
		t.Errorf("3 calls were executed %d times", executed.Load())
	}
}

func testPanic(t *testing.T, n Net) {
	to := n.serve(t, func(_ context.Context, req *transport.Request) (*transport.Response, error) {
		if len(req.Body) > 0 {
			panic("expected by the test")
		}
		return &transport.Response{}, nil
	})
	_, err := n.Caller.Call(t.Context(), to, request([]byte("x")))
	wantCode(t, err, decant.Internal)
	if _, err := n.Caller.Call(t.Context(), to, request(nil)); err != nil {
		t.Errorf("after the panic: %v", err)
	}
}

// A call that was begun is not repeated: neither at the same address nor at the
// next one, neither on a new connection nor on one that was kept.
func testKilledMidway(t *testing.T, n Net) {
	for _, warm := range []bool{false, true} {
		for _, body := range [][]byte{nil, []byte("x"), make([]byte, 1<<20)} {
			var executed atomic.Int64
			var kill func()
			killed := make(chan struct{})
			dies := HandlerFunc(func(ctx context.Context, req *transport.Request) (*transport.Response, error) {
				if req.Function == "warm" {
					return &transport.Response{}, nil
				}
				executed.Add(1)
				go func() {
					defer close(killed)
					kill()
				}()
				<-ctx.Done()
				return nil, ctx.Err()
			})
			first, stop := n.Serve(t, device, dies)
			kill = stop
			second := n.serve(t, func(context.Context, *transport.Request) (*transport.Response, error) {
				executed.Add(1)
				return &transport.Response{}, nil
			})
			to := transport.Target{Device: device, Addresses: []string{first, second.Addresses[0]}}
			if warm {
				if _, err := n.Caller.Call(t.Context(), to, &transport.Request{Application: "app", Component: "part", Function: "warm"}); err != nil {
					t.Fatal(err)
				}
			}
			_, err := n.Caller.Call(t.Context(), to, request(body))
			wantCode(t, err, decant.Internal)
			<-killed
			if executed.Load() != 1 {
				t.Errorf("executed %d times (warm %v, %d bytes)", executed.Load(), warm, len(body))
			}
		}
	}
}

// A device that went away and came back elsewhere is found again, and calls on
// the way are executed once or reported as lost.
func testRestarted(t *testing.T, n Net) {
	var executed atomic.Int64
	count := HandlerFunc(func(context.Context, *transport.Request) (*transport.Response, error) {
		executed.Add(1)
		return &transport.Response{}, nil
	})
	var answered, lost int64
	for range 20 {
		addr, stop := n.Serve(t, device, count)
		to := transport.Target{Device: device, Addresses: []string{addr}}
		for range 3 {
			switch _, err := n.Caller.Call(t.Context(), to, request([]byte("x"))); decant.CodeOf(err) {
			case "":
				answered++
			case decant.Unavailable:
			case decant.Internal:
				lost++
			default:
				t.Errorf("got %v", err)
			}
		}
		stop()
	}
	if got := executed.Load(); got < answered || got > answered+lost || answered < 20 {
		t.Errorf("%d answered, %d lost, %d executed", answered, lost, got)
	}
}
