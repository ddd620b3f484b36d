package etcd

import (
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"sync"

	"go.etcd.io/raft/v3"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/engine"
	"github.com/proa-kv/proa/storage"
)

// crossShard carries out commands over several shards.
type crossShard struct {
	engine *Engine

	mu          sync.Mutex // guards acrossQueue
	acrossQueue acrossQueue
	crossing    crossing // belongs to the pass
}

// # Commands over several shards
//
// A node that is its cluster's only member carries out a command whose keys lie
// in several shards all at once. The pass cuts it up into one part for each
// shard, in an entry of that shard's group. What makes the parts one:
//
//   - Durable together. A pass makes one log write of the entries of all groups,
//     and after a crash that is there as a whole or not at all (raftlog: a run
//     has one checksum). The only voter of a group commits whatever its log
//     holds. So either all parts are carried out or none.
//   - Carried out alone. A part depends on its own shard and entry only (A1), so
//     that it may be replayed while the other shards' parts are not. What depends
//     on several shards is decided before: comparisons, and what a RENAME finds.
//     That is done in a rehearsal (storage.Rehearsal) on the state as of all that
//     the groups' logs hold, so nothing can come between it and the parts.
//   - Visible together. The parts stand first in their groups' logs, so they are
//     committed in one pass; the state machine makes their effects visible in one
//     step (storage.Entry.Together).
//   - Remembered together. Each part of a session's command leaves its result in
//     its own shard. A retry is answered from them if all are there.
//
// Rejected: two-phase commit, which a cluster of several nodes will need and a
// lone node would pay for with a second fsync.
//
// Where there is, or may be, another replica of one of the shards, the command
// is refused: that is the answer in clusters of several nodes. One of a session
// may have been carried out before the cluster grew, so it is looked for first
// (recall.go).

// acrossCommand is a command over several shards in the queue: an entry with
// nothing but it.
type acrossCommand struct {
	entry   []byte
	shardOf func(key []byte) int
	done    engine.Completion
}

// acrossQueue holds them. Any thread may add to it; see crossShard.mu.
type acrossQueue struct {
	list []acrossCommand
	// Of the list, and of what the pass has taken over and not proposed yet.
	ops, bytes int
}

// ProposeAcross hands over a command whose keys may lie in several shards; see
// engine.Engine. Only a node that is alone can carry it out.
func (cs *crossShard) ProposeAcross(shardOf func(key []byte) int, c *command.Command, done command.Completer, tag command.Tag) error {
	if err := cs.engine.State.Unusable(); err != nil {
		return err
	}
	if !cs.engine.State.Is(engine.Alone) && c.Session.ID == 0 {
		return command.ErrApart
	}
	if !cs.engine.State.Is(engine.Upgraded) {
		var err error
		if c, err = c.Plain(); err != nil {
			return err
		}
	}
	size := command.EntryHeaderBytes + c.EncodedBytesMax()
	if size > cs.engine.Limits.EntryBytes {
		return command.ErrTooLarge
	}
	q := acrossCommand{c.AppendTo(command.AppendEntryHeader(make([]byte, 0, size))), shardOf, engine.Completion{Sink: done, Tag: tag}}
	command.SealEntry(q.entry, 0, 1)
	if !cs.engine.State.Is(engine.Alone) {
		return cs.recall(&q, c)
	}
	return cs.enqueueAcross(&q)
}

// enqueueAcross leaves a command to the pass.
func (cs *crossShard) enqueueAcross(c *acrossCommand) error {
	cs.mu.Lock()
	q := &cs.acrossQueue
	if q.ops >= cs.engine.Limits.QueueOps || (q.bytes+len(c.entry) > cs.engine.Limits.QueueBytes && q.ops > 0) {
		cs.mu.Unlock()
		return command.ErrBusy
	}
	q.list = append(q.list, *c)
	q.ops++
	q.bytes += len(c.entry)
	cs.mu.Unlock()
	cs.engine.schedule.request(commandsDue)
	return nil
}

