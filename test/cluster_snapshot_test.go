package test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/internal/testcluster"
)

// cutLogs are settings under which a server that is down for a moment finds the
// log cut when it comes back, and needs a snapshot, which takes some seconds.
var cutLogs = []string{
	"raft.log_segment_size=1MiB", "raft.log_size_max=4MiB", "raft.snapshot_interval_logs=10", "storage.memtable_size=1MiB",
	"raft.snapshot_interval_time=1s", "cluster.snapshot_rate=4MiB",
}

// fill writes n rows of 64 KiB that no compression makes much smaller.
func fill(t *testing.T, c *client.Client, prefix string, n int) {
	t.Helper()
	value := make([]byte, 64<<10)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range value {
		value[i] = byte(rng.Uint32())
	}
	for i := range n {
		copy(value, fmt.Appendf(nil, "%s%04d", prefix, i))
		if _, err := c.Put(context.Background(), fmt.Appendf(nil, "%s%04d", prefix, i), value); err != nil {
			t.Fatal(err)
		}
	}
}

// expectFilled looks that what fill wrote is there, as one server has it.
func expectFilled(t *testing.T, n *testcluster.Node, prefix string, rows int) {
	t.Helper()
	c := connect(t, n, func(cfg *client.Config) { cfg.ForwardOnly = true })
	for i := range rows {
		key := fmt.Appendf(nil, "%s%04d", prefix, i)
		item, err := c.Get(context.Background(), key, client.WithConsistency(client.Stale))
		if err != nil || len(item.Value) != 64<<10 || !bytes.HasPrefix(item.Value, key) {
			t.Errorf("%s on the server that got a snapshot: %d bytes, %v", key, len(item.Value), err)
		}
	}
}

// logOf returns the first and the last entry of shard 0 in a server's log.
func logOf(t *testing.T, n *testcluster.Node) (first, last uint64) {
	t.Helper()
	raw, err := connect(t, n, nil).Status(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	var s struct {
		Node struct {
			Shards []struct {
				First uint64 `json:"log_first"`
				Last  uint64 `json:"log_last"`
			} `json:"shards"`
		} `json:"node"`
	}
	if err := json.Unmarshal(raw, &s); err != nil || len(s.Node.Shards) == 0 {
		t.Fatalf("%v in %s", err, raw)
	}
	return s.Node.Shards[0].First, s.Node.Shards[0].Last
}

// marks are places in the logs of servers.
type marks map[*testcluster.Node]int

func mark(nodes ...*testcluster.Node) marks {
	m := marks{}
	for _, n := range nodes {
		m[n] = len(n.Log())
	}
	return m
}

// awaitLog returns the server that has written a line with all these words behind
// its mark, once one has.
func awaitLog(t *testing.T, at marks, words ...string) (writer *testcluster.Node) {
	t.Helper()
	eventually(t, fmt.Sprintf("a line with %q in a server's log", words), func() error {
		for n, skip := range at {
		lines:
			for line := range strings.Lines(n.Log()[skip:]) {
				for _, w := range words {
					if !strings.Contains(line, w) {
						continue lines
					}
				}
				writer = n
				return nil
			}
		}
		return errors.New("not yet")
	})
	return writer
}

// TestClusterSnapshots lets followers fall behind the log. They get a snapshot,
// whatever breaks off its transfer.
func TestClusterSnapshots(t *testing.T) {
	t.Parallel()
	c := testcluster.StartCluster(t, testcluster.ClusterConfig{Shards: 1, Settings: append([]string{"cluster.balance_leaders=false"}, cutLogs...)})
	cl := connectAll(t, c, func(cfg *client.Config) { cfg.ExactlyOnce = true })
	fill(t, cl, "before/", 20)
	leader := c.AwaitLeaders()[0]
	behind := c.Node(c.ID(leader)%3 + 1)
	other := c.Node(c.ID(behind)%3 + 1)
	// On a busy machine either of the two may lead when behind is back.
	fall := func(prefix string, rows int) (before marks) {
		t.Helper()
		_, has := logOf(t, behind)
		behind.Kill()
		fill(t, cl, prefix, rows)
		for _, n := range []*testcluster.Node{leader, other} {
			eventually(t, "the log to be cut", func() error {
				if first, _ := logOf(t, n); first <= has {
					return fmt.Errorf("it begins at %d, the server that is down has it up to %d", first, has)
				}
				return nil
			})
		}
		before = mark(leader, other)
		behind.Start()
		return before
	}

	// An undisturbed transfer.
	at := fall("a/", 60)
	awaitLog(t, at, "snapshot delivered")
	awaitLog(t, marks{behind: 0}, "snapshot installed")
	awaitSettled(t, c)
	expectFilled(t, behind, "a/", 60)
	if testing.Short() {
		checkEqual(t, c)
		return
	}

	// The receiver is killed in the middle of it, twice, and killed again as
	// soon as it is installed.
	at = fall("b/", 200)
	for range 2 {
		awaitLog(t, at, "sending a snapshot")
		at = mark(leader, other)
		behind.Restart()
	}
	awaitLog(t, at, "snapshot delivered")
	behind.Restart()
	awaitSettled(t, c)
	expectFilled(t, behind, "b/", 200)
	checkEqual(t, c)

	// The sender is killed in the middle of it.
	at = fall("c/", 100)
	sender := awaitLog(t, at, "sending a snapshot")
	sender.Kill()
	awaitLedWithout(t, c, sender)
	fill(t, cl, "d/", 10)
	sender.Start()
	awaitSettled(t, c)
	for _, n := range []*testcluster.Node{behind, leader, other} {
		expectFilled(t, n, "c/", 100)
		expectFilled(t, n, "d/", 10)
	}
	checkEqual(t, c)
	for _, n := range c.Nodes() {
		n.Stop()
		n.Verify()
	}
}
