//go:build !linux && !darwin

package memory

import "errors"

func reserve(uint64) ([]byte, bool) { return []byte{}, false }

func commit([]byte) error { return errors.ErrUnsupported }

func release([]byte) {}
