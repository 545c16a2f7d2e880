package sound

import (
	"fmt"
	"slices"
)

// What Silero VAD hears at a time.
const (
	FrameRate = 16000
	FrameSize = 512 // samples of a frame

	FrameLength = float64(FrameSize) / FrameRate // seconds: .032
)

// Framer cuts a stream of chunks into whole frames of mono sound at FrameRate.
// What is no whole frame yet waits for the next chunk.
type Framer struct {
	title     string
	rate      int
	resampler *Resampler
	rest      []int16
}

// Add returns the frames that chunk completes, maybe none. A chunk of another
// title or rate begins a new recording: what was left of the one before, less
// than a frame, is dropped, since speech cannot be told from so little and a
// frame must not mix two recordings.
func (f *Framer) Add(chunk WAV) (WAV, error) {
	if f.resampler == nil || chunk.Title != f.title || chunk.Rate != f.rate {
		r, err := NewResampler(chunk.Rate, FrameRate)
		if err != nil {
			return WAV{}, err
		}
		*f = Framer{title: chunk.Title, rate: chunk.Rate, resampler: r}
	}
	all := slices.Concat(f.rest, f.resampler.Process(chunk.Mono()))
	whole := len(all) - len(all)%FrameSize
	f.rest = slices.Clone(all[whole:])
	return WAV{Rate: FrameRate, Channels: 1, Title: f.title, Samples: all[:whole]}, nil
}

// Frames returns the frames of w, as Framer made them.
func Frames(w WAV) ([][]int16, error) {
	if w.Rate != FrameRate || w.Channels != 1 || len(w.Samples)%FrameSize != 0 {
		return nil, fmt.Errorf("sound of %d samples, %d channels at %d a second: must be whole frames of %d, mono, at %d",
			len(w.Samples), w.Channels, w.Rate, FrameSize, FrameRate)
	}
	return slices.Collect(slices.Chunk(w.Samples, FrameSize)), nil
}
