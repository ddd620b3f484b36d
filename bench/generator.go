package bench

import (
	"fmt"
	"math"
)

// Operation is one operation on one row, or several.
type Operation struct {
	Kind    Kind
	Row     uint64
	Version uint64   // of the value to write; of a batch's first
	count   int      // rows of a scan
	batch   []uint64 // rows of a batch
}

// Generator yields the operations of one thread, in an order that the seed alone
// determines, and makes their keys and values. It lasts over the runs of a Harness,
// so that a later run goes on with rows and versions where an earlier one has
// ended. A program may carry the operations out by itself: on a storage engine in
// its own process, say, beside which a server is measured.
type Generator struct {
	picker
	*rows
	upTo    [kindEnd]uint64 // of a random number, for each kind
	only    Kind            // kindEnd: there are several
	written uint64          // versions given so far
}

// NewGenerators returns n generators, 1..ConnectionsMax, of a workload on so
// many keys, 1..KeysMax. Keys, values and the choice of rows are those that a
// Harness with the same workload and seed has on n threads. The error is
// ErrConfig where the workload makes no sense or has other operations than reads
// and updates.
func NewGenerators(w Workload, keys, seed uint64, n int) ([]*Generator, error) {
	switch {
	case keys < 1 || keys > KeysMax || n < 1 || n > ConnectionsMax:
		return nil, fmt.Errorf("%w: %d keys and %d generators, 1 to %d and 1 to %d are allowed", ErrConfig, keys, n, uint64(KeysMax), ConnectionsMax)
	case w.Shares[KindRead]+w.Shares[KindUpdate] < 1-1e-6:
		return nil, fmt.Errorf("%w: %s has other operations than reads and updates", ErrConfig, w.Name)
	}
	if err := w.check(); err != nil {
		return nil, err
	}
	made := newRows(&w, seed)
	out := make([]*Generator, n)
	for i := range out {
		out[i] = newGenerator(made, newPicker(w.Choice, keys, seed, i, n, 1))
	}
	return out, nil
}

func newGenerator(r *rows, p picker) *Generator {
	g := &Generator{picker: p, rows: r, only: kindEnd}
	sum := 0.0
	for k, share := range r.workload.Shares {
		sum += share
		g.upTo[k] = uint64(min(sum, 1) * (1 << 63)) // of 63 bits
		if share > 1-1e-9 {
			g.only = Kind(k)
		}
	}
	return g
}

// Next returns the next operation, on one row.
func (g *Generator) Next() (a Operation) {
	g.draw(&a)
	return a
}

// draw fills in the next operation. It uses the capacity of a.batch.
func (g *Generator) draw(a *Operation) {
	a.Kind = g.kind()
	switch a.Kind {
	case KindPing:
	case KindInsert:
		a.Row, a.Version = g.fresh(), g.versions(1)
	case KindUpdate, KindModify:
		a.Row, a.Version = g.existing(), g.versions(1)
	case KindScan:
		a.Row, a.count = g.existing(), g.workload.ScanRows.At(g.random.Uint64())
	case KindBatch:
		a.batch = a.batch[:0]
		for range g.workload.BatchRows {
			a.batch = append(a.batch, g.existing())
		}
		a.Row, a.Version = a.batch[0], g.versions(g.workload.BatchRows)
	default:
		a.Row = g.existing()
	}
}

func (g *Generator) kind() Kind {
	if g.only != kindEnd {
		return g.only
	}
	random := g.random.Uint64() >> 1
	for k := range kindEnd - 1 {
		if random < g.upTo[k] {
			return k
		}
	}
	return g.last()
}

// last returns the last kind that the workload has, which takes what rounding
// has left.
func (g *Generator) last() Kind {
	for k := kindEnd - 1; k > 0; k-- {
		if g.workload.has(k) {
			return k
		}
	}
	return 0
}

// versions reserves n versions and returns the first; the others follow in
// steps of g.threads. No two writes of a Harness have the same. The version of
// rows that were preloaded is 0.
func (g *Generator) versions(n int) uint64 {
	first := g.written*g.threads + g.thread + 1
	g.written += uint64(n)
	return first
}

// load fills in the insertion of one of the rows that are there at the start.
// A thread calls it once for each of its rows.
func (g *Generator) load(a *Operation, number uint64) {
	*a = Operation{Kind: KindInsert, Row: number*g.threads + g.thread, batch: a.batch}
}

// loads returns how many rows the thread has to load.
func (g *Generator) loads() uint64 {
	return (g.keys - min(g.keys, g.thread) + g.threads - 1) / g.threads
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
func (t tracker) record(a *Operation, step uint64, sent, done int64, known bool) {
	note := func(row, version uint64) {
		switch {
		case known:
			t.acknowledged(row, version, sent, done)
		default:
			t.unknown(row, version)
		}
	}
	switch {
	case a.Kind == KindIncr && known:
		t.historyOf(a.Row).added++
	case a.Kind == KindIncr:
		t.historyOf(a.Row).perhaps++
	case a.Kind == KindBatch:
		for i, row := range a.batch {
			note(row, a.Version+uint64(i)*step)
		}
	default:
		note(a.Row, a.Version)
	}
}
