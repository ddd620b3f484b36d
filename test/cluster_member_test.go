package test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/internal/testcluster"
)

// TestClusterRollingRestart stops every server in order, one after the other,
// while clients with the default settings work. None of them may see an error.
func TestClusterRollingRestart(t *testing.T) {
	t.Parallel()
	c := testcluster.StartCluster(t, testcluster.ClusterConfig{Shards: 4, Settings: steady})
	tr := startTraffic(t, defaultClients(t, c, 3), 6, 2*time.Millisecond)
	rounds := 2
	if testing.Short() {
		rounds = 1
	}
	for range rounds {
		for _, n := range c.Nodes() {
			tr.progress(100)
			n.Stop()
			tr.progress(100)
			n.Start()
			awaitSettled(t, c)
		}
	}
	tr.check(connectAll(t, c, nil))
	tr.noErrors()
	checkEqual(t, c)
}

// defaultClients returns clients as a program would make them that sets nothing
// but the endpoints.
func defaultClients(t *testing.T, c *testcluster.Cluster, n int) []*client.Client {
	t.Helper()
	clients := make([]*client.Client, n)
	for i := range clients {
		var err error
		if clients[i], err = client.New(context.Background(), client.Config{Endpoints: c.Endpoints()}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = clients[i].Close() })
	}
	return clients
}

// TestClusterTransfers moves leaderships about while clients with the default
// settings work. None of them may see an error.
func TestClusterTransfers(t *testing.T) {
	t.Parallel()
	c := testcluster.StartCluster(t, testcluster.ClusterConfig{Shards: 2, Settings: append(slices.Clone(steady), "cluster.balance_leaders=false")})
	awaitSettled(t, c) // who has not been heard of is given no leadership
	tr := startTraffic(t, defaultClients(t, c, 2), 6, 2*time.Millisecond)
	rounds := 6
	if testing.Short() {
		rounds = 2
	}
	for i := range rounds {
		for shard := range 2 {
			awaitCLI(t, c, "shard", "transfer", strconv.Itoa(shard), "--to", strconv.Itoa((i+shard)%3+1))
		}
		tr.progress(20)
	}
	awaitCLI(t, c, "shard", "transfer", "meta", "--to", "2")
	awaitCLI(t, c, "shard", "transfer", "meta", "--to", "1")
	tr.check(connectAll(t, c, nil))
	tr.noErrors()
	checkEqual(t, c)
}

// TestClusterGrowsAndShrinks takes a cluster from one server to five and back
// to three other ones, under load.
func TestClusterGrowsAndShrinks(t *testing.T) {
	if testing.Short() {
		t.Skip("takes many seconds, which -short leaves out")
	}
	t.Parallel()
	c := testcluster.StartCluster(t, testcluster.ClusterConfig{Nodes: 1, Shards: 2})
	tr := startTraffic(t, []*client.Client{connectAll(t, c, func(cfg *client.Config) { cfg.ExactlyOnce = true })}, 8, 2*time.Millisecond)
	tr.progress(100)
	for range 2 {
		c.Join()
	}
	awaitReplicas(t, c, 3, c.Nodes()...)
	tr.progress(100)
	// A crash in the middle of a larger change.
	c.Join()
	c.Node(2).Restart()
	c.Join()
	awaitReplicas(t, c, 3, c.Nodes()...)
	tr.progress(100)

	// The founder goes, and one of those that came last, which is down.
	mustCLI(t, c, "member", "remove", "1")
	const removed = "was removed from the cluster; erase its data directory"
	if status := c.Node(1).AwaitExit(); status != 3 || !strings.Contains(c.Node(1).Log(), removed) {
		t.Errorf("the removed server exited with status %d:\n%s", status, c.Node(1).Log())
	}
	tr.progress(100)
	c.Node(5).Kill()
	mustCLI(t, c, "member", "remove", "5")
	left := c.Nodes()[1:4]
	awaitReplicas(t, c, 3, left...)
	tr.progress(100)
	for _, n := range left {
		n.Restart()
		awaitSettled(t, c, left...)
	}
	tr.check(connect(t, c.Node(2), nil))
	tr.noErrors()
	checkEqual(t, c)

	// Who is gone stays gone.
	for _, id := range []int{1, 5, 5} {
		awaitRefused(t, c.Node(id), removed)
	}
}

