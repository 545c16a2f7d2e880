package state

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"hash"
	"io"

	"github.com/decant-project/decant"
)

// exportFormat is the version of the format of Export.
const exportFormat = 1

// An export is lines of JSON: a header, an entry for each key, and a trailer
// with the number of entries and the SHA-256 of all lines before it.
type (
	exportHeader struct {
		Decant   string `json:"decant"` // "state"
		Format   int    `json:"format"`
		Revision int64  `json:"revision"`
	}
	exportEntry struct {
		Key   string `json:"key"`
		Value []byte `json:"value"`
	}
	exportTrailer struct {
		Entries int    `json:"entries"`
		SHA256  string `json:"sha256"`
	}
)

// Export writes all keys as they are now. Those under a lease are left out:
// they say who is present, which is not for another day.
func Export(ctx context.Context, s Store, w io.Writer) error {
	kvs, rev, err := s.List(ctx, "", 0)
	if err != nil {
		return err
	}
	sum := sha256.New()
	out := bufio.NewWriter(w)
	enc := json.NewEncoder(io.MultiWriter(out, sum))
	if err := enc.Encode(exportHeader{Decant: "state", Format: exportFormat, Revision: rev}); err != nil {
		return err
	}
	n := 0
	for _, kv := range kvs {
		if kv.Lease != 0 {
			continue
		}
		n++
		if err := enc.Encode(exportEntry{Key: kv.Key, Value: kv.Value}); err != nil {
			return err
		}
	}
	if err := json.NewEncoder(out).Encode(exportTrailer{Entries: n, SHA256: hexSum(sum)}); err != nil {
		return err
	}
	return out.Flush()
}

// Import reads an export into an empty store. All of it is read and checked
// before anything is written. Invalid: it is not an export. Corrupt: it is
// damaged or cut short. Conflict: the store is not empty.
func Import(ctx context.Context, s Store, r io.Reader) error {
	present, _, err := s.List(ctx, "", 0)
	if err != nil {
		return err
	}
	if len(present) > 0 {
		return decant.Errorf(decant.Conflict, "cannot import: the state is not empty").
			WithHelp("import into a new --dir")
	}
	entries, err := readExport(r)
	if err != nil {
		return err
	}
	const most = 500 // ops in a transaction
	for len(entries) > 0 {
		n := min(len(entries), most)
		var t Txn
		for _, e := range entries[:n] {
			t.Then = append(t.Then, Op{Key: e.Key, Value: e.Value})
		}
		if _, err := s.Commit(ctx, t); err != nil {
			return err
		}
		entries = entries[n:]
	}
	return nil
}

// maxLine bounds a line of an export: a value of 1 MiB in base64, and its key.
const maxLine = 2 << 20

func readExport(r io.Reader) ([]exportEntry, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	var header exportHeader
	if !lines.Scan() || json.Unmarshal(lines.Bytes(), &header) != nil || header.Decant != "state" {
		return nil, decant.Errorf(decant.Invalid, "this is not an export of decant's state")
	}
	if header.Format != exportFormat {
		return nil, decant.Errorf(decant.Unsupported, "the export has format %d; this decant knows %d", header.Format, exportFormat)
	}
	sum := sha256.New()
	addLine(sum, lines.Bytes())
	var entries []exportEntry
	seen := map[string]bool{}
	for lines.Scan() {
		var e struct {
			exportEntry
			exportTrailer
		}
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return nil, decant.Errorf(decant.Corrupt, "the export is damaged at entry %d: %w", len(entries)+1, err)
		}
		if e.SHA256 != "" {
			if e.Entries != len(entries) || e.SHA256 != hexSum(sum) || lines.Scan() {
				return nil, decant.Errorf(decant.Corrupt, "the export is damaged: it is not what it was when it was made")
			}
			return entries, nil
		}
		if e.Key == "" || seen[e.Key] {
			return nil, decant.Errorf(decant.Corrupt, "the export is damaged at entry %d", len(entries)+1)
		}
		seen[e.Key] = true
		entries = append(entries, e.exportEntry)
		addLine(sum, lines.Bytes())
	}
	return nil, decant.Errorf(decant.Corrupt, "the export is cut short after %d entries: %w", len(entries), errors.Join(lines.Err(), io.ErrUnexpectedEOF))
}

func addLine(sum hash.Hash, line []byte) {
	sum.Write(line)
	sum.Write([]byte("\n"))
}

func hexSum(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)) }
