package identity

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/problem"
)

// site is an orchestrator as far as joining goes.
type site struct {
	*Authority
	self    *Member
	address string

	mu    sync.Mutex
	codes map[string]CodeRecord
	lost  int // answers to lose, once the code is used
}

func newSite(t *testing.T, name string) *site {
	t.Helper()
	a := newTestAuthority(t, name)
	s := &site{Authority: a, self: newTestMember(t, a, RoleOrchestrator), codes: map[string]CodeRecord{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+JoinPath, s.join)
	mux.HandleFunc("GET /v1/who", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, PeerFrom(r.Context()).ID)
	})
	open := func(r *http.Request) bool { return r.Method+" "+r.URL.Path == "POST "+JoinPath }
	s.address = serve(t, s.self.ServerTLS(), RequireSite(s.self.PeerOf, open, mux))
	return s
}

func serve(t *testing.T, config *tls.Config, h http.Handler) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: h, TLSConfig: config, ErrorLog: log.New(io.Discard, "", 0)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.ServeTLS(l, "", "")
	}()
	t.Cleanup(func() {
		server.Close()
		<-done
	})
	return l.Addr().String()
}

func (s *site) join(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var req JoinRequest
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		problem.Write(w, decant.Errorf(decant.Invalid, "cannot read the request: %w", err))
		return
	}
	record, ok := s.codes[req.Code]
	if !ok {
		problem.Write(w, WrongCode())
		return
	}
	device, err := VerifyJoin(record, req, r.TLS)
	if err != nil {
		problem.Write(w, err)
		return
	}
	s.codes[req.Code] = record.UsedBy(device)
	if s.lost > 0 {
		s.lost--
		panic(http.ErrAbortHandler)
	}
	cred, err := s.IssueFor(req.CSR)
	if err != nil {
		problem.Write(w, err)
		return
	}
	_ = json.NewEncoder(w).Encode(cred)
}

// give makes a code and lets change alter what the site keeps of it.
func (s *site) give(device string, change func(*CodeRecord)) Code {
	code := NewCode(s.Pin())
	record := code.Record(device)
	if change != nil {
		change(&record)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.codes[record.ID] = record
	return code
}

func TestJoin(t *testing.T) {
	hall := newSite(t, "hall")
	key := newTestKey(t)
	cred, err := Join(t.Context(), hall.give("", nil), []string{hall.address}, key)
	if err != nil {
		t.Fatal(err)
	}
	m, err := NewMember("", key, cred)
	if err != nil || m.Site() != "hall" || m.ID() != idOf(t, key.Public()) {
		t.Fatalf("member %+v, %v", m, err)
	}
	if who, err := get(t, m.ToOrchestrator(), hall.address); err != nil || who != m.ID() {
		t.Errorf("the site knows it as %q, %v", who, err)
	}
}

func get(t *testing.T, config *tls.Config, address string) (string, error) {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: config}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Get("https://" + address + "/v1/who")
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if err := problem.Read(resp); err != nil {
		return "", err
	}
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

func TestJoinRefused(t *testing.T) {
	hall, cellar := newSite(t, "hall"), newSite(t, "cellar")
	key := newTestKey(t)
	other := idOf(t, newTestKey(t).Public())
	wrongSecret := hall.give("", nil)
	wrongSecret.secret[0] ^= 1
	forged := hall.give("", func(r *CodeRecord) { r.Key = []byte("another") })
	for _, tt := range []struct {
		name      string
		code      Code
		addresses []string
		want      decant.Code
		says      string
	}{
		{"never given out", NewCode(hall.Pin()), []string{hall.address}, decant.Denied, "not one of this site"},
		{"mistyped", wrongSecret, []string{hall.address}, decant.Denied, "not one of this site"},
		{"only its ID is known", forged, []string{hall.address}, decant.Denied, "not one of this site"},
		{"used", hall.give("", func(r *CodeRecord) { *r = r.UsedBy(other) }), []string{hall.address}, decant.Denied, "used before"},
		{
			"expired", hall.give("", func(r *CodeRecord) { r.Expires = time.Now().Add(-time.Second) }),
			[]string{hall.address},
			decant.Denied, "expired at",
		},
		{"for another", hall.give(other, nil), []string{hall.address}, decant.Denied, "for another device"},
		{"another site answers", hall.give("", nil), []string{cellar.address}, decant.Denied, "another site"},
		{"nobody answers", hall.give("", nil), []string{"127.0.0.1:1"}, decant.Unavailable, "127.0.0.1:1"},
		{"another site or nobody", hall.give("", nil), []string{"127.0.0.1:1", cellar.address}, decant.Unavailable, "127.0.0.1:1"},
		{"nobody in sight", hall.give("", nil), nil, decant.Unavailable, "in sight"},
		{"no address", hall.give("", nil), []string{"nonsense"}, decant.Unavailable, "nonsense"},
		{"ours says no first", NewCode(hall.Pin()), []string{hall.address, "127.0.0.1:1"}, decant.Denied, "not one of this site"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cred, err := Join(t.Context(), tt.code, tt.addresses, key)
			if decant.CodeOf(err) != tt.want && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want %s with %q", err, tt.want, tt.says)
			}
			if cred != (Credential{}) {
				t.Errorf("got a credential: %+v", cred)
			}
			if tt.want == decant.Denied && strings.Contains(err.Error(), "join code") && tt.name != "another site answers" && !strings.Contains(err.Error(), "decant join-code") {
				t.Errorf("%v: does not say what to do", err)
			}
		})
	}
}

