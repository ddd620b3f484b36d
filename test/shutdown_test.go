package test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/internal/testcluster"
)

// TestShutdownUnderLoad stops a server with SIGTERM while clients write. No
// outcome may be unknown: what was answered is there after the restart, and
// what failed was never carried out. Calls that may wait do not fail at all.
func TestShutdownUnderLoad(t *testing.T) {
	rounds := 5
	if testing.Short() {
		rounds = 2
	}
	node := testcluster.Start(t, testcluster.Config{})
	hasty := connect(t, node, func(c *client.Config) { c.RetryMax = -1 })
	patient := connect(t, node, nil)
	for round := range rounds {
		l := &load{prefix: fmt.Sprintf("%d/", round), stopAfter: int64(500 * (round + 1)), reached: make(chan struct{})}
		for i := range 64 {
			c := patient
			if i%2 == 0 {
				c = hasty
			}
			l.wg.Go(func() { l.write(t, c, i, c == hasty) })
		}
		<-l.reached
		node.Stop()
		l.stop.Store(true)
		node.Start()
		l.wg.Wait()
		if t.Failed() {
			return
		}
		// A clean stop leaves next to nothing to carry out again.
		if n := replayed(t, patient); n > 16 {
			t.Errorf("round %d: after a clean stop %d entries were replayed", round, n)
		}
		l.check(t, patient)
	}
	node.Stop()
	node.Verify()
}

// load writes keys that are used once each.
type load struct {
	prefix    string
	stopAfter int64
	reached   chan struct{}
	stop      atomic.Bool
	acked     atomic.Int64
	wg        sync.WaitGroup

	mu   sync.Mutex
	done [][]byte // acknowledged
	not  [][]byte // reported as not carried out
}

func (l *load) write(t *testing.T, c *client.Client, id int, mayFail bool) {
	for n := 0; !l.stop.Load(); n++ {
		key := fmt.Appendf(nil, "%s%d/%d", l.prefix, id, n)
		_, err := c.Put(context.Background(), key, key)
		l.mu.Lock()
		switch {
		case err == nil:
			l.done = append(l.done, key)
		default:
			l.not = append(l.not, key)
		}
		l.mu.Unlock()
		if err != nil {
			if !mayFail || !client.SafeToRetry(err) {
				t.Errorf("PUT: %v (may fail: %v, safe to retry: %v)", err, mayFail, client.SafeToRetry(err))
				l.stop.Store(true)
			}
			return
		}
		if l.acked.Add(1) == l.stopAfter {
			close(l.reached)
		}
	}
}

func (l *load) check(t *testing.T, c *client.Client) {
	t.Helper()
	if len(l.done) < int(l.stopAfter) {
		t.Fatalf("%d keys acknowledged, the server was stopped after %d", len(l.done), l.stopAfter)
	}
	for _, part := range []struct {
		keys  [][]byte
		found bool
	}{{l.done, true}, {l.not, false}} {
		for keys := part.keys; len(keys) > 0; {
			n := min(len(keys), 1000)
			got, err := c.MGet(context.Background(), keys[:n])
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range got {
				if r.Found != part.found {
					t.Errorf("%s: found %v; it was acknowledged: %v", r.Key, r.Found, part.found)
				}
			}
			keys = keys[n:]
		}
	}
	t.Logf("%d keys acknowledged, %d refused", len(l.done), len(l.not))
}

// A second signal ends the wait for clients, and the exit is as clean.
func TestSecondSignal(t *testing.T) {
	node := testcluster.Start(t, testcluster.Config{})
	c := connect(t, node, nil)
	if _, err := c.Put(context.Background(), []byte("k"), []byte("v")); err != nil {
		t.Fatal(err)
	}
	node.Terminate()
	node.Terminate()
	if status := node.AwaitExit(); status != 0 {
		t.Errorf("exit status %d after two signals", status)
	}
	node.Verify()
	node.Start()
	if item, err := c.Get(context.Background(), []byte("k")); err != nil || string(item.Value) != "v" {
		t.Errorf("GET after the restart: %q, %v", item.Value, err)
	}
	if n := replayed(t, c); n > 16 {
		t.Errorf("%d entries were replayed", n)
	}
}
