package supervisor

import (
	"context"
	"io"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/nn"
	"github.com/decant-project/decant/internal/peripheral"
)

// Guests is the host that runs modules: the one seam between the supervisor and
// what executes foreign code, narrow enough to run in a process of its own. It
// is safe for concurrent use.
type Guests interface {
	// Compile makes a module ready to start. Invalid: it is not Wasm, or asks for
	// what the host does not offer.
	Compile(ctx context.Context, wasm []byte) (Module, error)
}

// Module is a compiled module. It is safe for concurrent use.
type Module interface {
	// Start makes a guest of the module.
	Start(ctx context.Context, c GuestConfig) (Guest, error)
	// Close frees the module; its guests are closed before.
	Close() error
}

// GuestConfig is all that a guest is given: what is not in it does not exist
// for the guest.
type GuestConfig struct {
	Name    string                           // application/component
	Memory  decant.Bytes                     // most linear memory; 0 is the host's default
	Devices map[string]peripheral.Peripheral // /dev/<name>
	Models  map[string]GuestModel            // by the name the guest loads
	// LoadModel loads a model that the guest brings along; its user closes it.
	LoadModel func(ctx context.Context, model []byte) (nn.Model, error)
	State     string    // the folder bound as /state
	Log       io.Writer // standard error
	Links     []string  // names of /link/<name>
	// Link calls the component behind /link/<name>, while the guest waits.
	Link func(ctx context.Context, name string, request []byte) ([]byte, error)
}

// GuestModel is a model bound to a guest.
type GuestModel struct {
	Model nn.Model
	Files map[string]string // the model's files, /models/<name>/<file>, to their paths on this device
}

// Guest is a running module. Its calls are made one after the other.
type Guest interface {
	// Call calls a function. GuestFailed: the module failed, and lives on if Lost
	// is false. Deadline: ctx ended first.
	Call(ctx context.Context, function string, request []byte) ([]byte, error)
	// Lost reports whether the guest cannot be called any more.
	Lost() bool
	Close() error
}
