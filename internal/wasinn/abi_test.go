package wasinn

import (
	"bytes"
	"context"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero/experimental/wazerotest"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/nn"
)

// double is a model that doubles two bytes.
type double struct{ closed int }

func (*double) Inputs() []nn.Info {
	return []nn.Info{{Name: "in", Type: nn.U8, Shape: []int64{2}}}
}
func (d *double) Outputs() []nn.Info { return d.Inputs() }
func (d *double) Close() error       { d.closed++; return nil }
func (d *double) Run(_ context.Context, in []nn.Tensor) ([]nn.Tensor, error) {
	if err := nn.CheckInputs(d.Inputs(), in); err != nil {
		return nil, err
	}
	return []nn.Tensor{{Type: nn.U8, Shape: []int64{2}, Data: []byte{in[0].Data[0] * 2, in[0].Data[1] * 2}}}, nil
}

type models struct{ loaded double }

func (*models) ByName(_ context.Context, name string) (nn.Model, error) {
	if name != "net" {
		return nil, decant.Errorf(decant.NotFound, "no model is bound as %q; there is net", name)
	}
	return &double{}, nil
}

func (m *models) FromBytes(_ context.Context, model []byte) (nn.Model, error) {
	if string(model) != "onnx" {
		return nil, decant.Errorf(decant.Invalid, "not a model")
	}
	return &m.loaded, nil
}

// TestABI goes through a guest's calls one by one: the arguments, the errno,
// and what is then in its memory.
//
// The memory: 0 "net", 4 "onnx", 8 a graph builder of that, 16 a dimension (2),
// 20 the data, 24 a tensor of them, 64 results.
func TestABI(t *testing.T) {
	mem := wazerotest.NewFixedMemory(wazerotest.PageSize)
	copy(mem.Bytes, "net\x00onnx")
	le := binary.LittleEndian
	for i, v := range []uint32{4, 4, 2, 0x0705} { // builder, dims, data 5 and 7
		le.PutUint32(mem.Bytes[8+4*i:], v)
	}
	for i, v := range []uint32{16, 1, 0xccaabb03, 20, 2} { // junk after the type, 3: u8
		le.PutUint32(mem.Bytes[24+4*i:], v)
	}
	const end = wazerotest.PageSize
	var log bytes.Buffer
	m := &models{}
	s := NewSession(m, &log)
	ctx := With(context.Background(), s)
	module := wazerotest.NewModule(mem)

	for _, tt := range []struct {
		name string
		f    func(*call, []uint32) errno
		args []uint32
		want errno
		says string // in the log
		at64 uint32
	}{
		{"load: encoding", (*call).load, []uint32{8, 1, 4, 0, 64}, invalidEncoding, "only ONNX", 0},
		{"load: two builders", (*call).load, []uint32{8, 2, 1, 0, 64}, invalidArgument, "takes one", 0},
		{"load: builder outside", (*call).load, []uint32{end - 4, 1, 1, 0, 64}, invalidArgument, "outside the memory", 0},
		{"load: model outside", (*call).load, []uint32{28, 1, 1, 0, 64}, invalidArgument, "", 0},
		{"load: result outside", (*call).load, []uint32{8, 1, 1, 0, end - 2}, invalidArgument, "the result", 0},
		{"load", (*call).load, []uint32{8, 1, 1, 0, 64}, success, "", 1},
		{"by name: unknown", (*call).loadByName, []uint32{4, 4, 64}, unsupported, "there is net", 1},
		{"by name: outside", (*call).loadByName, []uint32{end, 4, 64}, invalidArgument, "", 1},
		{"by name: huge", (*call).loadByName, []uint32{0, 0xffffffff, 64}, invalidArgument, "", 1},
		{"by name", (*call).loadByName, []uint32{0, 3, 64}, success, "", 2},
		{"context: no graph", (*call).initExecutionContext, []uint32{3, 64}, unsupported, "no graph 3", 2},
		{"context", (*call).initExecutionContext, []uint32{2, 64}, success, "", 0},
		{"output too early", (*call).getOutput, []uint32{0, 0, 80, 16, 64}, runtimeError, "before compute", 0},
		{"compute too early", (*call).compute, []uint32{0}, runtimeError, "tensor of unknown type", 0},
		{"input: no context", (*call).setInput, []uint32{9, 0, 24}, unsupported, "no execution context 9", 0},
		{"input: no such", (*call).setInput, []uint32{0, 1, 24}, invalidArgument, "the model has 1", 0},
		{"input: tensor outside", (*call).setInput, []uint32{0, 0, end - 8}, invalidArgument, "the tensor at", 0},
		{"input", (*call).setInput, []uint32{0, 0, 24}, success, "", 0},
		{"compute: no context", (*call).compute, []uint32{1}, unsupported, "", 0},
		{"compute", (*call).compute, []uint32{0}, success, "", 0},
		{"output: no such", (*call).getOutput, []uint32{0, 1, 80, 16, 64}, invalidArgument, "no output 1", 0},
		{"output: small", (*call).getOutput, []uint32{0, 0, 80, 1, 64}, tooLarge, "has 2 bytes, the buffer 1", 0},
		{"output: outside", (*call).getOutput, []uint32{0, 0, end - 1, 16, 64}, invalidArgument, "", 0},
		{"output", (*call).getOutput, []uint32{0, 0, 80, 16, 64}, success, "", 2},
	} {
		log.Reset()
		if got := dispatch(ctx, module, tt.name, tt.f, tt.args); got != tt.want {
			t.Errorf("%s: errno %d, want %d; log: %s", tt.name, got, tt.want, &log)
		}
		if (tt.want == success) != (log.Len() == 0) || !strings.Contains(log.String(), tt.says) {
			t.Errorf("%s: log %q", tt.name, &log)
		}
		if got := le.Uint32(mem.Bytes[64:]); got != tt.at64 {
			t.Errorf("%s: the result is %d, want %d", tt.name, got, tt.at64)
		}
	}
	if got := mem.Bytes[80:82]; !bytes.Equal(got, []byte{10, 14}) {
		t.Errorf("the output is %v", got)
	}
	if err := s.Close(); err != nil || m.loaded.closed != 2 { // loaded twice: once its result had no place
		t.Errorf("closed %d times, %v", m.loaded.closed, err)
	}
	if got := dispatch(context.Background(), module, "load", (*call).load, []uint32{8, 1, 1, 0, 64}); got != unsupported {
		t.Errorf("without a session: %d", got)
	}
}

