package machine

import (
	"runtime"
	"testing"

	"github.com/decant-project/decant"
)

func TestReadsThisMachine(t *testing.T) {
	c, s := Capabilities(), State()
	if c.OS != "linux" || c.Arch != runtime.GOARCH || c.Kernel == "" || c.Cores < 1 {
		t.Errorf("capabilities %+v", c)
	}
	if c.Memory < 16*decant.MiB || s.FreeMemory <= 0 || s.FreeMemory > c.Memory {
		t.Errorf("memory %s, free %s", c.Memory, s.FreeMemory)
	}
	if s.Uptime <= 0 || s.Load < 0 || s.At.IsZero() {
		t.Errorf("state %+v", s)
	}
}

func TestMeminfo(t *testing.T) {
	file := []byte("MemTotal:        2048 kB\nMemFree: 1 kB\nMemAvailable:    1024 kB\nHugePages_Total: 0\n")
	for field, want := range map[string]decant.Bytes{"MemTotal": 2 * decant.MiB, "MemAvailable": decant.MiB, "Absent": 0} {
		if got := meminfo(file, field); got != want {
			t.Errorf("%s = %d, want %d", field, got, want)
		}
	}
	if got := meminfo([]byte("MemTotal: lots kB\n"), "MemTotal"); got != 0 {
		t.Errorf("not a number = %d, want 0", got)
	}
}

func TestUnlimitedGroupIsNoLimit(t *testing.T) {
	if got := number([]byte("max\n")); got != 0 {
		t.Errorf("max = %d, want 0", got)
	}
}
