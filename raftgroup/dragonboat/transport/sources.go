package transport

import (
	"sync"

	"github.com/lni/dragonboat/v4/raftio"
	pb "github.com/lni/dragonboat/v4/raftpb"
)

// sourcesMax is how many replicas of a node dragonboat is told of. It keeps each sender
// that it has heard of, for good; a node has few replicas, and as many more as it has
// been moved to.
const sourcesMax = 16 << 10

// sources are the replicas that have sent something, by node.
type sources struct {
	mu    sync.Mutex
	nodes map[uint64]map[raftio.NodeInfo]struct{}
}

// address returns the address that dragonboat is to know the senders of messages by, or
// none where they are too many: then answers reach only those that it knows.
func (s *sources) address(node uint64, ms []pb.Message) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.nodes[node]
	if known == nil {
		known = make(map[raftio.NodeInfo]struct{})
		if s.nodes == nil {
			s.nodes = make(map[uint64]map[raftio.NodeInfo]struct{})
		}
		s.nodes[node] = known
	}
	for i := range ms {
		info := raftio.NodeInfo{ShardID: ms[i].ShardID, ReplicaID: ms[i].From}
		if _, ok := known[info]; ok {
			continue
		}
		if len(known) == sourcesMax {
			return ""
		}
		known[info] = struct{}{}
	}
	return Target(node)
}

// unconfirmed are the snapshots that were sent to a node and that it has not confirmed.
// dragonboat keeps each confirmation for a while, however many they are; those of nothing
// mean nothing, and do not come to it.
type unconfirmed struct {
	mu    sync.Mutex
	nodes map[uint64]int
}

// add notes that a snapshot is sent to a node.
func (u *unconfirmed) add(node uint64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.nodes == nil {
		u.nodes = make(map[uint64]int)
	}
	u.nodes[node]++
}

// take notes that a node confirms one, and reports whether there was any.
func (u *unconfirmed) take(node uint64) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.nodes[node] == 0 {
		return false
	}
	u.nodes[node]--
	return true
}
