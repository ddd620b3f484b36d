package datadir

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/call"
	"github.com/proa-kv/proa/raftgroup/placement"
)

// # How a node comes into a cluster
//
// A node with an empty directory asks the addresses it was given who they are.
// Where one belongs to a cluster already, the node asks to join that. Where all
// answer and none does, the one with the lowest number founds a cluster of all
// of them: it draws the cluster's number and writes down the members; the
// others find that out with their next question and write it down as well. All
// founders begin every group alike, each with its replicas as voters from the
// start, so nothing is ever acknowledged by fewer than a majority of the
// founders.
//
// A directory has a random number of its own, its UID. A member's row holds
// it, so that an empty disk under an old number is told from the node it was.

// ErrJoin refuses a node for good.
var ErrJoin = errors.New("this node cannot join the cluster")

// FormOptions say how a node comes into its cluster. Dir is required.
type FormOptions struct {
	Dir      string
	FS       vfs.FS   // nil: the real file system
	ID       uint64   // 0: what the directory says, else what the cluster gives; 1 for a cluster of one
	Shards   int      // 0: DefaultShards; of a new cluster only
	Engine   string   // as placement.ParseEngine reads it; empty: what the directory or the cluster says, etcd for a new cluster
	Replicas int      // of each shard, of a new cluster only; 0: 3
	Join     []string // peer addresses; empty: a cluster of its own
	Token    string   // of the cluster to join, or for the one to be founded; empty: none, or one is drawn

	PeerAddress   string // of this node, for the others
	ClientAddress string
	RedisAddress  string // for clients of the Redis protocol; empty: they are not served
	Version       string
	Room          int64 // what the node will need on its disk, for messages; 0: not known
	RoomMin       int64 // less free space than this, and a directory without a cluster is refused; 0: none is

	// Call asks the node at an address of Join.
	Call   func(ctx context.Context, address, verb string, body []byte) ([]byte, error)
	Logger *slog.Logger

	// RetryEvery is how long to wait before asking again; 250 ms.
	RetryEvery time.Duration
}

// Former brings a node into a cluster. While Form runs, Answer answers the
// questions of others that do the same.
type Former struct {
	opt FormOptions
	dir *Dir

	mu sync.Mutex
}

// NewFormer opens the directory, which it creates if need be, and gives it a
// UID. Close must follow before the directory is opened again.
func NewFormer(o FormOptions) (*Former, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.RetryEvery = cmp.Or(o.RetryEvery, 250*time.Millisecond)
	o.Replicas = cmp.Or(o.Replicas, DefaultReplicas)
	if err := checkToken(o.Token); err != nil {
		return nil, err
	}
	d, err := Open(o.FS, o.Dir, o.asked(), o.RoomMin, o.Logger)
	if err != nil {
		return nil, Advise(err, fileSystem(o.FS, o.Dir), o.Dir, o.Room)
	}
	return &Former{opt: o, dir: d}, nil
}

func (o *FormOptions) asked() Asked { return Asked{Node: o.ID, Shards: o.Shards, Engine: o.Engine} }

// Close gives the directory up.
func (f *Former) Close() error { return f.dir.Close() }

// Identity returns what the directory says at the moment.
func (f *Former) Identity() Identity {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dir.Identity
}

// Probe is what a node says of itself to whoever asks.
type Probe struct {
	Cluster  uint64            `json:"cluster,string"`
	Node     uint64            `json:"node"`
	UID      uint64            `json:"uid,string"`
	Key      ed25519.PublicKey `json:"key,omitempty"`
	Peer     string            `json:"peer"`
	Client   string            `json:"client"`
	Redis    string            `json:"redis,omitempty"`
	Version  string            `json:"version"`
	Shards   int               `json:"shards"`
	Replicas int               `json:"replicas"`
	Engine   placement.Engine  `json:"engine,omitempty"` // before there is a cluster, that of one this node would found
	Members  []Member          `json:"members"`          // that the cluster was founded with
}

