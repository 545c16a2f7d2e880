package examples_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/decant-project/decant"
)

// toolchains are what modules that are not in Go are built by: the command that
// a build begins with, what succeeds where all it needs is there, and how that
// is installed.
var toolchains = map[string]struct{ probe, install string }{
	"clang": {"command -v clang", "apt install clang lld wasi-libc libclang-rt-dev-wasm32"},
	"npx":   {"command -v npx", "install Node.js and npm"},
	"rustc": {
		`test -d "$(rustc --print target-libdir --target wasm32-wasip1)"`,
		"rustup target add wasm32-wasip1, or see examples/tally/rust/std-from-debian.sh",
	},
}

// builds are the builds of this process by folder, as functions that give the
// module.
var builds sync.Map

// build builds the package in dir by its own command, and returns its module. It
// skips the test where the toolchain is not, but for continuous integration:
// that has them all.
func build(t *testing.T, dir string) []byte {
	t.Helper()
	spec := read[decant.PackageSpec](t, filepath.Join(dir, "package.yaml"))
	command, _, _ := strings.Cut(spec.Module.Build, " ")
	if tools, ok := toolchains[command]; ok && shell(t, ".", tools.probe) != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("without %s: %s", command, tools.install)
		}
		t.Skipf("without %s: %s", command, tools.install)
	}
	once, _ := builds.LoadOrStore(dir, sync.OnceValues(func() ([]byte, error) {
		if err := shell(t, dir, spec.Module.Build); err != nil {
			return nil, err
		}
		return os.ReadFile(filepath.Join(dir, spec.Module.File))
	}))
	module, err := once.(func() ([]byte, error))()
	if err != nil {
		t.Fatalf("%s: %v", dir, err)
	}
	return module
}

func shell(t *testing.T, dir, line string) error {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", line)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}
