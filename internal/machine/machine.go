// Package machine reads what the machine is and how it is doing: architecture,
// cores, memory, load. Nothing enters but the operating system; what leaves is
// the machine's share of decant.Capabilities and decant.DeviceState. What a
// platform does not tell is left zero.
package machine

import (
	"runtime"
	"time"

	"github.com/decant-project/decant"
)

// Capabilities returns what the machine is. Engine, inference backends and
// peripherals are for the caller to add. Cores are those that this process may
// use: fewer than the machine's under a CPU limit.
func Capabilities() decant.Capabilities {
	return decant.Capabilities{
		OS:     runtime.GOOS,
		Arch:   runtime.GOARCH,
		Kernel: kernel(),
		Cores:  runtime.GOMAXPROCS(0),
		Memory: memoryTotal(),
	}
}

// State returns how the machine is doing now.
func State() decant.DeviceState {
	return decant.DeviceState{
		Load:       load() / float64(runtime.GOMAXPROCS(0)),
		FreeMemory: memoryFree(),
		Uptime:     decant.Duration(uptime().Truncate(time.Second)),
		At:         time.Now().UTC(),
	}
}
