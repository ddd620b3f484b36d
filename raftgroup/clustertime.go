package raftgroup

import (
	"math"
	"slices"
	"sync/atomic"
	"time"

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
//   - It drifts towards the wall clocks of the majority, by at most slewShare of
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
//     ahead of the node's time it runs on, more slowly by slewShare, instead of
//     standing still (group.lead).
//
// Wall clocks travel in the nodes' reports. How long a report took is not
// known, but delay only makes a clock look slow: of the last few readings of a
// node's clock the largest counts.

// slewShare is by how much of the time that elapses the cluster's time is moved
// towards the wall clocks: an hour takes twenty.
const slewShare = 20

// timeWait is how long a node that starts waits for the time.
const timeWait = 2 * time.Second

// clockReadings is how many readings of another node's clock are looked at: those
// of four seconds.
const clockReadings = int(4 * time.Second / reportEvery)

// clusterTime is a node's reckoning of the cluster's time. now may be called
// from any goroutine; everything else belongs to the pass.
type clusterTime struct {
	clock  Clock
	offset atomic.Int64 // µs that the cluster's time is ahead of Clock.Monotonic
	agreed atomic.Bool  // a majority of clocks, or a node that had the time, has said so
	behind atomic.Int64 // µs that the time is still to be moved; negative: it is ahead

	ahead int64 // µs that the cluster's time is ahead of Clock.Boot
	boot  int64 // Clock.Boot of the last step, µs
}

const unixMicrosMax = math.MaxInt64 / 4 // keeps sums and differences of times in range

// wallMicros is a wall clock's Unix time in microseconds.
func wallMicros(millis uint64) int64 {
	return int64(min(millis, unixMicrosMax/1000)) * 1000
}

// bootMicros is Clock.Boot in microseconds.
func bootMicros(c Clock) int64 { return c.Boot() / int64(time.Microsecond) }

// ownClock is by how much the node's wall clock is ahead of Clock.Boot, in µs.
func ownClock(c Clock) int64 { return wallMicros(c.NowMillis()) - bootMicros(c) }

// begin starts the time at stamp, the newest one in the node's state, in Unix
// milliseconds, or with the wall clock where that is earlier or there is none.
func (t *clusterTime) begin(c Clock, stamp uint64) {
	t.clock, t.boot = c, bootMicros(c)
	t.ahead = ownClock(c)
	if stamp != 0 {
		t.ahead = min(t.ahead, wallMicros(stamp)-t.boot)
	}
	t.publish()
}

// now is the cluster's time in Unix milliseconds.
func (t *clusterTime) now() uint64 {
	return uint64(max(t.offset.Load()+t.clock.Monotonic()/int64(time.Microsecond), 0)) / 1000
}

// set makes ahead the time, at once.
func (t *clusterTime) set(ahead int64) {
	t.ahead, t.boot = ahead, bootMicros(t.clock)
	t.agreed.Store(true)
	t.publish()
}

// step moves the time towards [low, high], both in µs ahead of Clock.Boot, as
// far as the time that has elapsed since the last step allows.
func (t *clusterTime) step(low, high int64) {
	now := bootMicros(t.clock)
	most := (now - t.boot) / slewShare
	t.boot = now
	want := min(max(t.ahead, low), high) - t.ahead
	moved := min(max(want, -most), most)
	t.ahead += moved
	t.behind.Store(want - moved)
	t.publish()
}

// publish lets now see the time. The steady clock it goes by may have stood
// still while the machine was suspended; Clock.Boot has not.
func (t *clusterTime) publish() {
	t.offset.Store(t.ahead + bootMicros(t.clock) - t.clock.Monotonic()/int64(time.Microsecond))
}

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
	own := ownClock(tk.node.clock)
	if tk.node.state.is(alone) {
		if !tk.node.time.agreed.Load() {
			tk.node.time.set(own)
		}
		tk.node.time.step(own, own)
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
	if !tk.node.time.agreed.Load() {
		tk.learnTime(own, low, high, majority, times)
	}
	if !majority {
		tk.node.time.step(tk.node.time.ahead, tk.node.time.ahead) // too few are known: go on as before
		return
	}
	tk.node.time.step(low, high)
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
		at = min(max(tk.node.time.ahead, low), high)
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
	tk.node.time.set(at)
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
	if tk.node.state.is(alone) {
		low, high = tk.node.time.ahead, tk.node.time.ahead
	}
	off := own - min(max(own, low), high)
	tk.clockOffset.Store(off / 1000)
	most := tk.node.opt.ClockOffset.Microseconds()
	switch {
	case !tk.node.state.is(clockOff) && max(off, -off) > most:
		tk.node.state.set(clockOff)
		text := "wall clock differs too much from the other nodes' clocks: this node hands its leaderships over, and expiry follows the other nodes' clocks; correct the clock (see cluster.clock_offset_max)"
		if tk.node.state.is(alone) {
			text = "wall clock was changed; expiry continues with the elapsed time and adjusts to the new time slowly"
		}
		tk.node.logger.Warn(text, "offset", time.Duration(off)*time.Microsecond, "limit", tk.node.opt.ClockOffset)
		tk.node.reportDue, tk.node.tendDue = 0, 0
	case tk.node.state.is(clockOff) && max(off, -off) <= most/2:
		tk.node.state.clear(clockOff)
		tk.node.logger.Info("wall clock agrees with the other nodes again", "offset", time.Duration(off)*time.Microsecond)
		tk.node.reportDue, tk.node.tendDue = 0, 0
	}
}
