package api

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"github.com/decant-project/decant/internal/problem"
	"github.com/decant-project/decant/internal/sse"
)

// pingEvery is how often a quiet stream shows that it lives.
const pingEvery = sse.Silence / 3

// ServeEvents answers a request with the server-sent events that f sends, each
// a JSON value, until f returns. An error of f before its first event is the
// answer itself; a later one is sent as a last event "error", a problem.
func ServeEvents(ctx context.Context, w http.ResponseWriter, f func(ctx context.Context, send func(event string, v any) error) error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &eventStream{w: w}
	var pings sync.WaitGroup
	pings.Go(func() {
		tick := time.NewTicker(pingEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				if s.ping() != nil {
					cancel() // nobody reads any more
				}
			}
		}
	})
	err := f(ctx, s.send)
	cancel()
	pings.Wait()
	switch {
	case err == nil:
	case s.out == nil:
		problem.Write(w, err)
	default:
		_ = s.send("error", problem.New(err))
	}
}

type eventStream struct {
	mu  sync.Mutex
	w   http.ResponseWriter
	out *sse.Writer // from the first event on
}

func (s *eventStream) send(event string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.out == nil {
		s.out = sse.NewWriter(s.w)
	}
	return s.out.Send(event, "", data)
}

func (s *eventStream) ping() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.out == nil {
		return nil
	}
	return s.out.Ping()
}
