package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/proa-kv/proa/config"
	"github.com/proa-kv/proa/internal/wrongport"
	"github.com/proa-kv/proa/raftgroup"
	"github.com/proa-kv/proa/raftgroup/call"
	"github.com/proa-kv/proa/raftgroup/datadir"
	"github.com/proa-kv/proa/raftgroup/engine"
	"github.com/proa-kv/proa/raftgroup/peer"
	"github.com/proa-kv/proa/server"
)

// peers is what the node sends through: the transport between nodes.
type peers struct {
	*peer.Transport
	inbox inbox
}

// inbox is what the transport delivers to.
type inbox struct {
	former *datadir.Former
	token  string                         // that the node was started with
	node   atomic.Pointer[raftgroup.Node] // nil until the node is open
	srv    atomic.Pointer[server.Server]
}

// openPeers begins to listen for other nodes; nil where that is off.
func openPeers(c *config.Config, files *config.FileBudget, ports *wrongport.Ports, log *slog.Logger) (*peers, error) {
	secret, err := clusterSecret(c, log)
	if err != nil {
		return nil, err
	}
	if c.Listen.Peer == "" {
		if len(c.Node.Join) > 0 {
			return nil, errors.New("node.join names other nodes, but listen.peer is off; give this node a peer address with --peer-listen")
		}
		return nil, nil
	}
	t, err := peer.New(peer.Config{
		Listen: c.Listen.Peer, Logger: log, SnapshotBytesPerSecond: c.Cluster.SnapshotRate, SnapshotsIn: c.Cluster.SnapshotsMax,
		VersionMax: uint16(c.Cluster.PeerVersionMax), InboundMax: files.PeersIn, Foreign: ports.Foreign,
		Secret: secret, SecretOptional: c.Node.ClusterSecretCheck == "optional",
	})
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%w; another node on this machine needs a peer address of its own (--peer-listen), a node that is to stay alone needs none (--peer-listen off)", err)
	case isType[*net.OpError](err): // about an address
		return nil, fmt.Errorf("%w; choose another address with --peer-listen", err)
	case err != nil:
		return nil, err
	}
	return &peers{Transport: t}, nil
}

// address is the address at which other nodes reach this one.
func (p *peers) address(c *config.Config) string {
	if p == nil {
		return ""
	}
	return config.BoundAddress(c.Node.AdvertisePeer, p.Addr())
}

// form brings the node into its cluster and returns what it is there.
func (p *peers) form(ctx context.Context, o datadir.FormOptions) (datadir.Identity, error) {
	if p != nil {
		o.Call = p.call
	}
	former, err := datadir.NewFormer(o)
	if err != nil {
		return datadir.Identity{}, err
	}
	if p != nil {
		p.inbox.former, p.inbox.token = former, o.Token
		p.introduce(former.Identity(), o)
		p.Start(&p.inbox)
	}
	id, err := former.Form(ctx)
	return id, errors.Join(err, former.Close())
}

// call asks the node at an address.
func (p *peers) call(ctx context.Context, address, verb string, body []byte) ([]byte, error) {
	_, reply, err := p.CallAddress(ctx, address, verb, body)
	var refused *peer.RefusedError
	if errors.As(err, &refused) && (refused.Code == peer.CodeToken || refused.Code == peer.CodeSecret) {
		err = fmt.Errorf("%w: %w", datadir.ErrJoin, err)
	}
	return reply, err
}

// seek has node look for the others at the addresses it was started with,
// until ctx ends.
func (p *peers) seek(ctx context.Context, node *raftgroup.Node, join []string) {
	if p != nil && len(join) > 0 {
		go node.Seek(ctx, join, p.call)
	}
}

// introduce has the node be known as one that does not belong to a cluster yet,
// or is still opening its stores.
func (p *peers) introduce(id datadir.Identity, o datadir.FormOptions) {
	p.SetKey(id.KeyPair())
	p.SetIdentity(peer.Identity{Node: id.Node, UID: id.UID, Peer: o.PeerAddress, Client: o.ClientAddress, Version: o.Version})
}

// transport is what the node sends through.
func (p *peers) transport() raftgroup.Transport {
	if p == nil {
		return raftgroup.Alone{}
	}
	return p
}

// deliver has the transport's deliveries go to node and srv from now on.
func (p *peers) deliver(node *raftgroup.Node, srv *server.Server) {
	if p != nil {
		p.inbox.srv.Store(srv)
		p.inbox.node.Store(node)
		self := node.Self()
		p.SetIdentity(peer.Identity{
			Cluster: self.Cluster, Node: self.Node, UID: self.UID, Peer: self.Peer, Client: node.ClientAddress(), Version: versionText(), Engine: string(self.Engine),
			Generation: self.Generation, Run: self.Run, Began: self.Began,
		})
		p.Retry() // they have been refused so far
	}
}

func (p *peers) close() error {
	if p == nil {
		return nil
	}
	return p.Transport.Close()
}

// SendSnapshot sends s in the background.
func (p *peers) SendSnapshot(node uint64, s engine.OutgoingSnapshot) {
	go func() { s.Done(p.Transport.SendSnapshot(s.Context(), node, s.Header(), s.Export)) }()
}

