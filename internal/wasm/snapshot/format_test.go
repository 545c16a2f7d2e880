package snapshot

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/decant-project/decant"
)

// TestFormatExample holds the example of FORMAT.md to what Encode writes.
func TestFormatExample(t *testing.T) {
	m := make(Memory, wasmPage)
	copy(m, "hi")
	written, _ := encode(t, &Snapshot{
		Module:  decant.DigestOf([]byte("\x00asm\x01\x00\x00\x00")),
		Clock:   time.Second,
		Memory:  wasmPage,
		Globals: []Global{{Index: 0, Type: I32, Bits: 0x10000}},
		Files:   []File{{Path: "a", Modified: time.Unix(1, 0), Data: []byte("ok")}},
	}, m.Pages())
	_, example, _ := strings.Cut(readFormat(t), "```\n")
	example, _, ok := strings.Cut(example, "```\n")
	if !ok {
		t.Fatal("FORMAT.md has no example")
	}
	var documented []byte
	for line := range strings.Lines(example) {
		code, _, _ := strings.Cut(line, ";")
		fields := strings.Fields(code)
		if want := fmt.Sprintf("%04x", len(documented)); fields[0] != want {
			t.Errorf("line %q: its offset is %s", line, want)
		}
		for _, f := range fields[1:] {
			documented = append(documented, unfold(t, f)...)
		}
	}
	if !bytes.Equal(documented, written) {
		t.Errorf("this is not what is written:\n%s", hex.Dump(written))
	}
}

// unfold reads 2a, or 2a*3 for three of it.
func unfold(t *testing.T, field string) []byte {
	digits, times, folded := strings.Cut(field, "*")
	b, err := hex.DecodeString(digits)
	n := 1
	if folded && err == nil {
		n, err = strconv.Atoi(times)
	}
	if err != nil {
		t.Fatalf("%q: %v", field, err)
	}
	return bytes.Repeat(b, n)
}

// TestFormatNamesSections holds the table of FORMAT.md to the code.
func TestFormatNamesSections(t *testing.T) {
	format := readFormat(t)
	for id, name := range sectionNames {
		if row := fmt.Sprintf("\n| %d | %s |", id, name); !strings.Contains(format, row) {
			t.Errorf("FORMAT.md has no row %q", row)
		}
	}
	if first := fmt.Sprintf("# The format of a snapshot, version %d\n", version); !strings.HasPrefix(format, first) {
		t.Errorf("FORMAT.md does not begin with %q", first)
	}
}

func readFormat(t *testing.T) string {
	b, err := os.ReadFile("FORMAT.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
