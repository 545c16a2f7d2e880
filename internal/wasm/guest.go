package wasm

import (
	"cmp"
	"context"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/decant-project/decant"
)

// Limits where a GuestConfig names none.
const (
	DefaultMemory     = decant.GiB
	DefaultOutput     = 64 << 20
	DefaultStateLimit = 64 * decant.MiB
	DefaultStack      = 32 * decant.MiB
)

// GuestConfig is all that a guest is given. What is not in it does not exist
// for the guest.
type GuestConfig struct {
	Memory     decant.Bytes                 // most memory; 0 is DefaultMemory
	Deadline   time.Duration                // longest call; 0 is as long as its context
	Fuel       int64                        // most fuel of a call, one for each simple instruction, about; 0 is as much as it takes
	Stack      decant.Bytes                 // most machine stack; 0 is DefaultStack
	Output     int                          // most bytes of a response; 0 is DefaultOutput
	Log        io.Writer                    // standard error, of a command from several calls at a time; nil drops it
	Args       []string                     // after the program's name
	Env        map[string]string            //
	Devices    map[string]Device            // /dev/<name>
	Links      map[string]Link              // /link/<name>
	Models     map[string]map[string]string // /models/<name>/<file>, to paths on the host
	State      string                       // the host's folder shown as /state; "" is none
	StateLimit decant.Bytes                 // most bytes in /state; 0 is DefaultStateLimit

	// Keeper, if set, is what host modules keep for a reactor from call to call.
	Keeper Keeper

	// Context, if set, adds to each call's context what host modules keep for
	// the guest; done is called when the call has ended.
	Context func(context.Context) (ctx context.Context, done func())
}

// Device is what a guest reads and writes as /dev/<name>.
type Device interface {
	Read(ctx context.Context) ([]byte, error)
	Write(ctx context.Context, action []byte) error
}

// Link is what a guest calls as /link/<name>.
type Link func(ctx context.Context, request []byte) ([]byte, error)

// Guest is a module with what it was given. A reactor keeps its memory from
// call to call; a command starts anew with each. It is safe for concurrent use:
// a reactor's calls wait for each other, a command's run side by side.
type Guest struct {
	module  *Module
	config  GuestConfig
	turns   chan struct{}      // holds one element for each call under way
	stop    context.CancelFunc // ends calls under way
	stopped context.Context
	lost    atomic.Bool
	closing sync.Mutex // held by who takes all turns

	// Of a reactor; who has the turn owns them.
	reactor    *session
	checkpoint *Snapshot // nil for none
}

// Start makes a guest. A reactor is initialized. GuestFailed: that failed.
// Exhausted: it needs more memory than it may have.
func (h *Host) Start(ctx context.Context, m *Module, c GuestConfig) (*Guest, error) {
	g := newGuest(m, c)
	if m.command {
		return g, nil
	}
	ctx, cancel := g.callContext(ctx)
	defer cancel()
	var err error
	if g.reactor, err = g.start(ctx); err != nil {
		g.stop()
		return nil, err
	}
	return g, nil
}

// newGuest makes a guest in which nothing runs yet.
func newGuest(m *Module, c GuestConfig) *Guest {
	c.Memory = cmp.Or(c.Memory, DefaultMemory)
	c.Output = cmp.Or(c.Output, DefaultOutput)
	c.Stack = cmp.Or(c.Stack, DefaultStack)
	c.StateLimit = cmp.Or(c.StateLimit, DefaultStateLimit)
	if c.Log == nil {
		c.Log = io.Discard
	}
	g := &Guest{module: m, config: c, turns: make(chan struct{}, 1)}
	if m.command {
		g.turns = make(chan struct{}, runtime.GOMAXPROCS(0))
	}
	g.stopped, g.stop = context.WithCancel(context.Background())
	return g
}

// Call calls a function with a request and returns its response.
//
//   - NotFound: there is no such function
//   - Invalid: the request is not what a numeric function takes
//   - GuestFailed: the module says so, or broke down
//   - Deadline: time ran out
//   - Exhausted: it reached a limit of memory, fuel, stack or output
//   - the error of a link or device that made it fail
//
// After some of these a reactor is Lost.
func (g *Guest) Call(ctx context.Context, function string, request []byte) ([]byte, error) {
	function, err := g.module.Function(function)
	if err != nil {
		return nil, err
	}
	ctx, cancel := g.callContext(ctx)
	defer cancel()
	if err := g.enter(ctx); err != nil {
		return nil, err
	}
	defer g.leave()
	if g.reactor == nil {
		s, err := g.start(ctx)
		if err != nil {
			return nil, err
		}
		defer s.close()
		return s.call(ctx, function, request)
	}
	response, err := g.reactor.call(ctx, function, request)
	if g.reactor.lost && g.checkpoint != nil {
		g.setBack(ctx)
	}
	g.lost.Store(g.reactor.lost)
	return response, err
}

// enter waits for a turn; leave gives it to the next.
func (g *Guest) enter(ctx context.Context) error {
	select {
	case g.turns <- struct{}{}:
	case <-ctx.Done():
		return g.ended(ctx, "waiting for its turn")
	}
	if g.stopped.Err() != nil {
		g.leave()
		return decant.Errorf(decant.Unavailable, "the guest is closed")
	}
	return nil
}

func (g *Guest) leave() { <-g.turns }

// callContext bounds a call by the guest's deadline and its end.
func (g *Guest) callContext(ctx context.Context) (context.Context, context.CancelFunc) {
	cancelDeadline := func() {}
	if g.config.Deadline > 0 {
		ctx, cancelDeadline = context.WithTimeout(ctx, g.config.Deadline)
	}
	ctx, cancel := context.WithCancel(ctx)
	unhook := context.AfterFunc(g.stopped, cancel)
	done := func() {}
	if g.config.Context != nil {
		ctx, done = g.config.Context(ctx)
	}
	return ctx, func() {
		done()
		unhook()
		cancel()
		cancelDeadline()
	}
}

// ended says why a call's context ended.
func (g *Guest) ended(ctx context.Context, during string) error {
	switch {
	case g.stopped.Err() != nil:
		return decant.Errorf(decant.Unavailable, "the guest was closed while %s", during)
	case ctx.Err() == context.DeadlineExceeded:
		return decant.Errorf(decant.Deadline, "the call ran out of time while %s", during)
	}
	return decant.Errorf(decant.Deadline, "the call was cancelled while %s", during)
}

// Lost reports whether a reactor broke down and was not set back to a checkpoint:
// its memory cannot be trusted, and every further call fails. Start another.
func (g *Guest) Lost() bool { return g.lost.Load() }

// Close ends calls under way, waits for them, and frees the guest.
func (g *Guest) Close() error {
	g.stop()
	g.closing.Lock()
	defer g.closing.Unlock()
	for range cap(g.turns) {
		g.turns <- struct{}{}
	}
	defer func() {
		for range cap(g.turns) {
			<-g.turns
		}
	}()
	g.lost.Store(true)
	if g.reactor != nil {
		g.reactor.close()
	}
	g.keep(nil)
	return nil
}