// Probe returns what a node says of itself.
func (id *Identity) Probe(self Member, version string) Probe {
	return Probe{
		Cluster: id.Cluster, Node: id.Node, UID: id.UID, Key: id.Key.Public(), Peer: self.Peer, Client: self.Client, Redis: self.Redis, Version: version,
		Shards: id.Shards, Replicas: id.Replicas, Engine: id.Engine, Members: id.founders(),
	}
}

// Answer answers another node while this one is not part of a cluster yet.
func (f *Former) Answer(verb string) ([]byte, error) {
	if verb != call.Probe {
		return call.Pack(nil, fmt.Errorf("%w: this node is not part of a cluster yet; try again", command.ErrNotLeader))
	}
	id := f.Identity()
	if id.Cluster == 0 {
		id.Engine = f.engine()
	}
	return json.Marshal(id.Probe(f.self(), f.opt.Version))
}

// Form returns once the node belongs to a cluster and its directory says so,
// or with the reason why it never will, or when ctx ends. A directory that
// belongs to another cluster than the nodes at the addresses of Join is refused:
// see checkCluster.
func (f *Former) Form(ctx context.Context) (Identity, error) {
	if id := f.Identity(); id.Cluster != 0 {
		return id, f.checkCluster(ctx, &id)
	}
	if len(f.opt.Join) == 0 {
		return f.found([]Member{f.self()})
	}
	warned := time.Now()
	for {
		waiting, err := f.try(ctx)
		if err != nil || waiting == "" {
			return f.Identity(), err
		}
		if time.Since(warned) > 5*time.Second {
			warned = time.Now()
			f.opt.Logger.Warn("waiting to join or form a cluster", "because", waiting)
		}
		select {
		case <-ctx.Done():
			return f.Identity(), fmt.Errorf("%w: %s", ctx.Err(), waiting)
		case <-time.After(f.opt.RetryEvery):
		}
	}
}

// checkWait bounds how long a node that belongs to a cluster waits for answers
// from the addresses it was given. Its cluster may be down as a whole.
const checkWait = time.Second

// checkCluster refuses a directory whose cluster is not that of the nodes it is to
// join: the operator expects a new node of that cluster, and would get one of
// another. One answer from the directory's own cluster is enough to go on, and so
// is silence.
func (f *Former) checkCluster(ctx context.Context, id *Identity) error {
	if len(f.opt.Join) == 0 || f.opt.Call == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, checkWait)
	defer cancel()
	type answer struct {
		address string
		cluster uint64 // 0: no answer, one from a node without a cluster, or this node's own
	}
	answers := make(chan answer, len(f.opt.Join))
	for _, address := range f.opt.Join {
		go func() {
			r, err := f.probe(ctx, address)
			if err != nil || r.UID == id.UID {
				r.Cluster = 0
			}
			answers <- answer{address, r.Cluster}
		}()
	}
	var other answer
	for range f.opt.Join {
		switch a := <-answers; a.cluster {
		case 0:
		case id.Cluster:
			return nil
		default:
			other = a
		}
	}
	if other.cluster == 0 {
		return nil
	}
	return fmt.Errorf("%w: the data directory %s belongs to node %d of cluster %s, but --join %s is a node of cluster %s; to join that cluster, choose an empty directory with --data; to start the node of this directory, omit --join",
		ErrJoin, f.opt.Dir, id.Node, ClusterText(id.Cluster), other.address, ClusterText(other.cluster))
}

func (f *Former) self() Member {
	id := f.Identity()
	return Member{ID: id.Node, UID: id.UID, Key: id.Key.Public(), Peer: f.opt.PeerAddress, Client: f.opt.ClientAddress, Redis: f.opt.RedisAddress}
}

