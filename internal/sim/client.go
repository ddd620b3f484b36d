package sim

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/proa-kv/proa/bufpool"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup"
)

// Each shard has a few keys. A counter is only ever incremented and read, so
// its value tells how new a state is; a register is put, deleted, alone or with
// all of its shard, and put on condition of its version, each time with a value
// of its own.
const (
	registersPerShard = 2
	clientsCount      = 5
)

type opKind int

const (
	opGet opKind = iota
	opPut
	opSwap // put, if the version is what was read last
	opDelete
	opIncr
	opDeleteRange // of all registers of the shard
)

var opNames = [...]string{"get", "put", "swap", "delete", "incr", "delete range"}

// operation is one call of a client, with all its attempts.
type operation struct {
	client  int
	kind    opKind
	shard   int
	key     string
	value   string // put, swap
	expect  string // swap: the value at the version
	version uint64 // swap: on condition of it
	session command.Session

	called, returned int64 // true times; returned is never while nothing is known
	unknown          bool  // some attempt may have had, or may yet have, its effect
	done             bool
	result           result
}

// result is what the client was told.
type result struct {
	value   string // get: "" for an absent key
	version uint64 // of the value, or of the write; 0: not told
	integer int64
	failed  bool // swap, delete: the condition did not hold, or there was nothing
}

const never = math.MaxInt64

// keys are those that the operation concerns.
func (op *operation) keys() []string {
	if op.kind != opDeleteRange {
		return []string{op.key}
	}
	var keys []string
	for i := range registersPerShard {
		keys = append(keys, registerKey(op.shard, i))
	}
	return keys
}

func (op *operation) write() bool { return op.kind != opGet }

func (op *operation) command() *command.Command {
	c := &command.Command{Key: []byte(op.key), Session: op.session}
	switch op.kind {
	case opPut:
		c.Kind, c.Value = command.Put, []byte(op.value)
	case opSwap:
		c.Kind, c.Value, c.Flags, c.Version = command.Put, []byte(op.value), command.IfVersion, op.version
	case opDelete:
		c.Kind = command.Delete
	case opIncr:
		c.Kind, c.Delta = command.Incr, 1
	case opDeleteRange:
		c.Kind, c.Key, c.Value = command.DeleteRange, []byte("r"), []byte("s")
	}
	return c
}

// client does one operation after another.
type client struct {
	sim     *simulation
	id      int
	session command.Session // ID 0: without
	serial  int
	history []*operation

	// What it has seen.
	values   map[string]string // of registers, at versions
	versions map[string]uint64
	token    []uint64         // by shard: the highest version
	counts   map[string]int64 // of counters

	op      *operation // under way
	attempt int        // counts all attempts; an answer to an earlier one is ignored
	hint    []uint64   // by shard: who leads, as far as it has heard
}

func (s *simulation) beginClients() {
	for i := range clientsCount {
		c := &client{
			sim: s, id: i, token: make([]uint64, s.plan.shards), hint: make([]uint64, s.plan.shards),
			values: make(map[string]string), versions: make(map[string]uint64), counts: make(map[string]int64),
		}
		if i%5 < 3 {
			c.session.ID = uint64(1000 + i)
		}
		s.clients = append(s.clients, c)
		s.after(s.exponential(50*time.Millisecond), c.begin)
	}
	s.after(s.exponential(20*time.Millisecond), s.weakRead)
}

func registerKey(shard, i int) string { return fmt.Sprintf("r%d.%d", shard, i) }
func counterKey(shard int) string     { return fmt.Sprintf("c%d", shard) }

// begin begins an operation.
func (c *client) begin() {
	s := c.sim
	if !s.loading || c.op != nil {
		return
	}
	op := &operation{client: c.id, shard: s.rng.IntN(s.plan.shards), called: s.now(), returned: never}
	if s.chance(0.3) {
		op.key, op.kind = counterKey(op.shard), opIncr
		if s.chance(0.4) {
			op.kind = opGet
		}
	} else {
		op.key = registerKey(op.shard, s.rng.IntN(registersPerShard))
		c.drawRegisterOp(op)
	}
	c.issue(op)
}

