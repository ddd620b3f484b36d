package server

import (
	"fmt"
	"strings"
	"testing"
)

// TestKeyCount: INFO tells how many keys there were when they were counted last,
// and has them counted again.
func TestKeyCount(t *testing.T) {
	_, c := liveRedis(t, Config{})
	for i := range 30 {
		c.want(fmt.Sprintf("SET key%d v", i), "+OK|")
	}
	c.want("SET key7 v EX 1000", "+OK|")
	told := func(line string) {
		t.Helper()
		eventually(t, line, func() bool { return strings.Contains(c.do("INFO keyspace"), line) })
	}
	told("db0:keys=30,expires=1,avg_ttl=")
	c.want("FLUSHALL", "+OK|")
	eventually(t, "no keys", func() bool { return !strings.Contains(c.do("INFO"), "db0:") })
}
