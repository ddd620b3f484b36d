package test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/internal/testcluster"
)

// TestClusterFullDisk fills the disk of one server of three. It stops, and says
// why; the others go on; with room it comes back.
func TestClusterFullDisk(t *testing.T) {
	if testing.Short() {
		t.Skip("takes many seconds, which -short leaves out")
	}
	t.Parallel()
	disk := smallDisk(t, "40m")
	c := testcluster.NewCluster(t, testcluster.ClusterConfig{Shards: 2, Settings: []string{
		"raft.log_segment_size=4MiB", "raft.log_size_max=16MiB", "storage.memtable_size=1MiB", "raft.snapshot_interval_logs=100"}})
	full := c.Node(2)
	full.Configure(func(cfg *testcluster.Config) { cfg.Dir = filepath.Join(disk, "data") })
	c.Start()
	cl := connectAll(t, c, func(cfg *client.Config) { cfg.ExactlyOnce = true })
	tr := startTraffic(t, []*client.Client{cl}, 3, 5*time.Millisecond)
	tr.progress(20)
	c.Admin(command.AdminTransfer, command.ShardArgs{Shard: 0, To: 2}) // it leads, too

	rows := 0
	for stopped := false; !stopped && rows < 3000; rows += 10 {
		fill(t, cl, fmt.Sprintf("%d/", rows), 10)
		select {
		case <-full.Exited():
			stopped = true
		default:
		}
	}
	if status := full.AwaitExit(); status != 3 {
		t.Errorf("the server with the full disk ended with status %d, want 3", status)
	}
	if log := full.Log(); !strings.Contains(log, "no space left") {
		t.Error("it does not say that its disk is full")
	}
	tr.progress(50)
	if err := syscall.Mount("tmpfs", disk, "tmpfs", syscall.MS_REMOUNT, "size=400m"); err != nil {
		t.Fatal(err)
	}
	full.Start()
	awaitSettled(t, c)
	tr.check(cl)
	tr.noErrors()
	expectFilled(t, full, fmt.Sprintf("%d/", rows-10), 10)
	checkEqual(t, c)
	full.Stop() // before its disk goes
}

// namespaces are network namespaces, one for each server, that one bridge
// joins. Unlike a proxy, a link that is down here loses packets.
type namespaces struct {
	t    *testing.T
	name string // begins the names of all that is made
	net  string // first three bytes of the addresses
}

// newNamespaces makes n of them. It skips the test where it may not, or lacks
// the program ip.
func newNamespaces(t *testing.T, n int) *namespaces {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("making network namespaces needs root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("making network namespaces needs the program ip")
	}
	id := os.Getpid() % 100_000
	s := &namespaces{t: t, name: fmt.Sprintf("pt%d", id), net: fmt.Sprintf("10.%d.%d", 128+rand.IntN(100), rand.IntN(256))}
	bridge := s.name + "b"
	if out, err := exec.Command("ip", "link", "add", bridge, "type", "bridge").CombinedOutput(); err != nil {
		t.Skipf("this machine makes no bridges: %s", out)
	}
	t.Cleanup(func() { s.ip("link", "del", bridge) })
	s.ip("addr", "add", s.net+".254/24", "dev", bridge)
	s.ip("link", "set", bridge, "up")
	for i := 1; i <= n; i++ {
		ns, inside := s.namespace(i), s.link(i)+"n"
		s.ip("netns", "add", ns)
		t.Cleanup(func() { s.ip("netns", "del", ns) })
		s.ip("link", "add", s.link(i), "type", "veth", "peer", "name", inside)
		t.Cleanup(func() { s.ip("link", "del", s.link(i)) })
		s.ip("link", "set", inside, "netns", ns)
		s.ip("link", "set", s.link(i), "master", bridge, "up")
		s.ip("-n", ns, "addr", "add", fmt.Sprintf("%s.%d/24", s.net, i), "dev", inside)
		s.ip("-n", ns, "link", "set", inside, "up")
		s.ip("-n", ns, "link", "set", "lo", "up")
	}
	return s
}

func (s *namespaces) namespace(i int) string { return fmt.Sprintf("%s-%d", s.name, i) }

func (s *namespaces) link(i int) string { return fmt.Sprintf("%sv%d", s.name, i) }

func (s *namespaces) ip(args ...string) {
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		s.t.Errorf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

func (s *namespaces) place(i int) (host string, command []string) {
	return fmt.Sprintf("%s.%d", s.net, i), []string{"ip", "netns", "exec", s.namespace(i)}
}

// cut and heal take a server's network away, also from clients, and give it
// back.
func (s *namespaces) cut(i int)  { s.ip("link", "set", s.link(i), "down") }
func (s *namespaces) heal(i int) { s.ip("link", "set", s.link(i), "up") }

// TestClusterNetworkNamespaces records a history while packets of leaders are
// lost.
func TestClusterNetworkNamespaces(t *testing.T) {
	if testing.Short() {
		t.Skip("takes many seconds, which -short leaves out")
	}
	t.Parallel()
	rng := seeded(t)
	s := newNamespaces(t, 3)
	c := testcluster.StartCluster(t, testcluster.ClusterConfig{Shards: 3, Place: s.place, Args: []string{"--insecure"}})
	f := &faults{t: t, c: c, h: newHistory(8), rng: rng}
	f.h.pace = 8 * time.Millisecond
	for i := range 8 {
		f.h.clients = append(f.h.clients, connectAll(t, c, func(cfg *client.Config) {
			// What was lost without a word is noticed by silence only.
			cfg.ExactlyOnce, cfg.KeepAlive = i%2 == 0, time.Second
		}))
		f.h.begin(rng, f.h.clients[i])
	}
	defer f.h.finish()
	for range 3 {
		f.progress()
		n := f.leader()
		s.cut(c.ID(n))
		f.awaitLedElsewhere(n)
		f.progress()
		s.heal(c.ID(n))
		c.AwaitLeaders()
	}
	// Two of them, so that nobody has a majority.
	s.cut(1)
	s.cut(2)
	expectNoQuorumSoon(t, c.Node(3))
	s.heal(1)
	s.heal(2)
	f.progress()
	f.h.finish()
	f.h.check(t, 0)
	awaitSettled(t, c)
	checkEqual(t, c)
}

// awaitLedElsewhere is awaitLedWithout for a server that runs and cannot be
// asked.
func (f *faults) awaitLedElsewhere(n *testcluster.Node) {
	f.t.Helper()
	id := uint64(f.c.ID(n))
	for _, o := range f.c.Nodes() {
		if o == n {
			continue
		}
		f.c.AwaitStatus(o, "other leaders", func(s *command.ClusterStatus) bool {
			return !slices.ContainsFunc(s.Shards, func(sh command.ShardInfo) bool { return sh.Leader == 0 || sh.Leader == id })
		})
	}
}

// expectNoQuorumSoon waits until a server says that it has no majority.
func expectNoQuorumSoon(t *testing.T, n *testcluster.Node) {
	t.Helper()
	c := impatient(t, n)
	eventually(t, "NO_QUORUM", func() error {
		_, err := c.Put(context.Background(), []byte("k"), []byte("v"), client.WithTimeout(time.Second))
		if err == nil {
			return fmt.Errorf("a write was carried out")
		}
		if !strings.Contains(err.Error(), "no quorum") {
			return err
		}
		return nil
	})
}
