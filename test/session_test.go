package test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/internal/testcluster"
)

// viaProxy starts a server and a client that talks to it through a proxy, on
// one connection and without requests of its own.
func viaProxy(t *testing.T, exactlyOnce bool) (*testcluster.Node, *proxy, *client.Client) {
	t.Helper()
	node := testcluster.Start(t, testcluster.Config{})
	p := startProxy(t, node.Address())
	c := connect(t, node, func(cfg *client.Config) {
		cfg.Endpoints = []string{p.ln.Addr().String()}
		cfg.Connections, cfg.KeepAlive, cfg.ExactlyOnce = 1, -1, exactlyOnce
		cfg.ForwardOnly = true // the address that the node advertises goes past the proxy
	})
	return node, p, c
}

// Without a session a lost reply leaves the client in doubt, and it says so.
func TestLostReplyIsUnknown(t *testing.T) {
	ctx := context.Background()
	_, p, c := viaProxy(t, false)
	p.loseNext(nil)
	_, err := c.Incr(ctx, []byte("n"), 1)
	if !errors.Is(err, client.ErrOutcomeUnknown) || client.SafeToRetry(err) {
		t.Fatalf("after a lost reply: %v, safe to retry: %v; want an unknown outcome", err, client.SafeToRetry(err))
	}
	if n, err := c.Incr(ctx, []byte("n"), 1); err != nil || n != 2 {
		t.Errorf("the next INCR gives %d (%v), want 2: the server had carried out the first", n, err)
	}
	p.loseNext(nil)
	if item, err := c.Get(ctx, []byte("n")); err != nil || string(item.Value) != "2" {
		t.Errorf("GET after a lost reply: %q (%v); reads may be repeated", item.Value, err)
	}
	if p.lost() != 2 {
		t.Errorf("%d replies were lost, want 2", p.lost())
	}
}

// With a session a write takes effect once, whichever write it is, and its
// repetition is answered as the first would have been.
func TestSessionSurvivesLostReplies(t *testing.T) {
	testSession(t, func(*testcluster.Node) {})
}

// The same where the server is killed after it carried the write out, and the
// one that answers the repetition has only what its predecessor left on disk.
func TestSessionSurvivesKill(t *testing.T) {
	testSession(t, (*testcluster.Node).Restart)
}

