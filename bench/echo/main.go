//go:build wasip1

// Echo answers with its request: what is left is what a call costs.
package main

import (
	"bytes"
	"os"
)

var request bytes.Buffer

//go:wasmexport echo
func echo() int32 {
	request.Reset()
	if _, err := request.ReadFrom(os.Stdin); err != nil {
		return 1
	}
	if _, err := os.Stdout.Write(request.Bytes()); err != nil {
		return 1
	}
	return 0
}

func main() {}
