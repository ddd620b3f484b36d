package command

import (
	"encoding/json"
	"slices"
)

// States of a cluster's Health, from best to worst.
const (
	Healthy       = "healthy"     // each shard has a leader and all the replicas it should have
	Degraded      = "degraded"    // each shard has a leader, but something is missing or fails
	HealthUnknown = "unknown"     // not enough has been reported to tell
	Unavailable   = "unavailable" // some shards have no leader: they refuse writes and linearizable reads
)

// Health is a judgement of a ClusterStatus: the health of the cluster, and what the
// loss of one more node would mean. Shards are named as in ShardInfo.
type Health struct {
	State string `json:"state"`
	// FailuresTolerated is how many more nodes may fail, whichever they are,
	// before a shard loses its quorum.
	FailuresTolerated int `json:"failures_tolerated"`
	// NextFailure is the most that the loss of one more node can do.
	NextFailure NextFailure `json:"next_failure"`
	// Shards by what is wrong with them; a shard may be in several lists.
	Leaderless      ShardList `json:"leaderless,omitempty"`       // a majority of the replicas has no leader, or is not to be reached
	Unknown         ShardList `json:"unknown,omitempty"`          // whether there is a leader is not known
	Unserved        ShardList `json:"unserved,omitempty"`         // no replica can be opened: all are damaged
	DamagedOnly     ShardList `json:"damaged_only,omitempty"`     // no replica but damaged ones
	Damaged         ShardList `json:"damaged,omitempty"`          // a replica is damaged, another is sound
	UnderReplicated ShardList `json:"under_replicated,omitempty"` // fewer healthy voters than the shard should have
	Incomplete      ShardList `json:"incomplete,omitempty"`       // a replica without a vote is missing, or its node is not up
	NotFollowing    ShardList `json:"not_following,omitempty"`    // a replica does not follow the leader yet
	Behind          ShardList `json:"behind,omitempty"`           // a voter follows the leader, and is still to get what was acknowledged
	Moving          ShardList `json:"moving,omitempty"`           // replicas are on their way to other nodes
	// Troubled are the nodes that are not up, have not reported lately, or have a
	// slow disk, a wrong clock or damaged files.
	Troubled []uint64 `json:"troubled_nodes,omitempty"`
}

// ShardList names shards as ShardInfo does. In JSON the meta group is "meta".
type ShardList []int

const metaName = "meta"

// MarshalJSON implements json.Marshaler.
func (l ShardList) MarshalJSON() ([]byte, error) {
	names := make([]any, len(l))
	for i, shard := range l {
		if names[i] = shard; shard == MetaShard {
			names[i] = metaName
		}
	}
	return json.Marshal(names)
}

// UnmarshalJSON implements json.Unmarshaler.
func (l *ShardList) UnmarshalJSON(b []byte) error {
	var names []json.RawMessage
	if err := json.Unmarshal(b, &names); err != nil {
		return err
	}
	*l = make(ShardList, len(names))
	for i, name := range names {
		if string(name) == `"`+metaName+`"` {
			(*l)[i] = MetaShard
		} else if err := json.Unmarshal(name, &(*l)[i]); err != nil {
			return err
		}
	}
	return nil
}

// NextFailure says how many shards lose their quorum if one of the nodes named
// is lost, too. Nodes is empty where every shard has a voter to spare.
type NextFailure struct {
	Shards int      `json:"shards_lost"`
	Nodes  []uint64 `json:"nodes,omitempty"`
}

// Replication is the health of the voting replicas of a shard.
type Replication struct {
	Healthy int // voters whose node is up and reports, whose files are sound, and which are not behind
	Voters  int // all voters
	Wanted  int // voters that there should be

	healthy []uint64 // their nodes
}

// Quorum is how many voters must be healthy for the shard to have a leader.
func (r Replication) Quorum() int { return r.Voters/2 + 1 }

// Short reports whether there are fewer healthy voters than there should be.
func (r Replication) Short() bool { return r.Healthy < r.Wanted }

