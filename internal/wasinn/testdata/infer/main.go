// Command infer is a reactor that runs a model on its request.
package main

import (
	"fmt"
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

type tensor struct {
	dims    unsafe.Pointer
	dimsLen uint32
	kind    uint32 // a byte, and three of junk
	data    unsafe.Pointer
	dataLen uint32
}

var (
	context uint32
	loaded  bool
	input   = make([]byte, 3*224*224*4)
	output  = make([]byte, 4000)
)

// infer takes the input tensor of MobileNetV2 and answers with its output.
//
//go:wasmexport infer
func infer() int32 {
	if !loaded {
		name := []byte("classifier")
		var graph uint32
		if e := loadByName(unsafe.Pointer(&name[0]), uint32(len(name)), unsafe.Pointer(&graph)); e != 0 {
			fmt.Fprintln(os.Stderr, "load_by_name:", e)
			return int32(e)
		}
		if e := initExecutionContext(graph, unsafe.Pointer(&context)); e != 0 {
			return int32(e)
		}
		loaded = true
	}
	n, _ := io.ReadFull(os.Stdin, input)
	dims := [4]uint32{1, 3, 224, 224}
	t := tensor{dims: unsafe.Pointer(&dims[0]), dimsLen: 4, kind: 0xabcd01, data: unsafe.Pointer(&input[0]), dataLen: uint32(n)}
	if e := setInput(context, 0, unsafe.Pointer(&t)); e != 0 {
		return int32(e)
	}
	if e := compute(context); e != 0 {
		return int32(e)
	}
	var written uint32
	if e := getOutput(context, 0, unsafe.Pointer(&output[0]), uint32(len(output)), unsafe.Pointer(&written)); e != 0 {
		return int32(e)
	}
	_, _ = os.Stdout.Write(output[:written])
	return 0
}
