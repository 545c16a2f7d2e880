package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/identity"
	"github.com/decant-project/decant/internal/transport"
	httptransport "github.com/decant-project/decant/internal/transport/http"
)

// bareServer is the argument that makes this program the limit of a hop.
const bareServer = "serve-bare"

var hopSizes = []struct {
	name string
	size int
}{{"1 KiB", 1 << 10}, {"150 KB", 150_000}}

// hops compares a call of a warm module in a supervisor with a bare echo.
func hops(ctx context.Context, rounds int) ([]figure, error) {
	s, err := newSite(ctx)
	if err != nil {
		return nil, err
	}
	defer s.close()
	device, err := s.runEcho(ctx)
	if err != nil {
		return nil, err
	}
	member, err := s.member(identity.RoleOrchestrator)
	if err != nil {
		return nil, err
	}
	bare, stop, err := startBare(ctx, s.Home())
	if err != nil {
		return nil, err
	}
	defer stop()

	caller := httptransport.NewCaller(member.ToDevice)
	defer caller.Close()
	client := &http.Transport{TLSClientConfig: member.ToDevice(bare.id)}
	defer client.CloseIdleConnections()

	var out []figure
	for _, size := range hopSizes {
		body := bytes.Repeat([]byte("x"), size.size)
		ours := func() error {
			resp, err := caller.Call(ctx, transport.Target{Device: device.ID, Addresses: device.Addresses}, &transport.Request{
				Application: "bench", Component: "echo", ContentType: "application/octet-stream", Body: body,
			})
			if err == nil && len(resp.Body) != len(body) {
				err = fmt.Errorf("the answer has %d bytes", len(resp.Body))
			}
			return err
		}
		limit := func() error { return callBare(ctx, client, "https://"+bare.address+"/", body) }
		took, least, err := inTurns(rounds, ours, limit)
		if err != nil {
			return nil, err
		}
		out = append(out,
			compare("hop "+size.name, .5, took, least, 1.15),
			compare("hop "+size.name, .99, took, least, 0))
	}
	return out, nil
}

// inTurns measures two ways of doing the same, a call of one and a call of the
// other, after a tenth as many that are not counted.
func inTurns(rounds int, ours, limit func() error) (took, least []time.Duration, err error) {
	for i := range rounds + rounds/10 {
		start := time.Now()
		if err := ours(); err != nil {
			return nil, nil, err
		}
		middle := time.Now()
		if err := limit(); err != nil {
			return nil, nil, err
		}
		if i >= rounds/10 {
			took, least = append(took, middle.Sub(start)), append(least, time.Since(middle))
		}
	}
	return took, least, nil
}

func callBare(ctx context.Context, client *http.Transport, url string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	resp, err := client.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	got := make([]byte, resp.ContentLength)
	if _, err := io.ReadFull(resp.Body, got); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, resp.Body) // to the end, for the connection to be kept
	return err
}

type bare struct{ id, address string }

// startBare starts this program again as the limit, a device of the site whose
// orchestrator keeps its data in home.
func startBare(ctx context.Context, home string) (b bare, stop func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return b, nil, err
	}
	dir, err := os.MkdirTemp("", "decant-bare-")
	if err != nil {
		return b, nil, err
	}
	cmd := exec.CommandContext(ctx, self, bareServer, filepath.Join(home, "authority"), dir)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return b, nil, err
	}
	stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = os.RemoveAll(dir)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		stop()
		return b, nil, err
	}
	b.id, b.address, _ = strings.Cut(strings.TrimSpace(line), " ")
	return b, stop, nil
}

// serveBare is the limit: it writes its ID and address, and echoes.
func serveBare(authority, dir string) int {
	err := func() error {
		member, err := issue(authority, dir, identity.RoleDevice)
		if err != nil {
			return err
		}
		l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it listens as long as it lives
		if err != nil {
			return err
		}
		fmt.Fprintln(os.Stdout, member.ID(), l.Addr())
		return http.Serve(tls.NewListener(l, member.ServerTLS()), http.HandlerFunc(echo)) //nolint:gosec // the limit has no limits
	}()
	fmt.Fprintln(os.Stderr, "bench:", err)
	return 1
}

func echo(w http.ResponseWriter, r *http.Request) {
	body := make([]byte, r.ContentLength)
	if _, err := io.ReadFull(r.Body, body); err != nil {
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body)
}

// issue makes a member of the site whose authority is in a folder.
func issue(authority, dir string, role identity.Role) (*identity.Member, error) {
	a, err := identity.OpenAuthority(authority, "bench")
	if err != nil {
		return nil, err
	}
	key, err := identity.OpenKey(filepath.Join(dir, string(role)+".key"))
	if err != nil {
		return nil, err
	}
	id, err := identity.DeviceID(key.Public())
	if err != nil {
		return nil, err
	}
	cred, err := a.Issue(role, id, key.Public())
	if err != nil {
		return nil, decant.Errorf(decant.Internal, "cannot make a member: %w", err)
	}
	return identity.NewMember("", key, cred)
}
