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

// operate begins a request, unless another is under way, and has then called
// by the simulator some time after it has ended.
func (s *simulation) operate(limit time.Duration, do func(ctx context.Context) error, then func(err error)) bool {
	if s.admin != nil {
		return false
	}
	a := &adminCall{then: then}
	var ctx context.Context
	ctx, a.cancel = context.WithTimeout(context.Background(), limit)
	s.admin = a
	go func() {
		a.err = do(ctx)
		a.ended.Store(true)
	}()
	s.after(int64(watchEvery)+1, s.watchAdmin)
	return true
}

// watchAdmin looks now and then whether the request has ended.
func (s *simulation) watchAdmin() {
	a := s.admin
	if a == nil {
		return
	}
	if !a.ended.Load() {
		s.after(int64(watchEvery), s.watchAdmin)
		return
	}
	a.cancel()
	s.admin = nil
	s.note("operator's request has ended: %d", bit(a.err != nil))
	a.then(a.err)
}

func bit(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// ask has any node that runs carry out an administrative request.
func (s *simulation) ask(verb string, args any, then func(err error)) bool {
	m := s.anyRunning()
	if m == nil {
		return false
	}
	body, err := json.Marshal(args)
	s.must(err)
	n := m.node
	return s.operate(3*time.Second, func(ctx context.Context) error {
		_, err := n.Admin(ctx, verb, body)
		return err
	}, then)
}

func (s *simulation) anyRunning() *member {
	var running []*member
	for _, m := range s.members[1:] {
		if m.running() {
			running = append(running, m)
		}
	}
	if len(running) == 0 {
		return nil
	}
	return running[s.rng.IntN(len(running))]
}

// join starts a new machine and has it join.
func (s *simulation) join() bool {
	if s.admin != nil {
		return false
	}
	m := s.addMember(uint64(len(s.members)))
	m.gone = true // until it is let in
	var f *datadir.Former
	f, err := datadir.NewFormer(datadir.FormOptions{
		Dir: "/proa", FS: m.disk, Join: []string{"any"}, ID: m.id, PeerAddress: m.address, RetryEvery: 200 * time.Millisecond,
		Call: func(ctx context.Context, _, verb string, body []byte) ([]byte, error) {
			if n := s.anyReachable(m); n != nil {
				return n.CallStranger(ctx, true, verb, body)
			}
			return nil, errNetwork
		},
	})
	s.must(err)
	s.note("node %d wants to join", m.id)
	return s.operate(20*time.Second, func(ctx context.Context) error {
		_, err := f.Form(ctx)
		return errors.Join(err, f.Close())
	}, func(err error) {
		if err != nil {
			if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
				s.problem("node %d cannot join: %v", m.id, err)
			}
			return
		}
		m.gone = false
		s.stats.Joined++
		m.start()
	})
}

// anyReachable returns the node of the first member that another can reach.
func (s *simulation) anyReachable(from *member) *raftgroup.Node {
	s.fence()
	defer s.fence()
	for _, o := range s.members[1:] {
		if o != from && o.running() && s.open(o.id, from.id) && s.open(from.id, o.id) {
			return o.node
		}
	}
	return nil
}

// remove has a member removed, and its machine stopped when that is done.
func (s *simulation) remove(m *member) bool {
	s.note("node %d is to be removed", m.id)
	return s.ask(command.AdminMemberRemove, command.MemberArgs{Node: m.id, Force: true}, func(err error) {
		if err == nil {
			s.after(int64(time.Second), func() { s.watchRemoval(m) })
		}
	})
}

// watchRemoval waits until the cluster says that a member is none any more.
func (s *simulation) watchRemoval(m *member) {
	if s.over || m.gone {
		return
	}
	if o := s.anyRunning(); o != nil && o != m {
		st := o.node.ClusterStatus()
		known := len(st.Nodes) == 0
		for i := range st.Nodes {
			known = known || st.Nodes[i].ID == m.id
		}
		if !known {
			s.note("node %d has been removed", m.id)
			s.stats.Removed++
			m.gone = true
			if m.node != nil {
				m.stop()
			}
			return
		}
	}
	s.after(int64(500*time.Millisecond), func() { s.watchRemoval(m) })
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
