//go:build wasip1

// Frames turns chunks of sound into whole frames for a speech detector.
//
// Request: a WAV file (PCM, 16 bits, mono or stereo, any common rate) whose
// title names the recording. Response: a WAV file of the frames of 512 samples,
// 16 kHz, mono, that are whole now, with the same title; empty while none is.
package main

import (
	"github.com/decant-project/decant/examples/internal/guest"
	"github.com/decant-project/decant/examples/internal/sound"
)

var framer sound.Framer

//go:wasmexport frames
func frames() int32 {
	return guest.Answer(func(request []byte) ([]byte, error) {
		chunk, err := sound.ParseWAV(request)
		if err != nil {
			return nil, err
		}
		whole, err := framer.Add(chunk)
		if err != nil || len(whole.Samples) == 0 {
			return nil, err
		}
		return whole.Bytes(), nil
	})
}

func main() {}
