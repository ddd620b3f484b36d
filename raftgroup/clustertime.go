package raftgroup

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/proa-kv/proa/raftgroup/engine"
	"github.com/proa-kv/proa/raftgroup/placement"
)

// timekeeper holds the node's time to what the clocks of the cluster say.
type timekeeper struct {
	node *Node

	clockOffset atomic.Int64 // ms that the wall clock is ahead of the others'
}

// # The time that decides expiry
//
// A wall clock can be set wrong, for a moment or for good, on one node or on
// all. If expiry followed it, a lock with three seconds to live could be gone
// at once, or stay for an hour. So expiry goes by the cluster's time: time that
// has *elapsed*, as the nodes' steady clocks count it, held to what a majority
// of the nodes' wall clocks say.
//
//   - A node's cluster time runs with its steady clock. It never follows a wall
//     clock that jumps.
//   - It drifts towards the wall clocks of the majority, by at most engine.SlewShare of
//     the time that elapses. A time to live is therefore never shorter or longer
//     by more than that, whatever is done to the wall clocks.
//   - What the majority says is an interval: from the lower to the upper median
//     of the wall clocks that are known. While the cluster's time lies within,
//     it is left alone; so of two clocks that disagree neither is believed.
//   - A node that starts takes the time from the first node with which it speaks that has
//     one. Where none has, the first majority of wall clocks decides. Until then
//     it goes on from the newest stamp in its state, so that what it shows
//     expires late, never early, and nothing is proposed: a time to live that
//     began at a stamp which may be hours old would be over at once later. After
//     timeWait it believes its own wall clock, as a node without others does at
//     once.
//   - A shard's time never goes back behind a stamp that was applied. Where it is
//     ahead of the node's time it runs on, more slowly by engine.SlewShare, instead of
//     standing still (engine.ShardTime).
//
// Wall clocks travel in the nodes' reports. How long a report took is not
// known, but delay only makes a clock look slow: of the last few readings of a
// node's clock the largest counts.

// timeWait is how long a node that starts waits for the time.
const timeWait = 2 * time.Second

// clockReadings is how many readings of another node's clock are looked at: those
// of four seconds.
const clockReadings = int(4 * time.Second / reportEvery)

// medians returns the lower and the upper median of times. It sorts them.
func medians(times []int64) (low, high int64) {
	slices.Sort(times)
	return times[(len(times)-1)/2], times[len(times)/2]
}

// clockReading is what a report said of a node's clocks, each in µs ahead of
// this node's Clock.Boot at the moment it was received.
type clockReading struct {
	wall int64
	time int64 // the node's cluster time
	has  bool  // it has one
}

// clockHistory holds the last few readings of a node's clocks.
type clockHistory struct {
	readings [clockReadings]clockReading
	n        int // how many there have been
}

func (h *clockHistory) add(r clockReading) {
	h.readings[h.n%clockReadings] = r
	h.n++
}

// reading is the best estimate: the largest of each. ok is false where nothing
// is known.
func (h *clockHistory) reading() (r clockReading, ok bool) {
	for i, x := range h.readings[:min(h.n, clockReadings)] {
		if i == 0 || x.wall > r.wall {
			r.wall = x.wall
		}
		if x.has && (!r.has || x.time > r.time) {
			r.time, r.has = x.time, true
		}
	}
	return r, h.n > 0
}

// keepTime moves the node's time by what the clocks of the cluster's nodes say,
// and notices where this node's own wall clock is off. For the pass.
func (tk *timekeeper) keepTime() {
	own := engine.OwnClock(tk.node.clock)
	if tk.node.state.Is(engine.Alone) {
		if !tk.node.time.Agreed.Load() {
			tk.node.time.Set(own)
		}
		tk.node.time.Step(own, own)
		tk.judgeClock(own, own, own)
		return
	}
	members, readings := tk.clockReadings()
	walls := append(make([]int64, 0, len(readings)+1), own)
	var times []int64
	for _, r := range readings {
		walls = append(walls, r.wall)
		if r.has {
			times = append(times, r.time)
		}
	}
	low, high := medians(walls)
	majority := 2*len(walls) > members
	if !tk.node.time.Agreed.Load() {
		tk.learnTime(own, low, high, majority, times)
	}
	if !majority {
		tk.node.time.Step(tk.node.time.Ahead, tk.node.time.Ahead) // too few are known: go on as before
		return
	}
	tk.node.time.Step(low, high)
	tk.judgeClock(own, low, high)
}

