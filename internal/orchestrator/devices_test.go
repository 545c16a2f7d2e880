package orchestrator

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/state"
)

// presence returns what the newest events say of a device's coming and going.
func (s *testSite) presence(d *fakeDevice) string {
	s.t.Helper()
	synctest.Wait()
	events, err := s.o().Events(s.t.Context(), 1000)
	must(s.t, err)
	var out []string
	for _, e := range events {
		if kind := strings.TrimPrefix(e.Kind, "device."); e.Device == d.id && (kind == "online" || kind == "offline") {
			out = append(out, kind)
		}
	}
	return strings.Join(out, " ")
}

// device returns what the orchestrator knows of d once all is quiet.
func (s *testSite) device(d *fakeDevice) decant.Device {
	s.t.Helper()
	synctest.Wait()
	got, err := s.o().Device(s.t.Context(), d.id)
	must(s.t, err)
	return got
}

func (s *testSite) wantOnline(d *fakeDevice, online bool, events string) {
	s.t.Helper()
	if got := s.device(d); got.Online != online {
		s.t.Errorf("%s: online %v, want %v", d.id, got.Online, online)
	}
	if got := s.presence(d); got != events {
		s.t.Errorf("%s: events %q, want %q", d.id, got, events)
	}
}

func TestPresence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, gateway := newPost(t)
		s.deploy(post())
		s.wantOnline(gateway, true, "online")
		time.Sleep(10 * LeaseTTL)
		s.wantOnline(gateway, true, "online") // as long as it reports
		if seen := s.device(gateway).LastSeen; time.Since(seen) > LeaseTTL/3 {
			t.Errorf("last seen %s ago", time.Since(seen))
		}

		gateway.stop()
		time.Sleep(LeaseTTL - LeaseTTL/3 - time.Millisecond)
		s.wantOnline(gateway, true, "online") // late, but not yet too late
		time.Sleep(LeaseTTL/3 + time.Millisecond)
		s.wantOnline(gateway, false, "online offline")
		// What it runs stays there: it may only be out of reach.
		s.wantStatus("app", decant.DeployDegraded, "gateway, which runs detector, is offline since")
		s.wantPlaces("app", "detector@gateway-id/1 running, ear@mic-id/1 running")

		gateway.start()
		s.wantOnline(gateway, true, "online offline online")
		s.wantStatus("app", decant.DeployRunning, "")

		// It is given nothing new while it is away, and gets it when it is back.
		gateway.stop()
		time.Sleep(LeaseTTL)
		s.deploy(decant.Application{Name: "new", Components: map[string]decant.Component{"x": {Package: "detector", Function: "detect"}}})
		s.wantStatus("new", decant.DeployPending, "gateway is offline")
		gateway.start()
		s.wantStatus("new", decant.DeployRunning, "")
	})
}

func TestPresenceOutlivesTheOrchestrator(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, mic, _ := newPost(t)
		s.wantOnline(mic, true, "online")
		for range 3 {
			time.Sleep(LeaseTTL / 2)
			s.kill()
			s.start()
		}
		time.Sleep(2 * LeaseTTL)
		s.wantOnline(mic, true, "online") // there was never a gap
		mic.stop()
		time.Sleep(LeaseTTL)
		s.wantOnline(mic, false, "online offline")
	})
}

func TestDeviceThatComesBackAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, mic, _ := newPost(t)
		s.deploy(post())
		s.wantStatus("app", decant.DeployRunning, "")
		must(t, s.o().RemoveDevice(t.Context(), "mic"))
		synctest.Wait()
		s.admit(mic) // with a new code, while its lease lives on
		mic.changed()
		s.until("mic is online", func() bool { return s.device(mic).Online })
		s.until("app runs", func() bool { return s.deployment("app").Status == decant.DeployRunning })
	})
}

func TestRemoveDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, mic, gateway := newPost(t)
		other := s.join("other", hasPeripheral("clock"))
		s.deploy(post())
		s.wantStatus("app", decant.DeployRunning, "")
		s.wantPlaces("app", "detector@gateway-id/1 running, ear@mic-id/1 running")

		wantErr(t, s.o().RemoveDevice(t.Context(), "nobody"), decant.NotFound)
		watched := make(chan error, 1)
		go func() {
			watched <- s.o().WatchDesired(t.Context(), gateway.id, func(decant.Desired) error { return nil })
		}()
		synctest.Wait()
		must(t, s.o().RemoveDevice(t.Context(), "gateway"))
		wantErr(t, <-watched, decant.Denied, "not of this site any more", "decant join-code")

		s.wantStatus("app", decant.DeployRunning, "")
		s.wantPlaces("app", "detector@other-id/2 running, ear@mic-id/1 running")
		if got, want := mic.told(), "ear/1.1 frames ->detector/2 detect at other:1"; got != want {
			t.Errorf("mic is told %q, want %q", got, want)
		}
		wantErr(t, s.o().Joined(t.Context(), gateway.id), decant.Denied)
		wantErr(t, s.o().Report(t.Context(), gateway.id, gateway.says()), decant.Denied)
		_, err := s.o().Renew(t.Context(), gateway.id, nil)
		wantErr(t, err, decant.Denied)
		time.Sleep(LeaseTTL) // and all the while it tries to report
		if left := s.keys(""); strings.Contains(left, "/"+gateway.id) {
			t.Errorf("something of it is left: %s", left)
		}

		must(t, s.o().RemoveDevice(t.Context(), other.id))
		s.wantStatus("app", decant.DeployDegraded, "component detector on other-id is pending")
		s.join("third", hasPeripheral("clock"))
		s.wantStatus("app", decant.DeployRunning, "")
		s.wantPlaces("app", "detector@third-id/3 running, ear@mic-id/1 running")
	})
}

// TestRemovedWhileItReports has a device removed after its report was let in
// and before something of it is written down.
func TestRemovedWhileItReports(t *testing.T) {
	for _, prefix := range []string{presencePrefix, reportsPrefix} {
		t.Run(prefix, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, mic, _ := newPost(t)
				mic.stop()
				time.Sleep(LeaseTTL) // its next report makes it present again
				s.faults.failing(false, func(tx state.Txn) error {
					if tx.Then[0].Key == prefix+mic.id {
						s.faults.failing(false, nil)
						must(t, s.o().RemoveDevice(t.Context(), mic.id))
					}
					return nil
				})
				wantErr(t, s.o().Report(t.Context(), mic.id, mic.says()), decant.Conflict)
				if left := s.keys(presencePrefix+mic.id) + s.keys(reportsPrefix+mic.id); left != "" {
					t.Errorf("left: %s", left)
				}
			})
		})
	}
}

func TestReportRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, mic, gateway := newPost(t)
		mic.stop()
		before := s.keys("")
		for _, tt := range []struct {
			name   string
			as     string
			change func(*decant.Report)
			code   decant.Code
			says   string
		}{
			{"as another", gateway.id, func(*decant.Report) {}, decant.Denied, `device gateway-id reports as "mic-id"`},
			{"no member", "stranger", func(r *decant.Report) { r.Device.ID = "stranger" }, decant.Denied, "decant join-code"},
			{"a bad name", mic.id, func(r *decant.Report) { r.Device.Name = "../x" }, decant.Invalid, "device name"},
			{"instances", mic.id, func(r *decant.Report) { r.Instances = make([]decant.InstanceStatus, maxInstances+1) }, decant.Exhausted, "2001 instances"},
			{"a version", mic.id, func(r *decant.Report) { r.Device.Version = "1\x1b[2K" }, decant.Invalid, "version"},
			{"an instance", mic.id, func(r *decant.Report) { r.Instances = []decant.InstanceStatus{{State: "run\x1b[2K"}} }, decant.Invalid, "application"},
			{"an event that is not its to tell", mic.id, func(r *decant.Report) { r.Events = []decant.Event{{Kind: "device.removed"}} }, decant.Denied, "an orchestrator says that"},
			{"an event", mic.id, func(r *decant.Report) { r.Events = []decant.Event{{Kind: "x\ny"}} }, decant.Invalid, "event kind"},
			{"bytes", mic.id, func(r *decant.Report) {
				r.Instances = instances(300)
				for i := range r.Instances {
					r.Instances[i].Message = strings.Repeat("x", maxMessage)
				}
			}, decant.Exhausted, "1048576 at most"},
		} {
			rep := mic.says()
			tt.change(&rep)
			err := s.o().Report(t.Context(), tt.as, rep)
			if wantErr(t, err, tt.code, tt.says); t.Failed() {
				t.Fatalf("report refused for: %s", tt.name)
			}
		}
		if after := s.keys(""); after != before {
			t.Errorf("refused reports left %s; before there was %s", after, before)
		}

		rep := mic.says()
		rep.Instances = instances(maxInstances)
		rep.Events = []decant.Event{{Kind: "instance.failed", Device: "another", At: time.Now().Add(-time.Hour), Message: strings.Repeat("x", maxMessage)}}
		must(t, s.o().Report(t.Context(), mic.id, rep))
		events, err := s.o().Events(t.Context(), 1)
		must(t, err)
		if e := events[0]; e.Kind != "instance.failed" || e.Device != mic.id || time.Since(e.At).Abs() > time.Second {
			t.Errorf("its event was kept as %s of %s at %s", e.Kind, e.Device, e.At)
		}
	})
}

