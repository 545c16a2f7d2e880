package identity

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/problem"
)

// JoinPath is where an orchestrator answers a JoinRequest with a Credential.
const JoinPath = "/v1/join"

// JoinRequest asks for a certificate. Its proof binds the request to a code's
// secret and to this very connection: who only relays it gains nothing.
type JoinRequest struct {
	Code  string `json:"code" maxLength:"64" doc:"ID of the join code"`
	CSR   []byte `json:"csr" doc:"Certificate request, DER"`
	Proof []byte `json:"proof" doc:"HMAC-SHA-256 over the TLS exporter and the request"`
}

// exporterLabel separates our keying material from others' (RFC 8446, 7.5).
const exporterLabel = "EXPORTER-decant-join"

func proof(key []byte, state *tls.ConnectionState, csr []byte) ([]byte, error) {
	if state == nil || !state.HandshakeComplete {
		return nil, decant.Errorf(decant.Invalid, "cannot join without TLS")
	}
	bound, err := state.ExportKeyingMaterial(exporterLabel, nil, sha256.Size)
	if err != nil {
		return nil, decant.Errorf(decant.Internal, "cannot bind to the connection: %w", err)
	}
	mac := hmac.New(sha256.New, key)
	mac.Write(bound)
	mac.Write(csr)
	return mac.Sum(nil), nil
}

// VerifyJoin checks a request against the record of its code and returns the
// ID of the device that asks. Denied says what is wrong with the code. The
// caller stores record.UsedBy(device), with a compare-and-swap, before it
// issues.
func VerifyJoin(record CodeRecord, req JoinRequest, state *tls.ConnectionState) (device string, err error) {
	_, device, err = checkCSR(req.CSR)
	if err != nil {
		return "", err
	}
	want, err := proof(record.Key, state, req.CSR)
	if err != nil {
		return "", err
	}
	denied := func(format string, args ...any) error {
		return decant.Errorf(decant.Denied, format, args...).WithHelp("make a new one with: decant join-code")
	}
	switch {
	case record.ID != req.Code || !hmac.Equal(want, req.Proof):
		return "", WrongCode()
	case time.Now().After(record.Expires):
		return "", denied("the join code expired at %s", record.Expires.UTC().Format(time.DateTime+" MST"))
	case record.Used && record.Device != device:
		return "", denied("the join code was used before: it is good for one device")
	case record.Device != "" && record.Device != device:
		return "", denied("the join code is for another device")
	}
	return device, nil
}

// WrongCode is the error for a code that nobody gave out, or long ago.
func WrongCode() error {
	return decant.Errorf(decant.Denied, "the join code is not one of this site, or expired long ago").
		WithHelp("make a new one with: decant join-code")
}

// Bounds of one attempt to join, at one address.
const (
	joinTimeout = 10 * time.Second
	maxAnswer   = 64 << 10 // bytes
)

// Join asks the orchestrators at addresses (host:port), in order, for a
// certificate. Denied: the code is no good, or at each address another site
// answers; trying again is no use. Unavailable: one could not be asked, and
// none of the others is of the code's site.
func Join(ctx context.Context, code Code, addresses []string, key *ecdsa.PrivateKey) (Credential, error) {
	config, err := pinnedTLS(code.Pin, key)
	if err != nil {
		return Credential{}, err
	}
	var failed error
	for _, address := range addresses {
		cred, err := joinAt(ctx, config, code, address, key)
		if err == nil {
			return cred, nil
		}
		if failed == nil || errors.Is(err, decant.Unavailable) {
			failed = err
		}
		// Anybody may answer at an address; only our own site's no is final.
		if _, ours := errors.AsType[refusal](err); ours && errors.Is(err, decant.Denied) {
			return Credential{}, err
		}
		if ctx.Err() != nil {
			break
		}
	}
	if failed == nil {
		failed = decant.Errorf(decant.Unavailable, "cannot join: no orchestrator is in sight")
	}
	return Credential{}, failed
}

// refusal is an error that an orchestrator of the code's site answered with.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

func joinAt(ctx context.Context, config *tls.Config, code Code, address string, key *ecdsa.PrivateKey) (Credential, error) {
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", address)
	if err != nil {
		if errors.Is(err, decant.Denied) {
			return Credential{}, decant.Errorf(decant.Denied, "cannot join at %s: %w", address, err)
		}
		return Credential{}, decant.Errorf(decant.Unavailable, "cannot reach the orchestrator at %s: %w", address, err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })() // ends what blocks on it
	state := conn.(*tls.Conn).ConnectionState()
	req := JoinRequest{Code: code.ID()}
	if req.CSR, err = newCSR(key); err != nil {
		return Credential{}, err
	}
	if req.Proof, err = proof(code.derive("mac"), &state, req.CSR); err != nil {
		return Credential{}, err
	}
	resp, err := post(conn, JoinPath, req)
	if err != nil {
		return Credential{}, decant.Errorf(decant.Unavailable, "the orchestrator at %s did not answer: %w", address, err)
	}
	defer resp.Body.Close()
	if err := problem.Read(resp); err != nil {
		return Credential{}, refusal{err}
	}
	var cred Credential
	if err := json.NewDecoder(resp.Body).Decode(&cred); err != nil {
		return Credential{}, decant.Errorf(decant.Unavailable, "cannot read the answer of the orchestrator at %s: %w", address, err)
	}
	return cred, checkCredential(cred, code.Pin, key)
}

// checkCredential refuses an answer that is not ours or not of the pinned site.
func checkCredential(cred Credential, pin Pin, key *ecdsa.PrivateKey) error {
	m, err := newMember(key, cred)
	if err != nil {
		return err
	}
	if m.Pin() != pin {
		return decant.Errorf(decant.Denied, "the answer to the join request is of another site")
	}
	return nil
}

// post sends v over conn, which the proof is bound to: a client with a pool of
// connections might take another.
func post(conn net.Conn, path string, v any) (*http.Response, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequest(http.MethodPost, "https://orchestrator"+path, bytes.NewReader(body)) //nolint:noctx // conn has it
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Close = true
	if err := req.Write(conn); err != nil {
		return nil, err
	}
	return http.ReadResponse(bufio.NewReader(io.LimitReader(conn, maxAnswer)), req)
}
