// Package sound turns recordings of any common rate into the frames that
// speech detectors want: chunks of sound enter as small WAV files and leave as
// WAV files of whole frames.
package sound

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// WAV is PCM sound of 16 bits.
type WAV struct {
	Rate     int     // 1000 to 384000 a second
	Channels int     // 1 or 2
	Title    string  // of the recording it is from: at most MaxTitle bytes
	Samples  []int16 // interleaved
}

// MaxTitle is the length of the longest title, in bytes.
const MaxTitle = 256

const pcm = 1

// ParseWAV reads a RIFF file: chunks of an id of 4 bytes, a size of 4 bytes, and
// as many bytes, padded to be even. The title is the INAM of a LIST of INFO.
func ParseWAV(b []byte) (WAV, error) {
	if len(b) < 12 || string(b[:4]) != "RIFF" || string(b[8:12]) != "WAVE" {
		return WAV{}, errors.New("not a WAV file: it does not start with RIFF and WAVE")
	}
	var w WAV
	for rest := b[12:]; len(rest) > 0; {
		id, body, after, err := cutChunk(rest)
		if err != nil {
			return WAV{}, err
		}
		rest = after
		switch id {
		case "fmt ":
			err = w.parseFormat(body)
		case "LIST":
			err = w.parseList(body)
		case "data":
			err = w.parseData(body)
		}
		if err != nil {
			return WAV{}, err
		}
	}
	if w.Rate == 0 || w.Samples == nil {
		return WAV{}, errors.New("WAV file has no fmt or no data chunk")
	}
	return w, nil
}

// untilEnd is the size that programs write when they cannot know it yet.
const untilEnd = 1<<32 - 1

func cutChunk(b []byte) (id string, body, rest []byte, err error) {
	if len(b) < 8 {
		return "", nil, nil, errors.New("WAV file ends within a chunk's header")
	}
	id, size := string(b[:4]), uint64(binary.LittleEndian.Uint32(b[4:]))
	b = b[8:]
	if size == untilEnd {
		size = uint64(len(b))
	}
	if size > uint64(len(b)) {
		return "", nil, nil, fmt.Errorf("WAV file ends within its %q chunk", id)
	}
	return id, b[:size], b[min(size+size%2, uint64(len(b))):], nil
}

func (w *WAV) parseFormat(b []byte) error {
	if len(b) < 16 {
		return errors.New("WAV file's fmt chunk is too short")
	}
	format, bits := binary.LittleEndian.Uint16(b), binary.LittleEndian.Uint16(b[14:])
	channels, rate := binary.LittleEndian.Uint16(b[2:]), binary.LittleEndian.Uint32(b[4:])
	switch {
	case format != pcm || bits != 16:
		return fmt.Errorf("WAV file has format %d of %d bits: only PCM of 16 bits is read", format, bits)
	case channels < 1 || channels > 2:
		return fmt.Errorf("WAV file has %d channels: only mono and stereo are read", channels)
	case rate < 1000 || rate > 384_000:
		return fmt.Errorf("WAV file has %d samples a second: 1000 to 384000 are read", rate)
	}
	w.Channels, w.Rate = int(channels), int(rate)
	return nil
}

func (w *WAV) parseList(b []byte) error {
	if len(b) < 4 || string(b[:4]) != "INFO" {
		return nil
	}
	for rest := b[4:]; len(rest) > 0; {
		id, body, after, err := cutChunk(rest)
		if err != nil {
			return err
		}
		rest = after
		if id != "INAM" {
			continue
		}
		for len(body) > 0 && body[len(body)-1] == 0 {
			body = body[:len(body)-1]
		}
		if len(body) > MaxTitle {
			return fmt.Errorf("WAV file's title has %d bytes: %d at most", len(body), MaxTitle)
		}
		w.Title = string(body)
	}
	return nil
}

func (w *WAV) parseData(b []byte) error {
	switch {
	case w.Rate == 0:
		return errors.New("WAV file's data comes before its fmt chunk")
	case w.Samples != nil:
		return errors.New("WAV file has two data chunks")
	case len(b)%(2*w.Channels) != 0:
		return errors.New("WAV file's data ends within a sample")
	}
	w.Samples = make([]int16, len(b)/2)
	for i := range w.Samples {
		w.Samples[i] = int16(binary.LittleEndian.Uint16(b[2*i:]))
	}
	return nil
}

// Bytes returns the file that ParseWAV reads.
func (w WAV) Bytes() []byte {
	le := binary.LittleEndian
	chunk := func(b []byte, id string, body []byte) []byte {
		b = le.AppendUint32(append(b, id...), uint32(len(body)))
		b = append(b, body...)
		return append(b, make([]byte, len(body)%2)...)
	}
	format := le.AppendUint16(nil, pcm)
	format = le.AppendUint16(format, uint16(w.Channels))
	format = le.AppendUint32(format, uint32(w.Rate))
	format = le.AppendUint32(format, uint32(w.Rate*w.Channels*2))
	format = le.AppendUint16(format, uint16(w.Channels*2))
	format = le.AppendUint16(format, 16)

	data := make([]byte, 0, 2*len(w.Samples))
	for _, s := range w.Samples {
		data = le.AppendUint16(data, uint16(s))
	}
	body := chunk([]byte("WAVE"), "fmt ", format)
	if w.Title != "" {
		body = chunk(body, "LIST", chunk([]byte("INFO"), "INAM", append([]byte(w.Title), 0)))
	}
	return chunk(nil, "RIFF", chunk(body, "data", data))
}

// Mono returns the mean of the channels.
func (w WAV) Mono() []int16 {
	if w.Channels == 1 {
		return w.Samples
	}
	out := make([]int16, len(w.Samples)/2)
	for i := range out {
		out[i] = int16((int(w.Samples[2*i]) + int(w.Samples[2*i+1])) >> 1)
	}
	return out
}
