package client

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"github.com/proa-kv/proa/protocol"
)

// session numbers the client's writes, so that the server can tell a repeated
// one from a new one. A sequence number is finished when the client will never
// send it again.
type session struct {
	id uint64 // random, never 0

	mu       sync.Mutex
	last     uint64              // newest sequence number given out
	low      uint64              // watermark: every number up to it is finished
	finished map[uint64]struct{} // finished numbers above low
}

func newSession() *session {
	s := &session{finished: make(map[uint64]struct{})}
	for s.id == 0 {
		s.id = rand.Uint64()
	}
	return s
}

// next gives out a sequence number and the watermark that holds with it. The
// watermark is always below the number.
func (s *session) next() (sequence, acknowledged uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	return s.last, s.low
}

// finish notes that sequence will never be sent again.
func (s *session) finish(sequence uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.finished[sequence] = struct{}{}
	for {
		if _, ok := s.finished[s.low+1]; !ok {
			return
		}
		s.low++
		delete(s.finished, s.low)
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
