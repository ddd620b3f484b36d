package raftgroup

import (
	"github.com/proa-kv/proa/raftgroup/engine"
	"sync/atomic"
	"time"
)

// diskWatch is how fast and how full the node's disk is.
type diskWatch struct {
	node *Node

	fsyncMean          atomic.Int64 // moving, ns
	diskUsed, diskFree atomic.Int64
	slowUntil          int64 // Clock.Boot
}

// noteFsync takes in how long a log write has taken.
func (dw *diskWatch) noteFsync(took time.Duration) {
	mean := dw.fsyncMean.Load()
	if mean == 0 {
		mean = int64(took)
	}
	dw.fsyncMean.Store(mean + (int64(took)-mean)/16)
	if took > dw.node.opt.SlowDisk {
		dw.node.engine.Post(func() { dw.disksSlow(took) })
	}
}

// fsyncRecent is the moving mean of log writes, in microseconds.
func (dw *diskWatch) fsyncRecent() float64 {
	return float64(dw.fsyncMean.Load()) / float64(time.Microsecond)
}

// recordEvery is how often it is made durable how far the log is synced: so
// much may be missing from the end of a log that is damaged after a crash
// without being missed.
const recordEvery = time.Second

// recordSynced has the log record how far it is synced, until the node closes.
// The driver could wait for the disk here for too long.
func (dw *diskWatch) recordSynced() {
	t := time.NewTicker(recordEvery)
	defer t.Stop()
	for {
		select {
		case <-dw.node.ctx.Done():
			return
		case <-t.C:
		}
		if err := dw.node.log.RecordSynced(); err != nil {
			dw.node.fail(err)
			return
		}
	}
}

// slowFor is how long a node whose disk has stalled leads nothing.
const slowFor = 10 * time.Second

// watchDisk notices a log write that hangs. For the pass.
func (dw *diskWatch) watchDisk() {
	if took := dw.node.log.Stalled(); took > dw.node.opt.SlowDisk {
		dw.disksSlow(took)
	} else if dw.node.state.Is(engine.Slow) && dw.node.clock.Boot() >= dw.slowUntil {
		dw.node.state.Clear(engine.Slow)
		dw.node.logger.Info("log disk has recovered; this node can lead shards again")
	}
}

func (dw *diskWatch) disksSlow(took time.Duration) {
	dw.slowUntil = dw.node.clock.Boot() + int64(slowFor)
	if !dw.node.state.Set(engine.Slow) {
		return
	}
	dw.node.logger.Warn("log disk is slow; this node hands its leaderships to other nodes", "fsync", took.Round(time.Millisecond), "limit", dw.node.opt.SlowDisk)
	dw.node.sendReports()
	dw.node.balance()
}

// measureEvery is how often the driver looks how full the disk is.
const measureEvery = 2 * time.Second

// measureDisk notes how full the disk is, for reports. It asks the file system.
func (dw *diskWatch) measureDisk() {
	if u, err := dw.node.dir.FS.GetDiskUsage(dw.node.dir.Path); err == nil {
		dw.diskFree.Store(int64(u.AvailBytes))
	}
	dw.diskUsed.Store(dw.node.log.SizeBytes() + int64(dw.node.store.Stats().DiskBytes))
}

// logShort is called when the disk has no room for the log's next segment. What the
// state machine has not made durable is why the segments before the last are
// needed; without it they can be used again.
func (dw *diskWatch) logShort() {
	dw.node.Flush()
	dw.node.Kick()
}

// makeLogRoom has the log cut behind all that has been carried out, for a Save
// that cannot go on for want of a segment.
func (dw *diskWatch) makeLogRoom() {
	if dw.node.store != nil && dw.node.store.Flush() == nil {
		dw.node.engine.MakeRoom()
	}
}
