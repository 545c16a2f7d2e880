//go:build wasip1

// Gojson is a kernel as Go's compiler makes it: strings, sorting, reflection,
// and memory that is collected.
package main

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
)

type reading struct {
	Name   string    `json:"name"`
	Values []float64 `json:"values"`
}

//go:wasmexport run
func run(n int32) int32 {
	sum := int32(0)
	for i := range n {
		var readings []reading
		for j := range 20 {
			readings = append(readings, reading{strings.Repeat("s", (j*7+int(i))%11), []float64{float64(j), float64(i), .5}})
		}
		slices.SortFunc(readings, func(a, b reading) int { return strings.Compare(a.Name, b.Name) })
		text, err := json.Marshal(readings)
		if err != nil {
			return -1
		}
		var back []reading
		if err := json.Unmarshal(text, &back); err != nil {
			return -1
		}
		sum = sum*31 + int32(len(text)) + int32(len(back[3].Name)) //nolint:gosec // a checksum
	}
	return sum
}

var kept [][]byte

// keep keeps n MiB more in memory, none of them zero.
//
//go:wasmexport keep
func keep(n int32) int32 {
	for range n {
		kept = append(kept, bytes.Repeat([]byte("full"), 1<<18))
	}
	return int32(len(kept)) //nolint:gosec // of MiB
}

func main() {}
