package raftlog

import (
	"fmt"
	"math/bits"
	"sync"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// entryOverheadBytes is what a cached entry is reckoned to cost beside its data.
const entryOverheadBytes = 128

// entryRef says where an entry is.
type entryRef struct {
	term uint64
	seg  *segment
	off  uint32 // of the data in the segment's file
	size uint32 // of the data
	crc  uint32 // of the data
	typ  raftpb.EntryType
}

// Group is the log of one Raft group. It implements raft.Storage. Its methods
// may be called from any goroutine. They show what was published: the records
// of a Write appear before its Save returns, all those of one group at once,
// and those of Writes in the order of their Saves. What Writes hold that are
// being filled or saved is not to be seen, also where it replaces what is
// shown. Only Truncate shows at once.
//
// That is what Raft with asynchronous storage writes needs: of entries, and of
// snapshots, it asks the log only when it was told that they are written, and
// keeps to itself those it has handed out since.
type Group struct {
	id  uint64
	log *Log

	mu    sync.Mutex
	hs    hardState
	conf  []byte // encoded raftpb.ConfState, nil where none was set; immutable
	meta  []byte // of the caller's, nil where none was set; immutable
	start mark   // the log begins after it, as far as the files know
	trunc mark   // zero, or what Truncate wants to become the start
	// base is the index before the first of refs. It equals start.index, but
	// while the files are replayed: there, entries between start.index and
	// base are in segments that are gone, and a later record must drop them.
	base   uint64
	refs   queue[entryRef]
	cached queue[raftpb.Entry] // the last entries of refs
	bytes  int64               // of cached

	pending pendingState // owned by the goroutine that fills Writes
}

var _ raft.Storage = (*Group)(nil)

// InitialState implements raft.Storage: the newest hard state, nil where none
// was written, and the newest configuration, empty where none was set. The
// commit index is at least the start of the log: what was truncated or came in
// a snapshot was committed, even if no hard state has said so yet. The caller
// owns the results.
func (g *Group) InitialState() (raftpb.HardState, raftpb.ConfState, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	conf, err := g.confState()
	if err != nil || g.hs == (hardState{}) {
		return raftpb.HardState{}, conf, err
	}
	hs := raftpb.HardState{
		Term:   g.hs.term,
		Vote:   g.hs.vote,
		Commit: max(g.hs.commit, g.visible().index),
	}
	return hs, conf, nil
}

func (g *Group) confState() (raftpb.ConfState, error) {
	var conf raftpb.ConfState
	if err := conf.Unmarshal(g.conf); err != nil {
		return conf, fmt.Errorf("%w: configuration of group %d: %w", ErrCorrupt, g.id, err)
	}
	return conf, nil
}

// Metadata returns what SetMetadata recorded last, nil where nothing was. The
// caller must not change it.
func (g *Group) Metadata() []byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.meta
}

// FirstIndex implements raft.Storage.
func (g *Group) FirstIndex() (uint64, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.visible().index + 1, nil
}

// LastIndex implements raft.Storage.
func (g *Group) LastIndex() (uint64, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.last(), nil
}

// Term implements raft.Storage. It returns raft.ErrCompacted below
// FirstIndex-1 and raft.ErrUnavailable above LastIndex.
func (g *Group) Term(index uint64) (uint64, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	start := g.visible()
	switch {
	case index < start.index:
		return 0, raft.ErrCompacted
	case index == start.index:
		return start.term, nil
	case index > g.last():
		return 0, raft.ErrUnavailable
	}
	return g.ref(index).term, nil
}

// Snapshot implements raft.Storage. It returns the point after which the log
// begins, set by SetStart or Truncate, with the newest configuration and
// without data, or raft.ErrSnapshotTemporarilyUnavailable where the log begins
// at the beginning. The caller owns the result.
func (g *Group) Snapshot() (raftpb.Snapshot, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	start := g.visible()
	if start.index == 0 {
		return raftpb.Snapshot{}, raft.ErrSnapshotTemporarilyUnavailable
	}
	conf, err := g.confState()
	if err != nil {
		return raftpb.Snapshot{}, err
	}
	return raftpb.Snapshot{Metadata: raftpb.SnapshotMetadata{
		ConfState: conf,
		Index:     start.index,
		Term:      start.term,
	}}, nil
}

