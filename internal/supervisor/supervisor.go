// Package supervisor is a device's share of decant: it brings the device to
// what its orchestrator desires and keeps it there, with the orchestrator or
// without. In come desired states, calls and samples of peripherals; out go
// responses, calls to other devices along links, and reports.
//
//	site.go      the connection to an orchestrator: desired state in, reports out
//	join.go      how the device becomes a member of a site
//	apply.go     desired state to instances
//	instance.go  the life of an instance; start.go its guest
//	call.go      calls, their queue and the links; trigger.go samples
//	models.go    models, bound and uploaded
//
// What it needs of others stands in Parts and guests.go.
package supervisor

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"time"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/blobs"
	"github.com/decant-project/decant/internal/discovery"
	"github.com/decant-project/decant/internal/nn"
	"github.com/decant-project/decant/internal/peripheral"
	"github.com/decant-project/decant/internal/transport"
)

// grace is how long calls may still take once the supervisor shall stop, and
// then how long they may take to end when they are ended.
const grace = 5 * time.Second

// ErrStuck says that something did not end although it was ended: a process has
// to go without closing anything.
var ErrStuck = decant.Errorf(decant.Internal, "a call did not end; the process goes all the same")

// Parts are what a supervisor is put together from.
type Parts struct {
	Data      string // the folder for all that outlives the process
	Version   string
	Listen    net.Addr // of the device's own API
	Identity  *Identity
	Discovery discovery.Discoverer // nil: only the configured orchestrators
	Guests    Guests
	Engine    string // how guests run: compiler or interpreter
	Blobs     *blobs.Store
	Caller    transport.Caller // reaches other devices
	// Inference describes the backend for models, and OpenBackend starts it, at
	// the first model. Both are absent on a device without.
	Inference      []decant.Backend
	OpenBackend    func() (nn.Backend, error)
	OpenPeripheral func(peripheral.Config) (peripheral.Peripheral, error)
	Log            *slog.Logger
}

// Supervisor runs what the device shall run. It implements transport.Handler
// and the service behind the device's REST interface. It is safe for concurrent
// use.
type Supervisor struct {
	parts   Parts
	config  Config
	log     *slog.Logger
	id      string
	caps    decant.Capabilities
	modules modules
	models  *models
	events  events
	orchs   *orchestrators
	site    *connection
	fetch   func(decant.Digest) blobs.Fetch
	offers  chan offer    // join codes that came over the network
	changed chan struct{} // something that a report tells has changed

	kill    context.Context // ends what has not ended by itself
	killNow context.CancelFunc
	workers sync.WaitGroup // one for each instance

	mu        sync.Mutex
	life      context.Context // of the workers, while Run runs
	instances map[string]*instance
	desired   decant.Desired // as stored
	known     bool           // there was a desired state
}

// New makes a supervisor of a checked configuration.
func New(config Config, parts Parts) (*Supervisor, error) {
	s := &Supervisor{
		parts: parts, config: config, log: parts.Log, id: parts.Identity.ID(),
		modules: modules{entries: map[decant.Digest]*compiled{}}, orchs: newOrchestrators(config.Orchestrators),
		offers: make(chan offer, 1), changed: make(chan struct{}, 1),
		instances: map[string]*instance{},
	}
	s.kill, s.killNow = context.WithCancel(context.Background())
	s.caps = s.capabilities()
	s.site = newConnection(s)
	s.fetch = s.site.fetch
	var err error
	if s.models, err = openModels(filepath.Join(parts.Data, "models"), parts.Blobs, parts.OpenBackend); err != nil {
		return nil, err
	}
	if s.desired, s.known, err = readDesired(s.desiredPath()); err != nil {
		return nil, err
	}
	return s, nil
}

// Run runs what was desired last, joins with code if the device has not joined
// (an empty code waits for an approval), and follows its orchestrator until ctx
// ends. It returns once all has stopped. Denied: the code is no good. ErrStuck:
// something would not stop.
func (s *Supervisor) Run(ctx context.Context, code string) error {
	s.sweepFolders()
	s.mu.Lock()
	life, stopInstances := context.WithCancel(context.Background())
	s.life = life
	s.applyLocked(s.desired)
	s.mu.Unlock()

	online, stop := context.WithCancel(ctx)
	var tasks sync.WaitGroup
	if s.parts.Discovery != nil {
		tasks.Go(func() { s.browse(online) })
		tasks.Go(func() { s.advertise(online, discovery.Devices) })
		tasks.Go(func() { s.advertise(online, discovery.Things) })
	}
	tasks.Go(func() { s.sweepBlobs(online) })
	err := s.join(online, code)
	if err == nil {
		s.site.run(online)
	}

	stop()
	stopInstances()
	late := time.AfterFunc(grace, s.killNow)
	ended := make(chan struct{})
	go func() {
		s.workers.Wait()
		close(ended)
	}()
	tooLate := time.NewTimer(2 * grace)
	select {
	case <-ended:
	case <-tooLate.C:
		return ErrStuck
	}
	tooLate.Stop()
	late.Stop()
	s.site.lastReport()
	tasks.Wait()
	s.killNow()
	return err
}

// Close frees the models and their backend. Run has returned before.
func (s *Supervisor) Close() error {
	s.killNow()
	return s.models.close()
}

// poke says that there is something new to report.
func (s *Supervisor) poke() { poke(s.changed) }

func (s *Supervisor) desiredPath() string { return filepath.Join(s.parts.Data, "desired.json") }

// statePath is the folder an instance keeps its files in, logPath its log. A
// key is two names with a slash between.
func (s *Supervisor) statePath(key string) string {
	return filepath.Join(s.parts.Data, "state", filepath.FromSlash(key))
}

func (s *Supervisor) logPath(key string) string {
	return filepath.Join(s.parts.Data, "logs", filepath.FromSlash(key)+".log")
}
