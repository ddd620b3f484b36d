package raftgroup

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/proa-kv/proa/access"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/call"
	"github.com/proa-kv/proa/raftgroup/datadir"
	"github.com/proa-kv/proa/raftgroup/placement"
)

// members is who belongs to the cluster, as far as this node knows: the map of the
// meta group, and what peers have said and proven.
type members struct {
	node *Node

	cmap        atomic.Pointer[placement.Map]
	policy      atomic.Pointer[access.Policy] // of cmap
	run         placement.Run                 // this one
	runs        *datadir.Runs
	rememberDue int64      // Clock.Boot; belongs to the driver
	mu          sync.Mutex // guards what follows, but for peers
	// When another node first and last said that this one runs already, on
	// Clock.Boot; 0: never.
	twinSince, twinLast int64
	// leftOutBy is the node on which the cluster was recovered without this one,
	// 0: none is known; leftOutLogged is when the log last said so, on Clock.Boot.
	leftOutBy     uint64
	leftOutLogged int64
	// movedPeers are peers whose own word on their address is newer than the
	// map's.
	movedPeers map[uint64]movedPeer
	peers      map[uint64]bool // that the transport knows; belongs to the pass
}

// answerJoin makes a stranger a member, or has the meta group's leader do it.
func (ms *members) answerJoin(ctx context.Context, body []byte) ([]byte, error) {
	leader := ms.node.Leader(ms.node.meta())
	switch leader {
	case ms.node.id:
	case 0:
		return nil, fmt.Errorf("%w: the meta group has no leader now", command.ErrNoQuorum)
	default:
		return ms.node.call(ctx, leader, call.Join, body)
	}
	var a placement.Request
	if err := parseArgs(body, &a); err != nil {
		return nil, err
	}
	if a.UID == 0 || a.ID > placement.NodeMax || a.Peer == "" {
		return nil, fmt.Errorf("%w: a joining node needs a UID and a peer address", command.ErrInvalid)
	}
	r := datadir.JoinReply{Cluster: ms.node.dir.Cluster, Shards: ms.node.meta(), Replicas: ms.node.dir.Replicas}
	err := ms.node.changeMeta(ctx, func(m *placement.Map) (none placement.Change, err error) {
		row, err := placement.Join(m, &a)
		if err != nil {
			return none, err
		}
		r.ID, r.Members = row.ID, []datadir.Member{memberOf(&row)}
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
	ms.node.logger.Info("a node joined the cluster", "node", r.ID, "peer", a.Peer)
	return json.Marshal(r)
}

func memberOf(r *placement.Node) datadir.Member {
	return datadir.Member{ID: r.ID, UID: r.UID, Key: r.Key, Peer: r.Peer, Client: r.Client, Redis: r.Redis}
}

// PeerIdentity is what a peer's handshake says of it.
type PeerIdentity struct {
	Cluster, Node, UID     uint64
	Peer                   string
	Engine                 placement.Engine // of this node's cluster; not set for others
	Key                    [ed25519.PublicKeySize]byte
	Generation, Run, Began uint64 // zero: of an earlier version

	Signed bool // it has proven to hold Key's private half
	Token  bool // it has proven to know this node's JoinToken
}

// JoinToken is what a node must know to join the cluster. A node that has no map
// of the cluster yet goes by the token that it was given. Empty: there is none.
func (ms *members) JoinToken() string {
	if m := ms.cmap.Load(); m.Begun() {
		return m.Cluster.JoinToken(ms.node.NowMillis())
	}
	return ms.node.opt.JoinToken
}

// Recognize decides whether a peer is what it says, as far as others know who it
// is; the error, which is sent to it, says why not. Admit does so too.
func (ms *members) Recognize(p PeerIdentity) error {
	_, err := ms.recognize(&p)
	return err
}

// recognize returns the member's row, the zero one for a node that has only just
// joined or is of a cluster without a map.
func (ms *members) recognize(p *PeerIdentity) (row placement.Node, err error) {
	if p.Cluster != ms.node.dir.Cluster {
		return row, fmt.Errorf("%w: this is node %d of cluster %s, not of cluster %s; check the addresses, and that the directory is the right one", command.ErrRefused, ms.node.id, datadir.ClusterText(ms.node.dir.Cluster), datadir.ClusterText(p.Cluster))
	}
	if p.Node == ms.node.id {
		return row, fmt.Errorf("%w: both ends are node %d; each node needs its own data directory", command.ErrRefused, ms.node.id)
	}
	row, ok := ms.member(p.Node)
	switch {
	case ms.node.dir.GaveUp(p.Node):
		return row, fmt.Errorf("%w: node %d was %w (%s) on node %d, and its data has diverged; erase its data directory and start it again, without --node-id, to join as a new node", command.ErrRefused, p.Node, datadir.ErrLeftOut, datadir.ClusterText(p.Cluster), ms.node.id)
	case row.Removed:
		return row, fmt.Errorf("%w: node %d has been %w (%s); erase its data directory and start it again, without --node-id, to join as a new node", command.ErrRefused, p.Node, datadir.ErrRemoved, datadir.ClusterText(p.Cluster))
	case !ok || row.UID == 0:
		return placement.Node{}, ms.recognizeNew(p)
	case row.UID != p.UID:
		return row, fmt.Errorf("%w: node %d of this cluster has another data directory; a node that lost its disk must join again as a new node, with an empty directory and without --node-id", command.ErrRefused, p.Node)
	case row.Key != nil && (!p.Signed || !bytes.Equal(row.Key, p.Key[:])):
		return row, errUnproven(p.Node, "this requires the key in that node's own data directory")
	}
	return row, nil
}

// Admit decides whether a peer may talk to this node; the error, which is sent to
// it, says why not. An error that wraps ErrRolledBack or ErrRemoved is about the peer's
// directory. The removal counts for the peer, too, but not that by a cluster that
// was recovered without the peer: the peer may belong to the majority of old.
func (ms *members) Admit(p PeerIdentity) error {
	row, err := ms.recognize(&p)
	if err != nil {
		return err
	}
	if row.UID == 0 {
		return ms.admitNew(&p)
	}
	if err := ms.admitRun(&p, &row); err != nil {
		return err
	}
	if p.Peer != "" && p.Peer != row.Peer {
		ms.moved(&row, p.Peer)
	}
	return nil
}

// recognizeNew decides about a node of which the map knows nothing. It may have
// joined a moment ago: then it knows the token.
func (ms *members) recognizeNew(p *PeerIdentity) error {
	if ms.tokenless() || p.Token {
		return nil
	}
	return errUnproven(p.Node, "the number is unknown here, and an unknown node must have the cluster's join token")
}

// admitNew admits a node that recognizeNew has let pass. Its address is that of
// its row, once there is one.
func (ms *members) admitNew(p *PeerIdentity) error {
	if ms.tokenless() {
		return nil
	}
	return ms.admitRun(p, &placement.Node{})
}

// tokenless reports whether this is a cluster of an earlier version, of which
// nobody knows a token.
func (ms *members) tokenless() bool {
	if m := ms.cmap.Load(); m.Begun() {
		return m.Cluster.Token == ""
	}
	return ms.node.opt.JoinToken == "" && !ms.node.dir.Founder
}

// moved takes in that a peer says it has another address than the map. It is
// believed at once: until it has been answered there it knows no leader that
// could put the address into the map.
func (ms *members) moved(row *placement.Node, address string) {
	ms.mu.Lock()
	ms.movedPeers[row.ID] = movedPeer{from: row.Peer, to: address}
	ms.mu.Unlock()
	ms.node.transport.SetPeer(row.ID, address)
}

// movedPeer is a peer that has come from an address other than the map's.
type movedPeer struct{ from, to string }

// peerAddress returns where a peer is: what it said itself, until the map says
// something new.
func (ms *members) peerAddress(row *placement.Node) string {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	if m, ok := ms.movedPeers[row.ID]; ok && m.from == row.Peer {
		return m.to
	}
	delete(ms.movedPeers, row.ID)
	return row.Peer
}

// seekEvery is the pause between two rounds of Seek.
const seekEvery = time.Second

// Seek looks for other nodes at further addresses, for as long as the meta
// group has no leader: those that the directory knows may all have changed. A
// handshake tells either side where the other is now. ask asks the node at an
// address.
func (ms *members) Seek(ctx context.Context, addresses []string, ask func(ctx context.Context, address, verb string, body []byte) ([]byte, error)) {
	for t := time.NewTimer(seekEvery); ; t.Reset(seekEvery) {
		select {
		case <-ctx.Done():
			return
		case <-ms.node.ctx.Done():
			return
		case <-t.C:
		}
		if ms.node.Leader(ms.node.meta()) != 0 {
			return
		}
		for _, address := range addresses {
			if address == ms.node.opt.PeerAddress {
				continue
			}
			ctx, cancel := context.WithTimeout(ctx, seekEvery)
			if _, err := ask(ctx, address, call.Probe, nil); err != nil {
				ms.node.logger.Debug("no member of this cluster answered", "at", address, "error", err)
			}
			cancel()
		}
	}
}
