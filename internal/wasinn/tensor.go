package wasinn

import (
	"encoding/binary"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/nn"
)

// memory is what is read of a guest's memory.
type memory interface {
	Read(offset, length uint32) ([]byte, bool)
}

// maxDimensions bounds a tensor's rank.
const maxDimensions = 16

// readTensor reads a tensor record, and copies what it points to, into buf if
// that is large enough:
//
//	0        4        8    9      12       16       20
//	| dims   | len    | ty | junk | data   | len    |
//
// dims are len u32s. The type is one byte; real guests leave junk in the three
// after it. Guests number the types in two ways, see elementType.
func readTensor(m memory, record []byte, want nn.Info, buf []byte) (nn.Tensor, error) {
	dimsPtr, dimsLen := binary.LittleEndian.Uint32(record), binary.LittleEndian.Uint32(record[4:])
	number := record[8]
	dataPtr, dataLen := binary.LittleEndian.Uint32(record[12:]), binary.LittleEndian.Uint32(record[16:])
	if dimsLen > maxDimensions {
		return nn.Tensor{}, decant.Errorf(decant.Invalid, "a tensor of %d dimensions: %d at most", dimsLen, maxDimensions)
	}
	dims, ok := m.Read(dimsPtr, dimsLen*4)
	if !ok {
		return nn.Tensor{}, decant.Errorf(decant.Invalid, "the tensor's dimensions at %#x are outside the memory", dimsPtr)
	}
	data, ok := m.Read(dataPtr, dataLen)
	if !ok {
		return nn.Tensor{}, decant.Errorf(decant.Invalid, "the tensor's data at %#x are outside the memory", dataPtr)
	}
	shape := make([]int64, dimsLen)
	for i := range shape {
		shape[i] = int64(binary.LittleEndian.Uint32(dims[i*4:]))
	}
	t := nn.Tensor{Shape: shape, Type: elementType(number, nn.Elements(shape), int64(dataLen), want.Type), Data: data}
	if err := t.Check(); err != nil {
		return nn.Tensor{}, decant.Errorf(decant.Invalid, "tensor of type number %d: %w", number, err)
	}
	if err := want.Accepts(t); err != nil {
		return nn.Tensor{}, err
	}
	buf = append(buf[:0], data...)
	if buf == nil {
		buf = []byte{}
	}
	t.Data = buf
	return t, nil
}

// Numbers of element types: those of the WITX, and those of the Rust crates up
// to 0.5, from before f64 and i64 were added.
var (
	witxTypes = []nn.Type{nn.F16, nn.F32, nn.F64, nn.U8, nn.I32, nn.I64}
	oldTypes  = []nn.Type{nn.F16, nn.F32, nn.U8, nn.I32}
)

// elementType tells which type a number means by the length of the data, and
// where that leaves two, by what the model wants.
func elementType(number byte, elements, length int64, want nn.Type) nn.Type {
	var fitting []nn.Type
	for _, types := range [][]nn.Type{witxTypes, oldTypes} {
		if int(number) < len(types) && elements*int64(types[number].Size()) == length {
			fitting = append(fitting, types[number])
		}
	}
	for _, t := range fitting {
		if t == want {
			return t
		}
	}
	switch {
	case len(fitting) > 0:
		return fitting[0]
	case int(number) < len(witxTypes):
		return witxTypes[number] // its length will be the error
	}
	return nn.Unknown
}