// Entries implements raft.Storage: the entries from lo up to hi, hi excluded,
// as many as maxSize encoded bytes allow, but at least one. It returns
// raft.ErrCompacted where lo is below FirstIndex and raft.ErrUnavailable where
// hi is above LastIndex+1. Recent entries come from memory, others from the
// files, whose checksums it checks; a mismatch is an ErrCorrupt and makes the
// whole log unusable. The caller owns the slice and must not change the
// entries.
func (g *Group) Entries(lo, hi, maxSize uint64) ([]raftpb.Entry, error) {
	g.mu.Lock()
	switch {
	case lo <= g.visible().index:
		g.mu.Unlock()
		return nil, raft.ErrCompacted
	case hi > g.last()+1, g.refs.len() == 0:
		g.mu.Unlock()
		return nil, raft.ErrUnavailable
	case lo >= hi:
		g.mu.Unlock()
		return nil, nil
	}
	hi = g.limit(lo, hi, maxSize)
	ents := make([]raftpb.Entry, hi-lo)
	inFiles := min(max(g.cachedFrom(), lo), hi)
	if inFiles < hi {
		copy(ents[inFiles-lo:], g.cachedSlice(inFiles, hi))
	}
	if inFiles == lo {
		g.mu.Unlock()
		return ents, nil
	}
	refs := append([]entryRef(nil), g.refs.slice(int(lo-g.base-1), int(inFiles-g.base-1))...)
	pinned := pin(refs)
	g.mu.Unlock()
	defer unpin(pinned)
	for i, r := range refs {
		e, err := r.read(lo + uint64(i))
		if err != nil {
			return nil, g.log.fail(err)
		}
		ents[i] = e
	}
	return ents, nil
}

// limit returns the end of the longest range from lo that stays below hi and
// maxSize, and is not empty.
func (g *Group) limit(lo, hi, maxSize uint64) uint64 {
	size := uint64(0)
	for i := lo; i < hi; i++ {
		size += g.ref(i).encodedSize(i)
		if size > maxSize && i > lo {
			return i
		}
	}
	return hi
}

// encodedSize is what proto.Size says of the entry with all its fields set.
func (r *entryRef) encodedSize(index uint64) uint64 {
	n := 2 + 1 + uvarintBytes(r.term) + 1 + uvarintBytes(index)
	if r.size > 0 {
		n += 1 + uvarintBytes(uint64(r.size)) + uint64(r.size)
	}
	return n
}

func uvarintBytes(v uint64) uint64 { return uint64(bits.Len64(v|1)+6) / 7 }

// read brings the entry back from its file.
func (r *entryRef) read(index uint64) (raftpb.Entry, error) {
	e := raftpb.Entry{Term: r.term, Index: index, Type: r.typ}
	if r.size == 0 {
		return e, nil
	}
	if r.seg.closed {
		return e, ErrClosed
	}
	data := make([]byte, r.size)
	if err := readFull(r.seg.file, data, int64(r.off)); err != nil {
		return e, fmt.Errorf("reading entry %d from %s: %w", index, r.seg.path, err)
	}
	if checksum(data) != r.crc {
		return e, &CorruptionError{File: r.seg.path, Offset: int64(r.off), Reason: fmt.Sprintf("checksum mismatch in entry %d", index)}
	}
	e.Data = data
	return e, nil
}

// pin keeps the segments of refs from being recycled. The group must be
// locked: as long as its references stand, their segments are in use.
func pin(refs []entryRef) []*segment {
	var pinned []*segment
	for i := range refs {
		if i == 0 || refs[i].seg != refs[i-1].seg {
			refs[i].seg.inUse.RLock()
			pinned = append(pinned, refs[i].seg)
		}
	}
	return pinned
}

func unpin(pinned []*segment) {
	for _, s := range pinned {
		s.inUse.RUnlock()
	}
}

// visible is the point after which the log begins for its readers.
func (g *Group) visible() mark {
	if g.trunc.index > g.start.index {
		return g.trunc
	}
	return g.start
}

