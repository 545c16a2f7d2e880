package supervisor

import (
	"context"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/decant-project/decant/internal/discovery"
)

// orchestrators are those in sight: a list, and what discovery finds.
type orchestrators struct {
	static  []string
	changed chan struct{} // one has appeared

	mu    sync.Mutex
	found map[string]discovery.Service // by ID
}

func newOrchestrators(static []string) *orchestrators {
	return &orchestrators{static: static, changed: make(chan struct{}, 1), found: map[string]discovery.Service{}}
}

func (o *orchestrators) note(e discovery.Event) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if e.Lost {
		delete(o.found, e.Service.ID)
		return
	}
	o.found[e.Service.ID] = e.Service
	poke(o.changed)
}

// of returns the addresses of the orchestrators that say they are of the site
// with this pin; who answers there has to prove it.
func (o *orchestrators) of(pin string) []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	var found []string
	for _, s := range o.found {
		if s.Text["pin"] == pin {
			found = append(found, s.Addresses...)
		}
	}
	slices.Sort(found)
	return append(slices.Clone(o.static), slices.Compact(found)...)
}

// browse looks for orchestrators until ctx ends.
func (s *Supervisor) browse(ctx context.Context) {
	s.persist(ctx, "cannot look for orchestrators", func() error {
		return s.parts.Discovery.Browse(ctx, discovery.Orchestrators, s.orchs.note)
	})
}

// advertise makes the device known until ctx ends: first as one that may join,
// where it has not, then as a member.
func (s *Supervisor) advertise(ctx context.Context, kind string) {
	listen, ok := s.parts.Listen.(*net.TCPAddr)
	if !ok {
		return
	}
	service := discovery.Service{Kind: kind, ID: s.id, Port: listen.Port, Text: map[string]string{
		"name": s.config.Name, "joined": "0", "td": "/.well-known/wot", "type": "Thing", "scheme": "https",
	}}
	if !listen.IP.IsUnspecified() {
		service.Addresses = []string{listen.String()}
	}
	until := func(ctx context.Context) {
		s.persist(ctx, "cannot advertise the device", func() error {
			return s.parts.Discovery.Advertise(ctx, service)
		})
	}
	stranger, cancel := context.WithCancel(ctx)
	go func() {
		defer cancel()
		select {
		case <-s.parts.Identity.joined:
		case <-ctx.Done():
		}
	}()
	until(stranger)
	service.Text["joined"] = "1"
	until(ctx)
}

// persist does what should last until ctx ends again when it fails.
func (s *Supervisor) persist(ctx context.Context, failure string, do func() error) {
	pause := backoff{first: time.Second, most: time.Minute}
	for ctx.Err() == nil {
		err := do()
		if ctx.Err() != nil {
			return
		}
		s.log.Warn(failure, "error", err)
		sleep(ctx, pause.next())
	}
}
