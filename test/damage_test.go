package test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/internal/testcluster"
)

// damageRow flips a bit in every file of the node's state that has row i.
func damageRow(t *testing.T, node *testcluster.Node, i int) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(node.Dir(), "state", "*.sst"))
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, path := range files {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if at := bytes.Index(content, rowValue(i)); at >= 0 {
			overwrite(t, path, int64(at), []byte{content[at] ^ 0x10})
			found = true
		}
	}
	if !found {
		t.Fatalf("none of %d files has row %d", len(files), i)
	}
}

// TestDamagedBlock damages a block of the state of one of three servers: all
// rows are read all the while, at every server, and the replica is made anew.
func TestDamagedBlock(t *testing.T) {
	const rows = 600
	c := testcluster.StartCluster(t, testcluster.ClusterConfig{Shards: 1})
	put(t, c.Node(1), rows)
	awaitSettled(t, c) // node 2 has all of them, too
	c.Node(2).Stop()   // its state is in files then
	damageRow(t, c.Node(2), rows/2)
	c.Node(2).Start()
	c.AwaitLeaders()
	for _, node := range c.Nodes() {
		expectRows(t, node, rows)
	}
	damaged := func(s *command.ClusterStatus) bool {
		return slices.ContainsFunc(s.Shards, func(i command.ShardInfo) bool {
			return slices.ContainsFunc(i.Replicas, func(r command.ReplicaInfo) bool { return r.Damaged })
		})
	}
	// Clients read at the leader: it is the leadership that meets the damage.
	eventually(t, "node 2 to meet the damage", func() error {
		if strings.Contains(c.Node(2).Log(), "is damaged") {
			return nil
		}
		c.Admin(command.AdminTransfer, command.ShardArgs{Shard: 0, To: 2})
		expectRows(t, c.Node(2), rows)
		return errors.New("not yet") // another may lead again
	})
	c.AwaitStatus(c.Node(1), "a sound replica on every node", func(s *command.ClusterStatus) bool {
		i := slices.IndexFunc(s.Shards, func(i command.ShardInfo) bool { return i.Shard == 0 })
		sh := &s.Shards[i]
		return !damaged(s) && !sh.Moving && len(sh.Replicas) == 3 && strings.Contains(c.Node(2).Log(), "replica created on this node")
	})
	for _, node := range c.Nodes() {
		expectRows(t, node, rows)
	}
	c.Node(2).Stop()
	c.Node(2).Verify()
}

// TestDamagedBlockAlone damages a block of the state of a server alone: the rows
// in it are refused, all others served, and the status says so.
func TestDamagedBlockAlone(t *testing.T) {
	const rows = 300
	node := testcluster.Start(t, testcluster.Config{Args: []string{"--shards=1", "--resp-listen=off"}})
	put(t, node, rows)
	node.Stop()
	damageRow(t, node, rows/2)
	node.Start()
	c := connect(t, node, nil)
	defer c.Close()
	served, refused := 0, 0
	for i := range rows {
		item, err := c.Get(context.Background(), rowKey(i))
		switch {
		case errors.Is(err, client.ErrDamaged):
			refused++
		case err == nil && bytes.Equal(item.Value, rowValue(i)):
			served++
		default:
			t.Errorf("row %d: %v", i, err)
		}
	}
	if served == 0 || refused == 0 {
		t.Errorf("%d rows served, %d refused", served, refused)
	}
	if _, err := c.Incr(context.Background(), rowKey(rows/2), 1); !errors.Is(err, client.ErrDamaged) {
		t.Errorf("INCR: %v", err)
	}
	if _, err := c.Put(context.Background(), rowKey(rows/2), rowValue(1)); err != nil {
		t.Errorf("PUT: %v", err)
	}
	eventually(t, "the status to tell", func() error { // what a node knows of itself is looked at four times a second
		r := proaHealth(t, node)
		if r.Status != 1 || !strings.Contains(r.Stdout, "damaged on 1") || !strings.Contains(r.Stdout, "1 damaged file") {
			return fmt.Errorf("status %d:\n%s%s", r.Status, r.Stdout, r.Stderr)
		}
		return nil
	})
	r := testcluster.Run(t, testcluster.Command{Args: []string{"get", string(rowKey(rows/2 + 1)), "-e", node.Address()}})
	if r.Status != 3 || !strings.Contains(r.Stderr, "damaged") {
		t.Errorf("get: status %d:\n%s%s", r.Status, r.Stdout, r.Stderr)
	}
	node.Stop()
}
