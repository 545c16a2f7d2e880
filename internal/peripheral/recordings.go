package peripheral

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/decant-project/decant"
)

// recordings is the source of a microphone: the sound of WAV files, one after
// the other and each followed by silence, cut into chunks. A chunk is a small
// WAV file of its own at the recording's rate; its title (LIST INFO INAM) is
// the recording's file name without extension.
type recordings struct {
	list  *list
	chunk time.Duration
	gap   time.Duration
	now   *recording // nil: between two
}

// recording is an open WAV file.
type recording struct {
	file   *os.File
	title  string
	format wavFormat
	sound  io.Reader // whole frames, the gap's silence included
}

// check returns an Invalid error for the first file that is no recording.
func (r *recordings) check() error {
	for _, name := range r.list.names {
		rec, err := openRecording(name, 0)
		if err != nil {
			return err
		}
		_ = rec.file.Close() // only read
	}
	return nil
}

func openRecording(name string, gap time.Duration) (*recording, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, decant.Errorf(decant.NotFound, "cannot open a recording: %w", err)
	}
	info, err := f.Stat()
	if err == nil {
		var format wavFormat
		var sound *io.SectionReader
		if format, sound, err = readWAV(f, info.Size()); err == nil {
			silence := io.LimitReader(zeros{}, format.bytes(gap))
			title := strings.TrimSuffix(filepath.Base(name), filepath.Ext(name))
			return &recording{file: f, title: title, format: format, sound: io.MultiReader(sound, silence)}, nil
		}
	}
	_ = f.Close() // only read
	return nil, decant.Errorf(decant.Invalid, "recording %s: %w", name, err)
}

func (r *recordings) next() (Sample, time.Duration, error) {
	for {
		if r.now == nil {
			name, err := r.list.next()
			if err != nil {
				return Sample{}, 0, err
			}
			if r.now, err = openRecording(name, r.gap); err != nil {
				return Sample{}, 0, err
			}
		}
		sound, err := r.now.read(r.chunk)
		if len(sound) > 0 {
			data := wavFile(r.now.format, r.now.title, sound)
			return Sample{ContentType: "audio/wav", Data: data}, r.now.format.duration(len(sound)), nil
		}
		title := r.now.title
		_ = r.close() // only read
		if !errors.Is(err, io.EOF) {
			return Sample{}, 0, decant.Errorf(decant.Internal, "cannot read recording %s: %w", title, err)
		}
	}
}

// read returns the next chunk of sound, shorter at the end, then io.EOF.
func (r *recording) read(chunk time.Duration) ([]byte, error) {
	sound := make([]byte, r.format.bytes(chunk))
	n, err := io.ReadFull(r.sound, sound)
	if err == io.ErrUnexpectedEOF {
		err = io.EOF
	}
	return sound[:n-n%r.format.frame()], err
}

func (r *recordings) close() error {
	if r.now == nil {
		return nil
	}
	f := r.now.file
	r.now = nil
	return f.Close()
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}
