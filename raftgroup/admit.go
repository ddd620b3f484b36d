package raftgroup

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"time"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/call"
	"github.com/proa-kv/proa/raftgroup/datadir"
	"github.com/proa-kv/proa/raftgroup/placement"
)

// answerJoin makes a stranger a member, or has the meta group's leader do it.
func (n *Node) answerJoin(ctx context.Context, body []byte) ([]byte, error) {
	leader := n.Leader(n.meta())
	switch leader {
	case n.id:
	case 0:
		return nil, fmt.Errorf("%w: the meta group has no leader now", command.ErrNoQuorum)
	default:
		return n.call(ctx, leader, call.Join, body)
	}
	var a placement.Request
	if err := parseArgs(body, &a); err != nil {
		return nil, err
	}
	if a.UID == 0 || a.ID > placement.NodeMax || a.Peer == "" {
		return nil, fmt.Errorf("%w: a joining node needs a UID and a peer address", command.ErrInvalid)
	}
	r := datadir.JoinReply{Cluster: n.dir.Cluster, Shards: n.meta(), Replicas: n.dir.Replicas}
	err := n.changeMeta(ctx, func(m *placement.Map) (none placement.Change, err error) {
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
	n.logger.Info("a node joined the cluster", "node", r.ID, "peer", a.Peer)
	return json.Marshal(r)
}

func memberOf(r *placement.Node) datadir.Member {
	return datadir.Member{ID: r.ID, UID: r.UID, Key: r.Key, Peer: r.Peer, Client: r.Client, Redis: r.Redis}
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
	if p.Cluster != n.dir.Cluster {
		return row, fmt.Errorf("%w: this is node %d of cluster %s, not of cluster %s; check the addresses, and that the directory is the right one", command.ErrRefused, n.id, datadir.ClusterText(n.dir.Cluster), datadir.ClusterText(p.Cluster))
	}
	if p.Node == n.id {
		return row, fmt.Errorf("%w: both ends are node %d; each node needs its own data directory", command.ErrRefused, n.id)
	}
	row, ok := n.member(p.Node)
	switch {
	case n.dir.GaveUp(p.Node):
		return row, fmt.Errorf("%w: node %d was %w (%s) on node %d, and its data has diverged; erase its data directory and start it again, without --node-id, to join as a new node", command.ErrRefused, p.Node, datadir.ErrLeftOut, datadir.ClusterText(p.Cluster), n.id)
	case row.Removed:
		return row, fmt.Errorf("%w: node %d has been %w (%s); erase its data directory and start it again, without --node-id, to join as a new node", command.ErrRefused, p.Node, datadir.ErrRemoved, datadir.ClusterText(p.Cluster))
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
	return n.JoinToken() == "" && !(n.dir.Founder && !n.cmap.Load().Begun())
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
// handshake tells either side where the other is now. ask asks the node at an
// address.
func (n *Node) Seek(ctx context.Context, addresses []string, ask func(ctx context.Context, address, verb string, body []byte) ([]byte, error)) {
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
			if _, err := ask(ctx, address, call.Probe, nil); err != nil {
				n.logger.Debug("no member of this cluster answered", "at", address, "error", err)
			}
			cancel()
		}
	}
}