// instances returns as many statuses as a device may report.
func instances(n int) []decant.InstanceStatus {
	out := make([]decant.InstanceStatus, n)
	for i := range out {
		out[i] = decant.InstanceStatus{Application: "other", Component: "x", State: decant.InstanceRunning}
	}
	return out
}

// TestReportIsKeptAsLines: what instances say goes to terminals.
func TestReportIsKeptAsLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const esc = "\x1b]0;title\a\x1b[1A"
		s, _, gateway := newPost(t)
		said := decant.Errorf("strange", "it broke%s\n%s", esc, strings.Repeat("y", maxMessage)).WithHelp("do\n%s", esc)
		gateway.behaves(func(spec decant.InstanceSpec) decant.InstanceStatus {
			st := runs(spec)
			st.Device, st.Message, st.Error = "mic-id"+esc, "pulling\n"+strings.Repeat("x", 2*maxMessage), said
			return st
		})
		s.deploy(post())
		s.wantStatus("app", decant.DeployRunning, "")
		got := s.deployment("app").Instances["detector"]
		if got.Device != gateway.id || got.Message != decant.Line(got.Message, maxMessage) || !strings.HasPrefix(got.Message, "pulling xxx") {
			t.Errorf("kept of %q: %q", got.Device, got.Message)
		}
		if e := got.Error; e.Code != decant.Internal || e.Help != "do  ]0;title  [1A" || len(e.Message) > maxMessage || !strings.HasPrefix(e.Message, "it broke ]0;title  [1A yyy") {
			t.Errorf("kept as error: %#v", e)
		}
		if said.Code != "strange" || !strings.Contains(said.Help, esc) {
			t.Errorf("what was said is changed: %#v", said)
		}

		rep := gateway.says()
		rep.Events = []decant.Event{{Kind: "instance.failed", Application: "app", Component: "detector", Message: "x" + esc + "\n" + strings.Repeat("y", maxMessage)}}
		must(t, s.o().Report(t.Context(), gateway.id, rep))
		events, err := s.o().Events(t.Context(), 1)
		must(t, err)
		if m := events[0].Message; m != decant.Line(m, maxMessage) || !strings.HasPrefix(m, "x ]0;title  [1A yyy") {
			t.Errorf("kept event %q", m)
		}
	})
}

// TestReportOfManyEvents: of a device that tells of too much the newest are
// kept, and its report counts.
func TestReportOfManyEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, mic, _ := newPost(t)
		rep := mic.says()
		for i := range maxEvents + 2 {
			rep.Events = append(rep.Events, decant.Event{Kind: "instance.running", Message: fmt.Sprint(i)})
		}
		must(t, s.o().Report(t.Context(), mic.id, rep))
		events, err := s.o().Events(t.Context(), maxEvents+1)
		must(t, err)
		if first := events[0]; first.Kind != "device.flood" || first.Message != "device mic told of too much at once: 2 events are not kept" {
			t.Errorf("before its events: %s: %s", first.Kind, first.Message)
		}
		if first, last := events[1].Message, events[maxEvents].Message; first != "2" || last != fmt.Sprint(maxEvents+1) {
			t.Errorf("kept are %s to %s", first, last)
		}
	})
}

