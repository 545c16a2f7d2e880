//go:build !linux

package fleet

import "syscall"

func childAttributes(bool) *syscall.SysProcAttr { return nil }
