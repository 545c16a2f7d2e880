// Package wasinn is wasi-nn for guests: the host module wasi_ephemeral_nn of
// the WITX ABI (phase 2, 2023). What enters are calls of guests, which are
// hostile: whatever their pointers, lengths and handles are, they get an errno
// and the host goes on.
package wasinn

import (
	"context"
	"encoding/binary"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/nn"
)

// ModuleName is what guests import.
const ModuleName = "wasi_ephemeral_nn"

// errno is nn_errno of the WITX.
type errno uint32

const (
	success         errno = 0
	invalidArgument errno = 1 // a bad pointer, length or tensor
	invalidEncoding errno = 2
	runtimeError    errno = 5 // the backend failed
	unsupported     errno = 6 // a bad handle or name, as Wasmtime has it
	tooLarge        errno = 7 // the output does not fit in the buffer
)

// graph_encoding of the WITX.
const (
	encodingONNX       = 1
	encodingAutodetect = 6 // WasmEdge's
)

// Sizes of records in a guest's memory.
const (
	builderSize = 8  // graph_builder: pointer, length
	tensorSize  = 20 // tensor: see readTensor
)

// Instantiate adds the host module to r. It keeps nothing: each call finds its
// guest's session in the context (With).
func Instantiate(ctx context.Context, r wazero.Runtime) error {
	b := r.NewHostModuleBuilder(ModuleName)
	for name, f := range map[string]struct {
		params int
		call   func(*call, []uint32) errno
	}{
		"load":                   {5, (*call).load},
		"load_by_name":           {3, (*call).loadByName},
		"init_execution_context": {2, (*call).initExecutionContext},
		"set_input":              {3, (*call).setInput},
		"compute":                {1, (*call).compute},
		"get_output":             {5, (*call).getOutput},
	} {
		params := make([]api.ValueType, f.params)
		for i := range params {
			params[i] = api.ValueTypeI32
		}
		b.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(func(ctx context.Context, m api.Module, stack []uint64) {
			args := make([]uint32, f.params)
			for i := range args {
				args[i] = api.DecodeU32(stack[i])
			}
			stack[0] = uint64(dispatch(ctx, m, name, f.call, args))
		}), params, []api.ValueType{api.ValueTypeI32}).Export(name)
	}
	_, err := b.Instantiate(ctx)
	return err
}

// call is one call of a guest.
type call struct {
	ctx    context.Context //nolint:containedctx // lives as long as the call
	memory api.Memory
	s      *Session
	why    error // what went wrong, for the log
}