// crossing is the pass's scratch for commands over several shards.
type crossing struct {
	list    []acrossCommand // that the pass has taken over and not proposed yet
	touched map[uint64]bool // hashes of the keys and sessions of the pass's commands so far
	seed    maphash.Seed
	grew    bool // one of the pass's commands so far makes much of little
	ranged  bool // one of them is a DeleteRange, which touches every key
	ops     int  // of the pass's commands so far
	bytes   int
	read    int        // bytes of values that the pass's rehearsals have read and made
	turn    acrossTurn // whose commands are at the head of the list
	needs   int        // bytes for which the first of the list needs room in the state machine; 0: it has not been looked at
	stamp   uint64     // of the pass's parts
	cmd     command.Command
	parts   []acrossPart
}

// acrossTurn is what was queued together. Of commands that make much of little as
// many are carried out as read and make about Limits.TurnBytes; the others get
// Busy. So a queue of small requests is worked off within a few passes, whatever
// rows they name and whether or not their clients are still there.
type acrossTurn struct {
	left   int // commands of it in the list
	weight int // bytes that those that make much of little have read and made
}

// spent reports whether the turn has made as much as it may. As in an entry of one
// shard, what comes before that may still make a whole value.
func (t *acrossTurn) spent(lim *engine.Limits) bool {
	return t.weight > lim.TurnBytes-command.ValueBytesMax
}

// acrossPart is what one shard has to do with a command.
type acrossPart struct {
	shard int
	cmd   command.Command
}

// verdict is what becomes of a command at the head of the queue.
type verdict uint8

const (
	taken   verdict = iota // its parts are in their groups
	waits                  // for what this pass writes
	refused                // it has been answered
)

// takeAcross makes parts of the commands that are queued, as many as one entry
// of each group takes in, and adds the groups to those that propose.
func (cs *crossShard) takeAcross() error {
	x := &cs.crossing
	cs.mu.Lock()
	x.list = append(x.list, cs.acrossQueue.list...)
	clear(cs.acrossQueue.list)
	cs.acrossQueue.list = cs.acrossQueue.list[:0]
	cs.mu.Unlock()
	if !cs.acrossDue() {
		return nil
	}
	x.begin(cs.engine)
	ops, bytes := 0, 0
	for len(x.list) > 0 && x.ops < cs.engine.Limits.BatchOps && x.bytes < cs.engine.Limits.BatchBytes {
		if x.turn.left == 0 {
			x.turn = acrossTurn{left: len(x.list)}
		}
		v, err := cs.cross(&x.list[0])
		if err != nil {
			return fmt.Errorf("command across shards: %w", err)
		}
		if v == waits {
			break
		}
		ops++
		bytes += len(x.list[0].entry)
		x.turn.left--
		x.list[0] = acrossCommand{}
		x.list = x.list[1:]
	}
	if len(x.list) == 0 {
		x.list = nil
	} else if cs.acrossDue() {
		cs.engine.schedule.request(commandsDue)
	}
	cs.mu.Lock()
	cs.acrossQueue.ops -= ops
	cs.acrossQueue.bytes -= bytes
	cs.mu.Unlock()
	x.forget()
	return nil
}

// acrossDue reports whether commands over several shards can go on. Where the first
// only needs room, the state machine hurries to make some, and calls flushed.
func (cs *crossShard) acrossDue() bool {
	x := &cs.crossing
	return len(x.list) > 0 && (x.needs == 0 || cs.engine.Store.Room(x.needs))
}

// forget lets go of the commands that the scratch has views of.
func (x *crossing) forget() {
	parts := x.parts[:cap(x.parts)]
	for i := range parts {
		c := &parts[i].cmd
		clear(c.Ops[:cap(c.Ops)])
		clear(c.Else[:cap(c.Else)])
	}
}

