package test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/internal/testcluster"
)

// copyDir copies a data directory.
func copyDir(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

// restore puts a copy in the place of a data directory.
func restore(t *testing.T, from, to string) {
	t.Helper()
	if err := os.RemoveAll(to); err != nil {
		t.Fatal(err)
	}
	copyDir(t, from, to)
}

// writeKeys writes n keys and returns once all are acknowledged.
func writeKeys(t *testing.T, cl *client.Client, prefix string, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for i := range n {
		key := fmt.Sprint(prefix, i)
		eventually(t, "a write to be acknowledged", func() error {
			_, err := cl.Put(ctx, []byte(key), []byte(key))
			return err
		})
	}
}

// TestClusterOldDirectory brings a server back with an older copy of its
// directory. It must be refused, end with a sentence, and stay away; where the
// servers that are left cannot do without it, nothing is served rather than
// acknowledged writes forgotten.
func TestClusterOldDirectory(t *testing.T) {
	t.Parallel()
	c := testcluster.StartCluster(t, testcluster.ClusterConfig{Shards: 2})
	cl := connectAll(t, c, nil)
	writeKeys(t, cl, "first", 10)
	n := c.Node(3)
	n.Stop()
	old := filepath.Join(t.TempDir(), "old")
	copyDir(t, n.Dir(), old)
	n.Start()
	awaitSettled(t, c) // all have heard of its second life
	writeKeys(t, cl, "second", 50)
	n.Stop()
	present := filepath.Join(t.TempDir(), "present")
	copyDir(t, n.Dir(), present)
	writeKeys(t, cl, "third", 10)

	// The other that knows all of it is gone, too.
	c.Node(1).Kill()
	restore(t, old, n.Dir())
	awaitRefused(t, n, "older than what this node has confirmed", "erase it", "node 2")
	if log := n.Log(); strings.Contains(log, "panic") || strings.Contains(log, "goroutine ") {
		t.Errorf("the refused server does not end in order:\n%s", log)
	}
	awaitRefused(t, n, "older than what this node has confirmed") // not once more into the log
	c.Node(1).Start()
	c.AwaitLeaders()
	for _, prefix := range []string{"first", "second", "third"} {
		for i := range 10 {
			key := fmt.Sprint(prefix, i)
			if r, err := cl.Get(t.Context(), []byte(key)); err != nil || string(r.Value) != key {
				t.Errorf("%s: %q, %v", key, r.Value, err)
			}
		}
	}
	// The directory that it had is good.
	restore(t, present, n.Dir())
	n.Start()
	awaitSettled(t, c)
	checkEqual(t, c)
}

// TestClusterTwin starts a copy of a server's directory beside it. The copy must
// be refused, and nobody else may notice.
func TestClusterTwin(t *testing.T) {
	t.Parallel()
	c := testcluster.StartCluster(t, testcluster.ClusterConfig{Shards: 2, Settings: steady})
	cl := connectAll(t, c, nil)
	writeKeys(t, cl, "first", 10)
	original := c.Node(3)
	original.Stop()
	dir := filepath.Join(t.TempDir(), "copy")
	copyDir(t, original.Dir(), dir)
	original.Start()
	awaitSettled(t, c) // all know which one it is
	tr := startTraffic(t, []*client.Client{cl}, 3, 5*time.Millisecond)
	tr.progress(20)

	var args []string
	original.Configure(func(cfg *testcluster.Config) { args = slices.Clone(cfg.Args) })
	listen := testcluster.FreeAddress(t)
	args[slices.Index(args, "--advertise-peer")+1] = listen
	awaitRefused(t, testcluster.New(t, testcluster.Config{Dir: dir, Peer: listen, Args: args}), "node 3", "erase")
	tr.progress(50)
	if !original.Running() || strings.Contains(original.Log(), "panic") {
		t.Errorf("the original is disturbed:\n%s", original.Log())
	}
	awaitSettled(t, c)
	tr.check(cl)
	for _, err := range tr.errors {
		t.Error(err)
	}
	checkEqual(t, c)
}
