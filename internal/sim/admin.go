package sim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup"
	"github.com/proa-kv/proa/raftgroup/datadir"
)

// adminCall is a request of the operator. It runs on a goroutine of its own,
// since it waits for the cluster; there is one at a time, so that nothing
// depends on which of two goroutines is faster.
type adminCall struct {
	ended  atomic.Bool
	err    error // once it has ended
	cancel context.CancelFunc
	then   func(err error)
}

// watchEvery is how often the simulator looks whether a request has ended: in
// whole milliseconds, as the request itself waits. It begins a nanosecond late,
// since of two timers that end at one moment either may be the first.
const watchEvery = 7 * time.Millisecond

// operator makes an operator's requests, one at a time.
type operator struct {
	sim   *simulation
	admin *adminCall // under way
}

// operate begins a request, unless another is under way, and has then called
// by the simulator some time after it has ended.
func (op *operator) operate(limit time.Duration, do func(ctx context.Context) error, then func(err error)) bool {
	if op.admin != nil {
		return false
	}
	a := &adminCall{then: then}
	var ctx context.Context
	ctx, a.cancel = context.WithTimeout(context.Background(), limit)
	op.admin = a
	go func() {
		a.err = do(ctx)
		a.ended.Store(true)
	}()
	op.sim.after(int64(watchEvery)+1, op.watchAdmin)
	return true
}

// watchAdmin looks now and then whether the request has ended.
func (op *operator) watchAdmin() {
	a := op.admin
	if a == nil {
		return
	}
	if !a.ended.Load() {
		op.sim.after(int64(watchEvery), op.watchAdmin)
		return
	}
	a.cancel()
	op.admin = nil
	op.sim.note("operator's request has ended: %d", bit(a.err != nil))
	a.then(a.err)
}

func bit(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// ask has any node that runs carry out an administrative request.
func (op *operator) ask(verb string, args any, then func(err error)) bool {
	m := op.anyRunning()
	if m == nil {
		return false
	}
	body, err := json.Marshal(args)
	op.sim.must(err)
	n := m.node
	return op.operate(3*time.Second, func(ctx context.Context) error {
		_, err := n.Admin(ctx, verb, body)
		return err
	}, then)
}

func (op *operator) anyRunning() *member {
	var running []*member
	for _, m := range op.sim.members[1:] {
		if m.running() {
			running = append(running, m)
		}
	}
	if len(running) == 0 {
		return nil
	}
	return running[op.sim.rng.IntN(len(running))]
}

// join starts a new machine and has it join.
func (op *operator) join() bool {
	if op.admin != nil {
		return false
	}
	m := op.sim.addMember(uint64(len(op.sim.members)))
	m.gone = true // until it is let in
	var f *datadir.Former
	f, err := datadir.NewFormer(datadir.FormOptions{
		Dir: "/proa", FS: m.disk, Join: []string{"any"}, ID: m.id, PeerAddress: m.address, RetryEvery: 200 * time.Millisecond,
		Call: func(ctx context.Context, _, verb string, body []byte) ([]byte, error) {
			if n := op.anyReachable(m); n != nil {
				return n.CallStranger(ctx, true, verb, body)
			}
			return nil, errNetwork
		},
	})
	op.sim.must(err)
	op.sim.note("node %d wants to join", m.id)
	return op.operate(20*time.Second, func(ctx context.Context) error {
		_, err := f.Form(ctx)
		return errors.Join(err, f.Close())
	}, func(err error) {
		if err != nil {
			if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
				op.sim.problem("node %d cannot join: %v", m.id, err)
			}
			return
		}
		m.gone = false
		op.sim.stats.Joined++
		m.start()
	})
}

// anyReachable returns the node of the first member that another can reach.
func (op *operator) anyReachable(from *member) *raftgroup.Node {
	op.sim.fence()
	defer op.sim.fence()
	for _, o := range op.sim.members[1:] {
		if o != from && o.running() && op.sim.open(o.id, from.id) && op.sim.open(from.id, o.id) {
			return o.node
		}
	}
	return nil
}

// remove has a member removed, and its machine stopped when that is done.
func (op *operator) remove(m *member) bool {
	op.sim.note("node %d is to be removed", m.id)
	return op.ask(command.AdminMemberRemove, command.MemberArgs{Node: m.id, Force: true}, func(err error) {
		if err == nil {
			op.sim.after(int64(time.Second), func() { op.watchRemoval(m) })
		}
	})
}

// watchRemoval waits until the cluster says that a member is none any more.
func (op *operator) watchRemoval(m *member) {
	if op.sim.over || m.gone {
		return
	}
	if o := op.anyRunning(); o != nil && o != m {
		st := o.node.ClusterStatus()
		known := len(st.Nodes) == 0
		for i := range st.Nodes {
			known = known || st.Nodes[i].ID == m.id
		}
		if !known {
			op.sim.note("node %d has been removed", m.id)
			op.sim.stats.Removed++
			m.gone = true
			if m.node != nil {
				m.stop()
			}
			return
		}
	}
	op.sim.after(int64(500*time.Millisecond), func() { op.watchRemoval(m) })
}

// restart stops a member in an orderly way, leaderships first, and starts it
// again.
func (m *member) restart() bool {
	s := m.sim
	n, life := m.node, m.life
	s.note("node %d leaves", m.id)
	return s.operate(2*time.Second, func(ctx context.Context) error { return n.Leave(ctx) }, func(error) {
		if m.life != life || m.node == nil {
			return
		}
		m.stop()
		down := m.life
		s.after(s.between(50*time.Millisecond, time.Second), func() { m.startIf(down) })
	})
}

// String is the member in messages.
func (m *member) String() string { return fmt.Sprintf("node %d", m.id) }
