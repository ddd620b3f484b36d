package server

// A commit.
//
// The thread that has read a round's requests commits them (see Leaders and
// followers in server.go). Each of the steps below is one call, and between them
// stands what the thread does with its event loop: the loop is released before the
// commit, and reclaimed when the thread has waited for the disk. At most one thread
// runs the backend's pass; while one waits for the disk others may, for messages of
// other nodes.

// reclaimer is what the committing thread has polled before, and takes back.
type reclaimer interface {
	// reclaim reports whether the caller polls again: no other thread has come
	// meanwhile.
	reclaim() bool
}

// commit commits what is queued. The caller has acquired the backend, and released
// loop, nil for none. It reports whether loop has been reclaimed.
func (s *Server) commit(loop reclaimer) (reclaimed bool) {
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

// Drive commits until nothing is queued, or another thread commits: for threads
// that have given the backend something to do, and poll no connection.
func (s *Server) Drive() {
	for s.backend.Acquire() {
		s.commit(nil)
	}
}

// reply ends a step of a commit that has delivered outcomes: requests that have all
// they waited for go on, and the outcomes in the connections' outputs are written.
func (s *Server) reply() {
	s.mu.Lock()
	if len(s.ready) > 0 {
		s.resumeReady()
	}
	if len(s.roomless) > 0 {
		s.resumeRoomless()
	}
	list := s.dirty
	if len(list) == 0 {
		s.mu.Unlock()
		return
	}
	s.dirty, s.spare = s.spare, nil
	s.mu.Unlock()
	s.front.flushAll(list, s.backend.Pending())
	clear(list)
	s.mu.Lock()
	s.spare = list[:0]
	s.mu.Unlock()
}

// resumeReady has the requests go on that have all they waited for. s.mu must
// be held; it is let go meanwhile.
func (s *Server) resumeReady() {
	ready := s.ready
	s.ready = nil
	s.mu.Unlock()
	var t touched
	for _, w := range ready {
		w.resume(&t)
	}
	s.mu.Lock()
	s.dirty = append(s.dirty, t.conns...)
}

// markDirty has the next reply write to c.
func (s *Server) markDirty(c *conn) {
	s.mu.Lock()
	s.dirty = append(s.dirty, c)
	s.mu.Unlock()
}
