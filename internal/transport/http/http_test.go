package httptransport

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/transport"
	"github.com/decant-project/decant/internal/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	transporttest.Run(t, func(t testing.TB) transporttest.Net {
		s := newSite(t)
		return transporttest.Net{Caller: s.caller(t), Serve: s.serve}
	})
}

// site is a certificate authority with the keys of its devices.
type site struct {
	key  *ecdsa.PrivateKey
	ca   *x509.Certificate
	pool *x509.CertPool
}

func newSite(t testing.TB) *site {
	t.Helper()
	s := &site{pool: x509.NewCertPool()}
	template := &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	cert := s.issue(t, template)
	s.ca, s.key = cert.Leaf, cert.PrivateKey.(*ecdsa.PrivateKey)
	s.pool.AddCert(s.ca)
	return s
}

// issue signs a certificate, by its own key where the site has none yet.
func (s *site) issue(t testing.TB, template *x509.Certificate) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotAfter = time.Now().Add(time.Hour)
	parent, parentKey := s.ca, s.key
	if parent == nil {
		parent, parentKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func (s *site) device(t testing.TB, name string) tls.Certificate {
	return s.issue(t, &x509.Certificate{DNSNames: []string{name}, KeyUsage: x509.KeyUsageDigitalSignature})
}

func (s *site) clientTLS(t testing.TB) *tls.Config {
	return &tls.Config{
		RootCAs:            s.pool,
		Certificates:       []tls.Certificate{s.device(t, "caller")},
		MinVersion:         tls.VersionTLS13,
		ClientSessionCache: tls.NewLRUClientSessionCache(0),
	}
}

func (s *site) serverTLS(t testing.TB, device string) *tls.Config {
	return &tls.Config{
		Certificates: []tls.Certificate{s.device(t, device)},
		ClientCAs:    s.pool,
		ClientAuth:   tls.RequireAndVerifyClientCert,
		MinVersion:   tls.VersionTLS13,
		NextProtos:   []string{"h2", "http/1.1"},
	}
}

func (s *site) caller(t testing.TB) *Caller {
	cfg := s.clientTLS(t)
	c := NewCaller(func(string) *tls.Config { return cfg })
	t.Cleanup(c.Close)
	return c
}

// serve implements transporttest.Net.Serve.
func (s *site) serve(t testing.TB, device string, h transport.Handler) (addr string, stop func()) {
	return serveHTTP(t, s.serverTLS(t, device), Handler(h))
}

func serveHTTP(t testing.TB, cfg *tls.Config, h http.Handler) (addr string, stop func()) {
	t.Helper()
	return serveHTTPAt(t, "127.0.0.1:0", cfg, h)
}

func serveHTTPAt(t testing.TB, at string, cfg *tls.Config, h http.Handler) (addr string, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(Pattern, h)
	var conns sync.WaitGroup
	srv := &http.Server{
		Handler:   mux,
		TLSConfig: cfg,
		ErrorLog:  log.New(io.Discard, "", 0),
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				conns.Add(1)
			case http.StateClosed:
				conns.Done()
			}
		},
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.ServeTLS(l, "", "") }()
	return l.Addr().String(), func() {
		_ = srv.Close()
		<-done
		conns.Wait()
	}
}

func target(addr string) transport.Target {
	return transport.Target{Device: "board-1", Addresses: []string{addr}}
}

func request() *transport.Request {
	return &transport.Request{Application: "app", Component: "part", Body: []byte("x")}
}

// A peer that does not take our certificate has executed nothing, though in
// TLS 1.3 the request may be on its way when it says so.
func TestOurCertificateRefused(t *testing.T) {
	ours, theirs := newSite(t), newSite(t)
	addr, stop := ours.serve(t, "board-1", transporttest.Echo)
	defer stop()
	cfg := theirs.clientTLS(t)
	cfg.RootCAs = ours.pool
	c := NewCaller(func(string) *tls.Config { return cfg })
	defer c.Close()
	for range 20 {
		_, err := c.Call(t.Context(), target(addr), request())
		if !errors.Is(err, decant.Unavailable) {
			t.Errorf("got %v (%s)", err, decant.CodeOf(err))
		}
	}
}

