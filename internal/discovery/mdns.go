package discovery

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/betamos/zeroconf"

	"github.com/decant-project/decant"
)

// MDNS is DNS-SD over multicast DNS on all interfaces of the machine that have
// multicast, as they are at any time. Several processes of one machine find
// each other too.
type MDNS struct{}

const (
	// expiry is how long a service that has fallen silent counts as there.
	expiry = 15 * time.Second

	// interfacePoll is how soon a new interface or address is used.
	interfacePoll = time.Second
)

// Advertise publishes s, on the addresses of each interface where s has none.
func (MDNS) Advertise(ctx context.Context, s Service) error {
	if err := s.check(); err != nil {
		return err
	}
	service := zeroconf.NewService(zeroconf.NewType(s.Kind), s.ID, uint16(s.Port))
	service.Hostname = s.ID + ".local" // two machines may be given one name
	service.Text = formatText(s.Text)
	for _, address := range s.Addresses {
		at, err := netip.ParseAddrPort(address)
		if err != nil || int(at.Port()) != s.Port {
			return decant.Errorf(decant.Invalid, "service %s: address %q: must be an IP address with port %d", s.ID, address, s.Port)
		}
		service.Addrs = append(service.Addrs, at.Addr().Unmap().WithZone(""))
	}
	client, err := open(func(c *zeroconf.Client) { c.Publish(service) })
	if err != nil {
		return err
	}
	defer client.Close()
	followInterfaces(ctx, client)
	return nil
}

// Browse looks for services of kind.
func (MDNS) Browse(ctx context.Context, kind string, each func(Event)) error {
	q := newQueue()
	client, err := open(func(c *zeroconf.Client) {
		c.Expiry(expiry).Browse(func(e zeroconf.Event) { // must not block
			if event, ok := received(e, zones()); ok {
				q.put(event)
			}
		}, zeroconf.NewType(kind))
	})
	if err != nil {
		return err
	}
	following := make(chan struct{})
	go func() {
		defer close(following)
		followInterfaces(ctx, client)
	}()
	q.drain(ctx, each)
	<-following
	client.Close()
	return nil
}

// open makes a client for one service: the library has room for one each. It
// takes the IP version that the machine has, if it has only one.
func open(use func(*zeroconf.Client)) (client *zeroconf.Client, err error) {
	for _, network := range []string{"udp", "udp4", "udp6"} {
		c := zeroconf.New().Network(network).InterfaceAddrs(interfaceAddrs).Logger(slog.New(slog.DiscardHandler))
		use(c)
		if client, err = c.Open(); err == nil {
			return client, nil
		}
	}
	return nil, decant.Errorf(decant.Unavailable, "cannot use multicast DNS: %w", err).
		WithHelp("see whether another program keeps UDP port 5353 for itself, or name the addresses instead")
}

// interfaceAddrs returns an interface's addresses, the first of each sort
// twice: of several the library leaves the first out.
func interfaceAddrs(i *net.Interface) ([]net.Addr, error) {
	addrs, err := i.Addrs()
	var first []net.Addr
	seen := map[string]bool{}
	for _, addr := range addrs {
		ipNet, ok := addr.(*net.IPNet)
		if !ok {
			continue
		}
		sort := "v6"
		switch {
		case ipNet.IP.To4() != nil:
			sort = "v4"
		case ipNet.IP.IsLinkLocalUnicast():
			sort = "v6 link"
		}
		if !seen[sort] {
			seen[sort] = true
			first = append(first, addr)
		}
	}
	return append(first, addrs...), err
}

// followInterfaces makes client use interfaces and addresses that come later,
// until ctx ends.
func followInterfaces(ctx context.Context, client *zeroconf.Client) {
	tick := time.NewTicker(interfacePoll)
	defer tick.Stop()
	before := interfaces()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if now := interfaces(); !slices.Equal(now, before) {
				before = now
				client.Reload()
			}
		}
	}
}

// interfaces describes what multicast could use now.
func interfaces() (out []string) {
	all, _ := net.Interfaces() // none while the system cannot tell
	for _, i := range all {
		addrs, _ := i.Addrs()
		out = append(out, i.Name+" "+i.Flags.String())
		for _, addr := range addrs {
			out = append(out, addr.String())
		}
	}
	return out
}

// zones returns the interfaces on which a link-local address may be meant.
func zones() (out []string) {
	const want = net.FlagUp | net.FlagMulticast
	all, _ := net.Interfaces() // none while the system cannot tell
	for _, i := range all {
		if i.Flags&(want|net.FlagLoopback) == want {
			out = append(out, i.Name)
		}
	}
	return out
}

// received makes an event of what the network says, if it makes sense.
func received(e zeroconf.Event, zones []string) (Event, bool) {
	s := Service{Kind: e.Type.Name, ID: e.Name, Port: int(e.Port)}
	if s.ID == "" || len(s.ID) > maxID || !printable(s.ID) {
		return Event{}, false
	}
	if e.Op == zeroconf.OpRemoved {
		return Event{Service: s, Lost: true}, true
	}
	s.Text = parseText(e.Text)
	s.Addresses = hostPorts(e.Addrs, s.Port, zones)
	return Event{Service: s}, s.Port > 0 && len(s.Addresses) > 0
}
