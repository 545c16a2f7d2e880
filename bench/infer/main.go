//go:build wasip1

// Infer runs a model and does nothing besides: what is left is what a call and
// wasi-nn cost.
package main

import (
	"io"
	"os"
	"unsafe"
)

func main() {}

//go:wasmimport wasi_ephemeral_nn load_by_name
func loadByName(name unsafe.Pointer, nameLen uint32, graph unsafe.Pointer) uint32

//go:wasmimport wasi_ephemeral_nn init_execution_context
func initExecutionContext(graph uint32, context unsafe.Pointer) uint32

//go:wasmimport wasi_ephemeral_nn set_input
func setInput(context, index uint32, tensor unsafe.Pointer) uint32

//go:wasmimport wasi_ephemeral_nn compute
func compute(context uint32) uint32

//go:wasmimport wasi_ephemeral_nn get_output
func getOutput(context, index uint32, buf unsafe.Pointer, bufLen uint32, written unsafe.Pointer) uint32

// tensor is a tensor as set_input reads it: 20 bytes, addresses of 32 bits.
type tensor struct {
	dims, dimCount uint32
	kind           uint8
	_              [3]byte
	data, size     uint32
}

const f32 = 1

var (
	context uint32
	loaded  bool
	dims    = [4]uint32{1, 3, 224, 224}
	input   [3 * 224 * 224 * 4]byte
	output  [4000]byte
	name    = [...]byte{'c', 'l', 'a', 's', 's', 'i', 'f', 'i', 'e', 'r'}
	graph   uint32
	written uint32
)

// picture takes the input tensor of MobileNetV2, as a module has it that made it
// of a photograph.
//
//go:wasmexport picture
func picture() int32 {
	if _, err := io.ReadFull(os.Stdin, input[:]); err != nil {
		return 1
	}
	return 0
}

// infer answers with the output for the picture.
//
//go:wasmexport infer
func infer() int32 {
	if !loaded {
		if e := loadByName(unsafe.Pointer(&name), uint32(len(name)), unsafe.Pointer(&graph)); e != 0 {
			return int32(e)
		}
		if e := initExecutionContext(graph, unsafe.Pointer(&context)); e != 0 {
			return int32(e)
		}
		loaded = true
	}
	t := tensor{dims: address(&dims), dimCount: 4, kind: f32, data: address(&input), size: uint32(len(input))}
	if e := setInput(context, 0, unsafe.Pointer(&t)); e != 0 {
		return int32(e)
	}
	if e := compute(context); e != 0 {
		return int32(e)
	}
	if e := getOutput(context, 0, unsafe.Pointer(&output), uint32(len(output)), unsafe.Pointer(&written)); e != 0 {
		return int32(e)
	}
	_, _ = os.Stdout.Write(output[:written])
	return 0
}

// address returns where a variable of the package is: it never moves.
func address[T any](p *T) uint32 { return uint32(uintptr(unsafe.Pointer(p))) }
