package codecache

import (
	"bytes"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// confine limits this process, and has it give way to all others.
func confine(l Limits) error {
	for _, limit := range []struct {
		resource int
		most     int64
	}{
		{unix.RLIMIT_CORE, 0},
		{unix.RLIMIT_FSIZE, l.Code},
		{unix.RLIMIT_CPU, int64((l.CPU + time.Second - 1) / time.Second)},
		// Not the address space, of which Go reserves much more than it uses.
		{unix.RLIMIT_DATA, dataNow() + l.Memory},
	} {
		if err := lower(limit.resource, uint64(limit.most)); err != nil {
			return os.NewSyscallError("setrlimit", err)
		}
	}
	// The first to go when the machine runs out of memory, the last to get a
	// processor. Where that cannot be had, the limits still hold.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0)
	_ = unix.Setpriority(unix.PRIO_PGRP, 0, 10)
	return nil
}

// lower sets a limit that cannot be lifted again. One that is lower stays.
func lower(resource int, most uint64) error {
	var now unix.Rlimit
	if err := unix.Getrlimit(resource, &now); err != nil {
		return err
	}
	most = min(most, now.Max)
	return unix.Setrlimit(resource, &unix.Rlimit{Cur: most, Max: most})
}

// dataNow returns the bytes of data that this process has to begin with, 0 if that
// cannot be known.
func dataNow() int64 {
	statm, _ := os.ReadFile("/proc/self/statm")
	const data = 5 // its place, see proc(5)
	fields := bytes.Fields(statm)
	if len(fields) <= data {
		return 0
	}
	pages, _ := strconv.ParseInt(string(fields[data]), 10, 64)
	return pages * int64(os.Getpagesize())
}

// childAttributes has the child die with its parent, and not of the keys that are
// pressed at the parent's terminal.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
