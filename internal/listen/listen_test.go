package listen_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/listen"
)

// TestPort: a chosen port is the same after a restart, another where somebody
// has it meanwhile.
func TestPort(t *testing.T) {
	file := filepath.Join(t.TempDir(), "port")
	open := func() net.Listener {
		l, err := listen.Port(t.Context(), "127.0.0.1:0", file)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	first := open()
	second := open() // first is there still
	if first.Addr().String() == second.Addr().String() {
		t.Errorf("both at %s", first.Addr())
	}
	_ = first.Close()
	_ = second.Close()
	third := open()
	defer third.Close()
	if third.Addr().String() != second.Addr().String() {
		t.Errorf("now at %s, before at %s", third.Addr(), second.Addr())
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil { // what a full disk may have left
		t.Fatal(err)
	}
	_ = open().Close()
	for _, address := range []string{"here", third.Addr().String()} {
		if l, err := listen.Port(t.Context(), address, file); !errors.Is(err, decant.Invalid) {
			t.Errorf("at %s: %v, %v", address, l, err)
		}
	}
}

func TestSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	if err := os.WriteFile(path, nil, 0o644); err != nil { // a dead process left it
		t.Fatal(err)
	}
	l, err := listen.Socket(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if _, err := listen.Socket(t.Context(), filepath.Join(t.TempDir(), string(make([]byte, 200)))); err == nil {
		t.Error("a path that is too long")
	}
}

func TestAddresses(t *testing.T) {
	at := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 7}
	if got := listen.Addresses(at); len(got) != 1 || got[0] != "192.0.2.7:7" {
		t.Errorf("got %v", got)
	}
	for _, address := range listen.Addresses(&net.TCPAddr{Port: 7}) {
		if _, port, err := net.SplitHostPort(address); err != nil || port != "7" {
			t.Errorf("got %q", address)
		}
	}
}

// TestPerHost: what is beyond the limit is closed at once, and there is room
// again when one has gone.
func TestPerHost(t *testing.T) {
	inner, err := listen.Port(t.Context(), "127.0.0.1:0", filepath.Join(t.TempDir(), "port"))
	if err != nil {
		t.Fatal(err)
	}
	l := listen.PerHost(inner, 2)
	defer l.Close()
	accepted := make(chan net.Conn)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				close(accepted)
				return
			}
			accepted <- c
		}
	}()
	dial := func() net.Conn {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	dial()
	first := <-accepted
	dial()
	<-accepted
	third := dial()
	if _, err := third.Read(make([]byte, 1)); err == nil {
		t.Error("a third connection is open")
	}
	_ = first.Close()
	_ = first.Close() // counts once
	dial()
	<-accepted
	if _, err := dial().Read(make([]byte, 1)); err == nil {
		t.Error("a third connection is open again")
	}
}