// tlsFor may check the peer by itself.
func TestOwnVerification(t *testing.T) {
	s := newSite(t)
	addr, stop := s.serve(t, "board-1", transporttest.Echo)
	defer stop()
	cfg := s.clientTLS(t)
	cfg.InsecureSkipVerify = true
	cfg.VerifyConnection = func(tls.ConnectionState) error { return decant.Errorf(decant.Denied, "not board-1") }
	c := NewCaller(func(string) *tls.Config { return cfg })
	defer c.Close()
	if _, err := c.Call(t.Context(), target(addr), request()); !errors.Is(err, decant.Denied) {
		t.Errorf("got %v", err)
	}
}

// What answers may not be a transport at all.
func TestForeignServers(t *testing.T) {
	s := newSite(t)
	tests := []struct {
		name   string
		answer string // raw, after a request's header and body
		code   decant.Code
	}{
		{"hangs up", "", decant.Internal},
		{"not HTTP", "SSH-2.0-x\r\n\r\n", decant.Internal},
		{"half an answer", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", decant.Internal},
		{"endless header", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 1<<20), decant.Internal},
		{"promises too much", "HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n", decant.Exhausted},
		{"page", "HTTP/1.1 503 Busy\r\nContent-Type: text/html\r\nContent-Length: 0\r\n\r\n", decant.Unavailable},
		{"early hints", "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", ""},
		{"only hints", strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 100), decant.Internal},
		{"until it closes", "HTTP/1.0 200 OK\r\n\r\nhi", ""},
		{"more than asked", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\n\r\n", ""},
		{"elsewhere", "HTTP/1.1 307 Elsewhere\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", decant.Internal},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			addr, stop := serveRaw(t, s, tt.answer)
			defer stop()
			c := s.caller(t)
			resp, err := c.Call(t.Context(), target(addr), request())
			if decant.CodeOf(err) != tt.code || err == nil && string(resp.Body) != "hi" {
				t.Errorf("got %v (%s), want %s", err, decant.CodeOf(err), tt.code)
			}
			if tt.name != "early hints" && tt.name != "page" && tt.name != "elsewhere" && len(c.idle["board-1"]) > 0 {
				t.Error("the connection was kept")
			}
		})
	}
}

// serveRaw answers the first request with answer and hangs up.
func serveRaw(t *testing.T, s *site, answer string) (addr string, stop func()) {
	l, err := tls.Listen("tcp", "127.0.0.1:0", func() *tls.Config {
		cfg := s.serverTLS(t, "board-1")
		cfg.NextProtos = []string{"http/1.1"}
		return cfg
	}())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		var got []byte
		for b := make([]byte, 4096); !bytes.HasSuffix(got, []byte("\r\n\r\nx")); {
			n, err := conn.Read(b)
			if got = append(got, b[:n]...); err != nil {
				return
			}
		}
		_, _ = io.WriteString(conn, answer)
	}()
	return l.Addr().String(), func() { _ = l.Close(); <-done }
}

