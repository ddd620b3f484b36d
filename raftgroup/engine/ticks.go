package engine

import "time"

// Ticks returns t in whole ticks of rtt, as dragonboat counts it, for a node with so many
// groups: the interval of heartbeats,
// and the shortest election timeout. dragonboat takes whole milliseconds as rtt, and demands
// that the election timeout be more than twice the interval of heartbeats
// (config.Config.Validate; below ten times it logs a warning, which is not for operators:
// their default is twice).
//
// What need not be adapted is exact. rtt is the longest tick that divides both and of which
// the election timeout has at least ElectionTicksMin, so that timeouts drawn at random
// differ: fewer with many groups, each of which costs dragonboat some microseconds in every
// tick, also when there is nothing to do. Where adapted is true t is not kept: parts of milliseconds were rounded up, or the
// interval of heartbeats is the longest that the election timeout allows. That timeout is
// never changed otherwise, because it says how long a shard may be without a leader.
func Ticks(t Timing, groups int) (rtt time.Duration, heartbeatRTT, electionRTT uint64, adapted bool) {
	heartbeat, election := wholeMillis(t.Heartbeat, 1), wholeMillis(t.ElectionMin, 3)
	tick := max(election/electionTicksMin(groups), 1)
	for heartbeat%tick != 0 || election%tick != 0 {
		tick--
	}
	heartbeatRTT, electionRTT = heartbeat/tick, election/tick
	heartbeatRTT = min(heartbeatRTT, (electionRTT-1)/2)
	rtt = time.Duration(tick) * time.Millisecond
	return rtt, heartbeatRTT, electionRTT, time.Duration(heartbeatRTT)*rtt != t.Heartbeat || time.Duration(electionRTT)*rtt != t.ElectionMin
}

// ElectionTicksMin is how many ticks Ticks makes of an election timeout at least, if it has
// so many milliseconds, and up to ElectionTicksGroups groups; with more ElectionTicksLeast.
const (
	ElectionTicksMin    = 20
	ElectionTicksGroups = 128
	ElectionTicksLeast  = 6
)

func electionTicksMin(groups int) uint64 {
	if groups > ElectionTicksGroups {
		return ElectionTicksLeast
	}
	return ElectionTicksMin
}

// wholeMillis rounds d up to milliseconds, at least lowest.
func wholeMillis(d time.Duration, lowest uint64) uint64 {
	return max(uint64(max(d+time.Millisecond-1, 0)/time.Millisecond), lowest)
}
