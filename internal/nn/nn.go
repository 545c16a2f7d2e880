// Package nn runs models. A Backend loads a model's bytes, a Model turns input
// tensors into output tensors; what a guest sees of it is internal/wasinn.
package nn

import (
	"context"

	"github.com/decant-project/decant"
)

// Type is the type of a tensor's elements.
type Type uint8

// The element types, in no ABI's order: internal/wasinn maps the numbers.
const (
	Unknown Type = iota
	F16
	F32
	F64
	U8
	I8
	I32
	I64
	Bool
)

// Tensor is a dense, row-major tensor. Data holds the elements in little-endian
// order, len(Data) = product(Shape) * Type.Size(). A nil Shape is a scalar.
type Tensor struct {
	Type  Type
	Shape []int64
	Data  []byte
}

// Info describes an input or an output of a model. A dimension of -1 may have
// any size.
type Info struct {
	Name  string  `json:"name"`
	Type  Type    `json:"type"`
	Shape []int64 `json:"shape"`
}

// Backend is a runtime for models. It is safe for concurrent use.
type Backend interface {
	// Describe says what the backend is and which formats it loads.
	Describe() decant.Backend
	// Load makes a model of its file's bytes, which it does not keep. Invalid:
	// the bytes are not a model the backend understands.
	Load(ctx context.Context, model []byte) (Model, error)
	// Close frees the backend; its models must be closed before.
	Close() error
}

// Model is a loaded model. It is safe for concurrent use.
type Model interface {
	Inputs() []Info
	Outputs() []Info
	// Run computes all outputs, in the order of Outputs, from one tensor per
	// input, in the order of Inputs. It does not keep or change the inputs; the
	// outputs are the caller's. Invalid: a type or shape does not fit. Deadline:
	// ctx ended first, and the computation was stopped.
	Run(ctx context.Context, inputs []Tensor) ([]Tensor, error)
	Close() error
}