// One connection serves calls one after the other, whatever they end with.
func TestConnectionsAreKept(t *testing.T) {
	s := newSite(t)
	var conns atomic.Int64
	cfg := s.serverTLS(t, "board-1")
	cfg.VerifyConnection = func(tls.ConnectionState) error { conns.Add(1); return nil }
	addr, stop := serveHTTP(t, cfg, Handler(transporttest.HandlerFunc(func(_ context.Context, req *transport.Request) (*transport.Response, error) {
		if req.Function == "fail" {
			return nil, decant.Errorf(decant.NotFound, "no")
		}
		return &transport.Response{Body: req.Body}, nil
	})))
	defer stop()
	c := s.caller(t)
	for i, body := range [][]byte{nil, []byte("x"), make([]byte, 3<<20), nil} {
		for _, function := range []string{"", "fail"} {
			req := request()
			req.Function, req.Body = function, body
			if _, err := c.Call(t.Context(), target(addr), req); (err != nil) != (function == "fail") {
				t.Errorf("%d: %v", i, err)
			}
		}
	}
	if conns.Load() != 1 {
		t.Errorf("%d connections", conns.Load())
	}

	kept := c.idle["board-1"][0]
	c.drop("board-1", kept) // as its timer does
	if len(c.idle) != 0 || kept.alive() {
		t.Error("still there after its time")
	}
	if _, err := c.Call(t.Context(), target(addr), request()); err != nil || conns.Load() != 2 {
		t.Errorf("%v, %d connections", err, conns.Load())
	}
	c.idle["board-1"][0].born = time.Now().Add(-2 * maxAge)
	if _, err := c.Call(t.Context(), target(addr), request()); err != nil || len(c.idle["board-1"]) != 0 {
		t.Errorf("%v, %d kept after their age", err, len(c.idle["board-1"]))
	}
	c.Close()
	if _, err := c.Call(t.Context(), target(addr), request()); err != nil || len(c.idle["board-1"]) != 0 {
		t.Errorf("%v, %d kept after Close", err, len(c.idle["board-1"]))
	}
}

// Calls never see that a device restarted between them.
func TestRestartBetweenCalls(t *testing.T) {
	s := newSite(t)
	c := s.caller(t)
	cfg := s.serverTLS(t, "board-1")
	addr := "127.0.0.1:0"
	for i := range 20 {
		var stop func()
		addr, stop = serveHTTPAt(t, addr, cfg, Handler(transporttest.Echo))
		for range 2 {
			if _, err := c.Call(t.Context(), target(addr), request()); err != nil {
				t.Errorf("after restart %d: %v", i, err)
			}
		}
		stop()
	}
}

// A kept connection that closes under a call, before it has the request, is
// replaced.
func TestClosedWhileSending(t *testing.T) {
	s := newSite(t)
	addr, stop := s.serve(t, "board-1", transporttest.Echo)
	defer stop()
	c := s.caller(t)
	if _, err := c.Call(t.Context(), target(addr), request()); err != nil {
		t.Fatal(err)
	}
	_ = c.idle["board-1"][0].tls.SetWriteDeadline(time.Unix(1, 0)) // each write fails, unnoticed by the peer
	resp, err := c.Call(t.Context(), target(addr), request())
	if err != nil || string(resp.Body) != "x" {
		t.Errorf("got %v", err)
	}
}

// A request that did not get through whole has not been executed.
func TestCutWhileSending(t *testing.T) {
	s := newSite(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		raw, err := l.Accept()
		if err != nil {
			return
		}
		conn := tls.Server(raw, s.serverTLS(t, "board-1"))
		_, _ = io.ReadFull(conn, make([]byte, 1000))
		_ = raw.(*net.TCPConn).SetLinger(0) // a reset
		_ = raw.Close()
	}()
	req := request()
	req.Body = make([]byte, 32<<20) // more than the kernel takes by itself
	if _, err := s.caller(t).Call(t.Context(), target(l.Addr().String()), req); !errors.Is(err, decant.Unavailable) {
		t.Errorf("got %v (%s)", err, decant.CodeOf(err))
	}
	<-done
}

