package client_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/client"
)

// What the client and the orchestrator's interface do together is tested in
// internal/api/site; here is what the client does where the other side is not
// as it should be.

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newClient(t *testing.T, endpoint, token string) *client.Client {
	t.Helper()
	c, err := client.New(endpoint, token)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestNew(t *testing.T) {
	for _, endpoint := range []string{"", "unix://"} {
		if _, err := client.New(endpoint, ""); !errors.Is(err, decant.Invalid) {
			t.Errorf("%q: %v", endpoint, err)
		}
	}
}

// TestEndpoints: a token is shown where there is one.
func TestEndpoints(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"site":%q,"version":%q}`, r.URL.Path, r.Header.Get("Authorization"))
	})
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	local := &httptest.Server{Listener: l, Config: &http.Server{Handler: h}}
	local.Start()
	defer local.Close()
	web := httptest.NewServer(h)
	defer web.Close()
	tests := []struct{ endpoint, token, shown string }{
		{socket, "", ""},
		{"unix://" + socket, "", ""},
		{web.URL, "t0ken", "Bearer t0ken"},
		{web.URL + "/", "", ""},
		{web.URL + "/behind", "t0ken", "Bearer t0ken"},
	}
	for _, tt := range tests {
		got, err := newClient(t, tt.endpoint, tt.token).Site(t.Context())
		path := "/v1/site"
		if strings.HasSuffix(tt.endpoint, "/behind") {
			path = "/behind" + path
		}
		if err != nil || got.Site != path || got.Version != tt.shown {
			t.Errorf("%s: %+v, %v", tt.endpoint, got, err)
		}
	}
}

func TestNobodyThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	for _, endpoint := range []string{"http://" + l.Addr().String(), filepath.Join(t.TempDir(), "none")} {
		c := newClient(t, endpoint, "")
		_, siteErr := c.Site(t.Context())
		_, _, invokeErr := c.Invoke(t.Context(), client.Call{Application: "a"}, nil)
		for _, err := range []error{siteErr, invokeErr, c.WatchEvents(t.Context(), 1, nil)} {
			e, ok := errors.AsType[*decant.Error](err)
			if !ok || e.Code != decant.Unavailable || !strings.Contains(e.Help, "decant up") || !strings.Contains(e.Message, endpoint) {
				t.Errorf("%s: %#v", endpoint, err)
			}
		}
	}
}

// serveRaw answers each connection's first request with f, which has the
// connection to itself.
func serveRaw(t *testing.T, f func(net.Conn)) *client.Client {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if r, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				_, _ = io.Copy(io.Discard, r.Body)
				f(c)
			}
			_ = c.Close()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return newClient(t, "http://"+l.Addr().String(), "")
}

func reset(c net.Conn) {
	_ = c.(*net.TCPConn).SetLinger(0)
	_ = c.Close()
}

// TestLostRequest: where the orchestrator is lost in the middle of a request,
// only one that may be sent again is said to be safe to.
func TestLostRequest(t *testing.T) {
	for name, lose := range map[string]func(net.Conn){"closed": func(c net.Conn) { _ = c.Close() }, "reset": reset} {
		c := serveRaw(t, lose)
		if _, err := c.Devices(t.Context()); !errors.Is(err, decant.Unavailable) {
			t.Errorf("%s: a read: %v", name, err)
		}
		if err := c.RemoveDevice(t.Context(), "d"); !errors.Is(err, decant.Unavailable) {
			t.Errorf("%s: a removal: %v", name, err)
		}
		if _, _, err := c.Invoke(t.Context(), client.Call{Application: "a"}, []byte("x")); !errors.Is(err, decant.Internal) || !strings.Contains(err.Error(), "may have been executed") {
			t.Errorf("%s: a call: %v (%s)", name, err, decant.CodeOf(err))
		}
	}
}

// TestLostAnswer: an answer that breaks off is no answer.
func TestLostAnswer(t *testing.T) {
	for name, lose := range map[string]func(net.Conn){"closed": func(c net.Conn) { _ = c.Close() }, "reset": reset} {
		c := serveRaw(t, func(conn net.Conn) {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[{\"name\":")
			lose(conn)
		})
		if got, err := c.Devices(t.Context()); err == nil {
			t.Errorf("%s: a list: %v", name, got)
		}
		if got, _, err := c.Invoke(t.Context(), client.Call{Application: "a"}, nil); err == nil || errors.Is(err, decant.Unavailable) {
			t.Errorf("%s: an answer: %q, %v", name, got, err)
		}
	}
}

const (
	streamHead = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
	oneEvent   = "event: event\ndata: {\"message\":\"one\"}\n\n"
)

// TestLostStream: however an orchestrator goes, watching ends with Unavailable.
func TestLostStream(t *testing.T) {
	chunk := fmt.Sprintf("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", len(oneEvent), oneEvent)
	for name, tt := range map[string]struct {
		sent string
		lose func(net.Conn)
	}{
		"closed": {streamHead + oneEvent, func(c net.Conn) { _ = c.Close() }},
		"closed in a chunk": {chunk, func(c net.Conn) {
			_, _ = io.WriteString(c, "1000\r\nevent:")
			_ = c.Close()
		}},
		"reset": {streamHead + oneEvent, reset},
	} {
		t.Run(name, func(t *testing.T) {
			seen := make(chan struct{})
			c := serveRaw(t, func(conn net.Conn) {
				_, _ = io.WriteString(conn, tt.sent)
				<-seen
				tt.lose(conn)
			})
			var got []string
			err := c.WatchEvents(t.Context(), 1, func(e decant.Event) error {
				got = append(got, e.Message)
				close(seen)
				return nil
			})
			if !errors.Is(err, decant.Unavailable) || len(got) != 1 || got[0] != "one" {
				t.Errorf("got %v, %v (%s)", got, err, decant.CodeOf(err))
			}
		})
	}
}

// TestBadStream: events that make no sense end a stream.
func TestBadStream(t *testing.T) {
	for name, tt := range map[string]struct {
		event string
		code  decant.Code
	}{
		"no JSON":               {"event: event\ndata: {\n\n", decant.Internal},
		"another type":          {"event: event\ndata: [1]\n\n", decant.Internal},
		"an error that is none": {"event: error\ndata: x\n\n", decant.Internal},
		"an error":              {"event: error\ndata: {\"code\":\"infeasible\",\"detail\":\"no\"}\n\n", decant.Infeasible},
		"too large":             {"data: " + strings.Repeat("x", 17<<20), decant.Exhausted},
	} {
		c := serveRaw(t, func(conn net.Conn) { _, _ = io.WriteString(conn, streamHead+tt.event) })
		err := c.WatchEvents(t.Context(), 1, func(e decant.Event) error {
			t.Errorf("%s: got %+v", name, e)
			return nil
		})
		if decant.CodeOf(err) != tt.code {
			t.Errorf("%s: %v (%s)", name, err, decant.CodeOf(err))
		}
	}
}

// TestOwnErrorsOfAWatcher come back as they are, also those that look like a
// broken connection.
func TestOwnErrorsOfAWatcher(t *testing.T) {
	c := serveRaw(t, func(conn net.Conn) { _, _ = io.WriteString(conn, streamHead+oneEvent) })
	for _, want := range []error{io.EOF, io.ErrUnexpectedEOF, &net.OpError{Op: "write", Err: io.ErrClosedPipe}, context.Canceled} {
		if err := c.WatchEvents(t.Context(), 1, func(decant.Event) error { return want }); err != want {
			t.Errorf("%v became %v", want, err)
		}
	}
}

// TestStrangeAnswers: what answers need not be an orchestrator.
func TestStrangeAnswers(t *testing.T) {
	tests := []struct {
		name, contentType, body string
		status                  int
		code                    decant.Code
		text                    string
	}{
		{"a page", "text/html", "<html>", 200, decant.Internal, "cannot read the answer"},
		{"nothing", "", "", 200, decant.Internal, "cannot read the answer"},
		{"a proxy's page", "text/html", "<html>", 502, decant.Internal, "502"},
		{"another server", "text/plain", "404 page not found", 404, decant.NotFound, "404"},
		{"a token is missing", "application/problem+json", `{"code":"denied","detail":"no valid token","help":"send it"}`, 403, decant.Denied, "no valid token; send it"},
		{"a code of a newer version", "application/problem+json", `{"code":"tired","detail":"not today"}`, 503, decant.Unavailable, "not today"},
		{"for a terminal", "application/problem+json", `{"code":"invalid","detail":"a\u001b[2Jb"}`, 400, decant.Invalid, "a [2Jb"},
		{"not changed", "", "", 304, decant.Internal, "304"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", tt.contentType)
				w.WriteHeader(tt.status)
				_, _ = io.WriteString(w, tt.body)
			}))
			defer srv.Close()
			_, err := newClient(t, srv.URL, "").Site(t.Context())
			if !errors.Is(err, tt.code) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v (%s)", err, decant.CodeOf(err))
			}
		})
	}
}

// TestBlobThatCannotBeRead: neither a reader that fails nor one of another size
// is stored.
func TestBlobThatCannotBeRead(t *testing.T) {
	broken := errors.New("disk on fire")
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err == nil {
			w.WriteHeader(http.StatusNoContent)
		}
	}))
	defer srv.Close()
	c := newClient(t, srv.URL, "")
	d := decant.DigestOf([]byte("blob"))
	for name, r := range map[string]io.Reader{
		"fails":     io.MultiReader(strings.NewReader("bl"), errReader{broken}),
		"too short": strings.NewReader("bl"),
		"too long":  strings.NewReader("blobs"),
	} {
		if err := c.PutBlob(t.Context(), d, 4, r); err == nil {
			t.Errorf("%s: stored", name)
		} else if name == "fails" && !errors.Is(err, broken) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := c.PutBlob(t.Context(), d, 4, strings.NewReader("blob")); err != nil {
		t.Error(err)
	}
}

type errReader struct{ error }

func (r errReader) Read([]byte) (int, error) { return 0, r.error }
