package picture

import (
	"cmp"
	"math"
	"slices"
	"strings"
)

// Class is what a picture may show.
type Class struct {
	Class       int     `json:"class"` // its number among the network's outputs
	Label       string  `json:"label"`
	Probability float64 `json:"probability"` // 0 to 1
}

// Top returns the n likeliest classes by their logits, which softmax turns into
// probabilities. Labels name class 0, 1, ...; of several names for one class,
// parted by commas, the first is taken.
func Top(n int, logits []float32, labels []string) []Class {
	highest := float64(slices.Max(logits))
	classes := make([]Class, len(logits))
	sum := 0.0
	for i, logit := range logits {
		p := math.Exp(float64(logit) - highest)
		label, _, _ := strings.Cut(labels[i], ",")
		classes[i] = Class{Class: i, Label: label, Probability: p}
		sum += p
	}
	slices.SortStableFunc(classes, func(a, b Class) int { return cmp.Compare(b.Probability, a.Probability) })
	classes = classes[:min(n, len(classes))]
	for i := range classes {
		classes[i].Probability = math.Round(1000*classes[i].Probability/sum) / 1000
	}
	return classes
}
