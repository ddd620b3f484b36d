package etcd

import (
	"sync"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/engine"
)

// inbound is a message from another node; a snapshot's comes with its data.
type inbound struct {
	m      raftpb.Message
	staged *incomingSnapshot
}

// inbox has a group's messages from other nodes, and its reads that wait for a round,
// until a pass takes them. Its methods are safe for concurrent use, but that only the
// pass takes.
type inbox struct {
	mu       sync.Mutex
	messages []inbound
	bytes    int                 // of their entries
	reads    []engine.Completion // that wait for a round to begin
	listed   bool                // the schedule has the group among those with messages

	taken []inbound // belongs to the pass: the messages taken last
}

// What waits for a pass in one group is bounded by messages and by the bytes of
// their entries; one message may always wait. Raft takes a lost message for
// what it is.
const (
	inboxMax      = 4096
	inboxBytesMax = 32 << 20
)

// add adds a message, or drops it where there are too many. It reports whether the
// schedule has to be notified.
func (b *inbox) add(in inbound) (wake bool) {
	size := 0
	for i := range in.m.Entries {
		size += len(in.m.Entries[i].Data)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if in.staged == nil && (len(b.messages) >= inboxMax || len(b.messages) > 0 && b.bytes+size > inboxBytesMax) {
		return false
	}
	b.messages = append(b.messages, in)
	b.bytes += size
	return b.list()
}

// list notes that the schedule has the group, and reports whether it did not have it
// before. b.mu must be held.
func (b *inbox) list() bool {
	before := b.listed
	b.listed = true
	return !before
}

// take returns the messages, until they are forgotten.
func (b *inbox) take() []inbound {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.messages, b.taken = b.taken[:0], b.messages
	b.bytes = 0
	b.listed = false
	return b.taken
}

// forget lets go of the messages taken last.
func (b *inbox) forget() { clear(b.taken) }

// addRead adds a read that waits for a round, unless max of them do. It reports whether
// the schedule has to be notified. The error is ErrBusy.
func (b *inbox) addRead(done engine.Completion, most int) (wake bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.reads) >= most {
		return false, command.ErrBusy
	}
	b.reads = append(b.reads, done)
	return b.list(), nil
}

// takeReads moves the waiting reads to dst.
func (b *inbox) takeReads(dst []engine.Completion) []engine.Completion {
	b.mu.Lock()
	defer b.mu.Unlock()
	dst = append(dst, b.reads...)
	clear(b.reads)
	b.reads = b.reads[:0]
	return dst
}
