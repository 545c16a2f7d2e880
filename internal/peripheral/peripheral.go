// Package peripheral is what guests see under /dev. A driver turns something
// of the machine into samples to read and actions to write; device.yaml says
// which drivers a device has.
package peripheral

import (
	"context"
	"time"

	"github.com/decant-project/decant"
)

// Peripheral is an open peripheral. It is safe for concurrent use.
type Peripheral interface {
	// Read waits for the next sample, which no other Read gets. io.EOF: there
	// are no more. Unsupported: it cannot be read.
	Read(ctx context.Context) (Sample, error)
	// Write acts. Unsupported: it cannot be written.
	Write(ctx context.Context, action []byte) error
	Close() error
}

// Sample is one reading.
type Sample struct {
	ContentType string
	Data        []byte
	At          time.Time // when it was due: earlier than it was read where the reader is slow
}

// Config is a peripheral in device.yaml.
type Config struct {
	Name   string          `json:"name"`
	Type   string          `json:"type" doc:"microphone, camera, screen, ..."`
	Driver string          `json:"driver" doc:"file, simulated"`
	Path   string          `json:"path,omitempty" doc:"What to read (a glob) or write, relative to device.yaml; - is standard output"`
	Every  decant.Duration `json:"every,omitempty" doc:"Time between samples; where absent, microphones take the time of the sound, others none"`
	Chunk  decant.Duration `json:"chunk,omitempty" doc:"Microphones: sound in a sample"`
	Gap    decant.Duration `json:"gap,omitempty" doc:"Microphones: silence after each recording"`
	Repeat bool            `json:"repeat,omitempty" doc:"Start again after the last file"`
}
