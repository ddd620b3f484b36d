package etcd

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/engine"
)

// proposals has a group's commands on their way from the queue to the state machine.
type proposals struct {
	group *group
	queue engine.Queue

	// Belongs to the pass.
	prop        raftpb.Message // reused for every proposal
	taking      []engine.Batch
	part        engine.Batch // of commands over several shards, goes before what is queued
	inflight    []proposed
	last        uint64 // index of the last entry collected
	listedLarge bool   // on the loop's list of groups with large commands
	sweeping    bool   // a Sweep is queued or on its way
}

// proposed is an entry on its way: appended to this leader's log at (index,
// term), not applied yet.
type proposed struct {
	index, term uint64
	tick        uint64 // when
	done        []engine.Completion
}

// enqueue copies c into the group's queue. It returns whether the schedule has to be
// notified that the group has commands.
func (ps *proposals) enqueue(e *Engine, c *command.Command, done engine.Completion) (wake bool, err error) {
	size := c.EncodedBytesMax()
	switch {
	case size > e.Limits.EntryBytes:
		return false, command.ErrTooLarge
	case size > engine.LargeBytes:
		return ps.enqueueLarge(e, c, done, size)
	}
	return ps.queue.Add(c, size, done, e.Limits)
}

// take empties the queue into g.taking, behind the part of commands over several
// shards if there is one, and leaves spare to the queue.
func (ps *proposals) take(spare []engine.Completion) {
	ps.taking = ps.taking[:0]
	if len(ps.part.Done) > 0 {
		ps.taking = append(ps.taking, ps.part)
		ps.part = engine.Batch{}
	}
	ps.taking = ps.queue.Take(ps.taking, spare)
}

// propose turns the queue into entries. Everything Raft has ready must have
// been collected. Commands that Raft does not accept get Dropped: they had no
// effect and never will. An error says that the part of a command over several
// shards is among them; the other parts must not be written.
func (ps *proposals) propose(e *Engine) error {
	parts := len(ps.part.Done) > 0
	if ps.group.transfer.holds() && !parts {
		return nil // the queue goes to the next leader, or goes on here
	}
	ps.take(e.applier.Recycle())
	if err := ps.proposeTaken(e); err != nil && parts {
		return fmt.Errorf("%s: its part of a command across shards was not accepted: %w", e.ShardName(ps.group.shard), err)
	}
	return nil
}

// errNotLed is why proposeTaken refuses.
var errNotLed = errors.New("this node does not lead the shard")

// proposeTaken is propose for what has been taken from the queue. An error says
// why it was refused, which those who wait for it have got.
func (ps *proposals) proposeTaken(e *Engine) error {
	if len(ps.taking) == 0 {
		return nil
	}
	if ps.group.node == nil || ps.group.state != raft.StateLeader {
		ps.refuseTaken(e)
		return errNotLed
	}
	stamp := ps.group.Now(e.Time.Now())
	ps.prop.Entries = ps.prop.Entries[:0]
	for i := range ps.taking {
		b := &ps.taking[i]
		command.SealEntry(b.Data, cmp.Or(b.Stamp, stamp), len(b.Done))
		ps.prop.Entries = append(ps.prop.Entries, raftpb.Entry{Data: b.Data})
	}
	err := ps.group.node.Step(ps.prop)
	if err != nil {
		ps.refuseTaken(e)
	} else {
		// Everything Raft had appended before has been collected, so the new
		// entries follow the last one seen.
		ps.group.LastStamp.Store(stamp)
		for i := range ps.taking {
			if len(ps.inflight) == 0 && !ps.group.onlyVoter() {
				e.replicating = append(e.replicating, ps.group)
			}
			ps.await(proposed{index: ps.last + 1 + uint64(i), term: ps.group.Term.Load(), tick: e.ticks, done: ps.taking[i].Done})
		}
	}
	clear(ps.taking)
	ps.taking = ps.taking[:0]
	clear(ps.prop.Entries)
	return err
}

// await adds p to what is in flight. That is in the order of the indexes, and
// there p may come before what this replica proposed when it led before: those
// entries may have been cut off its log since, but somebody else's may bring
// them back, until others are committed in their places.
func (ps *proposals) await(p proposed) {
	at := len(ps.inflight)
	for at > 0 && ps.inflight[at-1].index >= p.index {
		at--
	}
	ps.inflight = slices.Insert(ps.inflight, at, p)
}

func (ps *proposals) refuseTaken(e *Engine) {
	for i := range ps.taking {
		e.applier.Finish(ps.taking[i].Done, command.Dropped)
	}
	clear(ps.taking)
	ps.taking = ps.taking[:0]
}

// resolve returns the completions of the entry that was committed at (index,
// term), if this node proposed it. Proposals that another leader's entry has
// displaced at that place get Dropped: only now, since until something else is
// committed there an entry that has gone from this log may come back.
func (ps *proposals) resolve(e *Engine, index, term uint64) []engine.Completion {
	for len(ps.inflight) > 0 && ps.inflight[0].index <= index {
		p := ps.inflight[0]
		ps.inflight[0] = proposed{}
		ps.inflight = ps.inflight[1:]
		if p.index == index && p.term == term {
			return p.done
		}
		e.applier.Finish(p.done, command.Dropped)
	}
	if len(ps.inflight) == 0 {
		ps.inflight = ps.inflight[:0]
	}
	return nil
}

// drainInflight takes out all proposals without an outcome.
func (ps *proposals) drainInflight() []engine.Completion {
	var all []engine.Completion
	for _, p := range ps.inflight {
		all = append(all, p.done...)
	}
	ps.inflight = nil
	return all
}

// expireInflight gives up on proposals without an outcome that were made
// before the given tick: they may have had their effect, or may yet.
func (ps *proposals) expireInflight(e *Engine, before uint64) {
	ps.inflight = slices.DeleteFunc(ps.inflight, func(p proposed) bool {
		if p.tick >= before {
			return false
		}
		e.applier.Finish(p.done, command.TimedOut)
		return true
	})
}

// loseQuorum says that the shard has had no leader for so long that it will
// not have one soon.
func (ps *proposals) loseQuorum(e *Engine) {
	ps.group.NoQuorum.Store(true)
	for _, p := range ps.inflight {
		e.applier.Finish(p.done, command.TimedOut)
	}
	ps.inflight = nil
}

// sweepRows bounds the rows one Sweep removes, and so the pause it makes.
const sweepRows = 1000

// sweep proposes the removal of rows and sessions whose time has come.
func (ps *proposals) sweep(e *Engine, now uint64) {
	if ps.sweeping || !e.Store.SweepDue(ps.group.shard, ps.group.Now(now)) {
		return
	}
	ps.sweeping = true
	sweep := e.Store.SweepCommand(sweepRows)
	wake, err := ps.enqueue(e, &sweep, engine.Completion{Sink: (*sweeper)(ps)})
	if err != nil {
		ps.sweeping = false
	}
	if wake {
		e.schedule.addCommands(ps.group)
	}
}

// sweeper hears that a sweep has been carried out.
type sweeper proposals

// Complete allows the next sweep.
func (s *sweeper) Complete(command.Tag, command.Outcome, *command.Result) { s.sweeping = false }
