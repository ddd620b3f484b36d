package bench

import "fmt"

// Generator yields the operations of a workload, and makes its keys and values,
// for a program that carries them out by itself: on a storage engine in its own
// process, say, beside which a server is measured. It belongs to one goroutine.
type Generator struct{ source *source }

// Operation is one operation on one row: KindRead, or KindUpdate, which writes
// the given version of its value.
type Operation struct {
	Kind         Kind
	Row, Version uint64
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
		out[i] = &Generator{newSource(&w, made, newPicker(w.Choice, keys, seed, i, n, 1))}
	}
	return out, nil
}

// Next returns the next operation.
func (g *Generator) Next() Operation {
	var a operation
	g.source.draw(&a)
	return Operation{a.kind, a.row, a.version}
}

// AppendKey appends the key of a row.
func (g *Generator) AppendKey(dst []byte, row uint64) []byte {
	return g.source.rows.appendKey(dst, row)
}

// AppendValue appends the value of a row in a version. That of version 0 is what
// a Harness preloads.
func (g *Generator) AppendValue(dst []byte, row, version uint64) []byte {
	return g.source.rows.appendValue(dst, row, version)
}

// Plausible reports whether a value may be one of the row's, as far as a
// Harness checks it that does not verify: its head names the row.
func (g *Generator) Plausible(value []byte, row uint64) bool {
	return g.source.rows.plausible(value, row, false)
}
