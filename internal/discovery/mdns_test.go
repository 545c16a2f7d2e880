package discovery

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/betamos/zeroconf"
)

// multicast skips a test where no interface can be used.
func multicast(t *testing.T) {
	t.Helper()
	all, err := net.Interfaces()
	if err != nil {
		t.Skipf("the interfaces cannot be listed: %v", err)
	}
	for _, i := range all {
		addrs, _ := i.Addrs()
		if i.Flags&net.FlagUp != 0 && i.Flags&net.FlagMulticast != 0 && len(addrs) > 0 {
			return
		}
	}
	t.Skip("no interface of this machine has multicast and an address: on a machine with a loopback only, try `ip link set lo multicast on`")
}

// TestMDNS finds a service by two sockets on the machine's real network.
func TestMDNS(t *testing.T) {
	multicast(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	id := fmt.Sprintf("test-%d-%d", os.Getpid(), time.Now().UnixNano()%1e9) // others test on the same network

	heard := make(chan Event, 100)
	browseCtx, stopBrowsing := context.WithCancel(ctx)
	browsed := make(chan error, 1)
	go func() {
		browsed <- MDNS{}.Browse(browseCtx, Devices, func(e Event) {
			if e.Service.ID == id {
				heard <- e
			}
		})
	}()
	wait := func(what string, is func(Event) bool) Event {
		t.Helper()
		for {
			select {
			case e := <-heard:
				if is(e) {
					return e
				}
			case err := <-browsed:
				t.Fatalf("%s: browsing ended with %v", what, err)
			case <-ctx.Done():
				t.Fatalf("not heard in time: %s", what)
			}
		}
	}
	advertise := func(s Service) (stop func()) {
		ctx, cancel := context.WithCancel(ctx)
		ended := make(chan error, 1)
		go func() { ended <- MDNS{}.Advertise(ctx, s) }()
		return func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("advertising ended with %v", err)
			}
		}
	}

	text := map[string]string{"pin": "0123", "site": "hall, ä=1"}
	stop := advertise(Service{Kind: Devices, ID: id, Port: 7444, Text: text})
	e := wait("that it is there", func(e Event) bool { return !e.Lost })
	if !maps.Equal(e.Service.Text, text) || e.Service.Port != 7444 || e.Service.Kind != Devices {
		t.Errorf("heard %+v", e.Service)
	}
	// IPv4 and IPv6 may be heard of one after the other.
	if !slices.ContainsFunc(e.Service.Addresses, isOurs) {
		t.Errorf("none of its addresses %v is this machine's", e.Service.Addresses)
	}
	for _, address := range e.Service.Addresses {
		if _, port, err := net.SplitHostPort(address); err != nil || port != "7444" {
			t.Errorf("address %q", address)
		}
	}

	stop()
	wait("that it has gone", func(e Event) bool { return e.Lost })

	// It comes back, changed, and at addresses of its own choice.
	text["site"] = "cellar"
	stop = advertise(Service{Kind: Devices, ID: id, Port: 7445, Text: text, Addresses: []string{"192.0.2.77:7445"}})
	e = wait("that it is back", func(e Event) bool { return !e.Lost })
	if e.Service.Text["site"] != "cellar" || e.Service.Port != 7445 || !slices.Equal(e.Service.Addresses, []string{"192.0.2.77:7445"}) {
		t.Errorf("heard %+v", e.Service)
	}
	stopBrowsing()
	if err := <-browsed; err != nil {
		t.Errorf("browsing ended with %v", err)
	}
	stop()
}

// isOurs reports whether address is one of this machine's.
func isOurs(address string) bool {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return false
	}
	addrs, _ := net.InterfaceAddrs()
	return slices.ContainsFunc(addrs, func(a net.Addr) bool {
		n, ok := a.(*net.IPNet)
		return ok && n.IP.Equal(net.IP(at.Addr().WithZone("").AsSlice()))
	})
}

func TestInterfaceAddrs(t *testing.T) {
	all, err := net.Interfaces()
	if err != nil {
		t.Skip(err)
	}
	for _, i := range all {
		plain, err := i.Addrs()
		if err != nil {
			t.Fatal(err)
		}
		ours, err := interfaceAddrs(&i)
		if err != nil {
			t.Fatal(err)
		}
		// Each address is there, after one that the library may leave out.
		if extra := len(ours) - len(plain); extra < 0 || extra > 3 || len(plain) > 0 && extra == 0 {
			t.Errorf("%s: %v of %v", i.Name, ours, plain)
		} else if !slices.Equal(ours[extra:], plain) && fmt.Sprint(ours[extra:]) != fmt.Sprint(plain) {
			t.Errorf("%s: %v of %v", i.Name, ours, plain)
		}
	}
}

