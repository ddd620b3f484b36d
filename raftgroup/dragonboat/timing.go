package dragonboat

import (
	"time"

	"github.com/proa-kv/proa/raftgroup/engine"
)

// timing is a node's times, most of them in dragonboat's ticks, which it calls RTT. It does
// not change while the node runs.
type timing struct {
	rtt            time.Duration // a tick
	electionTicks  uint64
	heartbeatTicks uint64
	requestTicks   uint64
	adapted        bool // they are not what was configured
	heartbeat      time.Duration
	leaseNanos     int64
	started        int64 // Clock.Boot
	votesFrom      int64 // Clock.Boot until which this node may have promised not to vote
}

func newTiming(o *engine.Timing, groups int) timing {
	t := timing{heartbeat: o.Heartbeat, started: o.Started}
	t.rtt, t.heartbeatTicks, t.electionTicks, t.adapted = engine.Ticks(*o, groups)
	t.requestTicks = uint64(max(o.Timeout/t.rtt, 1))
	t.leaseNanos = int64(float64(time.Duration(t.electionTicks-2)*t.rtt) * (1 - min(max(o.ClockDrift, 0), 0.5)))
	return t
}

// leaseMax is the longest lease that any leader could have built on a promise of this
// node.
func (t *timing) leaseMax() int64 { return int64(time.Duration(t.electionTicks+1) * t.rtt) }

// interval is how long a tick of the conductor takes.
func (t *timing) interval(alone bool) time.Duration {
	if alone {
		return max(t.heartbeat, t.rtt)
	}
	return t.rtt
}
