package memory_test

import (
	"bytes"
	"errors"
	"testing"

	"pgregory.net/rapid"

	"github.com/decant-project/decant/internal/wasm/memory"
)

func TestRuns(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		b := pattern(rapid.IntRange(0, 8*memory.PageSize).Draw(r, "length"), rapid.Uint8().Draw(r, "pages"))
		again := make([]byte, len(b))
		end := -1
		err := memory.Runs(b, func(offset int, data []byte) error {
			if offset <= end || offset%memory.PageSize != 0 || len(data) == 0 {
				r.Fatalf("a run of %d at %d, the last ended at %d", len(data), offset, end)
			}
			for at := 0; at < len(data); at += memory.PageSize {
				if page := data[at:min(at+memory.PageSize, len(data))]; bytes.Equal(page, make([]byte, len(page))) {
					r.Fatalf("a page that is zero, at %d", offset+at)
				}
			}
			end = offset + copy(again[offset:], data)
			return nil
		})
		if err != nil || !bytes.Equal(again, b) {
			r.Fatalf("the runs are not all there is: %v", err)
		}
	})
}

func TestRunsEnds(t *testing.T) {
	b, full := pattern(8*memory.PageSize, 0b101), errors.New("full")
	for fails := 1; fails <= 2; fails++ {
		visits := 0
		err := memory.Runs(b, func(int, []byte) error {
			if visits++; visits == fails {
				return full
			}
			return nil
		})
		if err != full || visits != fails {
			t.Errorf("after %d visits: %v", visits, err)
		}
	}
}
