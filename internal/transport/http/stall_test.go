package httptransport_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/problem"
	"github.com/decant-project/decant/internal/transport"
	httptransport "github.com/decant-project/decant/internal/transport/http"
	"github.com/decant-project/decant/internal/transport/transporttest"
)

// serve serves h over pipes, and returns what sends the beginning of a request
// and reads the error that is the answer.
func serve(t *testing.T, h transport.Handler) func(begin string) (wait func() error, answer *bufio.Reader) {
	t.Helper()
	l := transporttest.NewPipes()
	mux := http.NewServeMux()
	mux.Handle(httptransport.Pattern, httptransport.Handler(h))
	srv := &http.Server{Handler: mux}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() {
		_ = srv.Close()
		time.Sleep(time.Minute) // of the bubble: net/http lingers over a connection
	})
	return func(begin string) (func() error, *bufio.Reader) {
		near := l.Dial()
		t.Cleanup(func() { _ = near.Close() })
		if _, err := io.WriteString(near, begin); err != nil {
			t.Fatal(err)
		}
		answer := bufio.NewReader(near)
		return func() error {
			resp, err := http.ReadResponse(answer, nil)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			return problem.Read(resp)
		}, answer
	}
}

// request is the beginning of a call with a body of so many bytes.
func request(size int) string {
	return fmt.Sprintf("POST /v1/apps/a/b/c HTTP/1.1\r\nHost: d\r\nContent-Length: %d\r\n\r\nthe beginning", size)
}

// TestStalledRequest: a request whose body stops arriving is given up, and so
// is its connection.
func TestStalledRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wait, answer := serve(t, transporttest.Echo)(request(100_000))
		if err := wait(); !errors.Is(err, decant.Unavailable) {
			t.Errorf("got %v", err)
		}
		began := time.Now()
		if n, err := answer.Discard(1); n != 0 || err == nil || time.Since(began) > time.Minute {
			t.Errorf("after %s the connection is open", time.Since(began))
		}
	})
}

// full refuses every call.
type full struct{ transport.Handler }

func (full) Admit(*transport.Request) error { return decant.Errorf(decant.NotFound, "not here") }

// TestAdmission: a large body that would be for nothing is not waited for.
func TestAdmission(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wait, _ := serve(t, full{transporttest.Echo})(request(transport.MaxBody))
		began := time.Now()
		if err := wait(); !errors.Is(err, decant.NotFound) || time.Since(began) > 0 {
			t.Errorf("got %v after %s", err, time.Since(began))
		}
	})
}

// TestBodiesInFlight: large bodies of many callers do not add up.
func TestBodiesInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		send := serve(t, transporttest.Echo)
		for range 2 {
			send(request(transport.MaxBody))
		}
		synctest.Wait()
		wait, _ := send(request(100_000))
		if err := wait(); !errors.Is(err, decant.Exhausted) {
			t.Errorf("a third: got %v", err)
		}
		time.Sleep(time.Hour) // the others are given up
		wait, _ = send("POST /v1/apps/a/b/c HTTP/1.1\r\nHost: d\r\nContent-Length: 10000\r\n\r\n" + strings.Repeat("x", 10_000))
		if err := wait(); err != nil {
			t.Errorf("after them: got %v", err)
		}
	})
}
