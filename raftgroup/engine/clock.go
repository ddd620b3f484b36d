package engine

import "time"

// Clock is the time a node goes by. It is a parameter so that a simulator can
// run a node in virtual time.
type Clock interface {
	// NowMillis is the wall clock: Unix time in milliseconds. It may be set to
	// anything at any moment; see ClusterTime for what becomes of it.
	NowMillis() uint64
	// Boot is time in nanoseconds since any fixed moment, on a clock that is
	// never set and runs on while the machine is suspended. Leases are
	// measured by it.
	Boot() int64
	// Monotonic is time in nanoseconds since any fixed moment, on a clock that
	// is never set but may stand still while the machine is suspended. It is
	// cheaper than Boot.
	Monotonic() int64
}

// SystemClock is the machine's clock.
type SystemClock struct{}

// NowMillis returns the Unix time in milliseconds.
func (SystemClock) NowMillis() uint64 { return uint64(max(time.Now().UnixMilli(), 0)) }

var started = time.Now()

// Monotonic returns the monotonic clock of Go's package time.
func (SystemClock) Monotonic() int64 { return int64(time.Since(started)) }
