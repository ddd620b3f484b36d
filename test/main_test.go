package test

import (
	"context"
	"encoding/json"
	"flag"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/internal/testcluster"
)

func TestMain(m *testing.M) { testcluster.Main(m) }

var seedFlag = flag.Uint64("seed", 0, "seed of the random tests; 0 draws one")

// seeded returns a source of random numbers and prints what brings it back.
// The schedule of processes and goroutines is not under its control.
func seeded(t *testing.T) *rand.Rand {
	t.Helper()
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d (again with: go test ./test -run '^%s$' -seed=%d)", seed, t.Name(), seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// patience bounds a call that goes on while its server is killed and started
// again. It is far above what that takes.
const patience = 90 * time.Second

// connect returns a client of the node that reconnects fast. change may be nil.
func connect(t *testing.T, n *testcluster.Node, change func(*client.Config)) *client.Client {
	t.Helper()
	cfg := client.Config{
		Endpoints:      []string{n.Address()},
		RequestTimeout: patience,
		BackoffMin:     10 * time.Millisecond,
		BackoffMax:     50 * time.Millisecond,
		Name:           "test",
	}
	if change != nil {
		change(&cfg)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := client.New(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// replayed returns how many entries the server carried out again at its start.
func replayed(t *testing.T, c *client.Client) uint64 {
	t.Helper()
	raw, err := c.Status(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	var s struct {
		Node struct {
			ReplayEntries *uint64 `json:"replay_entries"`
		} `json:"node"`
	}
	if err := json.Unmarshal(raw, &s); err != nil {
		t.Fatal(err)
	}
	if s.Node.ReplayEntries == nil {
		t.Fatalf("the status does not say how many entries were replayed: %s", raw)
	}
	return *s.Node.ReplayEntries
}

// smallStores are settings under which log and state turn over many times in a
// short test: several log segments, drains, truncations.
var smallStores = []string{
	"raft.log_segment_size=4MiB", "raft.log_size_max=16MiB", "storage.memtable_size=1MiB", "memory.cache_size=16MiB",
}
