//go:build wasip1

// Timeline shows segments of speech on a screen.
//
// Request: a line of JSON for each segment, as speech-detector makes them. It
// writes a line each to /dev/screen, all at once. Response: {"shown": n}.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"

	"github.com/decant-project/decant/examples/internal/guest"
	"github.com/decant-project/decant/examples/internal/voice"
)

//go:wasmexport show
func show() int32 {
	return guest.Answer(func(request []byte) ([]byte, error) {
		var text bytes.Buffer
		shown := 0
		for line := range bytes.Lines(request) {
			var s voice.Segment
			if err := json.Unmarshal(line, &s); err != nil {
				return nil, fmt.Errorf("line %d is not a segment: %w", shown+1, err)
			}
			fmt.Fprintf(&text, "%-14s %6.2f – %6.2f s   speech %3.0f %%\n", s.Recording, s.Start, s.End, 100*s.Probability)
			shown++
		}
		screen, err := os.OpenFile("/dev/screen", os.O_WRONLY, 0)
		if err != nil {
			return nil, err
		}
		defer screen.Close()
		if _, err := screen.Write(text.Bytes()); err != nil {
			return nil, err
		}
		return fmt.Appendf(nil, "{\"shown\":%d}\n", shown), nil
	})
}

func main() {}