// TestClusterJoinerDies lets a second server join a lone one and die: nothing may
// wait for it.
func TestClusterJoinerDies(t *testing.T) {
	t.Parallel()
	c := testcluster.StartCluster(t, testcluster.ClusterConfig{Nodes: 1, Settings: steady})
	tr := startTraffic(t, []*client.Client{connectAll(t, c, nil)}, 4, 5*time.Millisecond)
	tr.progress(20)
	joiner := c.Join()
	awaitReplicas(t, c, 2, c.Nodes()...)
	joiner.Kill()
	tr.progress(200)
	tr.check(connect(t, c.Node(1), nil))
	tr.noErrors()
	joiner.Start()
	awaitReplicas(t, c, 2, c.Nodes()...)
	checkEqual(t, c)
}

// awaitReplicas returns when every shard has its replicas, that many of each.
func awaitReplicas(t *testing.T, c *testcluster.Cluster, replicas int, nodes ...*testcluster.Node) {
	t.Helper()
	settled := settling()
	for _, n := range nodes {
		c.AwaitStatus(n, fmt.Sprintf("%d replicas of each shard", replicas), func(s *command.ClusterStatus) bool {
			for _, sh := range s.Shards {
				if sh.Shard != command.MetaShard && len(sh.Desired) != replicas || sh.Shard == command.MetaShard && len(sh.Desired) != len(nodes) {
					return false
				}
			}
			return settled(s)
		})
	}
}

// TestClusterReplacesLostNode erases a server and lets another take its place,
// under load.
func TestClusterReplacesLostNode(t *testing.T) {
	if testing.Short() {
		t.Skip("takes many seconds, which -short leaves out")
	}
	t.Parallel()
	c := testcluster.StartCluster(t, testcluster.ClusterConfig{Shards: 3})
	tr := startTraffic(t, []*client.Client{connectAll(t, c, func(cfg *client.Config) { cfg.ExactlyOnce = true })}, 6, 2*time.Millisecond)
	tr.progress(200)
	lost := c.AwaitLeaders().Most()
	id := c.ID(lost)
	lost.Kill()
	if err := os.RemoveAll(lost.Dir()); err != nil {
		t.Fatal(err)
	}
	awaitLedWithout(t, c, lost)
	// An empty disk must not pass for the server that was there.
	awaitRefused(t, lost, "other data", "member remove "+strconv.Itoa(id))
	tr.progress(50)

	c.Join()
	mustCLI(t, c, "member", "remove", strconv.Itoa(id), "--timeout", "60s")
	left := slices.DeleteFunc(c.Nodes(), func(n *testcluster.Node) bool { return n == lost })
	awaitReplicas(t, c, 3, left...)
	tr.progress(100)
	tr.check(connect(t, left[0], nil))
	tr.noErrors()
	checkEqual(t, c)
	awaitRefused(t, lost, "has been removed", "--node-id")
}

// TestClusterHealsByItself has a server stay away for longer than
// cluster.replace_after: the others, of which there are enough, take its
// replicas over. When it comes back it is given up no more, and holds nothing
// that others do not.
func TestClusterHealsByItself(t *testing.T) {
	if testing.Short() {
		t.Skip("takes many seconds, which -short leaves out")
	}
	t.Parallel()
	c := testcluster.StartCluster(t, testcluster.ClusterConfig{Nodes: 4, Shards: 4, Settings: []string{"cluster.replace_after=2s"}})
	tr := startTraffic(t, []*client.Client{connectAll(t, c, func(cfg *client.Config) { cfg.ExactlyOnce = true })}, 6, 2*time.Millisecond)
	tr.progress(200)
	lost := c.AwaitLeaders().Most()
	id := uint64(c.ID(lost))
	lost.Kill()
	left := slices.DeleteFunc(c.Nodes(), func(n *testcluster.Node) bool { return n == lost })
	settled := settling()
	for _, n := range left {
		c.AwaitStatus(n, "replicas elsewhere", func(s *command.ClusterStatus) bool {
			for _, sh := range s.Shards {
				if sh.Shard != command.MetaShard && (len(sh.Desired) != 3 || slices.Contains(sh.Desired, id)) {
					return false
				}
			}
			s.Shards = slices.DeleteFunc(s.Shards, func(sh command.ShardInfo) bool { return sh.Shard == command.MetaShard })
			return settled(s)
		})
	}
	tr.progress(100)
	lost.Start()
	awaitSettled(t, c)
	tr.progress(100)
	tr.check(connect(t, left[0], nil))
	tr.noErrors()
	checkEqual(t, c)
}

