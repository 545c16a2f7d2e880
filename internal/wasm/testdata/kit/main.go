// Command kit is a reactor with a function for each thing that the tests try.
package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

func main() {}

var calls int

//go:wasmexport echo
func echo() { _, _ = io.Copy(os.Stdout, os.Stdin) }

var buf = make([]byte, 256<<10)

//go:wasmexport fastecho
func fastecho() {
	n, _ := io.ReadFull(os.Stdin, buf)
	_, _ = os.Stdout.Write(buf[:n])
}

//go:wasmexport count
func count() {
	calls++
	fmt.Print(calls)
}

//go:wasmexport fail
func fail() int32 {
	fmt.Fprintln(os.Stderr, "the reason why")
	return 3
}

//go:wasmexport breakdown
func breakdown() { panic("at the guest's own fault") }

//go:wasmexport exit
func exit() { os.Exit(7) }

//go:wasmexport spin
func spin() {
	for calls >= 0 {
		calls++
	}
}

//go:wasmexport sleep
func sleep() { time.Sleep(time.Hour) }

//go:wasmexport grow
func grow() {
	var all [][]byte
	for range 1 << 20 {
		all = append(all, make([]byte, 1<<20))
	}
	fmt.Print(len(all))
}

//go:wasmexport flood
func flood() {
	block := make([]byte, 1<<20)
	for range 100 {
		if _, err := os.Stdout.Write(block); err != nil {
			return
		}
	}
}

//go:wasmexport add
func add(a int32, b int64, c float32, d float64) float64 {
	return float64(a) + float64(b) + float64(c) + d
}

// files does what its request says, a line each: ls PATH, cat PATH,
// put PATH TEXT, append PATH TEXT, mkdir PATH, rm PATH, mv FROM TO,
// ln TARGET PATH, fill PATH MIB.
//
//go:wasmexport files
func files() {
	script, _ := io.ReadAll(os.Stdin)
	for line := range strings.Lines(string(script)) {
		word := strings.Fields(line)
		if err := do(word); err != nil {
			fmt.Printf("%s: error: %v\n", word[0], err)
		}
	}
}

func do(word []string) error {
	switch path := word[1]; word[0] {
	case "ls":
		list, err := os.ReadDir(path)
		var names []string
		for _, e := range list {
			names = append(names, e.Name())
		}
		if err == nil {
			fmt.Println(strings.Join(names, " "))
		}
		return err
	case "cat":
		data, err := os.ReadFile(path)
		if err == nil {
			fmt.Printf("%s\n", data)
		}
		return err
	case "put":
		return os.WriteFile(path, []byte(word[2]), 0o644)
	case "append":
		f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.WriteString(word[2])
		return err
	case "mkdir":
		return os.Mkdir(path, 0o755)
	case "rm":
		return os.Remove(path)
	case "mv":
		return os.Rename(path, word[2])
	case "ln":
		return os.Symlink(path, word[2])
	case "fill":
		var n int
		fmt.Sscan(word[2], &n)
		return os.WriteFile(path, bytes.Repeat([]byte("x"), n<<20), 0o644)
	}
	return fmt.Errorf("unknown word %q", word[0])
}

// ask writes its request to /link/next and answers with what comes back.
//
//go:wasmexport ask
func ask() int32 {
	f, err := os.OpenFile("/link/next", os.O_RDWR, 0)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer f.Close()
	request, _ := io.ReadAll(os.Stdin)
	if _, err = f.Write(request); err != nil {
		return 1
	}
	response, err := io.ReadAll(f)
	if err != nil {
		fmt.Fprintln(os.Stderr, "link:", err)
		return 2
	}
	_, _ = os.Stdout.Write(response)
	return 0
}
