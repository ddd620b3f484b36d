package test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/internal/ledger"
	"github.com/proa-kv/proa/internal/testcluster"
)

const (
	// electionTimeoutMax is the server's default. Faults last about as long:
	// shorter ones go by unnoticed, longer ones are noticed by all.
	electionTimeoutMax = 600 * time.Millisecond

	// settleTimeout bounds how long a cluster may take to get where a test
	// waits for it to be. It is far above what that takes.
	settleTimeout = 90 * time.Second

	pollInterval = 20 * time.Millisecond
)

// steady are settings under which no leadership changes because a machine is busy, or
// its disk for a moment slow: then the outcome of a write may be unknown to a client
// without a session.
var steady = []string{"raft.election_timeout_min=3s", "raft.election_timeout_max=6s", "raft.replication_timeout=10s", "cluster.slow_disk_after=0"}

// eventually tries look until it succeeds, and fails the test with its last
// error.
func eventually(t *testing.T, what string, look func() error) {
	t.Helper()
	poll := time.NewTicker(pollInterval)
	defer poll.Stop()
	for deadline := time.Now().Add(settleTimeout); ; <-poll.C {
		err := look()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waiting for %s, for %v in vain: %v", what, settleTimeout, err)
		}
	}
}

// connectAll returns a client that knows all servers of the cluster and
// reconnects fast. change may be nil.
func connectAll(t *testing.T, c *testcluster.Cluster, change func(*client.Config)) *client.Client {
	t.Helper()
	return connect(t, c.Node(1), func(cfg *client.Config) {
		cfg.Endpoints = c.Endpoints()
		if change != nil {
			change(cfg)
		}
	})
}

// cli runs the command line against the cluster and returns how it ended.
func cli(t *testing.T, c *testcluster.Cluster, args ...string) testcluster.Result {
	t.Helper()
	return testcluster.Run(t, testcluster.Command{Args: append(args, "-e", strings.Join(c.Endpoints(), ","))})
}

