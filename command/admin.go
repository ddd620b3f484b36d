package command

import (
	"errors"
	"time"

	"github.com/proa-kv/proa/access"
)

// Errors of administrative requests, wrapped with what was wrong and what to
// do.
var (
	ErrInvalid = errors.New("invalid")   // the arguments make no sense
	ErrRefused = errors.New("refused")   // the cluster's state does not allow it now
	ErrTimeout = errors.New("timed out") // it may have had its effect, or may yet
)

// MetaShard stands for the meta group where shards are named.
const MetaShard = -1

// Names of administrative requests. Arguments and answers are JSON, of the
// types below.
const (
	AdminStatus       = "status"              // nothing → ClusterStatus
	AdminMemberAdd    = "member.add"          // MemberArgs → Done: a node of this number may join
	AdminMemberRemove = "member.remove"       // MemberArgs → Done: its replicas are moved first
	AdminMemberToken  = "member.token"        // TokenArgs → JoinToken: what a node must know to join
	AdminMemberDrain  = "member.drain"        // MemberArgs → Done: it gives its leaderships away and takes none
	AdminShardMove    = "shard.move"          // ShardArgs → Done: the replica on From is rebuilt on To
	AdminTransfer     = "shard.transfer"      // ShardArgs → Done: To becomes the leader
	AdminSplitLeaders = "shard.split_leaders" // nothing → Done: leaders are spread evenly
	AdminChecksum     = "shard.checksum"      // ShardArgs → ShardChecksum: all replicas at one index

	AdminUserList     = "user.list"     // nothing → UserList
	AdminUserSet      = "user.set"      // UserArgs → Done: a user is added or changed
	AdminUserRemove   = "user.remove"   // NameArgs → Done
	AdminUserPassword = "user.password" // PasswordArgs → Done: the asker's own
	AdminUserSelf     = "user.self"     // nothing → Identity: who asks
	AdminRoleSet      = "role.set"      // access.RoleEdit → Done: a role is added or changed
	AdminRoleRemove   = "role.remove"   // NameArgs → Done
)

// AdminRights are the rights that each administrative request takes. Who asks for
// AdminUserPassword must be that user.
var AdminRights = map[string]access.Rights{
	AdminStatus:       access.Monitor,
	AdminMemberAdd:    access.Admin,
	AdminMemberRemove: access.Admin,
	AdminMemberToken:  access.Admin,
	AdminMemberDrain:  access.Admin,
	AdminShardMove:    access.Admin,
	AdminTransfer:     access.Admin,
	AdminSplitLeaders: access.Admin,
	AdminChecksum:     access.Admin,
	AdminUserList:     access.Admin,
	AdminUserSet:      access.Admin,
	AdminUserRemove:   access.Admin,
	AdminUserPassword: 0,
	AdminUserSelf:     0,
	AdminRoleSet:      access.Admin,
	AdminRoleRemove:   access.Admin,
}

// MemberArgs name a node.
type MemberArgs struct {
	Node    uint64 `json:"node"`
	Address string `json:"address,omitempty"` // member.add: of its peer port, for people; optional
	Undo    bool   `json:"undo,omitempty"`    // member.drain: takes part again. member.remove: stays
	Force   bool   `json:"force,omitempty"`   // member.remove: even if some replicas cannot be rebuilt elsewhere
}

// TokenArgs ask for the join token.
type TokenArgs struct {
	New       bool   `json:"new,omitempty"`    // draw another one; the old one is of no use any more
	Revoke    bool   `json:"revoke,omitempty"` // it ends now, and there is none
	TTLMillis uint64 `json:"ttl_ms,omitempty"` // it is valid for so long at least; 0: TokenTTLDefault
}

// Bounds of how long a join token is valid.
const (
	TokenTTLMin     = time.Minute
	TokenTTLDefault = time.Hour
	TokenTTLMax     = 30 * 24 * time.Hour
)

// JoinToken is what a node must know to join the cluster.
type JoinToken struct {
	Token string `json:"token"`
	Peer  string `json:"peer"` // address of a member, to join at
	// ForMillis is how long the token is still valid; 0 from servers on which it never ends.
	ForMillis uint64 `json:"for_ms,omitempty"`
}

// UserArgs edit a user. The node that is asked replaces passwords by their hashes, and sends
// them nowhere.
type UserArgs struct {
	access.UserEdit
	Passwords     []string `json:"passwords,omitempty"`      // to add
	DropPasswords []string `json:"drop_passwords,omitempty"` // to remove
}

