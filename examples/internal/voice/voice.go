// Package voice makes segments of speech of the probabilities that a detector
// gives each frame: what flickers becomes a start and an end.
package voice

import (
	"math"

	"github.com/decant-project/decant/examples/internal/sound"
)

// The rules of Silero's own tools, in whole frames of 32 ms: speech starts at a
// higher probability than it ends, is over once it was absent for 0.1 s, and is
// not speech if it was shorter than 0.25 s.
const (
	startAt    = 0.5
	endBelow   = 0.35
	minSilence = 3
	minSpeech  = 8
)

// Segment is a stretch of a recording in which somebody speaks.
type Segment struct {
	Recording   string  `json:"recording"`
	Start       float64 `json:"start"`       // s since the recording began
	End         float64 `json:"end"`         // s since the recording began
	Probability float64 `json:"probability"` // highest of a frame in it, 0 to 1
}

// Segmenter follows one recording, frame by frame.
type Segmenter struct {
	Recording string

	frames  int // heard so far
	open    bool
	start   int     // first frame of the open segment
	end     int     // the frame behind its last
	highest float64 // probability in it
}

// Speaking reports whether a segment has started and not ended.
func (s *Segmenter) Speaking() bool { return s.open }

// Add takes the probability of the next frame. It returns the segment that the
// frame ends, if it ends one.
func (s *Segmenter) Add(probability float64) (Segment, bool) {
	frame := s.frames
	s.frames++
	enough := startAt
	if s.open && s.end == frame { // the frame before was speech
		enough = endBelow
	}
	if probability >= enough {
		if !s.open {
			s.open, s.start, s.highest = true, frame, 0
		}
		s.end, s.highest = s.frames, max(s.highest, probability)
	}
	if !s.open {
		return Segment{}, false
	}
	if s.frames-s.end < minSilence {
		return Segment{}, false
	}
	return s.Close()
}

// Close ends the segment under way, if there is one, as the end of its
// recording does.
func (s *Segmenter) Close() (Segment, bool) {
	spoken := s.open && s.end-s.start >= minSpeech
	s.open = false
	return Segment{
		Recording:   s.Recording,
		Start:       round(float64(s.start) * sound.FrameLength),
		End:         round(float64(s.end) * sound.FrameLength),
		Probability: round(s.highest),
	}, spoken
}

// round keeps thousandths: frames are longer than that.
func round(x float64) float64 { return math.Round(x*1000) / 1000 }