func TestDeviceByName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		named := func(name string) func(*decant.DeviceInfo) {
			return func(d *decant.DeviceInfo) { d.Name = name }
		}
		s.join("b")
		s.join("a")
		s.join("first", named("twin"))
		s.join("second", named("twin"))
		s.join("third", named("a-id")) // the name of one is the ID of another
		synctest.Wait()
		for nameOrID, want := range map[string]string{"a": "a-id", "b-id": "b-id", "second-id": "second-id", "a-id": "a-id"} {
			if d, err := s.o().Device(t.Context(), nameOrID); err != nil || d.ID != want {
				t.Errorf("device %s is %s, %v; want %s", nameOrID, d.ID, err, want)
			}
		}
		_, err := s.o().Device(t.Context(), "twin")
		wantErr(t, err, decant.Conflict, `2 devices are named "twin"`)
		_, err = s.o().Device(t.Context(), "c")
		wantErr(t, err, decant.NotFound, "decant device ls")
		all, err := s.o().ListDevices(t.Context())
		must(t, err)
		var names []string
		for _, d := range all {
			names = append(names, d.Name)
		}
		if got := strings.Join(names, " "); got != "a a-id b twin twin" {
			t.Errorf("devices: %s", got)
		}
	})
}

func TestFailingInstance(t *testing.T) {
	for _, code := range []decant.Code{decant.GuestFailed, decant.Internal, decant.Conflict} {
		t.Run(string(code), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, _, gateway := newPost(t)
				gateway.behaves(fails(code))
				s.deploy(post())
				// The failure is the application's alone: no error of the orchestrator.
				s.wantStatus("app", decant.DeployRolling, "component detector on gateway: it broke")
				time.Sleep(time.Minute)
				want := []string{"app." + string(code), "app.deployed", "app.placed"}
				slices.Sort(want)
				if got := s.events(); got != strings.Join(want, " ") {
					t.Errorf("events %q, want %q", got, want)
				}
				gateway.behaves(runs)
				s.wantStatus("app", decant.DeployRunning, "")
				gateway.behaves(fails(code))
				s.wantStatus("app", decant.DeployRolling, "component detector on gateway: it broke")
				gateway.behaves(runs)
				s.wantStatus("app", decant.DeployRunning, "")
			})
		})
	}
}

// TestConflictIsTriedAtOnce: somebody else has changed what was planned from,
// which need not wake this orchestrator.
func TestConflictIsTriedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, _ := newPost(t)
		s.faults.failing(false, func(tx state.Txn) error {
			if !strings.HasPrefix(tx.Then[0].Key, placementsPrefix) {
				return nil
			}
			s.faults.failing(false, nil)
			return decant.Errorf(decant.Conflict, "somebody changed it")
		})
		s.deploy(post())
		s.wantStatus("app", decant.DeployRunning, "")
	})
}

// TestBadApplicationDoesNotBlockOthers has one application whose state cannot
// be read, one whose state cannot be written and one that fits nowhere.
func TestBadApplicationDoesNotBlockOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, _ := newPost(t)
		s.log.allow.Store(true)
		_, err := s.store.Commit(t.Context(), state.Txn{Then: []state.Op{{Key: notesPrefix + "a-corrupt", Value: []byte("{")}}})
		must(t, err)
		var full atomic.Bool
		full.Store(true)
		s.faults.failing(false, func(tx state.Txn) error {
			if full.Load() && strings.HasSuffix(tx.Then[0].Key, "/a-full") && strings.HasPrefix(tx.Then[0].Key, placementsPrefix) {
				return decant.Errorf(decant.Exhausted, "the disk is full")
			}
			return nil
		})
		alone := func(name, needs string) decant.Application {
			return decant.Application{Name: name, Components: map[string]decant.Component{"x": {Package: "frames", Needs: decant.Needs{Peripherals: []string{needs}}}}}
		}
		must(t, s.o().commit(context.Background(), nil, put(appsPrefix+"a-corrupt", appRecord{Application: alone("a-corrupt", "clock"), Revision: 1})))
		s.deploy(alone("a-full", "clock"))
		s.deploy(alone("a-nowhere", "camera"))
		s.deploy(post())
		s.wantStatus("app", decant.DeployRunning, "")
		s.wantStatus("a-full", decant.DeployPending, "")
		s.wantStatus("a-nowhere", decant.DeployPending, "has no camera")
		if s.log.seen.Load() == 0 {
			t.Error("nothing is logged of what cannot be read or written")
		}

		full.Store(false)
		time.Sleep(retryAfter) // nothing else changes
		s.wantStatus("a-full", decant.DeployRunning, "")
		_, err = s.store.Commit(t.Context(), state.Txn{Then: []state.Op{{Key: notesPrefix + "a-corrupt", Delete: true}}})
		must(t, err)
		time.Sleep(retryAfter)
		s.wantStatus("a-corrupt", decant.DeployRunning, "")
	})
}
