package server

import (
	"github.com/proa-kv/proa/protocol"
)

// readBytes is the size of a polling thread's read buffer. It stays in the L2
// cache, and holds some hundred small requests.
const readBytes = 64 << 10

// inputSize is the buffer for a partial frame: what it needs, but no more than
// four times what the peer has really sent, so that a length alone takes no
// memory.
func inputSize(have, need int) int {
	return max(min(need, max(4*have, readBytes)), have+1)
}

// holdInput accounts for memory in partial frames and refuses a connection
// that would go beyond what all may hold together.
func (s *Server) holdInput(c *conn, more int, now uint64) bool {
	if c.frameSince.Load() == 0 {
		c.frameBegins(now)
	}
	if s.inputBytes.Add(int64(more)) > s.cfg.InputBytesMax {
		c.closeWith(0, protocol.StatusBusy, "too much memory is held by requests that have not arrived whole")
		c.dropInput()
		return false
	}
	return true
}

// dropInput lets go of the input buffer.
func (c *conn) dropInput() {
	if c.in != nil {
		c.srv.inputBytes.Add(-int64(cap(c.in.B)))
		c.in.Release()
		c.in = nil
	}
	c.frameEnds()
}
