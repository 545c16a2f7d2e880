// Package fleet runs a site of real processes: an orchestrator, supervisors
// and the command line, each from bin/. The demos, the end-to-end tests and
// the benchmarks stand on it.
package fleet

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/client"
)

// Fleet is a site in a folder: orchestrator/ and one folder for each device
// hold what the processes keep, logs/ what they print.
type Fleet struct {
	Dir      string // absolute
	Bin      string // folder of the programs, absolute
	Detached bool   // what is started goes on when this program ends
	// Via returns the command that starts the process of that name in a place of
	// its own, such as ip netns exec; nil: all are started here.
	Via func(name string) []string

	mu    sync.Mutex
	procs map[string]*Process
}

// New makes a fleet in dir with the programs of bin. Nothing runs yet.
func New(dir, bin string) (*Fleet, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if bin, err = filepath.Abs(bin); err != nil {
		return nil, err
	}
	for _, p := range []string{"decant", "decant-supervisor"} {
		if _, err := os.Stat(filepath.Join(bin, p)); err != nil {
			return nil, decant.Errorf(decant.NotFound, "%s is not built", filepath.Join(bin, p)).WithHelp("run `make build`")
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "logs"), 0o755); err != nil {
		return nil, err
	}
	return &Fleet{Dir: dir, Bin: bin, procs: map[string]*Process{}}, nil
}

// Process is one running program.
type Process struct {
	Name string
	cmd  *exec.Cmd
	log  *os.File
	done chan struct{}
	err  error // once done is closed
}

// Start starts a program of Bin as the process of that name; what it prints
// is appended to logs/<name>.log.
func (f *Fleet) Start(name, program string, args ...string) (*Process, error) {
	log, err := os.OpenFile(f.LogPath(name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	p := &Process{Name: name, log: log, done: make(chan struct{})}
	words := append([]string{filepath.Join(f.Bin, program)}, args...)
	if f.Via != nil {
		words = append(f.Via(name), words...)
	}
	p.cmd = exec.Command(words[0], words[1:]...) //nolint:noctx // it ends by Stop or Kill
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.Env = f.env()
	p.cmd.SysProcAttr = childAttributes(f.Detached)
	if err := p.cmd.Start(); err != nil {
		_ = log.Close()
		return nil, err
	}
	go func() {
		p.err = p.cmd.Wait()
		_ = log.Close()
		close(p.done)
	}()
	f.mu.Lock()
	f.procs[name] = p
	f.mu.Unlock()
	return p, nil
}

// LogPath returns the file that the process of that name prints to.
func (f *Fleet) LogPath(name string) string { return filepath.Join(f.Dir, "logs", name+".log") }

func (f *Fleet) env() []string {
	return append(os.Environ(), "DECANT_HOME="+f.Home(), "DECANT_ORCHESTRATOR=")
}

// Home returns the orchestrator's data folder: DECANT_HOME of the command line.
func (f *Fleet) Home() string { return filepath.Join(f.Dir, "orchestrator") }

// Pids returns the numbers of the processes that run.
func (f *Fleet) Pids() []int {
	f.mu.Lock()
	defer f.mu.Unlock()
	var pids []int
	for _, p := range f.procs {
		if !p.Exited() {
			pids = append(pids, p.Pid())
		}
	}
	slices.Sort(pids)
	return pids
}

// Pid returns the process's number.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Kill ends the process as a loss of power would, and waits for it.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// Stop asks the process to end, kills it where it does not within ten seconds,
// and waits for it.
func (p *Process) Stop() error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		return p.err
	case <-time.After(10 * time.Second):
		p.Kill()
		return fmt.Errorf("%s did not stop and was killed", p.Name)
	}
}

// Exited reports whether the process has ended.
func (p *Process) Exited() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// StopAll stops what runs, devices first.
func (f *Fleet) StopAll() error {
	f.mu.Lock()
	procs := f.procs
	f.procs = map[string]*Process{}
	f.mu.Unlock()
	var wg sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	stop := func(p *Process) {
		if p.Exited() {
			return
		}
		if err := p.Stop(); err != nil {
			mu.Lock()
			errs = append(errs, fmt.Errorf("%s: %w", p.Name, err))
			mu.Unlock()
		}
	}
	for name, p := range procs {
		if name != orchestrator {
			wg.Go(func() { stop(p) })
		}
	}
	wg.Wait()
	if p := procs[orchestrator]; p != nil {
		stop(p)
	}
	return errors.Join(errs...)
}

const orchestrator = "orchestrator"

