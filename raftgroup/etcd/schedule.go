package etcd

import (
	"sync"
	"sync/atomic"
)

// schedule has the work that waits for a pass, and says who runs it. Any thread adds
// work; the thread that runs the pass takes it.
type schedule struct {
	passState

	mu       sync.Mutex
	commands []*group  // that have commands
	messages []*group  // that have messages, or reads that wait for a round
	posted   []func()  // to be called in the pass
	written  *writeSet // is durable; nil: none since the last pass

	// Belong to the pass: lists that have been taken, and are filled again next.
	takenCommands, takenMessages []*group
}

// addCommands notes that g has commands.
func (s *schedule) addCommands(g *group) {
	s.mu.Lock()
	s.commands = append(s.commands, g)
	s.mu.Unlock()
	s.request(commandsDue)
}

// addMessages notes that g has messages or waiting reads. Once all have been added,
// messagesDue must be requested.
func (s *schedule) addMessages(g *group) {
	s.mu.Lock()
	s.messages = append(s.messages, g)
	s.mu.Unlock()
}

// addPosted has f called by the next pass.
func (s *schedule) addPosted(f func()) {
	s.mu.Lock()
	s.posted = append(s.posted, f)
	s.mu.Unlock()
	s.request(messagesDue)
}

// addWritten ends the log write of w, successful or not.
func (s *schedule) addWritten(w *writeSet) {
	s.mu.Lock()
	s.written = w
	s.mu.Unlock()
	s.endWrite()
}

// takeCommands returns the groups with commands, until the next call.
func (s *schedule) takeCommands() []*group {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.commands, s.takenCommands = s.takenCommands[:0], s.commands
	return s.takenCommands
}

// takeMessages returns the groups with messages or waiting reads, until the next call.
func (s *schedule) takeMessages() []*group {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.messages, s.takenMessages = s.takenMessages[:0], s.messages
	return s.takenMessages
}

// takePosted returns the functions that the pass is to call.
func (s *schedule) takePosted() []func() {
	s.mu.Lock()
	defer s.mu.Unlock()
	posted := s.posted
	s.posted = nil
	return posted
}

// takeWritten returns the log write that has ended since the last call, or nil.
func (s *schedule) takeWritten() *writeSet {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.written
	s.written = nil
	return w
}

// passState says which thread runs the pass, whether a thread writes the log, and
// what work is due. One word has all of it, so that each transition is atomic.
//
//	state    the pass  the log   next
//	idle     free      at rest   acquire → passing
//	passing  held      at rest   release → idle, beginWrite → writing
//	writing  free      written   acquire → serving, endWrite → idle
//	serving  held      written   release → writing, endWrite → passing
//
// A pass is acquired only for work that is due; commands wait while the log is
// written, to join one next entry, and other work does not. After its write a thread
// takes the pass without asking for work (resume): it has outcomes to deliver. All
// methods are safe for concurrent use.
type passState struct{ word atomic.Uint32 }

// The parts of the word: two bits of state, and the kinds of work.
const (
	passHeld   uint32 = 1 << iota // a thread runs the pass
	logWriting                    // a thread writes the log
	commandsDue
	messagesDue // or reads, finished log writes, posted functions: what must not wait for a log write
	tickDue
	truncateDue

	urgentDue = messagesDue | tickDue | truncateDue
)

// request notes that work is due.
func (s *passState) request(work uint32) { s.word.Or(work) }

// due reports whether there is work that a pass may do now.
func (s *passState) due() bool { return workDue(s.word.Load()) != 0 }

// workDue returns the work that a pass may do in a state.
func workDue(word uint32) uint32 {
	if word&logWriting != 0 {
		return word & urgentDue
	}
	return word & (urgentDue | commandsDue)
}

// acquire makes the caller the thread that runs the pass, if work is due and no
// other thread runs it.
func (s *passState) acquire() bool {
	for {
		word := s.word.Load()
		if workDue(word) == 0 || word&passHeld != 0 {
			return false
		}
		if s.word.CompareAndSwap(word, word|passHeld) {
			return true
		}
	}
}

// resume makes the caller the thread that runs the pass, unless another thread runs
// it.
func (s *passState) resume() bool { return s.word.Or(passHeld)&passHeld == 0 }

// take returns the work that the holder of the pass is to do now, as far as it is
// among the kinds asked for, and which is due no longer.
func (s *passState) take(kinds uint32) (work uint32) {
	for {
		word := s.word.Load()
		work = workDue(word) & kinds
		if work == 0 || s.word.CompareAndSwap(word, word&^work) {
			return work
		}
	}
}

// release gives up the pass.
func (s *passState) release() { s.word.And(^passHeld) }

// beginWrite gives up the pass for a write of the log. No other write may be under
// way.
func (s *passState) beginWrite() {
	for {
		word := s.word.Load()
		if s.word.CompareAndSwap(word, word&^passHeld|logWriting) {
			return
		}
	}
}

// endWrite ends the write of the log. Its results are work for a pass.
func (s *passState) endWrite() {
	for {
		word := s.word.Load()
		if s.word.CompareAndSwap(word, word&^logWriting|messagesDue) {
			return
		}
	}
}

// writing reports whether the log is being written. For the holder of the pass a
// false answer stays true.
func (s *passState) writing() bool { return s.word.Load()&logWriting != 0 }
