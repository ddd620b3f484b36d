package test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/internal/testcluster"
)

// TestClusterDeletesRanges deletes ranges in a cluster of which a server is killed
// and comes back, by clients with sessions and without: what was acknowledged is
// gone for every reader, a transaction that watched a key of the range is not
// carried out, and all replicas come to the same.
func TestClusterDeletesRanges(t *testing.T) {
	if testing.Short() {
		t.Skip("a server is killed and missed for some seconds")
	}
	t.Parallel()
	c := testcluster.StartCluster(t, testcluster.ClusterConfig{Shards: 3, Settings: smallStores})
	victim := c.AwaitLeaders().Most()
	ctx := context.Background()
	once := connectAll(t, c, func(c *client.Config) { c.ExactlyOnce = true })
	plain := connectAll(t, c, nil)
	for round := range 5 {
		batch := client.NewBatch().NonAtomic()
		for i := range 60 {
			for _, prefix := range []string{"gone/", "kept/"} {
				batch.Put(fmt.Appendf(nil, "%s%d/%d", prefix, round, i), []byte("v"))
			}
		}
		results, err := once.Batch(ctx, batch)
		for i := range results {
			err = errors.Join(err, results[i].Err)
		}
		if err != nil {
			t.Fatal(err)
		}
		watched := fmt.Appendf(nil, "gone/%d/7", round)
		unchanged, err := once.Watch(ctx, watched)
		if err != nil {
			t.Fatal(err)
		}
		if round == 1 {
			victim.Kill()
		}
		if err := once.DeletePrefix(ctx, []byte("gone/")); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		r, err := once.Txn(ctx, client.NewTxn().If(unchanged).Then(client.OpPut(watched, []byte("back"))))
		if err != nil || r.Succeeded {
			t.Errorf("round %d: a transaction has not noticed the deletion: %+v, %v", round, r, err)
		}
		if round == 3 {
			victim.Start()
		}
		n := 0
		for item, err := range plain.Scan(ctx, client.KeysOnly()) {
			if err != nil {
				t.Fatal(err)
			}
			if n++; string(item.Key[:5]) != "kept/" {
				t.Fatalf("round %d: %s is there", round, item.Key)
			}
		}
		if want := 60 * (round + 1); n != want {
			t.Errorf("round %d: %d keys are left, want %d", round, n, want)
		}
	}
	if err := once.DeleteRange(ctx, []byte("kept/1"), []byte("kept/3")); err != nil {
		t.Fatal(err)
	}
	checkEqual(t, c)
}
