package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/e2e/fleet"
)

// joinWithin is how long devices may take to find the orchestrator and join.
const joinWithin = time.Minute

// site is the example's site, running.
type site struct {
	*fleet.Fleet
	example fleet.Example
	devices map[string]decant.Device // by ID
	out     io.Writer
}

// open makes the folder of a site. Nothing runs yet.
func open(out io.Writer, folder string, detached bool) (*site, error) {
	example, err := fleet.OpenExample(folder)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "decant-demo-")
	if err != nil {
		return nil, err
	}
	f, err := fleet.New(dir, "bin")
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	f.Detached = detached
	return &site{Fleet: f, example: example, out: out}, nil
}

// close stops all that runs. The folder, with the logs, stays after a failure.
func (s *site) close(well bool) error {
	err := s.StopAll()
	if !well {
		fmt.Fprintf(s.out, "\nlogs are in %s\n", filepath.Join(s.Dir, "logs"))
		return err
	}
	return errors.Join(err, os.RemoveAll(s.Dir))
}

func (s *site) step(text string) { fmt.Fprintf(s.out, "\n== %s\n", text) }

// start starts the orchestrator and the devices, and waits until they are
// online.
func (s *site) start(ctx context.Context) error {
	s.step(fmt.Sprintf("one orchestrator and %d devices, each a process of its own", len(s.example.Devices)))
	if _, err := s.StartOrchestrator(ctx, "--site", "demo"); err != nil {
		return err
	}
	for _, template := range s.example.Devices {
		name, err := s.AddDevice(template)
		if err != nil {
			return err
		}
		if _, err := s.Join(ctx, name); err != nil {
			return err
		}
	}
	soon, cancel := context.WithTimeout(ctx, joinWithin)
	defer cancel()
	online, err := s.WaitOnline(soon, len(s.example.Devices))
	if err != nil {
		return fmt.Errorf("%w\nthey find each other by mDNS: a network interface with multicast must be up (where there is only loopback: ip link set lo multicast on)", err)
	}
	s.devices = map[string]decant.Device{}
	for _, d := range online {
		s.devices[d.ID] = d
	}
	return s.show(ctx, "device", "ls")
}

// deploy pushes the packages and deploys the application, which names no
// device.
func (s *site) deploy(ctx context.Context) error {
	s.step("packages, built from their sources")
	if _, err := s.Push(ctx, s.example.Packages...); err != nil {
		return err
	}
	if err := s.show(ctx, "package", "ls"); err != nil {
		return err
	}
	s.step("the application goes where what it needs is: decant deploy -f " + s.example.App)
	return s.show(ctx, "deploy", "-f", s.example.App, "--timeout", "1m")
}

// show runs the command line and shows what it prints.
func (s *site) show(ctx context.Context, args ...string) error { return s.Show(ctx, s.out, args...) }

// watch shows the screen until the trigger has had its last sample, and returns
// all that the screen has shown.
func (s *site) watch(ctx context.Context, a act) (decant.Deployment, []string, error) {
	name, err := s.appName(ctx)
	if err != nil {
		return decant.Deployment{}, nil, err
	}
	s.step("the screen shows")
	path := filepath.Join(s.Dir, a.screen, "screen.txt")
	following, stop := context.WithCancel(ctx)
	followed := make(chan struct{})
	go func() {
		defer close(followed)
		s.followFile(following, path)
	}()
	d, err := s.WaitDeployment(ctx, name, "the last sample was dealt with", func(d decant.Deployment) bool {
		t := d.Instances[a.last].Trigger
		return t != nil && t.Ended
	})
	stop()
	<-followed
	if err == nil {
		d, err = s.lastReports(ctx, name)
	}
	if err != nil {
		return d, nil, err
	}
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) { // nothing was shown
		return d, nil, err
	}
	return d, slices.Collect(strings.Lines(string(text))), nil
}

// lastReports waits until each device has reported what was done up to now.
func (s *site) lastReports(ctx context.Context, app string) (d decant.Deployment, err error) {
	now := time.Now()
	err = s.Until(ctx, nil, "each device has reported", func(ctx context.Context) (bool, error) {
		devices, err := s.WaitOnline(ctx, len(s.devices))
		for _, device := range devices {
			if device.LastSeen.Before(now) {
				return false, err
			}
		}
		return true, err
	})
	if err == nil {
		err = s.Query(ctx, &d, "app", "show", app)
	}
	return d, err
}

func (s *site) appName(ctx context.Context) (string, error) {
	var all []decant.Deployment
	if err := s.Query(ctx, &all, "app", "ls"); err != nil {
		return "", err
	}
	return all[0].Application.Name, nil
}

// followFile copies whole lines of a file to the output as they come, and what
// is left of it once ctx ends.
func (s *site) followFile(ctx context.Context, path string) {
	var shown int64
	for last := false; ; {
		if f, err := os.Open(path); err == nil {
			if _, err := f.Seek(shown, io.SeekStart); err == nil {
				shown += s.copyLines(f)
			}
			_ = f.Close() // only read
		}
		if last {
			return
		}
		select {
		case <-ctx.Done():
			last = true
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (s *site) copyLines(r io.Reader) (n int64) {
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return n
		}
		n += int64(len(line))
		fmt.Fprintf(s.out, "   %s\n", bytes.TrimRight(line, "\n"))
	}
}

// places says who ran what, and why.
func (s *site) places(d decant.Deployment) {
	for _, c := range slices.Sorted(maps.Keys(d.Placement.Components)) {
		a := d.Placement.Components[c]
		s.line(c, "on %s: %s; %d calls, p50 %s", s.devices[a.Device].Name, a.Reason, d.Instances[c].Calls.Count, short(d.Instances[c].Calls.P50))
	}
}

// line writes a line of the summary.
func (s *site) line(what, format string, args ...any) {
	fmt.Fprintf(s.out, "   %-12s %s\n", what, fmt.Sprintf(format, args...))
}

func short(d decant.Duration) string { return time.Duration(d).Round(100 * time.Microsecond).String() }

// lookAround says what a person can do with what goes on running.
func (s *site) lookAround() {
	app, _ := s.appName(context.Background()) // it was there a moment ago
	pids := strings.Trim(fmt.Sprint(s.Pids()), "[]")
	s.step("it goes on running; look around")
	fmt.Fprintf(s.out, `   export DECANT_HOME=%s PATH=%s:$PATH
   decant device ls
   decant app show %[3]s
   decant logs %[3]s
   decant events
 stop it:
   kill %s; rm -r %s
`, s.Home(), s.Bin, app, pids, s.Dir)
}
