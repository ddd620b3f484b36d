package server

import (
	"fmt"

	"github.com/proa-kv/proa/bufpool"
	"github.com/proa-kv/proa/protocol"
)

// native is the Translator of the native protocol, in which there is nothing to
// translate: requests are dispatched as they come, and replies are sent in
// whatever order they are made.
type native struct{ *conn }

func (c native) Consume(p *processor, b []byte) (taken, need int) {
	for !c.paused.Load() && !c.refused && taken < len(b) && p.credit > 0 {
		f, n, want, err := protocol.Next(b[taken:], c.srv.cfg.FrameBytesMax)
		if err != nil {
			refused, more := c.wrongProtocol(b[taken:])
			if more {
				return taken, len(b) - taken + 1
			}
			if !refused {
				c.Refuse(f.ID, err)
			}
			return len(b), 0
		}
		if n == 0 {
			if want > LargeBytes && !c.greeted {
				c.closeWith(0, protocol.StatusHandshake, 0, fmt.Sprintf("the first request on a connection must be HELLO, and a HELLO is smaller than %d bytes", want))
				return len(b), 0
			}
			return taken, want
		}
		if !p.Affords(c.conn, p.weigh(&f)) {
			break
		}
		if p.dispatch(c.conn, &f, Options{}).Retry {
			break // c is not read until the request may come again
		}
		taken += n
		c.PauseIfOverloaded(p)
	}
	return taken, 0
}

func (native) Continues() bool { return false }
func (native) Sized() bool     { return true }
func (native) Forget()         {}
func (native) DropInput()      {}
func (native) Leave()          {}

func (native) Waits() bool       { return false }
func (native) AllAnswered() bool { return true }
func (native) Next(uint64) bool  { return false }

func (native) Render(frames *bufpool.Buffer) *bufpool.Buffer { return frames }
func (native) Release()                                      {}

func (c native) Error(id uint64, s protocol.Status, retryMillis uint32, message string) []byte {
	c.srv.counters.errors.add(s)
	return appendError(nil, id, noMarks, s, retryMillis, message)
}

func (native) Last(answer []byte) []byte { return answer }
