package supervisor

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/identity"
)

// Pauses between the attempts to reach an orchestrator.
const (
	connectFirst = 200 * time.Millisecond
	connectMost  = 5 * time.Second
)

// joinQuietly is how long finding an orchestrator takes where nothing is wrong.
const joinQuietly = 3 * time.Second

// offer is a join code with where it is good.
type offer struct {
	code      identity.Code
	addresses []string
	own       bool // given by who started the supervisor, not over the network
}

// join returns once the device is a member of a site. It asks with code, or
// with one that comes over the network. A member keeps code for the case that
// its site does not know it any more. Denied: code is no good. Conflict: the
// device is of another site than code.
func (s *Supervisor) join(ctx context.Context, text string) error {
	var try *offer
	if text != "" {
		code, err := identity.ParseCode(text)
		if err != nil {
			return err
		}
		try = &offer{code: code, own: true}
	}
	if m := s.parts.Identity.member.Load(); m != nil {
		if try != nil && try.code.Pin != m.Pin() {
			return decant.Errorf(decant.Conflict, "this device has joined site %s already, and the code is of another", m.Site()).
				WithHelp("to leave the old site, delete the data folder %s", s.parts.Data)
		}
		if try != nil {
			s.offers <- *try
		}
		return nil
	}
	for ctx.Err() == nil {
		if try == nil {
			s.log.Info("not joined yet: approve this device at the orchestrator, or start it with --join CODE",
				"approve", "decant device approve "+s.config.Name, "id", s.id)
			select {
			case o := <-s.offers:
				try = &o
			case <-ctx.Done():
				return nil
			}
		}
		err := s.joinOnce(ctx, *try)
		switch {
		case err == nil:
			return nil
		case try.own:
			return err
		}
		s.log.Warn("the join code that came over the network is no good", "error", err)
		try = nil
	}
	return nil
}

// joinAgain makes the device, which its site has forgotten, a member once more,
// if it was started with a code that is good.
func (s *Supervisor) joinAgain(ctx context.Context) bool {
	select {
	case o := <-s.offers:
		if err := s.joinWith(ctx, o); err != nil {
			s.log.Warn("the site does not know this device any more, and the join code is no good", "error", err)
			return false
		}
		return ctx.Err() == nil
	default:
		return false
	}
}

// offerPatience is how long a code that came over the network is tried: anybody
// can send one.
const offerPatience = 30 * time.Second

// joinOnce tries a code, one that came over the network not for ever.
func (s *Supervisor) joinOnce(ctx context.Context, o offer) error {
	if o.own {
		return s.joinWith(ctx, o)
	}
	trying, cancel := context.WithTimeout(ctx, offerPatience)
	defer cancel()
	err := s.joinWith(trying, o)
	if err == nil && trying.Err() != nil && ctx.Err() == nil {
		return decant.Errorf(decant.Unavailable, "no orchestrator answered at %s", strings.Join(o.addresses, ", "))
	}
	return err
}

// joinWith asks until an orchestrator has answered. Without an error the device
// has joined, or ctx has ended.
func (s *Supervisor) joinWith(ctx context.Context, o offer) error {
	began := time.Now()
	pause := backoff{first: connectFirst, most: connectMost}
	for ctx.Err() == nil {
		known := append(slices.Clone(o.addresses), s.orchs.of(o.code.Pin.String())...)
		cred, err := identity.Join(ctx, o.code, known, s.parts.Identity.key)
		if err == nil {
			if err := s.parts.Identity.adopt(cred); err != nil {
				return err
			}
			s.log.Info("joined", "site", cred.Site)
			return nil
		}
		if !errors.Is(err, decant.Unavailable) {
			return err
		}
		if time.Since(began) > joinQuietly {
			s.log.Info("still joining", "because", err.Error())
		}
		select {
		case <-ctx.Done():
		case <-s.orchs.changed:
			pause.reset()
		case <-time.After(pause.next()):
		}
	}
	return nil
}

// Offer takes a join code that an approval sends to a device that has not
// joined. Conflict: it has. Denied: its configuration says no.
func (s *Supervisor) Offer(code string, addresses []string) error {
	if site := s.parts.Identity.Site(); site != "" {
		return decant.Errorf(decant.Conflict, "this device has joined site %s already", site)
	}
	if Off(s.config.Adopt) {
		return decant.Errorf(decant.Denied, "this device takes no join code over the network").
			WithHelp("start it with --join CODE, or remove adopt from its device.yaml")
	}
	parsed, err := identity.ParseCode(code)
	if err != nil {
		return err
	}
	if len(addresses) > 16 {
		return decant.Errorf(decant.Invalid, "%d addresses: send 16 at most", len(addresses))
	}
	for _, a := range addresses {
		if _, _, err := net.SplitHostPort(a); err != nil {
			return decant.Errorf(decant.Invalid, "address %.80q: write it as host:port", a)
		}
	}
	for {
		select {
		case s.offers <- offer{code: parsed, addresses: addresses}:
			return nil
		default:
		}
		select {
		case <-s.offers: // the newest counts
		default:
		}
	}
}
