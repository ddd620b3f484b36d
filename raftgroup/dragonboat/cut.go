package dragonboat

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/lni/dragonboat/v4"

	"github.com/proa-kv/proa/raftgroup/engine"
	"github.com/proa-kv/proa/storage"
)

// # The log is cut
//
// dragonboat cuts a shard's log behind a snapshot. Of a state machine that keeps its state
// on disk a snapshot is a record without data, but before it is made the state must be
// durable up to where it is (machine.Sync), and meanwhile nothing of the node is applied.
// So first the store is flushed while everything goes on, and what is left for Sync is what
// came in between. All shards are cut in turn, the idle ones too: a segment of the log goes
// when nobody needs it.

// cutter cuts the log when it has grown.
type cutter struct {
	engine *Engine
	busy   atomic.Bool
}

// cutTimeout bounds the wait for one snapshot.
const cutTimeout = 10 * time.Second

// cutBytes is the size of the log from which on it is cut.
func (c *cutter) cutBytes() int64 { return c.engine.Limits.LogBytes / 2 }

// due reports whether the log should be cut.
func (c *cutter) cutDue() bool {
	return c.engine.Log.SizeBytes() > c.cutBytes() || c.engine.Log.Short()
}

// noteLogSize has the log cut if it has grown enough.
func (c *cutter) noteLogSize() {
	if c.cutDue() {
		c.CutLog()
	}
}

// CutLog has the log cut, soon, if it has grown enough; see engine.Engine.
func (c *cutter) CutLog() {
	e := c.engine
	e.request(repliesDue) // large commands may wait for the room that a flush has made
	if e.nh == nil || !c.cutDue() || !c.busy.CompareAndSwap(false, true) {
		return
	}
	e.background(func(ctx context.Context) {
		defer c.busy.Store(false)
		c.cut(ctx)
	})
}

// cut makes a snapshot of each shard.
func (c *cutter) cut(ctx context.Context) {
	e := c.engine
	if err := e.Store.Flush(); err != nil {
		return // the store has said so
	}
	overhead := e.Limits.LogTrailing
	if e.State.Is(engine.Alone) || e.Log.Short() || e.Log.SizeBytes() > e.Limits.LogBytes {
		overhead = 0
	}
	for _, s := range e.shards {
		if ctx.Err() != nil {
			return
		}
		if s.replicaID.Load() == 0 || s.down.Load() && !c.mayCutDown(s) {
			continue
		}
		state, err := e.nh.RequestSnapshot(s.id, dragonboat.SnapshotOption{OverrideCompactionOverhead: true, CompactionOverhead: overhead}, cutTimeout)
		if err != nil {
			s.logger.Debug("cannot cut the log", "error", err)
			continue
		}
		select {
		case r := <-state.ResultC():
			if r.Aborted() {
				s.logger.Warn("the log was not cut: a record could not be written; the disk of the data directory may be full")
			}
		case <-ctx.Done():
			return
		}
	}
}

// mayCutDown reports whether the log of a replica that is down may be cut: not before it
// has to be, since its state is given up for that.
func (c *cutter) mayCutDown(s *shard) bool {
	e := c.engine
	if e.Log.SizeBytes() <= e.Limits.LogBytes {
		return false
	}
	err := s.giveUp()
	if err != nil && !errors.Is(err, storage.ErrDamaged) { // a shard beside it is damaged at the edge: later, perhaps
		e.host.Fail(fmt.Errorf("%s: %w", e.ShardName(s.number), err))
	}
	return err == nil
}

// MakeRoom does nothing: dragonboat's step worker, which waits for the room, would have to
// cut the log. The log is cut when room becomes short, before.
func (c *cutter) MakeRoom() {}
