package bench

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"

	"github.com/proa-kv/proa/client"
)

// Verification is what Harness.Verify found.
type Verification struct {
	// Rows is how many rows were read back, and Missing and Wrong how many of
	// them were not there or held what they cannot hold.
	Rows    uint64 `json:"rows"`
	Missing uint64 `json:"missing"`
	Wrong   uint64 `json:"wrong"`

	// Problems describes the first of them, by key, at most ProblemsMax.
	Problems []string `json:"problems,omitempty"`
}

// OK reports whether all rows were right.
func (v *Verification) OK() bool { return v.Missing+v.Wrong == 0 }

// ProblemsMax bounds Verification.Problems.
const ProblemsMax = 100

const (
	verifiers   = 8
	verifyRows  = 100
	verifyBytes = 1 << 20

	connectionsPerClient = 2
)

// Verify reads back, linearizably, every row that Preload and Run have written,
// and compares. A row may hold what was written by a request that was
// acknowledged, unless one was acknowledged that had been sent after that; and
// what was written by one of unknown outcome. The Load must have Verify set.
func (h *Harness) Verify(ctx context.Context) (*Verification, error) {
	if h.trackers == nil {
		return nil, fmt.Errorf("%w: Verify needs a load with Verify set", ErrConfig)
	}
	if h.rows.counters() && !h.preloaded {
		return nil, fmt.Errorf("%w: counters can be verified only if this load has preloaded them", ErrConfig)
	}
	c, err := h.client(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	v := newVerifier(h, c)
	var group sync.WaitGroup
	for range verifiers {
		group.Go(func() {
			for part := v.next(); len(part) > 0 && ctx.Err() == nil; part = v.next() {
				if err := v.check(ctx, part); err != nil {
					cancel(err)
				}
			}
		})
	}
	group.Wait()
	slices.Sort(v.found.Problems)
	return &v.found, context.Cause(ctx)
}

// verifier compares rows with what was written.
type verifier struct {
	harness *Harness
	client  *client.Client
	size    int // rows that are read at once

	mu         sync.Mutex
	row, known uint64   // the rows that were preloaded, and which of them is next
	further    []uint64 // other rows that were written
	found      Verification
}

func newVerifier(h *Harness, c *client.Client) *verifier {
	v := &verifier{harness: h, client: c, size: min(verifyRows, max(1, verifyBytes/max(1, h.load.Workload.ValueBytes.Max())))}
	if h.preloaded {
		v.known = h.load.Keys
	}
	further := map[uint64]bool{}
	for _, t := range h.trackers {
		for row := range t {
			if row >= v.known {
				further[row] = true
			}
		}
	}
	v.further = slices.Sorted(maps.Keys(further))
	return v
}

// next returns the numbers of some rows that were written, none after the last.
func (v *verifier) next() (part []uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for ; v.row < v.known && len(part) < v.size; v.row++ {
		part = append(part, v.row)
	}
	n := min(v.size-len(part), len(v.further))
	part, v.further = append(part, v.further[:n]...), v.further[n:]
	return part
}

func (v *verifier) check(ctx context.Context, part []uint64) error {
	keys := make([][]byte, len(part))
	for i, row := range part {
		keys[i] = v.harness.rows.AppendKey(nil, row)
	}
	items, err := v.client.MGet(ctx, keys)
	if err != nil {
		return fmt.Errorf("bench: reading rows back: %w", err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for i, row := range part {
		v.found.Rows++
		problem := v.harness.checkRow(row, items[i].Value, items[i].Found)
		if problem == "" {
			continue
		}
		if items[i].Found {
			v.found.Wrong++
		} else {
			v.found.Missing++
		}
		if len(v.found.Problems) < ProblemsMax {
			v.found.Problems = append(v.found.Problems, fmt.Sprintf("%s: %s", keys[i], problem))
		}
	}
	return nil
}

// history returns what all threads know of a row.
func (h *Harness) history(row uint64) (all rowHistory) {
	for _, t := range h.trackers {
		if r := t[row]; r != nil {
			all.merge(r)
		}
	}
	if h.preloaded && row < h.load.Keys && all.newest == 0 {
		all.writes = append(all.writes, write{version: 0})
	}
	return all
}

// checkRow returns what is wrong with a row, or "".
func (h *Harness) checkRow(row uint64, value []byte, found bool) string {
	all := h.history(row)
	must := all.newest > 0 || h.preloaded && row < h.load.Keys
	switch {
	case !found && must:
		return "missing, although a write was acknowledged"
	case !found:
		return ""
	case h.rows.counters():
		n, err := strconv.ParseUint(string(value), 10, 64)
		if err != nil || n < all.added || n > all.added+all.perhaps {
			return fmt.Sprintf("holds %.24q, but was incremented %d times, and perhaps %d times more", value, all.added, all.perhaps)
		}
		return ""
	}
	for _, w := range all.writes {
		if h.rows.is(value, row, w.version) {
			return ""
		}
	}
	return h.describeWrong(row, value, len(all.writes))
}

// describeWrong says in what way a value is wrong.
func (h *Harness) describeWrong(row uint64, value []byte, candidates int) string {
	if len(value) >= valueHead {
		other, version := binary.LittleEndian.Uint64(value), binary.LittleEndian.Uint64(value[8:])
		switch {
		case other != row && h.rows.is(value, other, version) && h.rows.workload.Hashed && hashed(other) == hashed(row):
			return "" // both rows have this key
		case other != row && h.rows.is(value, other, version):
			return fmt.Sprintf("holds the value of row %d", other)
		case other == row && h.rows.is(value, row, version):
			return fmt.Sprintf("holds version %d, which was overwritten or never acknowledged; correct versions: %d", version, candidates)
		}
	}
	return fmt.Sprintf("holds %d bytes that were never written there: %.24q", len(value), value)
}
