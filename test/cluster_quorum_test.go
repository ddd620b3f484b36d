package test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/internal/testcluster"
)

// promptly is how long an answer may take that nothing has to be waited for,
// on a busy machine.
const promptly = 3 * time.Second

// impatient returns a client of one server that shows each answer as it is.
func impatient(t *testing.T, n *testcluster.Node) *client.Client {
	t.Helper()
	return connect(t, n, func(cfg *client.Config) {
		cfg.RetryMax, cfg.ForwardOnly, cfg.RequestTimeout = -1, true, promptly
	})
}

// expectNoQuorum waits until n knows that it has no majority, and checks that
// it then says so at once, to writes and linearizable reads, and goes on to
// answer stale ones.
func expectNoQuorum(t *testing.T, n *testcluster.Node, key []byte, value string) {
	t.Helper()
	ctx := context.Background()
	c := impatient(t, n)
	ask := map[string]func() error{
		"PUT":  func() error { _, err := c.Put(ctx, []byte("undecided"), []byte("v")); return err },
		"INCR": func() error { _, err := c.Incr(ctx, []byte("counter"), 1); return err },
		"GET":  func() error { _, err := c.Get(ctx, key); return err },
		"MGET": func() error {
			_, err := c.MGet(ctx, [][]byte{key})
			return err
		},
		"SCAN": func() error {
			for _, err := range c.Scan(ctx) {
				return err
			}
			return nil
		},
	}
	for name, call := range ask {
		write := name == "PUT" || name == "INCR"
		told := 0 // in a row: once it knows it answers so again and again, each time within promptly
		eventually(t, name+" to be answered with NO_QUORUM", func() error {
			err := call()
			switch {
			case errors.Is(err, client.ErrNoQuorum):
				if !client.SafeToRetry(err) {
					t.Errorf("%s without a majority may be done: %v", name, err)
				}
				if told++; told < 3 {
					return fmt.Errorf("%d times", told)
				}
				return nil
			case err == nil && (write || told > 0):
				t.Fatalf("%s was carried out without a majority", name)
			case err == nil:
				return errors.New("answered, as a lease allows for a moment")
			}
			told = 0
			return err // of what was on its way when the majority was lost
		})
	}
	eventually(t, "a stale GET without a majority", func() error {
		item, err := c.Get(ctx, key, client.WithConsistency(client.Stale))
		if err == nil && string(item.Value) != value {
			t.Fatalf("a stale GET without a majority: %q, want %q", item.Value, value)
		}
		return err
	})
}

// TestClusterLosesMajority takes two of three servers away, by a crash and by
// the network, and gives them back.
func TestClusterLosesMajority(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	c := testcluster.StartCluster(t, testcluster.ClusterConfig{Shards: 2, Proxied: true})
	cl := connectAll(t, c, nil)
	key := []byte("k")
	write := func(value string) {
		t.Helper()
		if _, err := cl.Put(ctx, key, []byte(value)); err != nil {
			t.Fatal(err)
		}
		// A stale read at the server that is left must find it.
		for _, n := range c.Nodes() {
			eventually(t, "the row on every server", func() error {
				item, err := impatient(t, n).Get(ctx, key, client.WithConsistency(client.Stale))
				if err == nil && string(item.Value) != value {
					err = errors.New("an older row")
				}
				return err
			})
		}
	}
	write("one")
	left := c.Node(3)
	c.Node(1).Kill()
	c.Node(2).Kill()
	expectNoQuorum(t, left, key, "one")
	c.Node(1).Start() // a majority again; nothing else is done to bring service back
	write2 := func(value string) {
		t.Helper()
		if _, err := cl.Put(ctx, key, []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
	write2("two")
	c.Start()
	write("two")

	leader := c.AwaitLeaders().Most() // the one that has to find out that it leads no more
	c.Isolate(leader)
	expectNoQuorum(t, leader, key, "two")
	write2("three")
	c.Heal()
	write("four")
	checkEqual(t, c)
}

// TestClusterRecoversUnsafe loses two of three servers for good.
func TestClusterRecoversUnsafe(t *testing.T) {
	if testing.Short() {
		t.Skip("takes many seconds, which -short leaves out")
	}
	t.Parallel()
	c := testcluster.StartCluster(t, testcluster.ClusterConfig{Shards: 3, Settings: steady})
	tr := startTraffic(t, []*client.Client{connectAll(t, c, nil)}, 4, 2*time.Millisecond)
	tr.progress(200)
	tr.end()
	awaitSettled(t, c)
	for _, n := range c.Nodes() {
		n.Kill()
	}
	left := c.Node(3)
	id := clusterID(t, left.Dir())
	recoverShards := func(consent string) testcluster.Result {
		return testcluster.Run(t, testcluster.Command{Args: []string{
			"shard", "recover", "--unsafe", "--data", left.Dir(), "--yes-i-lose-acknowledged-writes", consent}})
	}
	if r := recoverShards("0123456789abcdef"); r.Status != 2 || !strings.Contains(r.Stderr, "nothing was changed") {
		t.Errorf("recovery with another cluster's id exited with status %d:\n%s", r.Status, r.Stderr)
	}
	if r := recoverShards(id); r.Status != 0 {
		t.Fatalf("recovery exited with status %d:\n%s%s", r.Status, r.Stdout, r.Stderr)
	}
	// One of the lost comes back before anybody has removed it.
	c.Node(1).Spawn()
	left.Start()
	c.AwaitStatus(left, "leaders of all shards on the server that is left", func(s *command.ClusterStatus) bool {
		for _, sh := range s.Shards {
			if sh.Leader != 3 {
				return false
			}
		}
		return true
	})
	tr.check(connect(t, left, nil))
	eventually(t, "the lost server to be refused", func() error {
		if log := c.Node(1).Log(); !strings.Contains(log, "node 1 was left out when the cluster was recovered") {
			return errors.New("not yet")
		}
		return nil
	})
	c.AwaitStatus(left, "the lost servers to be removed", func(s *command.ClusterStatus) bool {
		return len(s.Nodes) == 1 && s.Nodes[0].ID == 3
	})
	c.Node(1).Kill()

	// The cluster becomes whole again, and those that were lost stay out.
	again := startTraffic(t, []*client.Client{connect(t, left, nil)}, 4, 2*time.Millisecond)
	c.Join()
	c.Join()
	nodes := c.Nodes()[2:]
	awaitReplicas(t, c, 3, nodes...)
	before := len(c.Node(1).Log())
	c.Node(1).Spawn()
	eventually(t, "the lost server to be refused", func() error {
		if !strings.Contains(c.Node(1).Log()[before:], "node 1 was left out when the cluster was recovered") {
			return errors.New("not yet")
		}
		return nil
	})
	c.Node(1).Kill()
	again.check(connect(t, nodes[1], nil))
	again.noErrors()
	checkEqual(t, c)
}
