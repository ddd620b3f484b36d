package dragonboat

import (
	"math"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/engine"
)

// pass is the conductor's work, and says who does it. Any thread adds work; the thread
// that runs the pass takes it. There is nothing to be made durable in a pass: what it
// proposes dragonboat's step worker saves.
type pass struct {
	engine *Engine
	due    atomic.Uint32 // kinds of work
	held   atomic.Bool   // a thread runs the pass
	passes atomic.Uint64
	ticks  uint64 // belongs to the pass

	mu       sync.Mutex
	commands []*shard // that have commands
	posted   []func()

	taken     []*shard // the list that was taken last
	deferred  []*shard // have commands that cannot be proposed yet
	withLarge []*shard // have large commands, in the order of their turns
	large     *proposed
}

// The kinds of work.
const (
	commandsDue uint32 = 1 << iota
	postedDue
	tickDue
	repliesDue // outcomes have been delivered: whoever runs the pass writes the replies
)

// request notes that work is due.
func (p *pass) request(work uint32) { p.due.Or(work) }

// Pending reports whether a pass has something to do.
func (p *pass) Pending() bool { return p.due.Load() != 0 }

// Acquire makes the caller the one thread that runs the pass, if there is something to
// do; see engine.Committer.
func (p *pass) Acquire() bool { return p.due.Load() != 0 && p.held.CompareAndSwap(false, true) }

// Prepare does everything there is to do. There is no write to wait for.
func (p *pass) Prepare() command.Write {
	p.passes.Add(1)
	work := p.due.Swap(0)
	if p.engine.State.Is(engine.Failed) {
		p.runPosted()
		p.engine.abandon()
		return nil
	}
	if work&tickDue != 0 {
		p.tickAll()
	}
	if work&postedDue != 0 {
		p.runPosted()
	}
	p.proposeAll()
	p.engine.Growing.Readmit(p.engine.Store)
	if work&commandsDue != 0 {
		runtime.Gosched() // the step worker takes this thread over, instead of waking another one
	}
	return nil
}

// Deliver has nothing to deliver: outcomes come from the apply worker.
func (p *pass) Deliver(command.Write) bool { return true }

// Release gives up the pass.
func (p *pass) Release() { p.held.Store(false) }

// Run runs one pass, which the caller has acquired.
func (p *pass) Run() {
	p.Prepare()
	p.Release()
}

// runAll runs passes until none is due, or another thread runs them.
func (p *pass) runAll() {
	for p.Acquire() {
		p.Run()
	}
}

// seize takes the pass, for good: none runs any more. It returns false while one does.
func (p *pass) seize() bool { return p.held.CompareAndSwap(false, true) }

// post has f called by the next pass.
func (p *pass) post(f func()) {
	p.mu.Lock()
	p.posted = append(p.posted, f)
	p.mu.Unlock()
	p.request(postedDue)
}

// await has f called by a pass, and returns when it has been. For dragonboat's workers, of
// which none runs any more when the last pass has.
func (p *pass) await(f func()) {
	done := make(chan struct{})
	p.post(func() {
		defer close(done)
		f()
	})
	p.engine.host.Drive()
	<-done
}

// addCommands notes that s has commands.
func (p *pass) addCommands(s *shard) {
	p.mu.Lock()
	p.commands = append(p.commands, s)
	p.mu.Unlock()
	p.request(commandsDue)
}

func (p *pass) runPosted() {
	p.mu.Lock()
	posted := p.posted
	p.posted = nil
	p.mu.Unlock()
	for _, f := range posted {
		f()
	}
}

// takeCommands adds the shards with commands to those that wait.
func (p *pass) takeCommands() {
	p.mu.Lock()
	p.commands, p.taken = p.taken[:0], p.commands
	p.mu.Unlock()
	p.deferred = append(p.deferred, p.taken...)
}

// proposeAll makes proposals of what is queued.
func (p *pass) proposeAll() {
	p.takeCommands()
	if !p.engine.Time.Agreed.Load() || len(p.deferred) == 0 && len(p.withLarge) == 0 {
		return
	}
	p.engine.Time.Publish() // the machine may have been suspended since the last tick
	kept := p.deferred[:0]
	for _, s := range p.deferred {
		if s.full() {
			kept = append(kept, s)
			continue
		}
		s.propose()
		s.noteLarge()
	}
	clear(p.deferred[len(kept):])
	p.deferred = kept
	p.proposeLarge()
}

// proposeLarge makes a proposal of the large command whose turn it is, if it can go: one
// of a node's is on its way at a time, each shard's in turn, and only when the state
// machine has room for it. See raftgroup/etcd/large.go.
func (p *pass) proposeLarge() {
	for range len(p.withLarge) {
		s := p.withLarge[0]
		s.dropOverdue()
		switch {
		case !s.queue.HasLarge():
		case !s.Leads.Load():
			s.refuse(s.queue.TakeLarge(nil, math.MaxInt))
		case s.transfer.holds():
		case !p.largeDue():
			return
		default:
			for _, b := range s.queue.TakeLarge(nil, 1) {
				p.large = s.proposeBatch(b)
			}
		}
		p.withLarge = append(p.withLarge[:0], p.withLarge[1:]...)
		s.listedLarge = false
		s.noteLarge()
	}
}

// largeDue reports whether a large command can go.
func (p *pass) largeDue() bool {
	if len(p.withLarge) == 0 || p.large != nil && !p.large.ended.Load() {
		return false
	}
	return p.engine.Store.Room(p.withLarge[0].queue.NextLarge())
}

// tickAll does what is due with a tick.
func (p *pass) tickAll() {
	e := p.engine
	p.ticks++
	e.host.KeepTime()
	now := e.Time.Now()
	for _, s := range e.shards {
		s.Keep(e.Store.LastStamp(s.number), now)
		s.tick(now)
	}
	e.host.TickCluster()
}