// StartOrchestrator starts the orchestrator and waits until it answers.
func (f *Fleet) StartOrchestrator(ctx context.Context, args ...string) (*Process, error) {
	p, err := f.Start(orchestrator, "decant", append([]string{"up", "--listen", ":0", "--api", "off"}, args...)...)
	if err != nil {
		return nil, err
	}
	return p, f.Until(ctx, p, "the orchestrator answers", func(ctx context.Context) (bool, error) {
		_, err := f.Decant(ctx, nil, "device", "ls")
		return err == nil, nil
	})
}

// StartDevice starts the supervisor of the device whose folder, Dir/<name>, has
// its device.yaml. code may be "" for a device that has joined before.
func (f *Fleet) StartDevice(name, code string, args ...string) (*Process, error) {
	all := []string{"--config", filepath.Join(f.Dir, name, "device.yaml"), "--data", filepath.Join(f.Dir, name, "data")}
	if code != "" {
		all = append(all, "--join", code)
	}
	return f.Start(name, "decant-supervisor", append(all, args...)...)
}

// JoinCode makes a join code.
func (f *Fleet) JoinCode(ctx context.Context) (string, error) {
	out, err := f.Decant(ctx, nil, "join-code")
	return strings.TrimSpace(string(out)), err
}

// Decant runs the command line and returns what it printed. Its error has what
// the program said.
func (f *Fleet) Decant(ctx context.Context, stdin io.Reader, args ...string) ([]byte, error) {
	cmd := f.command(ctx, args)
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = stdin, &stderr
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("decant %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return out, nil
}

// Show runs the command line and copies what it prints, errors and progress
// included, to w.
func (f *Fleet) Show(ctx context.Context, w io.Writer, args ...string) error {
	cmd := f.command(ctx, args)
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("decant %s: %w", strings.Join(args, " "), err)
	}
	return nil
}

// command is the command line of this site.
func (f *Fleet) command(ctx context.Context, args []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(f.Bin, "decant"), args...)
	cmd.Env = f.env()
	return cmd
}

// Query runs the command line with -o json and reads its answer into v.
func (f *Fleet) Query(ctx context.Context, v any, args ...string) error {
	out, err := f.Decant(ctx, nil, append(args, "-o", "json")...)
	if err != nil {
		return err
	}
	return json.Unmarshal(out, v)
}

// Client makes a client of the orchestrator.
func (f *Fleet) Client() (*client.Client, error) {
	return client.New(filepath.Join(f.Home(), "decant.sock"), "")
}

// WaitDeployment watches an application until done says so, and returns it as
// it was then. It waits for an orchestrator that is away.
func (f *Fleet) WaitDeployment(ctx context.Context, app, what string, done func(decant.Deployment) bool) (d decant.Deployment, err error) {
	c, err := f.Client()
	if err != nil {
		return d, err
	}
	defer c.Close()
	enough := errors.New("enough")
	return d, f.Until(ctx, nil, what, func(ctx context.Context) (bool, error) {
		err := c.WatchDeployment(ctx, app, func(now decant.Deployment) error {
			if d = now; done(now) {
				return enough
			}
			return nil
		})
		switch {
		case errors.Is(err, enough):
			return true, nil
		case errors.Is(err, decant.Unavailable) || ctx.Err() != nil:
			return false, nil //nolint:nilerr // the orchestrator may be away
		}
		return false, err
	})
}

// WaitOnline waits until n devices are online and returns them by name.
func (f *Fleet) WaitOnline(ctx context.Context, n int) (map[string]decant.Device, error) {
	online := map[string]decant.Device{}
	err := f.Until(ctx, nil, fmt.Sprintf("%d devices are online", n), func(ctx context.Context) (bool, error) {
		var devices []decant.Device
		if err := f.Query(ctx, &devices, "device", "ls"); err != nil {
			return false, nil //nolint:nilerr // the orchestrator may be away
		}
		clear(online)
		for _, d := range devices {
			if d.Online {
				online[d.Name] = d
			}
		}
		return len(online) >= n, nil
	})
	return online, err
}

// pollEvery is the pause between two looks at something in another process.
const pollEvery = 50 * time.Millisecond

// Until calls done until it is true, fails, ctx ends, or p, if given, exits.
// what completes "waited in vain until ...".
func (f *Fleet) Until(ctx context.Context, p *Process, what string, done func(context.Context) (bool, error)) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	var exited chan struct{}
	if p != nil {
		exited = p.done
	}
	for {
		ok, err := done(ctx)
		if err != nil || ok {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited in vain until %s: %w; logs are in %s", what, ctx.Err(), filepath.Join(f.Dir, "logs"))
		case <-exited:
			return fmt.Errorf("%s ended before %s: %w\n%s", p.Name, what, p.err, tail(f.LogPath(p.Name)))
		case <-tick.C:
		}
	}
}

// tail returns the last lines of a file.
func tail(path string) string {
	data, _ := os.ReadFile(path)
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return strings.Join(lines[max(0, len(lines)-10):], "\n")
}