func (c *client) drawRegisterOp(op *operation) {
	s := c.sim
	c.serial++
	op.value = fmt.Sprintf("%d.%d", c.id, c.serial)
	if s.chance(0.1) {
		op.value += string(make([]byte, s.rng.IntN(3000)))
	}
	version, seen := c.versions[op.key]
	switch p := s.rng.Float64(); {
	case p < 0.45:
		op.kind, op.value = opGet, ""
	case p < 0.7:
		op.kind = opPut
	case p < 0.92 && seen:
		op.kind, op.version, op.expect = opSwap, version, c.values[op.key]
	case p < 0.92:
		op.kind = opPut
	case p < 0.96:
		op.kind, op.value = opDelete, ""
	default:
		op.kind, op.value = opDeleteRange, ""
	}
}

// issue makes op the client's operation.
func (c *client) issue(op *operation) {
	if op.write() && c.session.ID != 0 {
		c.session.Acknowledged = c.session.Sequence
		c.session.Sequence++
		op.session = c.session
	}
	if c.sim.config.Break.NoDedupe {
		op.session = command.Session{}
	}
	c.op = op
	c.history = append(c.history, op)
	c.try()
}

// patience is how long a client waits for an answer.
const patience = 900 * time.Millisecond

// try sends the operation to a node.
func (c *client) try() {
	s, op := c.sim, c.op
	c.attempt++
	attempt := c.attempt
	m := c.choose(op.shard)
	s.after(int64(patience), func() { c.giveUp(op, attempt) })
	if m == nil || s.chance(s.weather.loss) {
		return // nobody hears of it, but the client does not know
	}
	s.after(s.delay(), func() {
		if m.node == nil {
			c.refused(op, attempt)
			return
		}
		n, life := m.node, m.life
		m.whenRunning(func() { c.arrive(op, attempt, m, n, life) })
	})
}

// choose returns the node that the client asks: whom it takes for the leader,
// or any.
func (c *client) choose(shard int) *member {
	s := c.sim
	if h := c.hint[shard]; h != 0 && s.members[h].node != nil && s.chance(0.9) {
		return s.members[h]
	}
	up := s.up()
	if len(up) == 0 {
		return nil
	}
	return up[s.rng.IntN(len(up))]
}

// arrive is the request at the node.
func (c *client) arrive(op *operation, attempt int, m *member, n *raftgroup.Node, life int) {
	if !op.write() {
		c.read(op, attempt, m, n, life)
		return
	}
	err := n.Propose(op.shard, op.command(), &hearer{c: c, op: op, attempt: attempt, m: m, life: life}, command.Tag{})
	if err != nil {
		c.reply(func() { c.refused(op, attempt); c.follow(op.shard, n) })
	}
}

// read answers by the lease if there is one, else after a round.
func (c *client) read(op *operation, attempt int, m *member, n *raftgroup.Node, life int) {
	s := c.sim
	b := bufpool.Get(64)
	defer b.Release()
	row, state := n.Read(b, op.shard, []byte(op.key), n.NowMillis(), command.AnyValue)
	if state == command.ReadFound || state == command.ReadAbsent {
		s.stats.LeaseReads++
		r := result{value: string(b.B), version: row.Version}
		c.reply(func() { c.answered(op, attempt, r) })
		return
	}
	if s.config.Break.SkipReadIndex && n.Holds(op.shard) {
		c.readAtIndex(op, attempt, m, n)
		return
	}
	h := &hearer{c: c, op: op, attempt: attempt, m: m, life: life}
	if err := n.ReadIndex(op.shard, h, command.Tag{}); err != nil {
		c.reply(func() { c.refused(op, attempt); c.follow(op.shard, n) })
	}
}

func (c *client) readAtIndex(op *operation, attempt int, m *member, n *raftgroup.Node) {
	b := bufpool.Get(64)
	defer b.Release()
	row, state := n.ReadLocal(b, op.shard, []byte(op.key), n.NowMillis(), command.AnyValue)
	if state != command.ReadFound && state != command.ReadAbsent {
		c.reply(func() { c.refused(op, attempt) })
		return
	}
	c.sim.stats.BarrierReads++
	r := result{value: string(b.B), version: row.Version}
	c.reply(func() { c.answered(op, attempt, r) })
}

