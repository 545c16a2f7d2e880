package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/decant-project/decant"
)

// classOf is what ONNX Runtime, called directly, takes the project's photographs
// for: MobileNetV2 int8, names of ImageNet.
var classOf = map[string]string{
	"bird.bmp":         "chickadee",
	"cat_720p.jpg":     "Egyptian cat",
	"grace_hopper.bmp": "bow tie",
	"hot_dog.jpg":      "hotdog",
	"owl.jpg":          "kite",
	"parrot.jpg":       "macaw",
	"sunflower.bmp":    "daisy",
}

// judgeVision holds that the screen shows a line for each photograph, in order,
// and the right class first for those that classOf knows.
func judgeVision(s *site, d decant.Deployment, screen []string) error {
	photographs, err := os.ReadDir(filepath.Join(s.Dir, "camera", "photographs")) // sorted, as the camera takes them
	if err != nil {
		return err
	}
	var wrong []error
	right, known := 0, 0
	for i, photograph := range photographs {
		want, ok := classOf[photograph.Name()]
		if !ok {
			continue
		}
		known++
		line := "nothing\n"
		if i < len(screen) {
			line = screen[i]
		}
		if strings.HasPrefix(line, fmt.Sprintf("photograph %d: %s ", i+1, want)) {
			right++
		} else {
			wrong = append(wrong, fmt.Errorf("%s shows %q, the screen shows %q", photograph.Name(), want, strings.TrimSuffix(line, "\n")))
		}
	}
	if len(screen) != len(photographs) {
		wrong = append(wrong, fmt.Errorf("there are %d photographs, the screen shows %d lines", len(photographs), len(screen)))
	}
	classifier := d.Instances["classifier"]
	s.line("photographs", "%d, %d of the %d with a known class are right", len(photographs), right, known)
	s.line("latency", "p50 %s, p99 %s, from a photograph to the screen's answer", short(classifier.Calls.P50), short(classifier.Calls.P99))
	return errors.Join(wrong...)
}
