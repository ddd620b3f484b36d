package main

import (
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/proa-kv/proa/raftgroup/engine"
)

// envClockFile names a file that holds by how much the wall clock is wrong,
// such as -1h. It is read again and again, so that tests can set the clock of
// one server of several on a machine while it runs. It is for tests only and
// no setting: nothing documents it to users.
const envClockFile = "PROATEST_CLOCK_FILE"

// clockFileEvery is how soon a change of that file is noticed.
const clockFileEvery = 10 * time.Millisecond

// clock returns the node's clock: the machine's, unless a test sets it wrong.
func clock(log *slog.Logger) engine.Clock {
	path := os.Getenv(envClockFile)
	if path == "" {
		return engine.SystemClock{}
	}
	log.Warn("the wall clock is set wrong on purpose, for a test", "file", path)
	c := new(wrongClock)
	c.read(path)
	go func() {
		for range time.Tick(clockFileEvery) {
			c.read(path)
		}
	}()
	return c
}

// wrongClock is the machine's clock, the wall clock being off.
type wrongClock struct {
	engine.SystemClock
	off atomic.Int64 // milliseconds
}

// NowMillis returns the Unix time in milliseconds, wrong by what the file says.
func (c *wrongClock) NowMillis() uint64 {
	return uint64(int64(c.SystemClock.NowMillis()) + c.off.Load())
}

// read takes over what the file says; where it says nothing, or cannot be read
// because it is being replaced, all stays as it was.
func (c *wrongClock) read(path string) {
	b, err := os.ReadFile(path)
	if err != nil {
		return
	}
	if d, err := time.ParseDuration(strings.TrimSpace(string(b))); err == nil {
		c.off.Store(d.Milliseconds())
	}
}