// awaitRefused starts a server that the cluster will not have: it must end by
// itself, and say why in these words.
func awaitRefused(t *testing.T, n *testcluster.Node, says ...string) {
	t.Helper()
	before := len(n.Log())
	n.Spawn()
	if status := n.AwaitExit(); status != 3 {
		t.Errorf("the refused server exited with status %d", status)
	}
	log := n.Log()[before:]
	for _, s := range says {
		if !strings.Contains(log, s) {
			t.Errorf("the refused server does not say %q:\n%s", s, log)
		}
	}
}

// TestClusterRefusals asks for what cannot be: each must be refused with a
// sentence that says why, and leave the cluster as it was.
func TestClusterRefusals(t *testing.T) {
	t.Parallel()
	c := testcluster.StartCluster(t, testcluster.ClusterConfig{Shards: 2, Settings: steady})
	tr := startTraffic(t, []*client.Client{connectAll(t, c, nil)}, 3, 5*time.Millisecond)
	peer := func(i int) string { return c.View(c.Node(1)).Nodes[i-1].Peer }
	refused := func(want int, says string, args ...string) {
		t.Helper()
		r := cli(t, c, args...)
		if r.Status != want || !strings.Contains(r.Stderr, says) {
			t.Errorf("proa %s exited with status %d, want %d, and does not say %q:\n%s", strings.Join(args, " "), r.Status, want, says, r.Stderr)
		}
	}
	refused(1, "already a member", "member", "add", "2")
	refused(1, "there is no node 9", "member", "remove", "9")
	refused(1, "no replica of shard 0", "shard", "move", "0", "--from", "9", "--to", "1")
	refused(1, "already", "shard", "move", "0", "--from", "1", "--to", "2")
	refused(1, "no node 9", "shard", "move", "0", "--from", "1", "--to", "9")
	refused(2, "every node", "shard", "move", "meta", "--from", "1", "--to", "2")
	refused(2, "no shard 7", "shard", "transfer", "7", "--to", "1")
	refused(1, "no replica", "shard", "transfer", "0", "--to", "9")

	join := func(id int, to string, args ...string) *testcluster.Node {
		args = append([]string{"--node-id", strconv.Itoa(id), "--join", to, "--join-token", c.JoinToken()}, args...)
		return testcluster.New(t, testcluster.Config{Peer: testcluster.FreeAddress(t), Args: args})
	}
	// A number that is in use, with another disk.
	awaitRefused(t, join(2, peer(1)), "node 2 is already a member of this cluster with another data directory", "--node-id")
	// Without the join token, and with another one.
	awaitRefused(t, testcluster.New(t, testcluster.Config{Peer: testcluster.FreeAddress(t), Args: []string{"--join", peer(1)}}), "a valid join token is required", "proa member token")
	awaitRefused(t, join(8, peer(1), "--join-token", "not-the-token-of-this-cluster"), "the join token is not, or no longer, that of")
	// A peer address that is in use.
	awaitRefused(t, join(8, peer(1), "--advertise-peer", peer(3)), "already has the peer address")
	// Another number of shards.
	awaitRefused(t, join(8, peer(1), "--shards", "5"), "the cluster has 2 shards")

	// A server that waits for an address where nobody is says so, and joins
	// nothing.
	nobody := testcluster.FreeAddress(t)
	lonely := join(8, nobody)
	lonely.Spawn()
	eventually(t, "the server to name the address", func() error {
		if !strings.Contains(lonely.Log(), "no answer from "+nobody) {
			return errors.New(lonely.Log())
		}
		return nil
	})
	lonely.Terminate()
	if code := lonely.AwaitExit(); code != 0 {
		t.Errorf("a server that was stopped while it waited exited with status %d", code)
	}
	tr.progress(20)

	// A server of another cluster.
	other := testcluster.StartCluster(t, testcluster.ClusterConfig{Nodes: 1, Shards: 2})
	stray := other.Node(1)
	stray.Stop()
	stray.Configure(func(cfg *testcluster.Config) {
		cfg.Args = append(cfg.Args, "--join", peer(1))
	})
	awaitRefused(t, stray, "belongs to node 1 of cluster", "--data")
	tr.progress(20)

	if s := c.View(c.Node(1)); len(s.Nodes) != 3 {
		t.Errorf("the cluster has changed: %+v", s)
	}
	tr.check(connectAll(t, c, nil))
	tr.noErrors()
	checkEqual(t, c)
}

