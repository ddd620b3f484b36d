package engine

import (
	"testing"
	"time"
)

func TestTicks(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		heartbeat, election time.Duration
		rtt                 time.Duration
		heartbeats          uint64
		elections           uint64
		adapted             bool
	}{
		{150 * ms, 300 * ms, 15 * ms, 9, 20, true}, // the defaults
		{140 * ms, 300 * ms, 10 * ms, 14, 30, false},
		{100 * ms, 300 * ms, 10 * ms, 10, 30, false},
		{100 * ms, time.Second, 50 * ms, 2, 20, false},
		{10 * ms, 20 * ms, ms, 9, 20, true}, // the shortest of the configuration
		{10 * ms, 30 * ms, ms, 10, 30, false},
		{10 * time.Second, time.Minute, 2500 * ms, 4, 24, false},
		{10 * time.Second, 20 * time.Second, time.Second, 9, 20, true},
		{10 * ms, time.Minute, 10 * ms, 1, 6000, false},
		{7 * ms, 101 * ms, ms, 7, 101, false},
		{200 * ms, 300 * ms, 10 * ms, 14, 30, true}, // the configuration does not allow it
		{time.Second, 40 * ms, 2 * ms, 9, 20, true},
		{5 * ms, 10 * ms, ms, 4, 10, true},
		{2500 * time.Microsecond, 30 * ms, ms, 3, 30, true},
		{10 * ms, 30*ms + 1, ms, 10, 31, true},
		{ms, 2 * ms, ms, 1, 3, true},
		{0, 0, ms, 1, 3, true},
	} {
		rtt, heartbeats, elections, adapted := Ticks(Timing{Heartbeat: c.heartbeat, ElectionMin: c.election}, ElectionTicksGroups)
		if rtt != c.rtt || heartbeats != c.heartbeats || elections != c.elections || adapted != c.adapted {
			t.Errorf("heartbeats every %v, elections after %v: %d and %d of %v, adapted %v; want %d and %d of %v, %v",
				c.heartbeat, c.election, heartbeats, elections, rtt, adapted, c.heartbeats, c.elections, c.rtt, c.adapted)
		}
	}
}

// TestTicksOfManyGroups: the defaults come to fewer ticks.
func TestTicksOfManyGroups(t *testing.T) {
	const ms = time.Millisecond
	rtt, heartbeats, elections, adapted := Ticks(Timing{Heartbeat: 150 * ms, ElectionMin: 300 * ms}, 1025)
	if rtt != 50*ms || heartbeats != 2 || elections != 6 || !adapted {
		t.Errorf("%d and %d of %v, adapted %v", heartbeats, elections, rtt, adapted)
	}
}

// TestTicksHold compares with dragonboat's rule, and with what was asked, for all that can
// be configured, in steps.
func TestTicksHold(t *testing.T) {
	const step = 10 * time.Millisecond
	for heartbeat := step; heartbeat <= 2*time.Second; heartbeat += step {
		for election := 2 * heartbeat; election <= 5*time.Second; election += step {
			fine, _, _, _ := Ticks(Timing{Heartbeat: heartbeat, ElectionMin: election}, ElectionTicksGroups)
			rtt, heartbeats, elections, _ := Ticks(Timing{Heartbeat: heartbeat, ElectionMin: election}, ElectionTicksGroups+1)
			if heartbeats == 0 || elections <= 2*heartbeats || elections < ElectionTicksLeast || rtt < fine || time.Duration(elections)*rtt != election {
				t.Fatalf("with many groups, heartbeats every %v, elections after %v: %d and %d of %v", heartbeat, election, heartbeats, elections, rtt)
			}
			rtt, heartbeats, elections, adapted := Ticks(Timing{Heartbeat: heartbeat, ElectionMin: election}, 1)
			if heartbeats == 0 || elections <= 2*heartbeats || elections < ElectionTicksMin || rtt%time.Millisecond != 0 {
				t.Fatalf("heartbeats every %v, elections after %v: %d and %d of %v", heartbeat, election, heartbeats, elections, rtt)
			}
			kept := time.Duration(heartbeats)*rtt == heartbeat && time.Duration(elections)*rtt == election
			if kept == adapted || kept != (election > 2*heartbeat) {
				t.Fatalf("heartbeats every %v, elections after %v: %d and %d of %v, adapted %v", heartbeat, election, heartbeats, elections, rtt, adapted)
			}
		}
	}
}
