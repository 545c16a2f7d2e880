package supervisor

import (
	"context"
	"errors"
	"sync"

	"github.com/decant-project/decant"
)

// modules compiles each module once, however many instances use it, and frees
// it after the last of them.
type modules struct {
	mu      sync.Mutex
	entries map[decant.Digest]*compiled
}

type compiled struct {
	users  int           // guarded by modules.mu
	ready  chan struct{} // closed when the others are set
	module Module
	err    error
}

// get returns the module of d, which the first user compiles while others wait,
// and a function that gives it back.
func (m *modules) get(ctx context.Context, d decant.Digest, compile func(context.Context) (Module, error)) (Module, func(), error) {
	for {
		c, first := m.join(d)
		if first {
			c.module, c.err = compile(ctx)
			if c.err != nil {
				m.drop(d)
			}
			close(c.ready)
		}
		release := sync.OnceFunc(func() { m.leave(d, c) })
		select {
		case <-c.ready:
		case <-ctx.Done():
			release()
			return nil, nil, ctx.Err()
		}
		if c.err == nil {
			return c.module, release, nil
		}
		release()
		if first || ctx.Err() != nil || !errors.Is(c.err, context.Canceled) {
			return nil, nil, c.err
		}
		// The one who compiled gave up; it is our turn.
	}
}

func (m *modules) join(d decant.Digest) (c *compiled, first bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c = m.entries[d]; c == nil {
		c, first = &compiled{ready: make(chan struct{})}, true
		m.entries[d] = c
	}
	c.users++
	return c, first
}

// drop lets the next one try again.
func (m *modules) drop(d decant.Digest) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.entries, d)
}

// leave closes the module after its last user, who may have left while it was
// still being compiled.
func (m *modules) leave(d decant.Digest, c *compiled) {
	m.mu.Lock()
	c.users--
	last := c.users == 0 && m.entries[d] == c
	if last {
		delete(m.entries, d)
	}
	m.mu.Unlock()
	if last {
		_ = c.module.Close() // nothing is left that could be lost
	}
}
