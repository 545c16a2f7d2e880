package peripheral

import (
	"encoding/json"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"time"
)

// simulated is a source for trying things: a slow wave between -1 and 1 with a
// little noise, the same each time for the same name, as {"value": 0.5}.
type simulated struct {
	rand *rand.Rand
	n    int
}

func seeded(name string) *rand.Rand {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name)) // never fails
	return rand.New(rand.NewPCG(h.Sum64(), 0))
}

func (s *simulated) next() (Sample, time.Duration, error) {
	const period = 60 // samples
	value := math.Sin(2*math.Pi*float64(s.n)/period) + 0.05*s.rand.NormFloat64()
	s.n++
	data, err := json.Marshal(map[string]float64{"value": value})
	return Sample{ContentType: "application/json", Data: data}, 0, err
}

func (s *simulated) close() error { return nil }
