package raftlog

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Span is what the log holds of a group.
type Span struct {
	First uint64 // index of the first entry, or one above Last
	Last  uint64 // index of the last entry
}

// Spans reads the log in dir and returns what it holds of each group. fs nil
// is the operating system's file system. It changes nothing; no Log may be
// open there. Errors are those of Open.
func Spans(fs vfs.FS, dir string) (map[uint64]Span, error) {
	r, err := inspect(fs, dir)
	if r != nil {
		defer r.close()
	}
	if err != nil {
		return nil, err
	}
	spans := make(map[uint64]Span)
	r.log.eachGroup(func(g *Group) {
		if !g.empty() {
			spans[g.id] = Span{First: g.start.index + 1, Last: g.last()}
		}
	})
	return spans, nil
}

// Verify checks every checksum of the log in dir, and that the runs are
// complete and make sense. fs nil is the operating system's file system. What
// it finds goes to report, one line each. A torn tail is reported, but no
// error: Open cuts it off. It changes nothing; no Log may be open there.
// Errors are those of Open.
func Verify(fs vfs.FS, dir string, report func(string)) error {
	r, err := inspect(fs, dir)
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
	if f.TornBytes > 0 {
		report(fmt.Sprintf("raft log: torn tail of %d bytes, will be dropped", f.TornBytes))
	}
	return nil
}

// reportDamage names every damaged run, behind the first one too.
func (r *replayer) reportDamage(report func(string)) error {
	return r.damaged(func(s *segment, offset int64, h runHeader) {
		report(s.corrupt(offset, "the checksum of run %d does not match", h.run).Error())
	})
}
