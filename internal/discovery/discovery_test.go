package discovery

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"

	"github.com/decant-project/decant"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// watch browses in the background and gathers the news, in a bubble.
type watch struct {
	got    []string
	stop   func()
	gate   chan struct{} // where it is not nil, each waits for an element
	events []Event
}

func browse(t *testing.T, d Discoverer, kind string, gate chan struct{}) *watch {
	t.Helper()
	w := &watch{gate: gate}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		ended <- d.Browse(ctx, kind, func(e Event) {
			w.events = append(w.events, e)
			w.got = append(w.got, describe(e))
			if w.gate != nil {
				<-w.gate
			}
		})
	}()
	w.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("browsing ended with %v", err)
		}
	}
	synctest.Wait()
	return w
}

func describe(e Event) string {
	if e.Lost {
		return "-" + e.Service.ID
	}
	s := "+" + e.Service.ID + "@" + strings.Join(e.Service.Addresses, ",")
	for _, k := range slices.Sorted(maps.Keys(e.Service.Text)) {
		s += " " + k + "=" + e.Service.Text[k]
	}
	return s
}

// news returns what was heard since the last time.
func (w *watch) news() string {
	synctest.Wait()
	defer func() { w.got = nil }()
	return strings.Join(w.got, "; ")
}

func advertise(t *testing.T, d Discoverer, s Service) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- d.Advertise(ctx, s) }()
	synctest.Wait()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("advertising ended with %v", err)
		}
		synctest.Wait()
	}
}

func want(t *testing.T, w *watch, news string) {
	t.Helper()
	if got := w.news(); got != news {
		t.Errorf("heard %q, want %q", got, news)
	}
}

func device(id string, text map[string]string) Service {
	return Service{Kind: Devices, ID: id, Port: 7444, Addresses: []string{"192.0.2.1:7444"}, Text: text}
}

func TestMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m Memory
		first := browse(t, &m, Devices, nil)
		others := browse(t, &m, Orchestrators, nil)
		want(t, first, "")

		stopA := advertise(t, &m, device("a", map[string]string{"k": "v"}))
		want(t, first, "+a@192.0.2.1:7444 k=v")
		stopB := advertise(t, &m, Service{Kind: Devices, ID: "b", Port: 1})
		want(t, first, "+b@127.0.0.1:1")

		late := browse(t, &m, Devices, nil) // hears of those that are there
		want(t, late, "+a@192.0.2.1:7444 k=v; +b@127.0.0.1:1")

		stopA()
		want(t, first, "-a")
		stopA = advertise(t, &m, device("a", map[string]string{"k": "w"})) // has changed
		want(t, first, "+a@192.0.2.1:7444 k=w")
		want(t, late, "-a; +a@192.0.2.1:7444 k=w")

		first.stop() // hears nothing from here on
		stopB()
		stopA()
		want(t, first, "")
		want(t, late, "-b; -a")
		want(t, others, "")
		late.stop()
		others.stop()
		if len(m.services) != 0 || len(m.browsers) != 0 {
			t.Errorf("left over: %v, %v", m.services, m.browsers)
		}
	})
}

// TestBusyBrowser: who is busy hears the latest of each service, once.
func TestBusyBrowser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m Memory
		gate := make(chan struct{})
		w := browse(t, &m, Devices, gate)
		stopA := advertise(t, &m, device("a", nil))
		want(t, w, "+a@192.0.2.1:7444") // and it is busy with that
		stopA()
		stopB := advertise(t, &m, device("b", nil))
		stopB()
		stopA = advertise(t, &m, device("a", map[string]string{"n": "2"}))
		stopB = advertise(t, &m, device("b", map[string]string{"n": "2"}))
		want(t, w, "")
		gate <- struct{}{}
		want(t, w, "+a@192.0.2.1:7444 n=2")
		gate <- struct{}{}
		want(t, w, "+b@192.0.2.1:7444 n=2")
		close(gate)
		want(t, w, "")
		stopA()
		stopB()
		w.stop()
	})
}

