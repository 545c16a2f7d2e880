package nn

import (
	"fmt"
	"math"
	"slices"

	"github.com/decant-project/decant"
)

var types = map[Type]struct {
	name string
	size int
}{
	F16: {"f16", 2}, F32: {"f32", 4}, F64: {"f64", 8}, U8: {"u8", 1},
	I8: {"i8", 1}, I32: {"i32", 4}, I64: {"i64", 8}, Bool: {"bool", 1},
}

// Size returns the bytes of an element; 0 for Unknown.
func (t Type) Size() int { return types[t].size }

func (t Type) String() string {
	if k, ok := types[t]; ok {
		return k.name
	}
	return "unknown"
}

// MarshalText writes the type's name.
func (t Type) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText reads a type's name.
func (t *Type) UnmarshalText(text []byte) error {
	for k, v := range types {
		if v.name == string(text) {
			*t = k
			return nil
		}
	}
	return decant.Errorf(decant.Invalid, "tensor type %.20q: use f16, f32, f64, u8, i8, i32, i64 or bool", text)
}

// maxRank bounds a tensor's dimensions.
const maxRank = 16

// Elements returns the product of a shape's dimensions, 1 for a scalar, or -1
// if it is negative, or too large for any machine.
func Elements(shape []int64) int64 {
	if len(shape) > maxRank {
		return -1
	}
	n := int64(1)
	for _, d := range shape {
		if d < 0 || d != 0 && n > math.MaxInt32*64/d {
			return -1
		}
		n *= d
	}
	return n
}

// Check returns an Invalid error unless the data is as long as type and shape
// say.
func (t Tensor) Check() error {
	if t.Type.Size() == 0 {
		return decant.Errorf(decant.Invalid, "tensor of unknown type")
	}
	n := Elements(t.Shape)
	if n < 0 {
		return decant.Errorf(decant.Invalid, "tensor of shape %v: no machine has room for it", t.Shape)
	}
	if want := n * int64(t.Type.Size()); int64(len(t.Data)) != want {
		return decant.Errorf(decant.Invalid, "tensor of %s %v has %d bytes, not %d", t.Type, t.Shape, len(t.Data), want)
	}
	return nil
}

// Accepts returns an Invalid error unless t can be given for i.
func (i Info) Accepts(t Tensor) error {
	if err := t.Check(); err != nil {
		return decant.Errorf(decant.Invalid, "input %s: %w", i.Name, err)
	}
	fits := len(t.Shape) == len(i.Shape)
	for d := range min(len(i.Shape), len(t.Shape)) {
		fits = fits && (i.Shape[d] < 0 || i.Shape[d] == t.Shape[d])
	}
	if t.Type != i.Type || !fits {
		return decant.Errorf(decant.Invalid, "input %s is %s, not %s", i.Name, i, describe(t.Type, t.Shape))
	}
	return nil
}

// String returns type and shape: f32 [1,3,224,224]; ? is any size.
func (i Info) String() string { return describe(i.Type, i.Shape) }

func describe(t Type, shape []int64) string {
	s := t.String() + " ["
	for i, d := range shape {
		if i > 0 {
			s += ","
		}
		if d < 0 {
			s += "?"
		} else {
			s += fmt.Sprint(d)
		}
	}
	return s + "]"
}

// CheckInputs returns an Invalid error unless inputs can be given to a model
// with these.
func CheckInputs(want []Info, inputs []Tensor) error {
	if len(inputs) != len(want) {
		return decant.Errorf(decant.Invalid, "the model has %d inputs, %d were given", len(want), len(inputs))
	}
	for i, t := range inputs {
		if err := want[i].Accepts(t); err != nil {
			return err
		}
	}
	return nil
}

// Clone returns a tensor that shares nothing with t.
func (t Tensor) Clone() Tensor {
	return Tensor{Type: t.Type, Shape: slices.Clone(t.Shape), Data: slices.Clone(t.Data)}
}
