package sim

import "time"

// world is the true time, in nanoseconds since the run began. It may be read
// by any goroutine of the bubble.
type world struct{ begun time.Time }

func (w *world) now() int64 { return int64(time.Since(w.begun)) }

// clock is one machine's. It outlives the node's process. It is set between
// passes only.
type clock struct {
	world *world
	rate  float64 // of the steady clock, against true time
	since int64   // true time from which the rate counts
	boot  int64   // steady time then
	wall  int64   // what the wall clock is ahead of the steady one, ms
}

// unixMillis is where wall clocks begin.
const unixMillis = 1_700_000_000_000

// Boot is the steady clock.
func (c *clock) Boot() int64 {
	return c.boot + int64(float64(c.world.now()-c.since)*c.rate)
}

// Monotonic is the steady clock.
func (c *clock) Monotonic() int64 { return c.Boot() }

// NowMillis is the wall clock.
func (c *clock) NowMillis() uint64 {
	return uint64(unixMillis + c.wall + c.Boot()/int64(time.Millisecond))
}

// setRate changes the speed from now on.
func (c *clock) setRate(rate float64) {
	now := c.world.now()
	c.boot, c.since, c.rate = c.Boot(), now, rate
}
