//go:build wasip1

// Counter answers with the number of its calls. It is a reactor: its variables
// live as long as its instance does.
package main

import (
	"fmt"

	"github.com/decant-project/decant/examples/internal/guest"
)

var calls int

//go:wasmexport count
func count() int32 {
	return guest.Answer(func([]byte) ([]byte, error) {
		calls++
		return fmt.Appendf(nil, "%d\n", calls), nil
	})
}

func main() {}
