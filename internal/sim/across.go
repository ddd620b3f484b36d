package sim

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/proa-kv/proa/bufpool"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup"
)

// Where one node founds a cluster of several shards, some clients carry out
// commands over all of them: each increments a counter of every shard, so that
// these are always equal. They are refused when the cluster has grown; then no
// attempt of a session may have had an effect, since the client has not been
// told of any.
const crossersCount = 3

// crosser is such a client.
type crosser struct {
	sim     *simulation
	id      int
	session command.Session // ID 0: without
	history []*crossing
	op      *crossing // under way
	attempt int       // counts all attempts; an answer to an earlier one is ignored
}

// crossing is one command over all shards.
type crossing struct {
	txn              bool
	session          command.Session
	called, returned int64 // true times; returned is never while nothing is known
	fate             fate
	value            int64 // of the counters, where it is done
}

// fate is what is known of a crossing.
type fate int

const (
	unknownFate fate = iota
	crossed          // it took effect
	notCrossed       // it did not, and never will
)

func pairKey(shard int) string { return fmt.Sprintf("p%d", shard) }

// shardOfPair is the inverse of pairKey.
func shardOfPair(key []byte) int {
	shard, err := strconv.Atoi(string(key[1:]))
	if err != nil {
		panic(err)
	}
	return shard
}

func (s *simulation) beginCrossers() {
	if s.plan.founders != 1 || s.plan.shards == 1 {
		return
	}
	for i := range crossersCount {
		c := &crosser{sim: s, id: i}
		if i > 0 {
			c.session.ID = uint64(2000 + i)
		}
		s.crossers = append(s.crossers, c)
		s.after(s.exponential(50*time.Millisecond), c.begin)
	}
}

func (c *crosser) begin() {
	if !c.sim.loading || c.op != nil {
		return
	}
	op := &crossing{txn: c.sim.chance(0.5), called: c.sim.now(), returned: never}
	if c.session.ID != 0 {
		c.session.Acknowledged = c.session.Sequence
		c.session.Sequence++
		op.session = c.session
	}
	c.op = op
	c.history = append(c.history, op)
	c.try()
}

func (op *crossing) command(shards int) *command.Command {
	c := &command.Command{Kind: command.Batch, Session: op.session}
	if op.txn {
		c.Kind = command.Txn
		c.Compares = []command.Compare{{Target: command.OnVersion, Relation: command.NotEqual, Key: []byte(pairKey(shards - 1)), Version: 1 << 60}} // it holds
	}
	for shard := range shards {
		c.Ops = append(c.Ops, command.Command{Kind: command.Incr, Key: []byte(pairKey(shard)), Delta: 1})
	}
	return c
}

// try sends the command to any node.
func (c *crosser) try() {
	s, op := c.sim, c.op
	c.attempt++
	attempt := c.attempt
	s.after(int64(patience), func() { c.lost(op, attempt) })
	up := s.up()
	if len(up) == 0 || s.chance(s.weather.loss) {
		return
	}
	m := up[s.rng.IntN(len(up))]
	s.after(s.delay(), func() {
		if m.node == nil {
			c.again(op, attempt)
			return
		}
		n, life := m.node, m.life
		m.whenRunning(func() { c.arrive(op, attempt, m, n, life) })
	})
}

// arrive is the request at the node.
func (c *crosser) arrive(op *crossing, attempt int, m *member, n *raftgroup.Node, life int) {
	h := &crossingHearer{c: c, op: op, attempt: attempt, m: m, life: life}
	switch err := n.ProposeAcross(shardOfPair, op.command(c.sim.plan.shards), h, command.Tag{}); {
	case errors.Is(err, command.ErrApart):
		c.reply(func() { c.end(op, attempt, notCrossed) })
	case err != nil:
		c.reply(func() { c.again(op, attempt) })
	}
}

// reply carries an answer back, which may be lost: more often than others, since
// it is the retries that have something to show.
func (c *crosser) reply(arrive func()) {
	s := c.sim
	if s.chance(max(s.weather.loss, 0.2)) {
		return
	}
	s.after(s.delay(), arrive)
}

// crossingHearer hears the outcome of an attempt.
type crossingHearer struct {
	c       *crosser
	op      *crossing
	attempt int
	m       *member
	life    int
}

