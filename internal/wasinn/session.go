package wasinn

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/decant-project/decant/internal/nn"
)

// Models is where a session's models come from.
type Models interface {
	// ByName returns the model bound under a name, which stays the binder's.
	// NotFound says which names there are.
	ByName(ctx context.Context, name string) (nn.Model, error)
	// FromBytes loads a model that the guest brings along; the session closes
	// it.
	FromBytes(ctx context.Context, model []byte) (nn.Model, error)
}

// Session is what a guest has of wasi-nn: its graphs and execution contexts.
type Session struct {
	models Models
	log    io.Writer

	mu       sync.Mutex
	graphs   []graph
	contexts []*execution
	owned    []nn.Model // loaded from bytes
}

// graph is a model that the guest has a handle of.
type graph struct {
	model nn.Model
	name  string // that it is bound under; "" if the guest brought it along
}

// execution is an execution context.
type execution struct {
	graph   int
	model   nn.Model
	inputs  []nn.Tensor
	outputs []nn.Tensor // nil until computed
}

// maxHeld bounds the bytes of the tensors that a session holds.
const maxHeld = 256 << 20

// held returns how many bytes of tensors the session holds.
func (s *Session) held() int {
	n := 0
	for _, x := range s.contexts {
		for _, tensors := range [][]nn.Tensor{x.inputs, x.outputs} {
			for _, t := range tensors {
				n += len(t.Data)
			}
		}
	}
	return n
}

// NewSession makes a session. Why a call gave an errno is written to log, a
// line each.
func NewSession(m Models, log io.Writer) *Session { return &Session{models: m, log: log} }

// Close closes what the session loaded.
func (s *Session) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, m := range s.owned {
		errs = append(errs, m.Close())
	}
	s.graphs, s.contexts, s.owned = nil, nil, nil
	return errors.Join(errs...)
}

func (s *Session) explain(function string, e errno, why error) {
	fmt.Fprintf(s.log, "wasi-nn: %s gave errno %d: %v\n", function, e, why)
}

type sessionKey struct{}

// With returns a context whose guest calls find the session.
func With(ctx context.Context, s *Session) context.Context {
	return context.WithValue(ctx, sessionKey{}, s)
}
