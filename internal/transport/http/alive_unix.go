//go:build unix

package httptransport

import "syscall"

// alive reports whether a kept connection is as it was left: the peer has
// neither closed it nor sent anything, of which there is nothing to send.
func (c *conn) alive() bool {
	quiet := false
	err := c.raw.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		quiet = err == syscall.EAGAIN || err == syscall.EWOULDBLOCK
		return true
	})
	return err == nil && quiet
}