// dropAcross answers what is queued when the node stops: nothing happened.
func (cs *crossShard) dropAcross() {
	cs.mu.Lock()
	list := append(cs.crossing.list, cs.acrossQueue.list...)
	cs.acrossQueue = acrossQueue{}
	cs.mu.Unlock()
	cs.crossing.list, cs.crossing.turn, cs.crossing.needs = nil, acrossTurn{}, 0
	for i := range list {
		_, _ = cs.refuse(&list[i], command.Dropped)
	}
}

// begin forgets the last pass's commands and fixes the time of this one's.
func (x *crossing) begin(e *Engine) {
	if x.touched == nil {
		x.touched, x.seed = make(map[uint64]bool), maphash.MakeSeed()
	}
	clear(x.touched)
	x.ops, x.bytes, x.read, x.needs, x.grew, x.ranged = 0, 0, 0, 0, false, false
	now := e.Time.Now()
	x.stamp = now
	for _, g := range e.groups {
		x.stamp = max(x.stamp, g.Now(now))
	}
}

// refuse answers a command that has not been begun.
func (cs *crossShard) refuse(q *acrossCommand, o command.Outcome) (verdict, error) {
	q.done.Sink.Complete(q.done.Tag, o, nil)
	return refused, nil
}

// answer answers a command of which nothing has been done, for a reason that its
// operations have.
func (cs *crossShard) answer(q *acrossCommand, kind command.Kind, s command.Status) (verdict, error) {
	q.done.Sink.Complete(q.done.Tag, command.Applied, &command.Result{Kind: kind, Status: s})
	return refused, nil
}

// cross makes parts of one command.
func (cs *crossShard) cross(q *acrossCommand) (verdict, error) {
	x := &cs.crossing
	if err := q.decode(&x.cmd); err != nil {
		return refused, err
	}
	c := &x.cmd
	x.parts = x.parts[:0]
	far := x.addParts(c, q.shardOf)
	if c.Kind == command.DeleteRange {
		for shard := range cs.engine.Meta() {
			x.part(shard)
		}
	}
	switch v, o := cs.mayCross(); {
	case v == waits:
		return waits, nil
	case far && c.Session.ID != 0:
		return cs.refuse(q, command.Apart)
	case v == refused && o == command.Apart && c.Session.ID != 0:
		return cs.recallQueued(q, c)
	case v == refused:
		return cs.refuse(q, o)
	}
	grows := growing(c)
	switch {
	case grows && cs.engine.State.Is(engine.Stopped):
		return cs.refuse(q, command.Dropped) // a stop does not wait for it
	case grows && x.turn.spent(cs.engine.Limits):
		return cs.answer(q, c.Kind, command.Busy)
	case grows && x.grew:
		return waits, nil
	}
	p := planner{crossing: x, shardOf: q.shardOf, shards: cs.engine.Meta(), cmd: c, ops: c.Ops, whole: c.Flags&command.Whole != 0}
	p.inFull = far || making(c) || p.whole && (weighty(c) || cs.engine.State.Is(engine.Damaged))
	if len(c.Compares) > 0 || p.inFull || c.Session.ID != 0 {
		if x.met(c) || x.read > command.ValueBytesMax {
			return waits, nil
		}
		var err error
		if p.rehearsal, err = cs.engine.Store.Rehearse(x.stamp, c.Kind); err != nil {
			return refused, err
		}
		defer p.rehearsal.End()
	}
	status, err := p.plan(cs.engine.Limits.EntryBytes)
	if errors.Is(err, storage.ErrDamaged) {
		status, err = command.Damaged, nil
	}
	weight := p.weight()
	x.read += weight
	switch need := len(q.entry) + weight; {
	case err != nil:
		return refused, err
	case status == command.OK && need > engine.LargeBytes && !cs.engine.Store.Room(need):
		x.needs = need
		return waits, nil
	}
	if grows {
		x.turn.weight += weight
	}
	if status != command.OK {
		return cs.answer(q, c.Kind, status)
	}
	cs.handParts(&p, q.done)
	x.grew = x.grew || grows
	return taken, nil
}

