package placement

// A replica's number within its group, Raft's peer id, is the number of its
// node and an incarnation. A replica that leaves a node and comes back is
// another one: what the first promised, votes above all, is not asked of the
// second, which has forgotten it.
const (
	incarnationBits = 24
	incarnationMax  = 1<<incarnationBits - 1

	// NodeMax is the highest number of a node.
	NodeMax = 1<<(64-incarnationBits) - 1
)

// ReplicaID returns the number of a replica.
func ReplicaID(node uint64, incarnation uint32) uint64 {
	return node<<incarnationBits | uint64(incarnation)
}

// NodeOf returns the node of a replica.
func NodeOf(replica uint64) uint64 { return replica >> incarnationBits }

// IncarnationOf returns the incarnation of a replica.
func IncarnationOf(replica uint64) uint32 { return uint32(replica & incarnationMax) }

// Replica is one replica in the row of a shard.
type Replica struct {
	Node        uint64 `json:"node"`
	Incarnation uint32 `json:"incarnation"`
	Learner     bool   `json:"learner,omitempty"` // keeps up, does not vote
}

// ID returns the number of the replica within its group.
func (r Replica) ID() uint64 { return ReplicaID(r.Node, r.Incarnation) }
