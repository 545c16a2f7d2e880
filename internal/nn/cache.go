package nn

import (
	"context"
	"sync"

	"github.com/decant-project/decant"
)

// Cache loads each model once, however many use it at a time, and closes it
// when the last of them does. It is safe for concurrent use.
type Cache struct {
	backend Backend

	mu     sync.Mutex
	models map[string]*shared // without those that could not be loaded
}

// shared is a model and its users.
type shared struct {
	users  int           // guarded by Cache.mu
	stop   func()        // ends the loading
	loaded chan struct{} // closed once model or err is set
	model  Model
	err    error
}

// NewCache makes a cache of models of a backend.
func NewCache(b Backend) *Cache { return &Cache{backend: b, models: map[string]*shared{}} }

// Open returns the model under key, which load gives the bytes of if nobody
// uses it yet. Each user closes what it got. Deadline: ctx ended first. Loading
// goes on for the others who wait for it; its own context ends when none is
// left.
func (c *Cache) Open(ctx context.Context, key string, load func(context.Context) ([]byte, error)) (Model, error) {
	s := c.enter(ctx, key, load)
	select {
	case <-s.loaded:
	case <-ctx.Done():
		_ = c.leave(key, s)
		return nil, decant.Errorf(decant.Deadline, "cannot load the model in time: %w", ctx.Err())
	}
	if s.err != nil {
		_ = c.leave(key, s)
		return nil, s.err
	}
	return &handle{Model: s.model, close: sync.OnceValue(func() error { return c.leave(key, s) })}, nil
}

// enter adds a user to the model under key; the first one starts its loading.
func (c *Cache) enter(ctx context.Context, key string, load func(context.Context) ([]byte, error)) *shared {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, ok := c.models[key]
	if !ok {
		s = &shared{loaded: make(chan struct{})}
		ctx, s.stop = context.WithCancel(context.WithoutCancel(ctx))
		c.models[key] = s
		go c.load(ctx, key, s, load) // leave waits for it
	}
	s.users++
	return s
}

func (c *Cache) load(ctx context.Context, key string, s *shared, load func(context.Context) ([]byte, error)) {
	defer close(s.loaded)
	data, err := load(ctx)
	if err == nil {
		s.model, err = c.backend.Load(ctx, data)
	}
	if s.err = err; err != nil {
		c.forget(key, s) // the next to open it tries again
	}
}

// leave takes a user from s. The last one closes the model.
func (c *Cache) leave(key string, s *shared) error {
	c.mu.Lock()
	s.users--
	last := s.users == 0
	if last && c.models[key] == s {
		delete(c.models, key)
	}
	c.mu.Unlock()
	if !last {
		return nil
	}
	s.stop()
	<-s.loaded
	if s.model == nil {
		return nil // it could not be loaded; who waited was told
	}
	return s.model.Close()
}

func (c *Cache) forget(key string, s *shared) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.models[key] == s {
		delete(c.models, key)
	}
}

// handle is one user's share of a model.
type handle struct {
	Model
	close func() error
}

func (h *handle) Close() error { return h.close() }
