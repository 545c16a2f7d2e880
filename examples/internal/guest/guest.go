// Package guest is the few lines that each function of the examples begins
// with: the request is standard input, the response standard output. There is
// nothing in it that a module needs to have; examples/shout does without.
package guest

import (
	"fmt"
	"io"
	"os"
)

// Answer reads the request, writes what f makes of it, and returns the status
// of the call. An error goes to the log instead, and nothing is written.
func Answer(f func(request []byte) (response []byte, err error)) int32 {
	request, err := io.ReadAll(os.Stdin)
	var response []byte
	if err == nil {
		response, err = f(request)
	}
	if err == nil && len(response) > 0 {
		_, err = os.Stdout.Write(response)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}
