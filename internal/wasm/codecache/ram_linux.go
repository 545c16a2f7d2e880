package codecache

import "golang.org/x/sys/unix"

// ram returns the bytes of memory of the machine; 0 if that cannot be told.
func ram() int64 {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return 0
	}
	return int64(uint64(info.Totalram) * uint64(info.Unit)) //nolint:gosec,unconvert // of other sizes on other processors
}
