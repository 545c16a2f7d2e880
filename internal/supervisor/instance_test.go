package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/transport"
)

func TestRunsWhatIsDesiredAndNothingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t)
		d.desire(d.spec("a", "upper"), d.spec("b", "echo"))
		d.wantState("a", decant.InstanceRunning)
		if got, err := d.invoke("a", "", "hi"); got != "HI" || err != nil {
			t.Fatalf("answer %q, %v", got, err)
		}
		if !exists(d.statePath("app/a")) || !exists(d.logPath("app/a")) {
			t.Error("a running instance has no state folder or no log")
		}
		d.desire(d.spec("b", "echo"))
		if list := d.Instances(); len(list) != 1 || list[0].Component != "b" {
			t.Fatalf("after the removal: %+v", list)
		}
		if exists(d.statePath("app/a")) || exists(d.logPath("app/a")) {
			t.Error("a removed instance left its state folder or its log")
		}
		if _, err := d.invoke("a", "", "hi"); !errors.Is(err, decant.NotFound) {
			t.Errorf("call of a removed instance: %v", err)
		}
		if got := strings.Join(d.host.closed, ", "); got != "upper" || d.host.compiled["upper"] != 0 {
			t.Errorf("closed %q, module in use %d", got, d.host.compiled["upper"])
		}
	})
}

func TestModulesAreCompiledOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t)
		d.desire(d.spec("a", "echo"), d.spec("b", "echo"), d.spec("c", "echo"))
		if d.host.compiled["echo"] != 1 || d.host.starts() != "echo, echo, echo" {
			t.Errorf("compiled %d times; started %s", d.host.compiled["echo"], d.host.starts())
		}
	})
}

func TestGoesOnFromDiskWithoutAnyNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data := t.TempDir()
		d := newDeviceIn(t, data)
		d.desire(d.spec("a", "upper"), d.spec("gone", "echo"))
		must(t, os.WriteFile(filepath.Join(d.statePath("app/a"), "kept"), nil, 0o600))
		d.stop()
		if s := d.status("a").State; s != decant.InstanceStopped {
			t.Errorf("after the stop it is %s", s)
		}
		// What a removal during the crash would have left behind.
		must(t, os.MkdirAll(filepath.Join(data, "state", "app", "orphan"), 0o700))

		d = newDeviceIn(t, data)
		if got, err := d.invoke("a", "", "hi"); got != "HI" || err != nil {
			t.Fatalf("after the restart: %q, %v", got, err)
		}
		if !exists(filepath.Join(d.statePath("app/a"), "kept")) {
			t.Error("the restart lost the instance's files")
		}
		if exists(d.statePath("app/orphan")) {
			t.Error("the state folder of a removed instance is still there")
		}
	})
}

func TestRestartsALostGuest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t)
		d.desire(d.spec("a", "trap"))
		if _, err := d.invoke("a", "", "trap"); !errors.Is(err, decant.GuestFailed) {
			t.Fatalf("trap: %v", err)
		}
		if got, err := d.invoke("a", "", "hi"); got != "hi" || err != nil { // queued until the fresh one is there
			t.Fatalf("after the trap: %q, %v", got, err)
		}
		synctest.Wait()
		s := d.status("a")
		if s.State != decant.InstanceRunning || s.Restarts != 1 || s.Calls.Count != 2 || s.Calls.Failed != 1 {
			t.Errorf("status %+v", s)
		}

		d.host.fail["start trap"] = errors.New("no memory")
		_, _ = d.invoke("a", "", "trap")
		synctest.Wait()
		d.wantState("a", decant.InstanceFailed)
		if _, err := d.invoke("a", "", "hi"); !errors.Is(err, decant.Unavailable) {
			t.Errorf("call of a failed instance: %v", err)
		}
		time.Sleep(2 * retryFirst)
		synctest.Wait()
		d.wantState("a", decant.InstanceRunning)
	})
}

