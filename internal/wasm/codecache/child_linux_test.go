package codecache

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// confinedMode is a child that takes on its limits and tells of them.
const confinedMode = "confined"

func init() {
	if len(os.Args) != 2 || os.Args[1] != confinedMode {
		return
	}
	if err := confine(limits); err != nil {
		fmt.Fprintln(os.Stdout, err)
	}
	for _, pattern := range []string{"/proc/self/oom_score_adj", "/proc/self/task/*/stat", "/proc/self/limits"} {
		paths, _ := filepath.Glob(pattern)
		for _, path := range paths {
			b, _ := os.ReadFile(path)
			fmt.Fprintf(os.Stdout, "%s: %s", filepath.Base(path), b)
		}
	}
	os.Exit(0)
}

// TestConfine holds what a child lets itself have; TestFailures that it matters.
func TestConfine(t *testing.T) {
	exe, _ := os.Executable()
	child := exec.Command(exe, confinedMode)
	child.SysProcAttr = childAttributes()
	out, err := child.Output()
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(string(out)), " ")
	for _, want := range []string{
		"oom_score_adj: 1000", "Max core file size 0 0", "Max file size 1048576 1048576", "Max cpu time 20 20",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
	if strings.Contains(text, "Max data size unlimited") {
		t.Errorf("memory has no limit: %s", out)
	}
	threads := 0
	for line := range strings.Lines(string(out)) {
		if _, stat, ok := strings.Cut(line, ") "); ok && strings.HasPrefix(line, "stat: ") {
			const nice = 16 // after the name, see proc(5)
			threads++
			if got := strings.Fields(stat)[nice]; got != "10" {
				t.Errorf("a thread is of niceness %s", got)
			}
		}
	}
	if threads < 2 {
		t.Errorf("%d threads: %s", threads, out)
	}
}
