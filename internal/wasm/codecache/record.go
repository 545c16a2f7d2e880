package codecache

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/decant-project/decant"
)

// record says what became of a module: it has code or a failure.
type record struct {
	Version string        `json:"version"`
	Limits  Limits        `json:"limits"` // that the compiler had
	Code    *code         `json:"code,omitempty"`
	Failure *decant.Error `json:"failure,omitempty"`
}

// code is a file of machine code.
type code struct {
	Path   string `json:"path"` // below the folder of the cache
	Size   int64  `json:"size"` // bytes
	SHA256 string `json:"sha256"`
}

// maxRecord is more bytes than a record has.
const maxRecord = 8 << 10

var errRecord = errors.New("this is no record of a compiled module")

// parseRecord reads a record. Its path leads nowhere but to a file of wazero's.
func parseRecord(data []byte) (record, error) {
	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		return record{}, err
	}
	hasCode := r.Code != nil && r.Failure == nil && isCode(r.Code.Path)
	hasFailure := r.Code == nil && r.Failure != nil && r.Failure.Code == decant.Invalid
	if !hasCode && !hasFailure {
		return record{}, errRecord
	}
	return r, nil
}

// isCode reports whether path is where wazero keeps code: a folder of its version
// and machine, a file named by a digest.
func isCode(path string) bool {
	dir, file := filepath.Split(path)
	name, found := strings.CutPrefix(dir, codePrefix)
	name = strings.TrimSuffix(name, string(filepath.Separator))
	_, ok := parseDigest(file)
	return found && ok && name != "" && !strings.ContainsAny(name, `/\`)
}

// parseDigest reads a digest as it is written in names of files.
func parseDigest(name string) (d digest, ok bool) {
	b, err := hex.DecodeString(name)
	if err != nil || len(b) != len(d) || hex.EncodeToString(b) != name {
		return d, false
	}
	return digest(b), true
}

// usable reports whether a record holds for what c compiles now.
func (r record) usable(c Config) bool {
	return r.Version == c.Version && (r.Failure == nil || r.Limits == c.Limits)
}

// err returns the failure, if it is one.
func (r record) err() error {
	if r.Failure == nil {
		return nil
	}
	return r.Failure
}

// readRecord reads a record of a file that is its owner's alone.
func readRecord(path string) (record, error) {
	if err := checkFile(path); err != nil {
		return record{}, err
	}
	f, err := os.Open(path)
	if err != nil {
		return record{}, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxRecord))
	if err != nil {
		return record{}, err
	}
	return parseRecord(data)
}

// measure returns what a file of code is; path is below dir. The file and its
// folder are their owner's alone.
func measure(dir, path string) (code, error) {
	full := filepath.Join(dir, path)
	if err := errors.Join(checkFolder(filepath.Dir(full)), checkFile(full)); err != nil {
		return code{}, err
	}
	f, err := os.Open(full)
	if err != nil {
		return code{}, err
	}
	defer f.Close()
	sum := sha256.New()
	size, err := io.Copy(sum, f)
	return code{Path: path, Size: size, SHA256: hex.EncodeToString(sum.Sum(nil))}, err
}

// verify looks whether code is what it was when it was kept.
func (want code) verify(dir string) error {
	got, err := measure(dir, want.Path)
	if err == nil && got != want {
		err = fmt.Errorf("%s has changed", want.Path)
	}
	return err
}
