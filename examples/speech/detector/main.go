//go:build wasip1

// Detector finds where somebody speaks, by Silero VAD.
//
// detect: request, a WAV file of whole frames as speech-frames makes them;
// response, a line of JSON for each segment that ended in it, empty if none
// did. status: what the detector has seen so far, as JSON.
package main

import (
	"bytes"
	"encoding/json"

	"github.com/decant-project/decant/examples/internal/guest"
	"github.com/decant-project/decant/examples/internal/sound"
	"github.com/decant-project/decant/examples/internal/voice"
)

// detector is all that the module knows: it lives in its memory.
type detector struct {
	memory    memory
	segmenter voice.Segmenter
	frames    int
	segments  int
}

var current detector

//go:wasmexport detect
func detect() int32 {
	return guest.Answer(func(request []byte) ([]byte, error) {
		chunk, err := sound.ParseWAV(request)
		if err != nil {
			return nil, err
		}
		next := current // so that a failure half-way leaves the detector as it was
		segments, err := next.hear(chunk)
		if err != nil {
			return nil, err
		}
		current = next
		return lines(segments)
	})
}

// hear takes the frames of chunk and returns the segments that ended.
func (d *detector) hear(chunk sound.WAV) ([]voice.Segment, error) {
	frames, err := sound.Frames(chunk)
	if err != nil {
		return nil, err
	}
	var ended []voice.Segment
	end := func(s voice.Segment, ok bool) {
		if ok {
			ended = append(ended, s)
			d.segments++
		}
	}
	if chunk.Title != d.segmenter.Recording {
		end(d.segmenter.Close())
		d.segmenter, d.memory = voice.Segmenter{Recording: chunk.Title}, memory{}
	}
	for _, frame := range frames {
		probability, err := d.memory.hear(frame)
		if err != nil {
			return nil, err
		}
		d.frames++
		end(d.segmenter.Add(probability))
	}
	return ended, nil
}

func lines(segments []voice.Segment) ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	for _, s := range segments {
		if err := enc.Encode(s); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), nil
}

//go:wasmexport status
func status() int32 {
	return guest.Answer(func([]byte) ([]byte, error) {
		return json.Marshal(map[string]any{
			"recording": current.segmenter.Recording,
			"frames":    current.frames,
			"segments":  current.segments,
			"speaking":  current.segmenter.Speaking(),
		})
	})
}

func main() {}
