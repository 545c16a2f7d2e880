//go:build !linux || !(amd64 || arm64 || riscv64)

package memory

import "errors"

func tryKernel() error { return errors.ErrUnsupported }

func newKernelScanner(_, _ []byte) (scanner, error) { return nil, errors.ErrUnsupported }
