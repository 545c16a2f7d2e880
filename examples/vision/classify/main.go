//go:build wasip1

// Classify says what a photograph shows, by a network trained on ImageNet.
//
// Request: a JPEG or BMP file. Response: the three likeliest classes as JSON.
package main

import (
	"encoding/json"
	"os"
	"strings"

	"github.com/decant-project/decant/examples/internal/guest"
	"github.com/decant-project/decant/examples/internal/picture"
	"github.com/decant-project/decant/examples/internal/wasinn"
)

// answer is what is said of a photograph.
type answer struct {
	Image int             `json:"image"` // counts from 1: samples of a camera have no name
	Top   []picture.Class `json:"top"`   // likeliest first
}

var (
	images int
	model  *wasinn.Model // loaded with the labels at the first photograph
	labels []string      // of class 0, 1, ...
)

//go:wasmexport classify
func classify() int32 {
	return guest.Answer(func(request []byte) ([]byte, error) {
		img, err := picture.Decode(request)
		if err != nil {
			return nil, err
		}
		logits, err := run(picture.Tensor(img))
		if err != nil {
			return nil, err
		}
		images++
		return json.Marshal(answer{Image: images, Top: picture.Top(3, logits, labels)})
	})
}

// run takes f32 [1,3,224,224] and returns a logit for each class.
func run(tensor []float32) ([]float32, error) {
	if err := load(); err != nil {
		return nil, err
	}
	logits := make([]float32, len(labels))
	err := wasinn.SetInput(model, 0, []uint32{1, 3, picture.Side, picture.Side}, tensor)
	if err == nil {
		err = model.Compute()
	}
	if err == nil {
		err = model.Output(0, logits)
	}
	return logits, err
}

func load() error {
	if model != nil {
		return nil
	}
	text, err := os.ReadFile("/models/classifier/imagenet-labels.txt")
	if err != nil {
		return err
	}
	labels = strings.Split(strings.TrimSpace(string(text)), "\n")
	model, err = wasinn.Load("classifier")
	return err
}

func main() {}