// TestJoinPassesImpostors holds that another's answer at one address does not
// keep a device from its site at the next.
func TestJoinPassesImpostors(t *testing.T) {
	hall, impostor := newSite(t, "hall"), newSite(t, "hall")
	stranger, err := StrangerServerTLS(newTestKey(t))
	if err != nil {
		t.Fatal(err)
	}
	noTLS, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer noTLS.Close()
	go func() {
		for {
			conn, err := noTLS.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte("220 hello\r\n"))
			conn.Close()
		}
	}()
	addresses := []string{"127.0.0.1:1", noTLS.Addr().String(), serve(t, stranger, http.NotFoundHandler()), impostor.address, hall.address}
	if _, err := Join(t.Context(), hall.give("", nil), addresses, newTestKey(t)); err != nil {
		t.Error(err)
	}
}

// TestJoinAgain holds that a device whose answer was lost may ask again with
// the same code, and nobody else.
func TestJoinAgain(t *testing.T) {
	hall := newSite(t, "hall")
	hall.lost = 1
	code, key := hall.give("", nil), newTestKey(t)
	if _, err := Join(t.Context(), code, []string{hall.address}, key); !errors.Is(err, decant.Unavailable) {
		t.Fatalf("lost answer: %v", err)
	}
	if _, err := Join(t.Context(), code, []string{hall.address}, key); err != nil {
		t.Errorf("again: %v", err)
	}
	if _, err := Join(t.Context(), code, []string{hall.address}, newTestKey(t)); !errors.Is(err, decant.Denied) {
		t.Errorf("another device: %v", err)
	}
}

