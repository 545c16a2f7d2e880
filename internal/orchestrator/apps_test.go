package orchestrator

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/state"
)

// post is an ear that feeds a detector: each on the only device it fits.
func post() decant.Application {
	a := appOf("ear detector", "ear->detector")
	a.Components["ear"] = decant.Component{Package: "frames@^1", Needs: decant.Needs{Peripherals: []string{"microphone"}}}
	a.Components["detector"] = decant.Component{Package: "detector@^1", Function: "detect"}
	return a
}

// newPost makes a site with the packages of post, and the two devices for it.
func newPost(t *testing.T) (s *testSite, mic, gateway *fakeDevice) {
	t.Helper()
	s = newSite(t)
	s.push("frames@1.0.0", "frames")
	s.push("detector@1.0.0", "detect status", func(p *decant.PackageSpec) { p.Needs.Peripherals = []string{"clock"} })
	mic, gateway = s.join("mic", hasPeripheral("microphone")), s.join("gateway", hasPeripheral("clock"))
	synctest.Wait() // they are online
	return s, mic, gateway
}

func TestDeploy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, mic, gateway := newPost(t)
		mic.behaves(silent)
		gateway.behaves(silent)
		if d := s.deploy(post()); d.Revision != 1 || len(d.Packages) != 2 || d.CreatedAt.IsZero() {
			t.Errorf("deployed: %+v", d)
		}
		s.wantStatus("app", decant.DeployRolling, "component detector waits for gateway to answer")
		s.wantPlaces("app", "detector@gateway-id/1 pending, ear@mic-id/1 pending")
		d := s.deployment("app")
		if got, want := describeSteps(d.Plan.Steps), "(start detector@gateway-id/1), (start ear@mic-id/1), ready detector@gateway-id/1, ready ear@mic-id/1"; got != want {
			t.Errorf("\nplan %s\nwant %s", got, want)
		}
		if a := d.Placement.Components["ear"]; d.Placement.Revision != 1 || a.Reason != "the only device that has a microphone" {
			t.Errorf("placed %+v", d.Placement)
		}
		if got, want := gateway.told(), "detector/1.1 detect"; got != want {
			t.Errorf("gateway was told %q, want %q", got, want)
		}
		if got, want := mic.told(), "ear/1.1 frames ->detector/1 detect at gateway:1"; got != want {
			t.Errorf("mic was told %q, want %q", got, want)
		}

		gateway.behaves(runs)
		s.wantStatus("app", decant.DeployRolling, "component ear waits for mic to answer")
		mic.behaves(runs)
		s.wantStatus("app", decant.DeployRunning, "")
		s.wantPlaces("app", "detector@gateway-id/1 running, ear@mic-id/1 running")
		if d := s.deployment("app"); !d.Plan.Done() {
			t.Errorf("it runs, but its plan is %s", describeSteps(d.Plan.Steps))
		}
		if got, want := s.events(), "app.deployed app.placed"; got != want {
			t.Errorf("events %q, want %q", got, want)
		}
	})
}

func TestDeployAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, gateway := newPost(t)
		began := time.Now()
		for range 2 {
			if d := s.deploy(post()); d.Revision != 1 {
				t.Errorf("deployed unchanged: revision %d", d.Revision)
			}
		}
		s.wantStatus("app", decant.DeployRunning, "")
		if d := s.deploy(post()); d.Revision != 1 || d.Status != decant.DeployRunning {
			t.Errorf("deployed unchanged: revision %d, %s", d.Revision, d.Status)
		}
		time.Sleep(time.Second)
		s.push("detector@1.1.0", "detect status", func(p *decant.PackageSpec) { p.Needs.Peripherals = []string{"clock"} })
		if d := s.deploy(post()); d.Revision != 2 {
			t.Errorf("deployed with a newer package: revision %d", d.Revision)
		}
		s.wantStatus("app", decant.DeployRunning, "")
		s.wantPlaces("app", "detector@gateway-id/1 running, ear@mic-id/1 running")
		if got, want := gateway.desired.Instances[0].Package, "detector@1.1.0"; got != want {
			t.Errorf("gateway runs %s, want %s", got, want)
		}
		if d := s.deployment("app"); d.Placement.Revision != 2 || !d.CreatedAt.Equal(began) || !d.ChangedAt.After(began) {
			t.Errorf("placed revision %d, created at %s, changed at %s", d.Placement.Revision, d.CreatedAt, d.ChangedAt)
		}
		for _, tt := range []struct {
			after int
			code  decant.Code
		}{{1, decant.Conflict}, {3, decant.Conflict}, {2, ""}, {0, ""}} {
			if _, err := s.o().Deploy(t.Context(), post(), tt.after); decant.CodeOf(err) != tt.code {
				t.Errorf("after revision %d: %v, want %q", tt.after, err, tt.code)
			}
		}
		history, err := s.o().History(t.Context(), "app")
		must(t, err)
		if len(history) != 2 || history[0].Revision != 2 || history[1].Revision != 1 || history[1].Packages[0].Ref() != "detector@1.0.0" {
			t.Errorf("history: %+v", history)
		}
	})
}

