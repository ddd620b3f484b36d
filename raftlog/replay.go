package raftlog

import (
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/raft/v3/raftpb"
)

// readAheadBytes is how much replay reads of a segment at once.
const readAheadBytes = 1 << 20

// replayer rebuilds the groups from the files and finds the log's end. Until
// repair it changes nothing.
type replayer struct {
	log      *Log
	segments []*segment // that exist, in order, without gaps
	end      int        // of the segment with the last run; -1 where there is no run at all
	pos      int64      // behind that run
	torn     []place    // headers of runs behind the end
	synced   *syncedRecord
	found    Recovery
	runs     int
}

// place is the start of a block.
type place struct {
	seg    *segment
	offset int64
}

// openSegments opens the segments among names.
func (r *replayer) openSegments(names []string, write bool) error {
	var seqs []uint64
	for _, name := range names {
		if seq, ok := parseSegmentName(name); ok {
			seqs = append(seqs, seq)
		}
	}
	slices.Sort(seqs)
	for i, seq := range seqs {
		if i > 0 && seq != seqs[i-1]+1 {
			return fmt.Errorf("%w: segment %s is missing in %s", ErrCorrupt, segmentName(seqs[i-1]+1), r.log.opt.Dir)
		}
		s, err := openSegment(r.log.fs, r.log.opt.Dir, seq, write)
		if err != nil {
			return err
		}
		r.segments = append(r.segments, s)
	}
	return nil
}

func (r *replayer) close() error {
	var errs []error
	for _, s := range r.segments {
		errs = append(errs, s.close())
	}
	return errors.Join(errs...)
}

// replay reads every run up to the end of the log, and makes sure that what
// follows is a torn tail and not damage.
func (r *replayer) replay() error {
	r.end, r.pos = -1, BlockBytes
	if err := r.readSynced(); err != nil {
		return err
	}
	for i, s := range r.segments {
		pos, err := r.replaySegment(i, s)
		if err != nil {
			return err
		}
		if pos == BlockBytes {
			break
		}
		r.end, r.pos = i, pos
	}
	if err := r.checkEnd(); err != nil {
		return err
	}
	if err := r.checkSynced(); err != nil {
		return err
	}
	r.found.Segments = r.end + 1
	return r.checkGroups()
}

// replaySegment applies the runs of s and returns where the last one ends,
// BlockBytes if there is none.
func (r *replayer) replaySegment(i int, s *segment) (int64, error) {
	b := blockReader{seg: s}
	pos := int64(BlockBytes)
	for {
		h, payload, err := b.run(pos)
		if err != nil {
			return 0, err
		}
		// The first segment of all begins with run 1; the oldest of those
		// that are left with any.
		any := i == 0 && pos == BlockBytes && s.seq > 1
		if payload == nil || (!any && h.run != r.log.run+1) {
			return pos, nil
		}
		if first := pos == BlockBytes; first != (h.flags&flagCheckpoint != 0) {
			return 0, s.corrupt(pos, "a checkpoint is missing or at the wrong place")
		}
		a := applier{log: r.log, seg: s, offset: pos + runHeaderBytes, oldest: i == 0, checkpoint: pos == BlockBytes}
		if err := a.apply(payload); err != nil {
			return 0, err
		}
		if a.checkpoint {
			if err := a.complete(pos); err != nil {
				return 0, err
			}
		}
		size := blocks(runHeaderBytes + int64(len(payload)))
		r.log.run = h.run
		r.found.Bytes += size
		r.runs++
		pos += size
	}
}

// checkEnd looks at everything behind the last good run. Whole runs there are
// leftovers of a crash, unless one of them says that what should stand at the
// end was durable.
func (r *replayer) checkEnd() error {
	if len(r.segments) == 0 {
		return nil
	}
	if r.end < 0 && r.segments[0].seq > 1 {
		return r.segments[0].corrupt(BlockBytes, "the checkpoint of the oldest segment is damaged; segments may be missing before it")
	}
	at := max(r.end, 0)
	for i, s := range r.segments[at:] {
		from := int64(BlockBytes)
		if i == 0 {
			from = r.pos
		}
		if err := r.checkTail(s, from); err != nil {
			return err
		}
	}
	return nil
}

func (r *replayer) checkTail(s *segment, from int64) error {
	b := blockReader{seg: s}
	for pos := from; pos+BlockBytes <= s.bytes; pos += BlockBytes {
		claimed, err := b.claims(pos)
		if err != nil {
			return err
		}
		if !claimed {
			continue
		}
		r.torn = append(r.torn, place{s, pos})
		h, payload, err := b.run(pos)
		if err != nil {
			return err
		}
		if payload != nil && h.durable > r.log.run && !r.log.opt.CutDamage {
			return r.lost(fmt.Sprintf("run %d is damaged or missing, but it was durable when run %d was written at byte %d of %s", r.log.run+1, h.run, pos, s.path))
		}
		r.found.TornBytes += min(blocks(runHeaderBytes+int64(h.payload)), s.bytes-pos)
	}
	return nil
}

