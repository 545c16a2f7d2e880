//go:build linux && (amd64 || arm64)

package onnxruntime

import (
	"context"
	"runtime"
	"slices"
	"strings"
	"sync"
	"unsafe"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/nn"
	"github.com/decant-project/decant/internal/nn/onnx"
)

// Version returns the version of the library at path, which it loads into this
// process for good. Who wants to try a library first does so in a child.
func Version(path string) (string, error) {
	a, err := open(path)
	if err != nil {
		return "", err
	}
	return a.version, nil
}

// Backend implements nn.Backend.
type Backend struct {
	*api
	env       uintptr
	memory    uintptr // OrtMemoryInfo of the processor's memory
	allocator uintptr // the default one, which is nobody's to free
}

// New loads the library at path and makes a backend. Unsupported: it cannot be
// loaded.
func New(path string) (nn.Backend, error) {
	a, err := open(path)
	if err != nil {
		return nil, err
	}
	b := &Backend{api: a}
	name := newCStrings([]string{"decant"})
	defer name.free()
	const levelFatal = 4 // errors come as statuses
	if err := b.try(createEnv, levelFatal, name.pointers[0], uintptr(unsafe.Pointer(&b.env))); err != nil {
		return nil, decant.Errorf(decant.Unsupported, "cannot start ONNX Runtime: %w", err)
	}
	const arenaAllocator, defaultMemory = 1, 0
	for _, err := range []error{
		b.try(disableTelemetryEvents, b.env),
		b.try(createCPUMemoryInfo, arenaAllocator, defaultMemory, uintptr(unsafe.Pointer(&b.memory))),
		b.try(getAllocatorWithDefaultOptions, uintptr(unsafe.Pointer(&b.allocator))),
	} {
		if err != nil {
			_ = b.Close()
			return nil, decant.Errorf(decant.Unsupported, "cannot start ONNX Runtime: %w", err)
		}
	}
	return b, nil
}

// Describe implements nn.Backend.
func (b *Backend) Describe() decant.Backend {
	return decant.Backend{Name: Name, Version: b.version, Formats: []string{"onnx"}}
}

// Close implements nn.Backend.
func (b *Backend) Close() error {
	b.free(releaseMemoryInfo, b.memory)
	b.free(releaseEnv, b.env)
	b.memory, b.env = 0, 0
	return nil
}

// Load implements nn.Backend.
func (b *Backend) Load(ctx context.Context, model []byte) (nn.Model, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if len(model) == 0 {
		return nil, decant.Errorf(decant.Invalid, "the model is empty")
	}
	if err := onnx.Check(model); err != nil {
		return nil, err
	}
	m := &session{b: b}
	var options uintptr
	if err := b.try(createSessionOptions, uintptr(unsafe.Pointer(&options))); err != nil {
		return nil, decant.Errorf(decant.Internal, "cannot load the model: %w", err)
	}
	defer b.free(releaseSessionOptions, options)
	// One thread a session: several at a time share the cores better so than
	// by each taking all of them.
	for _, s := range []slot{setIntraOpNumThreads, setInterOpNumThreads} {
		if err := b.try(s, options, 1); err != nil {
			return nil, decant.Errorf(decant.Internal, "cannot load the model: %w", err)
		}
	}
	var pin runtime.Pinner
	pin.Pin(&model[0])
	defer pin.Unpin()
	err := b.try(createSessionFromArray, b.env, uintptr(unsafe.Pointer(&model[0])), uintptr(len(model)), options, uintptr(unsafe.Pointer(&m.handle)))
	if err != nil {
		return nil, decant.Errorf(decant.Invalid, "cannot load the model: %w", err)
	}
	if err := m.describe(); err != nil {
		_ = m.Close()
		return nil, err
	}
	return m, nil
}

// session implements nn.Model.
type session struct {
	b               *Backend
	handle          uintptr
	inputs, outputs []nn.Info

	use sync.RWMutex // held for reading by each run, for writing by Close
}

func (s *session) Inputs() []nn.Info  { return s.inputs }
func (s *session) Outputs() []nn.Info { return s.outputs }

func (s *session) Close() error {
	s.use.Lock()
	defer s.use.Unlock()
	s.b.free(releaseSession, s.handle)
	s.handle = 0
	return nil
}

