package storage

import (
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Drains and compactions have time: nobody waits for them until both tables of
// recent records are full, or level 0 is deep. Done in one go they take a
// processor for a second or more, and where processors are few, requests queue
// for the others meanwhile. So they are done in short pieces with pauses between
// them, until somebody is in a hurry.
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

// pace makes the pauses of one piece of background work. It is used by one
// goroutine at a time.
type pace struct {
	hurry func() bool
	since time.Time // the end of the last pause
}

func newPace(hurry func() bool) *pace { return &pace{hurry, time.Now()} }

// rest makes a pause if it is time for one and nobody is in a hurry. It is cheap
// enough to be called every few microseconds.
func (p *pace) rest() {
	worked := time.Since(p.since)
	if worked < paceWork {
		return
	}
	if !p.hurry() {
		time.Sleep(min(pacePause*worked, pacePauseMax))
	}
	p.since = time.Now()
}

// drainHurries reports whether the frozen table must be drained soon: somebody
// waits for it, or the active one is half full.
func (s *Store) drainHurries() bool {
	return s.waiting.Load() > 0 || s.recent.halfFull()
}

// compactionHurries reports whether level 0 must become less deep soon: drains
// wait for it, or it has twice the layers that begin a compaction.
func (s *Store) compactionHurries() bool {
	return s.waiting.Load() > 0 || s.layers.Load() >= 2*compactionLayers
}

// pacedFS is the file system as compactions see it, for which it makes pauses.
type pacedFS struct {
	vfs.FS
	hurry func() bool
}

// compactionCategory is what Pebble calls the files that compactions write.
const compactionCategory vfs.DiskWriteCategory = "pebble-compaction"

func (f *pacedFS) Unwrap() vfs.FS { return f.FS }

func (f *pacedFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := f.FS.Create(name, category)
	if err != nil || category != compactionCategory {
		return file, err
	}
	return pacedFile{file, newPace(f.hurry)}, nil
}

type pacedFile struct {
	vfs.File
	pace *pace
}

func (f pacedFile) Write(p []byte) (int, error) {
	f.pace.rest()
	return f.File.Write(p)
}
