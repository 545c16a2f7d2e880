package picture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"image"
)

const (
	bmpHeaders = 14 + 40 // the file's header, and what all versions of the picture's have
	bmpRGB     = 0       // not compressed
)

// decodeBMP reads a BMP file of 24 or 32 bits a pixel, not compressed. Its rows
// hold blue, green, red (and a byte that means nothing), are padded to 4 bytes
// and go upwards, or downwards where the height is negative.
//
//	10 offset of the rows   18 width (i32)   22 height (i32)
//	28 bits a pixel (u16)   30 compression
func decodeBMP(b []byte) (*image.RGBA, error) {
	if len(b) < bmpHeaders {
		return nil, errors.New("BMP file ends within its header")
	}
	u16 := func(at int) int { return int(binary.LittleEndian.Uint16(b[at:])) }
	u32 := func(at int) int64 { return int64(binary.LittleEndian.Uint32(b[at:])) }
	width, height := int64(int32(u32(18))), int64(int32(u32(22)))
	downwards := height < 0
	if downwards {
		height = -height
	}
	bits := u16(28)
	if bits != 24 && bits != 32 || u32(30) != bmpRGB {
		return nil, fmt.Errorf("BMP file of %d bits, compression %d: only 24 and 32 bits, not compressed, are read", bits, u32(30))
	}
	if err := checkSize(width, height); err != nil {
		return nil, err
	}
	pixel := int64(bits / 8)
	stride := (width*pixel + 3) &^ 3
	if u32(10) < bmpHeaders || u32(10)+stride*height > int64(len(b)) {
		return nil, errors.New("BMP file ends within its rows")
	}
	rows := b[u32(10):]
	img := image.NewRGBA(image.Rect(0, 0, int(width), int(height)))
	for y := range height {
		row := rows[stride*y:]
		if !downwards {
			row = rows[stride*(height-1-y):]
		}
		out := img.Pix[int64(img.Stride)*y:]
		for range width {
			out[0], out[1], out[2], out[3] = row[2], row[1], row[0], 255
			row, out = row[pixel:], out[4:]
		}
	}
	return img, nil
}
