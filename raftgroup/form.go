package raftgroup

import (
	"bytes"
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
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/proa-kv/proa/command"
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
	Replicas int      // of each shard, of a new cluster only; 0: 3
	Join     []string // peer addresses; empty: a cluster of its own
	Token    string   // of the cluster to join, or for the one to be founded; empty: none, or one is drawn

	PeerAddress   string // of this node, for the others
	ClientAddress string
	RedisAddress  string // for clients of the Redis protocol; empty: they are not served
	Version       string
	Room          int64 // what the node will need on its disk, for messages; 0: not known
	RoomMin       int64 // less free space than this, and a directory without a cluster is refused; 0: none is

	// Call asks the node at an address of Join, as Node.Call answers.
	Call   func(ctx context.Context, address, verb string, body []byte) ([]byte, error)
	Logger *slog.Logger

	// RetryEvery is how long to wait before asking again; 250 ms.
	RetryEvery time.Duration
}

// DefaultReplicas is how many replicas a shard has where nothing else is said.
const DefaultReplicas = 3

// Former brings a node into a cluster. While Form runs, Answer answers the
// questions of others that do the same.
type Former struct {
	opt  FormOptions
	lock interface{ Close() error }

	mu sync.Mutex
	id Identity
}

// NewFormer reads the directory, which it creates if need be, and gives it a
// UID. Close must follow before the directory is opened.
func NewFormer(o FormOptions) (*Former, error) {
	o.FS = dirFS(o.FS, o.Dir)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	setDefault(&o.RetryEvery, 250*time.Millisecond)
	setDefault(&o.Replicas, DefaultReplicas)
	if o.Shards < 0 || o.Shards > ShardsMax {
		return nil, fmt.Errorf("%d shards requested, 1 to %d are allowed", o.Shards, ShardsMax)
	}
	if err := checkToken(o.Token); err != nil {
		return nil, err
	}
	if err := prepareDir(o.FS, o.Dir); err != nil {
		return nil, advise(err, o.FS, o.Dir, o.Room)
	}
	lock, err := lockDir(o.FS, o.Dir)
	if err != nil {
		return nil, advise(err, o.FS, o.Dir, o.Room)
	}
	err = o.checkRoom()
	var id Identity
	if err == nil {
		id, err = claim(o.FS, o.Dir, o.ID, o.Shards)
	}
	if err != nil {
		return nil, errors.Join(advise(err, o.FS, o.Dir, o.Room), lock.Close())
	}
	return &Former{opt: o, lock: lock, id: id}, nil
}

// checkRoom refuses a directory without a cluster on a disk that has no space for
// the begin of a log, where the file system says how much there is: other nodes
// must not count on a node that cannot start.
func (o *FormOptions) checkRoom() error {
	u, err := o.FS.GetDiskUsage(o.Dir)
	if err != nil || u.TotalBytes == 0 || u.AvailBytes >= uint64(o.RoomMin) {
		return nil
	}
	if id, ok, err := readIdentity(o.FS, o.Dir); err != nil || ok && id.Cluster != 0 {
		return nil // claim returns the error; with a cluster there may be a log already
	}
	return fmt.Errorf("the log needs %d MiB to begin: %w", (o.RoomMin+1<<20-1)>>20, syscall.ENOSPC)
}

// Close gives the directory up.
func (f *Former) Close() error { return f.lock.Close() }

// Identity returns what the directory says at the moment.
func (f *Former) Identity() Identity {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.id
}

// probeReply is what a node says of itself to whoever asks.
type probeReply struct {
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
	Members  []Member          `json:"members"` // that the cluster was founded with
}

func (id *Identity) probe(self Member, version string) probeReply {
	return probeReply{
		Cluster: id.Cluster, Node: id.Node, UID: id.UID, Key: id.Key.public(), Peer: self.Peer, Client: self.Client, Redis: self.Redis, Version: version,
		Shards: id.Shards, Replicas: id.Replicas, Members: id.founders(),
	}
}

