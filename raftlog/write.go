package raftlog

import (
	"fmt"
	"sync/atomic"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// writeBufferKept is the capacity, in bytes, that a Write keeps between
// commits. A burst of large entries does not pin its memory for good.
const writeBufferKept = 4 << 20

// op is what one record will do to its group when it has been written.
type op struct {
	g     *Group
	kind  byte
	reset bool
	mark  mark // start, truncation; of entries, index is the first one's
	hs    hardState
	conf  []byte
	// entries: their range in Write.refs and Write.entries
	from, to int
}

// Write gathers the records of one Commit, of any number of groups. It keeps
// its memory from one Commit to the next. A Write is filled and committed by
// one goroutine, and only one Write of a Log may hold records at a time.
type Write struct {
	log     *Log
	fill    uint64 // identity of what is being gathered
	buf     []byte // room for the run's header, then records
	ops     []op
	refs    []entryRef // off is the offset in buf until the place in the file is known
	entries []raftpb.Entry
}

var fills atomic.Uint64

// NewWrite returns an empty Write for l.
func (l *Log) NewWrite() *Write {
	w := &Write{log: l}
	w.reset()
	return w
}

// Empty reports whether there is nothing to commit.
func (w *Write) Empty() bool { return len(w.ops) == 0 }

func (w *Write) reset() {
	w.fill = fills.Add(1)
	if cap(w.buf) > writeBufferKept {
		w.buf = nil
	}
	w.buf = append(w.buf[:0], make([]byte, runHeaderBytes)...)
	clear(w.ops)
	clear(w.refs)
	clear(w.entries)
	w.ops, w.refs, w.entries = w.ops[:0], w.refs[:0], w.entries[:0]
}

// state returns what w so far makes of g.
func (w *Write) state(g *Group) *pendingState {
	if g.pending.fill != w.fill {
		g.mu.Lock()
		g.pending = pendingState{fill: w.fill, start: g.visible().index, last: g.last()}
		g.mu.Unlock()
	}
	return &g.pending
}

// Append adds entries and, unless it is empty, a hard state. The
// entries have consecutive indexes and replace whatever stands at and after
// the first one's; those the log begins after are left out. The data are
// copied into the Write; the entries themselves are kept for readers, so the
// caller must not change them any more. A gap between the log and the entries,
// or within them, is a bug of the caller and panics.
func (w *Write) Append(g *Group, hs raftpb.HardState, entries []raftpb.Entry) {
	if len(entries) > 0 {
		w.appendEntries(g, entries)
	}
	if !raft.IsEmptyHardState(hs) {
		h := hardState{hs.Term, hs.Vote, hs.Commit}
		w.buf = appendHardState(w.buf, g.id, h)
		w.ops = append(w.ops, op{g: g, kind: kindHardState, hs: h})
	}
}

func (w *Write) appendEntries(g *Group, entries []raftpb.Entry) {
	s := w.state(g)
	first := entries[0].Index
	if last := first + uint64(len(entries)) - 1; last <= s.start {
		return
	}
	if first <= s.start {
		entries = entries[s.start+1-first:]
		first = s.start + 1
	}
	if first > s.last+1 {
		panic(fmt.Sprintf("raftlog: group %d ends at %d, cannot append at %d", g.id, s.last, first))
	}
	from := len(w.refs)
	w.buf = appendEntriesHeader(w.buf, g.id, first, len(entries))
	for i, e := range entries {
		if e.Index != first+uint64(i) {
			panic(fmt.Sprintf("raftlog: group %d: entry %d where %d was due", g.id, e.Index, first+uint64(i)))
		}
		data := e.Data
		w.buf = appendEntry(w.buf, e.Term, e.Type, data)
		w.refs = append(w.refs, entryRef{
			term: e.Term,
			off:  uint32(len(w.buf) - len(data)),
			size: uint32(len(data)),
			crc:  checksum(data),
			typ:  e.Type,
		})
	}
	w.entries = append(w.entries, entries...)
	w.ops = append(w.ops, op{g: g, kind: kindEntries, mark: mark{index: first}, from: from, to: len(w.refs)})
	s.last = first + uint64(len(entries)) - 1
}

// SetStart makes g's log begin after index, whose term is given: at the first
// start of a group, and when a snapshot is installed. It drops the entries up
// to index, and all of them unless the log holds index with that term. cs is
// the configuration at index; nil leaves it as it is. A commit index below
// index need not be raised by the caller, see InitialState.
func (w *Write) SetStart(g *Group, index, term uint64, cs *raftpb.ConfState) {
	at, ok := w.term(g, index)
	reset := !ok || at != term
	s := w.state(g)
	s.start = index
	if reset {
		s.last, s.reset = index, true
	}
	m := mark{index, term}
	w.buf = appendStart(w.buf, g.id, m, reset)
	w.ops = append(w.ops, op{g: g, kind: kindStart, mark: m, reset: reset})
	if cs != nil {
		w.SetConfState(g, cs)
	}
}

// term looks index up in what w so far makes of g.
func (w *Write) term(g *Group, index uint64) (term uint64, ok bool) {
	for i := len(w.ops) - 1; i >= 0; i-- {
		o := &w.ops[i]
		if o.g != g {
			continue
		}
		switch o.kind {
		case kindEntries:
			if index < o.mark.index {
				continue
			}
			n := index - o.mark.index
			if n >= uint64(o.to-o.from) {
				return 0, false
			}
			return w.refs[o.from+int(n)].term, true
		case kindStart:
			if index == o.mark.index {
				return o.mark.term, true
			}
			if index < o.mark.index || o.reset {
				return 0, false
			}
		}
	}
	term, err := g.Term(index)
	return term, err == nil
}

// SetConfState records g's configuration. cs is copied.
func (w *Write) SetConfState(g *Group, cs *raftpb.ConfState) {
	conf, err := cs.Marshal()
	if err != nil {
		// Without required fields and strings there is nothing that could fail.
		panic(fmt.Sprintf("raftlog: encoding a configuration: %v", err))
	}
	if conf == nil {
		conf = []byte{}
	}
	w.buf = appendConfState(w.buf, g.id, conf)
	w.ops = append(w.ops, op{g: g, kind: kindConfState, conf: conf})
}

// addTruncation records what Truncate asked for. A log that begins anew within
// w has nothing left of what was to be truncated.
func (w *Write) addTruncation(g *Group) {
	if g.pending.fill == w.fill && g.pending.reset {
		return
	}
	g.mu.Lock()
	index := g.trunc.index
	g.mu.Unlock()
	term, ok := w.term(g, index)
	if !ok {
		return
	}
	m := mark{index, term}
	w.buf = appendTruncate(w.buf, g.id, m)
	w.ops = append(w.ops, op{g: g, kind: kindTruncate, mark: m})
}

// publish makes the groups show what has been written to s at offset.
func (w *Write) publish(s *segment, offset int64) {
	for i := range w.refs {
		w.refs[i].seg = s
		w.refs[i].off += uint32(offset)
	}
	for i := range w.ops {
		w.ops[i].apply(w)
	}
}

func (o *op) apply(w *Write) {
	g := o.g
	g.mu.Lock()
	defer g.mu.Unlock()
	switch o.kind {
	case kindEntries:
		g.replace(o.mark.index, w.refs[o.from:o.to], w.entries[o.from:o.to])
	case kindHardState:
		g.hs = o.hs
	case kindStart:
		g.begin(o.mark, o.reset)
	case kindConfState:
		g.conf = o.conf
	case kindTruncate:
		g.truncate(o.mark)
	}
}
