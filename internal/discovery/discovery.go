// Package discovery is how the parts of a site find each other on the local
// network without a list. Who offers something advertises it as a service; who
// looks for that kind is told of each one as it comes, changes and goes. What
// enters from the network is anybody's word: it is bounded and checked here,
// and believed only after the peer has proven its ID over TLS.
//
// MDNS is DNS-SD over multicast DNS, Static a list, and Memory a network for
// tests.
package discovery

import (
	"context"
	"sync"
)

// The kinds of services, as DNS-SD names them.
const (
	Devices       = "_decant._tcp"      // a device's own API
	Things        = "_wot._tcp"         // the same, as the Web of Things looks for it
	Orchestrators = "_decant-orch._tcp" // the API for devices; Text has "pin" and "site"
)

// Service is something that a machine offers on the network.
type Service struct {
	Kind      string
	ID        string            // tells services of a kind apart: the ID of the device or orchestrator
	Port      int               // where it listens
	Addresses []string          // host:port to try in order; Advertise fills it in where it is empty
	Text      map[string]string // what hardly ever changes, a few short values
}

// Event tells of a service: it is there, or has changed, or is lost.
type Event struct {
	Service Service
	Lost    bool
}

// Discoverer makes services known, and finds them. It is safe for concurrent
// use.
type Discoverer interface {
	// Advertise makes s known until ctx ends, then takes it back and returns nil.
	// Invalid: s cannot be advertised. Unavailable: the network cannot be used.
	Advertise(ctx context.Context, s Service) error

	// Browse calls each, one call at a time, for the services of a kind that are
	// there, and as they come, change and go, until ctx ends; then it returns
	// nil. While each is busy only the latest news of a service is kept. The
	// errors are Advertise's.
	Browse(ctx context.Context, kind string, each func(Event)) error
}

// maxPending bounds the services that one Browse keeps news of.
const maxPending = 4096

// queue holds the news that a browser has yet to hear: the latest of each
// service, in the order in which they first made news.
type queue struct {
	wake chan struct{} // has an element when there is news

	mu     sync.Mutex
	order  []string // IDs
	latest map[string]Event
}

func newQueue() *queue {
	return &queue{wake: make(chan struct{}, 1), latest: map[string]Event{}}
}

// put never blocks. When there is too much to keep, new services are left out.
func (q *queue) put(e Event) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, waits := q.latest[e.Service.ID]; !waits {
		if len(q.order) == maxPending {
			return
		}
		q.order = append(q.order, e.Service.ID)
	}
	q.latest[e.Service.ID] = e
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *queue) take() []Event {
	q.mu.Lock()
	defer q.mu.Unlock()
	events := make([]Event, 0, len(q.order))
	for _, id := range q.order {
		events = append(events, q.latest[id])
	}
	q.order = nil
	clear(q.latest)
	return events
}

// drain hands the news to each until ctx ends.
func (q *queue) drain(ctx context.Context, each func(Event)) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-q.wake:
			for _, e := range q.take() {
				if ctx.Err() != nil {
					return
				}
				each(e)
			}
		}
	}
}