// try asks everybody once. It returns what it waits for, or "" when the node
// belongs to a cluster.
func (f *Former) try(ctx context.Context) (waiting string, err error) {
	replies, silent, err := f.probeAll(ctx)
	if err != nil {
		return "", err
	}
	self := f.self()
	found := false
	for address, r := range replies {
		found = found || r.UID == self.UID
		if r.UID == self.UID || r.Cluster == 0 {
			continue
		}
		if at := slices.IndexFunc(r.Members, func(m Member) bool { return m.UID == self.UID }); at >= 0 {
			return "", f.adoptFounded(&r, r.Members[at].ID)
		}
		if err := f.check(r.Shards, r.Engine); err != nil {
			return "", err // before the cluster counts on this node
		}
		return f.join(ctx, address, r.Engine)
	}
	for _, r := range replies {
		if own := f.engine(); r.Engine != own {
			return "", fmt.Errorf("%w: this node creates the cluster with the engine %v, but the node at %s with %v; give all nodes that create the cluster the same raft.engine", ErrJoin, own, r.Peer, r.Engine)
		}
	}
	if len(silent) > 0 {
		slices.Sort(silent)
		return "no answer from " + strings.Join(silent, ", ") + "; a new cluster starts once all nodes given by --join answer", nil
	}
	if !found {
		return "", fmt.Errorf("%w: none of the addresses given by --join is this node's own, and the nodes there have no cluster yet; list all founding nodes, including this one (%s), or give addresses of a running cluster", ErrJoin, self.Peer)
	}
	return f.foundWith(replies)
}

// adoptFounded writes down that a cluster was founded with this node, as the
// one of that number. The node may have been started with another number since,
// or with none.
func (f *Former) adoptFounded(r *Probe, node uint64) error {
	if asked := f.opt.ID; asked != 0 && asked != node {
		return fmt.Errorf("%w: cluster %s was created with this directory as node %d; start with --node-id %d, or without --node-id", ErrJoin, ClusterText(r.Cluster), node, node)
	}
	return f.adopt(Identity{Cluster: r.Cluster, Node: node, Shards: r.Shards, Replicas: r.Replicas, Engine: r.Engine, Members: r.Members, Founder: true})
}

// probeAll asks everybody who they are. The error is one that asking again does
// not mend.
func (f *Former) probeAll(ctx context.Context) (replies map[string]Probe, silent []string, final error) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	replies = make(map[string]Probe)
	for _, address := range f.opt.Join {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
			defer cancel()
			r, err := f.probe(ctx, address)
			mu.Lock()
			defer mu.Unlock()
			if errors.Is(err, ErrJoin) {
				final = err
				return
			}
			if err != nil {
				silent = append(silent, fmt.Sprintf("%s (%v)", address, err))
				return
			}
			replies[address] = r
		})
	}
	wg.Wait()
	return replies, silent, final
}

// probe asks the node at an address who it is.
func (f *Former) probe(ctx context.Context, address string) (r Probe, err error) {
	b, err := f.opt.Call(ctx, address, call.Probe, nil)
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	return r, err
}

