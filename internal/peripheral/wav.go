package peripheral

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// wavFormat is the format of PCM sound of 16 bits.
type wavFormat struct {
	channels int // 1 or 2
	rate     int // frames a second, 1000 to 384000
}

// frame returns the bytes of a frame: a number for each channel.
func (f wavFormat) frame() int { return 2 * f.channels }

// bytes returns how many bytes of whole frames sound for d: one frame at least,
// but for no time.
func (f wavFormat) bytes(d time.Duration) int64 {
	if d == 0 {
		return 0
	}
	frames := int64(d) * int64(f.rate) / int64(time.Second)
	return max(frames, 1) * int64(f.frame())
}

// duration returns how long n bytes sound.
func (f wavFormat) duration(n int) time.Duration {
	return time.Duration(n/f.frame()) * time.Second / time.Duration(f.rate)
}

const (
	wavPCM        = 1
	wavExtensible = 0xfffe // the format proper is in an extension
	maxWAVChunks  = 1000   // before the sound
)

// readWAV finds the sound of a WAV file of size bytes: whole frames, at least
// one. A file that was cut off, or whose header was never completed, has the
// sound that is there.
//
//	RIFF size WAVE { id size bytes [pad] }...   all little-endian
func readWAV(r io.ReaderAt, size int64) (wavFormat, *io.SectionReader, error) {
	fail := func(format string, args ...any) (wavFormat, *io.SectionReader, error) {
		return wavFormat{}, nil, fmt.Errorf(format, args...)
	}
	var head [12]byte
	if _, err := r.ReadAt(head[:], 0); err != nil || string(head[:4]) != "RIFF" || string(head[8:]) != "WAVE" {
		return fail("not a WAV file")
	}
	var format wavFormat
	at := int64(len(head))
	for range maxWAVChunks {
		if _, err := r.ReadAt(head[:8], at); err != nil {
			return fail("no sound in it")
		}
		id, length := string(head[:4]), int64(binary.LittleEndian.Uint32(head[4:]))
		at += 8
		switch id {
		case "fmt ":
			var err error
			if format, err = readWAVFormat(io.NewSectionReader(r, at, length)); err != nil {
				return fail("%w", err)
			}
		case "data":
			if format.rate == 0 {
				return fail("its sound comes before its format")
			}
			length = min(length, size-at)
			length -= length % int64(format.frame())
			if length <= 0 {
				return fail("no sound in it")
			}
			return format, io.NewSectionReader(r, at, length), nil
		}
		at += length + length%2
	}
	return fail("more than %d chunks before its sound", maxWAVChunks)
}

// readWAVFormat reads a fmt chunk:
//
//	format channels  u16 u16
//	rate, bytes/s    u32 u32
//	frame, bits      u16 u16
//	extension        u16 length, u16 bits, u32 speakers, u16 format...
func readWAVFormat(r io.Reader) (wavFormat, error) {
	var b [26]byte
	if n, err := io.ReadFull(r, b[:]); n < 16 {
		return wavFormat{}, fmt.Errorf("its format is cut off: %w", err)
	}
	u16 := func(at int) int { return int(binary.LittleEndian.Uint16(b[at:])) }
	tag, bits := u16(0), u16(14)
	if tag == wavExtensible {
		tag = u16(24)
	}
	f := wavFormat{channels: u16(2), rate: int(min(binary.LittleEndian.Uint32(b[4:]), 1<<30))}
	switch {
	case tag != wavPCM || bits != 16:
		return wavFormat{}, fmt.Errorf("format %d of %d bits: convert it to PCM of 16 bits (sox IN -b 16 -e signed-integer OUT)", tag, bits)
	case f.channels < 1 || f.channels > 2:
		return wavFormat{}, fmt.Errorf("%d channels: convert it to mono or stereo (sox IN -c 1 OUT)", f.channels)
	case f.rate < 1000 || f.rate > 384_000:
		return wavFormat{}, fmt.Errorf("%d frames a second: must be from 1000 to 384000", f.rate)
	case u16(12) != f.frame():
		return wavFormat{}, errors.New("its frames have an odd size")
	}
	return f, nil
}

// wavFile returns a WAV file.
func wavFile(f wavFormat, title string, sound []byte) []byte {
	title += "\x00"
	title += "\x00"[:len(title)%2]
	le := binary.LittleEndian
	u16, u32 := le.AppendUint16, le.AppendUint32

	b := []byte("RIFF")
	b = u32(b, uint32(4+8+16+8+4+8+len(title)+8+len(sound)))
	b = append(b, "WAVEfmt "...)
	b = u32(b, 16)
	b = u16(u16(b, wavPCM), uint16(f.channels))
	b = u32(u32(b, uint32(f.rate)), uint32(f.rate*f.frame()))
	b = u16(u16(b, uint16(f.frame())), 16)
	b = append(b, "LIST"...)
	b = u32(b, uint32(4+8+len(title)))
	b = append(b, "INFOINAM"...)
	b = u32(b, uint32(len(title)))
	b = append(b, title...)
	b = append(b, "data"...)
	b = u32(b, uint32(len(sound)))
	return append(b, sound...)
}