// Assess judges the cluster by what s says. It asks nobody, and changes nothing.
func (s *ClusterStatus) Assess() Health {
	h := Health{State: Healthy}
	at := make(map[uint64]int) // shards that lose their quorum with a node
	h.FailuresTolerated = -1
	for i := range s.Shards {
		sh := &s.Shards[i]
		h.sort(s, sh)
		r := s.Replication(sh)
		spare := max(r.Healthy-r.Quorum(), 0)
		if h.FailuresTolerated < 0 || spare < h.FailuresTolerated {
			h.FailuresTolerated = spare
		}
		if spare == 0 && r.Healthy >= r.Quorum() {
			for _, node := range r.healthy {
				at[node]++
			}
		}
	}
	h.FailuresTolerated = max(h.FailuresTolerated, 0)
	for node, shards := range at {
		switch {
		case shards > h.NextFailure.Shards:
			h.NextFailure = NextFailure{shards, []uint64{node}}
		case shards == h.NextFailure.Shards:
			h.NextFailure.Nodes = append(h.NextFailure.Nodes, node)
		}
	}
	slices.Sort(h.NextFailure.Nodes)
	for i := range s.Nodes {
		if n := &s.Nodes[i]; n.troubled() {
			h.Troubled = append(h.Troubled, n.ID)
		}
	}
	switch {
	case len(s.Shards) == 0 || len(s.Nodes) == 0:
		h.State = HealthUnknown
	case len(h.Leaderless)+len(h.Unserved) > 0:
		h.State = Unavailable
	case len(h.Unknown) > 0:
		h.State = HealthUnknown
	case len(h.Troubled)+len(h.DamagedOnly)+len(h.Damaged)+len(h.UnderReplicated)+len(h.Incomplete)+len(h.NotFollowing)+len(h.Behind) > 0:
		h.State = Degraded
	}
	return h
}

// Outdated reports whether what the node last said of itself does not count as
// its present state: it is not up, or has not reported lately.
func (n *NodeInfo) Outdated() bool { return n.Stale || n.State != NodeUp }

// MarshalJSON implements json.Marshaler. The figures of a node that is outdated
// are null, so that nobody adds them to those of the others.
func (n NodeInfo) MarshalJSON() ([]byte, error) {
	type plain NodeInfo
	if !n.Outdated() {
		return json.Marshal(plain(n))
	}
	return json.Marshal(struct {
		plain
		Leaders       *int     `json:"leaders"`
		Replicas      *int     `json:"replicas"`
		FsyncMicros   *float64 `json:"fsync_us"`
		LogBytes      *int64   `json:"log_bytes"`
		DiskUsedBytes *int64   `json:"disk_used_bytes"`
		DiskFreeBytes *int64   `json:"disk_free_bytes"`
		UptimeSeconds *int64   `json:"uptime_s"`
	}{plain: plain(n)})
}

// troubled reports whether something is wrong with a node.
func (n *NodeInfo) troubled() bool {
	return n.State != NodeExpected && (n.State != NodeUp || n.Slow || n.ClockOff || n.Stale || n.DamagedFiles > 0)
}

// sort puts a shard into the lists where it belongs.
func (h *Health) sort(s *ClusterStatus, sh *ShardInfo) {
	damaged := len(sh.DamagedOn())
	all := damaged > 0 && damaged == len(sh.Replicas)
	r := s.Replication(sh)
	led := false
	switch leadership := sh.Leadership(); {
	case all && leadership == ShardLeaderless:
		h.Unserved = append(h.Unserved, sh.Shard)
	case leadership == ShardLeaderless:
		h.Leaderless = append(h.Leaderless, sh.Shard)
	case leadership == ShardUnknown:
		h.Unknown = append(h.Unknown, sh.Shard)
	case all:
		h.DamagedOnly = append(h.DamagedOnly, sh.Shard)
	default:
		led = true
	}
	for _, kind := range []struct {
		list *ShardList
		is   bool
	}{
		{&h.Damaged, led && damaged > 0},
		{&h.Moving, led && sh.Moving},
		{&h.UnderReplicated, r.Short()},
		{&h.Incomplete, led && !r.Short() && !sh.Moving && len(s.Missing(sh)) > 0},
		{&h.NotFollowing, led && !sh.Moving && damaged == 0 && len(s.Missing(sh)) == 0 && len(sh.NotFollowing()) > 0},
		{&h.Behind, led && !sh.Moving && damaged == 0 && len(s.Missing(sh)) == 0 && len(sh.NotFollowing()) == 0 && len(sh.BehindOn()) > 0},
	} {
		if kind.is {
			*kind.list = append(*kind.list, sh.Shard)
		}
	}
}