// TestBrowseStopsAtOnce: no news comes after the end of its context, not even
// those that wait already.
func TestBrowseStopsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m Memory
		for _, id := range []string{"a", "b"} {
			defer advertise(t, &m, device(id, nil))()
		}
		static, err := NewStatic(Devices, "a:1", "b:1")
		if err != nil {
			t.Fatal(err)
		}
		for name, d := range map[string]Discoverer{"memory": &m, "static": static} {
			ctx, cancel := context.WithCancel(t.Context())
			heard := 0
			err := d.Browse(ctx, Devices, func(Event) {
				heard++
				cancel()
			})
			if heard != 1 || err != nil {
				t.Errorf("%s: heard %d events, %v", name, heard, err)
			}
			if err := d.Browse(ctx, Devices, func(Event) { t.Errorf("%s: heard something", name) }); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// TestMemoryKeepsItsOwn: what is advertised does not change with the caller's.
func TestMemoryKeepsItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m Memory
		s := device("a", map[string]string{"k": "v"})
		stop := advertise(t, &m, s)
		s.Text["k"] = "other"
		w := browse(t, &m, Devices, nil)
		want(t, w, "+a@192.0.2.1:7444 k=v")
		stop()
		w.stop()
	})
}

func TestStatic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := NewStatic(Orchestrators, "192.0.2.1:7443", "[fd00::1]:7443", "site.example:443")
		if err != nil {
			t.Fatal(err)
		}
		w, others := browse(t, s, Orchestrators, nil), browse(t, s, Devices, nil)
		want(t, w, "+192.0.2.1:7443@192.0.2.1:7443; +[fd00::1]:7443@[fd00::1]:7443; +site.example:443@site.example:443")
		want(t, others, "")
		if got := w.events[1].Service; got.Port != 7443 || got.Kind != Orchestrators {
			t.Errorf("got %+v", got)
		}
		stop := advertise(t, s, device("a", nil)) // nobody hears of it
		stop()
		want(t, w, "")
		w.stop()
		others.stop()
	})
	for _, address := range []string{"", "host", "host:", ":1", "host:0", "host:65536", "host:-1", "host:http", "::1:80", "h:1:2"} {
		if _, err := NewStatic(Devices, "good:1", address); !errors.Is(err, decant.Invalid) {
			t.Errorf("%q: %v", address, err)
		}
	}
}

func TestRefusedServices(t *testing.T) {
	many := map[string]string{}
	for n := range maxText + 1 {
		many[fmt.Sprint("k", n)] = "v"
	}
	text := func(k, v string) Service { return device("a", map[string]string{k: v}) }
	tests := map[string]Service{
		"no kind":                {ID: "a", Port: 1},
		"no ID":                  {Kind: Devices, Port: 1},
		"no name as ID":          {Kind: Devices, ID: "A b", Port: 1},
		"no port":                {Kind: Devices, ID: "a"},
		"too high a port":        {Kind: Devices, ID: "a", Port: 65536},
		"a negative port":        {Kind: Devices, ID: "a", Port: -1},
		"too much text":          device("a", many),
		"an empty key":           text("", "v"),
		"= in a key":             text("a=b", "v"),
		"a key not in ASCII":     text("ä", "v"),
		"an upper-case key":      text("Key", "v"),
		"too long a value":       text("k", strings.Repeat("v", 254)),
		"a value of two lines":   text("k", "a\nb"),
		"a value not in UTF-8":   text("k", "\xff"),
		"a value for a terminal": text("k", "\x1b[2J"),
	}
	for name, s := range tests {
		for kind, d := range map[string]Discoverer{"memory": &Memory{}, "mdns": MDNS{}} {
			if err := d.Advertise(t.Context(), s); !errors.Is(err, decant.Invalid) {
				t.Errorf("%s, %s: %v", name, kind, err)
			}
		}
	}
	for name, address := range map[string]string{"a name": "host:7444", "another port": "192.0.2.1:1", "no port": "192.0.2.1", "nothing": ""} {
		if err := (MDNS{}).Advertise(t.Context(), Service{Kind: Devices, ID: "a", Port: 7444, Addresses: []string{address}}); !errors.Is(err, decant.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := text("k", strings.Repeat("v", 253)).check(); err != nil {
		t.Errorf("the longest value: %v", err)
	}
}

// TestQueueIsBounded: whoever floods the network fills no memory, and those
// that were heard of before still make news.
func TestQueueIsBounded(t *testing.T) {
	q := newQueue()
	for n := range maxPending + 10 {
		q.put(Event{Service: Service{ID: fmt.Sprint(n)}})
	}
	q.put(Event{Service: Service{ID: "0"}, Lost: true})
	events := q.take()
	if len(events) != maxPending || !events[0].Lost || events[maxPending-1].Service.ID != fmt.Sprint(maxPending-1) {
		t.Errorf("kept %d, the first %+v", len(events), events[0])
	}
	if again := q.take(); len(again) != 0 {
		t.Errorf("heard twice: %v", again)
	}
	q.put(Event{Service: Service{ID: "new"}})
	if events := q.take(); len(events) != 1 {
		t.Errorf("after that: %v", events)
	}
}