func (q *acrossCommand) decode(c *command.Command) error {
	r, err := command.NewReader(q.entry)
	if err == nil {
		_, err = r.Next(c)
	}
	return err
}

// addParts makes sure of a part for the shard of each key of c, and reports
// whether a Rename has its keys in two of them.
func (x *crossing) addParts(c *command.Command, shardOf func([]byte) int) (far bool) {
	c.EachKey(func(key, destination []byte) {
		from := x.part(shardOf(key))
		if destination != nil {
			far = x.part(shardOf(destination)) != from || far
		}
	})
	return far
}

// growing reports whether c has an operation whose results storage bounds for
// each entry (see storage/extend.go). There is one such command in an entry, so
// that what is refused for the bound is refused in the rehearsal too.
func growing(c *command.Command) bool {
	switch c.Kind {
	case command.Put, command.Delete, command.Incr, command.Expire, command.Persist, command.Exists, command.Expiry, command.Watch, command.DeleteRange:
		return false
	case command.Batch, command.Txn:
		return slices.ContainsFunc(c.Ops, func(op command.Command) bool { return growing(&op) }) ||
			slices.ContainsFunc(c.Else, func(op command.Command) bool { return growing(&op) })
	}
	return true
}

// making reports whether c has an operation that may make a large row of a small
// request. Storage bounds that for each entry, and so for each shard; what all
// shards make together is known from a rehearsal only.
func making(c *command.Command) bool {
	makes := func(op command.Command) bool {
		return growing(&op) && op.Kind != command.Get && op.Kind != command.GetRange
	}
	return slices.ContainsFunc(c.Ops, makes) || slices.ContainsFunc(c.Else, makes)
}

// weighty reports whether results of c may be large or Busy.
func weighty(c *command.Command) bool {
	shows := func(op command.Command) bool {
		return growing(&op) || (op.Kind == command.Put || op.Kind == command.Delete) && op.Flags&command.ReturnPrevious != 0
	}
	return slices.ContainsFunc(c.Ops, shows) || slices.ContainsFunc(c.Else, shows)
}

// part returns the number of a shard's part.
func (x *crossing) part(shard int) int {
	for i := range x.parts {
		if x.parts[i].shard == shard {
			return i
		}
	}
	if len(x.parts) == cap(x.parts) {
		x.parts = append(x.parts, acrossPart{})
	} else {
		x.parts = x.parts[:len(x.parts)+1] // keeps the capacity of its slices
	}
	p := &x.parts[len(x.parts)-1]
	p.shard = shard
	p.cmd = command.Command{Ops: p.cmd.Ops[:0], Else: p.cmd.Else[:0]}
	return len(x.parts) - 1
}

// met reports whether a command before it in this pass has touched a key of c,
// or belongs to its session: then c cannot be decided yet.
func (x *crossing) met(c *command.Command) (met bool) {
	c.EachKey(func(key, destination []byte) {
		met = met || x.touched[maphash.Bytes(x.seed, key)] || destination != nil && x.touched[maphash.Bytes(x.seed, destination)]
	})
	return met || x.ranged || c.Session.ID != 0 && x.touched[maphash.Comparable(x.seed, c.Session.ID)]
}

func (x *crossing) touch(c *command.Command) {
	x.ranged = x.ranged || c.Kind == command.DeleteRange
	c.EachKey(func(key, destination []byte) {
		x.touched[maphash.Bytes(x.seed, key)] = true
		if destination != nil {
			x.touched[maphash.Bytes(x.seed, destination)] = true
		}
	})
	if c.Session.ID != 0 {
		x.touched[maphash.Comparable(x.seed, c.Session.ID)] = true
	}
}

