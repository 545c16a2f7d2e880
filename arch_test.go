package decant_test

import (
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/decant-project/decant"

// layers says, for each package (and all below it), which others of the module
// it may import. What is not named may be imported by nobody but its own.
var layers = map[string][]string{
	"":                          {},
	"client":                    {"", "internal/problem", "internal/sse"},
	"cmd/decant":                {"", "client", "internal"},
	"cmd/decant-supervisor":     {"", "internal/supervisor", "internal/wasm", "internal/wasinn", "internal/nn", "internal/identity", "internal/discovery", "internal/transport", "internal/blobs", "internal/machine", "internal/peripheral", "internal/api/device", "internal/problem", "internal/listen"},
	"internal/orchestrator":     {"", "internal/placement", "internal/packages", "internal/blobs", "internal/state", "internal/identity", "internal/discovery", "internal/transport", "internal/api/site", "internal/problem"},
	"internal/supervisor":       {"", "internal/wasm", "internal/wasinn", "internal/nn", "internal/identity", "internal/discovery", "internal/transport", "internal/blobs", "internal/machine", "internal/peripheral", "internal/api/device", "internal/problem", "internal/sse", "internal/yaml", "internal/durable", "internal/listen"},
	"internal/placement":        {""},
	"internal/packages":         {"", "internal/blobs", "internal/state", "internal/yaml"},
	"internal/state":            {"", "internal/state"},
	"internal/blobs":            {"", "internal/durable"},
	"internal/wasm":             {"", "internal/durable"},
	"internal/wasinn":           {"", "internal/nn"},
	"internal/nn":               {"", "internal/nn"},
	"internal/identity":         {"", "internal/problem", "internal/durable"},
	"internal/discovery":        {""},
	"internal/transport":        {"", "internal/problem", "internal/transport"},
	"internal/peripheral":       {""},
	"internal/machine":          {""},
	"internal/problem":          {""},
	"internal/sse":              {""},
	"internal/api":              {"", "internal/problem", "internal/sse"},
	"internal/api/site":         {"", "internal/api", "internal/identity", "internal/transport", "internal/problem"},
	"internal/api/device":       {"", "internal/api", "internal/identity", "internal/transport", "internal/problem", "internal/nn"},
	"internal/api/deviceclient": {"", "internal/identity", "internal/transport", "internal/problem"},
	"internal/fetch":            {"", "internal/durable"},
	"internal/durable":          {""},
	"internal/listen":           {"", "internal/durable"},
	"internal/yaml":             {""},
}

// TestLayers holds every import of the module to the table above.
func TestLayers(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	dec := json.NewDecoder(strings.NewReader(string(out)))
	seen := 0
	for dec.More() {
		var pkg struct {
			ImportPath string
			Imports    []string
		}
		if err := dec.Decode(&pkg); err != nil {
			t.Fatal(err)
		}
		from := short(pkg.ImportPath)
		layer, ok := layerOf(from)
		if !ok {
			continue // examples, end-to-end tests, benchmarks: they may use all
		}
		seen++
		for _, imported := range pkg.Imports {
			if !strings.HasPrefix(imported, module) {
				continue
			}
			if to := short(imported); !within(to, layer) && !slices.ContainsFunc(layers[layer], func(allowed string) bool { return allows(allowed, to) }) {
				t.Errorf("%s imports %s: not in its row of layers", from, to)
			}
		}
	}
	if seen < 20 {
		t.Errorf("looked at %d packages only", seen)
	}
}

// TestSupervisorIsSmall keeps out of the device program what devices do not
// need.
func TestSupervisorIsSmall(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "./cmd/decant-supervisor").Output()
	if err != nil {
		t.Fatal(err)
	}
	for dep := range strings.Lines(string(out)) {
		dep = strings.TrimSpace(dep)
		for _, heavy := range []string{module + "/internal/state", module + "/internal/packages", module + "/internal/orchestrator", "github.com/ncruces/go-sqlite3", "github.com/spf13/cobra"} {
			if within(dep, heavy) {
				t.Errorf("decant-supervisor links %s", dep)
			}
		}
	}
}

func short(importPath string) string {
	return strings.TrimPrefix(strings.TrimPrefix(importPath, module), "/")
}

// layerOf returns the longest row that pkg lies in.
func layerOf(pkg string) (string, bool) {
	best, found := "", pkg == ""
	for row := range layers {
		if row != "" && within(pkg, row) && len(row) > len(best) {
			best, found = row, true
		}
	}
	return best, found
}

func within(pkg, row string) bool { return pkg == row || row != "" && strings.HasPrefix(pkg, row+"/") }

func allows(allowed, pkg string) bool { return allowed == pkg || within(pkg, allowed) }
