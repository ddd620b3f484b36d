package test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/internal/testcluster"
)

// TestClusterEngine founds clusters with each engine. A server that joins without a setting
// gets the cluster's, and one with another setting is refused.
func TestClusterEngine(t *testing.T) {
	if os.Getenv("PROA_RAFT_ENGINE") != "" {
		t.Skip("the engine is chosen for all servers")
	}
	t.Parallel()
	engines := []string{"etcd", "dragonboat"}
	for i, engine := range engines {
		other := engines[1-i]
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			c := testcluster.NewCluster(t, testcluster.ClusterConfig{Shards: 2})
			for _, n := range c.Nodes() {
				n.Configure(func(o *testcluster.Config) {
					o.Settings = append(slices.Clone(o.Settings), "raft.engine="+engine)
				})
			}
			c.Start()
			mustCLI(t, c, "put", "key", "value")
			joined := c.Join()
			c.AwaitStatus(joined, "the engine "+engine, func(s *command.ClusterStatus) bool { return s.Engine == engine })
			s := c.AwaitStatus(c.Node(1), "four nodes", func(s *command.ClusterStatus) bool { return s.Engine == engine && len(s.Nodes) == 4 })
			dir := t.TempDir()
			refusal{
				[]string{"--data", dir, "--join", s.Nodes[0].Peer, "--join-token", c.JoinToken(), "--peer-listen", testcluster.FreeAddress(t), "--set=raft.engine=" + other},
				[]string{"the cluster has the engine " + engine + ", but " + other + " was requested", "leave raft.engine out"},
			}.check(t, testcluster.Command{})
			if members := c.View(c.Node(1)).Nodes; len(members) != 4 {
				t.Errorf("the cluster has other members: %v", members)
			}
			joined.Restart()
			if out := mustCLI(t, c, "get", "key"); !strings.Contains(out, "value") {
				t.Errorf("%s", out)
			}
		})
	}
}
