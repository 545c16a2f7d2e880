package e2e_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/e2e/fleet"
)

// TestKilledAtAnyMoment kills one process after the other, each at a moment of
// chance, while packages are pushed and calls are made. After each restart all
// that was acknowledged is there, and the application goes on where it was.
func TestKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	procs := map[string]*fleet.Process{"orchestrator": s.startOrchestrator()}
	procs["left"] = s.device("left", "labels: {side: left}\n")
	procs["right"] = s.device("right", "labels: {side: right}\n")
	_, err := s.WaitOnline(s.ctx, 2)
	s.must(err)
	s.push("counter", "shout")
	s.deploy(`
application: echo
components:
  count: {package: counter, needs: {labels: {side: left}}}
  shout: {package: shout, needs: {labels: {side: right}}}
links: [count -> shout]
`)
	before := s.status("echo", decant.DeployRunning)

	seed := rand.Uint64()
	chance := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	load := startLoad(s)
	names := slices.Sorted(maps.Keys(procs))
	for round := range 9 {
		name := names[round%len(names)]
		time.Sleep(time.Duration(chance.IntN(400)) * time.Millisecond) // the moment is the test
		procs[name].Kill()
		if name == "orchestrator" {
			procs[name] = s.startOrchestrator()
		} else {
			procs[name] = s.restart(name)
		}
		s.until("a call succeeds after "+name+" was killed", load.succeeds())
	}
	load.stop()

	after := s.status("echo", decant.DeployRunning)
	for name, was := range before.Instances {
		if now := after.Instances[name]; now.Device != was.Device || now.Epoch != was.Epoch {
			t.Errorf("component %s was %+v, is %+v", name, was, now)
		}
	}
	if before.Revision != after.Revision {
		t.Errorf("revision %d was %d", after.Revision, before.Revision)
	}
	have := map[string]bool{}
	for _, p := range query[[]decant.Package](s, "package", "ls") {
		have[p.Ref()] = true
	}
	for _, ref := range load.pushed {
		if !have[ref] {
			t.Errorf("the push of %s was acknowledged, and it is lost", ref)
		}
	}
	t.Logf("%d calls succeeded, %d failed; %d pushes were acknowledged", load.called, load.failed, len(load.pushed))
	if len(load.pushed) == 0 {
		t.Error("no push was acknowledged")
	}
}

// load calls and pushes until it is stopped.
type load struct {
	s    *site
	done chan struct{}
	wg   sync.WaitGroup

	mu             sync.Mutex
	called, failed int
	pushed         []string
}

func startLoad(s *site) *load {
	l := &load{s: s, done: make(chan struct{})}
	l.wg.Go(func() { l.repeat(l.call) })
	l.wg.Go(func() { l.repeat(l.push) })
	return l
}

func (l *load) repeat(f func(i int)) {
	for i := 0; ; i++ {
		select {
		case <-l.done:
			return
		default:
			f(i)
		}
	}
}

func (l *load) call(int) {
	out, err := l.s.Decant(l.s.ctx, nil, "invoke", "echo")
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err != nil && !strings.Contains(err.Error(), "exit status 1: decant: "):
		l.s.t.Errorf("a call failed without saying why: %v", err)
	case err != nil:
		l.failed++
	case !strings.HasSuffix(string(out), "\n"):
		l.s.t.Errorf("a call answered %q", out)
	default:
		l.called++
	}
}

// push pushes the i-th version of a package with a file of its own.
func (l *load) push(i int) {
	ref := fmt.Sprintf("weights@1.0.%d", i)
	dir := filepath.Join(l.s.Dir, "weights")
	_ = os.MkdirAll(dir, 0o755)
	spec := fmt.Sprintf("package: weights\nversion: 1.0.%d\nmodel: {file: m.onnx, format: onnx}\n", i)
	_ = os.WriteFile(filepath.Join(dir, "package.yaml"), []byte(spec), 0o644)
	_ = os.WriteFile(filepath.Join(dir, "m.onnx"), []byte(strings.Repeat(ref, 100_000)), 0o644)
	if _, err := l.s.Decant(l.s.ctx, nil, "package", "push", dir); err == nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.pushed = append(l.pushed, ref)
	}
}

// succeeds returns what reports whether a call has succeeded since.
func (l *load) succeeds() func() bool {
	count := func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.called
	}
	before := count()
	return func() bool { return count() > before }
}

func (l *load) stop() {
	close(l.done)
	l.wg.Wait()
}
