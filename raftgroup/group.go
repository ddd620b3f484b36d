package raftgroup

import (
	"fmt"
	"sync"
	"sync/atomic"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftlog"
)

// completion is who hears the outcome of one command, and with which words.
type completion struct {
	sink command.Completer
	tag  command.Tag
}

// batch is an entry being filled: commands and, in the same order, their
// completions.
type batch struct {
	data []byte // entry header and commands; belongs to Raft once proposed
	done []completion
}

// proposed is an entry on its way: appended to this leader's log at (index,
// term), not applied yet.
type proposed struct {
	index, term uint64
	done        []completion
}

// group is one shard's Raft group on this node.
type group struct {
	shard int

	// The queue. Any thread may add to it.
	mu     sync.Mutex
	open   batch
	sealed []batch      // full, in order, before open
	spare  []completion // empty, to be filled again
	hint   int          // bytes the next batch will probably take
	ops    int          // commands queued in open and sealed
	bytes  int
	dirty  bool // on the node's list of groups with work

	// Read by any thread, written by the pass.
	serving   atomic.Bool   // leads the shard and may answer reads
	lastStamp atomic.Uint64 // time never goes back behind it
	term      atomic.Uint64
	leader    atomic.Uint64
	committed atomic.Uint64

	// Belongs to the pass.
	node      *raft.RawNode
	log       *raftlog.Group
	conf      raftpb.ConfState
	vote      uint64 // as last written to the log
	voteTerm  uint64
	inflight  []proposed
	prop      raftpb.Message // reused for every proposal
	responses []raftpb.Message
	taking    []batch
	last      uint64 // index of the last entry collected
	sweeping  bool   // a Sweep is queued or on its way
}

// enqueue copies c into the open batch: the one copy a command makes between
// the network's buffer and the log. It returns whether the group has to be put
// on the node's list of groups with work.
func (g *group) enqueue(c *command.Command, done completion, lim *limits) (wake bool, err error) {
	size := c.EncodedBytesMax()
	if size > lim.entryBytes {
		return false, command.ErrTooLarge
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ops >= lim.queueOps || (g.bytes+size > lim.queueBytes && g.ops > 0) {
		return false, command.ErrBusy
	}
	if len(g.open.done) >= lim.batchOps || (len(g.open.done) > 0 && len(g.open.data)+size > lim.batchBytes) {
		g.sealed = append(g.sealed, g.open)
		g.open = batch{}
	}
	if len(g.open.data) == 0 {
		g.open.data = command.AppendEntryHeader(make([]byte, 0, max(g.hint, command.EntryHeaderBytes+size)))
		g.open.done, g.spare = g.spare, nil
	}
	before := len(g.open.data)
	g.open.data = c.AppendTo(g.open.data)
	g.open.done = append(g.open.done, done)
	g.ops++
	g.bytes += len(g.open.data) - before
	wake = !g.dirty
	g.dirty = true
	return wake, nil
}

// hintBytesMax bounds the memory a batch begins with.
const hintBytesMax = 256 << 10

// take empties the queue into g.taking and leaves spare to the queue.
func (g *group) take(spare []completion) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.dirty = false
	g.taking = append(g.taking[:0], g.sealed...)
	clear(g.sealed)
	g.sealed = g.sealed[:0]
	if len(g.open.done) > 0 {
		g.taking = append(g.taking, g.open)
		// The next batch will be about as large: follow up at once, and down
		// slowly.
		g.hint = min(max(len(g.open.data), g.hint-g.hint/8), hintBytesMax)
		g.open = batch{}
	}
	g.ops, g.bytes = 0, 0
	if g.spare == nil {
		g.spare = spare
	}
}

// propose turns the queue into entries. Everything Raft has ready must have
// been collected. Commands that Raft does not accept hear Dropped: they had no
// effect and never will.
func (g *group) propose(n *Node) {
	g.take(n.recycle())
	if len(g.taking) == 0 {
		return
	}
	stamp := max(n.clock.NowMillis(), g.lastStamp.Load())
	g.prop.Entries = g.prop.Entries[:0]
	for i := range g.taking {
		b := &g.taking[i]
		command.SealEntry(b.data, stamp, len(b.done))
		g.prop.Entries = append(g.prop.Entries, raftpb.Entry{Data: b.data})
	}
	if err := g.node.Step(g.prop); err != nil {
		for i := range g.taking {
			n.finish(g.taking[i].done, command.Dropped)
		}
	} else {
		// Everything Raft had appended before has been collected, so the new
		// entries follow the last one seen.
		g.lastStamp.Store(stamp)
		for i := range g.taking {
			g.inflight = append(g.inflight, proposed{index: g.last + 1 + uint64(i), term: g.term.Load(), done: g.taking[i].done})
		}
	}
	clear(g.taking)
	clear(g.prop.Entries)
}