// foundWith founds a cluster of all who answered, if this node is the one to do
// it.
func (f *Former) foundWith(replies map[string]Probe) (waiting string, err error) {
	var members []Member
	for _, r := range replies {
		if slices.ContainsFunc(members, func(m Member) bool { return m.UID == r.UID }) {
			continue // one node by two addresses
		}
		if r.Node == 0 {
			return "", fmt.Errorf("%w: the node at %s has no number; each node that creates a cluster needs its own: set it with --node-id", ErrJoin, r.Peer)
		}
		members = append(members, Member{ID: r.Node, UID: r.UID, Key: r.Key, Peer: r.Peer, Client: r.Client, Redis: r.Redis})
	}
	slices.SortFunc(members, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	for i := 1; i < len(members); i++ {
		if members[i].ID == members[i-1].ID {
			return "", fmt.Errorf("%w: the nodes at %s and %s both have number %d; give each node its own with --node-id", ErrJoin, members[i-1].Peer, members[i].Peer, members[i].ID)
		}
	}
	if members[0].UID != f.self().UID {
		return fmt.Sprintf("waiting for node %d, at %s, to create the cluster", members[0].ID, members[0].Peer), nil
	}
	_, err = f.found(members)
	return "", err
}

func (f *Former) found(members []Member) (Identity, error) {
	id := f.Identity()
	if id.Node == 0 {
		id.Node = 1
		members[0].ID = 1
	}
	shards := cmp.Or(f.opt.Shards, DefaultShards)
	err := f.adopt(Identity{Cluster: NewID(), Node: id.Node, Shards: shards, Replicas: f.opt.Replicas, Engine: f.engine(), Members: members, Founder: true})
	if err == nil {
		f.opt.Logger.Info("created a new cluster", "cluster", ClusterText(f.Identity().Cluster), "nodes", len(members), "shards", shards, "engine", f.engine().String())
	}
	return f.Identity(), err
}

// engine is that of the cluster that this node would found.
func (f *Former) engine() placement.Engine {
	asked := f.opt.asked()
	e, _ := asked.engine() // Open has checked it
	return e
}

// adopt writes down that this node is part of a cluster, with what part says of both.
func (f *Former) adopt(part Identity) error {
	if err := f.check(part.Shards, part.Engine); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	id := f.dir.Identity
	id.Cluster, id.Node, id.Shards, id.Replicas, id.Engine, id.Members, id.Founder = part.Cluster, part.Node, part.Shards, part.Replicas, part.Engine, part.Members, part.Founder
	id.Format = id.format()
	if err := id.Write(f.dir.FS, f.dir.Path); err != nil {
		return Advise(err, f.dir.FS, f.dir.Path, f.opt.Room)
	}
	f.dir.Identity = id
	return nil
}

// check compares what a cluster has with what was asked for.
func (f *Former) check(shards int, engine placement.Engine) error {
	asked := f.opt.asked()
	if !engine.Known() {
		return fmt.Errorf("%w: the cluster has the engine %q, which this version of proa does not have; give this node the version that the other nodes have", ErrJoin, engine)
	}
	if asked.refuses(engine) {
		return fmt.Errorf("%w: the cluster has the engine %v, but %s was requested; %s", ErrJoin, engine, asked.Engine, otherEngine(engine))
	}
	if f.opt.Shards != 0 && f.opt.Shards != shards {
		return fmt.Errorf("%w: the cluster has %d shards, but %d were requested; leave --shards out or set it to %d", ErrJoin, shards, f.opt.Shards, shards)
	}
	return nil
}

// JoinReply is the answer to a placement.Request.
type JoinReply struct {
	Cluster  uint64   `json:"cluster,string"`
	ID       uint64   `json:"id"`
	Shards   int      `json:"shards"`
	Replicas int      `json:"replicas"`
	Members  []Member `json:"members"` // all there are, to know whom to talk to
}

func (f *Former) join(ctx context.Context, address string, engine placement.Engine) (waiting string, err error) {
	self := f.self()
	body, err := json.Marshal(placement.Request{ID: self.ID, UID: self.UID, Key: self.Key, Peer: self.Peer, Client: self.Client, Redis: self.Redis, Version: f.opt.Version, Engine: engine})
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	b, err := f.opt.Call(ctx, address, call.Join, body)
	if err == nil {
		b, err = call.Unpack(b)
	}
	switch {
	case errors.Is(err, command.ErrRefused), errors.Is(err, command.ErrInvalid):
		return "", fmt.Errorf("%w: %w", ErrJoin, err)
	case err != nil:
		return fmt.Sprintf("the cluster at %s cannot accept this node now: %v", address, err), nil
	}
	var r JoinReply
	if err := json.Unmarshal(b, &r); err != nil {
		return "", fmt.Errorf("invalid answer from %s: %w", address, err)
	}
	if err := f.adopt(Identity{Cluster: r.Cluster, Node: r.ID, Shards: r.Shards, Replicas: r.Replicas, Engine: engine, Members: r.Members}); err != nil {
		return "", err
	}
	f.opt.Logger.Info("joined the cluster", "cluster", ClusterText(r.Cluster), "node", r.ID, "at", address)
	return "", nil
}

// ClusterText is how a cluster's number is written.
func ClusterText(id uint64) string { return fmt.Sprintf("%016x", id) }

// FoundAlone makes the directory that of a cluster of this node alone, of which
// self has the addresses, with the shards and the engine asked for.
func (d *Dir) FoundAlone(self Member, asked Asked, logger *slog.Logger) error {
	f := Former{dir: d, opt: FormOptions{Shards: asked.Shards, Engine: asked.Engine, Replicas: DefaultReplicas, PeerAddress: self.Peer, ClientAddress: self.Client, RedisAddress: self.Redis, Logger: logger}}
	_, err := f.found([]Member{f.self()})
	return err
}
