package raftlog

import (
	"fmt"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// writeBufferKept is the capacity, in bytes, that a Write keeps between
// Saves. A burst of large entries does not pin its memory for good.
const writeBufferKept = 4 << 20

// op is what one record will do to its group when it has been written.
type op struct {
	g     *Group
	kind  byte
	reset bool
	head  bool // the group's first in the Write
	next  int  // index of the group's next in the Write; 0 where there is none
	mark  mark // start, truncation; of entries, index is the first one's
	hs    hardState
	data  []byte // configuration, metadata
	// entries: their range in Write.refs and Write.entries
	from, to int
}

// Write gathers the records of one Save, of any number of groups. It keeps
// its memory from one Save to the next.
//
// Two Writes of a Log may hold records: while one is being saved, the next
// one is filled, for the same groups too. What it is told is taken on top of
// what the first one will have made of them: Append goes on from the last
// index that the first one appended, or replaces what it appended, and so on.
// Readers of a Group see neither before it is published.
//
//   - Writes are filled one after the other, by one goroutine at a time. The
//     caller sees to it that one has done with all Writes of the Log before
//     another goes on.
//   - A Write passes to the goroutine that calls Save with it, and comes
//     back, empty, when Save returns without a final error.
//   - Writes are saved in the order in which they were filled, that is, in
//     which they got their first record. What holds records must be saved:
//     others build on it.
//
// A Save out of order is a bug of the caller and panics, and so is a record
// in a third Write while two hold some, or in a Write when a later one has got
// its first.
//
// Filling never waits for a Save or for the disk.
type Write struct {
	log     *Log
	fill    uint64 // place in the order of all Writes of log; 0 before the first record
	buf     []byte // room for the run's header, then records
	ops     []op
	refs    []entryRef // off is the offset in buf until the place in the file is known
	entries []raftpb.Entry
}

// NewWrite returns an empty Write for l.
func (l *Log) NewWrite() *Write {
	w := &Write{log: l}
	w.reset()
	return w
}

// Empty reports whether there is nothing to save.
func (w *Write) Empty() bool { return len(w.ops) == 0 }

func (w *Write) reset() {
	w.fill = 0
	if cap(w.buf) > writeBufferKept {
		w.buf = nil
	}
	w.buf = append(w.buf[:0], make([]byte, runHeaderBytes)...)
	clear(w.ops)
	clear(w.refs)
	clear(w.entries)
	w.ops, w.refs, w.entries = w.ops[:0], w.refs[:0], w.entries[:0]
}

// begin gives w its place in the order of Writes.
func (w *Write) begin() {
	w.fill = w.log.fills.Add(1)
	// A log that has failed settles nothing any more, and loses nothing either.
	if w.fill > w.log.settled.Load()+2 && w.log.Err() == nil {
		panic("raftlog: a third Write is filled while one is in its Save and another waits for it")
	}
}

// view returns what g's log will be with all Writes there are.
func (w *Write) view(g *Group) *pendingState {
	p := &g.pending
	if p.fill <= w.log.settled.Load() {
		g.mu.Lock()
		p.load(g.visible(), g.last())
		g.mu.Unlock()
	}
	return p
}

// add notes what a record does, and returns the state to do it to.
func (w *Write) add(o op) *pendingState {
	p := w.view(o.g)
	if w.fill == 0 {
		w.begin()
	} else if w.fill != w.log.fills.Load() {
		panic("raftlog: a Write is filled further though a later one has been begun")
	}
	if o.head = p.fill != w.fill; o.head {
		p.enter(w.fill)
	} else {
		w.ops[p.tail].next = len(w.ops)
	}
	p.tail = len(w.ops)
	w.ops = append(w.ops, o)
	return p
}

// Append adds entries and, unless it is empty, a hard state. The
// entries have consecutive indexes and replace whatever stands at and after
// the first one's; those the log begins after are left out. The data are
// copied into the Write; the entries themselves are kept for readers, so the
// caller must not change them any more. A gap between the entries and the log
// as all Writes will leave it, or within them, is a bug of the caller and
// panics.
func (w *Write) Append(g *Group, hs raftpb.HardState, entries []raftpb.Entry) {
	if len(entries) > 0 {
		w.appendEntries(g, entries)
	}
	if !raft.IsEmptyHardState(hs) {
		h := hardState{hs.Term, hs.Vote, hs.Commit}
		w.buf = appendHardState(w.buf, g.id, h)
		w.add(op{g: g, kind: kindHardState, hs: h})
	}
}

func (w *Write) appendEntries(g *Group, entries []raftpb.Entry) {
	p := w.view(g)
	first, start := entries[0].Index, p.start.index
	if last := first + uint64(len(entries)) - 1; last <= start {
		return
	}
	if first <= start {
		entries = entries[start+1-first:]
		first = start + 1
	}
	if first > p.last+1 {
		panic(fmt.Sprintf("raftlog: group %d ends at %d, cannot append at %d", g.id, p.last, first))
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
	w.add(op{g: g, kind: kindEntries, mark: mark{index: first}, from: from, to: len(w.refs)}).replace(entries)
}

// SetStart makes g's log begin after index, whose term is given: at the first
// start of a group, and when a snapshot is installed. It drops the entries up
// to index, and all of them unless the log holds index with that term. cs is
// the configuration at index; nil leaves it as it is. A commit index below
// index need not be raised by the caller, see InitialState.
func (w *Write) SetStart(g *Group, index, term uint64, cs *raftpb.ConfState) {
	at, ok := w.view(g).term(index, g)
	w.start(g, mark{index, term}, !ok || at != term)
	if cs != nil {
		w.SetConfState(g, cs)
	}
}

// Restart is SetStart for a Raft that takes its log to end at index, whatever
// stood there: it drops all entries.
func (w *Write) Restart(g *Group, index, term uint64) { w.start(g, mark{index, term}, true) }

func (w *Write) start(g *Group, m mark, reset bool) {
	w.buf = appendStart(w.buf, g.id, m, reset)
	w.add(op{g: g, kind: kindStart, mark: m, reset: reset}).begin(m, reset)
}

// Remove makes g as if nothing had ever been written to it: its hard state,
// configuration, metadata, start and entries are gone. What
// w or a later Write says of g after that begins it anew. The segments that
// held its entries are given up by the first synced Save, this one or a
// later one, that finds nobody else's in them.
func (w *Write) Remove(g *Group) {
	w.buf = appendRemove(w.buf, g.id)
	w.add(op{g: g, kind: kindRemove}).begin(mark{}, true)
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
	w.add(op{g: g, kind: kindConfState, data: conf})
}

// SetMetadata records what the caller wants to find again in Group.Metadata, in place of
// what it recorded before. The log keeps it as it is. data is copied.
func (w *Write) SetMetadata(g *Group, data []byte) {
	w.buf = appendMetadata(w.buf, g.id, data)
	w.add(op{g: g, kind: kindMetadata, data: append([]byte{}, data...)})
}

// addTruncation records what Truncate asked for. It is called by the Save of
// w, and thus knows only w and what is published.
func (w *Write) addTruncation(g *Group) {
	g.mu.Lock()
	index, due := g.trunc.index, g.trunc.index > g.start.index
	g.mu.Unlock()
	if !due {
		return
	}
	term, ok := w.truncated(g, index)
	if !ok {
		return
	}
	m := mark{index, term}
	w.buf = appendTruncate(w.buf, g.id, m)
	w.ops = append(w.ops, op{g: g, kind: kindTruncate, head: true, mark: m})
}

// truncated returns the term at index, which is to become the start of g, in
// what w makes of the published log. A log that begins anew or later within w
// has nothing left of what was to be truncated.
func (w *Write) truncated(g *Group, index uint64) (term uint64, ok bool) {
	term, err := g.Term(index)
	ok = err == nil
	for i := range w.ops {
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
			if ok = n < uint64(o.to-o.from); ok {
				term = w.refs[o.from+int(n)].term
			}
		case kindStart:
			if o.reset || o.mark.index >= index {
				return 0, false
			}
		case kindRemove:
			return 0, false
		}
	}
	return term, ok
}

// publish makes the groups show what has been written to s at offset. Of each
// group all records show at once.
func (w *Write) publish(s *segment, offset int64) {
	for i := range w.refs {
		w.refs[i].seg = s
		w.refs[i].off += uint32(offset)
	}
	for i := range w.ops {
		if w.ops[i].head {
			w.publishGroup(i)
		}
	}
}

// publishGroup applies the records that begin with ops[i].
func (w *Write) publishGroup(i int) {
	g := w.ops[i].g
	g.mu.Lock()
	defer g.mu.Unlock()
	for {
		w.apply(g, &w.ops[i])
		if i = w.ops[i].next; i == 0 {
			return
		}
	}
}

func (w *Write) apply(g *Group, o *op) {
	switch o.kind {
	case kindEntries:
		g.replaceFrom(o.mark.index, w.refs[o.from:o.to], w.entries[o.from:o.to])
	case kindHardState:
		g.hs = o.hs
	case kindStart:
		g.begin(o.mark, o.reset)
		w.log.reclaim = true
	case kindConfState:
		g.conf = o.data
	case kindMetadata:
		g.meta = o.data
	case kindTruncate:
		g.truncate(o.mark)
	case kindRemove:
		g.remove()
		w.log.reclaim = true
	}
}