// describe reads the session's inputs and outputs.
func (s *session) describe() (err error) {
	if s.inputs, err = s.infos(sessionGetInputCount, sessionGetInputName, sessionGetInputTypeInfo); err != nil {
		return err
	}
	s.outputs, err = s.infos(sessionGetOutputCount, sessionGetOutputName, sessionGetOutputTypeInfo)
	return err
}

func (s *session) infos(count, name, typeInfo slot) ([]nn.Info, error) {
	var n uintptr
	if err := s.b.try(count, s.handle, uintptr(unsafe.Pointer(&n))); err != nil {
		return nil, decant.Errorf(decant.Internal, "cannot describe the model: %w", err)
	}
	out := make([]nn.Info, n)
	for i := range n {
		var text, info uintptr
		if err := s.b.try(name, s.handle, i, s.b.allocator, uintptr(unsafe.Pointer(&text))); err != nil {
			return nil, decant.Errorf(decant.Internal, "cannot describe the model: %w", err)
		}
		out[i].Name = strings.Clone(goString(text))
		if err := s.b.try(allocatorFree, s.b.allocator, text); err != nil {
			return nil, decant.Errorf(decant.Internal, "cannot describe the model: %w", err)
		}
		if err := s.b.try(typeInfo, s.handle, i, uintptr(unsafe.Pointer(&info))); err != nil {
			return nil, decant.Errorf(decant.Internal, "cannot describe the model: %w", err)
		}
		var tensor uintptr // belongs to info
		err := s.b.try(castTypeInfoToTensorInfo, info, uintptr(unsafe.Pointer(&tensor)))
		if err == nil && tensor != 0 {
			out[i].Type, out[i].Shape, err = s.b.typeAndShape(tensor)
		}
		s.b.free(releaseTypeInfo, info)
		if err != nil {
			return nil, decant.Errorf(decant.Internal, "cannot describe the model: %w", err)
		}
		if out[i].Type == nn.Unknown {
			return nil, decant.Errorf(decant.Unsupported, "the model's %s is not a tensor of numbers", out[i].Name)
		}
	}
	return out, nil
}

// elementTypes are the ONNXTensorElementDataTypes that nn knows.
var elementTypes = map[int32]nn.Type{
	1: nn.F32, 2: nn.U8, 3: nn.I8, 6: nn.I32, 7: nn.I64, 9: nn.Bool, 10: nn.F16, 11: nn.F64,
}

func elementType(t nn.Type) uintptr {
	for k, v := range elementTypes {
		if v == t {
			return uintptr(k)
		}
	}
	return 0
}

// typeAndShape reads an OrtTensorTypeAndShapeInfo.
func (b *Backend) typeAndShape(info uintptr) (nn.Type, []int64, error) {
	var element int32
	var rank uintptr
	if err := b.try(getTensorElementType, info, uintptr(unsafe.Pointer(&element))); err != nil {
		return 0, nil, err
	}
	if err := b.try(getDimensionsCount, info, uintptr(unsafe.Pointer(&rank))); err != nil {
		return 0, nil, err
	}
	shape := make([]int64, rank+1) // never empty
	if err := b.try(getDimensions, info, uintptr(unsafe.Pointer(&shape[0])), rank); err != nil {
		return 0, nil, err
	}
	return elementTypes[element], shape[:rank], nil
}

// Run implements nn.Model.
func (s *session) Run(ctx context.Context, inputs []nn.Tensor) ([]nn.Tensor, error) {
	if err := nn.CheckInputs(s.inputs, inputs); err != nil {
		return nil, err
	}
	s.use.RLock()
	defer s.use.RUnlock()
	if s.handle == 0 {
		return nil, decant.Errorf(decant.Unavailable, "the model is closed")
	}
	values, free, err := s.b.wrap(inputs)
	defer free()
	if err != nil {
		return nil, err
	}
	outputs := make([]uintptr, len(s.outputs)+1)
	defer func() {
		for _, v := range outputs {
			s.b.free(releaseValue, v)
		}
	}()
	if err := s.run(ctx, values, outputs); err != nil {
		return nil, err
	}
	out := make([]nn.Tensor, len(s.outputs))
	for i := range out {
		if out[i], err = s.b.unwrap(outputs[i]); err != nil {
			return nil, decant.Errorf(decant.Internal, "cannot read output %s: %w", s.outputs[i].Name, err)
		}
	}
	return out, nil
}

