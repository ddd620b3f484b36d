package engine

import (
	"math"
	"sync/atomic"
	"time"
)

// SlewShare is by how much of the time that elapses the cluster's time is moved
// towards the wall clocks: an hour takes twenty.
const SlewShare = 20

// ClusterTime is a node's reckoning of the time that decides expiry: see
// raftgroup/clustertime.go, which moves it. Now may be called from any goroutine;
// everything else belongs to the conductor.
type ClusterTime struct {
	clock  Clock
	offset atomic.Int64 // µs that the cluster's time is ahead of Clock.Monotonic
	Agreed atomic.Bool  // a majority of clocks, or a node that had the time, has said so
	Behind atomic.Int64 // µs that the time is still to be moved; negative: it is ahead

	Ahead int64 // µs that the cluster's time is ahead of Clock.Boot
	boot  int64 // Clock.Boot of the last step, µs
}

const unixMicrosMax = math.MaxInt64 / 4 // keeps sums and differences of times in range

// WallMicros is a wall clock's Unix time in microseconds.
func WallMicros(millis uint64) int64 {
	return int64(min(millis, unixMicrosMax/1000)) * 1000
}

// bootMicros is Clock.Boot in microseconds.
func bootMicros(c Clock) int64 { return c.Boot() / int64(time.Microsecond) }

// OwnClock is by how much the node's wall clock is ahead of Clock.Boot, in µs.
func OwnClock(c Clock) int64 { return WallMicros(c.NowMillis()) - bootMicros(c) }

// Begin starts the time at stamp, the newest one in the node's state, in Unix
// milliseconds, or with the wall clock where that is earlier or there is none.
func (t *ClusterTime) Begin(c Clock, stamp uint64) {
	t.clock, t.boot = c, bootMicros(c)
	t.Ahead = OwnClock(c)
	if stamp != 0 {
		t.Ahead = min(t.Ahead, WallMicros(stamp)-t.boot)
	}
	t.Publish()
}

// Now is the cluster's time in Unix milliseconds.
func (t *ClusterTime) Now() uint64 {
	return uint64(max(t.offset.Load()+t.clock.Monotonic()/int64(time.Microsecond), 0)) / 1000
}

// Set makes ahead the time, at once.
func (t *ClusterTime) Set(ahead int64) {
	t.Ahead, t.boot = ahead, bootMicros(t.clock)
	t.Agreed.Store(true)
	t.Publish()
}

// Step moves the time towards [low, high], both in µs ahead of Clock.Boot, as
// far as the time that has elapsed since the last step allows.
func (t *ClusterTime) Step(low, high int64) {
	now := bootMicros(t.clock)
	most := (now - t.boot) / SlewShare
	t.boot = now
	want := min(max(t.Ahead, low), high) - t.Ahead
	moved := min(max(want, -most), most)
	t.Ahead += moved
	t.Behind.Store(want - moved)
	t.Publish()
}

// Publish lets Now see the time. The steady clock it goes by may have stood
// still while the machine was suspended; Clock.Boot has not.
func (t *ClusterTime) Publish() {
	t.offset.Store(t.Ahead + bootMicros(t.clock) - t.clock.Monotonic()/int64(time.Microsecond))
}

// ShardTime is the time of one shard, in Unix milliseconds; see ClusterTime.
type ShardTime struct {
	LastStamp atomic.Uint64 // time never goes back behind it
	Ahead     atomic.Uint64 // that the shard's time is ahead of the node's
	aheadAt   uint64        // the node's time when Ahead was last looked at; belongs to the conductor
}

// Now is the shard's time: the node's, unless what was applied here bears a later
// stamp.
func (t *ShardTime) Now(node uint64) uint64 { return max(node+t.Ahead.Load(), t.LastStamp.Load()) }

// Keep works out how far the shard's time is ahead of the node's; stamp is the newest
// that was applied. What it was ahead shrinks by SlewShare of the time that has elapsed
// since the last call. For the conductor.
func (t *ShardTime) Keep(stamp, node uint64) {
	stamp = max(stamp, t.LastStamp.Load())
	ahead := uint64(0)
	if stamp > node {
		ahead = stamp - node
	}
	lead := t.Ahead.Load()
	t.aheadAt = min(t.aheadAt, node) // the time may have been set back
	if elapsed := node - min(node, t.aheadAt); elapsed >= SlewShare {
		lead -= min(lead, elapsed/SlewShare)
		t.aheadAt = node
	}
	if lead = max(lead, ahead); lead != t.Ahead.Load() {
		t.Ahead.Store(lead)
	}
}
