// Package decant holds the words of decant: devices, packages, applications,
// placements, instances and events, how each is validated, and the codes of
// errors. Every other package speaks in these words; this one depends on the
// standard library alone and does no input or output.
package decant

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Names are DNS labels, so that they fit in URLs, file names and mDNS alike.
var namePattern = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// CheckName returns an Invalid error unless name is 1 to 63 lower-case
// letters, digits and dashes, not starting or ending with a dash. what says
// whose name it is ("component", "package", ...).
func CheckName(what, name string) error {
	switch {
	case name == "true" || name == "false":
		return Errorf(Invalid, "%s name %q: YAML means that by y, yes, on, n, no and off too: quote the name, or choose another", what, name)
	case namePattern.MatchString(name):
		return nil
	case name == "":
		return Errorf(Invalid, "%s has no name", what)
	}
	return Errorf(Invalid, "%s name %.80q: use 1 to 63 lower-case letters, digits and dashes, with no dash at either end", what, name)
}

// Digest is the SHA-256 of some bytes, written "sha256:" and 64 hexadecimal
// digits, as in OCI.
type Digest string

// DigestOf returns the digest of b.
func DigestOf(b []byte) Digest {
	sum := sha256.Sum256(b)
	return NewDigest(sum[:])
}

// NewDigest makes a Digest of a SHA-256 sum of 32 bytes.
func NewDigest(sum []byte) Digest { return Digest("sha256:" + hex.EncodeToString(sum)) }

// Hex returns the 64 digits without the algorithm: fit for a file name.
func (d Digest) Hex() string { return strings.TrimPrefix(string(d), "sha256:") }

// Short returns the first 12 digits, for people.
func (d Digest) Short() string { return d.Hex()[:min(12, len(d.Hex()))] }

// Check returns an Invalid error unless d is well formed.
func (d Digest) Check() error {
	h, ok := strings.CutPrefix(string(d), "sha256:")
	if b, err := hex.DecodeString(h); !ok || err != nil || len(b) != sha256.Size || h != strings.ToLower(h) {
		return Errorf(Invalid, "digest %.80q: want sha256: and 64 lower-case hexadecimal digits", string(d))
	}
	return nil
}

// Bytes is a size. As text it is a number with a unit: 64MiB, 1GiB, 512.
type Bytes int64

// Units of Bytes.
const (
	KiB Bytes = 1 << 10
	MiB Bytes = 1 << 20
	GiB Bytes = 1 << 30
)

var byteUnits = []struct {
	name string
	size Bytes
}{{"GiB", GiB}, {"MiB", MiB}, {"KiB", KiB}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"B", 1}, {"", 1}}

// ParseBytes reads a size such as 64MiB, 1.5GB or 4096.
func ParseBytes(s string) (Bytes, error) {
	for _, u := range byteUnits {
		n, ok := strings.CutSuffix(s, u.name)
		if !ok {
			continue
		}
		f, err := strconv.ParseFloat(strings.TrimSpace(n), 64)
		if err != nil || f < 0 || f*float64(u.size) >= 1<<62 {
			break
		}
		return Bytes(f * float64(u.size)), nil
	}
	return 0, Errorf(Invalid, "size %q: write a number and a unit, such as 64MiB or 1GB", s)
}

// String returns b in the largest binary unit that keeps it above one.
func (b Bytes) String() string {
	for _, u := range byteUnits[:3] {
		if b >= u.size {
			return strconv.FormatFloat(float64(b)/float64(u.size), 'f', decimals(b, u.size), 64) + u.name
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

func decimals(b, unit Bytes) int {
	if b%unit == 0 {
		return 0
	}
	return 1
}

// MarshalJSON writes a plain number of bytes, which loses nothing.
func (b Bytes) MarshalJSON() ([]byte, error) { return json.Marshal(int64(b)) }

// UnmarshalJSON reads a number of bytes or a text with a unit.
func (b *Bytes) UnmarshalJSON(data []byte) error {
	var n int64
	if json.Unmarshal(data, &n) == nil && n >= 0 {
		*b = Bytes(n)
		return nil
	}
	var s string
	if json.Unmarshal(data, &s) != nil {
		s = string(data)
	}
	v, err := ParseBytes(s)
	*b = v
	return err
}

// Duration is a time.Duration that reads and writes as text: 200ms, 1s.
type Duration time.Duration

// ParseDuration reads a duration as Go writes it. It is never negative.
func ParseDuration(s string) (Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, Errorf(Invalid, "duration %q: write a number and a unit, such as 200ms or 10s", s)
	}
	return Duration(d), nil
}

func (d Duration) String() string { return time.Duration(d).String() }

// Or returns d, or fallback where d is zero.
func (d Duration) Or(fallback time.Duration) time.Duration {
	if d == 0 {
		return fallback
	}
	return time.Duration(d)
}

// MarshalText writes the text form.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads the text form.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := ParseDuration(string(text))
	*d = v
	return err
}
