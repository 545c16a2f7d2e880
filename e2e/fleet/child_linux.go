package fleet

import "syscall"

// childAttributes keep the terminal's Ctrl-C from a child: the fleet stops it in
// order. Unless it is detached it ends with its parent, however that ends.
func childAttributes(detached bool) *syscall.SysProcAttr {
	if detached {
		return &syscall.SysProcAttr{Setsid: true}
	}
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
