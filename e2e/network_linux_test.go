package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// network is a switch with a machine at each of its ports, each a network
// namespace of its own.
type network struct {
	t        *testing.T
	name     string
	machines int
}

// newNetwork makes a network, which goes with the test.
func newNetwork(t *testing.T) *network {
	t.Helper()
	n := &network{t: t, name: fmt.Sprintf("dc%d", os.Getpid()%100_000)}
	if out, err := exec.CommandContext(t.Context(), "ip", "netns", "add", n.name).CombinedOutput(); err != nil {
		t.Skipf("cannot make network namespaces: %v: %s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", n.name).Run() })
	n.ip("-n", n.name, "link", "add", "switch", "type", "bridge")
	n.ip("-n", n.name, "link", "set", "switch", "up")
	return n
}

func (n *network) ip(args ...string) {
	n.t.Helper()
	if out, err := exec.CommandContext(n.t.Context(), "ip", args...).CombinedOutput(); err != nil {
		n.t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// machine returns the command that runs a process on a machine of its own.
func (n *network) machine(process string) []string {
	n.t.Helper()
	n.machines++
	space, port := n.name+process, n.port(process)
	n.ip("netns", "add", space)
	n.t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", space).Run() })
	n.ip("-n", n.name, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", space)
	n.ip("-n", n.name, "link", "set", port, "master", "switch", "up")
	n.ip("-n", space, "address", "add", fmt.Sprintf("10.77.0.%d/24", n.machines), "dev", "eth0")
	n.ip("-n", space, "link", "set", "eth0", "up")
	n.ip("-n", space, "link", "set", "lo", "up")
	return []string{"ip", "netns", "exec", space}
}

func (n *network) port(process string) string { return "port-" + process[:min(8, len(process))] }

// plug pulls the cable of a machine, and puts it in again.
func (n *network) plug(process, updown string) {
	n.t.Helper()
	n.ip("-n", n.name, "link", "set", n.port(process), updown)
}

// TestNetwork runs the speech example on four machines that find each other by
// mDNS, and pulls the orchestrator's cable while recordings play.
func TestNetwork(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	s := startSpeech(t, n.machine)
	s.until("words were heard", func() bool { return s.screen() != "" })
	n.plug("orchestrator", "down")
	before := s.screen()
	s.until("words were heard without an orchestrator", func() bool { return s.screen() != before })
	n.plug("orchestrator", "up")
	if got := s.end(); got.failed != 0 || got.segments != 4 || strings.Count(got.screen, "\n") != 4 {
		t.Errorf("got %+v", got)
	}
	online, err := s.WaitOnline(s.ctx, 3)
	s.must(err)
	for name, d := range online {
		if len(d.Addresses) == 0 || !strings.HasPrefix(d.Addresses[0], "10.77.0.") {
			t.Errorf("%s has the addresses %v", name, d.Addresses)
		}
	}
}
