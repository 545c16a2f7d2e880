//go:build !unix

package httptransport

// alive cannot tell here: a call on a connection that the peer closed is
// reported as lost.
func (c *conn) alive() bool { return true }