// run runs the session, which ctx can stop.
func (s *session) run(ctx context.Context, values, outputs []uintptr) error {
	var options uintptr
	if err := s.b.try(createRunOptions, uintptr(unsafe.Pointer(&options))); err != nil {
		return decant.Errorf(decant.Internal, "cannot run the model: %w", err)
	}
	defer s.b.free(releaseRunOptions, options)
	stopped := make(chan struct{})
	unhook := context.AfterFunc(ctx, func() {
		defer close(stopped)
		_ = s.b.try(runOptionsSetTerminate, options)
	})
	in, out := newCStrings(names(s.inputs)), newCStrings(names(s.outputs))
	defer in.free()
	defer out.free()
	err := s.b.try(run, s.handle, options,
		in.address(), uintptr(unsafe.Pointer(&values[0])), uintptr(len(s.inputs)),
		out.address(), uintptr(len(s.outputs)), uintptr(unsafe.Pointer(&outputs[0])))
	if !unhook() {
		<-stopped // options are still in its hands
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return decant.Errorf(decant.Deadline, "the model was stopped: %w", ctx.Err())
	}
	return decant.Errorf(decant.Invalid, "cannot run the model: %w", err)
}

func names(infos []nn.Info) []string {
	out := make([]string, len(infos))
	for i, info := range infos {
		out[i] = info.Name
	}
	return out
}

// wrap makes OrtValues round tensors, whose memory stays in its place until
// free is called.
func (b *Backend) wrap(tensors []nn.Tensor) (values []uintptr, free func(), err error) {
	var pin runtime.Pinner
	values = make([]uintptr, len(tensors)+1)
	free = func() {
		for _, v := range values {
			b.free(releaseValue, v)
		}
		pin.Unpin()
	}
	for i, t := range tensors {
		data := t.Data
		if len(data) == 0 {
			data = make([]byte, 1)
		}
		shape := append(slices.Clone(t.Shape), 0) // never empty
		pin.Pin(&data[0])
		pin.Pin(&shape[0])
		if err := b.try(createTensorWithDataAsOrtValue, b.memory,
			uintptr(unsafe.Pointer(&data[0])), uintptr(len(t.Data)),
			uintptr(unsafe.Pointer(&shape[0])), uintptr(len(t.Shape)),
			elementType(t.Type), uintptr(unsafe.Pointer(&values[i]))); err != nil {
			return nil, free, decant.Errorf(decant.Invalid, "cannot make an input of the tensor: %w", err)
		}
	}
	return values, free, nil
}

// unwrap copies an output.
func (b *Backend) unwrap(value uintptr) (nn.Tensor, error) {
	var tensor int32
	if err := b.try(isTensor, value, uintptr(unsafe.Pointer(&tensor))); err != nil || tensor == 0 {
		return nn.Tensor{}, decant.Errorf(decant.Unsupported, "it is not a tensor")
	}
	var info uintptr
	if err := b.try(getTensorTypeAndShape, value, uintptr(unsafe.Pointer(&info))); err != nil {
		return nn.Tensor{}, err
	}
	defer b.free(releaseTensorTypeAndShapeInfo, info)
	t := nn.Tensor{}
	var err error
	if t.Type, t.Shape, err = b.typeAndShape(info); err != nil {
		return nn.Tensor{}, err
	}
	n := nn.Elements(t.Shape) * int64(t.Type.Size())
	if t.Type == nn.Unknown || n < 0 {
		return nn.Tensor{}, decant.Errorf(decant.Unsupported, "it is not a tensor of numbers")
	}
	var data uintptr
	if err := b.try(getTensorMutableData, value, uintptr(unsafe.Pointer(&data))); err != nil {
		return nn.Tensor{}, err
	}
	if n > 0 {
		t.Data = slices.Clone(unsafe.Slice((*byte)(pointer(data)), n))
	}
	return t, nil
}
