package wasinn

import (
	"bytes"
	"context"
	"errors"
	"io"
	"reflect"
	"testing"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/nn"
)

// worked is a session with two execution contexts: one computed, one not set.
func worked(t testing.TB) *Session {
	s := NewSession(&models{}, io.Discard)
	m, err := s.models.ByName(context.Background(), "net")
	if err != nil {
		t.Fatal(err)
	}
	in := []nn.Tensor{{Type: nn.U8, Shape: []int64{2}, Data: []byte{5, 7}}}
	out, err := m.Run(context.Background(), in)
	if err != nil {
		t.Fatal(err)
	}
	s.graphs = []graph{{m, "net"}, {m, "net"}}
	s.contexts = []*execution{{graph: 1, model: m, inputs: in, outputs: out}, {graph: 0, model: m, inputs: make([]nn.Tensor, 1)}}
	return s
}

// TestKeep: a session that is captured and restored elsewhere is the same.
func TestKeep(t *testing.T) {
	s := worked(t)
	data, err := s.Capture()
	if err != nil {
		t.Fatal(err)
	}
	other := worked(t) // what was there goes
	if err := other.Restore(t.Context(), data); err != nil {
		t.Fatal(err)
	}
	again, err := other.Capture()
	if err != nil || !bytes.Equal(again, data) {
		t.Errorf("captured anew: %s, %v; was %s", again, err, data)
	}
	for i, x := range other.contexts {
		if w := s.contexts[i]; !reflect.DeepEqual(x.inputs, w.inputs) || !reflect.DeepEqual(x.outputs, w.outputs) {
			t.Errorf("context %d holds %v, %v", i, x.inputs, x.outputs)
		}
	}
	if out, err := other.contexts[0].model.Run(t.Context(), other.contexts[0].inputs); err != nil || !reflect.DeepEqual(out, other.contexts[0].outputs) {
		t.Errorf("computed anew: %v, %v", out, err)
	}
	if err := other.Restore(t.Context(), nil); err != nil || len(other.graphs)+len(other.contexts) != 0 {
		t.Errorf("restored of nothing: %v, %v", other.graphs, err)
	}
	if data, err := other.Capture(); data != nil || err != nil {
		t.Errorf("captured of nothing: %s, %v", data, err)
	}
}

func TestKeepRefused(t *testing.T) {
	own := NewSession(&models{}, io.Discard)
	own.graphs = []graph{{model: &double{}}}
	if _, err := own.Capture(); !errors.Is(err, decant.Unsupported) {
		t.Errorf("of a model from bytes: %v", err)
	}
	for data, code := range map[string]decant.Code{
		`{`:                           decant.Invalid,
		`{"graphs":["other"]}`:        decant.NotFound,
		`{"contexts":[{"graph":0}]}`:  decant.Invalid,
		`{"contexts":[{"graph":-1}]}`: decant.Invalid,
		`{"graphs":["net"],"contexts":[{"graph":0}]}`:                                                    decant.Invalid,
		`{"graphs":["net"],"contexts":[{"graph":0,"inputs":[{"Type":"u8","Shape":[3],"Data":"AAAA"}]}]}`: decant.Invalid,
	} {
		if err := worked(t).Restore(t.Context(), []byte(data)); !errors.Is(err, code) {
			t.Errorf("%s: got %v, want %s", data, err, code)
		}
	}
}

// FuzzRestore: whatever a snapshot says, it is an error, or a session that works.
func FuzzRestore(f *testing.F) {
	data, err := worked(f).Capture()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		s := NewSession(&models{}, io.Discard)
		if s.Restore(context.Background(), data) != nil {
			return
		}
		for _, x := range s.contexts {
			_, _ = x.model.Run(context.Background(), x.inputs)
		}
		if _, err := s.Capture(); err != nil {
			t.Fatal(err)
		}
	})
}
