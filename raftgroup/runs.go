package raftgroup

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/call"
	"github.com/proa-kv/proa/raftgroup/datadir"
	"github.com/proa-kv/proa/raftgroup/placement"
)

// ErrTwin: another process runs as this node.
var ErrTwin = errors.New("another process is running with a copy of this data directory; stop one of the two and erase the copy")

// rememberEvery is how often what is remembered of other nodes becomes durable,
// rememberPause how long it is left alone at the least. A peer counts as lost
// whenever its queue overflows, too.
const (
	rememberEvery = 10 * time.Second
	rememberPause = time.Second
)

// remember makes durable what is remembered of other nodes, in the background,
// if that is due: every now and then, and when one has become unreachable, since
// what it sent last is then what it will be held to. For the driver.
func (ms *members) remember() {
	now, due := ms.node.clock.Boot(), ms.rememberDue
	if ms.node.state.Is(peerLost) {
		due -= int64(rememberEvery - rememberPause)
	}
	if now < due || !ms.runs.Dirty() || !ms.node.state.Set(remembering) {
		return
	}
	ms.node.state.Clear(peerLost)
	ms.rememberDue = now + int64(rememberEvery)
	ms.node.background.Add(1)
	go func() {
		defer ms.node.background.Done()
		defer ms.node.state.Clear(remembering)
		if err := ms.runs.Save(); err != nil {
			ms.node.logger.Warn("cannot write the file that records other nodes' runs", "error", err)
		}
	}()
}

// Self is what this node says of itself in handshakes.
func (ms *members) Self() PeerIdentity {
	return PeerIdentity{
		Cluster: ms.node.dir.Cluster, Node: ms.node.id, UID: ms.node.dir.UID, Peer: ms.node.opt.PeerAddress, Engine: ms.node.dir.Engine,
		Generation: ms.run.Generation, Run: ms.run.Number, Began: ms.run.Began,
	}
}

// admitRun decides whether a peer may be what it says: the run remembered, or a
// later one.
func (ms *members) admitRun(p *PeerIdentity, row *placement.Node) error {
	next := placement.Run{Generation: p.Generation, Number: p.Run, Began: p.Began}
	if next.Generation == 0 {
		if row.Key != nil {
			return errUnproven(p.Node, "it does not give the number of the node's start")
		}
		return nil // of an earlier version
	}
	err := ms.runs.Admit(p.Node, p.UID, next, row.Run)
	if errors.Is(err, datadir.ErrRolledBack) {
		return fmt.Errorf("node %d was refused by node %d: %w", p.Node, ms.node.id, err)
	}
	return err
}

// newRuns returns the rows of nodes whose last run is not in the map yet. For the
// meta group's leader.
func (ms *members) newRuns(cm *placement.Map) (changes []placement.Change) {
	for r := range cm.Members() {
		row, last := *r, ms.run
		if row.ID != ms.node.id {
			var ok bool
			if last, ok = ms.runs.Last(row.ID, row.UID); !ok {
				continue
			}
		}
		if last.Generation > row.Run.Generation {
			row.Run = last
			changes = append(changes, row.Put())
		}
	}
	return changes
}

// Refusal is why another node does not let this one in.
type Refusal int

const (
	// RefusedOlder: that node remembers more of this one than its directory does.
	RefusedOlder Refusal = iota
	// RefusedTwin: another process runs as this node.
	RefusedTwin
	// RefusedRemoved: the cluster has removed this node.
	RefusedRemoved
	// RefusedLeftOut: the cluster was recovered without this node.
	RefusedLeftOut
)

// twinTolerance is how long a node that hears that it runs already takes that
// for a remnant of its last run.
const twinTolerance = 15 * time.Second

// Refused takes in that a member, which has proven its key, refuses this node.
// It stops the node where that can only get worse; see Failure. A node that the
// cluster was recovered without goes on, because it may belong to the majority of
// old, but it says so in its log and its status. For any thread.
func (ms *members) Refused(by PeerIdentity, why Refusal, reason string) {
	row, ok := ms.member(by.Node)
	if !ok || !row.Member() || row.UID != by.UID || !by.Signed || row.Key == nil || !bytes.Equal(row.Key, by.Key[:]) {
		return
	}
	switch why {
	case RefusedOlder:
		ms.node.noteMark(ms.node.dir.MarkRolledBack())
		ms.node.fail(&call.Error{Class: datadir.ErrRolledBack, Text: reason})
		return
	case RefusedRemoved:
		ms.node.noteMark(ms.node.dir.MarkRemoved())
		ms.node.fail(ms.node.dir.RemovedError(ms.node.dir.Path))
		return
	case RefusedLeftOut:
		ms.noteLeftOut(by.Node)
		return
	}
	now := ms.node.clock.Boot()
	ms.mu.Lock()
	if ms.twinLast == 0 || now-ms.twinLast > int64(twinTolerance) {
		ms.twinSince = now
	}
	ms.twinLast = now
	stays := now-ms.twinSince >= int64(twinTolerance)*2/3
	ms.mu.Unlock()
	if stays {
		ms.node.fail(fmt.Errorf("%w: %s", ErrTwin, reason))
	}
}

// leftOutEvery is the pause between two log lines of a node that the cluster was
// recovered without.
const leftOutEvery = time.Minute

// noteLeftOut takes in that the cluster was recovered on a node, without this one.
func (ms *members) noteLeftOut(on uint64) {
	now := ms.node.clock.Boot()
	ms.mu.Lock()
	due := ms.leftOutBy != on || now-ms.leftOutLogged >= int64(leftOutEvery)
	if due {
		ms.leftOutBy, ms.leftOutLogged = on, now
	}
	ms.mu.Unlock()
	if due {
		ms.node.logger.Warn("this node was left out when the cluster was recovered, and its data has diverged: stop it, erase its data directory, and start it again, without --node-id, to join as a new node; do not start other nodes of the old cluster",
			"recovered_on", on, "data", ms.node.opt.Dir)
	}
}

// member returns what is known of a member: by the map, or by the directory as
// long as there is no map.
func (ms *members) member(node uint64) (placement.Node, bool) {
	if m := ms.cmap.Load(); m.Begun() {
		return m.Node(node)
	}
	for _, m := range ms.node.dir.Members {
		if m.ID == node {
			return placement.Node{ID: m.ID, UID: m.UID, Key: m.Key, Peer: m.Peer, Client: m.Client, Redis: m.Redis}, true
		}
	}
	return placement.Node{}, false
}

// errUnproven refuses a peer that has not shown what only the node itself, or a
// member of the cluster, can know.
func errUnproven(node uint64, what string) error {
	return fmt.Errorf("%w: a peer that claims to be node %d has not proven it: %s", command.ErrRefused, node, what)
}
