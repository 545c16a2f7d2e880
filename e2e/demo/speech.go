package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/decant-project/decant"
)

// segmentLine is a line as the timeline module writes it.
var segmentLine = regexp.MustCompile(`^(.+?) +[0-9.]+ – +[0-9.]+ s   speech +[0-9]+ %\n$`)

// pinned are the recordings of two words each that the demo gets by itself.
// Those of the user's own are not judged.
var pinned = []string{"Front_Center", "Front_Left", "Front_Right", "Rear_Center", "Rear_Left", "Rear_Right", "Side_Left", "Side_Right"}

// judgeSpeech holds that speech was found in each spoken recording, and none in
// those that are called noise.
func judgeSpeech(s *site, d decant.Deployment, screen []string) error {
	found := map[string]int{}
	var wrong []error
	for _, line := range screen {
		m := segmentLine.FindStringSubmatch(line)
		if m == nil {
			wrong = append(wrong, fmt.Errorf("the screen shows a line that is no segment: %q", line))
			continue
		}
		found[m[1]]++
	}
	files, _ := filepath.Glob(filepath.Join(s.Dir, "mic-board", "recordings", "*.wav")) // the pattern is good
	spoken, noise := 0, 0
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".wav")
		isNoise := strings.Contains(strings.ToLower(name), "noise")
		switch {
		case isNoise && found[name] > 0:
			wrong = append(wrong, fmt.Errorf("speech was found in %s", name))
		case slices.Contains(pinned, name) && found[name] == 0:
			wrong = append(wrong, fmt.Errorf("no speech was found in %s", name))
		}
		if isNoise {
			noise += found[name]
		} else {
			spoken += found[name]
		}
	}
	status, err := detectorStatus(s, d)
	if err != nil {
		return err
	}
	ear := d.Instances["ear"]
	if ear.Trigger.Failed > 0 {
		wrong = append(wrong, fmt.Errorf("%d of %d samples failed", ear.Trigger.Failed, ear.Trigger.Samples))
	}
	if status.Segments != len(screen) {
		wrong = append(wrong, fmt.Errorf("the detector found %d segments, the screen shows %d", status.Segments, len(screen)))
	}
	s.line("samples", "%d of 96 ms from the microphone, %d failed", ear.Trigger.Samples, ear.Trigger.Failed)
	s.line("frames", "%d of 32 ms through Silero VAD", status.Frames)
	s.line("segments", "%d in recordings, %d in those called noise", spoken, noise)
	s.line("latency", "p50 %s, p99 %s, from a sample to the answer of all behind it", short(ear.Calls.P50), short(ear.Calls.P99))
	return errors.Join(wrong...)
}

type status struct{ Frames, Segments int }

func detectorStatus(s *site, d decant.Deployment) (st status, err error) {
	out, err := s.Decant(context.Background(), nil, "invoke", d.Application.Name+"/detector", "--function", "status")
	if err != nil {
		return st, err
	}
	return st, json.Unmarshal(out, &st)
}
