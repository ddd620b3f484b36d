package client

// A node can fall silent without closing its connections: it was stopped, its
// network is cut, its disk stalls. So an attempt has a time limit of its own,
// in which the call as a whole can still succeed elsewhere. Time is counted in
// ticks of the janitor, so that sending a request and reading a reply cost no
// look at the clock.
//
// Two things can be wrong. The node is alive and does not answer this request:
// then the attempt is given up, and the next one gets twice the time, so that
// a server that is merely slow is not flooded. Or nothing at all has come over
// the connection since the request was sent: then it is stalled. All that waits
// on it goes elsewhere, and new requests avoid it until something comes over it again.
//
// A call is only ever moved if a connection to another node is there to take
// it. The place in the table remains taken: the server still counts the
// request and may yet answer it.

// attemptTicks is how many ticks AttemptTimeout is divided into.
const attemptTicks = 4

// attemptDoublings bounds the growth of the limit.
const attemptDoublings = 5

// watchAttempts counts one tick, and moves the calls whose attempt has taken
// too long.
func (j *janitor) watchAttempts() {
	tick := j.tick.Add(1)
	for _, cn := range j.c.pool.open() {
		if cn.inFlight.Load() == 0 {
			continue
		}
		if !j.c.pool.hasOther(cn) {
			if tick-cn.lastTick.Load() > attemptTicks {
				j.c.pool.hurry()
			}
			continue
		}
		before := cn.stalled.Load()
		moved := cn.overdue(tick)
		if !before && cn.stalled.Load() {
			cn.log.Warn("no answer from the node, using other nodes", "node", cn.info.Node)
		}
		if len(moved) > 0 {
			j.c.router.refreshSoon()
		}
		for _, ca := range moved {
			ca.avoid = cn.node
			j.c.dispatcher.resubmit(ca)
		}
	}
}

// overdue takes the calls out that have to be moved, and finds out whether the
// connection is stalled. The calls it returns are callWaiting, unless their
// callers have given up.
func (cn *conn) overdue(tick uint32) (moved []*call) {
	cn.mu.Lock()
	defer cn.mu.Unlock()
	silent := tick-cn.lastTick.Load() > attemptTicks
	stalled := false
	for _, r := range cn.pending.All() {
		if stalled = silent && tick-r.tick > attemptTicks; stalled {
			break
		}
	}
	if stalled {
		cn.stalled.Store(true)
		moved = cn.takeQueue()
	}
	for id, r := range cn.pending.All() {
		if (stalled || tick-r.tick > r.call.patience()) && cn.detach(id, r) {
			moved = append(moved, r.call)
			r.call = &cn.ghost
		}
	}
	return moved
}

// patience is how many ticks the call's present attempt may take.
func (ca *call) patience() uint32 {
	return attemptTicks << min(max(ca.attempts.Load()-1, 0), attemptDoublings)
}

// detach makes the call of a request ready for another attempt. It reports false
// where that is not safe, or of no use. cn.mu is held.
func (cn *conn) detach(id uint64, r *request) bool {
	ca := r.call
	switch {
	case ca.state.Load() != callSent:
		return false
	case ca.write && ca.sequence == 0 || !cn.c.dispatcher.mayRetry(ca):
		return false
	case r.partly: // it is being answered
		return false
	case cn.writing && cn.largeID == id: // its frame is being written from where it stands
		return false
	}
	if ca.write {
		ca.tainted.Store(true)
	}
	return ca.state.CompareAndSwap(callSent, callWaiting)
}

// takeQueue takes the calls out that have not been sent. cn.mu is held.
func (cn *conn) takeQueue() []*call {
	unsent := append([]*call(nil), cn.queue[cn.head:]...)
	cn.queue, cn.head = nil, 0
	for _, ca := range unsent {
		cn.vacate(ca.id())
	}
	return unsent
}