// TestClusterMoves moves replicas: to a server that is down, twice at once, and
// as it should be.
func TestClusterMoves(t *testing.T) {
	if testing.Short() {
		t.Skip("takes many seconds, which -short leaves out")
	}
	t.Parallel()
	c := testcluster.StartCluster(t, testcluster.ClusterConfig{Nodes: 5, Shards: 1, Settings: append(slices.Clone(steady), "cluster.replication_factor=3")})
	tr := startTraffic(t, []*client.Client{connectAll(t, c, nil)}, 4, 2*time.Millisecond)
	awaitSettled(t, c)
	held, free := placed(t, c, 0)
	from, to := held[0], free[0]
	down := free[1]

	c.Node(down).Kill()
	// Its connections have ended, which counts at once.
	for _, n := range c.Nodes() {
		if n.Running() {
			c.AwaitStatus(n, "the end of the server", func(s *command.ClusterStatus) bool {
				return s.Nodes[down-1].State != command.NodeUp
			})
		}
	}
	awaitLedWithout(t, c, c.Node(down))
	r := cli(t, c, "shard", "move", "0", "--from", strconv.Itoa(from), "--to", strconv.Itoa(down))
	if r.Status != 1 || !strings.Contains(r.Stderr, "has not reported for") {
		t.Errorf("a move to a server that is down exited with status %d:\n%s%s", r.Status, r.Stdout, r.Stderr)
	}
	r = cli(t, c, "shard", "transfer", "0", "--to", strconv.Itoa(down))
	if r.Status == 0 || r.Stderr == "" {
		t.Errorf("a transfer to a server that is down exited with status %d:\n%s%s", r.Status, r.Stdout, r.Stderr)
	}
	c.Node(down).Start()
	tr.progress(50)

	// Two moves of one shard at once: one of them is refused, or waits until
	// the other is done.
	awaitSettled(t, c)
	ends := make(chan testcluster.Result, 2)
	for _, pair := range [][2]int{{from, to}, {held[1], down}} {
		go func() {
			ends <- testcluster.Run(t, testcluster.Command{Args: []string{"shard", "move", "0", "--from", strconv.Itoa(pair[0]), "--to", strconv.Itoa(pair[1]), "-e", strings.Join(c.Endpoints(), ",")}})
		}()
	}
	moved := 0
	for range 2 {
		switch r := <-ends; {
		case r.Status == 0:
			moved++
		case r.Status != 1 || !strings.Contains(r.Stderr, "already being moved"):
			t.Errorf("a second move ended with status %d:\n%s", r.Status, r.Stderr)
		}
	}
	if moved == 0 {
		t.Error("neither of two moves was carried out")
	}
	awaitReplicas(t, c, 3, c.Nodes()...)
	tr.check(connectAll(t, c, nil))
	tr.noErrors()
	checkEqual(t, c)
}

// placed returns the numbers of the servers that hold a replica of a shard, and
// of those that do not.
func placed(t *testing.T, c *testcluster.Cluster, shard int) (held, free []int) {
	t.Helper()
	s := c.AwaitStatus(c.Node(1), "the shard to settle", settling())
	for _, sh := range s.Shards {
		if sh.Shard != shard {
			continue
		}
		for i := range c.Nodes() {
			if slices.Contains(sh.Desired, uint64(i+1)) {
				held = append(held, i+1)
			} else {
				free = append(free, i+1)
			}
		}
	}
	return held, free
}

