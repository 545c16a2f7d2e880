package picture

import (
	"image"
	"math"
)

// What networks trained on ImageNet look at.
const (
	Side    = 224 // of the square they see
	shorter = 256 // a picture's shorter side before the square is cut out of it
)

// Mean and deviation of red, green and blue over ImageNet.
var (
	mean      = [3]float32{.485, .456, .406}
	deviation = [3]float32{.229, .224, .225}
)

// Tensor scales img so that its shorter side is 256, by bilinear filtering,
// cuts out the central square of 224, and returns that as f32 [1,3,224,224]:
// three planes (red, green, blue) of rows, each number scaled to 0..1, less the
// mean, over the deviation. Only what the square shows is computed.
func Tensor(img *image.RGBA) []float32 {
	width, height := img.Bounds().Dx(), img.Bounds().Dy()
	scale := float64(min(width, height)) / shorter
	columns, rows := spans(width, scale), spans(height, scale)
	out := make([]float32, 3*Side*Side)
	for y, row := range rows {
		var sum [Side][3]float32
		for i, weight := range row.weights {
			addRow(&sum, img.Pix[(row.first+i)*img.Stride:], columns, weight)
		}
		for x := range Side {
			for c := range 3 {
				out[(c*Side+y)*Side+x] = (sum[x][c]/255 - mean[c]) / deviation[c]
			}
		}
	}
	return out
}

// addRow adds a row of the picture, 4 bytes a pixel, to the output row that it
// has weight in.
func addRow(sum *[Side][3]float32, pix []byte, columns []span, weight float32) {
	for x, column := range columns {
		var r, g, b float32
		rest := pix[4*column.first:]
		for _, w := range column.weights {
			r += w * float32(rest[0])
			g += w * float32(rest[1])
			b += w * float32(rest[2])
			rest = rest[4:]
		}
		sum[x][0] += weight * r
		sum[x][1] += weight * g
		sum[x][2] += weight * b
	}
}

// span is what an output pixel is made of: input pixels from first on, by
// weights whose sum is 1.
type span struct {
	first   int
	weights []float32
}

// spans returns the central Side pixels of a line of n that is made smaller by
// scale: each a triangle over the input pixels it covers, or over the two
// nearest where the line is made larger. A triangle that does not grow with the
// scale would skip pixels, and see patterns that are not there.
func spans(n int, scale float64) []span {
	cut := math.Floor((float64(n)/scale - Side) / 2)
	reach := max(scale, 1)
	out := make([]span, Side)
	for i := range out {
		centre := (cut+float64(i)+.5)*scale - .5
		first := max(0, int(math.Ceil(centre-reach)))
		last := min(n-1, int(math.Floor(centre+reach)))
		weights := make([]float32, last-first+1)
		sum := float32(0)
		for j := range weights {
			weights[j] = float32(max(0, 1-math.Abs(float64(first+j)-centre)/reach))
			sum += weights[j]
		}
		for j := range weights {
			weights[j] /= sum
		}
		out[i] = span{first, weights}
	}
	return out
}
