//go:build !linux

package memory

import (
	"errors"
	"os"
)

func newFile(uint64) (*os.File, error) { return nil, errors.ErrUnsupported }

func punch(*os.File, int64, int) error { return errors.ErrUnsupported }

func findData(*os.File, uint64) ([]Range, error) { return nil, errors.ErrUnsupported }

func mapPrivate(*os.File, []Range, []byte) error { return errors.ErrUnsupported }
