//go:build wasip1

// Package wasinn calls wasi-nn, as any module can: the functions are plain
// imports of "wasi_ephemeral_nn", in the WITX ABI. A model goes by the name
// under which the application bound it.
package wasinn

import (
	"fmt"
	"runtime"
	"unsafe"
)

//go:wasmimport wasi_ephemeral_nn load_by_name
func loadByName(name string, graph unsafe.Pointer) uint32

//go:wasmimport wasi_ephemeral_nn init_execution_context
func initExecutionContext(graph uint32, context unsafe.Pointer) uint32

//go:wasmimport wasi_ephemeral_nn set_input
func setInput(context, index uint32, tensor unsafe.Pointer) uint32

//go:wasmimport wasi_ephemeral_nn compute
func compute(context uint32) uint32

//go:wasmimport wasi_ephemeral_nn get_output
func getOutput(context, index uint32, into unsafe.Pointer, size uint32, written unsafe.Pointer) uint32

// Model is a model with its inputs and outputs.
type Model struct{ context uint32 }

// Load finds the model bound as name.
func Load(name string) (*Model, error) {
	handles := new(struct{ graph, context uint32 }) // the host writes here: it must not move
	var pin runtime.Pinner
	pin.Pin(handles)
	defer pin.Unpin()
	if errno := loadByName(name, unsafe.Pointer(&handles.graph)); errno != 0 {
		return nil, failed("load model "+name, errno)
	}
	if errno := initExecutionContext(handles.graph, unsafe.Pointer(&handles.context)); errno != 0 {
		return nil, failed("prepare model "+name, errno)
	}
	return &Model{context: handles.context}, nil
}

// Element types by their numbers in WITX.
const (
	f32 = 1
	i64 = 5
)

// tensor is a tensor as set_input reads it: 20 bytes, addresses of 32 bits.
type tensor struct {
	dims, dimCount uint32
	kind           uint8
	_              [3]byte
	data, size     uint32
}

// SetInput gives the model an input: numbers in row-major order, of this shape.
// A scalar has no shape.
func SetInput[T float32 | int64](m *Model, index int, shape []uint32, data []T) error {
	var pin runtime.Pinner
	defer pin.Unpin()
	t := &tensor{kind: f32, dimCount: uint32(len(shape)), size: uint32(len(data)) * uint32(unsafe.Sizeof(data[0]))}
	if _, ok := any(data).([]int64); ok {
		t.kind = i64
	}
	pin.Pin(t)
	pin.Pin(&data[0])
	t.data = address(&data[0])
	if len(shape) > 0 {
		pin.Pin(&shape[0])
		t.dims = address(&shape[0])
	}
	if errno := setInput(m.context, uint32(index), unsafe.Pointer(t)); errno != 0 {
		return failed(fmt.Sprintf("set input %d", index), errno)
	}
	return nil
}

func address[T any](p *T) uint32 { return uint32(uintptr(unsafe.Pointer(p))) }

// Compute runs the model.
func (m *Model) Compute() error {
	if errno := compute(m.context); errno != 0 {
		return failed("compute", errno)
	}
	return nil
}

// Output fills into with an output, whose size must be that of into.
func (m *Model) Output(index int, into []float32) error {
	written := new(uint32)
	var pin runtime.Pinner
	pin.Pin(written)
	pin.Pin(&into[0])
	defer pin.Unpin()
	size := uint32(len(into)) * 4
	if errno := getOutput(m.context, uint32(index), unsafe.Pointer(&into[0]), size, unsafe.Pointer(written)); errno != 0 {
		return failed(fmt.Sprintf("get output %d", index), errno)
	}
	if *written != size {
		return fmt.Errorf("output %d has %d bytes, want %d", index, *written, size)
	}
	return nil
}

func failed(what string, errno uint32) error {
	return fmt.Errorf("cannot %s: wasi-nn error %d", what, errno)
}
