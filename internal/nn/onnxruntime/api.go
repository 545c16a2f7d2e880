//go:build linux && (amd64 || arm64)

package onnxruntime

import (
	"errors"
	"runtime"
	"strings"
	"unsafe"

	"github.com/ebitengine/purego"

	"github.com/decant-project/decant"
)

// slot is the index of a function in struct OrtApi. The struct only ever grows
// at its end (onnxruntime_c_api.h: "This value is used in structures passed to
// ORT so that a newer version of ORT will still work with them"), so these hold
// for every release that offers version 11 of the API, 1.11 and later.
type slot int

const (
	getErrorMessage                slot = 2
	createEnv                      slot = 3
	disableTelemetryEvents         slot = 6
	createSessionFromArray         slot = 8
	run                            slot = 9
	createSessionOptions           slot = 10
	setIntraOpNumThreads           slot = 24
	setInterOpNumThreads           slot = 25
	sessionGetInputCount           slot = 30
	sessionGetOutputCount          slot = 31
	sessionGetInputTypeInfo        slot = 33
	sessionGetOutputTypeInfo       slot = 34
	sessionGetInputName            slot = 36
	sessionGetOutputName           slot = 37
	createRunOptions               slot = 39
	runOptionsSetTerminate         slot = 46
	createTensorWithDataAsOrtValue slot = 49
	isTensor                       slot = 50
	getTensorMutableData           slot = 51
	castTypeInfoToTensorInfo       slot = 55
	getTensorElementType           slot = 60
	getDimensionsCount             slot = 61
	getDimensions                  slot = 62
	getTensorTypeAndShape          slot = 65
	createCPUMemoryInfo            slot = 69
	allocatorFree                  slot = 76
	getAllocatorWithDefaultOptions slot = 78
	releaseEnv                     slot = 92
	releaseStatus                  slot = 93
	releaseMemoryInfo              slot = 94
	releaseSession                 slot = 95
	releaseValue                   slot = 96
	releaseRunOptions              slot = 97
	releaseTypeInfo                slot = 98
	releaseTensorTypeAndShapeInfo  slot = 99
	releaseSessionOptions          slot = 100

	slots = 101
)

// apiVersion is the version of OrtApi that is asked for.
const apiVersion = 11

// api is a loaded library's struct OrtApi.
type api struct {
	functions *[slots]uintptr
	version   string
}

// open loads the library at path. It is never unloaded: ONNX Runtime leaves
// threads and thread-local data behind.
func open(path string) (*api, error) {
	lib, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return nil, decant.Errorf(decant.Unsupported, "cannot load ONNX Runtime: %w", err)
	}
	getBase, err := purego.Dlsym(lib, "OrtGetApiBase")
	if err != nil {
		return nil, decant.Errorf(decant.Unsupported, "%s is not ONNX Runtime: %w", path, err)
	}
	// struct OrtApiBase { const OrtApi* (*GetApi)(uint32_t); const char* (*GetVersionString)(void); }
	base := (*[2]uintptr)(pointer(call(getBase)))
	functions := call(base[0], apiVersion)
	if functions == 0 {
		return nil, decant.Errorf(decant.Unsupported, "%s is too old: ONNX Runtime 1.11 or later is needed", path)
	}
	return &api{functions: (*[slots]uintptr)(pointer(functions)), version: goString(call(base[1]))}, nil
}

// call calls a C function. Pointers to Go memory among args are kept where they
// are until it returns: the directive makes what is converted to uintptr in the
// argument list escape, since a stack that grows meanwhile would move it.
//
//go:uintptrescapes
func call(function uintptr, args ...uintptr) uintptr {
	result, _, _ := purego.SyscallN(function, args...)
	return result
}

// try calls a function that returns an OrtStatus.
//
//go:uintptrescapes
func (a *api) try(s slot, args ...uintptr) error {
	status := call(a.functions[s], args...)
	if status == 0 {
		return nil
	}
	message := goString(call(a.functions[getErrorMessage], status))
	a.free(releaseStatus, status)
	line, _, _ := strings.Cut(message, "\n")
	return errors.New(line)
}

// free calls a release function.
func (a *api) free(s slot, object uintptr) {
	if object != 0 {
		call(a.functions[s], object)
	}
}

// pointer makes a pointer of an address in C's memory.
func pointer(address uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&address)) }

// maxString bounds a string that comes from C.
const maxString = 64 << 10

func goString(address uintptr) string {
	if address == 0 {
		return ""
	}
	n := 0
	for n < maxString && *(*byte)(unsafe.Add(pointer(address), n)) != 0 {
		n++
	}
	return string(unsafe.Slice((*byte)(pointer(address)), n))
}

// cStrings holds strings as C wants an array of them.
type cStrings struct {
	pin      runtime.Pinner
	pointers []uintptr
}

func newCStrings(texts []string) *cStrings {
	c := &cStrings{pointers: make([]uintptr, 0, len(texts)+1)}
	for _, text := range texts {
		b := append([]byte(text), 0)
		c.pin.Pin(&b[0])
		c.pointers = append(c.pointers, uintptr(unsafe.Pointer(&b[0])))
	}
	c.pointers = append(c.pointers, 0) // never empty
	c.pin.Pin(&c.pointers[0])
	return c
}

func (c *cStrings) address() uintptr { return uintptr(unsafe.Pointer(&c.pointers[0])) }
func (c *cStrings) free()            { c.pin.Unpin() }
