//go:build wasip1

// Tally keeps count, sum, minimum and maximum of readings by name. The same
// module is beside it in C, AssemblyScript and Rust.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/decant-project/decant/examples/internal/guest"
)

const (
	file     = "/state/tally"
	nameSize = 32 // bytes, at most
)

// entry is what is kept of the readings of a name.
type entry struct {
	count, sum int64
	min, max   int32
}

// The module's state: it lives as long as its instance, and moves with it.
var (
	started = time.Now()
	tally   = map[string]entry{}
)

// add takes lines of a name and a whole number, and answers with the number of
// readings so far. If a line is wrong, none is taken.
//
//go:wasmexport add
func add() int32 {
	return guest.Answer(func(request []byte) ([]byte, error) {
		readings, err := parse(string(request))
		if err != nil {
			return nil, err
		}
		for _, r := range readings {
			tally[r.name] = tally[r.name].with(r.value)
		}
		count, _ := total()
		return fmt.Appendf(nil, "%d\n", count), nil
	})
}

// report answers with a line for each name: count, sum, minimum and maximum.
//
//go:wasmexport report
func report() int32 {
	return guest.Answer(func([]byte) ([]byte, error) { return lines(), nil })
}

// mean is NaN if there is no reading.
//
//go:wasmexport mean
func mean() float64 {
	count, sum := total()
	return float64(sum) / float64(count)
}

// above is the number of names with a reading above limit.
//
//go:wasmexport above
func above(limit int32) int64 {
	names := int64(0)
	for _, e := range tally {
		if e.max > limit {
			names++
		}
	}
	return names
}

// uptime is in milliseconds, and never goes back.
//
//go:wasmexport uptime
func uptime() int64 { return time.Since(started).Milliseconds() }

// save writes the report to a file of the instance's own, whole or not at all.
//
//go:wasmexport save
func save() int32 {
	return guest.Answer(func([]byte) ([]byte, error) {
		err := os.WriteFile(file+".new", lines(), 0o600)
		if err == nil {
			err = os.Rename(file+".new", file)
		}
		if err != nil {
			return nil, fmt.Errorf("cannot save: %w", err)
		}
		return nil, nil
	})
}

// load goes back to what was saved last.
//
//go:wasmexport load
func load() int32 {
	return guest.Answer(func([]byte) ([]byte, error) {
		saved, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("cannot load: %w", err)
		}
		loaded := map[string]entry{}
		for line := range strings.Lines(string(saved)) {
			var name string
			var e entry
			if _, err := fmt.Sscanf(line, "%s %d %d %d %d\n", &name, &e.count, &e.sum, &e.min, &e.max); err != nil {
				return nil, errors.New("cannot load: the file is damaged")
			}
			loaded[name] = e
		}
		tally = loaded
		return nil, nil
	})
}

type reading struct {
	name  string
	value int32
}

func parse(request string) (readings []reading, err error) {
	for line := range strings.Lines(request) {
		name, number, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		value, err := strconv.ParseInt(number, 10, 32)
		if err != nil || !isName(name) {
			return nil, fmt.Errorf("line %d is not a name and a number", len(readings)+1)
		}
		readings = append(readings, reading{name, int32(value)})
	}
	return readings, nil
}

// isName reports whether name is printable ASCII without spaces.
func isName(name string) bool {
	return len(name) >= 1 && len(name) <= nameSize && !strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' })
}

func (e entry) with(value int32) entry {
	if e.count == 0 {
		e.min, e.max = value, value
	}
	return entry{e.count + 1, e.sum + int64(value), min(e.min, value), max(e.max, value)}
}

func total() (count, sum int64) {
	for _, e := range tally {
		count += e.count
		sum += e.sum
	}
	return count, sum
}

// lines is sorted: a map has another order in each instance.
func lines() []byte {
	var out bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(tally)) {
		e := tally[name]
		fmt.Fprintln(&out, name, e.count, e.sum, e.min, e.max)
	}
	return out.Bytes()
}

func main() {}