// follow takes in whom a node takes for the leader.
func (c *client) follow(shard int, n *raftgroup.Node) { c.hint[shard] = n.Leader(shard) }

// reply carries an answer back, which may be lost.
func (c *client) reply(arrive func()) {
	s := c.sim
	if s.chance(s.weather.loss) {
		return
	}
	s.after(s.delay(), arrive)
}

// hearer hears the outcome of an attempt.
type hearer struct {
	c       *client
	op      *operation
	attempt int
	m       *member
	life    int
	heard   bool
}

// Complete passes the outcome on to the client, if the node still lives.
func (h *hearer) Complete(_ command.Tag, o command.Outcome, r *command.Result) {
	c, s := h.c, h.c.sim
	if h.m.life != h.life {
		return // a node that has crashed says nothing
	}
	if h.heard {
		s.problem("client %d hears twice of one attempt", c.id)
	}
	h.heard = true
	s.note("client %d hears outcome %d of attempt %d from node %d", uint64(c.id), uint64(o), uint64(h.attempt), h.m.id)
	switch {
	case o == command.Applied && !h.op.write():
		n := h.m.node
		s.waiting = append(s.waiting, func() {
			if h.m.life == h.life {
				c.readAtIndex(h.op, h.attempt, h.m, n)
			}
		})
	case o == command.Applied:
		res, ok := h.op.understand(r)
		if !ok {
			s.problem("client %d: %s of %s is answered %d", c.id, opNames[h.op.kind], h.op.key, r.Status)
			return
		}
		c.reply(func() { c.answered(h.op, h.attempt, res) })
	case o == command.Dropped || !h.op.write():
		c.reply(func() { c.refused(h.op, h.attempt) })
	default: // unknown
		c.reply(func() { c.giveUp(h.op, h.attempt) })
	}
}

// understand makes a result of what the state machine answered.
func (op *operation) understand(r *command.Result) (result, bool) {
	out := result{version: r.Version, integer: r.Integer}
	switch r.Status {
	case command.OK:
		return out, true
	case command.ConditionFailed:
		out.failed = true
		return out, op.kind == opSwap
	case command.NotFound:
		out.failed, out.version = true, 0
		return out, op.kind == opDelete
	case command.SessionExpired:
		return out, op.done // a copy that came late; nobody waits for it
	}
	return out, false
}

// current reports whether an answer is to what the client waits for.
func (c *client) current(op *operation, attempt int) bool { return c.op == op && c.attempt == attempt }

// refused hears that an attempt definitely had no effect.
func (c *client) refused(op *operation, attempt int) {
	if !c.current(op, attempt) {
		return
	}
	c.attempt++ // what else is heard of this attempt does not count
	c.hint[op.shard] = 0
	c.again(op)
}

// giveUp ends the wait for an attempt whose outcome is not known.
func (c *client) giveUp(op *operation, attempt int) {
	if !c.current(op, attempt) {
		return
	}
	c.attempt++
	c.hint[op.shard] = 0
	if op.write() {
		op.unknown = true
		if op.session.ID == 0 && !(c.sim.config.Break.NoDedupe && c.session.ID != 0) {
			c.finish(op)
			return
		}
	}
	c.again(op)
}

// again tries the operation once more.
func (c *client) again(op *operation) {
	s := c.sim
	s.after(s.exponential(30*time.Millisecond), func() {
		if c.op == op {
			c.try()
		}
	})
}

// answered ends an operation with its result.
func (c *client) answered(op *operation, attempt int, r result) {
	if c.op != op {
		return
	}
	if !c.current(op, attempt) && op.session.ID == 0 {
		return // of an attempt that was given up: whose, is not known any more
	}
	op.done, op.result, op.returned = true, r, c.sim.now()
	c.learn(op, r)
	c.finish(op)
}

