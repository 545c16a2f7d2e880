// Command kit is a reactor with a function for each thing that the tests try.
package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unsafe"
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

var began = time.Now()

// uptime writes how long the guest has run, in ns.
//
//go:wasmexport uptime
func uptime() { fmt.Print(time.Since(began).Nanoseconds()) }

var filled [][]byte

// fillup keeps as many MiB as the request says, none of them zero.
//
//go:wasmexport fillup
func fillup() {
	var mib int
	_, _ = fmt.Scan(&mib)
	for range mib {
		filled = append(filled, bytes.Repeat([]byte("full"), 1<<18))
	}
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

//go:wasmimport wasi_snapshot_preview1 fd_write
func fdWrite(fd int32, buffers unsafe.Pointer, n uint32, written unsafe.Pointer) uint32

//go:wasmimport wasi_snapshot_preview1 path_open
func pathOpen(dir, follow int32, path unsafe.Pointer, length, flags uint32, rights, inheriting uint64, fdFlags uint32, opened unsafe.Pointer) uint32

// open opens a file past Go's own bookkeeping.
func open(path string, writes bool) (fd int32, errno uint32) {
	const create, read, write = 1, 1 << 1, 1 << 6
	flags, rights := uint32(0), uint64(read)
	if writes {
		rights |= write
	}
	if strings.HasPrefix(path, "state/") {
		flags = create
	}
	errno = pathOpen(3, 0, unsafe.Pointer(unsafe.StringData(path)), uint32(len(path)), flags, rights, rights, 0, unsafe.Pointer(&fd))
	return fd, errno
}

// hose writes in one call of the host, to a number or a path: FD COUNT SIZE is
// COUNT times the same SIZE bytes.
//
//go:wasmexport hose
func hose() int32 {
	var to string
	var count, size int
	fmt.Fscan(os.Stdin, &to, &count, &size)
	var fd int32
	if _, err := fmt.Sscan(to, &fd); err != nil {
		if fd, _ = open(to, true); fd == 0 {
			return 1
		}
	}
	same := make([]byte, size)
	buffers := make([][2]uint32, count)
	for i := range buffers {
		buffers[i] = [2]uint32{uint32(uintptr(unsafe.Pointer(unsafe.SliceData(same)))), uint32(size)}
	}
	var written uint32
	return int32(fdWrite(fd, unsafe.Pointer(unsafe.SliceData(buffers)), uint32(count), unsafe.Pointer(&written)))
}

//go:wasmimport wasi_snapshot_preview1 fd_renumber
func fdRenumber(from, to int32) uint32

// renumber gives a file the number that it is asked for.
//
//go:wasmexport renumber
func renumber() int32 {
	var to int32
	fmt.Fscan(os.Stdin, &to)
	fd, _ := open(".", false)
	return int32(fdRenumber(fd, to))
}

// hoard opens a path again and again, writes MIB to each, closes none, and says
// how many there were: PATH COUNT MIB. It fails where it cannot have that many.
//
//go:wasmexport hoard
func hoard() int32 {
	var path string
	var count, mib int
	fmt.Fscan(os.Stdin, &path, &count, &mib)
	block := make([]byte, 1<<20)
	buffer := [2]uint32{uint32(uintptr(unsafe.Pointer(unsafe.SliceData(block)))), 1 << 20}
	for i := range count {
		fd, errno := open(path, mib > 0)
		for range mib {
			if errno == 0 {
				var written uint32
				errno = fdWrite(fd, unsafe.Pointer(&buffer), 1, unsafe.Pointer(&written))
			}
		}
		if errno != 0 {
			fmt.Fprintf(os.Stderr, "%d, then errno %d\n", i, errno)
			return 1
		}
	}
	fmt.Print(count)
	return 0
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
