// Package onnx reads what decant must know of a model file before a runtime
// gets it. The field numbers are those of onnx.proto3.
package onnx

import (
	"encoding/binary"

	"github.com/decant-project/decant"
)

// message is a kind of message that may lead to a tensor.
type message int

const (
	model message = iota
	training
	graph
	node
	attribute
	sparse
	function
	tensor
)

// within says which fields of a message are messages that matter.
var within = map[message]map[uint64]message{
	model:     {7: graph, 20: training, 25: function},
	training:  {1: graph, 2: graph},
	graph:     {1: node, 5: tensor, 15: sparse},
	node:      {5: attribute},
	attribute: {5: tensor, 6: graph, 10: tensor, 11: graph, 22: sparse, 23: sparse},
	sparse:    {1: tensor, 2: tensor},
	function:  {7: node, 11: attribute},
}

// Fields of a tensor that say that its data is in another file.
const (
	externalData = 13
	dataLocation = 14
)

// maxDepth bounds graphs in graphs.
const maxDepth = 100

// Check returns an Invalid error for a file that is no ONNX model, or one whose
// tensors are in other files: a runtime would open whatever path the model
// names, on a device that does not trust the model.
func Check(file []byte) error { return check(file, model, 0) }

func check(b []byte, kind message, depth int) error {
	if depth > maxDepth {
		return decant.Errorf(decant.Invalid, "the model has graphs more than %d deep in one another", maxDepth)
	}
	for len(b) > 0 {
		tag, n := binary.Uvarint(b)
		if n <= 0 || tag>>32 != 0 {
			return damaged()
		}
		b = b[n:]
		value, content, rest, ok := field(b, tag&7)
		if !ok {
			return damaged()
		}
		b = rest
		number := tag >> 3
		if kind == tensor && (number == externalData || number == dataLocation && (value != 0 || content != nil)) {
			return decant.Errorf(decant.Invalid, "the model keeps data of its tensors in other files").
				WithHelp("save it as one file, without external data")
		}
		if inner, ok := within[kind][number]; ok && content != nil {
			if err := check(content, inner, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

// field reads the value of a field, a number or some content, by its wire type.
func field(b []byte, wire uint64) (value uint64, content, rest []byte, ok bool) {
	switch wire {
	case 0: // a varint
		value, n := binary.Uvarint(b)
		if n <= 0 {
			return 0, nil, nil, false
		}
		return value, nil, b[n:], true
	case 1, 5: // 64 or 32 bits
		size := 8
		if wire == 5 {
			size = 4
		}
		if len(b) < size {
			return 0, nil, nil, false
		}
		return 0, nil, b[size:], true
	case 2:
		size, n := binary.Uvarint(b)
		if n <= 0 || size > uint64(len(b)-n) {
			return 0, nil, nil, false
		}
		end := n + int(size)
		return 0, b[n:end:end], b[end:], true
	}
	return 0, nil, nil, false
}

func damaged() error {
	return decant.Errorf(decant.Invalid, "this is not an ONNX model, or it is damaged")
}
