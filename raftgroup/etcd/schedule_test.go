package etcd

import (
	"sync"
	"sync/atomic"
	"testing"
)

// TestPassState: the transitions from every state, with every kind of work due.
func TestPassState(t *testing.T) {
	names := map[uint32]string{0: "idle", passHeld: "passing", logWriting: "writing", passHeld | logWriting: "serving"}
	state := func(word uint32) string { return names[word&(passHeld|logWriting)] }
	for word := range truncateDue << 1 {
		at := func() *passState {
			s := new(passState)
			s.word.Store(word)
			return s
		}
		held, writing := word&passHeld != 0, word&logWriting != 0
		due := word&urgentDue != 0 || word&commandsDue != 0 && !writing
		check := func(what string, s *passState, want uint32) {
			t.Helper()
			if got := s.word.Load(); got != want {
				t.Errorf("%s from %s (%b): %s (%b), want %s (%b)", what, state(word), word, state(got), got, state(want), want)
			}
		}
		if got := at().due(); got != due {
			t.Errorf("due in %b: %v", word, got)
		}
		if got := at().writing(); got != writing {
			t.Errorf("writing in %b: %v", word, got)
		}

		s, want := at(), word
		if due && !held {
			want |= passHeld
		}
		if got := s.acquire(); got != (due && !held) {
			t.Errorf("acquire in %b: %v", word, got)
		}
		check("acquire", s, want)

		s = at()
		if got := s.resume(); got == held {
			t.Errorf("resume in %b: %v", word, got)
		}
		check("resume", s, word|passHeld)

		s = at()
		s.release()
		check("release", s, word&^passHeld)

		s = at()
		s.beginWrite()
		check("beginWrite", s, word&^passHeld|logWriting)

		s = at()
		s.endWrite()
		check("endWrite", s, word&^logWriting|messagesDue)

		for _, kinds := range []uint32{urgentDue, urgentDue | commandsDue} {
			s = at()
			taken := word & kinds
			if writing {
				taken &^= commandsDue
			}
			if got := s.take(kinds); got != taken {
				t.Errorf("take %b in %b: %b, want %b", kinds, word, got, taken)
			}
			check("take", s, word&^taken)
		}
	}
}

// TestPassStateExcludes: threads that acquire, write and resume at once are never two
// in the pass, nor two that write, and no request is lost.
func TestPassStateExcludes(t *testing.T) {
	var s passState
	var inPass, inWrite, requested, done atomic.Int32
	enter := func(n *atomic.Int32) {
		if n.Add(1) != 1 {
			t.Error("two threads at once")
		}
	}
	commit := func() {
		if !s.acquire() {
			return
		}
		enter(&inPass)
		writing := s.writing()
		if s.take(urgentDue|commandsDue)&commandsDue != 0 {
			done.Store(requested.Load())
		}
		if inPass.Add(-1); writing {
			s.release()
			return
		}
		enter(&inWrite) // before others can begin one
		s.beginWrite()
		inWrite.Add(-1)
		s.endWrite()
		if s.resume() {
			enter(&inPass)
			s.take(urgentDue)
			inPass.Add(-1)
			s.release()
		}
	}
	var threads sync.WaitGroup
	for range 4 {
		threads.Go(func() {
			for range 20_000 {
				requested.Add(1)
				s.request(commandsDue)
				commit()
			}
		})
	}
	threads.Wait()
	for s.due() {
		commit()
	}
	if done.Load() != requested.Load() {
		t.Errorf("%d of %d requests were seen", done.Load(), requested.Load())
	}
}
