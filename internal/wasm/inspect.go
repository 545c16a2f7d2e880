package wasm

import (
	"strings"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/wasm/binary"
)

// Description is what a module says of itself, and what a host makes of it.
type Description struct {
	Digest    decant.Digest `json:"digest"`
	Size      decant.Bytes  `json:"size"`
	Kind      string        `json:"kind"` // reactor: lives from call to call; command: starts anew with each
	Functions []Function    `json:"functions"`
	Imports   []Import      `json:"imports"`
	Inference bool          `json:"inference"` // it imports wasi-nn
	Memory    Memory        `json:"memory"`
	Limits    []Limit       `json:"limits"`
	Movable   bool          `json:"movable"`
	Unmovable string        `json:"unmovable,omitempty"` // why not
	Refused   string        `json:"refused,omitempty"`   // why no device takes it
}

// Function is a function of a module.
type Function struct {
	Name string `json:"name"`
	How  string `json:"how"`  // stream: standard input to standard output; json: an array in, an array out
	Type string `json:"type"` // (i32, f64) -> (i64)
}

// Import is something that a module imports.
type Import struct {
	Name    string `json:"name"`
	Offered bool   `json:"offered"`
}

// Memory is how much memory a module begins with, and may grow to.
type Memory struct {
	Least decant.Bytes `json:"least"`
	Most  decant.Bytes `json:"most"`
}

// Limit is how near a module comes to a limit.
type Limit struct {
	What string `json:"what"`
	Has  int    `json:"has"`
	Most int    `json:"most"`
}

// Inspect describes a module without compiling it. Invalid: it is beyond the
// limits, or cannot be read.
func (h *Host) Inspect(original []byte) (*Description, error) {
	p, err := binary.Prepare(original, h.limits)
	if err != nil {
		return nil, err
	}
	shape := shapeOf(p.Description)
	d := &Description{Digest: decant.DigestOf(original), Size: decant.Bytes(len(original)), Kind: "reactor", Movable: p.Unmovable == "", Unmovable: p.Unmovable}
	if shape.command {
		d.Kind, d.Movable, d.Unmovable = "command", true, "" // there is nothing to move
	}
	for _, name := range shape.Functions() {
		sig := shape.functions[name]
		how := "json"
		if sig.streams {
			how = "stream"
		}
		d.Functions = append(d.Functions, Function{name, how, sig.String()})
	}
	for _, i := range p.Imports {
		d.Imports = append(d.Imports, Import{i.String(), h.offers(i)})
		d.Inference = d.Inference || strings.HasPrefix(i.Module, "wasi_ephemeral_nn")
	}
	if err := h.check(p.Description); err != nil {
		d.Refused = err.Error()
	}
	if p.Memory != nil {
		d.Memory = Memory{decant.Bytes(p.Memory.Least), decant.Bytes(p.Memory.Most)} //nolint:gosec // 4 GiB at most
	}
	for _, u := range p.Uses {
		d.Limits = append(d.Limits, Limit(u))
	}
	return d, nil
}

// Check refuses a module that is beyond limits, where they are lower than the
// host's.
func (h *Host) Check(original []byte, limits binary.Limits) error {
	_, err := binary.Prepare(original, h.limits.Tightened(limits))
	return err
}