// learn takes in what a result tells of versions and counters.
func (c *client) learn(op *operation, r result) {
	s := c.sim
	c.token[op.shard] = max(c.token[op.shard], r.version)
	switch {
	case op.key == counterKey(op.shard):
		n := r.integer
		if op.kind == opGet {
			n = s.count(op.key, r.value)
		}
		c.counts[op.key] = max(c.counts[op.key], n)
		s.counters.acknowledge(op.key, s.now(), n)
	case op.kind == opGet && r.value != "":
		s.learnVersion(op.key, r.version, r.value)
		c.versions[op.key], c.values[op.key] = r.version, r.value
	case op.kind == opPut, op.kind == opSwap && !r.failed:
		s.learnVersion(op.key, r.version, op.value)
		c.versions[op.key], c.values[op.key] = r.version, op.value
	case op.kind == opGet, op.kind == opDelete, op.kind == opDeleteRange:
		for _, key := range op.keys() {
			delete(c.versions, key)
		}
	}
}

func (c *client) finish(op *operation) {
	s := c.sim
	c.op = nil
	switch {
	case op.done:
		s.stats.Done++
	case op.unknown:
		s.stats.Unknown++
	default:
		s.stats.Refused++
	}
	s.note("client %d: operation on shard %d has ended, done %d", uint64(c.id), uint64(op.shard), bit(op.done))
	s.after(s.exponential(40*time.Millisecond), c.begin)
}

// count is the value of a counter's row.
func (s *simulation) count(key, value string) int64 {
	if value == "" {
		return 0
	}
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		s.problem("counter %s holds %q", key, value)
	}
	return n
}

// versionKey is a version of a key, which has one value for ever.
type versionKey struct {
	key     string
	version uint64
}

func (s *simulation) learnVersion(key string, version uint64, value string) {
	k := versionKey{key, version}
	if was, ok := s.versions[k]; ok && was != value {
		s.problem("version %d of %s was %q and is %q", version, key, short(was), short(value))
	}
	s.versions[k] = value
}

func short(v string) string {
	if len(v) > 16 {
		return v[:16] + "…"
	}
	return v
}

// counters remember what of them was acknowledged when.
type counters struct{ steps map[string][]step }

type step struct{ at, value int64 }

func (c *counters) acknowledge(key string, at, value int64) {
	if c.steps == nil {
		c.steps = make(map[string][]step)
	}
	list := c.steps[key]
	if k := len(list); k == 0 || list[k-1].value < value {
		c.steps[key] = append(list, step{at, value})
	}
}

// before returns the highest value that had been acknowledged by a moment.
func (c *counters) before(key string, at int64) int64 {
	v := int64(0)
	for _, s := range c.steps[key] {
		if s.at > at {
			break
		}
		v = s.value
	}
	return v
}

// weakRead reads a counter at any replica, as session and as stale reads do,
// and checks what those promise.
func (s *simulation) weakRead() {
	if !s.loading {
		return
	}
	s.after(s.exponential(20*time.Millisecond), s.weakRead)
	m := s.anyRunning()
	if m == nil {
		return
	}
	shard := s.rng.IntN(s.plan.shards)
	key := counterKey(shard)
	c := s.clients[s.rng.IntN(len(s.clients))]
	age, known := m.node.Age(shard)
	revision := m.node.Revision(shard)
	b := bufpool.Get(64)
	defer b.Release()
	row, state := m.node.ReadLocal(b, shard, []byte(key), m.node.NowMillis(), command.AnyValue)
	if state != command.ReadFound && state != command.ReadAbsent {
		return
	}
	value := s.count(key, string(b.B))
	if revision >= c.token[shard] {
		if value < c.counts[key] {
			s.problem("a session read of %s at %v gives %d, its client has seen %d (token %d, revision %d)", key, m, value, c.counts[key], c.token[shard], revision)
		}
		c.counts[key] = max(c.counts[key], value)
		c.token[shard] = max(c.token[shard], row.Version)
	}
	if known {
		// The clock that measured the age may run slow.
		when := s.now() - int64(float64(age)*1e6*(1+driftMargin*s.config.Drift))
		if least := s.counters.before(key, when); value < least {
			s.problem("a stale read of %s at %v gives %d and says it is at most %d ms old; %d was acknowledged before that", key, m, value, age, least)
		}
	}
}