// Each way to fail on the way to running: the state and the code say so, other
// instances are not affected, and it comes up once the cause is gone.
func TestFaults(t *testing.T) {
	fromRemote := func(s *decant.InstanceSpec) {
		s.Module.Digest, s.Module.Size = decant.DigestOf([]byte(remote)), decant.Bytes(len(remote))
	}
	withScreen := func(s *decant.InstanceSpec) { s.Peripherals = []string{"screen"} }
	for _, c := range []struct {
		fault  string
		change func(*decant.InstanceSpec)
		code   decant.Code
	}{
		{"pull", fromRemote, decant.Unavailable},
		{"pull the right bytes", fromRemote, decant.Corrupt},
		{"compile upper", func(*decant.InstanceSpec) {}, decant.Invalid},
		{"start upper", func(*decant.InstanceSpec) {}, decant.GuestFailed},
		{"open screen", withScreen, decant.NotFound},
	} {
		t.Run(c.fault, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDevice(t)
				other := d.spec("other", "echo")
				d.desire(other)
				d.host.fail[c.fault] = decant.Errorf(c.code, "broken")
				d.desire(other, d.spec("x", "upper", c.change))
				d.wantState("x", decant.InstanceFailed)
				if s := d.status("x"); !errors.Is(s.Error, c.code) {
					t.Errorf("error %v, want %s", s.Error, c.code)
				}
				if _, err := d.invoke("other", "", "hi"); err != nil || strings.Count(d.host.starts(), "echo") != 1 {
					t.Errorf("the other instance was disturbed: %v", err)
				}
				time.Sleep(2 * retryFirst)
				synctest.Wait()
				d.wantState("x", decant.InstanceRunning)
				if got, err := d.invoke("x", "", "hi"); got != "HI" || err != nil {
					t.Errorf("once the fault is gone: %q, %v", got, err)
				}
			})
		})
	}
}

func TestSaysWhatTheDeviceDoesNotHave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t)
		model := d.spec("model", "bytes").Module
		d.desire(
			d.spec("camera", "echo", func(s *decant.InstanceSpec) { s.Peripherals = []string{"camera"} }),
			d.spec("model", "echo", func(s *decant.InstanceSpec) {
				s.Models = map[string]decant.BoundModel{"m": {Package: "m@1.0.0", Format: "onnx", Model: model}}
			}))
		for component, want := range map[string]decant.Code{"camera": decant.Infeasible, "model": decant.Unsupported} {
			d.wantState(component, decant.InstanceFailed)
			if err := d.status(component).Error; !errors.Is(err, want) {
				t.Errorf("%s: %v, want %s", component, err, want)
			}
		}
	})
}

func TestUpdateLosesNoCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t)
		d.desire(d.spec("a", "slow old"))
		answers := make(chan error, 10)
		for i := range 10 {
			go func() {
				time.Sleep(time.Duration(i) * 300 * time.Millisecond) // before, during and after the swap
				got, err := d.invoke("a", "", "hi")
				if err == nil && got != "hi" {
					err = fmt.Errorf("answer %q", got)
				}
				answers <- err
			}()
		}
		time.Sleep(500 * time.Millisecond)
		d.desire(d.spec("a", "slow new", func(s *decant.InstanceSpec) { s.Revision = 2 }))
		for range 10 {
			if err := <-answers; err != nil {
				t.Error(err)
			}
		}
		if s := d.status("a"); s.Revision != 2 || d.host.starts() != "slow old, slow new" || strings.Join(d.host.closed, ", ") != "slow old" {
			t.Errorf("%+v; started %s; closed %s", s, d.host.starts(), d.host.closed)
		}
	})
}

// TestUpdateThatNeverStarts: a new version that initializes itself for ever does
// not take the old one down.
func TestUpdateThatNeverStarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t)
		d.desire(d.spec("a", "echo"))
		d.desire(d.spec("a", "never", func(s *decant.InstanceSpec) { s.Revision = 2 }))
		began := time.Now()
		if got, err := d.invoke("a", "", "hi"); got != "hi" || err != nil || time.Since(began) > startDeadline {
			t.Errorf("answer %q, %v after %s", got, err, time.Since(began))
		}
		synctest.Wait()
		if err := d.status("a").Error; err == nil || err.Code != decant.Deadline {
			t.Errorf("its error is %v", err)
		}
	})
}

// TestCallThatDoesNotEnd: a call that cannot be ended does not keep the process.
func TestCallThatDoesNotEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t)
		d.ends = ErrStuck
		d.desire(d.spec("a", "deaf"))
		answered := make(chan struct{})
		go func() {
			defer close(answered)
			_, _ = d.invoke("a", "", "hi")
		}()
		synctest.Wait()
		began := time.Now()
		d.stop()
		if took := time.Since(began); took != 2*grace {
			t.Errorf("stopped after %s", took)
		}
		<-answered // a process would have gone
	})
}

func TestFailedUpdateLeavesTheOldOneServing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t)
		d.desire(d.spec("a", "count"))
		_, _ = d.invoke("a", "", "")
		for _, fault := range []string{"compile upper", "start upper"} {
			d.host.fail[fault] = decant.Errorf(decant.Invalid, "broken")
			d.desire(d.spec("a", "upper "+fault, func(s *decant.InstanceSpec) { s.Revision = 2 }))
			s := d.status("a")
			if s.State != decant.InstanceRunning || s.Revision != 1 || !errors.Is(s.Error, decant.Invalid) {
				t.Errorf("%s: status %+v", fault, s)
			}
			d.desire(d.spec("a", "count"))
			if s := d.status("a"); s.Error != nil {
				t.Errorf("back at the old revision it still says %v", s.Error)
			}
		}
		if got, _ := d.invoke("a", "", ""); got != "2" {
			t.Errorf("the old guest lost its memory: call %s", got)
		}
	})
}

func TestWhatIsNotAPartChangesWhileItRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t)
		d.desire(d.spec("a", "count"), d.spec("up", "upper"))
		_, _ = d.invoke("a", "", "")
		d.desire(d.spec("up", "upper"), d.spec("a", "count", func(s *decant.InstanceSpec) {
			s.Revision, s.Epoch, s.Functions = 2, 5, map[string]decant.Function{"run": {Out: "text/plain"}}
		}))
		resp, err := d.Call(t.Context(), &transport.Request{Application: "app", Component: "a", Epoch: 5})
		if err != nil || string(resp.Body) != "2" || resp.ContentType != "text/plain" {
			t.Fatalf("%v, %v", resp, err)
		}
		if s := d.status("a"); s.Revision != 2 || s.Epoch != 5 {
			t.Errorf("status %+v", s)
		}
	})
}

func TestComesBackWhenDesiredAgainWhileItStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t)
		slow := d.spec("a", "slow")
		d.desire(slow)
		answer := make(chan error)
		go func() {
			_, err := d.invoke("a", "", "hi")
			answer <- err
		}()
		synctest.Wait()
		d.desire()
		d.wantState("a", decant.InstanceStopping)
		d.desire(slow)
		if err := <-answer; err != nil {
			t.Errorf("the call in the guest: %v", err)
		}
		synctest.Wait()
		d.wantState("a", decant.InstanceRunning)
	})
}

func TestStopIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t)
		d.host.behave["hang"] = func(ctx context.Context, g *fakeGuest, _ string, _ []byte) ([]byte, error) {
			<-ctx.Done()
			g.lost = true
			return nil, ctx.Err()
		}
		d.desire(d.spec("a", "hang"))
		go func() { _, _ = d.invoke("a", "", "") }()
		synctest.Wait()
		began := time.Now()
		d.stop()
		if took := time.Since(began); took > grace+time.Second {
			t.Errorf("the stop took %s", took)
		}
	})
}

func TestAdmit(t *testing.T) {
	spec := func(component string, epoch int64) decant.InstanceSpec {
		d := decant.DigestOf([]byte(component))
		return decant.InstanceSpec{Application: "app", Component: component, Epoch: epoch, Module: decant.Blob{Digest: d}}
	}
	desired := func(revision int64, specs ...decant.InstanceSpec) decant.Desired {
		return decant.Desired{Revision: revision, Instances: specs}
	}
	evil := spec("a", 1)
	evil.Component = "../../etc"
	loose := spec("c", 1)
	loose.Trigger = &decant.Trigger{Peripheral: "mic"}
	for name, c := range map[string]struct {
		present, next decant.Desired
		want          string
		refused       int
	}{
		"new":                 {desired(0), desired(1, spec("a", 1)), "a@1", 0},
		"higher epoch":        {desired(1, spec("a", 1)), desired(2, spec("a", 2)), "a@2", 0},
		"lower epoch":         {desired(1, spec("a", 3)), desired(2, spec("a", 2), spec("b", 1)), "a@3 b@1", 1},
		"lower revision":      {desired(9, spec("a", 1)), desired(2, spec("b", 1)), "b@1", 0},
		"not a name":          {desired(0), desired(1, evil, spec("b", 1)), "b@1", 1},
		"twice":               {desired(0), desired(1, spec("a", 1), spec("a", 2)), "a@1", 1},
		"trigger not a need":  {desired(0), desired(1, loose), "", 1},
		"nothing any more":    {desired(1, spec("a", 1)), desired(2), "", 0},
		"digest is no digest": {desired(0), desired(1, decant.InstanceSpec{Application: "app", Component: "a"}), "", 1},
	} {
		got, refusals := admit(c.present, c.next)
		var list []string
		for _, s := range got.Instances {
			list = append(list, fmt.Sprintf("%s@%d", s.Component, s.Epoch))
		}
		if s := strings.Join(list, " "); s != c.want || len(refusals) != c.refused || got.Revision != c.next.Revision {
			t.Errorf("%s: %q with %d refusals at revision %d, want %q with %d", name, s, len(refusals), got.Revision, c.want, c.refused)
		}
	}
}

// TestDiagram holds the picture in ARCHITECTURE.md to the transitions.
func TestDiagram(t *testing.T) {
	var lines []string
	for from, all := range transitions {
		for _, to := range all {
			lines = append(lines, fmt.Sprintf("    %s --> %s\n", from, to))
		}
	}
	slices.Sort(lines)
	want := "```mermaid\nstateDiagram-v2\n" + strings.Join(lines, "") + "```\n"
	text, err := os.ReadFile("../../ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), want) {
		t.Errorf("ARCHITECTURE.md does not have\n%s", want)
	}
}
