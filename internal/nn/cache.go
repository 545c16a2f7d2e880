package nn

import (
	"context"
	"sync"
)

// Cache loads each model once, however many use it at a time, and closes it
// when the last of them does. It is safe for concurrent use.
type Cache struct {
	backend Backend

	mu     sync.Mutex
	models map[string]*shared
}

// shared is a model and its users.
type shared struct {
	model  Model
	err    error
	users  int
	loaded chan struct{} // closed once model or err is set
}

// NewCache makes a cache of models of a backend.
func NewCache(b Backend) *Cache { return &Cache{backend: b, models: map[string]*shared{}} }

// Open returns the model under key, which load gives the bytes of if nobody
// uses it yet. Each user closes what it got.
func (c *Cache) Open(ctx context.Context, key string, load func(context.Context) ([]byte, error)) (Model, error) {
	c.mu.Lock()
	s, ok := c.models[key]
	if !ok {
		s = &shared{loaded: make(chan struct{})}
		c.models[key] = s
	}
	s.users++
	c.mu.Unlock()
	if !ok {
		if data, err := load(ctx); err != nil {
			s.err = err
		} else {
			s.model, s.err = c.backend.Load(ctx, data)
		}
		close(s.loaded)
	}
	select {
	case <-s.loaded:
	case <-ctx.Done():
		_ = c.release(key, s)
		return nil, ctx.Err()
	}
	if s.err != nil {
		_ = c.release(key, s)
		return nil, s.err
	}
	return &handle{Model: s.model, close: sync.OnceValue(func() error { return c.release(key, s) })}, nil
}

// release takes a user from s.
func (c *Cache) release(key string, s *shared) error {
	c.mu.Lock()
	s.users--
	last := s.users == 0
	if (last || s.failed()) && c.models[key] == s {
		delete(c.models, key) // the next to open it loads it anew
	}
	c.mu.Unlock()
	if !last {
		return nil
	}
	<-s.loaded
	if s.model == nil {
		return nil
	}
	return s.model.Close()
}

func (s *shared) failed() bool {
	select {
	case <-s.loaded:
		return s.err != nil
	default:
		return false
	}
}

// handle is one user's share of a model.
type handle struct {
	Model
	close func() error
}

func (h *handle) Close() error { return h.close() }
