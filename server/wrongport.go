package server

import "github.com/proa-kv/proa/internal/wrongport"

// wrongProtocol refuses c if its first bytes, b, are of a protocol that another port
// speaks, or none. more says that more of b is needed to decide. It costs nothing
// on a connection whose first bytes are those of its own protocol: only a stream that
// is refused anyway is looked at.
func (c *conn) wrongProtocol(b []byte) (refused, more bool) {
	if c.greeted || c.forwarded {
		return false, false
	}
	caller, more := wrongport.Recognize(b)
	if caller == wrongport.Unknown || caller == wrongport.Native {
		return false, more
	}
	c.RefuseProtocol(caller, b)
	return true, false
}

// RefuseProtocol answers a connection that has come to the wrong port, and closes it
// once the answer is written.
func (c *conn) RefuseProtocol(caller wrongport.Protocol, first []byte) {
	s, port := c.srv, wrongport.Client
	if c.translated {
		port = c.protocol.Port()
	}
	answer, why := s.cfg.Ports.Answer(port, caller, first)
	c.refused = true
	s.counters.refused.Add(1)
	s.lines.wrongProtocol.Warn(s.log, "closed a connection that speaks another protocol than the port", "port", port.String(), "speaks", caller.String(), "remote", c.socket.remote(c), "answer", why)
	c.sendLast(answer)
}

// sendLast sends bytes as they are and closes the connection once they and
// everything before them are written. Nothing more is read; the reader calls it.
func (c *conn) sendLast(answer []byte) {
	answer = c.translator.Last(answer)
	c.mu.Lock()
	c.output().Append(answer)
	c.closing = true
	c.mu.Unlock()
	c.SendOutput()
}
