// Package identity is who a machine is and whom it trusts. A device is its
// key: its ID is derived from it. A site is its authority (CA): it gives those
// that joined a certificate for a day, renewed long before it ends. A join code
// carries a pin of the authority and a secret, so a device knows its site, and
// the site the device, before either has seen the other.
//
// Standard library only.
package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base32"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/durable"
)

// lower32 is base32 (RFC 4648) in lower case, without padding: fit for names.
var lower32 = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// DeviceID derives a device's ID from its public key: "d" and 24 characters,
// 120 bits of the SHA-256 of the key's SubjectPublicKeyInfo.
func DeviceID(pub crypto.PublicKey) (string, error) {
	spki, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return "", decant.Errorf(decant.Invalid, "cannot derive a device ID: %w", err)
	}
	sum := sha256.Sum256(spki)
	return "d" + lower32.EncodeToString(sum[:15]), nil
}

// OpenKey reads the ECDSA P-256 key in file, or makes one at the first start.
// Corrupt: what is in file is no such key.
func OpenKey(file string) (*ecdsa.PrivateKey, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return newKey(file)
	}
	if err != nil {
		return nil, decant.Errorf(decant.Internal, "cannot read the key: %w", err)
	}
	key, ok := parseKey(data)
	if !ok {
		return nil, damaged(file).WithHelp("restore it from a backup, or remove its folder to begin as somebody new")
	}
	return key, nil
}

func parseKey(data []byte) (*ecdsa.PrivateKey, bool) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, false
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	ec, ok := key.(*ecdsa.PrivateKey)
	return ec, err == nil && ok && ec.Curve == elliptic.P256()
}

func newKey(file string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, durable.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func damaged(file string) *decant.Error {
	return decant.Errorf(decant.Corrupt, "%s is damaged", file)
}
