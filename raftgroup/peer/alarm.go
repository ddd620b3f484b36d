package peer

import (
	"context"
	"maps"
	"slices"
	"sync"
)

// alarms are the nodes to which messages may have been lost, until the handler has heard
// of them: on a goroutine of its own, because whoever raises an alarm holds locks.
type alarms struct {
	wake  chan struct{} // capacity 1: nodes is not empty
	mu    sync.Mutex
	nodes map[uint64]struct{}
}

func newAlarms() alarms {
	return alarms{wake: make(chan struct{}, 1), nodes: map[uint64]struct{}{}}
}

// raise has the handler told of a node.
func (a *alarms) raise(node uint64) {
	a.mu.Lock()
	a.nodes[node] = struct{}{}
	a.mu.Unlock()
	notify(a.wake)
}

// run calls tell for each node until ctx ends.
func (a *alarms) run(ctx context.Context, tell func(node uint64)) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.wake:
		}
		a.mu.Lock()
		nodes := slices.Collect(maps.Keys(a.nodes))
		clear(a.nodes)
		a.mu.Unlock()
		for _, node := range nodes {
			tell(node)
		}
	}
}
