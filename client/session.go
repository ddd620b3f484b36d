package client

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/proa-kv/proa/protocol"
)

// sessionWindow is how far the sequence numbers of a session may run ahead of
// its watermark. A server keeps as many results of a session in each shard;
// beyond them it would drop the lowest, whose retry could no longer be
// answered.
const sessionWindow = 1024

// sessionRetryMax is how long after it was sent first a write of unknown outcome
// is sent again. Servers keep results for an hour, unless they are configured
// otherwise; ten minutes are left to requests on their way and to clocks that do
// not agree.
const sessionRetryMax = 50 * time.Minute

// session numbers the client's writes, so that the server can tell a repeated
// one from a new one. A sequence number is finished when the client will never
// send it again.
//
// A write gets its number when it first goes to a connection and keeps it in
// every further attempt. No number is given out that exceeds the watermark by
// more than sessionWindow, and each frame carries a watermark of the moment its
// number was given out. So whatever order the writes arrive in, all that a
// shard has a result of and has no order to drop lie within one window.
type session struct {
	id       uint64        // random, never 0
	retryMax time.Duration // sessionRetryMax, but for tests

	mu       sync.Mutex
	last     uint64              // newest sequence number given out
	low      uint64              // watermark: every number up to it is finished
	finished [sessionWindow]bool // by number modulo the window: finished, above low
}

func newSession() *session {
	s := &session{retryMax: sessionRetryMax}
	for s.id == 0 {
		s.id = rand.Uint64()
	}
	return s
}

// full reports whether a new number has to wait until the watermark rises.
func (s *session) full() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last-s.low >= sessionWindow
}

// number gives a call its sequence number, together with the watermark that
// holds now, unless it has one. It reports false if the call has to wait. A
// call that was given up meanwhile gets no number: finish has looked for it
// already, or will find none.
func (s *session) number(ca *call) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case ca.sequence != 0 || ca.state.Load() == callDone:
		return true
	case s.last-s.low >= sessionWindow:
		return false
	}
	s.last++
	ca.setSequence(s.last, s.low)
	return true
}

// forgotten reports whether a server may have forgotten at time now what became
// of a write that was sent before, and would carry it out once more.
func (s *session) forgotten(ca *call, now int64) bool {
	return now-ca.sentFirst > int64(s.retryMax)
}

// finish notes that a call will never be sent again. Its state is callDone;
// whoever moved it there calls finish, once.
func (s *session) finish(ca *call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ca.sequence == 0 {
		return // it never went to a connection
	}
	s.finished[ca.sequence%sessionWindow] = true
	for next := &s.finished[(s.low+1)%sessionWindow]; *next; next = &s.finished[(s.low+1)%sessionWindow] {
		*next = false
		s.low++
	}
}

// seen holds the newest version seen in each hash slot. Versions count per
// shard and a slot never lies in two shards, so what a token of the slot
// demands is no more than what was seen.
type seen [protocol.Slots]atomic.Uint64

func (s *seen) observe(slot uint16, version uint64) {
	for v := &s[slot]; ; {
		old := v.Load()
		if version <= old || v.CompareAndSwap(old, version) {
			return
		}
	}
}