func TestReceived(t *testing.T) {
	addr := netip.MustParseAddr
	good := zeroconf.Service{Type: zeroconf.NewType(Devices), Name: "a", Port: 1, Addrs: []netip.Addr{addr("192.0.2.1")}, Text: []string{"k=v"}}
	with := func(change func(*zeroconf.Service)) *zeroconf.Service {
		s := good
		change(&s)
		return &s
	}
	tests := []struct {
		name    string
		service *zeroconf.Service
		op      zeroconf.Op
		want    string // "" is nothing
	}{
		{"a service", &good, zeroconf.OpAdded, "+a@192.0.2.1:1 k=v"},
		{"a change", &good, zeroconf.OpUpdated, "+a@192.0.2.1:1 k=v"},
		{"a goodbye", &good, zeroconf.OpRemoved, "-a"},
		{"a goodbye without the rest", with(func(s *zeroconf.Service) { s.Addrs, s.Port = nil, 0 }), zeroconf.OpRemoved, "-a"},
		{"no name", with(func(s *zeroconf.Service) { s.Name = "" }), zeroconf.OpAdded, ""},
		{"no name, gone", with(func(s *zeroconf.Service) { s.Name = "" }), zeroconf.OpRemoved, ""},
		{"too long a name", with(func(s *zeroconf.Service) { s.Name = strings.Repeat("a", 64) }), zeroconf.OpAdded, ""},
		{"a name for a terminal", with(func(s *zeroconf.Service) { s.Name = "\x1b[2J" }), zeroconf.OpAdded, ""},
		{"a name that is no text", with(func(s *zeroconf.Service) { s.Name = "\xff" }), zeroconf.OpAdded, ""},
		{"no address", with(func(s *zeroconf.Service) { s.Addrs = nil }), zeroconf.OpAdded, ""},
		{"no port", with(func(s *zeroconf.Service) { s.Port = 0 }), zeroconf.OpAdded, ""},
		{"only addresses that are none", with(func(s *zeroconf.Service) {
			s.Addrs = []netip.Addr{{}, addr("0.0.0.0"), addr("::"), addr("224.0.0.251"), addr("ff02::fb")}
		}), zeroconf.OpAdded, ""},
	}
	for _, tt := range tests {
		e, ok := received(zeroconf.Event{Service: tt.service, Op: tt.op}, []string{"eth0"})
		got := ""
		if ok {
			got = describe(e)
		}
		if got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestHostPorts(t *testing.T) {
	var many []string
	for n := range 20 {
		many = append(many, fmt.Sprintf("192.0.2.%d", n+1))
	}
	tests := []struct {
		name, in string
		zones    []string
		want     string
	}{
		{
			"the best first", "fe80::1 169.254.0.1 127.0.0.1 fd00::1 192.0.2.1 ::1",
			[]string{"eth0"},
			"192.0.2.1:9 [fd00::1]:9 127.0.0.1:9 [::1]:9 169.254.0.1:9 [fe80::1%eth0]:9",
		},
		{"one link-local for each interface", "fe80::1", []string{"eth0", "wlan0"}, "[fe80::1%eth0]:9 [fe80::1%wlan0]:9"},
		{"a link-local without interfaces", "fe80::1", nil, ""},
		{"the order of equals", "192.0.2.2 192.0.2.1", nil, "192.0.2.2:9 192.0.2.1:9"},
		{"twice", "192.0.2.1 192.0.2.1 fd00::1 192.0.2.1", nil, "192.0.2.1:9 [fd00::1]:9"},
		{"twice, with others between", "192.0.2.1 192.0.2.2 192.0.2.1", nil, "192.0.2.1:9 192.0.2.2:9"},
		{"too many", strings.Join(many, " "), nil, strings.Join(many[:maxAddresses], ":9 ") + ":9"},
	}
	for _, tt := range tests {
		var addrs []netip.Addr
		for _, s := range strings.Fields(tt.in) {
			addrs = append(addrs, netip.MustParseAddr(s))
		}
		before := slices.Clone(addrs)
		if got := strings.Join(hostPorts(addrs, 9, tt.zones), " "); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
		if !slices.Equal(addrs, before) {
			t.Errorf("%s: changed what it was given", tt.name)
		}
	}
}

func TestParseText(t *testing.T) {
	tests := []struct {
		name  string
		lines []string
		want  map[string]string
	}{
		{"values", []string{"a=1", "b=x=y", "c="}, map[string]string{"a": "1", "b": "x=y", "c": ""}},
		{"keys in any case", []string{"SITE=hall"}, map[string]string{"site": "hall"}},
		{"the first of two", []string{"a=1", "A=2", "a=3"}, map[string]string{"a": "1"}},
		{"no values", []string{"", "a", "=b", "="}, map[string]string{}},
		{"control characters", []string{"a=\x1b[2J", "b=\x00", "c\n=1", "d=\u202e"}, map[string]string{}},
		{"no text", []string{"a=\xff", "\xff=a"}, map[string]string{}},
		{"keys not in ASCII", []string{"ä=1", "\u212aey=1"}, map[string]string{}}, // KELVIN SIGN, whose lower case is k
		{"too long", []string{"a=" + strings.Repeat("x", 254), "b=" + strings.Repeat("x", 253)}, map[string]string{"b": strings.Repeat("x", 253)}},
	}
	for _, tt := range tests {
		if got := parseText(tt.lines); !maps.Equal(got, tt.want) {
			t.Errorf("%s: %q", tt.name, got)
		}
	}
	var many []string
	for n := range 100 {
		many = append(many, fmt.Sprintf("k%d=v", n))
	}
	if got := parseText(many); len(got) != maxText || got["k0"] != "v" {
		t.Errorf("many: %v", got)
	}
}

// FuzzParseText: what comes in could go out again, as it is.
func FuzzParseText(f *testing.F) {
	f.Add("a=1\x00B=2\x00a=3\x00=\x00c\x00\u212a=x\x00\xff=\xff")
	f.Fuzz(func(t *testing.T, in string) {
		text := parseText(strings.Split(in, "\x00"))
		if err := (Service{Kind: Devices, ID: "a", Port: 1, Text: text}).check(); err != nil {
			t.Fatalf("%q became what cannot be advertised: %v", in, err)
		}
		if again := parseText(formatText(text)); !maps.Equal(again, text) {
			t.Fatalf("%q became %q", text, again)
		}
	})
}

// FuzzReceived: whatever the network says, what is made of it is bounded and
// can be dialled and printed.
func FuzzReceived(f *testing.F) {
	f.Add("name", uint16(7444), "k=v\x00b", []byte{192, 0, 2, 1}, []byte{0xfe, 0x80, 15: 1}, "eth0", false)
	f.Add("\x1b", uint16(0), "", []byte{}, []byte{10: 0xff, 0xff, 0, 0, 0, 0}, "", true)
	f.Fuzz(func(t *testing.T, name string, port uint16, text string, one, two []byte, zone string, gone bool) {
		if strings.ContainsAny(zone, "%") {
			return // no interface is called that
		}
		s := &zeroconf.Service{Type: zeroconf.NewType(Devices), Name: name, Port: port, Text: strings.Split(text, "\x00")}
		for _, b := range [][]byte{one, two, one} {
			if a, ok := netip.AddrFromSlice(b); ok {
				s.Addrs = append(s.Addrs, a)
			}
		}
		op := zeroconf.OpAdded
		if gone {
			op = zeroconf.OpRemoved
		}
		e, ok := received(zeroconf.Event{Service: s, Op: op}, []string{zone})
		if !ok {
			return
		}
		if e.Lost != gone || e.Service.ID != name || !printable(name) || len(name) > maxID {
			t.Fatalf("received %+v", e)
		}
		if gone {
			return
		}
		if len(e.Service.Addresses) == 0 || len(e.Service.Addresses) > maxAddresses {
			t.Fatalf("addresses %q", e.Service.Addresses)
		}
		seen := map[string]bool{}
		for _, address := range e.Service.Addresses {
			at, err := netip.ParseAddrPort(address)
			if zone != "" && (err != nil || at.Port() != port || port == 0) || seen[address] {
				t.Fatalf("address %q: %v", address, err)
			}
			seen[address] = true
		}
	})
}