// TestDeployBetween has somebody else deploy after a deployment looked and
// before it wrote.
func TestDeployBetween(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, _ := newPost(t)
		alone := post()
		alone.Links = nil
		s.faults.failing(false, func(tx state.Txn) error {
			if tx.Then[0].Key == appsPrefix+"app" {
				s.faults.failing(false, nil)
				s.deploy(alone)
			}
			return nil
		})
		_, err := s.o().Deploy(t.Context(), post(), 0)
		wantErr(t, err, decant.Conflict)
		if d := s.deployment("app"); d.Revision != 1 || len(d.Application.Links) != 0 {
			t.Errorf("deployed: %+v", d.Application)
		}
	})
}

// TestDeployWhileItStarts has the next revision deployed before a step of the
// one before is taken; checkHistory holds that it is not.
func TestDeployWhileItStarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, mic, _ := newPost(t)
		alone := post()
		alone.Links = nil
		s.faults.failing(false, func(tx state.Txn) error {
			if tx.Then[0].Key == ownerKey("app", "ear") {
				s.faults.failing(false, nil)
				_, err := s.o().Deploy(t.Context(), alone, 1)
				return err
			}
			return nil
		})
		s.deploy(post())
		s.wantStatus("app", decant.DeployRunning, "")
		if got, want := mic.told(), "ear/1.2 frames"; got != want {
			t.Errorf("mic is told %q, want %q", got, want)
		}
	})
}

// TestApplicationsShareDevices holds that what others were given is not given
// again.
func TestApplicationsShareDevices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, _ := newPost(t) // of 1GiB each
		big := func(name string) decant.Application {
			part := decant.Component{Package: "detector", Function: "detect", Needs: decant.Needs{Memory: 600 * decant.MiB}}
			return decant.Application{Name: name, Components: map[string]decant.Component{"x": part}}
		}
		s.deploy(big("first"))
		s.wantStatus("first", decant.DeployRunning, "")
		s.deploy(big("second"))
		s.wantStatus("second", decant.DeployPending, "gateway has 424MiB of memory to give, not 600MiB")
		must(t, s.o().Undeploy(t.Context(), "first"))
		s.wantStatus("second", decant.DeployRunning, "")
	})
}

func TestUpdate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, mic, gateway := newPost(t)
		s.deploy(post())
		s.wantStatus("app", decant.DeployRunning, "")
		gateway.behaves(silent)

		alone := post()
		delete(alone.Components, "detector")
		alone.Links = nil
		alone.Components["clock"] = decant.Component{Package: "detector", Function: "status"}
		s.deploy(alone)
		s.wantStatus("app", decant.DeployRolling, "component clock waits for gateway to answer")
		if got, want := gateway.told(), "clock/1.2 status, detector/1.1 detect"; got != want {
			t.Errorf("before clock runs gateway is told %q, want %q", got, want)
		}
		gateway.behaves(runs)
		s.wantStatus("app", decant.DeployRunning, "")
		if got := gateway.told() + "; " + mic.told(); got != "clock/1.2 status; ear/1.2 frames" {
			t.Errorf("told %q", got)
		}

		s.deploy(post()) // what was dropped comes back as another instance
		s.wantStatus("app", decant.DeployRunning, "")
		if got := gateway.told(); got != "detector/2.3 detect" {
			t.Errorf("when the detector is back gateway is told %q", got)
		}
	})
}

