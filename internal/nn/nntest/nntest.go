// Package nntest is the suite that each backend for models passes, with models
// it makes itself.
package nntest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/nn"
)

// Run runs the suite over a backend.
func Run(t *testing.T, b nn.Backend) {
	for name, test := range map[string]func(*testing.T, nn.Backend){
		"describe":     testDescribe,
		"run":          testRun,
		"bad models":   testBadModels,
		"bad inputs":   testBadInputs,
		"concurrent":   testConcurrent,
		"cancellation": testCancellation,
		"closed":       testClosed,
		"no leak":      testNoLeak,
	} {
		t.Run(name, func(t *testing.T) { test(t, b) })
	}
}

var ctx = context.Background()

// sum has inputs a [2,3] and b [?,3], and output c = a + b.
var sum = Model{
	Inputs:  []Value{{"a", []int64{2, 3}}, {"b", []int64{-1, 3}}},
	Outputs: []Value{{"c", []int64{2, 3}}},
	Nodes:   []Node{{"Add", []string{"a", "b"}, []string{"c"}}},
}

// F32 makes a tensor of numbers.
func F32(shape []int64, values ...float32) nn.Tensor {
	t := nn.Tensor{Type: nn.F32, Shape: shape}
	for _, v := range values {
		t.Data = binary.LittleEndian.AppendUint32(t.Data, math.Float32bits(v))
	}
	return t
}

func load(t testing.TB, b nn.Backend, m Model) nn.Model {
	t.Helper()
	model, err := b.Load(ctx, m.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = model.Close() })
	return model
}

func testDescribe(t *testing.T, b nn.Backend) {
	d := b.Describe()
	if d.Name == "" || d.Version == "" || !slices.Contains(d.Formats, "onnx") {
		t.Errorf("describes itself as %+v", d)
	}
	m := load(t, b, sum)
	want := []nn.Info{{Name: "a", Type: nn.F32, Shape: []int64{2, 3}}, {Name: "b", Type: nn.F32, Shape: []int64{-1, 3}}}
	if !reflect.DeepEqual(m.Inputs(), want) || len(m.Outputs()) != 1 || m.Outputs()[0].Name != "c" {
		t.Errorf("inputs %v, outputs %v", m.Inputs(), m.Outputs())
	}
}

func sumInputs(k float32) []nn.Tensor {
	return []nn.Tensor{F32([]int64{2, 3}, 1, 2, 3, 4, 5, 6), F32([]int64{1, 3}, 10*k, 20*k, 30*k)}
}

func sumOutput(k float32) nn.Tensor {
	return F32([]int64{2, 3}, 1+10*k, 2+20*k, 3+30*k, 4+10*k, 5+20*k, 6+30*k)
}

func testRun(t *testing.T, b nn.Backend) {
	out, err := load(t, b, sum).Run(ctx, sumInputs(1))
	if err != nil || len(out) != 1 || !reflect.DeepEqual(out[0], sumOutput(1)) {
		t.Errorf("got %v, %v", out, err)
	}
}