// TestClusterLastReplicas removes all servers but one, which has to stay.
func TestClusterLastReplicas(t *testing.T) {
	if testing.Short() {
		t.Skip("takes many seconds, which -short leaves out")
	}
	t.Parallel()
	c := testcluster.StartCluster(t, testcluster.ClusterConfig{Nodes: 2, Shards: 2, Settings: steady})
	tr := startTraffic(t, []*client.Client{connectAll(t, c, nil)}, 3, 5*time.Millisecond)
	awaitSettled(t, c)
	mustCLI(t, c, "member", "remove", "2")
	if status := c.Node(2).AwaitExit(); status != 3 {
		t.Errorf("the removed server exited with status %d", status)
	}
	r := cli(t, c, "member", "remove", "1")
	if r.Status != 1 || !strings.Contains(r.Stderr, "last replicas") {
		t.Errorf("removing the last server exited with status %d:\n%s%s", r.Status, r.Stdout, r.Stderr)
	}
	tr.progress(50)
	tr.check(connect(t, c.Node(1), nil))
	tr.noErrors()
}

// TestClusterAddressesChange restarts servers with other peer ports, one after
// the other and then all at once.
func TestClusterAddressesChange(t *testing.T) {
	if testing.Short() {
		t.Skip("takes many seconds, which -short leaves out")
	}
	t.Parallel()
	c := testcluster.StartCluster(t, testcluster.ClusterConfig{Shards: 2})
	tr := startTraffic(t, []*client.Client{connectAll(t, c, nil)}, 3, 5*time.Millisecond)
	addresses := map[uint64]string{}
	change := func(n *testcluster.Node) {
		n.Configure(func(cfg *testcluster.Config) {
			old := cfg.Peer
			cfg.Peer = testcluster.FreeAddress(t)
			cfg.Args[slices.Index(cfg.Args, "--advertise-peer")+1] = cfg.Peer
			addresses[uint64(c.ID(n))] = cfg.Peer
			t.Logf("node %d moves from %s to %s", c.ID(n), old, cfg.Peer)
		})
	}
	known := func() {
		t.Helper()
		settled := settling()
		for _, n := range c.Nodes() {
			c.AwaitStatus(n, "the new addresses", func(s *command.ClusterStatus) bool {
				for _, info := range s.Nodes {
					if want, moved := addresses[info.ID]; moved && info.Peer != want || info.State != command.NodeUp {
						return false
					}
				}
				return settled(s)
			})
		}
	}
	for _, n := range c.Nodes() {
		n.Stop()
		change(n)
		n.Start()
		known()
		tr.progress(20)
	}
	// All at once: now only --join can tell where the others are.
	for _, n := range c.Nodes() {
		n.Kill()
		change(n)
	}
	var join []string
	for id := range c.Nodes() {
		join = append(join, addresses[uint64(id+1)])
	}
	for _, n := range c.Nodes() {
		n.Configure(func(cfg *testcluster.Config) {
			cfg.Args[slices.Index(cfg.Args, "--join")+1] = strings.Join(join, ",")
		})
	}
	c.Start()
	known()
	tr.progress(20)
	tr.check(connectAll(t, c, nil))
	checkEqual(t, c)
}

