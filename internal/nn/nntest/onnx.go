package nntest

import "encoding/binary"

// Model builds a small ONNX model (opset 13): f32 inputs and outputs of one
// shape each, and nodes in order. The field numbers are those of onnx.proto3.
type Model struct {
	Inputs, Outputs []Value
	Nodes           []Node
}

// Value is a named f32 tensor; a dimension of -1 may have any size.
type Value struct {
	Name  string
	Shape []int64
}

// Node is an operator without attributes.
type Node struct {
	Op              string
	Inputs, Outputs []string
}

// Bytes returns the model's file.
func (m Model) Bytes() []byte {
	var graph message
	for _, n := range m.Nodes {
		var node message
		for _, in := range n.Inputs {
			node.text(1, in)
		}
		for _, out := range n.Outputs {
			node.text(2, out)
		}
		node.text(4, n.Op)
		graph.bytes(1, node)
	}
	graph.text(2, "graph")
	for _, v := range m.Inputs {
		graph.bytes(11, v.info())
	}
	for _, v := range m.Outputs {
		graph.bytes(12, v.info())
	}
	var opset, model message
	opset.number(2, 13)
	model.number(1, 8) // IR version
	model.bytes(7, graph)
	model.bytes(8, opset)
	return model
}

func (v Value) info() message {
	var shape, tensor, typ, info message
	for _, d := range v.Shape {
		var dim message
		if d < 0 {
			dim.text(2, "n")
		} else {
			dim.number(1, uint64(d))
		}
		shape.bytes(1, dim)
	}
	tensor.number(1, 1) // FLOAT
	tensor.bytes(2, shape)
	typ.bytes(1, tensor)
	info.text(1, v.Name)
	info.bytes(2, typ)
	return info
}

// message is a protobuf message being written.
type message []byte

func (m *message) number(field int, v uint64) {
	*m = binary.AppendUvarint(*m, uint64(field)<<3)
	*m = binary.AppendUvarint(*m, v)
}

func (m *message) bytes(field int, b []byte) {
	*m = binary.AppendUvarint(*m, uint64(field)<<3|2)
	*m = binary.AppendUvarint(*m, uint64(len(b)))
	*m = append(*m, b...)
}

func (m *message) text(field int, s string) { m.bytes(field, []byte(s)) }
