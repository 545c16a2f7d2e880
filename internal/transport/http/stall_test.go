package httptransport_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/problem"
	httptransport "github.com/decant-project/decant/internal/transport/http"
	"github.com/decant-project/decant/internal/transport/transporttest"
)

// pipeListener accepts one connection.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { close(l.done); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

// TestStalledRequest: a request whose body stops arriving is given up, and so
// is its connection.
func TestStalledRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		l := &pipeListener{make(chan net.Conn, 1), make(chan struct{})}
		l.conns <- far
		mux := http.NewServeMux()
		mux.Handle(httptransport.Pattern, httptransport.Handler(transporttest.Echo))
		srv := &http.Server{Handler: mux}
		go func() { _ = srv.Serve(l) }()
		defer srv.Close()
		if _, err := io.WriteString(near, "POST /v1/apps/a/b/c HTTP/1.1\r\nHost: d\r\nContent-Length: 100000\r\n\r\nthe beginning"); err != nil {
			t.Fatal(err)
		}
		answer := bufio.NewReader(near)
		resp, err := http.ReadResponse(answer, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if err := problem.Read(resp); !errors.Is(err, decant.Unavailable) {
			t.Errorf("got %v", err)
		}
		began := time.Now()
		if n, err := answer.Discard(1); n != 0 || err == nil || time.Since(began) > time.Minute {
			t.Errorf("after %s the connection is open", time.Since(began))
		}
	})
}
