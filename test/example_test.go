package test

import (
	"os"
	"os/exec"
	"testing"

	"github.com/proa-kv/proa/internal/testcluster"
)

// TestPythonClient runs the client that was written from docs/protocol.md alone
// against one node and against three. CI installs python3; elsewhere the test
// is skipped without it.
func TestPythonClient(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("CI needs python3")
		}
		t.Skip("there is no python3")
	}
	check := func(t *testing.T, endpoints ...string) {
		t.Helper()
		c := exec.CommandContext(t.Context(), python, append([]string{"-B", "../docs/examples/proa_check.py"}, endpoints...)...)
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	t.Run("one node", func(t *testing.T) {
		check(t, testcluster.Start(t, testcluster.Config{}).Address())
	})
	t.Run("three nodes", func(t *testing.T) {
		c := testcluster.StartCluster(t, testcluster.ClusterConfig{Nodes: 3, Shards: 4})
		c.AwaitLeaders()
		check(t, c.Endpoints()...)
	})
}