// Answer answers another node while this one is not part of a cluster yet.
func (f *Former) Answer(verb string) ([]byte, error) {
	if verb != callProbe {
		return packReply(nil, fmt.Errorf("%w: this node is not part of a cluster yet; try again", command.ErrNotLeader))
	}
	id := f.Identity()
	return json.Marshal(id.probe(f.self(), f.opt.Version))
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
		ErrJoin, f.opt.Dir, id.Node, clusterText(id.Cluster), other.address, clusterText(other.cluster))
}

func (f *Former) self() Member {
	id := f.Identity()
	return Member{ID: id.Node, UID: id.UID, Key: id.Key.public(), Peer: f.opt.PeerAddress, Client: f.opt.ClientAddress, Redis: f.opt.RedisAddress}
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
		if err := f.checkShards(r.Shards); err != nil {
			return "", err // before the cluster counts on this node
		}
		return f.join(ctx, address)
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
func (f *Former) adoptFounded(r *probeReply, node uint64) error {
	if asked := f.opt.ID; asked != 0 && asked != node {
		return fmt.Errorf("%w: cluster %s was created with this directory as node %d; start with --node-id %d, or without --node-id", ErrJoin, clusterText(r.Cluster), node, node)
	}
	return f.adopt(r.Cluster, node, r.Shards, r.Replicas, r.Members, true)
}

// probeAll asks everybody who they are. The error is one that asking again does
// not mend.
func (f *Former) probeAll(ctx context.Context) (replies map[string]probeReply, silent []string, final error) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	replies = make(map[string]probeReply)
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
func (f *Former) probe(ctx context.Context, address string) (r probeReply, err error) {
	b, err := f.opt.Call(ctx, address, callProbe, nil)
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	return r, err
}

// foundWith founds a cluster of all who answered, if this node is the one to do
// it.
func (f *Former) foundWith(replies map[string]probeReply) (waiting string, err error) {
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
	shards := f.opt.Shards
	setDefault(&shards, DefaultShards)
	err := f.adopt(newClusterID(), id.Node, shards, f.opt.Replicas, members, true)
	if err == nil {
		f.opt.Logger.Info("created a new cluster", "cluster", clusterText(f.Identity().Cluster), "nodes", len(members), "shards", shards)
	}
	return f.Identity(), err
}

// adopt writes down that this node is part of a cluster.
func (f *Former) adopt(cluster, node uint64, shards, replicas int, members []Member, founder bool) error {
	if err := f.checkShards(shards); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	id := f.id
	id.Cluster, id.Node, id.Shards, id.Replicas, id.Members, id.Founder = cluster, node, shards, replicas, members, founder
	if err := writeIdentity(f.opt.FS, f.opt.Dir, id); err != nil {
		return advise(err, f.opt.FS, f.opt.Dir, f.opt.Room)
	}
	f.id = id
	return nil
}

// checkShards compares the cluster's number of shards with what was asked for.
func (f *Former) checkShards(shards int) error {
	if f.opt.Shards != 0 && f.opt.Shards != shards {
		return fmt.Errorf("%w: the cluster has %d shards, but %d were requested; leave --shards out or set it to %d", ErrJoin, shards, f.opt.Shards, shards)
	}
	return nil
}

// joinReply is the answer to a placement.Request.
type joinReply struct {
	Cluster  uint64   `json:"cluster,string"`
	ID       uint64   `json:"id"`
	Shards   int      `json:"shards"`
	Replicas int      `json:"replicas"`
	Members  []Member `json:"members"` // all there are, to know whom to talk to
}

func (f *Former) join(ctx context.Context, address string) (waiting string, err error) {
	self := f.self()
	body, err := json.Marshal(placement.Request{ID: self.ID, UID: self.UID, Key: self.Key, Peer: self.Peer, Client: self.Client, Redis: self.Redis, Version: f.opt.Version})
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	b, err := f.opt.Call(ctx, address, callJoin, body)
	if err == nil {
		b, err = unpackReply(b)
	}
	switch {
	case errors.Is(err, command.ErrRefused), errors.Is(err, command.ErrInvalid):
		return "", fmt.Errorf("%w: %w", ErrJoin, err)
	case err != nil:
		return fmt.Sprintf("the cluster at %s cannot accept this node now: %v", address, err), nil
	}
	var r joinReply
	if err := json.Unmarshal(b, &r); err != nil {
		return "", fmt.Errorf("invalid answer from %s: %w", address, err)
	}
	if err := f.adopt(r.Cluster, r.ID, r.Shards, r.Replicas, r.Members, false); err != nil {
		return "", err
	}
	f.opt.Logger.Info("joined the cluster", "cluster", clusterText(r.Cluster), "node", r.ID, "at", address)
	return "", nil
}

// answerJoin makes a stranger a member, or has the meta group's leader do it.
func (n *Node) answerJoin(ctx context.Context, body []byte) ([]byte, error) {
	leader := n.Leader(n.meta())
	switch leader {
	case n.id:
	case 0:
		return nil, fmt.Errorf("%w: the meta group has no leader now", command.ErrNoQuorum)
	default:
		return n.call(ctx, leader, callJoin, body)
	}
	var a placement.Request
	if err := parseArgs(body, &a); err != nil {
		return nil, err
	}
	if a.UID == 0 || a.ID > placement.NodeMax || a.Peer == "" {
		return nil, fmt.Errorf("%w: a joining node needs a UID and a peer address", command.ErrInvalid)
	}
	r := joinReply{Cluster: n.identity.Cluster, Shards: n.meta(), Replicas: n.identity.Replicas}
	err := n.changeMeta(ctx, func(m *placement.Map) (none placement.Change, err error) {
		row, err := placement.Join(m, &a)
		if err != nil {
			return none, err
		}
		r.ID, r.Members = row.ID, []Member{memberOf(&row)}
		for o := range m.Members() {
			if o.ID != row.ID {
				r.Members = append(r.Members, memberOf(o))
			}
		}
		return row.Put(), nil
	})
	if err != nil {
		return nil, err
	}
	n.logger.Info("a node joined the cluster", "node", r.ID, "peer", a.Peer)
	return json.Marshal(r)
}

func memberOf(r *placement.Node) Member {
	return Member{ID: r.ID, UID: r.UID, Key: r.Key, Peer: r.Peer, Client: r.Client, Redis: r.Redis}
}

// PeerIdentity is what a peer's handshake says of it.
type PeerIdentity struct {
	Cluster, Node, UID     uint64
	Peer                   string
	Key                    [ed25519.PublicKeySize]byte
	Generation, Run, Began uint64 // zero: of an earlier version

	Signed bool // it has proven to hold Key's private half
	Token  bool // it has proven to know this node's JoinToken
}

// JoinToken is what a node must know to join the cluster. A node that has no map
// of the cluster yet goes by the token that it was given. Empty: there is none.
func (n *Node) JoinToken() string {
	if m := n.cmap.Load(); m.Begun() {
		return m.Cluster.Token
	}
	return n.opt.JoinToken
}

// Recognize decides whether a peer is what it says, as far as others know who it
// is; the error tells it why not. Admit does so too.
func (n *Node) Recognize(p PeerIdentity) error {
	_, err := n.recognize(&p)
	return err
}

// recognize returns the member's row, the zero one for a node that has only just
// joined or is of a cluster without a map.
func (n *Node) recognize(p *PeerIdentity) (row placement.Node, err error) {
	if p.Cluster != n.identity.Cluster {
		return row, fmt.Errorf("%w: this is node %d of cluster %s, not of cluster %s; check the addresses, and that the directory is the right one", command.ErrRefused, n.id, clusterText(n.identity.Cluster), clusterText(p.Cluster))
	}
	if p.Node == n.id {
		return row, fmt.Errorf("%w: both ends are node %d; each node needs its own data directory", command.ErrRefused, n.id)
	}
	row, ok := n.member(p.Node)
	switch {
	case n.identity.gaveUp(p.Node):
		return row, fmt.Errorf("%w: node %d was %w (%s) on node %d, and its data has diverged; erase its data directory and start it again, without --node-id, to join as a new node", command.ErrRefused, p.Node, ErrLeftOut, clusterText(p.Cluster), n.id)
	case row.Removed:
		return row, fmt.Errorf("%w: node %d has been %w (%s); erase its data directory and start it again, without --node-id, to join as a new node", command.ErrRefused, p.Node, ErrRemoved, clusterText(p.Cluster))
	case !ok || row.UID == 0:
		return placement.Node{}, n.recognizeNew(p)
	case row.UID != p.UID:
		return row, fmt.Errorf("%w: node %d of this cluster has another data directory; a node that lost its disk must join again as a new node, with an empty directory and without --node-id", command.ErrRefused, p.Node)
	case row.Key != nil && (!p.Signed || !bytes.Equal(row.Key, p.Key[:])):
		return row, errUnproven(p.Node, "this requires the key in that node's own data directory")
	}
	return row, nil
}

// Admit decides whether a peer may talk to this node; the error tells it why
// not. An error that wraps ErrRolledBack or ErrRemoved is about the peer's
// directory. The removal counts for the peer, too, but not that by a cluster that
// was recovered without the peer: the peer may belong to the majority of old.
func (n *Node) Admit(p PeerIdentity) error {
	row, err := n.recognize(&p)
	if err != nil {
		return err
	}
	if row.UID == 0 {
		return n.admitNew(&p)
	}
	if err := n.admitRun(&p, &row); err != nil {
		return err
	}
	if p.Peer != "" && p.Peer != row.Peer {
		n.moved(&row, p.Peer)
	}
	return nil
}

// recognizeNew decides about a node of which the map knows nothing. It may have
// joined a moment ago: then it knows the token.
func (n *Node) recognizeNew(p *PeerIdentity) error {
	if n.tokenless() || p.Token {
		return nil
	}
	return errUnproven(p.Node, "the number is unknown here, and an unknown node must have the cluster's join token")
}

// admitNew admits a node that recognizeNew has let pass. Its address is that of
// its row, once there is one.
func (n *Node) admitNew(p *PeerIdentity) error {
	if n.tokenless() {
		return nil
	}
	return n.admitRun(p, &placement.Node{})
}

// tokenless reports whether this is a cluster of an earlier version, of which
// nobody knows a token.
func (n *Node) tokenless() bool {
	return n.JoinToken() == "" && !(n.identity.Founder && !n.cmap.Load().Begun())
}

// moved takes in that a peer says it has another address than the map. It is
// believed at once: until it has been answered there it knows no leader that
// could put the address into the map.
func (n *Node) moved(row *placement.Node, address string) {
	n.mu.Lock()
	n.movedPeers[row.ID] = movedPeer{from: row.Peer, to: address}
	n.mu.Unlock()
	n.transport.SetPeer(row.ID, address)
}

// movedPeer is a peer that has come from an address other than the map's.
type movedPeer struct{ from, to string }

// peerAddress returns where a peer is: what it said itself, until the map says
// something new.
func (n *Node) peerAddress(row *placement.Node) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if m, ok := n.movedPeers[row.ID]; ok && m.from == row.Peer {
		return m.to
	}
	delete(n.movedPeers, row.ID)
	return row.Peer
}

// seekEvery is the pause between two rounds of Seek.
const seekEvery = time.Second

// Seek looks for other nodes at further addresses, for as long as the meta
// group has no leader: those that the directory knows may all have changed. A
// handshake tells either side where the other is now. call asks the node at an
// address.
func (n *Node) Seek(ctx context.Context, addresses []string, call func(ctx context.Context, address, verb string, body []byte) ([]byte, error)) {
	for t := time.NewTimer(seekEvery); ; t.Reset(seekEvery) {
		select {
		case <-ctx.Done():
			return
		case <-n.ctx.Done():
			return
		case <-t.C:
		}
		if n.Leader(n.meta()) != 0 {
			return
		}
		for _, address := range addresses {
			if address == n.opt.PeerAddress {
				continue
			}
			ctx, cancel := context.WithTimeout(ctx, seekEvery)
			if _, err := call(ctx, address, callProbe, nil); err != nil {
				n.logger.Debug("no member of this cluster answered", "at", address, "error", err)
			}
			cancel()
		}
	}
}

func clusterText(id uint64) string { return fmt.Sprintf("%016x", id) }