// Replication returns the health of the voting replicas of a shard.
func (s *ClusterStatus) Replication(sh *ShardInfo) (r Replication) {
	voters := sh.Voters
	if voters == nil { // a server that does not tell
		voters = slices.DeleteFunc(slices.Clone(sh.Desired), func(node uint64) bool {
			replica := sh.On(node)
			return replica != nil && replica.Role == roleLearner
		})
	}
	for _, node := range voters {
		replica, info := sh.On(node), s.Node(node)
		if replica != nil && !replica.Stale && !replica.Damaged && !replica.Behind && replica.Role != roleLearner && info != nil && info.State == NodeUp {
			r.healthy = append(r.healthy, node)
		}
	}
	r.Healthy, r.Voters, r.Wanted = len(r.healthy), len(voters), len(voters)
	if s.Standalone {
		return r
	}
	wanted := s.ReplicationFactor
	if sh.Shard == MetaShard {
		wanted = min(wanted, metaVotersMax)
	}
	r.Wanted = max(r.Wanted, wanted)
	return r
}

// metaVotersMax bounds the voters of the meta group, whatever the replication
// factor is.
const metaVotersMax = 5

const roleLearner = "learner"

// Node returns what is said of a node, nil where it is no member.
func (s *ClusterStatus) Node(id uint64) *NodeInfo {
	return find(s.Nodes, func(n *NodeInfo) bool { return n.ID == id })
}

// On returns a node's replica, nil where it has none.
func (sh *ShardInfo) On(node uint64) *ReplicaInfo {
	return find(sh.Replicas, func(r *ReplicaInfo) bool { return r.Node == node })
}

func find[T any](list []T, is func(*T) bool) *T {
	for i := range list {
		if is(&list[i]) {
			return &list[i]
		}
	}
	return nil
}

// Missing returns the nodes that should hold a replica of the shard and have
// none, or are not up.
func (s *ClusterStatus) Missing(sh *ShardInfo) (out []uint64) {
	for _, id := range sh.Desired {
		if n := s.Node(id); sh.On(id) == nil || n == nil || n.State != NodeUp {
			out = append(out, id)
		}
	}
	return out
}

// Leadership returns whether a shard has a leader, which servers before v0.2 do
// not say in one word.
func (sh *ShardInfo) Leadership() string {
	switch {
	case sh.State != "":
		return sh.State
	case sh.Leader == 0:
		return ShardLeaderless
	}
	return ShardLed
}

// NotFollowing returns the nodes whose replica of the shard follows another
// leader than the shard's, or none, as it says itself: clients that ask there are
// refused. A leader that has only just been elected is given the time to make itself
// known. Servers before v0.2 do not tell.
func (sh *ShardInfo) NotFollowing() (out []uint64) {
	if sh.NewLeader {
		return nil
	}
	for _, r := range sh.Replicas {
		if sh.State != "" && !r.Stale && r.Follows != sh.Leader && slices.Contains(sh.Desired, r.Node) {
			out = append(out, r.Node)
		}
	}
	return out
}

// BehindOn returns the nodes whose replica of the shard votes, and is behind.
func (sh *ShardInfo) BehindOn() (out []uint64) {
	for _, r := range sh.Replicas {
		if r.Behind && !r.Stale {
			out = append(out, r.Node)
		}
	}
	return out
}

// DamagedOn returns the nodes whose replica of the shard is damaged.
func (sh *ShardInfo) DamagedOn() (out []uint64) {
	for _, r := range sh.Replicas {
		if r.Damaged {
			out = append(out, r.Node)
		}
	}
	return out
}
