//go:build wasip1

// Captions shows on a screen what photographs show.
//
// Request: the JSON that image-classifier makes. It writes a line to
// /dev/screen. Response: {"shown": 1}.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/decant-project/decant/examples/internal/guest"
	"github.com/decant-project/decant/examples/internal/picture"
)

//go:wasmexport show
func show() int32 {
	return guest.Answer(func(request []byte) ([]byte, error) {
		var answer struct {
			Image int             `json:"image"`
			Top   []picture.Class `json:"top"`
		}
		if err := json.Unmarshal(request, &answer); err != nil {
			return nil, fmt.Errorf("not a classification: %w", err)
		}
		var names []string
		for _, c := range answer.Top {
			names = append(names, fmt.Sprintf("%s %.0f %%", c.Label, 100*c.Probability))
		}
		screen, err := os.OpenFile("/dev/screen", os.O_WRONLY, 0)
		if err != nil {
			return nil, err
		}
		defer screen.Close()
		if _, err := fmt.Fprintf(screen, "photograph %d: %s\n", answer.Image, strings.Join(names, ", ")); err != nil {
			return nil, err
		}
		return []byte("{\"shown\":1}\n"), nil
	})
}

func main() {}
