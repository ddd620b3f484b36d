//go:build !linux

package raftgroup

import "time"

var started = time.Now()

// Boot returns the monotonic clock, which on macOS stands still while the
// machine is suspended: leases there are not safe across a suspension.
func (SystemClock) Boot() int64 { return int64(time.Since(started)) }
