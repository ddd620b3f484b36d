package raftgroup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/placement"
)

// askChecksum asks a node for the checksums of shard 0.
func askChecksum(ctx context.Context, n *Node) (sum command.ShardChecksum, err error) {
	b, err := n.Admin(ctx, command.AdminChecksum, []byte(`{"shard":0}`))
	if err == nil {
		err = json.Unmarshal(b, &sum)
	}
	return sum, err
}

// checksumNode returns a node that runs and has its map.
func checksumNode(t *testing.T) *Node {
	t.Helper()
	n := memNode(t, vfs.NewMem(), Options{ID: 1, Shards: 1})
	n.Start(nil)
	ready := func() bool {
		cm := n.cmap.Load()
		return cm != nil && cm.Begun() && len(cm.Shards[0].Nodes()) > 0 && n.Leader(0) != 0
	}
	if err := n.await(t.Context(), ready); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestChecksumsTakeTurns asks for many checksums at once: one is computed, a few
// wait, and the others are refused.
func TestChecksumsTakeTurns(t *testing.T) { onEngines(t, testChecksumsTakeTurns) }

func testChecksumsTakeTurns(t *testing.T, e placement.Engine) {
	n := checksumNode(t)
	ctx := t.Context()
	if err := n.checksums.begin(ctx); err != nil {
		t.Fatal(err)
	}
	outcomes := make(chan error)
	for range checksumsWaitingMax {
		go func() {
			sum, err := askChecksum(ctx, n)
			if err == nil && !sum.Equal {
				err = fmt.Errorf("not equal: %+v", sum)
			}
			outcomes <- err
		}()
	}
	if err := n.await(ctx, func() bool { return n.checksums.waiting.Load() == checksumsWaitingMax }); err != nil {
		t.Fatal(err)
	}
	if _, err := askChecksum(ctx, n); !errors.Is(err, command.ErrBusy) || !strings.Contains(err.Error(), "try again") {
		t.Errorf("one too many: %v", err)
	}
	n.checksums.done()
	for range checksumsWaitingMax {
		if err := <-outcomes; err != nil {
			t.Error(err)
		}
	}
}

// TestChecksumOfBusyNode has a mark come while the node computes the checksum of
// another leader's mark: no second view is opened, and the mark is tried again.
func TestChecksumOfBusyNode(t *testing.T) { onEngines(t, testChecksumOfBusyNode) }

func testChecksumOfBusyNode(t *testing.T, e placement.Engine) {
	n := checksumNode(t)
	n.state.Set(summing)
	ctx := t.Context()
	outcome := make(chan error)
	go func() {
		sum, err := askChecksum(ctx, n)
		if err == nil && (!sum.Equal || sum.Replicas[0].Error != "") {
			err = fmt.Errorf("not equal: %+v", sum)
		}
		outcome <- err
	}()
	m := &n.marks[0]
	marks := func() int {
		m.mu.Lock()
		defer m.mu.Unlock()
		return len(m.list)
	}
	if err := n.await(ctx, func() bool { return marks() >= 2 }); err != nil {
		t.Fatal(err)
	}
	n.state.Clear(summing)
	if err := <-outcome; err != nil {
		t.Error(err)
	}

	n.state.Set(summing)
	short, cancel := context.WithTimeout(ctx, 2*markRetryMin)
	defer cancel()
	sum, err := askChecksum(short, n)
	if err == nil && !strings.Contains(sum.Replicas[0].Error, "computing another checksum") || err != nil && !errors.Is(err, command.ErrTimeout) {
		t.Errorf("busy to the end: %+v, %v", sum, err)
	}
	n.state.Clear(summing)
}

// TestChecksumTurns lets requests in in the order in which they came, and lets
// go of those whose time is up.
func TestChecksumTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := checksumTurns{turn: make(chan struct{}, 1)}
		if err := c.begin(t.Context()); err != nil {
			t.Fatal(err)
		}
		var order []int
		for i := range checksumsWaitingMax {
			go func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(4-i)*time.Second)
				defer cancel()
				if err := c.begin(ctx); err != nil {
					if !errors.Is(err, command.ErrTimeout) {
						t.Errorf("%d: %v", i, err)
					}
					return
				}
				order = append(order, i)
				c.done()
			}()
			synctest.Wait()
		}
		if err := c.begin(t.Context()); !errors.Is(err, command.ErrBusy) {
			t.Errorf("one too many: %v", err)
		}
		time.Sleep(1500 * time.Millisecond) // the last one has given up
		c.done()
		synctest.Wait()
		if got := fmt.Sprint(order); got != "[0 1 2]" || c.waiting.Load() != 0 {
			t.Errorf("order %s, %d wait", got, c.waiting.Load())
		}
	})
}
