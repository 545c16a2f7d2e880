// Package voice makes segments of speech of the probabilities that a detector
// gives each frame: what flickers becomes a start and an end.
package voice

import "math"

// The rules of Silero's own tools: speech starts at a higher probability than
// it ends, is over once it was absent for long enough, and is not speech if it
// was shorter than any word.
const (
	startAt    = 0.5
	endBelow   = 0.35
	minSilence = 0.100 // s
	minSpeech  = 0.250 // s
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
	frames    int
	speaking  bool
	open      Segment
	quiet     int // frames since speech was last likely
}

// Speaking reports whether a segment has started and not ended.
func (s *Segmenter) Speaking() bool { return s.speaking }

// Add takes the next frame, of a length in seconds, and its probability. It
// returns the segment that the frame ends, if there is one.
func (s *Segmenter) Add(probability, length float64) (Segment, bool) {
	start := float64(s.frames) * length
	s.frames++
	if !s.speaking {
		if probability >= startAt {
			s.speaking, s.quiet = true, 0
			s.open = Segment{Recording: s.Recording, Start: start, End: start + length, Probability: probability}
		}
		return Segment{}, false
	}
	s.open.Probability = max(s.open.Probability, probability)
	if probability >= startAt || s.quiet == 0 && probability >= endBelow {
		s.open.End, s.quiet = start+length, 0
		return Segment{}, false
	}
	s.quiet++
	if float64(s.quiet)*length < minSilence {
		return Segment{}, false
	}
	return s.Close()
}

// Close ends the segment under way, if there is one, as the end of its
// recording does.
func (s *Segmenter) Close() (Segment, bool) {
	segment := s.open
	spoken := s.speaking && segment.End-segment.Start >= minSpeech
	s.speaking, s.open, s.quiet = false, Segment{}, 0
	segment.Start, segment.End = round(segment.Start), round(segment.End)
	segment.Probability = round(segment.Probability)
	return segment, spoken
}

// round keeps thousandths: frames are longer than that.
func round(x float64) float64 { return math.Round(x*1000) / 1000 }