// mayCross reports whether the shards of the parts may be changed together now:
// this node has the only replica of each, and has carried out all that is in its
// log.
func (cs *crossShard) mayCross() (verdict, command.Outcome) {
	if !cs.engine.State.Is(engine.Alone) {
		return refused, command.Apart
	}
	for i := range cs.crossing.parts {
		g := cs.engine.groups[cs.crossing.parts[i].shard]
		switch {
		case g.node == nil || g.state != raft.StateLeader || !g.Leads.Load() || g.transfer.holds():
			return refused, command.Dropped
		case !g.onlyMember():
			return refused, command.Apart
		case g.at.index == g.last && len(g.inflight) == 0 && !g.node.HasReady():
		case cs.engine.filling.mustSync:
			return waits, 0
		default:
			return refused, command.Dropped
		}
	}
	return taken, command.Apart
}

// planner makes the parts of one command.
type planner struct {
	*crossing
	shardOf   func(key []byte) int
	shards    int // how many there are
	cmd       *command.Command
	rehearsal *storage.Rehearsal // nil: nothing is to be decided
	inFull    bool               // every operation is rehearsed, to see whether it can be done
	whole     bool               // a Txn that is done only if all of it can be

	refuted bool              // a comparison does not hold
	ops     []command.Command // that are to be carried out
	results []acrossOp        // where their results will be
	moved   int               // bytes that Renames move from shard to shard
}

// weight returns how many bytes of values the command reads and makes, as far as a
// rehearsal has shown it.
func (p *planner) weight() int {
	if p.rehearsal == nil {
		return 0
	}
	return p.rehearsal.Weight() + p.moved
}

// plan fills the parts. A status other than OK says why there is nothing to be
// done. bytesMax bounds what Renames move.
func (p *planner) plan(bytesMax int) (command.Status, error) {
	if p.cmd.Kind == command.Rename || p.cmd.Kind == command.DeleteRange {
		p.ops = []command.Command{*p.cmd}
	}
	if status, err := p.choose(); status != command.OK || err != nil {
		return status, err
	}
	p.results = make([]acrossOp, 0, len(p.ops))
	for i := range p.ops {
		status, err := p.place(&p.ops[i])
		if status != command.OK || err != nil {
			return status, err
		}
		if p.moved > bytesMax {
			return command.TooLarge, nil
		}
	}
	return command.OK, nil
}

// choose decides which list of operations is to be carried out, and leaves the
// parts of the shards that have a key of it, and the first: there a retry finds
// what was decided. A command that was carried out before gets the same parts
// again; each shard then answers as it did.
func (p *planner) choose() (command.Status, error) {
	home := p.parts[0].shard
	before, expired, err := p.replays(home)
	if expired || err != nil {
		return command.SessionExpired, err
	}
	if before {
		p.inFull = false // it came to what it came to, whatever it would now
	} else {
		for i := range p.cmd.Compares {
			x := &p.cmd.Compares[i]
			holds, err := p.rehearsal.Compare(p.shardOf(x.Key), x)
			if err != nil {
				return command.OK, err
			}
			p.refuted = p.refuted || !holds
		}
	}
	if p.refuted {
		p.ops = p.cmd.Else
	}
	p.parts = p.parts[:0]
	p.part(home)
	for i := range p.ops {
		p.addParts(&p.ops[i], p.shardOf)
	}
	for i := range p.parts {
		// With some of the results forgotten, nobody can say any more what
		// the command came to, and the rest must not be done once more.
		if again, expired, err := p.replays(p.parts[i].shard); expired || err != nil || again != before {
			return command.SessionExpired, err
		}
	}
	return command.OK, nil
}

// replays reports whether the command's part in a shard was carried out before,
// or may have been and its result is not kept any more.
func (p *planner) replays(shard int) (done, expired bool, err error) {
	if p.cmd.Session.ID == 0 {
		return false, false, nil
	}
	var r command.Result
	done, err = p.rehearsal.Replay(shard, p.cmd, 0, &r)
	if errors.Is(err, storage.ErrDamaged) {
		return true, true, nil // what became of it cannot be read
	}
	if done && shard == p.parts[0].shard {
		p.refuted = p.cmd.Kind == command.Txn && !r.Succeeded
	}
	return done, done && r.Status == command.SessionExpired, err
}