// NameArgs name a user or a role.
type NameArgs struct {
	Name string `json:"name"`
}

// PasswordArgs change the password of who asks, and has logged in by one.
type PasswordArgs struct {
	Name     string `json:"name,omitempty"` // of who asks, if that is to be made sure
	Current  string `json:"current"`
	Password string `json:"password,omitempty"`
	KeepOld  bool   `json:"keep_old,omitempty"` // the current one stays valid as well
	DropOld  bool   `json:"drop_old,omitempty"` // no new one: of two passwords only the newest stays, which is the current one
}

// Identity is who asks, and what they may do.
type Identity struct {
	Login      string        `json:"login"`                // how they have proven it: none, password, certificate, or local, the operator on the machine
	Everything bool          `json:"everything,omitempty"` // may be done without a user
	User       *UserInfo     `json:"user,omitempty"`       // nil: none
	Granted    []access.Role `json:"granted,omitempty"`    // the user's roles
}

// UserList is all users and roles, in order of their names.
type UserList struct {
	Users []UserInfo    `json:"users"`
	Roles []access.Role `json:"roles"` // built-in ones included
}

// UserInfo is a user as others may see it.
type UserInfo struct {
	access.User               // without the hashes
	Passwords   int           `json:"passwords"`
	Holds       access.Rights `json:"holds,omitempty"` // of Monitor and Admin, those of the roles included
}

// InfoOf returns u, which p permits something, as others may see it. A nil p permits
// nothing.
func InfoOf(u access.User, p *access.Permit) UserInfo {
	info := UserInfo{User: u, Passwords: len(u.Passwords)}
	if info.User.Passwords = nil; p != nil {
		info.Holds = p.Rights
	}
	return info
}

// ShardArgs name a shard and, where the request needs them, nodes.
type ShardArgs struct {
	Shard int    `json:"shard"` // MetaShard: the meta group
	From  uint64 `json:"from,omitempty"`
	To    uint64 `json:"to,omitempty"`
}

// Done says in a sentence what was done, or what has begun and goes on in the
// background.
type Done struct {
	Message string `json:"message"`
}

// ShardChecksum is the proof of A1 for one shard: every replica's checksum at
// the same index.
type ShardChecksum struct {
	Shard    int               `json:"shard"`
	Index    uint64            `json:"index"`
	Equal    bool              `json:"equal"`
	Replicas []ReplicaChecksum `json:"replicas"`
}

// ReplicaChecksum is one replica's part of a ShardChecksum. Error says why
// there is none.
type ReplicaChecksum struct {
	Node     uint64 `json:"node"`
	Checksum uint64 `json:"checksum,string"`
	Error    string `json:"error,omitempty"`
}

// Node states in a ClusterStatus.
const (
	NodeUp       = "up"
	NodeSuspect  = "suspect"  // unheard of for a second (three heartbeats, if those are longer), or its connection has broken
	NodeDown     = "down"     // unheard of for ten seconds and more
	NodeExpected = "expected" // may join, has not yet
)

// ClusterStatus is the whole cluster as the node that was asked sees it.
type ClusterStatus struct {
	Cluster    string `json:"cluster"`          // 16 hex digits
	Engine     string `json:"engine,omitempty"` // that runs its Raft groups; empty from servers that do not tell
	Epoch      uint64 `json:"epoch"`            // of the slot map
	Asked      uint64 `json:"asked"`            // the node that answers
	MetaLeader uint64 `json:"meta_leader"`
	// ReplicationFactor is how many replicas a shard should have; 0 from servers
	// that do not tell.
	ReplicationFactor int `json:"replication_factor,omitempty"`
	// LeftOutBy is the node on which the cluster was recovered without the node
	// asked, which knows only the old cluster; 0: none.
	LeftOutBy uint64 `json:"left_out_by,omitempty"`
	// Standalone: no other node has ever been part of the cluster, so that it is
	// not short of any.
	Standalone bool        `json:"standalone,omitempty"`
	Health     *Health     `json:"health,omitempty"` // what Assess finds; servers before v0.3 send none
	Nodes      []NodeInfo  `json:"nodes"`            // by number
	Shards     []ShardInfo `json:"shards"`           // the meta group first, then by number
}

