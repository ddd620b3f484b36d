package sim

import (
	"context"
	"errors"
	"net"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/proa-kv/proa/raftgroup"
)

// weather is how the world treats everybody at the moment.
type weather struct {
	loss, double float64       // of messages
	delay        time.Duration // mean
	late         float64       // share of messages with another mean delay
	lateDelay    time.Duration
	fsync        time.Duration // mean
}

// network knows which ways are cut or slow.
type network struct {
	cut  map[[2]uint64]bool
	slow map[[2]uint64]int64 // what a way takes longer
	told map[[2]uint64]int64 // when a node last heard that another cannot be reached
}

var errNetwork = errors.New("connection refused")

// open reports whether something can get from one member to another.
func (s *simulation) open(from, to uint64) bool { return !s.network.cut[[2]uint64{from, to}] }

func (s *simulation) delay() int64 {
	if s.chance(s.weather.late) {
		return s.exponential(s.weather.lateDelay)
	}
	return s.exponential(s.weather.delay) + int64(20*time.Microsecond)
}

// carry has arrive called at the receiver, once, never or more often.
func (s *simulation) carry(from, to *member, arrive func(n *raftgroup.Node)) {
	copies := 1
	if s.chance(s.weather.loss) {
		copies = 0
	}
	if s.chance(s.weather.double) {
		copies++
	}
	if !s.open(from.id, to.id) || to.node == nil {
		s.tellUnreachable(from, to)
		return
	}
	for range copies {
		s.after(s.delay()+s.network.slow[[2]uint64{from.id, to.id}], func() {
			if to.node != nil && s.open(from.id, to.id) {
				n := to.node
				to.whenRunning(func() { arrive(n) })
			}
		})
	}
}

// tellUnreachable lets a node know, as a broken connection would.
func (s *simulation) tellUnreachable(from, to *member) {
	way, now := [2]uint64{from.id, to.id}, s.now()
	if last, ok := s.network.told[way]; ok && now-last < int64(100*time.Millisecond) {
		return
	}
	s.network.told[way] = now
	n := from.node
	s.after(int64(time.Millisecond), func() {
		if from.node == n && n != nil {
			from.whenRunning(func() { n.Unreachable(to.id) })
		}
	})
}

// link is the transport of one life of a member.
type link struct {
	sim  *simulation
	from *member
	life int
}

func (l *link) dead() bool { return l.from.life != l.life }

// to returns another member, nil if there is none or this life is over.
func (l *link) to(node uint64) *member {
	if l.dead() || node >= uint64(len(l.sim.members)) {
		return nil
	}
	return l.sim.members[node]
}

// Send puts a message on its way.
func (l *link) Send(node uint64, shard uint32, m *raftpb.Message) {
	to := l.to(node)
	if to == nil {
		return
	}
	s := l.sim
	s.note("%d → %d shard %d type %d term %d index %d", l.from.id, node, uint64(shard), uint64(m.Type), m.Term, m.Index)
	if s.config.Break.ForgedAppends && m.Type == raftpb.MsgApp && len(m.Entries) > 0 {
		l.forge(shard, m)
	}
	b, err := m.Marshal()
	s.must(err)
	from := l.from.id
	s.carry(l.from, to, func(n *raftgroup.Node) {
		var m raftpb.Message
		s.must(m.Unmarshal(b))
		n.Receive(from, shard, m)
		n.ReceiveDone(from)
	})
}

// forge answers a message for the one it is sent to, who may never get it.
func (l *link) forge(shard uint32, m *raftpb.Message) {
	n, to := l.from.node, m.To>>24
	answer := raftpb.Message{Type: raftpb.MsgAppResp, From: m.To, To: m.From, Term: m.Term, Index: m.Entries[len(m.Entries)-1].Index}
	l.sim.after(1, func() {
		if l.from.node == n && n != nil {
			n.Receive(to, shard, answer)
			n.ReceiveDone(to)
		}
	})
}

// Transmit does nothing: messages are on their way already.
func (l *link) Transmit() {}

// SendFrame is a problem: etcd's raft, which is simulated, has no frames of its own.
func (l *link) SendFrame(node uint64, _ []byte) error {
	l.sim.problem("node %d sends node %d a frame of another engine", l.from.id, node)
	return errNetwork
}

// Connected reports whether the way to another node is open.
func (l *link) Connected(node uint64) error {
	if l.reachable(node) == nil {
		return errNetwork
	}
	return nil
}

// Report sends a report to another node.
func (l *link) Report(node uint64, body []byte) bool {
	to := l.to(node)
	if l.dead() || to == nil {
		return false
	}
	from := l.from.id
	l.sim.carry(l.from, to, func(n *raftgroup.Node) { n.ReceiveReport(from, body) })
	return true
}

// Version returns the newest there is: all nodes run the same program.
func (l *link) Version(uint64) uint16 { return 1<<16 - 1 }

// Call asks another node at once, if both directions are open.
func (l *link) Call(ctx context.Context, node uint64, verb string, body []byte) ([]byte, error) {
	if n := l.reachable(node); n != nil {
		return n.Call(ctx, l.from.id, verb, body)
	}
	return nil, errNetwork
}

// reachable returns another node if it can be asked now.
func (l *link) reachable(node uint64) *raftgroup.Node {
	l.sim.fence()
	defer l.sim.fence()
	to := l.to(node)
	if to == nil || !to.running() || !l.sim.open(l.from.id, node) || !l.sim.open(node, l.from.id) {
		return nil
	}
	return to.node
}

// Forward is for package server, which is not part of the simulation.
func (l *link) Forward(context.Context, uint64) (net.Conn, error) { return nil, errNetwork }

// SetPeer does nothing: everybody knows everybody's address.
func (l *link) SetPeer(uint64, string) {}

// RemovePeer does nothing.
func (l *link) RemovePeer(uint64) {}

// Expel is a problem: every node here follows the protocol.
func (l *link) Expel(node uint64, err error) {
	l.sim.problem("node %d is told by node %d what no correct node says: %v", l.from.id, node, err)
}
