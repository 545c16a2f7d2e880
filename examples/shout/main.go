//go:build wasip1

// Shout answers with its request in upper case.
package main

import (
	"bytes"
	"io"
	"os"
)

//go:wasmexport shout
func shout() {
	request, _ := io.ReadAll(os.Stdin)
	os.Stdout.Write(bytes.ToUpper(request))
}

func main() {}
