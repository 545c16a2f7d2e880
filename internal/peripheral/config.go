package peripheral

import (
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/decant-project/decant"
)

var drivers = []string{"file", "simulated"}

// outputs are the types that are written. All others are read.
var outputs = []string{"actuator", "light", "screen", "speaker"}

const (
	microphone   = "microphone"
	stdout       = "-"
	defaultChunk = 96 * time.Millisecond
	minChunk     = time.Millisecond
	maxChunk     = 10 * time.Second
	maxGap       = time.Minute
)

// Check returns an Invalid error that says what to change.
func (c Config) Check() error {
	if err := decant.CheckName("peripheral", c.Name); err != nil {
		return err
	}
	if err := decant.CheckName("peripheral type", c.Type); err != nil {
		return decant.Errorf(decant.Invalid, "peripheral %s: %w", c.Name, err)
	}
	if !slices.Contains(drivers, c.Driver) {
		return decant.Errorf(decant.Invalid, "peripheral %s: there is no driver %q; there are %s", c.Name, c.Driver, strings.Join(drivers, ", "))
	}
	if c.Driver == "file" && c.Path == "" {
		return decant.Errorf(decant.Invalid, "peripheral %s: set path to the files it reads or writes", c.Name)
	}
	if chunk := c.Chunk.Or(defaultChunk); chunk < minChunk || chunk > maxChunk {
		return decant.Errorf(decant.Invalid, "peripheral %s: chunk %s: must be from %s to %s", c.Name, c.Chunk, minChunk, maxChunk)
	}
	if time.Duration(c.Gap) > maxGap {
		return decant.Errorf(decant.Invalid, "peripheral %s: gap %s: must be %s at most", c.Name, c.Gap, maxGap)
	}
	return nil
}

// Describe returns what the orchestrator is told of the peripheral.
func (c Config) Describe() decant.Peripheral { return decant.Peripheral{Name: c.Name, Type: c.Type} }

// Open opens the peripheral of c, whose path is relative to dir. Errors are
// Invalid for a configuration or a recording that must change, NotFound where
// the path matches no file.
func Open(dir string, c Config) (Peripheral, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	switch {
	case c.Driver == "simulated":
		return newReader(c, &simulated{rand: seeded(c.Name)}, c.Every.Or(time.Second)), nil
	case c.Path == stdout || slices.Contains(outputs, c.Type):
		return openWriter(dir, c)
	}
	names, err := files(dir, c)
	if err != nil {
		return nil, err
	}
	list := &list{names: names, repeat: c.Repeat}
	if c.Type == microphone {
		m := &recordings{list: list, chunk: c.Chunk.Or(defaultChunk), gap: time.Duration(c.Gap)}
		if err := m.check(); err != nil {
			return nil, decant.Errorf(decant.Invalid, "peripheral %s: %w", c.Name, err)
		}
		return newReader(c, m, time.Duration(c.Every)), nil
	}
	return newReader(c, wholeFiles{list}, time.Duration(c.Every)), nil
}

// place returns path as seen from dir.
func place(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}