// Complete passes the outcome on to the client, if the node still lives.
func (h *crossingHearer) Complete(_ command.Tag, o command.Outcome, r *command.Result) {
	c, s, op := h.c, h.c.sim, h.op
	if h.m.life != h.life {
		return
	}
	s.note("crosser %d hears outcome %d of attempt %d from node %d", uint64(c.id), uint64(o), uint64(h.attempt), h.m.id)
	switch o {
	case command.Applied:
		if r.Status == command.SessionExpired {
			c.reply(func() { c.end(op, h.attempt, unknownFate) })
			return
		}
		value, ok := crossingValue(r, s.plan.shards)
		if !ok || op.txn && !r.Succeeded {
			s.problem("crosser %d: one command has made of equal counters %+v", c.id, *r)
			return
		}
		c.reply(func() {
			if c.op == op {
				op.value = value
				c.end(op, c.attempt, crossed)
			}
		})
	case command.Apart:
		c.reply(func() { c.end(op, h.attempt, notCrossed) })
	case command.Dropped:
		c.reply(func() { c.again(op, h.attempt) })
	default:
		c.reply(func() { c.lost(op, h.attempt) })
	}
}

// crossingValue returns what all the counters are by now, if they are equal.
func crossingValue(r *command.Result, shards int) (int64, bool) {
	if r.Status != command.OK || len(r.Results) != shards {
		return 0, false
	}
	for i := range r.Results {
		if r.Results[i].Status != command.OK || r.Results[i].Integer != r.Results[0].Integer {
			return 0, false
		}
	}
	return r.Results[0].Integer, true
}

// lost ends the wait for an attempt whose outcome is not known.
func (c *crosser) lost(op *crossing, attempt int) {
	switch {
	case c.op != op || c.attempt != attempt:
	case op.session.ID == 0:
		c.end(op, attempt, unknownFate)
	default:
		c.again(op, attempt)
	}
}

// again tries once more: the attempt had no effect, or a session sees to it that
// there is only one.
func (c *crosser) again(op *crossing, attempt int) {
	if c.op != op || c.attempt != attempt {
		return
	}
	c.attempt++
	c.sim.after(c.sim.exponential(30*time.Millisecond), func() {
		if c.op == op {
			c.try()
		}
	})
}

// end ends an operation.
func (c *crosser) end(op *crossing, attempt int, f fate) {
	s := c.sim
	if c.op != op || c.attempt != attempt {
		return
	}
	c.op, op.fate = nil, f
	if f == crossed {
		op.returned = s.now()
		s.stats.Crossed++
	}
	s.note("crosser %d: a command has ended, fate %d", uint64(c.id), uint64(f))
	s.after(s.exponential(60*time.Millisecond), c.begin)
}

// judgeCrossings compares what clients have been told with each other, and with
// what the counters are in the end.
func (s *simulation) judgeCrossings() {
	if len(s.crossers) == 0 {
		return
	}
	var done []*crossing
	open := 0
	for _, c := range s.crossers {
		for _, op := range c.history {
			switch op.fate {
			case crossed:
				done = append(done, op)
			case unknownFate:
				open++
			}
		}
	}
	slices.SortFunc(done, func(a, b *crossing) int { return cmp.Compare(a.value, b.value) })
	earliest := int64(never) // to return, of those with higher values
	for i, op := range slices.Backward(done) {
		if i > 0 && done[i-1].value == op.value {
			s.problem("two commands over all shards have made %d of the counters", op.value)
		}
		if earliest < op.called {
			s.problem("a command over all shards made %d of the counters after one that made more had returned", op.value)
		}
		earliest = min(earliest, op.returned)
	}
	for shard := range s.plan.shards {
		value := s.lastCount(pairKey(shard), shard)
		if least, most := int64(len(done)), int64(len(done)+open); value < least || value > most {
			s.problem("counter %s is %d after %d commands over all shards, and %d that may have been carried out", pairKey(shard), value, least, open)
		}
		if first := s.lastCount(pairKey(0), 0); value != first {
			s.problem("commands over all shards have made %d of %s and %d of %s", first, pairKey(0), value, pairKey(shard))
		}
	}
}

// lastCount reads a counter where its shard is led.
func (s *simulation) lastCount(key string, shard int) int64 {
	b := bufpool.Get(64)
	defer b.Release()
	for deadline := s.now() + int64(wholeWithin); s.now() < deadline && !s.failed(); { // a leadership may be on its way
		for _, m := range s.up() {
			if m.leased(shard) {
				_, _ = m.node.ReadLocal(b, shard, []byte(key), m.node.NowMillis(), command.AnyValue)
				return s.count(key, string(b.B))
			}
		}
		s.until(s.now() + int64(50*time.Millisecond))
	}
	s.problem("nobody has a lease to read %s", key)
	return 0
}
