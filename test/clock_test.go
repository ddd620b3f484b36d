package test

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/internal/testcluster"
)

// TestClockJump: the wall clock of a lone server is an hour ahead while a row is
// put, and right before and after, also after a restart. The row expires when
// it should: it neither stays for an hour nor goes at once.
func TestClockJump(t *testing.T) {
	t.Parallel()
	c := testcluster.NewCluster(t, testcluster.ClusterConfig{Nodes: 1, Shards: 2})
	n := c.Node(1)
	n.Configure(func(cfg *testcluster.Config) { cfg.Env = append(cfg.Env, "PROATEST_CLOCK_FILE="+clockFile(n)) })
	c.Start()
	db := connectAll(t, c, nil)
	set := func(off time.Duration) {
		t.Helper()
		if err := os.WriteFile(clockFile(n), []byte(off.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		c.AwaitStatus(n, "a clock that is off by "+off.String(), func(s *command.ClusterStatus) bool {
			return len(s.Nodes) == 1 && (s.Nodes[0].ClockOffset > time.Hour.Milliseconds()/2) == (off > 0)
		})
	}
	ctx := context.Background()
	put := func(key string, ttl time.Duration) {
		t.Helper()
		if _, err := db.Put(ctx, []byte(key), []byte("v"), client.WithTTL(ttl)); err != nil {
			t.Fatal(err)
		}
	}
	left := func(key string) time.Duration {
		t.Helper()
		item, err := db.Get(ctx, []byte(key))
		if err != nil {
			t.Fatalf("%s: %v", key, err)
		}
		return item.TTL
	}
	put("before", 30*time.Minute)
	set(time.Hour)
	put("during", 30*time.Minute)
	put("lock", time.Second)
	left("before")
	set(0)
	for _, key := range []string{"before", "during"} {
		if ttl := left(key); ttl > 30*time.Minute {
			t.Errorf("%s: %v to live", key, ttl)
		}
	}
	gone, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		_, err := db.Get(gone, []byte("lock"))
		if errors.Is(err, client.ErrNotFound) {
			break
		}
		if err != nil {
			t.Fatalf("a row that lives for a second is there after a minute: %v", err)
		}
	}
	n.Stop()
	n.Start()
	left("before")
	left("during")
}
