package engine

import "testing"

// threeClocks is a Clock whose parts are set apart, in milliseconds.
type threeClocks struct{ wall, boot, mono int64 }

func (c *threeClocks) NowMillis() uint64 { return uint64(c.wall) }
func (c *threeClocks) Boot() int64       { return c.boot * 1e6 }
func (c *threeClocks) Monotonic() int64  { return c.mono * 1e6 }

// pass lets time go by on all three.
func (c *threeClocks) pass(millis int64) {
	c.wall += millis
	c.boot += millis
	c.mono += millis
}

func TestClusterTime(t *testing.T) {
	c := &threeClocks{wall: 5_000_000, boot: 1000, mono: 300}
	var ct ClusterTime
	ct.Begin(c, 0)
	expect := func(what string, want uint64) {
		t.Helper()
		if got := ct.Now(); got != want {
			t.Fatalf("%s: the time is %d, want %d", what, got, want)
		}
	}
	step := func() { own := OwnClock(c); ct.Step(own, own) }
	expect("at the begin", 5_000_000)
	c.pass(250)
	expect("without a step", 5_000_250)
	step()
	expect("after a step", 5_000_250)

	c.wall += 3_600_000
	expect("the wall clock an hour ahead", 5_000_250)
	c.pass(200)
	step()
	expect("moved by a twentieth of the time", 5_000_460)
	c.wall -= 3_600_000
	c.pass(1000)
	step()
	expect("back where the wall clock is", 5_001_450)

	c.wall, c.boot = c.wall+7000, c.boot+7000
	step()
	expect("after a suspension of 7 s", 5_008_450)

	c.wall -= 60_000
	c.pass(2000)
	step()
	expect("the wall clock a minute behind", 5_010_350)
	if got := ct.Behind.Load(); got != -59_900_000 {
		t.Errorf("%d µs to go, want %d", got, -59_900_000)
	}
}

// TestClusterTimeExtremes: no wall clock, however wrong, makes the time leave
// its range.
func TestClusterTimeExtremes(t *testing.T) {
	for _, wall := range []int64{0, 1, -1 /* as unsigned the largest */, 1 << 62} {
		c := &threeClocks{wall: wall, boot: 1000, mono: 300}
		var ct ClusterTime
		ct.Begin(c, 0)
		before := ct.Now()
		for range 100 {
			c.boot, c.mono = c.boot+1000, c.mono+1000
			own := OwnClock(c)
			ct.Step(own, own)
		}
		if after := ct.Now(); after < before || after-before > 200_000 || after > 1<<62 {
			t.Errorf("wall clock %d: from %d to %d within 100 s", wall, before, after)
		}
	}
}