// learnTime has a node that does not know the time take it from others: times
// are those of nodes that have it, low and high the medians of the wall clocks
// that are known, own is this node's.
func (tk *timekeeper) learnTime(own, low, high int64, majority bool, times []int64) {
	at := own
	switch {
	case len(times) > 0:
		at, _ = medians(times)
	case majority:
		at = min(max(tk.node.time.Ahead, low), high)
	case tk.node.clock.Boot()-tk.node.startedAt < int64(timeWait):
		return
	default:
		// Ordinary where other nodes start too. A clock that is off is judged, and
		// warned of, as soon as others are known.
		tk.node.logger.Info("no cluster time received from other nodes; using the wall clock of this node", "waited", timeWait)
	}
	for _, v := range tk.node.views { // that was against the time so far
		v.Ahead.Store(0)
	}
	tk.node.time.Set(at)
}

// clockReadings returns how many nodes the cluster has and what is known of the
// other ones' clocks.
func (tk *timekeeper) clockReadings() (members int, readings []clockReading) {
	cm := tk.node.cmap.Load()
	if !cm.Begun() {
		members = len(tk.node.dir.Members)
		for _, m := range tk.node.dir.Members {
			readings = tk.node.known.appendClock(readings, tk.node.id, m.ID, tk.node.clock.Boot())
		}
		return members, readings
	}
	for i := range cm.Nodes {
		if row := &cm.Nodes[i]; row.Member() {
			members++
			readings = tk.node.known.appendClock(readings, tk.node.id, row.ID, tk.node.clock.Boot())
		}
	}
	return members, readings
}

// appendClock adds what is known of a node's clocks, unless it is this one or
// has sent nothing lately.
func (t *pictures) appendClock(readings []clockReading, self, node uint64, now int64) []clockReading {
	if node == self {
		return readings
	}
	defer t.lock()()
	p := t.nodes[node]
	if p == nil || now-p.heard > int64(placement.DownAfter) {
		return readings
	}
	if c, ok := p.clocks.reading(); ok {
		readings = append(readings, c)
	}
	return readings
}

// judgeClock decides whether this node's wall clock is off: further than
// Options.ClockOffset from where a majority's clocks are, or, where there is no
// other node, from the time that has elapsed. It is well again at half of that.
func (tk *timekeeper) judgeClock(own, low, high int64) {
	if tk.node.state.Is(engine.Alone) {
		low, high = tk.node.time.Ahead, tk.node.time.Ahead
	}
	off := own - min(max(own, low), high)
	tk.clockOffset.Store(off / 1000)
	most := tk.node.opt.ClockOffset.Microseconds()
	switch {
	case !tk.node.state.Is(clockOff) && max(off, -off) > most:
		tk.node.state.Set(clockOff)
		text := "wall clock differs too much from the other nodes' clocks: this node hands its leaderships over, and expiry follows the other nodes' clocks; correct the clock (see cluster.clock_offset_max)"
		if tk.node.state.Is(engine.Alone) {
			text = "wall clock was changed; expiry continues with the elapsed time and adjusts to the new time slowly"
		}
		tk.node.logger.Warn(text, "offset", time.Duration(off)*time.Microsecond, "limit", tk.node.opt.ClockOffset)
		tk.node.reportDue, tk.node.tendDue = 0, 0
	case tk.node.state.Is(clockOff) && max(off, -off) <= most/2:
		tk.node.state.Clear(clockOff)
		tk.node.logger.Info("wall clock agrees with the other nodes again", "offset", time.Duration(off)*time.Microsecond)
		tk.node.reportDue, tk.node.tendDue = 0, 0
	}
}
