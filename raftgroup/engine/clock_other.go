//go:build !linux

package engine

// Boot returns the monotonic clock, which on macOS stands still while the
// machine is suspended: leases there are not safe across a suspension.
func (c SystemClock) Boot() int64 { return c.Monotonic() }
