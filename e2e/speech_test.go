package e2e_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/e2e/fleet"
)

// speech is the speech example on a site.
type speech struct {
	*site
	procs map[string]*fleet.Process
}

// heard is what came of the recordings.
type heard struct {
	screen           string
	samples, failed  int64
	frames, segments int
}

// recordings are those that the tests play, to be done sooner: 7 s of sound.
var recordings = []string{"Front_Center.wav", "Noise.wav", "Side_Right.wav"}

// startSpeech starts the site, its processes where via says, and returns when
// the recordings begin to play.
func startSpeech(t *testing.T, via func(process string) []string) *speech {
	t.Helper()
	const example = "../examples/speech"
	if _, err := os.Stat(filepath.Join(example, "devices/mic-board/recordings", recordings[0])); err != nil {
		missing(t, "recordings: run `make fetch-speech`")
	}
	e, err := fleet.OpenExample(example)
	s := &speech{site: newSite(t), procs: map[string]*fleet.Process{}}
	s.must(err)
	s.Via = via
	s.procs["orchestrator"] = s.startOrchestrator()
	for _, template := range e.Devices {
		name, err := s.AddDevice(template)
		s.must(err)
		s.procs[name], err = s.Join(s.ctx, name)
		s.must(err)
	}
	files, _ := filepath.Glob(filepath.Join(s.Dir, "mic-board/recordings/*.wav"))
	for _, file := range files {
		if !strings.Contains(strings.Join(recordings, " "), filepath.Base(file)) {
			s.must(os.Remove(file))
		}
	}
	_, err = s.WaitOnline(s.ctx, len(e.Devices))
	s.must(err)
	_, err = s.Push(s.ctx, e.Packages...)
	s.must(err)
	s.decant(nil, "deploy", "-f", e.App)
	return s
}

func (s *speech) screen() string {
	text, _ := os.ReadFile(filepath.Join(s.Dir, "wall-screen", "screen.txt")) // absent while nothing was shown
	return string(text)
}

// end waits until the last sample was dealt with.
func (s *speech) end() heard {
	s.t.Helper()
	d, err := s.WaitDeployment(s.ctx, "listening-post", "the last sample was dealt with", func(d decant.Deployment) bool {
		t := d.Instances["ear"].Trigger
		return t != nil && t.Ended
	})
	s.must(err)
	var status struct{ Frames, Segments int }
	s.must(json.Unmarshal([]byte(s.decant(nil, "invoke", "listening-post/detector", "--function", "status")), &status))
	ear := d.Instances["ear"].Trigger
	return heard{s.screen(), ear.Samples, ear.Failed, status.Frames, status.Segments}
}

// TestOrchestratorAway kills the orchestrator while recordings play, and starts
// it again: the pipeline gives, to the byte, what it gives undisturbed.
func TestOrchestratorAway(t *testing.T) {
	t.Parallel()
	var want, got heard
	t.Run("runs", func(t *testing.T) {
		t.Run("undisturbed", func(t *testing.T) {
			t.Parallel()
			want = startSpeech(t, nil).end()
		})
		t.Run("disturbed", func(t *testing.T) {
			t.Parallel()
			s := startSpeech(t, nil)
			s.until("words were heard", func() bool { return s.screen() != "" })
			s.procs["orchestrator"].Kill()
			before := s.screen()
			s.until("words were heard without an orchestrator", func() bool { return s.screen() != before })
			s.startOrchestrator()
			got = s.end()
		})
	})
	if got != want || got.failed != 0 || got.segments != 4 {
		t.Errorf("got %+v\nundisturbed it is %+v", got, want)
	}
}

// TestDevicesKilled kills each device while recordings play, and starts it
// again: nobody touches anything else, and the pipeline goes on.
func TestDevicesKilled(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"gateway", "wall-screen", "mic-board"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startSpeech(t, nil)
			s.until("words were heard", func() bool { return s.screen() != "" })
			s.procs[name].Kill()
			s.restart(name)
			got := s.end()
			// What the device had in hand is lost with it, and no more: a call, and
			// what a module kept in its memory.
			if got.failed > 1 || got.samples < 70 {
				t.Errorf("got %+v", got)
			}
			if !strings.HasSuffix(got.screen, " %\n") || strings.Count(got.screen, "Side_Right") != 2 || strings.Contains(got.screen, "Noise") {
				t.Errorf("the screen shows\n%s", got.screen)
			}
		})
	}
}
