//go:build wasip1

package main

import (
	"github.com/decant-project/decant/examples/internal/sound"
	"github.com/decant-project/decant/examples/internal/wasinn"
)

const contextSize = 64 // samples of the frame before that the model hears again

// memory is what Silero VAD keeps from frame to frame.
type memory struct {
	context [contextSize]float32
	state   [2 * 128]float32
}

var model *wasinn.Model // loaded at the first frame

// hear runs the model on a frame and returns the probability of speech in it.
//
//	inputs:  f32 [1,576] samples in -1..1, f32 [2,1,128] state, i64 rate
//	outputs: f32 [1,1] probability,        f32 [2,1,128] state
func (m *memory) hear(frame []int16) (float64, error) {
	if model == nil {
		var err error
		if model, err = wasinn.Load("vad"); err != nil {
			return 0, err
		}
	}
	samples := append(make([]float32, 0, contextSize+sound.FrameSize), m.context[:]...)
	for _, s := range frame {
		samples = append(samples, float32(s)/32768)
	}
	probability := make([]float32, 1)
	state := make([]float32, len(m.state))
	for _, step := range []func() error{
		func() error { return wasinn.SetInput(model, 0, []uint32{1, uint32(len(samples))}, samples) },
		func() error { return wasinn.SetInput(model, 1, []uint32{2, 1, 128}, m.state[:]) },
		func() error { return wasinn.SetInput(model, 2, nil, []int64{sound.FrameRate}) },
		model.Compute,
		func() error { return model.Output(0, probability) },
		func() error { return model.Output(1, state) },
	} {
		if err := step(); err != nil {
			return 0, err
		}
	}
	copy(m.context[:], samples[sound.FrameSize:])
	copy(m.state[:], state)
	return float64(probability[0]), nil
}
