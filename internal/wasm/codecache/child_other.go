//go:build !linux

package codecache

import "syscall"

// confine does nothing: the parent's clock is the only limit here.
func confine(Limits) error { return nil }

func childAttributes() *syscall.SysProcAttr { return nil }