// place puts one operation into the part of its shard.
func (p *planner) place(op *command.Command) (command.Status, error) {
	if op.Kind == command.DeleteRange {
		for shard := range p.shards {
			p.results = append(p.results, acrossOp{part: p.add(shard, op), drop: -1})
		}
		return command.OK, nil
	}
	shard := p.shardOf(op.Key)
	if op.Kind == command.Rename && p.shardOf(op.Value) != shard {
		return command.OK, p.move(op, shard, p.shardOf(op.Value))
	}
	p.results = append(p.results, acrossOp{part: p.add(shard, op), drop: -1})
	if !p.inFull {
		return command.OK, nil
	}
	return p.rehearse(shard, op)
}

// rehearse lets later operations see what op does, and says why nothing may be
// done. What is Busy here, for the sum of what the operations make, might not be
// in the shard.
func (p *planner) rehearse(shard int, op *command.Command) (command.Status, error) {
	var r command.Result
	err := p.rehearsal.Do(shard, op, &r)
	switch {
	case err != nil:
		return command.OK, err
	case r.Status == command.Busy, r.Status == command.Damaged && p.whole:
		return r.Status, nil
	case p.whole && !p.rehearsal.Fits():
		return command.TooLarge, nil
	}
	return command.OK, nil
}

// move makes a Rename from one shard to another a Delete and a Put of what is
// there to be moved.
func (p *planner) move(op *command.Command, from, to int) error {
	outcome := func(status command.Status, version uint64) {
		p.results = append(p.results, acrossOp{decided: true, status: status, version: version})
	}
	value, _, expireAt, exists, err := p.rehearsal.Row(from, op.Key)
	if err != nil {
		return err
	}
	if !exists {
		outcome(command.NotFound, 0)
		return nil
	}
	if op.Flags&command.RenameIfAbsent != 0 {
		_, version, _, exists, err := p.rehearsal.Row(to, op.Value)
		if err != nil {
			return err
		}
		if exists {
			outcome(command.ConditionFailed, version)
			return nil
		}
	}
	p.moved += len(value)
	put := command.Command{Kind: command.Put, Key: op.Value, Value: value}
	if expireAt != 0 {
		put.Flags, put.TTLMillis = command.SetExpireAt, expireAt
	}
	result := acrossOp{part: p.add(to, &put), drop: -1, rename: true}
	if _, err := p.rehearse(to, &put); err != nil {
		return err
	}
	if op.Flags&command.RenameKeepSource == 0 {
		remove := command.Command{Kind: command.Delete, Key: op.Key}
		result.drop = p.add(from, &remove)
		if _, err := p.rehearse(from, &remove); err != nil {
			return err
		}
	}
	p.results = append(p.results, result)
	return nil
}

// add adds an operation to the part of a shard, and returns the part's number.
func (p *planner) add(shard int, op *command.Command) int {
	i := p.part(shard)
	c := &p.parts[i].cmd
	if p.refuted {
		c.Else = append(c.Else, *op)
	} else {
		c.Ops = append(c.Ops, *op)
	}
	return i
}

// partCommand returns the command that part i is, complete.
func (p *planner) partCommand(i int) *command.Command {
	c := &p.parts[i].cmd
	c.Kind, c.Flags, c.Session = command.Batch, command.Part, p.cmd.Session
	switch {
	case p.cmd.Kind == command.Batch:
		c.Flags |= p.cmd.Flags & command.Counted
	case p.cmd.Kind == command.Txn:
		c.Kind = command.Txn
		if p.refuted {
			c.Flags |= command.Refuted
		}
	}
	return c
}