// checkGroups makes sure that no entry is missing, and counts.
func (r *replayer) checkGroups() error {
	var err error
	r.log.eachGroup(func(g *Group) {
		if g.base != g.start.index && err == nil {
			err = fmt.Errorf("%w: entries %d to %d of group %d are missing from the segments in %s", ErrCorrupt, g.start.index+1, g.base, g.id, r.log.opt.Dir)
		}
		r.found.Groups++
		r.found.Entries += g.refs.len()
	})
	return err
}

// repair makes durable what was replayed, for it will be treated as such, and
// wipes out the headers behind the end, so that no leftover can follow on a
// later run by chance.
func (r *replayer) repair() error {
	dirty := make(map[*segment]bool)
	for _, p := range r.torn {
		if _, err := p.seg.file.WriteAt(zeroBlock[:], p.offset); err != nil {
			return fmt.Errorf("wiping the torn tail of %s: %w", p.seg.path, err)
		}
		dirty[p.seg] = true
	}
	if r.end >= 0 {
		dirty[r.segments[r.end]] = true
	}
	for s := range dirty {
		if err := s.file.SyncData(); err != nil {
			return fmt.Errorf("syncing %s: %w", s.path, err)
		}
	}
	return nil
}

// hand gives the segments to the log: those that hold runs to go on with, the
// others as prepared.
func (r *replayer) hand() {
	l := r.log
	l.live = slices.Clone(r.segments[:r.end+1])
	l.prepared = slices.Clone(r.segments[r.end+1:])
	l.pos = r.pos
	l.durable.Store(l.run)
	l.reclaim = true
	if len(l.live) > 0 {
		l.active().beginWrites(l, nil)
	}
	if n := len(r.segments); n > 0 {
		l.nextSeq = r.segments[n-1].seq + 1
	}
}

// blockReader reads a segment, some way ahead.
type blockReader struct {
	seg  *segment
	buf  []byte
	from int64 // of buf in the file
}

// at returns n bytes from pos, a view that lasts until the next call.
func (b *blockReader) at(pos, n int64) ([]byte, error) {
	if pos < b.from || pos+n > b.from+int64(len(b.buf)) {
		size := min(max(n, readAheadBytes), b.seg.bytes-pos)
		b.buf = slices.Grow(b.buf[:0], int(size))[:size]
		b.from = pos
		if err := readFull(b.seg.file, b.buf, pos); err != nil {
			b.buf = b.buf[:0]
			return nil, fmt.Errorf("reading %s at byte %d: %w", b.seg.path, pos, err)
		}
	}
	return b.buf[pos-b.from : pos-b.from+n], nil
}

// claims reports whether a run of this segment seems to start at pos.
func (b *blockReader) claims(pos int64) (bool, error) {
	p, err := b.at(pos, runHeaderBytes)
	if err != nil {
		return false, err
	}
	_, ok := decodeRunHeader(p, b.seg.segmentHeader)
	return ok, nil
}

// run returns the run at pos; payload is nil if none is intact there. It lasts
// until the next call.
func (b *blockReader) run(pos int64) (h runHeader, payload []byte, err error) {
	if pos+BlockBytes > b.seg.bytes {
		return h, nil, nil
	}
	p, err := b.at(pos, runHeaderBytes)
	if err != nil {
		return h, nil, err
	}
	h, ok := decodeRunHeader(p, b.seg.segmentHeader)
	if !ok || blocks(runHeaderBytes+int64(h.payload)) > b.seg.bytes-pos {
		return h, nil, nil
	}
	p, err = b.at(pos, runHeaderBytes+int64(h.payload))
	if err != nil || !runIntact(p) {
		return h, nil, err
	}
	return h, p[runHeaderBytes:], nil
}

// applier applies the records of one run to the groups.
type applier struct {
	log        *Log
	seg        *segment
	offset     int64 // of the payload in the file
	oldest     bool  // the segment is the oldest there is
	checkpoint bool  // the run is a checkpoint

	groups, metadata int // records of kindCheckpoint, and of kindMetadata
}

// complete makes sure that the checkpoint at pos leaves out nothing that is known.
func (a *applier) complete(pos int64) error {
	groups, metadata := 0, 0
	a.log.eachGroup(func(g *Group) {
		groups++
		if g.meta != nil {
			metadata++
		}
	})
	if a.groups != groups {
		return a.seg.corrupt(pos, "the checkpoint has %d groups, the runs before it %d", a.groups, groups)
	}
	if a.metadata != metadata {
		return a.seg.corrupt(pos, "the checkpoint has metadata of %d groups, the runs before it of %d", a.metadata, metadata)
	}
	return nil
}