// TestJoinProofIsBound sends a request that was made for one connection over
// another, as one in the middle would.
func TestJoinProofIsBound(t *testing.T) {
	hall := newSite(t, "hall")
	code, key := hall.give("", nil), newTestKey(t)
	config, err := pinnedTLS(hall.Pin(), key)
	if err != nil {
		t.Fatal(err)
	}
	dial := func() *tls.Conn {
		conn, err := tls.Dial("tcp", hall.address, config)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	mine, theirs := dial(), dial()
	req := JoinRequest{Code: code.ID()}
	if req.CSR, err = newCSR(key); err != nil {
		t.Fatal(err)
	}
	state := mine.ConnectionState()
	if req.Proof, err = proof(code.derive("mac"), &state, req.CSR); err != nil {
		t.Fatal(err)
	}
	send := func(conn *tls.Conn) error {
		resp, err := post(conn, JoinPath, req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return problem.Read(resp)
	}
	if err := send(theirs); !errors.Is(err, decant.Denied) {
		t.Errorf("over another connection: %v", err)
	}
	if err := send(mine); err != nil {
		t.Errorf("over its own: %v", err)
	}
}

// TestJoinBounds holds that an orchestrator that never answers, or without end,
// or with another's certificate, does no harm.
func TestJoinBounds(t *testing.T) {
	hall := newTestAuthority(t, "hall")
	orch := newTestMember(t, hall, RoleOrchestrator)
	key := newTestKey(t)
	stop := make(chan struct{})
	t.Cleanup(func() { close(stop) })
	asked := make(chan struct{})
	for _, tt := range []struct {
		name   string
		answer http.HandlerFunc
		want   decant.Code
	}{
		{"without end", func(w http.ResponseWriter, r *http.Request) {
			_, err := io.WriteString(w, `{"site":"`)
			for err == nil {
				_, err = w.Write(bytes.Repeat([]byte("x"), 4096))
			}
		}, decant.Unavailable},
		{"a header without end", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Long", strings.Repeat("x", maxAnswer))
		}, decant.Unavailable},
		{"for another device", func(w http.ResponseWriter, r *http.Request) {
			other := newTestKey(t)
			cred, _ := hall.Issue(RoleDevice, idOf(t, other.Public()), other.Public())
			_ = json.NewEncoder(w).Encode(cred)
		}, decant.Denied},
		{"of another site", func(w http.ResponseWriter, r *http.Request) {
			cred, _ := newTestAuthority(t, "hall").Issue(RoleDevice, idOf(t, key.Public()), key.Public())
			_ = json.NewEncoder(w).Encode(cred)
		}, decant.Denied},
		{"never", func(w http.ResponseWriter, r *http.Request) {
			close(asked)
			<-stop
		}, decant.Unavailable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			address := serve(t, orch.ServerTLS(), tt.answer)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			done := make(chan error, 1)
			go func() {
				_, err := Join(ctx, NewCode(hall.Pin()), []string{address}, key)
				done <- err
			}()
			if tt.name == "never" {
				<-asked
				cancel()
			}
			if err := <-done; decant.CodeOf(err) != tt.want {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestVerifyJoinNeedsTLS(t *testing.T) {
	csr, err := newCSR(newTestKey(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, state := range []*tls.ConnectionState{nil, {}} {
		if _, err := VerifyJoin(CodeRecord{}, JoinRequest{CSR: csr}, state); !errors.Is(err, decant.Invalid) {
			t.Errorf("got %v", err)
		}
	}
}

func TestRequireSite(t *testing.T) {
	hall := newSite(t, "hall")
	stranger, member := newTestKey(t), newTestMember(t, hall.Authority, RoleDevice)
	if _, err := get(t, member.ToOrchestrator(), hall.address); err != nil {
		t.Errorf("a member: %v", err)
	}
	config, err := pinnedTLS(hall.Pin(), stranger)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := get(t, config, hall.address); !errors.Is(err, decant.Denied) || !strings.Contains(err.Error(), idOf(t, stranger.Public())) {
		t.Errorf("a stranger: %v", err)
	}
	w := httptest.NewRecorder()
	RequireSite(hall.self.PeerOf, func(*http.Request) bool { return false }, http.NotFoundHandler()).
		ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	if w.Code != http.StatusForbidden {
		t.Errorf("without TLS: %d", w.Code)
	}
	if got := PeerFrom(t.Context()); got != (Peer{}) {
		t.Errorf("peer of no request: %+v", got)
	}
}

// TestConnectionsEndBeforeCertificates holds that a kept-alive connection is
// closed while its certificate still counts, so that no request is refused.
func TestConnectionsEndBeforeCertificates(t *testing.T) {
	hall := newTestAuthority(t, "hall")
	orch, key := newTestMember(t, hall, RoleOrchestrator), newTestKey(t)
	for _, tt := range []struct {
		left      time.Duration
		code      int
		connClose bool
	}{
		{23 * time.Hour, http.StatusOK, false},
		{7 * time.Hour, http.StatusOK, false},
		{5 * time.Hour, http.StatusOK, true},
		{-time.Minute, http.StatusForbidden, true},
	} {
		leaf := oddCertificate(t, hall, key.Public(), func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(tt.left-24*time.Hour), time.Now().Add(tt.left)
		})
		r := httptest.NewRequest("GET", "/", nil)
		r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}}
		w := httptest.NewRecorder()
		RequireSite(orch.PeerOf, func(*http.Request) bool { return false },
			http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(w, r)
		if w.Code != tt.code || (w.Header().Get("Connection") == "close") != tt.connClose {
			t.Errorf("%v left: %d, connection %q", tt.left, w.Code, w.Header().Get("Connection"))
		}
	}
}

func TestCodeRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var c Code
		copy(c.Pin[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "pin"))
		copy(c.secret[:], rapid.SliceOfN(rapid.Byte(), 10, 10).Draw(t, "secret"))
		text := c.String()
		if len(text) != 47 {
			t.Fatalf("%q has %d characters", text, len(text))
		}
		for _, as := range []string{text, strings.ToUpper(text), strings.ReplaceAll(text, "-", ""), " " + text + "\n"} {
			if got, err := ParseCode(as); err != nil || got != c {
				t.Fatalf("%q: %v", as, err)
			}
		}
	})
}

func TestParseCodeTypos(t *testing.T) {
	good := Code{Pin: Pin{1, 2, 3}, secret: [secretLen]byte{4, 5, 6}}.String()
	for name, text := range map[string]string{
		"empty": "", "words": "please let me in", "cut": good[:40], "too long": good + "a",
		"digit that is none": strings.Replace(good, "a", "1", 1), "another alphabet": strings.Replace(good, "a", "ä", 1),
		"a wrong character": "z" + good[1:], "two swapped": good[1:2] + good[:1] + good[2:],
		"spare bits": good[:46] + "z", "huge": strings.Repeat("a", 1<<20),
	} {
		if _, err := ParseCode(text); !errors.Is(err, decant.Invalid) || !strings.Contains(err.Error(), "not a join code") || len(err.Error()) > 200 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRecordKeepsTheSecret holds that what the site stores is not enough to
// write the code again, and that the ID gives nothing of it.
func TestRecordKeepsTheSecret(t *testing.T) {
	code := NewCode(Pin{})
	data, err := json.Marshal(code.Record(""))
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{base64.StdEncoding.EncodeToString(code.secret[:]), lower32.EncodeToString(code.secret[:])} {
		if strings.Contains(string(data), secret) {
			t.Errorf("%s holds the secret", data)
		}
	}
	var record CodeRecord
	if err := json.Unmarshal(data, &record); err != nil || record.ID != code.ID() || time.Until(record.Expires) > CodeLife {
		t.Errorf("%+v, %v", record, err)
	}
	if NewCode(Pin{}).ID() == code.ID() {
		t.Error("two codes have one ID")
	}
}

func FuzzParseCode(f *testing.F) {
	f.Add(Code{}.String())
	f.Add("not a code")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseCode(text)
		if err != nil {
			return
		}
		plain := strings.ToLower(strings.ReplaceAll(strings.TrimSpace(text), "-", ""))
		if again := strings.ReplaceAll(c.String(), "-", ""); again != plain {
			t.Errorf("%q was read as %q", text, again)
		}
	})
}

func FuzzJoinRequest(f *testing.F) {
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	csr, _ := newCSR(key)
	code := NewCode(Pin{})
	state := fuzzState(f)
	mac, _ := proof(code.derive("mac"), state, csr)
	good, _ := json.Marshal(JoinRequest{Code: code.ID(), CSR: csr, Proof: mac})
	f.Add(good)
	f.Add([]byte(`{"code":"x","csr":"MA==","proof":""}`))
	record := code.Record("")
	f.Fuzz(func(t *testing.T, data []byte) {
		var req JoinRequest
		if json.Unmarshal(data, &req) != nil {
			return
		}
		if device, err := VerifyJoin(record, req, state); err == nil && (!bytes.Equal(req.CSR, csr) || device != idOf(t, key.Public())) {
			t.Errorf("%s joined as %s", data, device)
		}
	})
}

// fuzzState makes the state of a connection that a proof can be bound to.
func fuzzState(f *testing.F) *tls.ConnectionState {
	f.Helper()
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	config, err := StrangerServerTLS(key)
	if err != nil {
		f.Fatal(err)
	}
	c, s := net.Pipe()
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = tls.Server(s, config).Handshake()
	}()
	conn := tls.Client(c, config)
	if err := conn.Handshake(); err != nil {
		f.Fatal(err)
	}
	<-served
	c.Close()
	s.Close()
	state := conn.ConnectionState()
	return &state
}

func FuzzCredential(f *testing.F) {
	a, err := OpenAuthority(f.TempDir(), "hall")
	if err != nil {
		f.Fatal(err)
	}
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	cred, err := a.Issue(RoleDevice, idOf(f, key.Public()), key.Public())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(cred.Certificate, cred.Authority)
	f.Add(cred.Authority, cred.Certificate)
	f.Fuzz(func(t *testing.T, certificate, authority string) {
		m, err := newMember(key, Credential{Certificate: certificate, Authority: authority})
		if err == nil && !m.leaf.PublicKey.(*ecdsa.PublicKey).Equal(key.Public()) {
			t.Error("took a certificate of another key")
		}
	})
}