func TestUndeploy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, mic, gateway := newPost(t)
		wantErr(t, s.o().Undeploy(t.Context(), "app"), decant.NotFound, "decant app ls")
		s.deploy(post())
		s.deploy(decant.Application{Name: "app-2", Components: map[string]decant.Component{"other": {Package: "frames"}}})
		s.wantStatus("app", decant.DeployRunning, "")

		// It cannot go yet, so that it is seen while it goes.
		s.faults.failing(false, func(tx state.Txn) error {
			if strings.HasPrefix(tx.Then[0].Key, plansPrefix) {
				return decant.Errorf(decant.Unavailable, "not yet")
			}
			return nil
		})
		s.log.allow.Store(true)
		must(t, s.o().Undeploy(t.Context(), "app"))
		must(t, s.o().Undeploy(t.Context(), "app"))
		s.wantStatus("app", decant.DeployRemoving, "")
		_, err := s.o().Deploy(t.Context(), post(), 0)
		wantErr(t, err, decant.Conflict, "is being removed")
		s.faults.failing(false, nil)

		s.until("app is gone", func() bool { return s.keys(appsPrefix) == "apps/app-2" })
		_, err = s.o().Deployment(t.Context(), "app")
		wantErr(t, err, decant.NotFound)
		_, err = s.o().History(t.Context(), "app")
		wantErr(t, err, decant.NotFound)
		synctest.Wait()
		if got := mic.told() + gateway.told(); strings.Contains(got, "ear") || strings.Contains(got, "detector") {
			t.Errorf("devices are still told %q", got)
		}
		for _, prefix := range []string{historyPrefix, placementsPrefix, plansPrefix, notesPrefix} {
			if left := s.keys(prefix + "app"); strings.Contains(left+" ", prefix+"app ") || strings.Contains(left, prefix+"app/") {
				t.Errorf("left: %s", left)
			}
		}
		s.wantStatus("app-2", decant.DeployRunning, "")

		s.deploy(post())
		s.wantStatus("app", decant.DeployRunning, "")
		s.wantPlaces("app", "detector@gateway-id/2 running, ear@mic-id/2 running")
		if d := s.deployment("app"); d.Revision != 1 {
			t.Errorf("revision %d, want 1", d.Revision)
		}

		// What a device said of the one before says nothing of the one after.
		gateway.stop()
		must(t, s.o().Undeploy(t.Context(), "app"))
		synctest.Wait()
		s.deploy(post())
		s.wantPlaces("app", "detector@gateway-id/3 pending, ear@mic-id/3 running")
	})
}

func TestInfeasibleIsPlacedByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, gateway := newPost(t)
		app := post()
		app.Components["detector"] = decant.Component{Package: "detector", Function: "detect", Needs: decant.Needs{Labels: map[string]string{"site": "hall"}}}
		s.deploy(app)
		s.wantStatus("app", decant.DeployPending, `component detector fits no device: gateway has label site="", not "hall", mic has no clock`)
		if s.events() != "app.deployed app.infeasible" {
			t.Errorf("events %s", s.events())
		}
		if got := s.keys(desiredPrefix) + s.keys(ownersPrefix); got != "" {
			t.Errorf("it is in part already there: %s", got)
		}
		s.join("attic", hasPeripheral("clock"))
		s.wantStatus("app", decant.DeployPending, `attic has label site="", not "hall", gateway has`)
		s.join("hall", hasPeripheral("clock"), func(d *decant.DeviceInfo) { d.Labels = map[string]string{"site": "hall"} })
		s.wantStatus("app", decant.DeployRunning, "")
		s.wantPlaces("app", "detector@hall-id/1 running, ear@mic-id/1 running")

		// So it is with a device that becomes fit.
		app.Components["detector"] = decant.Component{Package: "detector", Function: "detect", Needs: decant.Needs{Labels: map[string]string{"site": "cellar"}}}
		s.deploy(app)
		s.wantStatus("app", decant.DeployRolling, `hall has label site="hall", not "cellar"`)
		gateway.mu.Lock()
		gateway.info.Labels = map[string]string{"site": "cellar"}
		gateway.mu.Unlock()
		gateway.changed()
		s.wantStatus("app", decant.DeployRunning, "")
		s.wantPlaces("app", "detector@gateway-id/2 running, ear@mic-id/1 running")
	})
}
