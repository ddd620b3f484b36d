package raftgroup

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/proa-kv/proa/command"
)

// completion is who learns the outcome of one command, and the tag to name it by.
type completion struct {
	sink command.Completer
	tag  command.Tag
}

// batch is an entry being filled: commands and, in the same order, their
// completions.
type batch struct {
	data  []byte // entry header and commands; belongs to Raft once proposed
	done  []completion
	stamp uint64 // 0: that of the moment when it is proposed
	until int64  // a large command's: it is not proposed later, on Clock.Boot; 0: it is whenever it can be
}

// queue has a group's commands until a pass takes them. Its methods are safe for
// concurrent use.
type queue struct {
	mu         sync.Mutex
	open       batch
	sealed     []batch      // full, in order, before open
	spare      []completion // empty, to be filled again
	hint       int          // bytes the next batch will probably take
	ops        int          // commands in open and sealed
	bytes      int          // of them
	large      []batch      // one command each, see large.go
	largeBytes int          // of them
	listed     bool         // the schedule has the group among those with commands

	hasLarge atomic.Bool // large is not empty
}

// hintBytesMax bounds the memory a batch begins with.
const hintBytesMax = 256 << 10

// add copies c, of size encoded bytes at most, into the open batch: the one copy a
// command makes between the network's buffer and the log. It reports whether the
// schedule has to be notified. The error is ErrBusy.
func (q *queue) add(c *command.Command, size int, done completion, lim *limits) (wake bool, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ops >= lim.queueOps || (q.bytes+size > lim.queueBytes && q.ops > 0) {
		return false, command.ErrBusy
	}
	if c.Kind == command.Mark && len(q.open.done) > 0 || len(q.open.done) >= lim.batchOps || (len(q.open.done) > 0 && len(q.open.data)+size > lim.batchBytes) {
		q.sealed = append(q.sealed, q.open)
		q.open = batch{}
	}
	if len(q.open.data) == 0 {
		q.open.data = command.AppendEntryHeader(make([]byte, 0, max(q.hint, command.EntryHeaderBytes+size)))
		q.open.done, q.spare = q.spare, nil
	}
	before := len(q.open.data)
	q.open.data = c.AppendTo(q.open.data)
	q.open.done = append(q.open.done, done)
	q.ops++
	q.bytes += len(q.open.data) - before
	return q.list(), nil
}

// list notes that the schedule has the group, and reports whether it did not have it
// before. q.mu must be held.
func (q *queue) list() bool {
	before := q.listed
	q.listed = true
	return !before
}

// take appends what is queued to dst, without large commands, and leaves spare to the
// queue, unless it has one.
func (q *queue) take(dst []batch, spare []completion) []batch {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.listed = false
	dst = append(dst, q.sealed...)
	clear(q.sealed)
	q.sealed = q.sealed[:0]
	if len(q.open.done) > 0 {
		dst = append(dst, q.open)
		// The next batch will be about as large: follow up at once, and down
		// slowly.
		q.hint = min(max(len(q.open.data), q.hint-q.hint/8), hintBytesMax)
		q.open = batch{}
	}
	q.ops, q.bytes = 0, 0
	if q.spare == nil {
		q.spare = spare
	}
	return dst
}

// addLarge adds a large command. It reports whether the schedule has to be notified.
func (q *queue) addLarge(b batch) (wake bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.large = append(q.large, b)
	q.largeBytes += len(b.data)
	q.hasLarge.Store(true)
	return q.list()
}

// roomForLarge reports whether the queue takes a large command of so many bytes.
// Those that ask at the same time may go beyond the bound by one each.
func (q *queue) roomForLarge(size int, lim *limits) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.largeBytes+size <= lim.queueBytes || len(q.large) == 0
}

// takeLarge moves up to n large commands to dst.
func (q *queue) takeLarge(dst []batch, n int) []batch {
	q.mu.Lock()
	defer q.mu.Unlock()
	n = min(n, len(q.large))
	dst = append(dst, q.large[:n]...)
	q.large = slices.Delete(q.large, 0, n)
	q.countLarge()
	return dst
}

// takeOverdue returns the large commands that must not be proposed any more. Small
// ones are proposed by the next pass as a rule, and are not looked at.
func (q *queue) takeOverdue(now int64) (overdue []batch) {
	if !q.hasLarge.Load() {
		return nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.large = slices.DeleteFunc(q.large, func(b batch) bool {
		late := b.until != 0 && b.until < now
		if late {
			overdue = append(overdue, b)
		}
		return late
	})
	q.countLarge()
	return overdue
}

// countLarge counts the large commands again. q.mu must be held.
func (q *queue) countLarge() {
	q.largeBytes = 0
	for i := range q.large {
		q.largeBytes += len(q.large[i].data)
	}
	q.hasLarge.Store(len(q.large) > 0)
}

// nextLarge returns the bytes of the next large command, 0 where there is none.
func (q *queue) nextLarge() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.large) == 0 {
		return 0
	}
	return len(q.large[0].data)
}

// holds reports whether so many commands, or bytes of them, are queued, large ones
// aside.
func (q *queue) holds(ops, bytes int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.ops >= ops || q.bytes >= bytes
}

// len returns how many commands are queued.
func (q *queue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.ops + len(q.large)
}

// isListed reports whether the schedule has the group among those with commands.
func (q *queue) isListed() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.listed
}
