package bench

import "math"

// operation is one operation on one row, or several.
type operation struct {
	kind    Kind
	row     uint64
	version uint64   // of the value to write; of a batch's first
	count   int      // rows of a scan
	batch   []uint64 // rows of a batch
}

// source yields the operations of one thread, in an order that the seed alone
// determines. It lasts over the runs of a Harness, so that a later run goes on
// with rows and versions where an earlier one has ended.
type source struct {
	picker
	rows     *rows
	workload *Workload
	upTo     [kindEnd]uint64 // of a random number, for each kind
	only     Kind            // kindEnd: there are several
	written  uint64          // versions given so far
}

func newSource(w *Workload, r *rows, p picker) *source {
	s := &source{picker: p, rows: r, workload: w, only: kindEnd}
	sum := 0.0
	for k, share := range w.Shares {
		sum += share
		s.upTo[k] = uint64(min(sum, 1) * (1 << 63)) // of 63 bits
		if share > 1-1e-9 {
			s.only = Kind(k)
		}
	}
	return s
}

// draw fills in the next operation. It uses the capacity of a.batch.
func (s *source) draw(a *operation) {
	a.kind = s.kind()
	switch a.kind {
	case KindPing:
	case KindInsert:
		a.row, a.version = s.fresh(), s.versions(1)
	case KindUpdate, KindModify:
		a.row, a.version = s.existing(), s.versions(1)
	case KindScan:
		a.row, a.count = s.existing(), s.workload.ScanRows.At(s.random.Uint64())
	case KindBatch:
		a.batch = a.batch[:0]
		for range s.workload.BatchRows {
			a.batch = append(a.batch, s.existing())
		}
		a.row, a.version = a.batch[0], s.versions(s.workload.BatchRows)
	default:
		a.row = s.existing()
	}
}

func (s *source) kind() Kind {
	if s.only != kindEnd {
		return s.only
	}
	random := s.random.Uint64() >> 1
	for k := range kindEnd - 1 {
		if random < s.upTo[k] {
			return k
		}
	}
	return s.last()
}

// last returns the last kind that the workload has, which takes what rounding
// has left.
func (s *source) last() Kind {
	for k := kindEnd - 1; k > 0; k-- {
		if s.workload.has(k) {
			return k
		}
	}
	return 0
}

// versions reserves n versions and returns the first; the others follow in
// steps of s.threads. No two writes of a Harness have the same. The version of
// rows that were preloaded is 0.
func (s *source) versions(n int) uint64 {
	first := s.written*s.threads + s.thread + 1
	s.written += uint64(n)
	return first
}

// load fills in the insertion of one of the rows that are there at the start.
// A thread calls it once for each of its rows.
func (s *source) load(a *operation, number uint64) {
	*a = operation{kind: KindInsert, row: number*s.threads + s.thread, batch: a.batch}
}

// loads returns how many rows the thread has to load.
func (s *source) loads() uint64 {
	return (s.keys - min(s.keys, s.thread) + s.threads - 1) / s.threads
}

// rowHistory is what is known of the writes of one row: enough to say which values
// it may have in the end.
type rowHistory struct {
	// newest is when the write was sent that was sent last of those
	// acknowledged. What was acknowledged before is overwritten.
	newest int64
	writes []write

	added, perhaps uint64 // INCRs acknowledged, and of unknown outcome
}

// write is one write. It was acknowledged at the time done, or may have its
// effect at any time.
type write struct {
	version uint64
	done    int64
}

const never = math.MaxInt64

// tracker remembers what one thread has written. Times are of one clock for all
// threads.
type tracker map[uint64]*rowHistory

func (t tracker) historyOf(row uint64) *rowHistory {
	r := t[row]
	if r == nil {
		r = &rowHistory{}
		t[row] = r
	}
	return r
}

// acknowledged notes a write that was sent and acknowledged.
func (t tracker) acknowledged(row, version uint64, sent, done int64) {
	t.historyOf(row).add(write{version, done}, sent)
}

func (r *rowHistory) add(w write, sent int64) {
	if sent > r.newest {
		r.newest = sent
		kept := r.writes[:0]
		for _, old := range r.writes {
			if old.done >= sent {
				kept = append(kept, old)
			}
		}
		r.writes = kept
	}
	if w.done >= r.newest {
		r.writes = append(r.writes, w)
	}
}

// unknown notes a write of unknown outcome.
func (t tracker) unknown(row, version uint64) {
	r := t.historyOf(row)
	r.writes = append(r.writes, write{version, never})
}

// merge adds what o knows of the row.
func (r *rowHistory) merge(o *rowHistory) {
	r.added += o.added
	r.perhaps += o.perhaps
	r.add(write{done: -1}, o.newest)
	for _, w := range o.writes {
		if w.done >= r.newest {
			r.writes = append(r.writes, w)
		}
	}
}

// record notes the outcome of a write in t.
func (t tracker) record(a *operation, step uint64, sent, done int64, known bool) {
	note := func(row, version uint64) {
		switch {
		case known:
			t.acknowledged(row, version, sent, done)
		default:
			t.unknown(row, version)
		}
	}
	switch {
	case a.kind == KindIncr && known:
		t.historyOf(a.row).added++
	case a.kind == KindIncr:
		t.historyOf(a.row).perhaps++
	case a.kind == KindBatch:
		for i, row := range a.batch {
			note(row, a.version+uint64(i)*step)
		}
	default:
		note(a.row, a.version)
	}
}
