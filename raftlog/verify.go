package raftlog

import (
	"errors"
	"fmt"
	"time"
)

// Span is what the log holds of a group.
type Span struct {
	First uint64 // index of the first entry, or one above Last
	Last  uint64 // index of the last entry

	Metadata []byte // see Group.Metadata
}

// Spans reads the log of o and returns what it holds of each group. It changes
// nothing; no Log may be open there. Errors are those of Open.
func Spans(o Options) (map[uint64]Span, error) {
	r, err := inspect(o)
	if r != nil {
		defer r.close()
	}
	if err != nil {
		return nil, err
	}
	spans := make(map[uint64]Span)
	r.log.eachGroup(func(g *Group) { spans[g.id] = Span{First: g.start.index + 1, Last: g.last(), Metadata: g.meta} })
	return spans, nil
}

// Verify checks every checksum of the log of o, and that the runs are complete
// and make sense. What it finds goes to report, one line each. A tail that was
// torn before it had been synced, as far as that is known, is reported, but no
// error: Open cuts it off. It changes nothing; no Log may be open there.
// Errors are those of Open.
func Verify(o Options, report func(string)) error {
	r, err := inspect(o)
	if r != nil {
		defer r.close()
	}
	if err != nil {
		report(err.Error())
		if r != nil {
			err = errors.Join(err, r.reportDamage(report))
		}
		return err
	}
	f := r.found
	report(fmt.Sprintf("raft log: %d groups, %d entries, %d runs in %d segments, %d bytes", f.Groups, f.Entries, r.runs, f.Segments, f.Bytes))
	switch {
	case f.Closed:
		report("raft log: shut down cleanly, nothing is missing")
	case f.SyncedRun > 0:
		report(fmt.Sprintf("raft log: not shut down cleanly; nothing is missing that was synced by %s", f.SyncedAt.UTC().Format(time.RFC3339)))
	}
	if f.TornBytes > 0 {
		report(fmt.Sprintf("raft log: torn tail of %d bytes will be dropped", f.TornBytes))
	}
	return nil
}
