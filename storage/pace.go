package storage

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Drains and compactions have time: nobody waits for them until both tables of
// recent records are full, or level 0 is deep. Done in one go they take a
// processor for a second or more, and where processors are few, requests queue
// for the others meanwhile. So they are done in short pieces with pauses between
// them, until somebody is in a hurry, and as long as anything is applied.
const (
	// paceWork is how long a piece takes at least. Requests that find all
	// processors taken wait for about as long.
	paceWork = 500 * time.Microsecond

	// pacePause is how much longer than a piece the pause behind it is.
	// What a piece was kept from working counts too: where there is much to
	// do besides, pauses are longer.
	pacePause = 3

	// pacePauseMax bounds a pause.
	pacePauseMax = 10 * time.Millisecond
)

// pacing is what the pauses of a kind of background work depend on.
type pacing struct {
	hurry  func() bool
	passes *atomic.Uint64 // of Apply so far; without any, nobody is disturbed
}

// pace makes the pauses of one piece of background work. It is used by one
// goroutine at a time.
type pace struct {
	pacing
	since time.Time // the end of the last pause
	seen  uint64    // passes before it
}

func (p pacing) begin() *pace { return &pace{pacing: p, since: time.Now(), seen: p.passes.Load()} }

// rest makes a pause if it is time for one and nobody is in a hurry. It is cheap
// enough to be called every few microseconds.
func (p *pace) rest() {
	worked := time.Since(p.since)
	if worked < paceWork {
		return
	}
	passes := p.passes.Load()
	disturbs := passes != p.seen
	p.seen = passes
	if disturbs && !p.hurry() {
		time.Sleep(min(pacePause*worked, pacePauseMax))
	}
	p.since = time.Now()
}

// How much more of the active table may be full than the drain of the frozen one
// has written. Where the last drain ended with rushedFill of the active table in
// use, the next one must be ahead.
const (
	drainLag  = 0.1
	drainLead = 0.2

	rushedFill = 0.3
)

// drainHurries reports whether the frozen table must be drained soon: somebody
// waits for it, or the active one is filled faster than it is drained.
func (s *Store) drainHurries() bool {
	lag := drainLag
	if s.drained.rushed.Load() {
		lag = -drainLead
	}
	return s.waiting.Load() > 0 || s.wanted.Load() || s.recent.fill() > s.drained.part()+lag
}

// compactionHurries reports whether level 0 must become less deep soon: drains
// wait for it or come fast, or it has twice the layers that begin a compaction.
func (s *Store) compactionHurries() bool {
	return s.waiting.Load() > 0 || s.wanted.Load() || s.drained.rushed.Load() || s.layers.Load() >= 2*compactionLayers
}

// drainProgress is how far a drain has come. The zero value is one that has not
// begun.
type drainProgress struct {
	written, of atomic.Int64 // records
	rushed      atomic.Bool  // the drain before was just fast enough, or not
}

// begin counts from the start.
func (p *drainProgress) begin() {
	p.of.Store(0)
	p.written.Store(0)
}

// part returns how many of its records a drain has written, from 0 to 1.
func (p *drainProgress) part() float64 {
	of := p.of.Load()
	if of == 0 {
		return 0
	}
	return float64(p.written.Load()) / float64(of)
}

// pacedFS is the file system as compactions see it, for which it makes pauses
// and which ends them when the store closes: one may have gigabytes to write.
type pacedFS struct {
	vfs.FS
	pacing
	over *atomic.Bool
}

// errOver ends a compaction. What it has written Pebble deletes; a later one
// begins again.
var errOver = fmt.Errorf("the store is closing: %w", pebble.ErrCancelledCompaction)

// compactionCategory is what Pebble calls the files that compactions write.
const compactionCategory vfs.DiskWriteCategory = "pebble-compaction"

func (f *pacedFS) Unwrap() vfs.FS { return f.FS }

func (f *pacedFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := f.FS.Create(name, category)
	if err != nil || category != compactionCategory {
		return file, err
	}
	return pacedFile{file, f.begin(), f.over}, nil
}

type pacedFile struct {
	vfs.File
	pace *pace
	over *atomic.Bool
}

func (f pacedFile) Write(p []byte) (int, error) {
	if f.over.Load() {
		return 0, errOver
	}
	f.pace.rest()
	return f.File.Write(p)
}
