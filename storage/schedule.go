package storage

import (
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// scheduler lets Pebble run as many compactions at a time as Pebble itself allows,
// but none before start. Pebble's own scheduler begins while pebble.Open still
// runs: an Open that flushes and fails afterwards, at a full disk for example,
// releases its file cache below the compaction that the flush has led to, and the
// process ends in a panic instead of an error.
//
// A compaction that is refused waits until the scheduler grants it: when another
// one is done, or when more are allowed, which a flush or an ingestion may cause.
type scheduler struct {
	db pebble.DBForCompaction // from Register on

	mu       sync.Mutex
	granting bool // from start to Unregister
	running  int

	wake chan struct{} // capacity 1: a grant may be due
	stop chan struct{} // closed by Unregister
	done chan struct{} // closed when no more is granted
}

// scheduleInterval is how long a change of what is allowed that nobody has told
// may go unnoticed.
const scheduleInterval = time.Second

func newScheduler() *scheduler {
	return &scheduler{wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
}

// Register implements pebble.CompactionScheduler.
func (c *scheduler) Register(_ int, db pebble.DBForCompaction) { c.db = db }

// start grants compactions from here on, also those that were refused before.
// The database has been opened.
func (c *scheduler) start() {
	c.mu.Lock()
	c.granting = true
	c.mu.Unlock()
	notify(c.wake)
	go c.grantWhenDue()
}

// Unregister implements pebble.CompactionScheduler: the database is closed, and not
// called from its return on.
func (c *scheduler) Unregister() {
	c.mu.Lock()
	started := c.granting
	c.granting = false
	c.mu.Unlock()
	if started {
		close(c.stop)
		<-c.done
	}
}

// TrySchedule implements pebble.CompactionScheduler.
func (c *scheduler) TrySchedule() (bool, pebble.CompactionGrantHandle) {
	if !c.reserve() {
		return false, nil
	}
	return true, grant{c}
}

// UpdateGetAllowedWithoutPermission implements pebble.CompactionScheduler: a flush
// has ended.
func (c *scheduler) UpdateGetAllowedWithoutPermission() { notify(c.wake) }

// reserve counts one more running compaction if it is allowed.
func (c *scheduler) reserve() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.granting || c.running >= c.db.GetAllowedWithoutPermission() {
		return false
	}
	c.running++
	return true
}

func (c *scheduler) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running--
}

func (c *scheduler) grantWhenDue() {
	defer close(c.done)
	ticker := time.NewTicker(scheduleInterval)
	defer ticker.Stop()
	for {
		select {
		case <-c.wake:
		case <-ticker.C:
		case <-c.stop:
			return
		}
		for c.grantOne() {
		}
	}
}

// grantOne starts a compaction that waits, if one does and may run.
func (c *scheduler) grantOne() bool {
	if !c.reserve() {
		return false
	}
	if waiting, _ := c.db.GetWaitingCompaction(); waiting && c.db.Schedule(grant{c}) {
		return true
	}
	c.release()
	return false
}

// grant implements pebble.CompactionGrantHandle.
type grant struct{ c *scheduler }

func (grant) Started()                                          {}
func (grant) MeasureCPU(pebble.CompactionGoroutineKind)         {}
func (grant) CumulativeStats(pebble.CompactionGrantHandleStats) {}

// Done returns the place of a compaction that has ended.
func (g grant) Done() {
	g.c.release()
	notify(g.c.wake)
}
