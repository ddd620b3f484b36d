package raftgroup

import "time"

// Clock is the time a node goes by. It is a parameter so that a simulator can
// run a node in virtual time.
type Clock interface {
	// NowMillis is the wall clock: Unix time in milliseconds. Expiry is
	// decided by it.
	NowMillis() uint64
	// Boot is time in nanoseconds since any fixed moment, on a clock that is
	// never set and runs on while the machine is suspended. Leases are
	// measured by it.
	Boot() int64
}

// SystemClock is the machine's clock.
type SystemClock struct{}

// NowMillis returns the Unix time in milliseconds.
func (SystemClock) NowMillis() uint64 { return uint64(time.Now().UnixMilli()) }
