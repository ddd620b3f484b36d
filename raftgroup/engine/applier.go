package engine

import (
	"sync/atomic"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/storage"
)

// Applier has the state machine carry out committed entries, and passes the outcomes of
// their commands on to those who wait for them. It belongs to the thread that applies.
type Applier struct {
	// Calls counts those of the state machine. Within one of them all results are valid.
	Calls uint64
	// Damaged counts operations that damage kept from being carried out, where no other
	// replica does and nobody waits for them. Any thread may read it.
	Damaged atomic.Uint64

	entries []storage.Entry
	done    [][]Completion // by entry; nil where it was proposed elsewhere or before a restart
	from    int            // the first of the entries that are being carried out
	indexes []uint64       // by shard: see Index
	spares  [][]Completion
}

// NewApplier returns an Applier for so many shards, the meta group included.
func NewApplier(shards int) *Applier { return &Applier{indexes: make([]uint64, shards)} }

// Add adds a committed entry, for whose commands done waits.
func (a *Applier) Add(e storage.Entry, done []Completion) {
	a.entries = append(a.entries, e)
	a.done = append(a.done, done)
}

// Len returns how many entries have been added.
func (a *Applier) Len() int { return len(a.entries) }

// Entry returns an entry that has been added.
func (a *Applier) Entry(i int) *storage.Entry { return &a.entries[i] }

// Advance moves entry i before those from to on.
func (a *Applier) Advance(i, to int) {
	for ; i > to; i-- {
		a.entries[i-1], a.entries[i] = a.entries[i], a.entries[i-1]
		a.done[i-1], a.done[i] = a.done[i], a.done[i-1]
	}
}

// Apply has s carry out some of the entries. The outcomes of their commands are delivered
// from within. Afterwards each entry must be settled.
func (a *Applier) Apply(s *storage.Store, from, to int) error {
	a.from = from
	a.Calls++
	return s.Apply(a.entries[from:to], (*deliverer)(a))
}

// Index returns, during the call of a Completer, the index of the entry with the command.
func (a *Applier) Index(shard int) uint64 { return a.indexes[shard] }

// deliverer is an Applier as the state machine sees it.
type deliverer Applier

// Deliver passes the outcome of one command on to whoever proposed it.
func (d *deliverer) Deliver(entry, cmd int, r *command.Result) {
	e, done := &d.entries[d.from+entry], d.done[d.from+entry]
	if e.Alone && done == nil {
		d.Damaged.Add(damagedOps(r))
	}
	if cmd >= len(done) {
		return
	}
	d.indexes[e.Shard] = e.Index
	c := &done[cmd]
	c.Sink.Complete(c.Tag, command.Applied, r)
	c.Sink = nil // it has its outcome; see Finish
}

// damagedOps returns how many operations of a command were refused for damage.
func damagedOps(r *command.Result) (n uint64) {
	if r.Status == command.Damaged {
		n++
	}
	for i := range r.Results {
		n += damagedOps(&r.Results[i])
	}
	return n
}

// Settle ends the wait for an entry: commands without an outcome get o.
func (a *Applier) Settle(i int, o command.Outcome) {
	a.Finish(a.done[i], o)
	a.done[i] = nil
}

// Reset forgets the entries. Commands that have no outcome get o.
func (a *Applier) Reset(o command.Outcome) {
	for i := range a.done {
		a.Settle(i, o)
	}
	clear(a.entries)
	a.entries, a.done = a.entries[:0], a.done[:0]
}

// Finish completes commands that have no outcome yet, with one other than Applied as a
// rule, and keeps the slice for Recycle.
func (a *Applier) Finish(done []Completion, o command.Outcome) {
	if len(done) == 0 {
		return
	}
	for i := range done {
		if done[i].Sink != nil {
			done[i].Sink.Complete(done[i].Tag, o, nil)
		}
	}
	clear(done)
	if len(a.spares) < 4*len(a.indexes) {
		a.spares = append(a.spares, done[:0])
	}
}

// Recycle returns an empty slice of completions for a later batch, nil where there is
// none.
func (a *Applier) Recycle() []Completion {
	if len(a.spares) == 0 {
		return nil
	}
	d := a.spares[len(a.spares)-1]
	a.spares = a.spares[:len(a.spares)-1]
	return d
}
