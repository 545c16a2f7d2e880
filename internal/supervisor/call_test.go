package supervisor

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/transport"
)

func TestOutputFlowsAlongPipes(t *testing.T) {
	for name, c := range map[string]struct {
		module   string
		function string
		pipes    []string
		want     string
		code     decant.Code
	}{
		"no pipe: the output is the response":        {module: "echo", want: "hi"},
		"one pipe: the target's response":            {module: "echo", pipes: []string{"upper"}, want: "HI"},
		"several: in the order of the links":         {module: "echo", pipes: []string{"slow", "upper"}, want: "hiHI"},
		"empty output: nothing flows":                {module: "quiet", pipes: []string{"refuse"}, want: ""},
		"the function by name flows as well":         {module: "echo", function: "run", pipes: []string{"upper"}, want: "HI"},
		"another function answers its caller":        {module: "echo", function: "status", pipes: []string{"upper"}, want: "hi"},
		"a failing guest fails the call":             {module: "refuse", pipes: []string{"upper"}, code: decant.GuestFailed},
		"a failing target fails the call":            {module: "echo", pipes: []string{"refuse"}, code: decant.GuestFailed},
		"one failing target of several fails all":    {module: "echo", pipes: []string{"upper", "refuse", "slow"}, code: decant.GuestFailed},
		"a pipe that leads on: its end answers":      {module: "echo", pipes: []string{"onward"}, want: "HI"},
		"a target that never comes: time runs out":   {module: "echo", pipes: []string{"nobody"}, code: decant.Deadline},
		"quiet target: an empty response, no error":  {module: "echo", pipes: []string{"quiet"}, want: ""},
		"one of several is quiet: the others answer": {module: "echo", pipes: []string{"quiet", "upper"}, want: "HI"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDevice(t)
				d.desire(
					d.spec("entry", c.module+" entry", d.pipeTo(c.pipes...)), d.spec("onward", "echo onward", d.pipeTo("upper")),
					d.spec("upper", "upper"), d.spec("slow", "slow"), d.spec("quiet", "quiet"), d.spec("refuse", "refuse"))
				got, err := d.invoke("entry", c.function, "hi")
				if got != c.want || decant.CodeOf(err) != c.code {
					t.Errorf("%q, %v; want %q, %q", got, err, c.want, c.code)
				}
			})
		})
	}
}

func TestContentTypesOfSeveralResponses(t *testing.T) {
	typed := func(kind string) *transport.Response { return &transport.Response{ContentType: kind} }
	for want, responses := range map[string][]*transport.Response{
		"text/plain":               {typed("text/plain"), typed("text/plain")},
		"application/octet-stream": {typed("text/plain"), typed("application/json")},
	} {
		if got, err := concat(responses); err != nil || got.ContentType != want {
			t.Errorf("%v, %v; want %s", got, err, want)
		}
	}
	big := &transport.Response{Body: make([]byte, transport.MaxBody/2+1)}
	if _, err := concat([]*transport.Response{big, big}); !errors.Is(err, decant.Exhausted) {
		t.Errorf("too large: %v", err)
	}
}

func TestNeighbourAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t)
		back := time.Now().Add(3 * time.Second)
		d.caller.reach = func(_ transport.Target, req *transport.Request) (*transport.Response, error) {
			if time.Now().Before(back) {
				return nil, decant.Errorf(decant.Unavailable, "not there")
			}
			return &transport.Response{Body: []byte("got " + string(req.Body))}, nil
		}
		d.desire(d.spec("a", "count", func(s *decant.InstanceSpec) {
			s.Links = []decant.Route{{Component: "far", Function: "f", Device: "other", Addresses: []string{"x:1"}, Epoch: 7}}
		}))
		if got, err := d.invoke("a", "", "hi"); got != "got 1" || err != nil {
			t.Fatalf("%q, %v", got, err)
		}
		last := d.caller.calls[len(d.caller.calls)-1]
		if last.Epoch != 7 || last.Function != "f" || last.Application != "app" || last.Component != "far" {
			t.Errorf("request %+v", last)
		}
		if c := d.status("a").Calls; c.Count != 1 || c.Failed != 0 || time.Duration(c.P50) < 2*time.Second {
			t.Errorf("stats %+v: the guest must have run once, and the wait must count", c)
		}

		back = time.Now().Add(time.Hour)
		_, err := d.invoke("a", "", "hi")
		if !errors.Is(err, decant.Deadline) || errors.Is(err, decant.Unavailable) { // the guest has executed
			t.Errorf("neighbour away for long: %v", err)
		}

		d.caller.reach = func(transport.Target, *transport.Request) (*transport.Response, error) {
			return nil, decant.Errorf(decant.Exhausted, "full")
		}
		began := time.Now()
		if _, err := d.invoke("a", "", "hi"); !errors.Is(err, decant.Exhausted) || time.Since(began) > 0 {
			t.Errorf("another error must return at once: %v after %s", err, time.Since(began))
		}
	})
}

func TestRoutesChangeWhileItRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t)
		at := func(device string) decant.InstanceSpec {
			return d.spec("a", "echo", func(s *decant.InstanceSpec) {
				s.Links = []decant.Route{{Component: "far", Device: device, Addresses: []string{device + ":1"}}}
			})
		}
		d.caller.reach = func(to transport.Target, _ *transport.Request) (*transport.Response, error) {
			if to.Device == "old" {
				return nil, decant.Errorf(decant.Unavailable, "moved")
			}
			return &transport.Response{Body: []byte(to.Device)}, nil
		}
		d.desire(at("old"))
		answer := make(chan string)
		go func() {
			got, err := d.invoke("a", "", "hi")
			if err != nil {
				got = err.Error()
			}
			answer <- got
		}()
		time.Sleep(time.Second)
		d.desire(at("new"))
		if got := <-answer; got != "new" { // a call under way finds the new place
			t.Errorf("call under way: %s", got)
		}
		if d.host.starts() != "echo" {
			t.Errorf("a changed route restarted the guest: %s", d.host.starts())
		}
	})
}

func TestNamedLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t)
		d.desire(d.spec("up", "upper"), d.spec("a", "link", func(s *decant.InstanceSpec) {
			s.Links = []decant.Route{{Name: "other", Component: "up", Function: "run", Device: d.id}}
		}))
		if got, err := d.invoke("a", "", "hi"); got != "HI" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
		if c := d.host.configs[len(d.host.configs)-1]; len(c.Links) != 1 && len(d.host.configs[0].Links) != 1 {
			t.Errorf("links bound: %v", c.Links)
		}
	})
}

func TestQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t)
		d.host.behave["step"] = func(ctx context.Context, _ *fakeGuest, _ string, in []byte) ([]byte, error) {
			sleep(ctx, time.Millisecond)
			return in, nil
		}
		d.desire(d.spec("a", "step"))
		results := make(chan error, 2*maxQueue)
		for range 2 * maxQueue {
			go func() {
				_, err := d.invoke("a", "", "hi")
				results <- err
			}()
		}
		served := 0
		for range 2 * maxQueue {
			switch err := <-results; {
			case err == nil:
				served++
			case !errors.Is(err, decant.Exhausted):
				t.Error(err)
			}
		}
		if served != maxQueue+1 { // one in the guest, the others waiting
			t.Errorf("%d served, want %d", served, maxQueue+1)
		}
	})
}

func TestCallerCannotEndTheGuest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t)
		d.desire(d.spec("a", "slow"))
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err := d.reach(ctx, decant.Route{Device: d.id, Component: "a"}, &transport.Request{Application: "app", Component: "a", Body: []byte("x")})
		if !errors.Is(err, decant.Deadline) {
			t.Errorf("impatient caller: %v", err)
		}
		// The next one waits until the guest is free, and finds it well.
		if got, err := d.invoke("a", "", "hi"); got != "hi" || err != nil || d.host.starts() != "slow" {
			t.Errorf("%q, %v; started %s", got, err, d.host.starts())
		}
	})
}

func TestWhoIsNotHere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t)
		call := func(component string, epoch int64) decant.Code {
			_, err := d.Call(t.Context(), &transport.Request{Application: "app", Component: component, Epoch: epoch})
			return decant.CodeOf(err)
		}
		if got := call("a", 0); got != decant.Unavailable {
			t.Errorf("before anything is desired: %s", got)
		}
		d.desire(d.spec("a", "quiet", func(s *decant.InstanceSpec) { s.Epoch = 3 }))
		for _, c := range []struct {
			component string
			epoch     int64
			want      decant.Code
		}{{"a", 0, ""}, {"a", 3, ""}, {"a", 2, ""}, {"a", 4, decant.Unavailable}, {"b", 0, decant.NotFound}, {"b", 1, decant.Unavailable}} {
			if got := call(c.component, c.epoch); got != c.want {
				t.Errorf("%s in epoch %d: %q, want %q", c.component, c.epoch, got, c.want)
			}
		}
	})
}