func (a *applier) apply(payload []byte) error {
	d := decoder{buf: payload}
	for {
		r, ok, err := d.next()
		if err == nil && ok {
			err = a.record(&r)
		}
		if err != nil {
			return a.seg.corrupt(a.offset+int64(d.pos), "%v", err)
		}
		if !ok {
			return nil
		}
	}
}

func (a *applier) record(r *record) error {
	g := a.log.Group(r.group)
	g.mu.Lock()
	defer g.mu.Unlock()
	switch r.kind {
	case kindEntries:
		return a.entry(g, r)
	case kindHardState:
		g.hs = r.hs
	case kindStart:
		if !r.reset && r.mark.index > g.last() {
			return fmt.Errorf("start %d of group %d is after its end at %d", r.mark.index, g.id, g.last())
		}
		g.begin(r.mark, r.reset)
	case kindConfState:
		return setConf(g, r.data)
	case kindTruncate:
		g.truncate(r.mark)
	case kindCheckpoint:
		a.groups++
		return a.state(g, r)
	case kindRemove:
		g.remove()
	case kindMetadata:
		a.metadata++
		return a.setMetadata(g, r.data)
	}
	return nil
}

// entry applies one entry. One that the log begins after is left out: see
// Group.replaceFrom.
func (a *applier) entry(g *Group, r *record) error {
	if r.mark.index <= g.start.index {
		return nil
	}
	if r.mark.index > g.last()+1 {
		return fmt.Errorf("entry %d of group %d does not follow on %d", r.mark.index, g.id, g.last())
	}
	g.replace(r.mark.index, []entryRef{{
		term: r.mark.term,
		seg:  a.seg,
		off:  uint32(a.offset) + uint32(r.offset),
		size: uint32(len(r.data)),
		crc:  checksum(r.data),
		typ:  r.typ,
	}}, nil)
	return nil
}

// state applies what a checkpoint says of a group: in the oldest segment the beginning of
// everything, in others what must be known already.
func (a *applier) state(g *Group, r *record) error {
	if !a.oldest {
		if g.start != r.mark || g.last() != r.last || g.hs != r.hs || string(g.conf) != string(r.data) {
			return fmt.Errorf("checkpoint of group %d contradicts the runs before it", g.id)
		}
		return nil
	}
	if !g.empty() {
		return fmt.Errorf("group %d appears twice in a checkpoint", g.id)
	}
	g.start, g.hs = r.mark, r.hs
	// Where the log holds entries from before, they are in segments that are
	// gone, and a record to come will say that nobody needs them.
	g.base = r.last
	if r.data == nil {
		return nil
	}
	return setConf(g, r.data)
}

// setMetadata stores metadata, or finds in a checkpoint what is known already.
func (a *applier) setMetadata(g *Group, data []byte) error {
	if a.checkpoint && !a.oldest && string(data) != string(g.meta) {
		return fmt.Errorf("the metadata of group %d in a checkpoint contradict the runs before it", g.id)
	}
	g.meta = append([]byte{}, data...)
	return nil
}

// setConf stores a configuration, which must decode.
func setConf(g *Group, data []byte) error {
	if err := new(raftpb.ConfState).Unmarshal(data); err != nil {
		return fmt.Errorf("configuration of group %d: %w", g.id, err)
	}
	g.conf = append(make([]byte, 0, len(data)), data...)
	return nil
}

// inspect replays the log of o without changing it. Unless r is nil the
// caller closes it, whatever err is.
func inspect(o Options) (r *replayer, err error) {
	if err := o.setDefaults(); err != nil {
		return nil, err
	}
	names, err := o.FS.List(o.Dir)
	if err != nil {
		return nil, err
	}
	r = &replayer{log: newLog(o)}
	if err := r.openSegments(names, false); err != nil {
		return r, err
	}
	return r, r.replay()
}

// reportDamage names every run whose header survived but whose checksum does not
// match, in all segments that could be opened.
func (r *replayer) reportDamage(report func(string)) error {
	for _, s := range r.segments {
		b := blockReader{seg: s}
		for pos := int64(BlockBytes); pos+BlockBytes <= s.bytes; {
			claimed, err := b.claims(pos)
			if err != nil {
				return err
			}
			h, payload, err := b.run(pos)
			switch {
			case err != nil:
				return err
			case payload != nil:
				pos += blocks(runHeaderBytes + int64(len(payload)))
				continue
			case claimed:
				report(s.corrupt(pos, "the checksum of run %d does not match", h.run).Error())
			}
			pos += BlockBytes
		}
	}
	return nil
}
