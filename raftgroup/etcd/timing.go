package etcd

import (
	"time"

	"github.com/proa-kv/proa/raftgroup/datadir"
	"github.com/proa-kv/proa/raftgroup/engine"
)

// electionTickCount is how many ticks of Raft's logical clock make the shortest
// election timeout. A lease is shorter than that timeout by two ticks.
const electionTickCount = 20

// timing is a node's times, most of them in ticks. It does not change while the node
// runs. Rounds (see lease.go) are the heartbeats, so that each renews the lease; Raft's
// own only have to be rarer than elections.
type timing struct {
	tick           time.Duration
	electionTicks  int
	heartbeatTicks uint64
	requestTicks   uint64
	heartbeat      time.Duration
	leaseNanos     int64
	started        int64  // Clock.Boot
	votesFrom      int64  // Clock.Boot until which this node may have promised not to vote
	roundSalt      uint64 // of the stamps and rounds of this start
}

func newTiming(o *engine.Timing) timing {
	t := timing{tick: max(o.ElectionMin/electionTickCount, time.Millisecond), heartbeat: o.Heartbeat, started: o.Started, roundSalt: datadir.NewID()}
	t.electionTicks = max(int(o.ElectionMin/t.tick), 3)
	t.heartbeatTicks = uint64(max(o.Heartbeat/t.tick, 1))
	t.requestTicks = uint64(max(o.Timeout/t.tick, 1))
	t.leaseNanos = int64(float64(time.Duration(t.electionTicks-2)*t.tick) * (1 - min(max(o.ClockDrift, 0), 0.5)))
	return t
}

// leaseMax is the longest lease that any leader could have built on a promise
// of this node.
func (t *timing) leaseMax() int64 { return int64(time.Duration(t.electionTicks+1) * t.tick) }

// interval is how long a tick takes. A node without peers has nobody to
// beat for and ticks with the heartbeat: each tick wakes a thread, and the Go
// scheduler's watchdog stays alert for milliseconds after it.
func (t *timing) interval(alone bool) time.Duration {
	if alone {
		return max(t.heartbeat, t.tick)
	}
	return t.tick
}

// stamp returns a moment, on Clock.Boot, for this node's own later use. The salt makes
// those of an earlier life unrecognizable, after which the clock may have begun anew.
func (t *timing) stamp(now int64) uint64 { return uint64(now) ^ t.roundSalt }

// stampTime returns when this node made a stamp; false if it did not.
func (t *timing) stampTime(stamp uint64, now int64) (int64, bool) {
	at := int64(stamp ^ t.roundSalt)
	return at, stamp != 0 && at >= t.started && at <= now
}
