package storage

import (
	"sync"
	"testing"
	"testing/synctest"

	"github.com/cockroachdb/pebble/v2"
)

// compactor is a database that has compactions to run.
type compactor struct {
	mu      sync.Mutex
	allowed int
	waiting int
	granted []pebble.CompactionGrantHandle
}

func (d *compactor) GetAllowedWithoutPermission() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.allowed
}

func (d *compactor) GetWaitingCompaction() (bool, pebble.WaitingCompaction) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.waiting > 0, pebble.WaitingCompaction{}
}

func (d *compactor) Schedule(h pebble.CompactionGrantHandle) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.waiting == 0 {
		return false
	}
	d.waiting--
	d.granted = append(d.granted, h)
	return true
}

func (d *compactor) set(allowed, waiting int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.allowed, d.waiting = allowed, waiting
}

func (d *compactor) check(t *testing.T, what string, granted, waiting int) {
	t.Helper()
	synctest.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.granted) != granted || d.waiting != waiting {
		t.Errorf("%s: %d granted, %d wait; want %d and %d", what, len(d.granted), d.waiting, granted, waiting)
	}
}

func TestScheduler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &compactor{allowed: 2}
		c := newScheduler()
		c.Register(1, d)
		if ok, _ := c.TrySchedule(); ok {
			t.Error("a compaction begins while the database is opened")
		}
		d.set(2, 4)
		c.UpdateGetAllowedWithoutPermission()
		d.check(t, "opening", 0, 4)
		c.start()
		d.check(t, "started", 2, 2)
		if ok, _ := c.TrySchedule(); ok {
			t.Error("a third compaction of two begins")
		}
		d.granted[0].Done()
		d.check(t, "one has ended", 3, 1)
		d.set(3, 1)
		c.UpdateGetAllowedWithoutPermission()
		d.check(t, "more are allowed", 4, 0)
		d.granted[1].Done()
		ok, h := c.TrySchedule()
		if !ok {
			t.Fatal("no compaction begins where one has ended")
		}
		d.set(3, 1)
		c.Unregister()
		h.Done()
		d.check(t, "closed", 4, 1)
		if ok, _ := c.TrySchedule(); ok {
			t.Error("a compaction begins after the end")
		}
	})
}

func TestSchedulerNeverStarted(t *testing.T) {
	c := newScheduler()
	c.Register(1, &compactor{allowed: 1})
	c.Unregister()
}
