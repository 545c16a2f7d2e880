package sound

import (
	"fmt"
	"math"
)

// Resampler changes the rate of a stream of sound by a polyphase filter: a
// sinc under a Kaiser window, in as many shifts as there are places that an
// output sample can have between two input samples. It keeps what it still
// needs of the past, so how a stream is cut into chunks changes nothing.
//
// It passes what lies below 7/8 of the lower of the two Nyquist frequencies,
// and stops by 80 dB what lies above that, so nothing audible aliases.
type Resampler struct {
	up, down int       // output and input rate, without their common factor
	taps     int       // of each shift; a multiple of 8
	filter   []float32 // up x taps
	past     []float32 // input that is still needed
	next     int       // where in past the next output's window starts; may lie beyond its end
	shift    int       // of the next output, in 1/up of an input sample
}

const (
	stopBand   = 80.0     // dB
	transition = 1.0 / 16 // width of the filter's edge, of the lower rate
	maxFilter  = 1 << 20  // coefficients
)

// NewResampler makes a resampler between two rates, in samples a second. It
// fails for two that have almost no common factor.
func NewResampler(from, to int) (*Resampler, error) {
	common := gcd(from, to)
	r := &Resampler{up: to / common, down: from / common}
	if from == to {
		return r, nil
	}
	stretch := max(1, float64(from)/float64(to)) // the filter is as wide as the lower rate asks
	half := int(math.Ceil((stopBand-7.95)/(14.36*transition)*stretch/8)) * 4
	r.taps = 2 * half
	if r.up*r.taps > maxFilter {
		return nil, fmt.Errorf("cannot turn %d samples a second into %d: record at a common rate such as 48000 or 44100", from, to)
	}
	cutoff := (1 - transition) / stretch // of the input's Nyquist frequency
	r.filter = make([]float32, 0, r.up*r.taps)
	for shift := range r.up {
		r.filter = append(r.filter, lowPass(half, float64(shift)/float64(r.up), cutoff)...)
	}
	r.past = make([]float32, half-1) // silence came before
	return r, nil
}

// lowPass returns 2*half taps of a windowed sinc whose centre lies shift after
// tap half-1. Their sum is 1, so that silence and loudness stay as they are.
func lowPass(half int, shift, cutoff float64) []float32 {
	const beta = 0.1102 * (stopBand - 8.7)
	taps := make([]float64, 2*half)
	sum := 0.0
	for i := range taps {
		t := float64(i-half+1) - shift
		edge := t / float64(half)
		taps[i] = sinc(cutoff*t) * bessel(beta*math.Sqrt(max(0, 1-edge*edge)))
		sum += taps[i]
	}
	out := make([]float32, len(taps))
	for i, tap := range taps {
		out[i] = float32(tap / sum)
	}
	return out
}

// Process returns the output that the input up to and with in determines.
func (r *Resampler) Process(in []int16) []int16 {
	if r.up == r.down {
		return in
	}
	for _, s := range in {
		r.past = append(r.past, float32(s))
	}
	var out []int16
	for r.next+r.taps <= len(r.past) {
		window := r.past[r.next : r.next+r.taps]
		out = append(out, clip(dot(r.filter[r.shift*r.taps:][:r.taps], window)))
		r.shift += r.down
		r.next += r.shift / r.up
		r.shift %= r.up
	}
	done := min(r.next, len(r.past))
	r.past = append(r.past[:0], r.past[done:]...)
	r.next -= done
	return out
}

// dot returns the sum of the products of two slices of equal length, a multiple
// of 8. Where a guest is interruptible each turn of a loop costs more than eight
// products do, so a turn does eight.
func dot(a, b []float32) float32 {
	sum := float32(0)
	for len(a) >= 8 && len(b) >= 8 {
		sum += a[0]*b[0] + a[1]*b[1] + a[2]*b[2] + a[3]*b[3] +
			a[4]*b[4] + a[5]*b[5] + a[6]*b[6] + a[7]*b[7]
		a, b = a[8:], b[8:]
	}
	return sum
}

func clip(v float32) int16 {
	return int16(math.RoundToEven(float64(min(max(v, math.MinInt16), math.MaxInt16))))
}

func sinc(x float64) float64 {
	if x == 0 {
		return 1
	}
	return math.Sin(math.Pi*x) / (math.Pi * x)
}

// bessel is the modified Bessel function of the first kind and order 0, by its
// power series.
func bessel(x float64) float64 {
	sum, term := 1.0, 1.0
	for k := 1.0; term > 1e-12*sum; k++ {
		term *= (x / (2 * k)) * (x / (2 * k))
		sum += term
	}
	return sum
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