// testSession loses the reply to each kind of write. Between that and the
// repetition it calls between.
func testSession(t *testing.T, between func(*testcluster.Node)) {
	ctx := context.Background()
	node, p, c := viaProxy(t, true)
	lose := func(what string, write func() error) {
		t.Helper()
		lost, goOn, result := make(chan struct{}), make(chan struct{}), make(chan error, 1)
		p.loseNext(func() { close(lost); <-goOn })
		go func() { result <- write() }()
		select {
		case <-lost:
		case err := <-result:
			t.Fatalf("%s ended although its reply was held: %v", what, err)
		}
		between(node)
		close(goOn)
		if err := <-result; err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}

	for want := int64(1); want <= 5; want++ {
		lose("INCR", func() error {
			got, err := c.Incr(ctx, []byte("n"), 1)
			return expect(got, want, err)
		})
	}
	var first client.WriteResult
	lose("PUT if absent", func() (err error) {
		first, err = c.Put(ctx, []byte("k"), []byte("one"), client.IfAbsent())
		return err
	})
	lose("PUT with the previous row", func() error {
		r, err := c.Put(ctx, []byte("k"), []byte("two"), client.IfVersion(first.Version), client.ReturnPrevious())
		if err == nil && (r.Previous == nil || string(r.Previous.Value) != "one" || r.Previous.Version != first.Version) {
			return fmt.Errorf("the previous row is %+v", r.Previous)
		}
		return err
	})
	lose("DELETE", func() error {
		_, err := c.Delete(ctx, []byte("k"))
		return err
	})
	lose("BATCH", func() error {
		results, err := c.Batch(ctx, client.NewBatch().Incr([]byte("{n}1"), 2).Incr([]byte("{n}1"), 3))
		if err != nil {
			return err
		}
		return expect(results[1].Integer, 5, results[1].Err)
	})
	spread := client.NewBatch().NonAtomic()
	for i := range 40 {
		spread.Incr(fmt.Appendf(nil, "spread%d", i), 1)
	}
	lose("BATCH over shards", func() error {
		results, err := c.Batch(ctx, spread)
		for _, r := range results {
			err = errors.Join(err, expect(r.Integer, 1, r.Err))
		}
		return err
	})
	length := func(want int) func(int, error) error {
		return func(got int, err error) error { return expect(int64(got), int64(want), err) }
	}
	lose("APPEND", func() error { return length(3)(c.Append(ctx, []byte("{p}a"), []byte("abc"))) })
	lose("SETRANGE", func() error { return length(4)(c.SetRange(ctx, []byte("{p}a"), 2, []byte("de"))) })
	lose("INCRFLOAT", func() error {
		sum, err := c.IncrFloat(ctx, []byte("f"), 0.5)
		return expect(int64(sum*2), 1, err)
	})
	lose("RENAME", func() error {
		_, err := c.Rename(ctx, []byte("{p}a"), []byte("{p}b"), client.IfAbsent())
		return err
	})
	expires := time.UnixMilli(time.Now().Add(time.Hour).UnixMilli())
	lose("SETEXPIRY", func() error {
		r, err := c.SetExpiry(ctx, []byte("{p}b"), client.WithExpiryAt(expires), client.IfNoExpiry(), client.ReturnPrevious())
		if err == nil && (r.Previous == nil || string(r.Previous.Value) != "abde") {
			return fmt.Errorf("the previous row is %+v", r.Previous)
		}
		return err
	})
	if at, err := c.Expiry(ctx, []byte("{p}b")); !at.Equal(expires) || err != nil {
		t.Errorf("EXPIRY: %v (%v), want %v", at, err, expires)
	}
	lose("TXN", func() error {
		r, err := c.Txn(ctx, client.NewTxn().If(client.Absent([]byte("{t}"))).Then(client.OpPut([]byte("{t}"), []byte("x"))).Else(client.OpDelete([]byte("{t}"))))
		if err == nil && !r.Succeeded {
			return errors.New("it saw its own effect")
		}
		return err
	})

	for key, want := range map[string]string{"n": "5", "{n}1": "5", "spread0": "1", "spread39": "1", "{t}": "x", "{p}b": "abde", "f": "0.5"} {
		if item, err := c.Get(ctx, []byte(key)); err != nil || string(item.Value) != want {
			t.Errorf("%s is %q (%v), want %q", key, item.Value, err, want)
		}
	}
	if found, err := c.Exists(ctx, []byte("k")); found || err != nil {
		t.Errorf("the deleted key exists: %v (%v)", found, err)
	}
	if got := p.lost(); got != 16 {
		t.Errorf("%d replies were lost, want 16", got)
	}
	node.Stop()
	node.Verify()
}

func expect(got, want int64, err error) error {
	if err == nil && got != want {
		return fmt.Errorf("it answered %d, want %d", got, want)
	}
	return err
}

// A session may have more writes begun than a server keeps results for; the
// client has to see to it that none of them outruns that.
func TestSessionWithManyCalls(t *testing.T) {
	const calls = 10_000
	node := testcluster.Start(t, testcluster.Config{})
	c := connect(t, node, func(cfg *client.Config) { cfg.ExactlyOnce = true })
	futures := make([]*client.Future[int64], calls)
	for i := range futures {
		futures[i] = c.IncrAsync([]byte("n"), 1)
	}
	node.Restart()
	for i, f := range futures {
		if _, err := f.Wait(context.Background()); err != nil {
			t.Fatalf("call %d: %v", i, err)
		}
	}
	if n, err := c.Incr(context.Background(), []byte("n"), 0); err != nil || n != calls {
		t.Errorf("the counter is %d (%v) after %d increments", n, err, calls)
	}
}
