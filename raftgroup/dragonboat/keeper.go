package dragonboat

import "context"

// keeper does, on a goroutine of its own and one by one, what waits for dragonboat's
// workers or for the disk: replicas are started and ended.
type keeper struct {
	engine *Engine
	work   chan func()
	quit   chan struct{}
}

// run starts the keeper.
func (k *keeper) run() {
	k.work, k.quit = make(chan func(), 4*len(k.engine.shards)), make(chan struct{})
	k.engine.background(func(ctx context.Context) {
		for {
			select {
			case <-ctx.Done():
				return
			case <-k.quit:
				return
			case f := <-k.work:
				f()
			}
		}
	})
}

// closeKeeper ends the keeper after what it is doing.
func (k *keeper) closeKeeper() {
	if k.quit != nil {
		close(k.quit)
	}
}

// keep has f done, and returns false where too much waits already.
func (k *keeper) do(f func()) bool {
	select {
	case k.work <- f:
		return true
	default:
		return false
	}
}
