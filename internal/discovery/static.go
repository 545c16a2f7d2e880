package discovery

import (
	"context"
	"net"
	"strconv"

	"github.com/decant-project/decant"
)

// Static finds services of one kind from a list, where multicast does not
// reach.
type Static struct {
	kind     string
	services []Service
}

// NewStatic makes a Static of addresses, host:port. The IDs behind them are
// not known, so each address stands for its own.
func NewStatic(kind string, addresses ...string) (*Static, error) {
	s := &Static{kind: kind}
	for _, address := range addresses {
		host, port, err := net.SplitHostPort(address)
		n, portErr := strconv.ParseUint(port, 10, 16)
		if err != nil || portErr != nil || host == "" || n == 0 {
			return nil, decant.Errorf(decant.Invalid, "address %q: write it as host:port", address)
		}
		s.services = append(s.services, Service{Kind: kind, ID: address, Port: int(n), Addresses: []string{address}})
	}
	return s, nil
}

// Advertise does nothing: whoever looks for s has it on a list.
func (s *Static) Advertise(ctx context.Context, _ Service) error {
	<-ctx.Done()
	return nil
}

// Browse finds what is on the list.
func (s *Static) Browse(ctx context.Context, kind string, each func(Event)) error {
	for _, service := range s.services {
		if kind == s.kind && ctx.Err() == nil {
			each(Event{Service: service})
		}
	}
	<-ctx.Done()
	return nil
}
