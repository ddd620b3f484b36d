package test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/internal/testcluster"
	"github.com/proa-kv/proa/raftgroup"
)

// TestCrashAcross kills a server while clients move amounts between accounts of
// many shards. Whoever looks, at any moment and after each restart, finds the sum
// that there was in the beginning, and each client's moves as often as they were
// acknowledged: no part of a move is lost, seen alone, or done twice.
func TestCrashAcross(t *testing.T) {
	needsOfEngine(t, raftgroup.AcrossShards)
	rng := seeded(t)
	rounds, workers := 8, 6
	if testing.Short() {
		rounds = 3
	}
	const accounts, each = 12, 1000
	node := testcluster.Start(t, testcluster.Config{Args: []string{"--shards=8"}, Settings: smallStores})
	c := connect(t, node, func(c *client.Config) { c.ExactlyOnce = true })
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	account := func(i int) []byte { return fmt.Appendf(nil, "account/%d", i) }
	moves := func(w int) []byte { return fmt.Appendf(nil, "moves/%d", w) }
	begin := client.NewBatch()
	for i := range accounts {
		begin.Put(account(i), strconv.AppendInt(nil, each, 10))
	}
	if _, err := c.Batch(ctx, begin); err != nil {
		t.Fatal(err)
	}

	var acknowledged atomic.Int64
	done := make([]int64, workers)
	var running sync.WaitGroup
	for w := range workers {
		mine := rand.New(rand.NewPCG(rng.Uint64(), 0))
		running.Go(func() {
			for ctx.Err() == nil {
				from, amount := mine.IntN(accounts), mine.Int64N(50)
				to := (from + 1 + mine.IntN(accounts-1)) % accounts
				b := client.NewBatch().Incr(account(from), -amount).Incr(account(to), amount).Incr(moves(w), 1)
				if _, err := c.Batch(context.Background(), b); err != nil {
					t.Errorf("client %d: %v", w, err)
					return
				}
				done[w]++
				acknowledged.Add(1)
			}
		})
	}
	check := func() {
		t.Helper()
		sum := int64(0)
		for item, err := range c.Scan(context.Background(), client.Prefix([]byte("account/"))) {
			if err != nil {
				t.Fatal(err)
			}
			n, err := strconv.ParseInt(string(item.Value), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			sum += n
		}
		if sum != accounts*each {
			t.Fatalf("the accounts have %d in sum, want %d", sum, accounts*each)
		}
	}
	for range rounds {
		for until := acknowledged.Load() + 50 + rng.Int64N(300); acknowledged.Load() < until && !t.Failed(); {
			check()
		}
		node.Kill()
		node.Start()
		check()
	}
	cancel()
	running.Wait()
	check()
	for w := range workers {
		item, err := c.Get(context.Background(), moves(w))
		if err != nil {
			t.Fatal(err)
		}
		if got := string(item.Value); got != strconv.FormatInt(done[w], 10) {
			t.Errorf("client %d has made %d moves, found %s", w, done[w], got)
		}
	}
	node.Stop()
	node.Verify()
}