func dispatch(ctx context.Context, m api.Module, name string, f func(*call, []uint32) errno, args []uint32) errno {
	s, _ := ctx.Value(sessionKey{}).(*Session)
	if s == nil || m.Memory() == nil {
		return unsupported
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &call{ctx: ctx, memory: m.Memory(), s: s}
	e := f(c, args)
	if e != success {
		s.explain(name, e, c.why)
	}
	return e
}

// fail notes why a call failed.
func (c *call) fail(e errno, format string, args ...any) errno {
	c.why = decant.Errorf(decant.Invalid, format, args...)
	return e
}

func (c *call) badPointer(what string, p uint32) errno {
	return c.fail(invalidArgument, "%s at %#x is outside the memory", what, p)
}

// put writes a u32 result.
func (c *call) put(p, v uint32) errno {
	if !c.memory.WriteUint32Le(p, v) {
		return c.badPointer("the result", p)
	}
	return success
}

// load(builders: ptr, builders_len, encoding, target, graph: *u32)
//
// builders are builders_len records of 8 bytes, each a part of the model:
//
//	0        4        8
//	| ptr    | len    |
//
// ONNX has one. The handle of the graph is written to *graph. invalidEncoding:
// an encoding other than ONNX. runtimeError: the backend does not load it.
func (c *call) load(a []uint32) errno {
	if a[2] != encodingONNX && a[2] != encodingAutodetect {
		return c.fail(invalidEncoding, "graph encoding %d: only ONNX (1) is supported", a[2])
	}
	if a[1] != 1 {
		return c.fail(invalidArgument, "%d graph builders: ONNX takes one", a[1])
	}
	builder, ok := c.memory.Read(a[0], builderSize)
	if !ok {
		return c.badPointer("the graph builder", a[0])
	}
	ptr, length := binary.LittleEndian.Uint32(builder), binary.LittleEndian.Uint32(builder[4:])
	data, ok := c.memory.Read(ptr, length)
	if !ok {
		return c.badPointer("the model", ptr)
	}
	if e := c.room(len(c.s.graphs)); e != success {
		return e
	}
	model, err := c.s.models.FromBytes(c.ctx, data)
	if err != nil {
		c.why = err
		return runtimeError
	}
	c.s.owned = append(c.s.owned, model)
	return c.addGraph(graph{model: model}, a[4])
}

// load_by_name(name: ptr, name_len, graph: *u32)
//
// Gives the model that the application bound under the name. unsupported:
// there is none.
func (c *call) loadByName(a []uint32) errno {
	const mostName = 256
	name, ok := c.memory.Read(a[0], a[1])
	if !ok || a[1] > mostName {
		return c.badPointer("the model's name", a[0])
	}
	if e := c.room(len(c.s.graphs)); e != success {
		return e
	}
	model, err := c.s.models.ByName(c.ctx, string(name))
	if err != nil {
		c.why = err
		return unsupported
	}
	return c.addGraph(graph{model, string(name)}, a[2])
}

// Limits of a guest's handles.
const maxHandles = 256

func (c *call) room(n int) errno {
	if n >= maxHandles {
		return c.fail(runtimeError, "more than %d graphs or execution contexts", maxHandles)
	}
	return success
}

func (c *call) addGraph(g graph, result uint32) errno {
	c.s.graphs = append(c.s.graphs, g)
	return c.put(result, uint32(len(c.s.graphs)-1)) //nolint:gosec // bounded by maxHandles
}

// init_execution_context(graph, context: *u32)
func (c *call) initExecutionContext(a []uint32) errno {
	if int(a[0]) >= len(c.s.graphs) {
		return c.fail(unsupported, "there is no graph %d", a[0])
	}
	if e := c.room(len(c.s.contexts)); e != success {
		return e
	}
	m := c.s.graphs[a[0]].model
	c.s.contexts = append(c.s.contexts, &execution{graph: int(a[0]), model: m, inputs: make([]nn.Tensor, len(m.Inputs()))})
	return c.put(a[1], uint32(len(c.s.contexts)-1)) //nolint:gosec // bounded by maxHandles
}

func (c *call) execution(handle uint32) *execution {
	if int(handle) >= len(c.s.contexts) {
		c.why = decant.Errorf(decant.Invalid, "there is no execution context %d", handle)
		return nil
	}
	return c.s.contexts[handle]
}

// set_input(context, index, tensor: *tensor)
//
// The tensor is copied: the guest may change its buffer before compute.
func (c *call) setInput(a []uint32) errno {
	x := c.execution(a[0])
	if x == nil {
		return unsupported
	}
	if int(a[1]) >= len(x.inputs) {
		return c.fail(invalidArgument, "there is no input %d: the model has %d", a[1], len(x.inputs))
	}
	record, ok := c.memory.Read(a[2], tensorSize)
	if !ok {
		return c.badPointer("the tensor", a[2])
	}
	t, err := readTensor(c.memory, record, x.model.Inputs()[a[1]], x.inputs[a[1]].Data)
	if err != nil {
		c.why = err
		return invalidArgument
	}
	x.inputs[a[1]] = t
	if c.s.held() > maxHeld {
		x.inputs[a[1]] = nn.Tensor{}
		return c.fail(runtimeError, "the tensors of all execution contexts have more than %s", decant.Bytes(maxHeld))
	}
	return success
}

// compute(context)
func (c *call) compute(a []uint32) errno {
	x := c.execution(a[0])
	if x == nil {
		return unsupported
	}
	outputs, err := x.model.Run(c.ctx, x.inputs)
	if err != nil {
		c.why = err
		return runtimeError
	}
	x.outputs = outputs
	if c.s.held() > maxHeld {
		x.outputs = nil
		return c.fail(runtimeError, "the tensors of all execution contexts have more than %s", decant.Bytes(maxHeld))
	}
	return success
}

// get_output(context, index, buffer: ptr, buffer_len, written: *u32)
//
// Copies the output's data. tooLarge: the buffer is smaller than it; then
// nothing is written.
func (c *call) getOutput(a []uint32) errno {
	x := c.execution(a[0])
	if x == nil {
		return unsupported
	}
	if int(a[1]) >= len(x.outputs) {
		if x.outputs == nil {
			return c.fail(runtimeError, "no output is there before compute")
		}
		return c.fail(invalidArgument, "there is no output %d: the model has %d", a[1], len(x.outputs))
	}
	data := x.outputs[a[1]].Data
	if len(data) > int(a[3]) {
		return c.fail(tooLarge, "output %d has %d bytes, the buffer %d", a[1], len(data), a[3])
	}
	if !c.memory.Write(a[2], data) {
		return c.badPointer("the output buffer", a[2])
	}
	return c.put(a[4], uint32(len(data))) //nolint:gosec // fits the guest's memory
}