func TestTraceIsCarriedAlong(t *testing.T) {
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	child := childSpan(parent)
	if !strings.HasPrefix(child, parent[:36]) || child == parent || !traceParent.MatchString(child) {
		t.Errorf("child %s", child)
	}
	for _, none := range []string{"", "garbage", strings.ToUpper(parent)} {
		if a, b := childSpan(none), childSpan(none); a[:36] == b[:36] || !traceParent.MatchString(a) {
			t.Errorf("of %q: %s and %s", none, a, b)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t)
		d.caller.reach = func(transport.Target, *transport.Request) (*transport.Response, error) {
			return &transport.Response{}, nil
		}
		d.desire(d.spec("a", "echo", func(s *decant.InstanceSpec) {
			s.Links = []decant.Route{{Component: "far", Device: "x"}, {Component: "side", Device: "y"}}
		}))
		_, err := d.Call(t.Context(), &transport.Request{Application: "app", Component: "a", TraceParent: parent, Body: []byte("x")})
		must(t, err)
		spans := map[string]bool{parent: true}
		for _, c := range d.caller.calls {
			if !strings.HasPrefix(c.TraceParent, parent[:36]) || spans[c.TraceParent] {
				t.Errorf("trace parent of a link: %s", c.TraceParent)
			}
			spans[c.TraceParent] = true
		}
	})
}

func TestTrigger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t)
		d.mic.samples = []string{"a", "b", "c"}
		away := time.Now().Add(time.Minute)
		d.caller.reach = func(_ transport.Target, req *transport.Request) (*transport.Response, error) {
			if time.Now().Before(away) && string(req.Body) == "b" {
				return nil, decant.Errorf(decant.Unavailable, "not there")
			}
			return &transport.Response{}, nil
		}
		triggered := d.spec("a", "echo", func(s *decant.InstanceSpec) {
			s.Peripherals, s.Trigger = []string{"mic"}, &decant.Trigger{Peripheral: "mic"}
			s.Links = []decant.Route{{Component: "far", Device: "x"}}
		})
		d.desire(triggered)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		var delivered []string
		for _, c := range d.caller.calls {
			if n := len(delivered); n == 0 || delivered[n-1] != string(c.Body) {
				delivered = append(delivered, string(c.Body))
			}
		}
		if got := strings.Join(delivered, " "); got != "a b c" {
			t.Errorf("delivered %s", got)
		}
		got := *d.status("a").Trigger // b's time ran out
		if want := (decant.TriggerStats{Samples: 3, Failed: 1, Ended: true}); got != want {
			t.Errorf("stats %+v, want %+v", got, want)
		}
		d.desire()
		if d.mic.closed != 1 {
			t.Errorf("the peripheral was closed %d times", d.mic.closed)
		}
	})
}

func TestTriggerTriesTheSampleAgainThatWasNotExecuted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t)
		d.mic.forever = true
		d.mic.samples = []string{"trap", "next"}
		d.host.behave["trap"] = func(_ context.Context, g *fakeGuest, _ string, in []byte) ([]byte, error) {
			if string(in) == "trap" {
				g.lost = true
				d.host.mu.Lock()
				d.host.fail["start trap"] = errors.New("no memory") // so the next call is refused for a while
				d.host.mu.Unlock()
				return nil, decant.Errorf(decant.GuestFailed, "trapped")
			}
			return nil, g.config.Devices["screen"].Write(context.Background(), in)
		}
		d.desire(d.spec("a", "trap", func(s *decant.InstanceSpec) {
			s.Peripherals, s.Trigger = []string{"mic", "screen"}, &decant.Trigger{Peripheral: "mic"}
		}))
		d.wantState("a", decant.InstanceFailed)
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := strings.Join(d.screen.written, " "); got != "next" {
			t.Errorf("written %q", got)
		}
		if got := *d.status("a").Trigger; got.Samples != 2 || got.Failed != 1 {
			t.Errorf("stats %+v", got)
		}
	})
}
