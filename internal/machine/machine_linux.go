package machine

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decant-project/decant"
)

func kernel() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// memoryTotal returns the smaller of the machine's memory and the limit of the
// control group this process is in.
func memoryTotal() decant.Bytes {
	total := meminfo(readProc("/proc/meminfo"), "MemTotal")
	if limit, ok := cgroupLimit(); ok && limit < total {
		return limit
	}
	return total
}

func memoryFree() decant.Bytes {
	free := meminfo(readProc("/proc/meminfo"), "MemAvailable")
	if limit, ok := cgroupLimit(); ok {
		free = min(free, max(0, limit-number(readProc("/sys/fs/cgroup/memory.current"))))
	}
	return free
}

func load() float64 { return firstFloat(readProc("/proc/loadavg")) }

func uptime() time.Duration {
	return time.Duration(firstFloat(readProc("/proc/uptime")) * float64(time.Second))
}

// cgroupLimit reads the limit as a container sees it: its own group is mounted
// as the root of the tree.
func cgroupLimit() (decant.Bytes, bool) {
	n := number(readProc("/sys/fs/cgroup/memory.max"))
	return n, n > 0
}

// readProc returns a file of the kernel's, at most 64 KiB of it, empty where it
// is absent.
func readProc(path string) []byte {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return nil
	}
	return b
}

// meminfo returns a field of /proc/meminfo, whose unit is always kB (1024).
func meminfo(file []byte, field string) decant.Bytes {
	for sc := bufio.NewScanner(bytes.NewReader(file)); sc.Scan(); {
		name, value, _ := strings.Cut(sc.Text(), ":")
		if name == field {
			return number([]byte(strings.TrimSuffix(strings.TrimSpace(value), " kB"))) * decant.KiB
		}
	}
	return 0
}

// number returns 0 for what is not a number, such as a limit of "max".
func number(b []byte) decant.Bytes {
	n, _ := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	return decant.Bytes(n)
}

func firstFloat(b []byte) float64 {
	first, _, _ := strings.Cut(string(b), " ")
	f, _ := strconv.ParseFloat(first, 64)
	return f
}