// collect takes everything Raft has ready: entries and hard state into the
// node's write, committed entries into its apply list, messages to others to
// the transport. What must be told to Raft after the write and the apply
// gathers in g.responses.
func (g *group) collect(n *Node) error {
	for g.node.HasReady() {
		rd := g.node.Ready()
		if rd.SoftState != nil {
			g.leader.Store(rd.SoftState.Lead)
			g.serving.Store(g.mayServe(rd.SoftState.RaftState))
		}
		if !raft.IsEmptyHardState(rd.HardState) {
			g.term.Store(rd.HardState.Term)
			g.committed.Store(rd.HardState.Commit)
		}
		for i := range rd.Messages {
			m := &rd.Messages[i]
			switch m.To {
			case raft.LocalAppendThread:
				g.collectAppend(n, m)
			case raft.LocalApplyThread:
				if err := g.collectApply(n, m); err != nil {
					return err
				}
			default:
				n.transport.Send(g.shard, *m)
			}
		}
	}
	return nil
}

func (g *group) collectAppend(n *Node, m *raftpb.Message) {
	hs := raftpb.HardState{Term: m.Term, Vote: m.Vote, Commit: m.Commit}
	if !raft.IsEmptyHardState(hs) && (hs.Term != g.voteTerm || hs.Vote != g.vote) {
		g.voteTerm, g.vote = hs.Term, hs.Vote
		n.mustSync = true
	}
	n.write.Append(g.log, hs, m.Entries)
	if k := len(m.Entries); k > 0 {
		g.last = m.Entries[k-1].Index
	}
	if len(m.Entries) > 0 || len(m.Responses) > 0 {
		// A commit index alone may ride on a later write: it is known again
		// after an election.
		n.mustSync = true
	}
	g.responses = append(g.responses, m.Responses...)
}

func (g *group) collectApply(n *Node, m *raftpb.Message) error {
	for i := range m.Entries {
		e := &m.Entries[i]
		a := applying{group: g, index: e.Index}
		switch e.Type {
		case raftpb.EntryNormal:
			a.data = e.Data
			a.done = g.resolve(n, e.Index, e.Term)
		case raftpb.EntryConfChange, raftpb.EntryConfChangeV2:
			if err := g.applyConfChange(n, e); err != nil {
				return err
			}
		default:
			return fmt.Errorf("shard %d: entry %d has unknown type %v", g.shard, e.Index, e.Type)
		}
		n.addApply(a)
	}
	g.responses = append(g.responses, m.Responses...)
	return nil
}

// resolve returns the completions of the entry that was committed at (index,
// term), if this node proposed it. Proposals that another leader's entry has
// displaced at that place hear Dropped.
func (g *group) resolve(n *Node, index, term uint64) []completion {
	for len(g.inflight) > 0 && g.inflight[0].index <= index {
		p := g.inflight[0]
		g.inflight[0] = proposed{}
		g.inflight = g.inflight[1:]
		if p.index == index && p.term == term {
			return p.done
		}
		n.finish(p.done, command.Dropped)
	}
	if len(g.inflight) == 0 {
		g.inflight = g.inflight[:0]
	}
	return nil
}

func (g *group) applyConfChange(n *Node, e *raftpb.Entry) error {
	var v1 raftpb.ConfChange
	var cc raftpb.ConfChangeV2
	var err error
	if e.Type == raftpb.EntryConfChange {
		if err = v1.Unmarshal(e.Data); err == nil {
			cc = v1.AsV2()
		}
	} else {
		err = cc.Unmarshal(e.Data)
	}
	if err != nil {
		return fmt.Errorf("shard %d: configuration change at %d: %w", g.shard, e.Index, err)
	}
	g.conf = *g.node.ApplyConfChange(cc)
	n.write.SetConfState(g.log, &g.conf)
	n.mustSync = true
	g.serving.Store(g.mayServe(g.node.BasicStatus().RaftState))
	return nil
}

// mayServe reports whether a replica in state s may answer reads from its own
// state. A leader that is its shard's only voter always may: nobody else can
// be elected, and everything acknowledged has been applied here.
func (g *group) mayServe(s raft.StateType) bool {
	return s == raft.StateLeader && len(g.conf.Voters) == 1 && len(g.conf.VotersOutgoing) == 0
}

// respond tells Raft that what it wanted written and applied has been.
func (g *group) respond(n *Node) error {
	for i := 0; i < len(g.responses); i++ {
		m := g.responses[i]
		if m.To != n.id {
			n.transport.Send(g.shard, m)
			continue
		}
		if err := g.node.Step(m); err != nil {
			return fmt.Errorf("shard %d: %w", g.shard, err)
		}
	}
	clear(g.responses)
	g.responses = g.responses[:0]
	return nil
}
