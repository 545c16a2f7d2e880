package orchestrator

import (
	"strings"
	"testing"
	"testing/synctest"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/state"
)

// several is two orchestrators on one state, driven by hand, and an application
// of one component that wants a device in the hall.
type several struct {
	*testSite
	quick, slow *Orchestrator
}

func newSeveral(t *testing.T) *several {
	t.Helper()
	s := newSite(t)
	s.push("free@1.0.0", "run")
	s.kill()
	return &several{testSite: s, quick: New(s.config(s.store)), slow: New(s.config(s.faults))}
}

func (s *several) deploy() {
	s.t.Helper()
	app := appOf("a", "")
	app.Components["a"] = decant.Component{Package: "free", Needs: decant.Needs{Labels: map[string]string{"site": "hall"}}}
	_, err := s.quick.Deploy(s.t.Context(), app, 0)
	must(s.t, err)
}

func (s *several) reconcile() {
	s.t.Helper()
	must(s.t, s.quick.reconcile(s.t.Context(), "app"))
}

// report has a device say that it runs what it was told, and where it stands.
func (s *several) report(name, label string) {
	s.t.Helper()
	d := &fakeDevice{id: name, behave: runs, info: decant.DeviceInfo{ID: name, Name: name, Labels: map[string]string{"site": label}}}
	must(s.t, each(s.t.Context(), s.store, desiredPrefix+name+"/", func(_ string, spec decant.InstanceSpec, _ int64) {
		d.desired.Instances = append(d.desired.Instances, spec)
	}))
	must(s.t, s.quick.commit(s.t.Context(), nil, put(devicesPrefix+name, deviceRecord{Info: d.info, Status: decant.DeviceJoined})))
	must(s.t, s.quick.Report(s.t.Context(), name, d.says()))
}

// overtake has the slow one plan, and then begin again; after it has looked at
// the owners, and before it has looked at the rest, the quick one takes the
// first step of that plan, and then follows what else happens meanwhile. Its
// view is of two moments; it must notice before it harms.
func (s *several) overtake(meanwhile func()) {
	s.t.Helper()
	s.faults.failing(false, func(tx state.Txn) error {
		if strings.HasPrefix(tx.Then[0].Key, ownersPrefix) {
			return decant.Errorf(decant.Unavailable, "it plans only")
		}
		return nil
	})
	wantErr(s.t, s.slow.reconcile(s.t.Context(), "app"), decant.Unavailable)
	s.faults.failing(false, nil)
	s.faults.onList = func(prefix string) {
		if prefix == ownersPrefix+"app/" {
			s.faults.onList = nil
			s.reconcile()
			meanwhile()
		}
	}
	wantErr(s.t, s.slow.reconcile(s.t.Context(), "app"), decant.Conflict, ownerKey("app", "a"))
}

func (s *several) wantOnly(device, places string) {
	s.t.Helper()
	s.start()
	s.wantPlaces("app", places)
	if got := s.keys(desiredPrefix); got != desiredKey(device, "app", "a") {
		s.t.Errorf("desired: %s", got)
	}
}

// TestStopsNothingThatHasANewOwner: the slow one finds superfluous what the
// quick one has just made the owner.
func TestStopsNothingThatHasANewOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSeveral(t)
		s.report("one", "hall")
		s.report("two", "")
		s.deploy()
		s.reconcile()
		s.report("one", "hall")
		s.reconcile()

		s.report("one", "attic") // so it must move to two
		s.report("two", "hall")
		s.overtake(func() { s.report("one", "hall") }) // and now it need not have

		s.reconcile()
		s.report("two", "hall")
		s.reconcile()
		s.wantOnly("two", "a@two/2 running")
	})
}

// TestStartsNothingTwice: the slow one finds no owner, and another place.
func TestStartsNothingTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSeveral(t)
		s.report("one", "")
		s.report("two", "hall")
		s.deploy()
		s.overtake(func() {
			s.report("one", "hall")
			s.report("two", "attic")
		})

		s.reconcile()
		s.report("one", "hall")
		s.reconcile()
		s.wantOnly("one", "a@one/2 running")
	})
}

// TestForgetsNothingNew: the application is gone and there again before the
// slow one comes to forget it.
func TestForgetsNothingNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSeveral(t)
		s.report("one", "hall")
		s.deploy()
		must(t, s.quick.Undeploy(t.Context(), "app"))
		s.faults.onList = func(prefix string) {
			if prefix == historyPrefix+"app/" {
				s.faults.onList = nil
				s.reconcile()
				s.deploy()
			}
		}
		wantErr(t, s.slow.reconcile(t.Context(), "app"), decant.Conflict)
		s.reconcile()
		s.report("one", "hall")
		s.reconcile()
		s.wantOnly("one", "a@one/1 running")
	})
}