func testBadModels(t *testing.T, b nn.Backend) {
	good := sum.Bytes()
	bad := map[string][]byte{
		"empty":            nil,
		"text":             []byte("this is no model"),
		"cut short":        good[:len(good)/2],
		"unknown operator": Model{Inputs: sum.Inputs, Outputs: sum.Outputs, Nodes: []Node{{"Pour", []string{"a"}, []string{"c"}}}}.Bytes(),
		"unknown input":    Model{Inputs: sum.Inputs, Outputs: sum.Outputs, Nodes: []Node{{"Add", []string{"a", "x"}, []string{"c"}}}}.Bytes(),
	}
	for name, data := range bad {
		_, err := b.Load(ctx, data)
		if !errors.Is(err, decant.Invalid) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	for i := range good { // no flipped bit is more than an error
		flipped := slices.Clone(good)
		flipped[i] ^= 1 << (i % 8)
		if m, err := b.Load(ctx, flipped); err == nil {
			_ = m.Close()
		}
	}
}

func testBadInputs(t *testing.T, b nn.Backend) {
	m := load(t, b, sum)
	ok := sumInputs(1)
	for name, inputs := range map[string][]nn.Tensor{
		"too few":     ok[:1],
		"wrong shape": {F32([]int64{3, 2}, 1, 2, 3, 4, 5, 6), ok[1]},
		"wrong rank":  {F32([]int64{6}, 1, 2, 3, 4, 5, 6), ok[1]},
		"wrong type":  {{Type: nn.I32, Shape: []int64{2, 3}, Data: ok[0].Data}, ok[1]},
		"too short":   {{Type: nn.F32, Shape: []int64{2, 3}, Data: ok[0].Data[:20]}, ok[1]},
		"no such add": {ok[0], F32([]int64{5, 3}, make([]float32, 15)...)},
		"overflow":    {{Type: nn.F32, Shape: []int64{1 << 40, 1 << 40}}, ok[1]},
	} {
		if _, err := m.Run(ctx, inputs); !errors.Is(err, decant.Invalid) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if out, err := m.Run(ctx, ok); err != nil || !reflect.DeepEqual(out[0], sumOutput(1)) {
		t.Errorf("after the refusals: %v, %v", out, err)
	}
}

func testConcurrent(t *testing.T, b nn.Backend) {
	m := load(t, b, sum)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 200 {
				k := float32(w*1000 + i)
				grow(i % 50) // a stack that moves while C writes must not matter
				out, err := m.Run(ctx, sumInputs(k))
				if err != nil || !bytes.Equal(out[0].Data, sumOutput(k).Data) {
					t.Errorf("worker %d, run %d: %v, %v", w, i, out, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

//go:noinline
func grow(n int) byte {
	var big [1 << 10]byte
	if n > 0 {
		big[n] = grow(n - 1)
	}
	return big[n]
}

// slow is a chain of products of matrices that takes seconds.
func slow() Model {
	m := Model{Inputs: []Value{{"x0", []int64{1000, 1000}}}, Outputs: []Value{{"x300", []int64{1000, 1000}}}}
	for i := range 300 {
		x := fmt.Sprint("x", i)
		m.Nodes = append(m.Nodes, Node{"MatMul", []string{x, x}, []string{fmt.Sprint("x", i+1)}})
	}
	return m
}

func testCancellation(t *testing.T, b nn.Backend) {
	m := load(t, b, slow())
	in := []nn.Tensor{{Type: nn.F32, Shape: []int64{1000, 1000}, Data: make([]byte, 4_000_000)}}
	ctx, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err := m.Run(ctx, in)
	if !errors.Is(err, decant.Deadline) {
		t.Errorf("got %v", err)
	}
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("it stopped after %s", took)
	}
}

func testClosed(t *testing.T, b nn.Backend) {
	m, err := b.Load(ctx, sum.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := m.Run(ctx, sumInputs(1)); !errors.Is(err, decant.Unavailable) {
		t.Errorf("run of a closed model: %v", err)
	}
}

// testNoLeak: memory stays where it is over thousands of runs and hundreds of
// loads, failed ones too.
func testNoLeak(t *testing.T, b nn.Backend) {
	round := func() {
		for range 100 {
			m, err := b.Load(ctx, sum.Bytes())
			if err != nil {
				t.Fatal(err)
			}
			for range 30 {
				if _, err := m.Run(ctx, sumInputs(1)); err != nil {
					t.Fatal(err)
				}
				_, _ = m.Run(ctx, nil)
			}
			_ = m.Close()
			_, _ = b.Load(ctx, []byte("no model"))
		}
	}
	round()
	before := resident()
	if before == 0 {
		t.Skip("this system does not say how much memory a process has")
	}
	round()
	round()
	if grown := resident() - before; grown > 16<<20 {
		t.Errorf("%d bytes more after 6000 runs", grown)
	}
}

// resident returns the memory of this process, 0 if that cannot be told.
func resident() int64 {
	data, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	var size, pages int64
	_, _ = fmt.Sscan(string(data), &size, &pages)
	return pages * int64(os.Getpagesize())
}
