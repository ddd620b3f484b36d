package server

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestKeyCount: INFO tells how many keys there were when they were counted last,
// and has them counted again.
func TestKeyCount(t *testing.T) {
	s, c := liveRedis(t, Config{})
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

	// No more than a small part of the time goes into it.
	s.census.mu.Lock()
	s.census.next = time.Now().Add(time.Hour)
	s.census.mu.Unlock()
	c.want("SET a v", "+OK|")
	if s.keyCount(); s.keyCount().keys != 0 {
		t.Error("it was counted again too soon")
	}
}

// A census is the same however few rows a scan looks at; shards without a replica
// here count as the others do, and with resp.redirect a node counts what it is the
// master of.
func TestCountKeys(t *testing.T) {
	for _, redirect := range []bool{false, true} {
		fc := newFakeCluster(t, Config{RedisRedirect: redirect}, 3, 6, 1)
		for shard := range 6 {
			for i := range 10 {
				fc.set(fc.key(shard, i), "v")
			}
		}
		s := fc.nodes[1].srv
		for _, rows := range []int{1, 3, 10, 11} {
			if n, err := s.countShard(context.Background(), 3, rows); err != nil || n.keys != 10 || n.expires != 0 {
				t.Errorf("%d rows at a time: %+v, %v", rows, n, err)
			}
		}
		want := int64(60)
		if redirect {
			want = 20
		}
		if n, ok := s.countKeys(context.Background()); !ok || n.keys != want {
			t.Errorf("redirect %v: %+v, %v", redirect, n, ok)
		}
		ended, end := context.WithCancel(context.Background())
		end()
		if n, ok := s.countKeys(ended); ok {
			t.Errorf("counted %+v when the server had stopped", n)
		}
	}
}
