package sim

import (
	"errors"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// disk is a machine's file system. Syncs of the log take virtual time; the
// state's are at once, since no promise rests on when they end.
type disk struct {
	*vfs.MemFS
	m       *member
	timed   bool  // else syncs of the log take no time
	broken  bool  // the next sync of the log fails
	lies    bool  // syncs nothing and says it did
	trap    bool  // the machine fails as soon as the log is to be synced
	stalled int64 // true time until which it hangs
	waiting []*syncing
	// loose is what was written to the log and not synced.
	loose []looseWrite

	mu   sync.Mutex
	open map[string]*logFile // by the present name
}

// syncing is a sync that has been begun and has not ended.
type syncing struct {
	done  chan error // capacity 1
	ended bool
}

type looseWrite struct {
	path   string
	offset int64
	data   []byte
}

var errDisk = errors.New("input/output error")

// segmentSuffix ends the names of the log's files while they are part of it.
// Under other names the log prepares them in the background, beside which
// nothing here may happen.
const segmentSuffix = ".seg"

// logFile is a file of the log.
type logFile struct {
	vfs.File
	disk *disk
	path string
}

// OpenReadWrite opens a file whose syncs are timed if it is the log's.
func (d *disk) OpenReadWrite(path string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	f, err := d.MemFS.OpenReadWrite(path, c, o...)
	if err != nil || !strings.Contains(path, "/raft/") {
		return f, err
	}
	l := &logFile{File: f, disk: d, path: path}
	d.mu.Lock()
	d.open[path] = l
	d.mu.Unlock()
	return l, nil
}

// Rename gives a file another name, by which its handle goes from then on.
func (d *disk) Rename(from, to string) error {
	err := d.MemFS.Rename(from, to)
	d.mu.Lock()
	defer d.mu.Unlock()
	if l := d.open[from]; l != nil && err == nil {
		delete(d.open, from)
		d.open[to] = l
		l.path = to
	}
	return err
}

func (f *logFile) timed() bool { return strings.HasSuffix(f.path, segmentSuffix) && f.disk.timed }

// WriteAt writes, and remembers what a crash may tear.
func (f *logFile) WriteAt(b []byte, offset int64) (int, error) {
	if f.timed() {
		f.disk.loose = append(f.disk.loose, looseWrite{f.path, offset, append([]byte(nil), b...)})
	}
	return f.File.WriteAt(b, offset)
}

// SyncData makes the file durable after a while.
func (f *logFile) SyncData() error {
	d := f.disk
	if !f.timed() {
		return f.File.SyncData()
	}
	if err := d.wait(); err != nil {
		return err
	}
	if d.lies {
		return nil
	}
	if err := f.File.SyncData(); err != nil {
		return err
	}
	d.loose = nil
	return nil
}

// wait waits until the sync is to be carried out.
func (d *disk) wait() error {
	s := d.m.sim
	w := &syncing{done: make(chan error, 1)}
	var err error
	after := s.exponential(d.m.sim.weather.fsync)
	switch {
	case d.trap:
		d.trap = false
		life := d.m.life
		s.after(1, func() { d.m.crashIf(life) })
		d.waiting = append(d.waiting, w)
		return <-w.done // as the crash ends it
	case d.broken:
		d.broken = false
		err = errDisk
	case d.stalled > s.now():
		after += d.stalled - s.now()
	case s.chance(0.4):
		return nil // in the drive's own cache
	}
	d.waiting = append(slices.DeleteFunc(d.waiting, func(w *syncing) bool { return w.ended }), w)
	s.after(after, func() { d.m.whenRunning(func() { w.end(err) }) })
	return <-w.done
}

func (w *syncing) end(err error) {
	if !w.ended {
		w.ended = true
		w.done <- err
	}
}

// release ends all syncs, when nobody cares any more what became of them.
func (d *disk) release() {
	d.timed = false
	for _, w := range d.waiting {
		w.end(nil)
	}
	d.waiting = nil
}

// loss is what a crash takes with it.
type loss int

const (
	lossOfNothing  loss = iota // the process alone dies
	lossOfUnsynced             // the machine does
	lossOfSome                 // and some of what was not synced had got to the disk
)

// crash returns the file system as a crash leaves it.
func (d *disk) crash(l loss) *vfs.MemFS {
	s := d.m.sim
	if l == lossOfNothing {
		// All of it, whatever is drawn: not from the run's own source, since
		// how often depends on how many files Pebble has not deleted yet.
		return d.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: mathrand.New(mathrand.NewPCG(0, 0))})
	}
	fs := d.CrashClone(vfs.CrashCloneCfg{})
	if l == lossOfSome {
		for _, w := range d.loose {
			s.tear(fs, w)
		}
	}
	return fs
}

// tear writes a random part of w, in blocks of the log's size.
func (s *simulation) tear(fs *vfs.MemFS, w looseWrite) {
	f, err := fs.OpenReadWrite(w.path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return // the file itself was not durable
	}
	defer f.Close()
	const block = 4096
	for at := 0; at < len(w.data); at += block {
		if s.chance(0.5) {
			_, err := f.WriteAt(w.data[at:min(at+block, len(w.data))], w.offset+int64(at))
			s.must(err)
		}
	}
	s.must(f.Sync())
}
