package server

import "github.com/proa-kv/proa/protocol"

// executor is what a thread has to do at the end of its iteration: jobs, and whatever
// requests and jobs leave to be sent.
type executor struct {
	srv *Server
	now uint64 // Unix ms, set once an iteration

	touched  touched         // written to at the end of the iteration
	writers  []*upstreamConn // have requests to send on; their writers are woken then
	jobs     []job           // must wait for the disk; carried out after the iteration
	proposed bool            // commands were queued in this iteration

	mget protocol.MGet // scratch
}

// sendAll ends an iteration: it writes to every touched connection once, and wakes
// whoever sends requests on.
func (e *executor) sendAll() {
	e.touched.send()
	for i, l := range e.writers {
		l.wakeWriter()
		e.writers[i] = nil
	}
	e.writers = e.writers[:0]
}

// touched lists connections that have output to be written.
type touched struct{ conns []*conn }

// add has c written to at the next send. c.mu must be held.
func (t *touched) add(c *conn) {
	if !c.marked {
		c.marked = true
		t.conns = append(t.conns, c)
	}
}

// send writes to each connection once.
func (t *touched) send() {
	for i, c := range t.conns {
		c.SendOutput()
		t.conns[i] = nil
	}
	t.conns = t.conns[:0]
}