// handParts puts the parts that are planned into the groups' next entries.
func (cs *crossShard) handParts(p *planner, done engine.Completion) {
	x := p.crossing
	a := &across{
		engine: cs.engine, done: done, kind: p.cmd.Kind, succeeded: !p.refuted, ops: p.results,
		left: len(p.parts), parts: make([]*command.Result, len(p.parts)),
	}
	for i := range p.parts {
		c := p.partCommand(i)
		g := cs.engine.groups[p.parts[i].shard]
		if len(g.part.Done) == 0 {
			g.part.Data = command.AppendEntryHeader(make([]byte, 0, command.EntryHeaderBytes+c.EncodedBytesMax()))
			g.part.Stamp = x.stamp
			g.LastStamp.Store(x.stamp) // what else the pass proposes comes later
			if !slices.Contains(cs.engine.deferred, g) {
				cs.engine.deferred = append(cs.engine.deferred, g)
			}
		}
		before := len(g.part.Data)
		g.part.Data = c.AppendTo(g.part.Data)
		g.part.Done = append(g.part.Done, engine.Completion{Sink: a, Tag: command.Tag{ID: uint64(i)}})
		x.bytes += len(g.part.Data) - before
	}
	x.ops += len(p.ops) + 1
	x.touch(p.cmd)
}

// across is a command over several shards whose parts are on their way. It
// belongs to the pass.
type across struct {
	engine    *Engine
	done      engine.Completion
	kind      command.Kind
	succeeded bool // a Txn: all comparisons held
	ops       []acrossOp

	left    int               // parts without an outcome
	parts   []*command.Result // valid during the call of store.Apply that makes all of them
	call    uint64            // the number of that call
	heard   bool              // of a part
	outcome command.Outcome   // of the parts so far
}

// acrossOp says where the result of one operation comes from.
type acrossOp struct {
	part    int            // whose next result it is
	drop    int            // part whose next result is of no interest, -1: none
	rename  bool           // it is that of the Put that a Rename became
	decided bool           // there is nothing to do, as the following say
	status  command.Status // of a Rename
	version uint64
}

// Complete takes in the outcome of one part.
func (a *across) Complete(tag command.Tag, o command.Outcome, r *command.Result) {
	calls := a.engine.applier.Calls
	switch {
	case a.heard && (o != a.outcome || o == command.Applied && a.call != calls):
		a.outcome = command.Lost // it must not happen, and nobody may learn what it was
	default:
		a.heard, a.outcome, a.call = true, o, calls
	}
	a.parts[tag.ID] = r
	if a.left--; a.left > 0 {
		return
	}
	if a.outcome != command.Applied {
		a.done.Sink.Complete(a.done.Tag, a.outcome, nil)
		return
	}
	out := a.result()
	a.done.Sink.Complete(a.done.Tag, command.Applied, &out)
}

// result makes one result of those of the parts.
func (a *across) result() command.Result {
	out := command.Result{Kind: a.kind, Succeeded: a.kind == command.Txn && a.succeeded}
	for _, r := range a.parts {
		if r.Status != command.OK {
			out.Status = r.Status
			return out
		}
	}
	next := make([]int, len(a.parts))
	take := func(part int) (r command.Result) {
		if list := a.parts[part].Results; next[part] < len(list) {
			r = list[next[part]]
		} else {
			out.Status = command.SessionExpired // that of another request
		}
		next[part]++
		return r
	}
	results := make([]command.Result, 0, len(a.ops))
	for i := range a.ops {
		op := &a.ops[i]
		if op.decided {
			results = append(results, command.Result{Kind: command.Rename, Status: op.status, Version: op.version})
			continue
		}
		r := take(op.part)
		if op.rename {
			r = command.Result{Kind: command.Rename, Status: r.Status, Version: r.Version}
		}
		if op.drop >= 0 {
			take(op.drop)
		}
		results = append(results, r)
	}
	if a.kind == command.Rename && out.Status == command.OK {
		return results[0]
	}
	out.Results = results
	return out
}