// Call asks another node.
func (p *peers) Call(ctx context.Context, node uint64, verb string, body []byte) ([]byte, error) {
	reply, err := p.Transport.Call(ctx, node, verb, body)
	if errors.Is(err, peer.ErrNotConnected) || errors.Is(err, peer.ErrUnknownPeer) || errors.Is(err, peer.ErrBusy) {
		err = fmt.Errorf("%w: %w", call.ErrNotAsked, err)
	}
	return reply, err
}

// Forward opens a stream to another node's client listener.
func (p *peers) Forward(ctx context.Context, node uint64) (net.Conn, error) {
	return p.DialClient(ctx, node)
}

var errOpening = errors.New("this node is still opening its stores; try again")

// Recognize implements peer.Handler.
func (b *inbox) Recognize(id peer.Identity) error {
	n := b.node.Load()
	if n == nil {
		return errOpening
	}
	return coded(n.Recognize(peerIdentity(id)))
}

// Admit implements peer.Handler.
func (b *inbox) Admit(id peer.Identity) error {
	n := b.node.Load()
	if n == nil {
		return errOpening
	}
	return coded(n.Admit(peerIdentity(id)))
}

// refusals are what the code of another node's refusal means for this one.
var refusals = map[peer.Code]raftgroup.Refusal{
	peer.CodeOlder: raftgroup.RefusedOlder, peer.CodeTwin: raftgroup.RefusedTwin,
	peer.CodeRemoved: raftgroup.RefusedRemoved, peer.CodeLeftOut: raftgroup.RefusedLeftOut,
}

// coded adds to a refusal what the program at the other side must know of it.
func coded(err error) error {
	for code, cause := range map[peer.Code]error{
		peer.CodeOlder: datadir.ErrRolledBack, peer.CodeRemoved: datadir.ErrRemoved, peer.CodeLeftOut: datadir.ErrLeftOut,
	} {
		if errors.Is(err, cause) {
			return &peer.CodedError{Code: code, Err: err}
		}
	}
	return err
}

func peerIdentity(id peer.Identity) raftgroup.PeerIdentity {
	return raftgroup.PeerIdentity{
		Cluster: id.Cluster, Node: id.Node, UID: id.UID, Peer: id.Peer, Key: id.Key, Generation: id.Generation, Run: id.Run, Began: id.Began,
		Signed: id.Signed, Token: id.Token,
	}
}

// JoinToken implements peer.Handler.
func (b *inbox) JoinToken() string {
	if n := b.node.Load(); n != nil {
		return n.JoinToken()
	}
	return b.token
}

// Refused implements peer.Handler.
func (b *inbox) Refused(by peer.Identity, code peer.Code, reason string) {
	n := b.node.Load()
	if refusal, known := refusals[code]; n != nil && known {
		n.Refused(peerIdentity(by), refusal, reason)
	}
}

// Messages implements peer.Handler. The goroutine that read the messages does
// what is to be done with them, down to the log: handing them to another would
// cost more than half an fsync.
func (b *inbox) Messages(from uint64, messages []peer.Message) {
	n := b.node.Load()
	if n == nil {
		return
	}
	for i := range messages {
		n.Receive(from, messages[i].Shard, messages[i].Raft)
		messages[i].Raft = raftpb.Message{}
	}
	n.ReceiveDone(from)
	n.Drive()
}

// Frame implements peer.Handler.
func (b *inbox) Frame(from uint64, payload []byte) error {
	if n := b.node.Load(); n != nil {
		return n.ReceiveFrame(from, payload)
	}
	return nil
}

// Report implements peer.Handler.
func (b *inbox) Report(from uint64, body []byte) {
	if n := b.node.Load(); n != nil {
		n.ReceiveReport(from, body)
	}
}

// Unreachable implements peer.Handler.
func (b *inbox) Unreachable(node uint64) {
	if n := b.node.Load(); n != nil {
		n.Unreachable(node)
	}
}

// Call implements peer.Handler.
func (b *inbox) Call(ctx context.Context, from peer.Identity, verb string, body []byte) ([]byte, error) {
	n := b.node.Load()
	if n == nil {
		return b.former.Answer(verb)
	}
	if from.Cluster == 0 {
		return n.CallStranger(ctx, from.Token, verb, body)
	}
	return n.Call(ctx, from.Node, verb, body)
}

// Snapshot implements peer.Handler.
func (b *inbox) Snapshot(from uint64, header []byte, s *peer.Incoming) error {
	n := b.node.Load()
	if n == nil {
		return errOpening
	}
	in, token, err := n.BeginSnapshot(from, header)
	if err != nil {
		return err
	}
	if err = s.Resume(token); err == nil {
		err = copyChunks(in, s)
	}
	if err != nil {
		in.Abort()
		return err
	}
	return in.Finish()
}

func copyChunks(in engine.IncomingSnapshot, s *peer.Incoming) error {
	for {
		chunk, err := s.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = in.Write(chunk)
		}
		if err != nil {
			return err
		}
	}
}

// ServeClient implements peer.Handler.
func (b *inbox) ServeClient(from uint64, c net.Conn) {
	if srv := b.srv.Load(); srv != nil {
		srv.ServeForwarded(from, c)
		return
	}
	_ = c.Close()
}

// leaveTime bounds the wait for others to take this node's leaderships over,
// before it stops. It is a part of the time the node has to stop.
func leaveTime(c *config.Config) time.Duration {
	return min(c.Node.ShutdownTimeout/3, 3*time.Second)
}