func TestElementType(t *testing.T) {
	for _, tt := range []struct {
		number           byte
		elements, length int64
		want, got        nn.Type
	}{
		{1, 4, 16, nn.F32, nn.F32},
		{2, 4, 32, nn.F64, nn.F64}, // WITX
		{2, 4, 4, nn.U8, nn.U8},    // old
		{3, 4, 4, nn.U8, nn.U8},    // WITX
		{3, 4, 16, nn.I32, nn.I32}, // old
		{5, 1, 8, nn.I64, nn.I64},
		{3, 0, 0, nn.I32, nn.I32}, // both fit: what the model wants
		{9, 1, 1, nn.U8, nn.Unknown},
	} {
		if got := elementType(tt.number, tt.elements, tt.length, tt.want); got != tt.got {
			t.Errorf("%+v: got %s", tt, got)
		}
	}
}

// guestMemory is memory as readTensor reads it.
type guestMemory []byte

func (g guestMemory) Read(offset, length uint32) ([]byte, bool) {
	if uint64(offset)+uint64(length) > uint64(len(g)) {
		return nil, false
	}
	return g[offset : offset+length], true
}

// FuzzReadTensor: whatever a record says, what is taken is a whole tensor.
func FuzzReadTensor(f *testing.F) {
	f.Add([]byte("\x10\x00\x00\x00\x01\x00\x00\x00\x03\xff\xff\xff\x14\x00\x00\x00\x02\x00\x00\x00\x02\x00\x00\x00\x05\x07"), uint8(nn.U8))
	f.Fuzz(func(t *testing.T, data []byte, want uint8) {
		if len(data) < tensorSize {
			return
		}
		tensor, err := readTensor(guestMemory(data), data[:tensorSize], nn.Info{Type: nn.Type(want), Shape: []int64{-1}}, nil)
		if err == nil && tensor.Check() != nil {
			t.Errorf("took %v", tensor)
		}
	})
}

// large is a model that takes and gives 64 MiB.
type large struct{ nn.Model }

func (large) Inputs() []nn.Info {
	return []nn.Info{{Name: "in", Type: nn.U8, Shape: []int64{-1}}}
}
func (l large) Outputs() []nn.Info                                       { return l.Inputs() }
func (large) Run(_ context.Context, in []nn.Tensor) ([]nn.Tensor, error) { return in, nil }

// TestHeld: a guest's execution contexts cannot hold more than its host allows,
// and what does not fit the model is not even copied.
func TestHeld(t *testing.T) {
	const size = 64 << 20
	mem := wazerotest.NewFixedMemory(size + wazerotest.PageSize)
	le := binary.LittleEndian
	tensor := func(dims uint32) uint32 { // a record at 0, its dimensions at 32, its data at 64
		for i, v := range []uint32{32, dims, 3, 64, size} {
			le.PutUint32(mem.Bytes[4*i:], v)
		}
		le.PutUint32(mem.Bytes[32:], size)
		le.PutUint32(mem.Bytes[36:], 1)
		return 0
	}
	var log bytes.Buffer
	s := NewSession(&models{}, &log)
	c := &call{ctx: t.Context(), memory: mem, s: s}
	for range 8 {
		s.contexts = append(s.contexts, &execution{model: large{}, inputs: make([]nn.Tensor, 1)})
	}
	if e := c.setInput([]uint32{0, 0, tensor(2)}); e != invalidArgument || s.held() != 0 {
		t.Errorf("another rank: errno %d, %d bytes held", e, s.held())
	}
	set := 0
	for i := range uint32(8) {
		if c.setInput([]uint32{i, 0, tensor(1)}) == success {
			set++
		}
	}
	if set != maxHeld/size || s.held() > maxHeld {
		t.Errorf("%d inputs were set, %d bytes held", set, s.held())
	}
	if e := c.compute([]uint32{0}); e != runtimeError || s.held() > maxHeld {
		t.Errorf("outputs beyond it: errno %d, %d bytes held", e, s.held())
	}
}
