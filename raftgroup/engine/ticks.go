package engine

import "time"

// Ticks returns t in whole ticks of rtt, as dragonboat counts it: the interval of heartbeats,
// and the shortest election timeout. dragonboat takes whole milliseconds as rtt, and demands
// that the election timeout be more than twice the interval of heartbeats
// (config.Config.Validate; below ten times it logs a warning, which is not for operators:
// their default is twice).
//
// What need not be adapted is exact. rtt is the longest tick that divides both and of which
// the election timeout has at least ElectionTicksMin, so that timeouts drawn at random
// differ. Where adapted is true t is not kept: parts of milliseconds were rounded up, or the
// interval of heartbeats is the longest that the election timeout allows. That timeout is
// never changed otherwise, because it says how long a shard may be without a leader.
func Ticks(t Timing) (rtt time.Duration, heartbeatRTT, electionRTT uint64, adapted bool) {
	heartbeat, election := wholeMillis(t.Heartbeat, 1), wholeMillis(t.ElectionMin, 3)
	tick := max(election/ElectionTicksMin, 1)
	for heartbeat%tick != 0 || election%tick != 0 {
		tick--
	}
	heartbeatRTT, electionRTT = heartbeat/tick, election/tick
	heartbeatRTT = min(heartbeatRTT, (electionRTT-1)/2)
	rtt = time.Duration(tick) * time.Millisecond
	return rtt, heartbeatRTT, electionRTT, time.Duration(heartbeatRTT)*rtt != t.Heartbeat || time.Duration(electionRTT)*rtt != t.ElectionMin
}

// ElectionTicksMin is how many ticks Ticks makes of an election timeout at least, if it has
// so many milliseconds.
const ElectionTicksMin = 20

// wholeMillis rounds d up to milliseconds, at least lowest.
func wholeMillis(d time.Duration, lowest uint64) uint64 {
	return max(uint64(max(d+time.Millisecond-1, 0)/time.Millisecond), lowest)
}
