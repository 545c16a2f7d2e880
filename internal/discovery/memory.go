package discovery

import (
	"context"
	"maps"
	"net"
	"slices"
	"strconv"
	"sync"
)

// Memory is a network within one process, for tests. All who share a Memory
// find each other, in the order in which they advertised. The zero value is a
// silent network.
type Memory struct {
	mu       sync.Mutex
	services []*Service
	browsers map[*queue]string // kind
}

// Advertise makes s known. Where it has no address it is at 127.0.0.1.
func (m *Memory) Advertise(ctx context.Context, s Service) error {
	if err := s.check(); err != nil {
		return err
	}
	s.Text = maps.Clone(s.Text) // the caller may change its own
	if len(s.Addresses) == 0 {
		s.Addresses = []string{net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port))}
	}
	m.add(&s)
	defer m.remove(&s)
	<-ctx.Done()
	return nil
}

// Browse finds the services of kind.
func (m *Memory) Browse(ctx context.Context, kind string, each func(Event)) error {
	q := m.subscribe(kind)
	defer m.unsubscribe(q)
	q.drain(ctx, each)
	return nil
}

func (m *Memory) add(s *Service) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.services = append(m.services, s)
	m.tell(Event{Service: *s})
}

func (m *Memory) remove(s *Service) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.services = slices.DeleteFunc(m.services, func(other *Service) bool { return other == s })
	m.tell(Event{Service: *s, Lost: true})
}

// tell wants m.mu held.
func (m *Memory) tell(e Event) {
	for q, kind := range m.browsers {
		if kind == e.Service.Kind {
			q.put(e)
		}
	}
}

func (m *Memory) subscribe(kind string) *queue {
	m.mu.Lock()
	defer m.mu.Unlock()
	q := newQueue()
	for _, s := range m.services {
		if s.Kind == kind {
			q.put(Event{Service: *s})
		}
	}
	if m.browsers == nil {
		m.browsers = map[*queue]string{}
	}
	m.browsers[q] = kind
	return q
}

func (m *Memory) unsubscribe(q *queue) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.browsers, q)
}
