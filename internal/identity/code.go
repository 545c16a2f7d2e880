package identity

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"github.com/decant-project/decant"
)

// CodeLife is how long a join code is good.
const CodeLife = 15 * time.Minute

// secretLen is the length of a code's secret: 80 bits that live for minutes
// and are tried over a network.
const secretLen = 10

// Code is a join code: the pin of a site's authority, by which a device knows
// the site, and a secret, by which the site knows the device.
type Code struct {
	Pin    Pin
	secret [secretLen]byte
}

// NewCode makes a code for the authority with this pin.
func NewCode(pin Pin) Code {
	c := Code{Pin: pin}
	_, _ = rand.Read(c.secret[:]) // never fails
	return c
}

// A code as text is the pin, the secret and a check byte: 27 bytes, that is 44
// characters of base32, in four groups.
const (
	codeBytes = len(Pin{}) + secretLen + 1
	codeChars = 44
)

// String returns the code as people pass it on: 47 characters.
func (c Code) String() string {
	raw := slices.Concat(c.Pin[:], c.secret[:])
	text := lower32.EncodeToString(append(raw, checkByte(raw)))
	return strings.Join([]string{text[:11], text[11:22], text[22:33], text[33:]}, "-")
}

// ParseCode reads a code, with its dashes or without, in either case. Invalid:
// it was not passed on whole.
func ParseCode(text string) (Code, error) {
	plain := strings.ToLower(strings.ReplaceAll(strings.TrimSpace(text), "-", ""))
	raw, err := lower32.DecodeString(plain)
	if err != nil || len(plain) != codeChars || lower32.EncodeToString(raw) != plain {
		return Code{}, decant.Errorf(decant.Invalid, "this is not a join code").
			WithHelp("a join code is %d letters and digits in four groups; make one with: decant join-code", codeChars)
	}
	body, check := raw[:codeBytes-1], raw[codeBytes-1]
	if check != checkByte(body) {
		return Code{}, decant.Errorf(decant.Invalid, "this is not a join code: a letter or digit is wrong").
			WithHelp("compare it with what decant join-code wrote")
	}
	return Code{Pin: Pin(body[:16]), secret: [secretLen]byte(body[16:])}, nil
}

// checkByte finds all but one in 256 typing errors.
func checkByte(raw []byte) byte {
	sum := sha256.Sum256(raw)
	return sum[0]
}

// derive makes a key of the secret for one purpose.
func (c Code) derive(purpose string) []byte {
	mac := hmac.New(sha256.New, c.secret[:])
	mac.Write([]byte("decant join " + purpose))
	return mac.Sum(nil)
}

// ID names the code without giving it away.
func (c Code) ID() string { return hex.EncodeToString(c.derive("id")[:8]) }

// CodeRecord is what the site keeps of a code it gave out.
type CodeRecord struct {
	ID      string    `json:"id"`
	Key     []byte    `json:"key"` // checks the device's proof; who has it can make one, so the state is its owner's alone
	Expires time.Time `json:"expires"`
	Device  string    `json:"device,omitempty"` // the only one it is good for
	Used    bool      `json:"used,omitempty"`
}

// UsedBy returns what to keep once the code was used. That device may use it
// again until it expires: the answer to its first try may have been lost.
func (r CodeRecord) UsedBy(device string) CodeRecord {
	r.Used, r.Device = true, device
	return r
}

// Record returns what to keep of the code. With a device it is good for that
// one only.
func (c Code) Record(device string) CodeRecord {
	return CodeRecord{ID: c.ID(), Key: c.derive("mac"), Expires: time.Now().Add(CodeLife).UTC(), Device: device}
}
