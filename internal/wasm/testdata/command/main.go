// Command command answers with its arguments, its environment and its input,
// and exits as its input says.
package main

import (
	"fmt"
	"io"
	"os"
)

func main() {
	in, _ := io.ReadAll(os.Stdin)
	fmt.Println(os.Args[1:], os.Getenv("KEY"), string(in))
	if string(in) == "fail" {
		fmt.Fprintln(os.Stderr, "as asked")
		os.Exit(4)
	}
}
