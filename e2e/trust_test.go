package e2e_test

import (
	"strings"
	"testing"

	"github.com/decant-project/decant"
)

// TestJoinCodes holds what becomes of codes that are no good.
func TestJoinCodes(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.startOrchestrator()
	code, err := s.JoinCode(s.ctx)
	s.must(err)
	s.configure("first", "")
	first, err := s.StartDevice("first", code)
	s.must(err)
	_, err = s.WaitOnline(s.ctx, 1)
	s.must(err)

	changed := []byte(code)
	last := &changed[len(changed)-1]
	if *last = 'a'; code[len(code)-1] == 'a' {
		*last = 'b'
	}
	for _, c := range []struct{ name, code, want string }{
		{"used", code, "used"},
		{"changed", string(changed), "code"},
		{"short", "abc", "code"},
	} {
		s.configure(c.name, "")
		p, err := s.StartDevice(c.name, c.code)
		s.must(err)
		s.until(c.name+" gave up", p.Exited)
		log := strings.TrimSpace(s.logOf(c.name))
		if said := log[strings.LastIndexByte(log, '\n')+1:]; p.Stop() == nil || !strings.HasPrefix(said, "decant-supervisor: ") || !strings.Contains(said, c.want) {
			t.Errorf("%s code: the device said %q", c.name, said)
		}
	}
	if online, err := s.WaitOnline(s.ctx, 1); err != nil || len(online) != 1 || first.Exited() {
		t.Errorf("online are %v, %v", online, err)
	}
}

// TestApproval lets a device join that was started without a code.
func TestApproval(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.startOrchestrator()
	s.configure("lone-board", "")
	board := s.restart("lone-board")
	s.until("the device was discovered", func() bool {
		devices := query[[]decant.Device](s, "device", "ls")
		// Devices of other tests on this network may be seen as well.
		for _, d := range devices {
			if d.Name == "lone-board" {
				return d.Status == decant.DeviceKnown
			}
		}
		return false
	})
	s.decant(nil, "device", "approve", "lone-board")
	online, err := s.WaitOnline(s.ctx, 1)
	s.must(err)

	// It is forgotten, runs nothing any more, and comes back with a new code only.
	s.push("shout")
	s.deploy("application: echo\ncomponents: {shout: {package: shout}}\n")
	s.decant(nil, "device", "rm", "lone-board")
	if _, err := s.Decant(s.ctx, nil, "device", "show", online["lone-board"].ID); err == nil {
		t.Error("a removed device is still there")
	}
	s.until("the device runs nothing", func() bool {
		list, _ := local(s, "lone-board")("GET", "/v1/instances", "", nil)
		return strings.TrimSpace(string(list)) == "[]"
	})
	s.must(board.Stop())
	code, err := s.JoinCode(s.ctx)
	s.must(err)
	_, err = s.StartDevice("lone-board", code)
	s.must(err)
	s.status("echo", decant.DeployRunning)
}

// TestForeignOrchestrator: a device of one site has nothing to do with the
// orchestrator of another, whatever code it is given.
func TestForeignOrchestrator(t *testing.T) {
	t.Parallel()
	ours, theirs := newSite(t), newSite(t)
	ours.startOrchestrator("--site", "ours")
	theirs.startOrchestrator("--site", "theirs")
	board := ours.device("moving-board", "")
	_, err := ours.WaitOnline(ours.ctx, 1)
	ours.must(err)
	ours.must(board.Stop())

	foreign, err := theirs.JoinCode(theirs.ctx)
	theirs.must(err)
	p, err := ours.StartDevice("moving-board", foreign)
	ours.must(err)
	ours.until("the device refused the code", p.Exited)
	if log := ours.logOf("moving-board"); !strings.Contains(log, "has joined site ours already, and the code is of another; to leave the old site, delete the data folder") {
		t.Errorf("the device said\n%s", log)
	}
	ours.restart("moving-board")
	_, err = ours.WaitOnline(ours.ctx, 1)
	ours.must(err)
	for _, d := range query[[]decant.Device](theirs, "device", "ls") {
		if d.Name == "moving-board" && (d.Status == decant.DeviceJoined || d.Online) {
			t.Errorf("the foreign orchestrator has %+v", d)
		}
	}
}
