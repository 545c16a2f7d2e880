// Package picture makes the input of an image classifier of a photograph: a
// JPEG or BMP file enters, a tensor leaves.
package picture

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/draw"
	"image/jpeg"
)

// maxPixels bounds a picture before its memory is allocated.
const maxPixels = 32 << 20

// Decode reads a JPEG or BMP file.
func Decode(file []byte) (*image.RGBA, error) {
	switch {
	case bytes.HasPrefix(file, []byte("\xff\xd8")):
		return decodeJPEG(file)
	case bytes.HasPrefix(file, []byte("BM")):
		return decodeBMP(file)
	}
	return nil, errors.New("not a picture that is understood: neither JPEG nor BMP")
}

func decodeJPEG(file []byte) (*image.RGBA, error) {
	c, err := jpeg.DecodeConfig(bytes.NewReader(file))
	if err == nil {
		err = checkSize(int64(c.Width), int64(c.Height))
	}
	if err != nil {
		return nil, err
	}
	img, err := jpeg.Decode(bytes.NewReader(file))
	if err != nil {
		return nil, err
	}
	out := image.NewRGBA(img.Bounds())
	draw.Draw(out, out.Bounds(), img, img.Bounds().Min, draw.Src)
	return out, nil
}

func checkSize(width, height int64) error {
	if width < 1 || height < 1 || width > maxPixels || height > maxPixels || width*height > maxPixels {
		return fmt.Errorf("picture of %dx%d: must have 1 to %d pixels", width, height, maxPixels)
	}
	return nil
}
