package engine

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/proa-kv/proa/command"
)

// Completion is who learns the outcome of one command, and the tag to name it by.
type Completion struct {
	Sink command.Completer
	Tag  command.Tag
}

// Batch is an entry being filled: commands and, in the same order, their
// completions.
type Batch struct {
	Data  []byte // entry header and commands; belongs to Raft once proposed
	Done  []Completion
	Stamp uint64 // 0: that of the moment when it is proposed
	Until int64  // a large command's: it is not proposed later, on Clock.Boot; 0: it is whenever it can be
}

// Queue has a group's commands until a pass takes them. Its methods are safe for
// concurrent use.
type Queue struct {
	mu         sync.Mutex
	open       Batch
	sealed     []Batch      // full, in order, before open
	spare      []Completion // empty, to be filled again
	room       []byte       // likewise
	hint       int          // bytes the next batch will probably take
	ops        int          // commands in open and sealed
	bytes      int          // of them
	large      []Batch      // one command each, see LargeBytes
	largeBytes int          // of them
	listed     bool         // the schedule has the group among those with commands

	hasLarge atomic.Bool // large is not empty
}

// LargeBytes is the size, as it is encoded, from which on a command is large: it queues
// apart from the small ones, and becomes an entry of its own.
const LargeBytes = 64 << 10

// hintBytesMax bounds the memory a batch begins with.
const hintBytesMax = 256 << 10

// Add copies c, of size encoded bytes at most, into the open batch: the one copy a
// command makes between the network's buffer and the log. It reports whether the
// schedule has to be notified. The error is ErrBusy.
func (q *Queue) Add(c *command.Command, size int, done Completion, lim *Limits) (wake bool, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ops >= lim.QueueOps || (q.bytes+size > lim.QueueBytes && q.ops > 0) {
		return false, command.ErrBusy
	}
	if c.Kind == command.Mark && len(q.open.Done) > 0 || len(q.open.Done) >= lim.BatchOps || (len(q.open.Done) > 0 && len(q.open.Data)+size > lim.BatchBytes) {
		q.sealed = append(q.sealed, q.open)
		q.open = Batch{}
	}
	if len(q.open.Data) == 0 {
		q.begin(command.EntryHeaderBytes + size)
	}
	before := len(q.open.Data)
	q.open.Data = c.AppendTo(q.open.Data)
	q.open.Done = append(q.open.Done, done)
	q.ops++
	q.bytes += len(q.open.Data) - before
	return q.list(), nil
}

// begin begins the open batch, with room for so many bytes at least. q.mu must be held.
func (q *Queue) begin(bytes int) {
	if bytes = max(bytes, q.hint); cap(q.room) < bytes {
		q.room = make([]byte, 0, bytes)
	}
	q.open.Data, q.room = command.AppendEntryHeader(q.room), nil
	q.open.Done, q.spare = q.spare, nil
}

// Reuse leaves to the queue what a batch was made of, and nobody needs any more: its
// completions, its data, or, one of them being nil, the other.
func (q *Queue) Reuse(data []byte, done []Completion) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.spare == nil && done != nil {
		q.spare = done[:0]
	}
	if q.room == nil && cap(data) <= hintBytesMax {
		q.room = data[:0]
	}
}

// list notes that the schedule has the group, and reports whether it did not have it
// before. q.mu must be held.
func (q *Queue) list() bool {
	before := q.listed
	q.listed = true
	return !before
}

// Take appends what is queued to dst, without large commands, and leaves spare to the
// queue, unless it has one.
func (q *Queue) Take(dst []Batch, spare []Completion) []Batch {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.listed = false
	dst = append(dst, q.sealed...)
	clear(q.sealed)
	q.sealed = q.sealed[:0]
	if len(q.open.Done) > 0 {
		dst = append(dst, q.open)
		// The next batch will be about as large: follow up at once, and down
		// slowly.
		q.hint = min(max(len(q.open.Data), q.hint-q.hint/8), hintBytesMax)
		q.open = Batch{}
	}
	q.ops, q.bytes = 0, 0
	if q.spare == nil {
		q.spare = spare
	}
	return dst
}

// AddLarge adds a large command. It reports whether the schedule has to be notified.
func (q *Queue) AddLarge(b Batch) (wake bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.large = append(q.large, b)
	q.largeBytes += len(b.Data)
	q.hasLarge.Store(true)
	return q.list()
}

// HasLarge reports whether large commands are queued.
func (q *Queue) HasLarge() bool { return q.hasLarge.Load() }

// RoomForLarge reports whether the queue takes a large command of so many bytes.
// Those that ask at the same time may go beyond the bound by one each.
func (q *Queue) RoomForLarge(size int, lim *Limits) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.largeBytes+size <= lim.QueueBytes || len(q.large) == 0
}

// TakeLarge moves up to n large commands to dst.
func (q *Queue) TakeLarge(dst []Batch, n int) []Batch {
	q.mu.Lock()
	defer q.mu.Unlock()
	n = min(n, len(q.large))
	dst = append(dst, q.large[:n]...)
	q.large = slices.Delete(q.large, 0, n)
	q.countLarge()
	return dst
}

// TakeOverdue returns the large commands that must not be proposed any more. Small
// ones are proposed by the next pass as a rule, and are not looked at.
func (q *Queue) TakeOverdue(now int64) (overdue []Batch) {
	if !q.hasLarge.Load() {
		return nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.large = slices.DeleteFunc(q.large, func(b Batch) bool {
		late := b.Until != 0 && b.Until < now
		if late {
			overdue = append(overdue, b)
		}
		return late
	})
	q.countLarge()
	return overdue
}

// countLarge counts the large commands again. q.mu must be held.
func (q *Queue) countLarge() {
	q.largeBytes = 0
	for i := range q.large {
		q.largeBytes += len(q.large[i].Data)
	}
	q.hasLarge.Store(len(q.large) > 0)
}

// NextLarge returns the bytes of the next large command, 0 where there is none.
func (q *Queue) NextLarge() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.large) == 0 {
		return 0
	}
	return len(q.large[0].Data)
}

// Holds reports whether so many commands, or bytes of them, are queued, large ones
// aside.
func (q *Queue) Holds(ops, bytes int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.ops >= ops || q.bytes >= bytes
}

// Len returns how many commands are queued.
func (q *Queue) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.ops + len(q.large)
}

// IsListed reports whether the schedule has the group among those with commands.
func (q *Queue) IsListed() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.listed
}
