package etcd

import (
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/tracker"

	"github.com/proa-kv/proa/raftgroup/engine"
	"github.com/proa-kv/proa/raftgroup/placement"
)

// transfer is a leadership on its way to another replica. Commands stay in the
// queue until it is done, and what was proposed before is carried out first,
// so that nothing that was begun here ends without an outcome.
type transfer struct {
	to    uint64 // replica; 0: none under way
	until uint64 // tick at which it is given up
	asked bool   // Raft has been asked to
}

// holds reports whether commands have to wait.
func (t *transfer) holds() bool { return t.to != 0 }

// beginTransfer starts to hand the leadership over to a replica.
func (g *group) beginTransfer(e *Engine, to uint64) {
	if !g.leadsNow() || g.transfer.holds() || to == g.id {
		return
	}
	g.logger.Debug("leadership transfer begins", "to", placement.NodeOf(to))
	g.voidLease()
	g.transfer = transfer{to: to, until: e.ticks + uint64(e.electionTicks)}
	g.continueTransfer(e)
}

// continueTransfer takes the next step of a transfer, if one is under way.
func (g *group) continueTransfer(e *Engine) {
	t := &g.transfer
	switch {
	case !t.holds():
	case e.ticks >= t.until:
		g.logger.Debug("leadership transfer failed", "to", placement.NodeOf(t.to))
		*t = transfer{}
		g.requeue(e)
	case !t.asked && (len(g.inflight) == 0 || e.State.Is(engine.Slow)):
		t.asked = true
		g.node.TransferLeader(t.to)
	}
}

// requeue has the next pass look at commands that a transfer has held up: the
// group is off the node's list, and who adds a command takes it to be on it.
func (g *group) requeue(e *Engine) {
	if g.queue.IsListed() {
		e.schedule.addCommands(g)
	}
}

// successors returns the voters that are caught up and could lead at once.
func (g *group) successors() (voters []uint64) {
	g.node.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
		if id != g.id && !pr.IsLearner && pr.State == tracker.StateReplicate && isVoter(&g.conf, id) {
			voters = append(voters, id)
		}
	})
	return voters
}