// TestClusterForwarding reaches every shard through each server alone, also
// through one that holds no replica of some.
func TestClusterForwarding(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	c := testcluster.StartCluster(t, testcluster.ClusterConfig{Nodes: 4, Shards: 8, Settings: steady})
	const keys = 64
	key := func(node, i int) []byte { return fmt.Appendf(nil, "from %d: %02d", node, i) }
	clients := make([]*client.Client, 4)
	for i, n := range c.Nodes() {
		clients[i] = connect(t, n, func(cfg *client.Config) { cfg.ForwardOnly, cfg.ExactlyOnce = true, i%2 == 0 })
		for k := range keys {
			if _, err := clients[i].Put(ctx, key(i, k), fmt.Append(nil, k)); err != nil {
				t.Fatalf("PUT through node %d: %v", i+1, err)
			}
		}
	}
	for i, cl := range clients {
		from := (i + 1) % 4
		var all [][]byte
		for k := range keys {
			all = append(all, key(from, k))
			item, err := cl.Get(ctx, key(from, k))
			if err != nil || string(item.Value) != fmt.Sprint(k) {
				t.Fatalf("GET through node %d: %q, %v", i+1, item.Value, err)
			}
			if _, err := cl.Get(ctx, key(from, k), client.WithConsistency(client.Stale)); err != nil && !errors.Is(err, client.ErrNotFound) {
				t.Fatalf("stale GET through node %d: %v", i+1, err)
			}
		}
		items, err := cl.MGet(ctx, all)
		if err != nil || len(items) != keys {
			t.Fatalf("MGET through node %d: %d rows, %v", i+1, len(items), err)
		}
		for k, item := range items {
			if string(item.Value) != fmt.Sprint(k) {
				t.Errorf("MGET through node %d gives %q for %q", i+1, item.Value, all[k])
			}
		}
		var last string
		n := 0
		for item, err := range cl.Scan(ctx, client.Prefix([]byte("from "))) {
			if err != nil {
				t.Fatalf("SCAN through node %d: %v", i+1, err)
			}
			if k := string(item.Key); k <= last {
				t.Fatalf("SCAN through node %d: %q comes after %q", i+1, k, last)
			} else {
				last = k
			}
			n++
		}
		if n != 4*keys {
			t.Errorf("SCAN through node %d: %d rows of %d", i+1, n, 4*keys)
		}
		batch := client.NewBatch().NonAtomic()
		for k := range keys {
			batch.Incr(fmt.Appendf(nil, "counter %d", k), 1)
		}
		results, err := cl.Batch(ctx, batch)
		if err != nil {
			t.Fatalf("BATCH through node %d: %v", i+1, err)
		}
		for k := range results {
			if results[k].Err != nil || results[k].Integer != int64(i+1) {
				t.Errorf("BATCH through node %d: counter %d is %d, %v", i+1, k, results[k].Integer, results[k].Err)
			}
		}
	}
	checkEqual(t, c)
}

// TestClusterTwoVersions runs a server that speaks an older version of the
// protocol between servers beside others that speak the newest.
func TestClusterTwoVersions(t *testing.T) {
	if testing.Short() {
		t.Skip("takes many seconds, which -short leaves out")
	}
	t.Parallel()
	c := testcluster.NewCluster(t, testcluster.ClusterConfig{Shards: 2, Settings: []string{"cluster.balance_leaders=false"}})
	old := c.Node(3)
	old.Configure(func(cfg *testcluster.Config) {
		cfg.Settings = append(slices.Clone(cfg.Settings), "cluster.peer_version_max=1")
	})
	c.Start()
	awaitSettled(t, c)
	for _, n := range c.Nodes()[:2] {
		eventually(t, "the versions to be negotiated", func() error {
			if log := n.Log(); !strings.Contains(log, "node=3") || !strings.Contains(log, "version=1") || !strings.Contains(log, "version=3") {
				return errors.New("not yet in the log")
			}
			return nil
		})
	}
	tr := startTraffic(t, []*client.Client{connectAll(t, c, func(cfg *client.Config) { cfg.ExactlyOnce = true })}, 4, 2*time.Millisecond)
	tr.progress(50)
	// The old one leads, is led, and has a snapshot's worth to catch up.
	for _, to := range []string{"3", "1"} {
		for shard := range 2 {
			awaitCLI(t, c, "shard", "transfer", strconv.Itoa(shard), "--to", to)
		}
		tr.progress(50)
	}
	old.Kill()
	tr.progress(50)
	old.Start()
	awaitSettled(t, c)
	// The upgrade: the old one comes back as a new one.
	old.Stop()
	old.Configure(func(cfg *testcluster.Config) { cfg.Settings = nil })
	old.Start()
	tr.progress(50)
	tr.check(connectAll(t, c, nil))
	tr.noErrors()
	checkEqual(t, c)
}

// clusterID is the number of the cluster that a directory belongs to, as people
// see it.
func clusterID(t *testing.T, dir string) string {
	t.Helper()
	return fmt.Sprintf("%016x", identityOf(t, dir).Cluster)
}
