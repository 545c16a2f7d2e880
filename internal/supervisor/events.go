package supervisor

import (
	"strings"
	"sync"
	"time"

	"github.com/decant-project/decant"
)

// maxEvents bounds the events that wait for an orchestrator; the oldest go
// first.
const maxEvents = 256

// events are those that no orchestrator has acknowledged.
type events struct {
	mu    sync.Mutex
	list  []decant.Event
	first int64 // number of list[0], counted from the start of the process
}

func (e *events) add(ev decant.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.list) == maxEvents {
		e.list = append(e.list[:0], e.list[1:]...)
		e.first++
	}
	e.list = append(e.list, ev)
}

// pending returns the events and the number to acknowledge them by.
func (e *events) pending() ([]decant.Event, int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]decant.Event(nil), e.list...), e.first + int64(len(e.list))
}

func (e *events) acknowledge(upTo int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if n := upTo - e.first; n > 0 {
		e.list = append(e.list[:0], e.list[n:]...)
		e.first = upTo
	}
}

// event tells of an instance to the orchestrator and the device's own log.
func (s *Supervisor) event(kind, key, message string) {
	app, component, _ := strings.Cut(key, "/")
	s.events.add(decant.Event{
		At: time.Now().UTC(), Kind: kind, Device: s.id,
		Application: app, Component: component, Message: message,
	})
	s.log.Info(message, "kind", kind, "instance", key)
	s.poke()
}