func TestBadRequests(t *testing.T) {
	s := newSite(t)
	c := s.caller(t)
	for name, change := range map[string]func(*transport.Target, *transport.Request){
		"device":   func(to *transport.Target, _ *transport.Request) { to.Device = "a b" },
		"function": func(_ *transport.Target, r *transport.Request) { r.Function = "-" },
	} {
		to, req := target("127.0.0.1:1"), request()
		change(&to, req)
		if _, err := c.Call(t.Context(), to, req); !errors.Is(err, decant.Invalid) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestHandlerRefuses(t *testing.T) {
	handler := Handler(transporttest.HandlerFunc(func(context.Context, *transport.Request) (*transport.Response, error) {
		t.Error("executed")
		return &transport.Response{}, nil
	}))
	for name, change := range map[string]func(*http.Request){
		"epoch":     func(r *http.Request) { r.Header.Set(headerEpoch, "new") },
		"timeout":   func(r *http.Request) { r.Header.Set(headerTimeout, "-1") },
		"too large": func(r *http.Request) { r.ContentLength = transport.MaxBody + 1 },
		"too large, as it turns out": func(r *http.Request) {
			r.ContentLength, r.Body = -1, io.NopCloser(io.LimitReader(zeros{}, transport.MaxBody+1))
		},
	} {
		r := httptest.NewRequest("POST", "/", strings.NewReader("x"))
		change(r)
		w := httptest.NewRecorder()
		if handler.ServeHTTP(w, r); w.Code != http.StatusBadRequest {
			t.Errorf("%s: status %d: %s", name, w.Code, w.Body)
		}
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// The address that worked is tried first the next time, while it is listed.
func TestRemembersAddress(t *testing.T) {
	var d devices
	check := func(given, want string) {
		t.Helper()
		got := d.order(transport.Target{Device: "x", Addresses: strings.Fields(given)})
		if strings.Join(got, " ") != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	check("a b c", "a b c")
	d.worked("x", "c")
	d.worked("y", "b")
	check("a b c", "c a b")
	check("b a", "b a")
}

// BenchmarkHop compares a call with a bare net/http echo over the same mutual
// TLS, both kept alive, taking turns: the ratio holds on a busy machine too.
func BenchmarkHop(b *testing.B) {
	for _, size := range []int{1 << 10, 150_000} {
		b.Run(strconv.Itoa(size), func(b *testing.B) {
			s := newSite(b)
			body := bytes.Repeat([]byte("x"), size)

			bareAddr, stop := serveHTTP(b, s.serverTLS(b, "board-1"), http.HandlerFunc(bareEcho))
			defer stop()
			cfg := s.clientTLS(b)
			cfg.ServerName = "board-1"
			client := &http.Transport{TLSClientConfig: cfg}
			defer client.CloseIdleConnections()

			addr, stop := s.serve(b, "board-1", transporttest.Echo)
			defer stop()
			c, to := s.caller(b), target(addr)
			req := &transport.Request{Application: "app", Component: "part", Function: "run", ContentType: "application/octet-stream", Body: body}
			ctx, cancel := context.WithTimeout(b.Context(), time.Hour)
			defer cancel()

			var bare, ours []time.Duration
			for b.Loop() {
				start := time.Now()
				bareCall(b, client, "https://"+bareAddr+"/v1/apps/app/part/run", body)
				middle := time.Now()
				if resp, err := c.Call(ctx, to, req); err != nil || len(resp.Body) != size {
					b.Fatal(err)
				}
				bare, ours = append(bare, middle.Sub(start)), append(ours, time.Since(middle))
			}
			slices.Sort(bare)
			slices.Sort(ours)
			p50 := len(bare) / 2
			b.ReportMetric(float64(bare[p50].Nanoseconds()), "bare-ns")
			b.ReportMetric(float64(ours[p50].Nanoseconds()), "ours-ns")
			b.ReportMetric(float64(ours[p50])/float64(bare[p50]), "ratio")
		})
	}
}

func bareEcho(w http.ResponseWriter, r *http.Request) {
	body := make([]byte, r.ContentLength)
	if _, err := io.ReadFull(r.Body, body); err != nil {
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body)
}

func bareCall(b *testing.B, client *http.Transport, url string, body []byte) {
	req, err := http.NewRequest("POST", url, bytes.NewReader(body))
	if err != nil {
		b.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	resp, err := client.RoundTrip(req)
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	got := make([]byte, resp.ContentLength)
	if _, err := io.ReadFull(resp.Body, got); err != nil {
		b.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil { // to the end, for the connection to be kept
		b.Fatal(err)
	}
}
