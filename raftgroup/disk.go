package raftgroup

import (
	"time"

	"github.com/proa-kv/proa/raftgroup/datadir"
)

// noteFsync takes in how long a log write has taken.
func (n *Node) noteFsync(took time.Duration) {
	mean := n.fsyncMean.Load()
	if mean == 0 {
		mean = int64(took)
	}
	n.fsyncMean.Store(mean + (int64(took)-mean)/16)
	if took > n.opt.SlowDisk {
		n.post(func() { n.disksSlow(took) })
	}
}

// fsyncRecent is the moving mean of log writes, in microseconds.
func (n *Node) fsyncRecent() float64 {
	return float64(n.fsyncMean.Load()) / float64(time.Microsecond)
}

// recordEvery is how often it is made durable how far the log is synced: so
// much may be missing from the end of a log that is damaged after a crash
// without being missed.
const recordEvery = time.Second

// recordSynced has the log record how far it is synced, until the node closes.
// The driver could wait for the disk here for too long.
func (n *Node) recordSynced() {
	t := time.NewTicker(recordEvery)
	defer t.Stop()
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-t.C:
		}
		if err := n.log.RecordSynced(); err != nil {
			n.fail(err)
			return
		}
	}
}

// slowFor is how long a node whose disk has stalled leads nothing.
const slowFor = 10 * time.Second

// watchDisk notices a log write that hangs. For the pass.
func (n *Node) watchDisk() {
	if took := n.log.Stalled(); took > n.opt.SlowDisk {
		n.disksSlow(took)
	} else if n.state.is(slow) && n.ticks >= n.slowUntil {
		n.state.clear(slow)
		n.logger.Info("log disk has recovered; this node can lead shards again")
	}
}

func (n *Node) disksSlow(took time.Duration) {
	n.slowUntil = n.ticks + uint64(slowFor/n.tick)
	if !n.state.set(slow) {
		return
	}
	n.logger.Warn("log disk is slow; this node hands its leaderships to other nodes", "fsync", took.Round(time.Millisecond), "limit", n.opt.SlowDisk)
	n.sendReports()
	n.balance()
}

// measureEvery is how often the driver looks how full the disk is.
const measureEvery = 2 * time.Second

// measureDisk notes how full the disk is, for reports. It asks the file system.
func (n *Node) measureDisk() {
	if u, err := n.dir.FS.GetDiskUsage(n.dir.Path); err == nil {
		n.diskFree.Store(int64(u.AvailBytes))
	}
	n.diskUsed.Store(n.log.SizeBytes() + int64(n.store.Stats().DiskBytes))
}

// logShort hears that the disk has no room for the log's next segment. What the
// state machine has not made durable is why the segments before the last are
// needed; without it they can be used again.
func (n *Node) logShort() {
	n.flushState()
	n.Kick()
}

// roomPoll is how often makeRoom looks whether another thread runs passes.
const roomPoll = time.Millisecond

// makeRoom has the log cut behind all that has been carried out, for a commit
// that cannot go on for want of a segment. It runs passes if nobody else does.
func (n *Node) makeRoom() {
	if n.store == nil || n.store.Flush() != nil {
		return
	}
	if !n.schedule.writing() { // the node is being opened, and runs no passes yet
		n.cutOpening()
		return
	}
	cut := make(chan struct{})
	n.schedule.request(truncateDue)
	n.post(func() { close(cut) })
	for !n.state.is(failed) {
		n.drive()
		select {
		case <-cut:
			return
		case <-time.After(roomPoll):
		}
	}
}

// cutOpening cuts the log of groups that are not yet open.
func (n *Node) cutOpening() {
	for shard, g := range n.groups {
		if upTo := n.store.Durable(shard); g.log != nil && upTo > datadir.StartIndex && !n.store.Lost(shard) {
			n.log.Truncate(g.log, upTo)
		}
	}
}
