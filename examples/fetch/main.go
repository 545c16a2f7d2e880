// Fetch gets what the examples need and the project does not hold: ONNX
// Runtime, models and recordings, each by the name of a package and the digest
// of what must be in it. Run it in the project's folder:
//
//	go run ./examples/fetch -ort -speech -vision
//
// The environment names files of the user's own instead: ORT, the path of
// libonnxruntime; MODEL, of silero_vad_v5.onnx; WAV, a folder of recordings.
// DECANT_DATA is the folder, or the address, of the classifier's model and its
// photographs.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/fetch"
)

func main() { os.Exit(run()) }

// run returns the exit status.
func run() int {
	ort := flag.Bool("ort", false, "ONNX Runtime, into bin")
	speech := flag.Bool("speech", false, "the speech detector's model, and recordings")
	vision := flag.Bool("vision", false, "the classifier's model, and photographs")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := get(ctx, *ort, *speech, *vision); err != nil {
		fmt.Fprintln(os.Stderr, "fetch:", err)
		return 1
	}
	return 0
}

func get(ctx context.Context, ort, speech, vision bool) error {
	if _, err := os.Stat("examples/speech/app.yaml"); err != nil {
		return decant.Errorf(decant.Invalid, "there is no examples/speech here: run this in the project's folder")
	}
	g := getter{
		Fetcher: fetch.Fetcher{Cache: ".cache", Progress: os.Stderr, Timeout: 15 * time.Minute},
		env:     os.Getenv,
	}
	for _, part := range []struct {
		asked bool
		get   func(context.Context) error
	}{{ort, g.runtime}, {speech, g.voiceModel}, {speech, g.recordings}, {vision, g.classifier}} {
		if !part.asked {
			continue
		}
		if err := part.get(ctx); err != nil {
			return err
		}
	}
	return nil
}

// getter gets the parts.
type getter struct {
	fetch.Fetcher
	env func(string) string
}

// runtime gets ONNX Runtime for this machine.
func (g *getter) runtime(ctx context.Context) error {
	if own := g.env("ORT"); own != "" {
		return fetch.Copy(own, library)
	}
	file, ok := runtimes[platform]
	if !ok {
		fmt.Fprintf(g.Progress, "there is no ONNX Runtime for %s here: devices will offer no inference; ORT=PATH takes yours\n", platform)
		return nil
	}
	return help(g.Get(ctx, []fetch.File{file}, onnxruntime),
		"install npm, or pass ORT=PATH, the path of libonnxruntime.so.1")
}

// voiceModel gets Silero VAD.
func (g *getter) voiceModel(ctx context.Context) error {
	if own := g.env("MODEL"); own != "" {
		return fetch.Copy(own, silero.Path)
	}
	return help(g.Get(ctx, []fetch.File{silero}, vadWeb),
		"install npm, or pass MODEL=PATH, the path of silero_vad_v5.onnx")
}

// recordings gets what the microphone hears.
func (g *getter) recordings(ctx context.Context) error {
	if own := g.env("WAV"); own != "" {
		return copyAll(own)
	}
	if err := keepOnly(spoken); err != nil {
		return err
	}
	return help(g.Get(ctx, spoken, fetch.Folder("/usr/share/sounds/alsa"), fetch.Deb{Package: "alsa-utils"}),
		"install the package alsa-utils, or pass WAV=FOLDER, a folder of WAV files")
}

// copyAll takes the WAV files of a folder instead of the recordings.
func copyAll(folder string) error {
	own, err := filepath.Glob(filepath.Join(folder, "*.wav"))
	if err != nil || len(own) == 0 {
		return decant.Errorf(decant.NotFound, "there is no *.wav in %s", folder)
	}
	var files []fetch.File
	for _, path := range own {
		files = append(files, fetch.File{Path: filepath.Join(recordings, filepath.Base(path))})
	}
	if err := keepOnly(files); err != nil {
		return err
	}
	for i, path := range own {
		if err := fetch.Copy(path, files[i].Path); err != nil {
			return err
		}
	}
	return nil
}

// keepOnly removes the recordings of another run that are not among files.
func keepOnly(files []fetch.File) error {
	keep := map[string]bool{}
	for _, f := range files {
		keep[f.Path] = true
	}
	old, err := filepath.Glob(filepath.Join(recordings, "*.wav"))
	for _, path := range old {
		if !keep[path] {
			err = errors.Join(err, os.Remove(path))
		}
	}
	return err
}

// classifier gets MobileNetV2, the names of its classes, and photographs.
func (g *getter) classifier(ctx context.Context) error {
	data := cmp.Or(g.env("DECANT_DATA"), "../shared/data")
	const way = "set DECANT_DATA to a folder, or an address, that has models/mobilenetv2-int8.onnx, models/imagenet-labels.txt and images/"
	if err := g.Get(ctx, mobilenet, under(data, "models")); err != nil {
		return help(err, way)
	}
	return help(g.Get(ctx, photographs, under(data, "images")), way)
}

// help adds the way out to what could not be got.
func help(err error, way string) error {
	if errors.Is(err, decant.Unavailable) {
		return decant.WithHelp(err, "%s", way)
	}
	return err
}
