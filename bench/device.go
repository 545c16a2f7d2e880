package main

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"
)

const (
	megabyte    = 1_000_000
	settle      = 10 * time.Second // until the idle device's memory is looked at
	maxBinary   = 12.0             // MB
	maxResident = 20.0             // MB
)

// devices measures the size of the device program, and what it holds of memory
// while it has joined and runs nothing.
func devices(ctx context.Context, _ int) ([]figure, error) {
	info, err := os.Stat("bin/decant-supervisor")
	if err != nil {
		return nil, err
	}
	s, err := newSite(ctx)
	if err != nil {
		return nil, err
	}
	defer s.close()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(settle):
	}
	rss, err := resident(s.proc.Pid())
	if err != nil {
		return nil, err
	}
	return []figure{
		megabytes("supervisor, stripped", float64(info.Size()), maxBinary),
		megabytes("supervisor, memory when idle", rss, maxResident),
	}, nil
}

func megabytes(what string, bytes, most float64) figure {
	return figure{
		what: what, ours: fmt.Sprintf("%.1f MB", bytes/megabyte), goal: fmt.Sprintf("≤ %.0f MB", most),
		held: bytes <= most*megabyte,
	}
}

var residentLine = regexp.MustCompile(`(?m)^VmRSS:\s+(\d+) kB$`)

// resident returns the bytes of memory that a process holds.
func resident(pid int) (float64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	m := residentLine.FindSubmatch(status)
	if m == nil {
		return 0, fmt.Errorf("process %d has no VmRSS", pid)
	}
	kib, err := strconv.ParseFloat(string(m[1]), 64)
	return kib * 1024, err
}

// machineName says what this machine is.
func machineName() string {
	model := runtime.GOARCH
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if name, ok := strings.CutPrefix(line, "model name"); ok {
			model = strings.TrimLeft(strings.TrimSpace(name), ": \t")
			break
		}
	}
	return fmt.Sprintf("%s, %d cores, %s/%s, %s", model, runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version())
}
