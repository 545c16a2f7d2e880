package identity

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/durable"
)

// Lifetimes. A certificate begins an hour early, for clocks that are behind.
const (
	certificateLife = 24 * time.Hour
	clockSkew       = time.Hour
	authorityLife   = 20 * 365 * 24 * time.Hour
)

// Role is what a member of a site is.
type Role string

// The roles of members.
const (
	RoleDevice       Role = "device"
	RoleOrchestrator Role = "orchestrator"
)

// Authority is a site's CA.
type Authority struct {
	site string
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

// DefaultSite is a site's name where nobody gave it one.
const DefaultSite = "home"

// OpenAuthority reads the authority in dir, or makes one for site at the first
// start, for DefaultSite where that is "". Conflict: dir holds that of another
// site. Corrupt: it is damaged.
func OpenAuthority(dir, site string) (*Authority, error) {
	if site != "" {
		if err := decant.CheckName("site", site); err != nil {
			return nil, err
		}
	}
	keyFile, certFile := filepath.Join(dir, "ca.key"), filepath.Join(dir, "ca.pem")
	certText, err := os.ReadFile(certFile)
	if errors.Is(err, fs.ErrNotExist) {
		return newAuthority(keyFile, certFile, cmp.Or(site, DefaultSite))
	}
	keyText, keyErr := os.ReadFile(keyFile)
	if err := errors.Join(err, keyErr); err != nil {
		return nil, decant.Errorf(decant.Internal, "cannot read the authority of the site: %w", err)
	}
	key, ok := parseKey(keyText)
	cert, err := parseCertificate(certText)
	if err != nil || !ok || !key.PublicKey.Equal(cert.PublicKey) {
		return nil, decant.Errorf(decant.Corrupt, "the authority of the site in %s is damaged", dir).
			WithHelp("restore it from a backup: without it each device must join again")
	}
	if site != "" && cert.Subject.CommonName != site {
		return nil, decant.Errorf(decant.Conflict, "%s is of site %q, not %q", dir, cert.Subject.CommonName, site).
			WithHelp("start with --site %s, or with another --dir", cert.Subject.CommonName)
	}
	return &Authority{site: cert.Subject.CommonName, key: key, cert: cert}, nil
}

// newAuthority writes the certificate last: until then there is no authority.
func newAuthority(keyFile, certFile, site string) (*Authority, error) {
	key, err := OpenKey(keyFile)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          newSerial(),
		Subject:               pkix.Name{CommonName: site},
		NotBefore:             now.Add(-clockSkew),
		NotAfter:              now.Add(authorityLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	cert, err := sign(template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	if err := durable.WriteFile(certFile, encodeCertificates(cert)); err != nil {
		return nil, err
	}
	return &Authority{site: site, key: key, cert: cert}, nil
}

func sign(template, parent *x509.Certificate, key crypto.PublicKey, by *ecdsa.PrivateKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key, by)
	if err != nil {
		return nil, decant.Errorf(decant.Internal, "cannot make a certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}

// Site returns the site's name.
func (a *Authority) Site() string { return a.site }

// Pin returns what join codes begin with.
func (a *Authority) Pin() Pin { return pinOf(a.cert) }

// Issue makes a certificate for the key of a member. It carries both usages: a
// member serves and calls.
func (a *Authority) Issue(role Role, id string, key crypto.PublicKey) (Credential, error) {
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: newSerial(),
		Subject:      pkix.Name{CommonName: id},
		URIs:         []*url.URL{spiffeURI(a.site, role, id)},
		NotBefore:    now.Add(-clockSkew),
		NotAfter:     now.Add(certificateLife),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	cert, err := sign(template, a.cert, key, a.key)
	if err != nil {
		return Credential{}, err
	}
	return Credential{Site: a.site, Certificate: string(encodeCertificates(cert)), Authority: string(encodeCertificates(a.cert))}, nil
}

// IssueFor makes a certificate for a certificate request (DER) of a device,
// whose ID follows from its key. Invalid: it is not a request.
func (a *Authority) IssueFor(csr []byte) (Credential, error) {
	req, id, err := checkCSR(csr)
	if err != nil {
		return Credential{}, err
	}
	return a.Issue(RoleDevice, id, req.PublicKey)
}

// maxCSR bounds a certificate request, in bytes. Ours have about 200.
const maxCSR = 4 << 10

// Renew is IssueFor for the device id. Denied: the request is of another key.
func (a *Authority) Renew(id string, csr []byte) (Credential, error) {
	req, got, err := checkCSR(csr)
	if err != nil {
		return Credential{}, err
	}
	if got != id {
		return Credential{}, decant.Errorf(decant.Denied, "device %s asks for the certificate of another key", id)
	}
	return a.Issue(RoleDevice, id, req.PublicKey)
}

// checkCSR returns a certificate request whose signature holds, and its ID.
func checkCSR(csr []byte) (*x509.CertificateRequest, string, error) {
	if len(csr) > maxCSR {
		return nil, "", decant.Errorf(decant.Invalid, "the certificate request has %d bytes: %d at most", len(csr), maxCSR)
	}
	req, err := x509.ParseCertificateRequest(csr)
	if err == nil {
		err = req.CheckSignature()
	}
	if err != nil {
		return nil, "", decant.Errorf(decant.Invalid, "cannot read the certificate request: %w", err)
	}
	if key, ok := req.PublicKey.(*ecdsa.PublicKey); !ok || key.Curve != elliptic.P256() {
		return nil, "", decant.Errorf(decant.Invalid, "the certificate request has no ECDSA P-256 key")
	}
	id, err := DeviceID(req.PublicKey)
	return req, id, err
}

// newCSR makes a certificate request (DER). Who asks is told by the key alone.
func newCSR(key *ecdsa.PrivateKey) ([]byte, error) {
	return x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
}

// Pin is 128 bits of the SHA-256 of an authority's public key.
type Pin [16]byte

// String returns the pin as 32 hexadecimal digits.
func (p Pin) String() string { return hex.EncodeToString(p[:]) }

func pinOf(ca *x509.Certificate) Pin {
	sum := sha256.Sum256(ca.RawSubjectPublicKeyInfo)
	return Pin(sum[:16])
}

func newSerial() *big.Int {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	b[0] &= 0x7f
	return new(big.Int).SetBytes(b)
}

func encodeCertificates(certs ...*x509.Certificate) (out []byte) {
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return out
}

// parseCertificate reads the first certificate of PEM text.
func parseCertificate(data []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, decant.Errorf(decant.Invalid, "no certificate in PEM form")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, decant.Errorf(decant.Invalid, "cannot read a certificate: %w", err)
	}
	return cert, nil
}