// mustCLI is cli for what must succeed.
func mustCLI(t *testing.T, c *testcluster.Cluster, args ...string) string {
	t.Helper()
	r := cli(t, c, args...)
	if r.Status != 0 {
		t.Fatalf("proa %s exited with status %d:\n%s%s", strings.Join(args, " "), r.Status, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

// awaitCLI is mustCLI for what may be refused for a moment, as is a leadership for a
// node whose disk was slow, and can be repeated.
func awaitCLI(t *testing.T, c *testcluster.Cluster, args ...string) {
	t.Helper()
	eventually(t, "proa "+strings.Join(args, " ")+" to succeed", func() error {
		if r := cli(t, c, args...); r.Status != 0 {
			return fmt.Errorf("exit status %d:\n%s%s", r.Status, r.Stdout, r.Stderr)
		}
		return nil
	})
}

// checkEqual proves that all replicas of all shards are equal. All servers must
// run; those that were down may still be catching up.
func checkEqual(t *testing.T, c *testcluster.Cluster) {
	t.Helper()
	c.AwaitLeaders()
	eventually(t, "equal checksums of all replicas", func() error {
		r := cli(t, c, "shard", "checksum", "--all")
		switch r.Status {
		case 0:
			return nil
		case 1:
			t.Fatalf("replicas differ:\n%s%s", r.Stdout, r.Stderr)
		}
		return fmt.Errorf("status %d:\n%s%s", r.Status, r.Stdout, r.Stderr)
	})
}

// status returns the cluster as a server sees it.
func status(n *testcluster.Node) (*command.ClusterStatus, error) {
	return n.Status(context.Background())
}

// awaitLedWithout returns when all shards, as the servers but these see it, are
// led by others than these.
func awaitLedWithout(t *testing.T, c *testcluster.Cluster, without ...*testcluster.Node) {
	t.Helper()
	for _, n := range c.Nodes() {
		if slices.Contains(without, n) || !n.Running() {
			continue
		}
		c.AwaitStatus(n, "other leaders", func(s *command.ClusterStatus) bool {
			return !slices.ContainsFunc(s.Shards, func(sh command.ShardInfo) bool {
				return sh.Leader == 0 || slices.Contains(without, c.Node(int(sh.Leader)))
			})
		})
	}
}

// awaitSettled returns when, as each of these servers sees it, every shard has
// its replicas where they shall be, all of them on nodes that have been heard of,
// and have come as far as any was at the first look. Without servers it asks all.
func awaitSettled(t *testing.T, c *testcluster.Cluster, nodes ...*testcluster.Node) {
	t.Helper()
	if len(nodes) == 0 {
		nodes = c.Nodes()
	}
	settled := settling()
	for _, n := range nodes {
		c.AwaitStatus(n, "shards to settle", settled)
	}
}

// settling returns a condition that is met once every shard has its replicas
// where they shall be, all of them on nodes that have been heard of, and have come
// as far as any was at the first call. It may be asked about several servers' views.
func settling() func(*command.ClusterStatus) bool {
	first := map[int]uint64{}
	return func(s *command.ClusterStatus) bool {
		for _, sh := range s.Shards {
			if _, seen := first[sh.Shard]; !seen {
				first[sh.Shard] = sh.Commit
			}
			if sh.Moving || sh.Leader == 0 || len(sh.Replicas) != len(sh.Desired) {
				return false
			}
			for _, r := range sh.Replicas {
				if r.Stale || r.Applied < first[sh.Shard] || r.Role == "learner" && sh.Shard != command.MetaShard && len(sh.Desired) > 2 {
					return false
				}
			}
		}
		return len(s.Shards) > 0
	}
}

// traffic writes all the time, and remembers for each key what was acknowledged.
// Each key has one writer.
type traffic struct {
	t       *testing.T
	stop    chan struct{}
	wg      sync.WaitGroup
	records []*ledger.Record
	count   atomic.Int64 // writes acknowledged
	mu      sync.Mutex
	errors  []error // of writes and reads that a client saw fail
}

// startTraffic starts the given number of writers for each client. They wait
// for pace between two writes.
func startTraffic(t *testing.T, clients []*client.Client, writers int, pace time.Duration) *traffic {
	t.Helper()
	n := len(clients) * writers
	l := &traffic{t: t, stop: make(chan struct{})}
	for i := range n {
		r := &ledger.Record{Key: trafficKey(i)}
		l.records = append(l.records, r)
		l.wg.Go(func() { l.write(clients[i%len(clients)], r, pace) })
	}
	t.Cleanup(l.end)
	return l
}

func trafficKey(i int) []byte { return fmt.Appendf(nil, "traffic/%d", i) }

func (l *traffic) write(c *client.Client, r *ledger.Record, pace time.Duration) {
	ctx, value := context.Background(), make([]byte, ledger.NumberBytes)
	for {
		select {
		case <-l.stop:
			return
		case <-time.After(pace):
		}
		r.Next(value)
		if _, err := c.Put(ctx, r.Key, value); err != nil {
			l.failed(fmt.Errorf("PUT %s: %w", r.Key, err))
			continue
		}
		r.Acknowledge()
		l.count.Add(1)
		item, err := c.Get(ctx, r.Key)
		if err != nil {
			l.failed(fmt.Errorf("GET %s: %w", r.Key, err))
		} else if !bytes.Equal(item.Value, value) {
			l.t.Errorf("%s is %s right after the write of %d was acknowledged", r.Key, item.Value, r.Acked)
		}
	}
}

func (l *traffic) failed(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.errors = append(l.errors, err)
}

// end stops all writers.
func (l *traffic) end() {
	select {
	case <-l.stop:
	default:
		close(l.stop)
	}
	l.wg.Wait()
}

// progress returns when n more writes have been acknowledged.
func (l *traffic) progress(n int64) {
	l.t.Helper()
	begin := l.count.Load()
	eventually(l.t, fmt.Sprintf("%d more writes", n), func() error {
		if got := l.count.Load() - begin; got < n {
			return fmt.Errorf("%d so far", got)
		}
		return nil
	})
}

// check ends the load and looks, through c, whether everything acknowledged is
// there.
func (l *traffic) check(c *client.Client) {
	l.t.Helper()
	l.end()
	for _, r := range l.records {
		item, err := c.Get(context.Background(), r.Key)
		if found := err == nil; !found && !errors.Is(err, client.ErrNotFound) || !r.Allows(item.Value, found) {
			l.t.Errorf("%s is %q, %v; acknowledged is %d, written %d", r.Key, item.Value, err, r.Acked, r.Tried)
		}
	}
	l.t.Logf("%d writes acknowledged, %d calls failed", l.count.Load(), len(l.errors))
}

// noErrors fails the test if a call of the load has failed.
func (l *traffic) noErrors() {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, err := range l.errors {
		if i == 10 {
			l.t.Errorf("and %d more", len(l.errors)-i)
			break
		}
		l.t.Error(err)
	}
}
