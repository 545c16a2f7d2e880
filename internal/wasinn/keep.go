package wasinn

import (
	"context"
	"encoding/json"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/nn"
)

// kept is what a session is made anew from, as JSON: the same handles for the
// same models and tensors. The models themselves are bound by name wherever the
// guest goes on.
type kept struct {
	Graphs   []string      `json:"graphs"` // the names that they were loaded by
	Contexts []keptContext `json:"contexts"`
}

// maxKept bounds the bytes of the tensors that are kept.
const maxKept = 32 << 20

type keptContext struct {
	Graph   int          `json:"graph"`
	Inputs  []*nn.Tensor `json:"inputs"`  // null: not set
	Outputs []nn.Tensor  `json:"outputs"` // null: not computed
}

// Capture returns what Restore needs, nil for a session without handles.
// Unsupported: the guest has brought a model along, which is not kept. Exhausted:
// its tensors are too large.
func (s *Session) Capture() ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.graphs) == 0 {
		return nil, nil
	}
	var k kept
	for i, g := range s.graphs {
		if g.name == "" {
			return nil, decant.Errorf(decant.Unsupported, "the guest has loaded graph %d from bytes, which cannot be taken along", i).
				WithHelp("bind the model in the application, and load it by name")
		}
		k.Graphs = append(k.Graphs, g.name)
	}
	if held := s.held(); held > maxKept {
		return nil, decant.Errorf(decant.Exhausted, "the guest's execution contexts hold tensors of %s, which is more than the %s that can be taken along", decant.Bytes(held), decant.Bytes(maxKept))
	}
	for _, x := range s.contexts {
		c := keptContext{x.graph, make([]*nn.Tensor, len(x.inputs)), x.outputs}
		for i, t := range x.inputs {
			if t.Data != nil {
				c.Inputs[i] = &t
			}
		}
		k.Contexts = append(k.Contexts, c)
	}
	return json.Marshal(k)
}

// Restore makes the session what it was when data was captured; nil makes it
// empty. NotFound: a model is not bound here. Invalid: data is damaged, or a
// model here differs from the one there.
func (s *Session) Restore(ctx context.Context, data []byte) error {
	if err := s.Close(); err != nil {
		return err
	}
	if data == nil {
		return nil
	}
	var k kept
	if err := json.Unmarshal(data, &k); err != nil {
		return decant.Errorf(decant.Invalid, "cannot read what wasi-nn kept: %w", err)
	}
	if len(k.Graphs) > maxHandles || len(k.Contexts) > maxHandles {
		return decant.Errorf(decant.Invalid, "wasi-nn kept more than %d handles", maxHandles)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.fill(ctx, k); err != nil {
		s.graphs, s.contexts = nil, nil
		return err
	}
	return nil
}

// fill makes graphs and contexts of what was kept.
func (s *Session) fill(ctx context.Context, k kept) error {
	for _, name := range k.Graphs {
		model, err := s.models.ByName(ctx, name)
		if err != nil {
			return err
		}
		s.graphs = append(s.graphs, graph{model, name})
	}
	for i, c := range k.Contexts {
		x, err := s.restored(c)
		if err != nil {
			return decant.Errorf(decant.Invalid, "cannot restore execution context %d of wasi-nn: %w", i, err)
		}
		s.contexts = append(s.contexts, x)
	}
	if s.held() > maxKept {
		return decant.Errorf(decant.Invalid, "wasi-nn kept tensors of more than %s", decant.Bytes(maxKept))
	}
	return nil
}

// restored makes an execution context of what was kept of it.
func (s *Session) restored(c keptContext) (*execution, error) {
	if c.Graph < 0 || c.Graph >= len(s.graphs) {
		return nil, decant.Errorf(decant.Invalid, "there is no graph %d", c.Graph)
	}
	x := &execution{graph: c.Graph, model: s.graphs[c.Graph].model, inputs: make([]nn.Tensor, len(c.Inputs)), outputs: c.Outputs}
	infos := x.model.Inputs()
	if len(x.inputs) != len(infos) {
		return nil, decant.Errorf(decant.Invalid, "the model has %d inputs, and had %d", len(infos), len(x.inputs))
	}
	for i, t := range c.Inputs {
		if t == nil {
			continue
		}
		if err := t.Check(); err != nil {
			return nil, err
		}
		if err := infos[i].Accepts(*t); err != nil {
			return nil, err
		}
		x.inputs[i] = *t
	}
	for _, t := range x.outputs {
		if err := t.Check(); err != nil {
			return nil, err
		}
	}
	return x, nil
}