// NodeInfo is one node's part of a ClusterStatus. State and LastSeenMillis are
// what the node asked finds, Leaders is what the shards' parts say; the figures
// from Slow on are what the node last reported of itself, AgeMillis ago. In JSON
// they are null from Replicas on, and so is Leaders, where the node is Outdated.
type NodeInfo struct {
	ID             uint64  `json:"id"`
	Peer           string  `json:"peer"`   // address of its peer port
	Client         string  `json:"client"` // address of its client port
	State          string  `json:"state"`
	Draining       bool    `json:"draining,omitempty"`
	Removing       bool    `json:"removing,omitempty"`
	Version        string  `json:"version"`
	Leaders        int     `json:"leaders"`                   // shards known to be led by it now
	Stale          bool    `json:"stale,omitempty"`           // its last report is too old to count as its state now, or incomplete
	AgeMillis      int64   `json:"age_ms"`                    // of its last report; -1: there is none, or none that is whole
	Slow           bool    `json:"slow,omitempty"`            // its log disk stalls
	DamagedFiles   int     `json:"damaged_files,omitempty"`   // of its state, that some shard needs
	Exposed        bool    `json:"exposed,omitempty"`         // it accepts clients from the network without access control
	ClockOff       bool    `json:"clock_off,omitempty"`       // its wall clock is too far from the others'
	ClockOffset    int64   `json:"clock_offset_ms,omitempty"` // by how much that clock is ahead
	Replicas       int     `json:"replicas"`
	FsyncMicros    float64 `json:"fsync_us"` // recent mean of log write and fdatasync
	LogBytes       int64   `json:"log_bytes"`
	DiskUsedBytes  int64   `json:"disk_used_bytes"` // by the data directory's stores
	DiskFreeBytes  int64   `json:"disk_free_bytes"`
	UptimeSeconds  int64   `json:"uptime_s"`
	LastSeenMillis int64   `json:"last_seen_ms"` // ago; 0 for the node asked
	// Replace says what becomes of the replicas of a node that is not up; nil for
	// nodes that are, and from servers that do not tell.
	Replace *Replacement `json:"replace,omitempty"`
}

// Replacement says when the replicas of a node that is not up are rebuilt on
// other nodes (cluster.replace_after).
type Replacement struct {
	// Shards of users that have a replica on the node, and how many of those can be
	// rebuilt: they have a leader, and another node is up that holds no replica of
	// theirs.
	Shards      int `json:"shards"`
	Rebuildable int `json:"rebuildable"`
	// InMillis is the time until that begins, 0 where it has begun or is due, -1
	// where it never does by itself.
	InMillis int64 `json:"in_ms"`
}

// Shard states in a ClusterStatus. Servers before v0.2 tell none.
const (
	ShardLed        = "led"
	ShardLeaderless = "leaderless" // a majority of its replicas has no leader or is not to be reached
	ShardUnknown    = "unknown"    // some node that might tell has not reported
)

// ShardInfo is one shard's part of a ClusterStatus.
type ShardInfo struct {
	Shard  int    `json:"shard"` // MetaShard: the meta group
	Slots  string `json:"slots,omitempty"`
	State  string `json:"state"`
	Leader uint64 `json:"leader"` // 0: none, or none known; see State
	// NewLeader: the leader has led for so short a time, about a second, that what
	// is said of other replicas may be from before.
	NewLeader bool     `json:"new_leader,omitempty"`
	Term      uint64   `json:"term"`
	Commit    uint64   `json:"commit"`
	Desired   []uint64 `json:"desired"` // nodes that should hold a replica
	// Voters are the nodes whose replicas vote, as the leader says or, where none
	// is known, as the cluster has decided; nil from servers that do not tell.
	Voters   []uint64      `json:"voters,omitempty"`
	Moving   bool          `json:"moving"` // replicas are not yet where they should be
	Replicas []ReplicaInfo `json:"replicas"`
}

// ReplicaInfo is one replica's part of a ShardInfo.
type ReplicaInfo struct {
	Node    uint64 `json:"node"`
	Role    string `json:"role"`            // leader, follower, learner, candidate; unreachable: its node is not up
	Follows uint64 `json:"follows"`         // node that it takes for the leader, 0: it has none
	Stale   bool   `json:"stale,omitempty"` // as NodeInfo.Stale of its node
	// Damaged: files of its state are. It is being replaced by a copy of another
	// replica, or, if it is the only one, refuses what it cannot read.
	Damaged bool `json:"damaged,omitempty"`
	// Behind: it votes, but lacks what was acknowledged some seconds ago, or may: if
	// another replica is lost, the shard may have to wait until it has that. Earlier
	// servers do not tell.
	Behind  bool   `json:"behind,omitempty"`
	Applied uint64 `json:"applied"`
	Lag     uint64 `json:"lag"` // entries behind the highest commit index known
}
