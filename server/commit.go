package server

import "sync"

// A group commit.
//
// The thread that has read an iteration's requests drives: it makes entries of what
// is queued, of all groups, has them become durable with one fsync, and delivers the
// outcomes (see Leaders and followers in server.go). Each of the steps below is one
// call, and between them stands what the thread does with its event loop: the loop is
// released before the group commit, and reclaimed when the thread has waited for the
// disk. At most one thread runs the backend's pass; while one waits for the disk
// others may, for messages of other nodes.

// reclaimer is what the driver has polled before, and takes back.
type reclaimer interface {
	// reclaim reports whether the caller polls again: no other thread has come
	// meanwhile.
	reclaim() bool
}

// groupCommit commits what is queued. The caller has acquired the backend, and
// released loop, nil for none. It reports whether loop has been reclaimed.
func (s *Server) groupCommit(loop reclaimer) (reclaimed bool) {
	node := s.backend
	write := node.Prepare() // entries in the log's buffer, messages to the other nodes
	s.reply()               // what they have committed meanwhile
	if write != nil {
		write.Sync()
	}
	reclaimed = loop != nil && loop.reclaim()
	if node.Deliver(write) { // outcomes, each by Complete, into the connections' outputs
		s.reply()
		node.Release()
	}
	return reclaimed
}

// Drive runs group commits until nothing is queued, or another thread drives: for
// threads that have given the backend something to do, and poll no connection.
func (s *Server) Drive() {
	for s.backend.Acquire() {
		s.groupCommit(nil)
	}
}

// reply ends a step of a group commit that has delivered outcomes: requests that have all
// they waited for go on, and the outcomes in the connections' outputs are written.
func (s *Server) reply() {
	if list := s.delivery.take(); len(list) > 0 {
		s.transport.send(list, s.backend.Pending())
		s.delivery.giveBack(list)
	}
}

// delivery is what the outcomes of a group commit leave to be done after the step that
// delivers them.
type delivery struct {
	mu    sync.Mutex
	dirty connList      // have output that is not written yet
	ready []*readGather // have all they waited for, and go on
	retry []*conn       // found a queue full, and try again
}

// add has c, whose output has an outcome, written to. c.mu must be held.
func (d *delivery) add(c *conn) {
	if !c.marked {
		c.marked = true
		d.addMarked(c)
	}
}

// addMarked is add for a connection that the caller has marked.
func (d *delivery) addMarked(c *conn) {
	d.mu.Lock()
	d.dirty.conns = append(d.dirty.conns, c)
	d.mu.Unlock()
}

// resumeLater has w go on.
func (d *delivery) resumeLater(w *readGather) {
	d.mu.Lock()
	d.ready = append(d.ready, w)
	d.mu.Unlock()
}

// retryLater has c try again.
func (d *delivery) retryLater(c *conn) {
	d.mu.Lock()
	if !c.listed {
		c.listed = true
		d.retry = append(d.retry, c)
	}
	d.mu.Unlock()
}

// take returns the connections to be written to, after those who waited have gone
// on.
func (d *delivery) take() []*conn {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.ready)+len(d.retry) > 0 {
		d.resume()
	}
	return d.dirty.take()
}

// resume has those go on who waited. d.mu must be held; it is released meanwhile.
func (d *delivery) resume() {
	ready, retry := d.ready, d.retry
	d.ready, d.retry = nil, nil
	for _, c := range retry {
		c.listed = false
	}
	d.mu.Unlock()
	var t touched
	for _, w := range ready {
		w.resume(&t)
	}
	for _, c := range retry {
		c.retryQueue()
	}
	d.mu.Lock()
	d.dirty.conns = append(d.dirty.conns, t.conns...)
}

// giveBack returns a list of take, whose connections have been written to.
func (d *delivery) giveBack(list []*conn) {
	d.mu.Lock()
	d.dirty.giveBack(list)
	d.mu.Unlock()
}

// connList is a list of connections that is taken and filled again without
// allocating. Whoever has it locks it.
type connList struct{ conns, spare []*conn }

// take empties the list.
func (l *connList) take() (list []*conn) {
	if list = l.conns; len(list) > 0 {
		l.conns, l.spare = l.spare, nil
	}
	return list
}

// giveBack takes back what take has returned.
func (l *connList) giveBack(list []*conn) {
	if len(list) > 0 {
		clear(list)
		l.spare = list[:0]
	}
}