func (g *Group) last() uint64               { return g.base + uint64(g.refs.len()) }
func (g *Group) ref(index uint64) *entryRef { return g.refs.at(int(index - g.base - 1)) }
func (g *Group) cachedFrom() uint64         { return g.last() + 1 - uint64(g.cached.len()) }
func (g *Group) empty() bool {
	return g.hs == (hardState{}) && g.conf == nil && g.meta == nil && g.start == mark{} && g.last() == 0
}
func entryCost(e *raftpb.Entry) (size int64) { return int64(len(e.Data)) + entryOverheadBytes }

// cachedSlice returns the entries [lo, hi), all of them cached.
func (g *Group) cachedSlice(lo, hi uint64) []raftpb.Entry {
	from := g.cachedFrom()
	return g.cached.slice(int(lo-from), int(hi-from))
}

// cut drops the entries from first on.
func (g *Group) cut(first uint64) {
	if first <= g.base {
		g.forget(g.cached.len(), false)
		g.refs.dropBack(g.refs.len())
		g.base = first - 1
		return
	}
	if first > g.last() {
		return
	}
	n := int(g.last() + 1 - first)
	g.forget(min(n, g.cached.len()), false)
	g.refs.dropBack(n)
}

// forget drops n cached entries at the front or at the back.
func (g *Group) forget(n int, front bool) {
	total := g.cached.len()
	gone := g.cached.slice(total-n, total)
	if front {
		gone = g.cached.slice(0, n)
	}
	freed := int64(0)
	for i := range gone {
		freed += entryCost(&gone[i])
	}
	if front {
		g.cached.dropFront(n)
	} else {
		g.cached.dropBack(n)
	}
	g.bytes -= freed
	g.log.cached.Add(-freed)
}

// replace puts entries at first, in place of all that stood there and after.
func (g *Group) replace(first uint64, refs []entryRef, ents []raftpb.Entry) {
	g.cut(first)
	g.refs.push(refs...)
	g.cached.push(ents...)
	added := int64(0)
	for i := range ents {
		added += entryCost(&ents[i])
	}
	g.bytes += added
	g.log.cached.Add(added)
}

// replaceFrom is replace for a Write. A Truncate since it was filled may have
// made the log begin later, or may want it to: what the log begins after is
// left out, and what was to become the start is looked at again.
func (g *Group) replaceFrom(first uint64, refs []entryRef, ents []raftpb.Entry) {
	if first <= g.start.index {
		n := min(g.start.index+1-first, uint64(len(refs)))
		first, refs, ents = first+n, refs[n:], ents[n:]
	}
	if len(refs) == 0 {
		return
	}
	g.replace(first, refs, ents)
	if first > g.trunc.index {
		return
	}
	if g.trunc.index <= g.last() {
		g.trunc.term = g.ref(g.trunc.index).term
	} else {
		g.trunc = mark{}
	}
}

// begin makes the log begin after m; reset says that nothing it holds goes on
// from there. Without it a log that begins later already stays as it is.
func (g *Group) begin(m mark, reset bool) {
	switch {
	case reset:
		g.cut(g.base + 1)
		g.base, g.trunc = m.index, mark{}
	case m.index < g.start.index:
		return
	default:
		g.dropTo(m.index)
	}
	g.start = m
}

// remove makes the group as if nothing had been written to it.
func (g *Group) remove() {
	g.begin(mark{}, true)
	g.hs, g.conf, g.meta = hardState{}, nil, nil
	g.refs, g.cached = queue[entryRef]{}, queue[raftpb.Entry]{}
}

// truncate makes the log begin after m if m is inside it.
func (g *Group) truncate(m mark) {
	if m.index <= g.start.index || m.index > g.last() {
		return
	}
	g.dropTo(m.index)
	g.start = m
}

// dropTo drops the entries up to index, which is not above the last.
func (g *Group) dropTo(index uint64) {
	if index <= g.base {
		return
	}
	n := int(index - g.base)
	if cachedFrom := g.cachedFrom(); index >= cachedFrom {
		g.forget(int(index+1-cachedFrom), true)
	}
	g.refs.dropFront(n)
	g.base = index
}

// shed halves the group's cache, oldest entries first.
func (g *Group) shed() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.forget((g.cached.len()+1)/2, true)
}
