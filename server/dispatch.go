package server

import (
	"errors"
	"fmt"

	"github.com/proa-kv/proa/access"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/protocol"
)

// processor carries out requests on behalf of one thread. Its fields are that
// thread's scratch, kept between requests so that the common ones allocate
// nothing.
type processor struct {
	executor
	decoder
	turn
	extensions // of the request

	backlog int  // unsent output of the connection touched last
	others  bool // requests came that need not wait for a group commit

	counts opCounts

	cmd      command.Command
	batch    protocol.Batch
	txn      protocol.Txn
	split    splitter
	examiner examiner

	Scratch any // of the Translator whose connection was read last
}

func newProcessor(s *Server) *processor {
	p := &processor{executor: executor{srv: s}}
	s.counters.register(&p.counts)
	return p
}

// touch has c's output written at the end of the iteration. c.mu must be held.
func (p *processor) touch(c *conn) {
	p.backlog = c.unsent()
	c.account(p.backlog)
	p.touched.add(c)
}

// fail answers the request being dispatched with an error.
func (p *processor) fail(c *conn, id uint64, s protocol.Status, retryMillis uint32, message string) {
	c.mu.Lock()
	c.appendError(id, &p.marks, s, retryMillis, message)
	p.touch(c)
	c.mu.Unlock()
}

// errKeysApart refuses one operation on two keys that no shard has both of.
var errKeysApart = errors.New("the operation's keys are in different shards; give the keys a common {tag}")

// refuse answers a request whose message could not be accepted.
func (p *processor) refuse(c *conn, id uint64, err error) {
	s := protocol.StatusCrossShard
	if err != errKeysApart {
		s = protocol.StatusOf(err)
	}
	p.fail(c, id, s, 0, err.Error())
}

// dispatch carries out one request. The frame is a view of the read buffer and
// is not kept.
func (p *processor) dispatch(c *conn, f *protocol.Frame, o Options) (done Effects) {
	op := protocol.Opcode(f.Code)
	p.counts.add(op)
	if f.Flags&(protocol.FlagReply|protocol.FlagMore) != 0 || f.ID == 0 {
		c.closeWith(f.ID, protocol.StatusProtocol, 0, "a request has neither reply nor more flag, and an id other than 0")
		return done
	}
	if p.extended { // by the request before, perhaps of another connection
		p.clearExtensions()
	}
	if !c.greeted {
		return p.hello(c, f)
	}
	if p.srv.draining.Load() {
		p.fail(c, f.ID, protocol.StatusShuttingDown, 0, "the server is shutting down; connect to another node")
		return done
	}
	if f.Flags&protocol.FlagExtensions != 0 && !p.decodeExtensions(c, f, op) {
		return done
	}
	if g := c.grant.Load(); g.permit != access.Everything && !permitted(p, c, f, op, g) {
		return done
	}
	p.others = p.others || !writes(op)
	switch op {
	case protocol.OpGet, protocol.OpExists, protocol.OpExpiry:
		if o.InOrder {
			return p.write(c, f, o)
		}
		return p.get(c, f, o)
	case protocol.OpPut, protocol.OpDelete, protocol.OpIncr, protocol.OpExpire, protocol.OpPersist,
		protocol.OpAppend, protocol.OpSetRange, protocol.OpIncrFloat, protocol.OpSetExpiry, protocol.OpRename, protocol.OpWatch, protocol.OpGetRange:
		return p.write(c, f, o)
	case protocol.OpPing:
		p.ping(c, f)
	case protocol.OpMGet:
		p.multiGet(c, f)
	case protocol.OpBatch:
		return p.writeBatch(c, f, o)
	case protocol.OpTxn:
		return p.writeTxn(c, f, o)
	case protocol.OpDeleteRange:
		return p.deleteRange(c, f, o)
	case protocol.OpScan:
		p.scan(c, f)
	case protocol.OpRoutes, protocol.OpStatus:
		switch {
		case len(f.Body) != 0:
			p.fail(c, f.ID, protocol.StatusBadRequest, 0, fmt.Sprintf("%v has no body, but %d bytes were sent", op, len(f.Body)))
		case op == protocol.OpRoutes:
			p.routes(c, f)
		default:
			p.later(c, f, false)
		}
	case protocol.OpAdmin:
		p.admin(c, f)
	case protocol.OpHello:
		p.fail(c, f.ID, protocol.StatusBadRequest, 0, "HELLO was already sent on this connection")
	default:
		p.fail(c, f.ID, protocol.StatusUnsupported, 0, fmt.Sprintf("opcode %d is unknown to this server", f.Code))
	}
	return done
}

// writes reports whether requests of this kind are answered by a group commit.
func writes(op protocol.Opcode) bool {
	switch op {
	case protocol.OpPut, protocol.OpDelete, protocol.OpIncr, protocol.OpExpire, protocol.OpPersist,
		protocol.OpAppend, protocol.OpSetRange, protocol.OpIncrFloat, protocol.OpSetExpiry, protocol.OpRename,
		protocol.OpBatch, protocol.OpTxn, protocol.OpWatch, protocol.OpGetRange, protocol.OpDeleteRange:
		return true
	}
	return false
}

// hello answers a HELLO. With Effects.Retry it is to come again, when the password has been
// verified.
func (p *processor) hello(c *conn, f *protocol.Frame) (done Effects) {
	if protocol.Opcode(f.Code) != protocol.OpHello {
		c.closeWith(f.ID, protocol.StatusHandshake, 0, "the first request on a connection must be HELLO")
		return done
	}
	var m protocol.Hello
	if err := m.Decode(f.Body); err != nil {
		c.closeWith(f.ID, protocol.StatusHandshake, 0, err.Error())
		return done
	}
	if m.VersionMin > protocol.Version || m.VersionMax < protocol.Version {
		c.closeWith(f.ID, protocol.StatusHandshake, 0, fmt.Sprintf("the client supports protocol versions %d to %d, the server supports %d", m.VersionMin, m.VersionMax, protocol.Version))
		return done
	}
	switch pending, err := c.Login(string(m.User), string(m.Secret)); {
	case pending:
		p.counts.take(protocol.OpHello) // it comes again
		return Effects{Retry: true}
	case err != nil:
		r := p.srv.gate.refusal(err)
		c.AuditLogin(string(m.User), "HELLO", err)
		c.closeWith(f.ID, r.status, r.retryMillis, r.message)
		return done
	}
	c.Greet()
	cfg := &p.srv.cfg
	r := protocol.HelloReply{
		Version: protocol.Version, Features: m.Features & protocol.FeaturesKnown,
		Node: cfg.Node, Cluster: cfg.Cluster, Connection: c.id,
		FrameBytesMax: cfg.FrameBytesMax, KeyBytesMax: protocol.KeyBytesMax, ValueBytesMax: protocol.ValueBytesMax,
		InFlightMax: uint32(cfg.InFlightMax), Shards: uint16(p.srv.backend.Shards()), ServerVersion: []byte(cfg.Version),
	}
	p.reply(c, f.ID, func(b []byte) []byte { return r.AppendTo(b) })
	return done
}

// reply answers with StatusOK and the body that body appends.
func (p *processor) reply(c *conn, id uint64, body func([]byte) []byte) {
	c.mu.Lock()
	out := c.output()
	start := len(out.B)
	out.B = protocol.End(body(beginFrame(out.B, uint8(protocol.StatusOK), protocol.FlagReply, id, &p.marks)), start)
	p.touch(c)
	c.mu.Unlock()
}

func (p *processor) ping(c *conn, f *protocol.Frame) {
	if p.RepliesFull(c, len(f.Body)) {
		p.fail(c, f.ID, protocol.StatusBusy, retryBusyMillis, NoReplyMemory)
		return
	}
	p.reply(c, f.ID, func(b []byte) []byte { return append(b, f.Body...) })
}

// get answers GET, EXISTS and EXPIRY from the row cache, straight into the output
// buffer. A row that is not there becomes a job; where this replica may not
// answer by itself the request waits for a read index or goes on to the leader.
func (p *processor) get(c *conn, f *protocol.Frame, o Options) (done Effects) {
	if err := p.key.Decode(f.Body); err != nil {
		p.refuse(c, f.ID, err)
		return done
	}
	s := p.srv
	shard := s.backend.ShardOf(protocol.Slot(p.key.Key))
	read, local := s.readCached, p.ext.Consistency != protocol.Linearizable && p.mayReadLocal(shard)
	if local {
		read = s.readLocalCached
		if p.ext.Consistency == protocol.Stale {
			p.marks.AgeMillis, p.marks.HasAge = s.age(shard), true
		}
	}
	switch p.answerRow(c, f, shard, read) {
	case command.ReadMiss:
		p.later(c, f, local)
	case command.ReadNotLeader:
		done.Retry = p.fetch(p.newJob(c, f), shard, o)
	}
	return done
}

// mayReadLocal reports whether the request may be answered from the replica
// here, whatever that has: a stale read, or one for a client that has seen no
// newer version.
func (p *processor) mayReadLocal(shard int) bool {
	return p.ext.Consistency == protocol.Stale || p.srv.backend.Revision(shard) >= p.ext.Token
}

// age is how old what the replica here has may be, in milliseconds.
func (s *Server) age(shard int) uint32 {
	if age, ok := s.backend.Age(shard); ok {
		return age
	}
	return protocol.AgeUnknown
}

// answerRow answers with the row of p.key if read yields it.
func (p *processor) answerRow(c *conn, f *protocol.Frame, shard int, read readFunc) command.ReadState {
	c.mu.Lock()
	defer c.mu.Unlock()
	// What is in memory has no large values.
	_, state := appendRow(c.output(), f.ID, protocol.Opcode(f.Code), &p.marks, read, shard, p.key.Key, p.now, command.AnyValue)
	if status, ok := statusOfRead(state); ok {
		p.srv.counters.errors.add(status)
		p.touch(c)
	}
	return state
}

// fetch has a read of one shard that cannot be answered here and now wait for a read
// index, or sends it on. It reports whether the read is to be tried again instead.
func (e *executor) fetch(j job, shard int, o Options) (retry bool) {
	if j.mode == protocol.SessionReads {
		j.mode = protocol.Linearizable // what it is answered with
	}
	if j.mode == protocol.Stale || !e.srv.backend.Holds(shard) {
		return e.forwardJob(&j, shard, o)
	}
	w := e.await(j)
	if w == nil {
		return false
	}
	err := w.readIndex(shard)
	if err == nil {
		e.proposed = true
		e.release(w)
		return false
	}
	if !w.stop() {
		return false
	}
	if r := refusalOf(err); r.status != protocol.StatusNotLeader {
		e.failJob(&j, r)
		return false
	}
	return e.forwardJob(&j, shard, o)
}

const (
	retryBusyMillis   = 5
	retryLeaderMillis = 10 // a planned transfer takes a few; clients wait longer each time
	retryQuorumMillis = 200
)

// write queues any write but BATCH and TXN, or a read that is to be answered in
// the log's order.
func (p *processor) write(c *conn, f *protocol.Frame, o Options) Effects {
	if err := p.decodeWrite(protocol.Opcode(f.Code), f.Body, &p.cmd); err != nil {
		p.refuse(c, f.ID, err)
		return Effects{}
	}
	if p.cmd.Kind == command.Get {
		p.cmd.Flags |= command.Counted
	}
	p.cmd.Session = p.session()
	shard := p.shardOf(&p.cmd)
	if shard != acrossShards {
		return p.propose(c, f, shard, o)
	}
	done, err := p.proposeAcross(c, f, o)
	if err != nil {
		p.refuse(c, f.ID, errKeysApart)
	}
	return done
}

// acrossShards stands for the shard of keys that lie in several.
const acrossShards = -1

// shardOf returns the shard that has the keys of cmd, which is no Batch or Txn,
// or acrossShards.
func (p *processor) shardOf(cmd *command.Command) int {
	shard := p.srv.shardOf(cmd.Key)
	if cmd.Kind == command.Rename && p.srv.shardOf(cmd.Value) != shard {
		return acrossShards
	}
	return shard
}

// propose queues p.cmd; its outcome comes back through conn.Complete. A shard
// that is led elsewhere gets the request sent on.
func (p *processor) propose(c *conn, f *protocol.Frame, shard int, o Options) Effects {
	switch err := p.enqueue(c, f.ID, protocol.Opcode(f.Code), shard, o); {
	case err == nil:
		return Effects{}
	case errors.Is(err, command.ErrNotLeader):
		return p.sendOn(c, f, shard, o)
	default:
		return p.refuseOrRetry(c, f.ID, err, o)
	}
}

// proposeAcross is propose for a p.cmd whose keys lie in several shards. It
// returns ErrApart, with nothing answered, unless this node is alone or p.cmd has
// a session: then that has to be asked first what became of it, if need be on
// another node.
func (p *processor) proposeAcross(c *conn, f *protocol.Frame, o Options) (Effects, error) {
	switch err := p.enqueue(c, f.ID, protocol.Opcode(f.Code), acrossShards, o); {
	case err == nil:
		return Effects{}, nil
	case errors.Is(err, command.ErrApart):
		return Effects{}, err
	case errors.Is(err, command.ErrNotLeader):
		return p.sendOn(c, f, p.srv.shardOf(p.cmd.FirstKey()), o), nil
	default:
		return p.refuseOrRetry(c, f.ID, err, o), nil
	}
}

// refuseOrRetry answers a request that could not be queued, unless it is to be
// tried again.
func (p *processor) refuseOrRetry(c *conn, id uint64, err error, o Options) Effects {
	if errors.Is(err, command.ErrBusy) && o.RetryFull {
		return Effects{Retry: true}
	}
	r := refusalOf(err)
	p.fail(c, id, r.status, r.retryMillis, r.message)
	return Effects{}
}

// enqueue is propose that leaves failures to the caller.
func (p *processor) enqueue(c *conn, id uint64, op protocol.Opcode, shard int, o Options) error {
	size := len(p.cmd.Key) + len(p.cmd.Value)
	for i := range p.cmd.Ops {
		size += len(p.cmd.Ops[i].Key) + len(p.cmd.Ops[i].Value)
	}
	size += o.ReplyBytes
	tag := command.Tag{ID: id, Aux: uint32(size), Code: uint8(op)}
	if p.marks.Epoch != 0 {
		tag.Code |= withEpoch
	}
	if p.mayReplyLarge(o) && p.srv.admission.replies.full() {
		return errRepliesFull
	}
	p.cmd.PatienceMillis = p.timeoutMillis()
	c.begin(size)
	var err error
	if shard == acrossShards {
		err = p.srv.backend.ProposeAcross(p.srv.shardOf, &p.cmd, c, tag)
	} else {
		err = p.srv.backend.Propose(shard, &p.cmd, c, tag)
	}
	if err == nil {
		p.proposed = true
		return nil
	}
	c.end(uint32(size))
	return err
}

// errRepliesFull refuses a read in the log's order, as a queue does that is full.
const errRepliesFull = busyError(NoReplyMemory)

// busyError is a command.ErrBusy that says of what there is too much.
type busyError string

func (e busyError) Error() string { return string(e) }

func (busyError) Unwrap() error { return command.ErrBusy }

// mayReplyLarge reports whether p.cmd is a read whose answer may be large, and which
// has not been charged for it.
func (p *processor) mayReplyLarge(o Options) bool {
	switch p.cmd.Kind {
	case command.Get:
		return !o.InOrder
	case command.GetRange:
		from, to := p.cmd.Delta, p.cmd.Until
		return from < 0 || to < 0 || to-from >= LargeBytes
	}
	return false
}

// withEpoch stands in a Tag's Code beside the opcode: the reply names the slot
// map's epoch.
const withEpoch = 0x80

// sendOn forwards a request as it came.
func (p *processor) sendOn(c *conn, f *protocol.Frame, shard int, o Options) Effects {
	charge := len(f.Extensions) + len(f.Body) + replyReserve
	c.begin(charge)
	retry := p.forward(&request{
		c: c, op: protocol.Opcode(f.Code), id: f.ID, extensions: f.Extensions, body: f.Body,
		deadline: p.deadline(), charge: uint32(charge), epoch: p.marks.Epoch,
	}, shard, o)
	return Effects{SentOn: true, Retry: retry}
}

// refusals are why a command was not queued, and the status of the error reply.
var refusals = [...]struct {
	err         error
	status      protocol.Status
	retryMillis uint32
}{
	{command.ErrBusy, protocol.StatusBusy, retryBusyMillis},
	{command.ErrNotLeader, protocol.StatusNotLeader, retryLeaderMillis},
	{command.ErrNoQuorum, protocol.StatusNoQuorum, retryQuorumMillis},
	{command.ErrStopped, protocol.StatusShuttingDown, 0},
	{command.ErrTooLarge, protocol.StatusTooLarge, 0},
	{command.ErrEarlierVersion, protocol.StatusRefused, 0},
	{command.ErrDamaged, protocol.StatusDamaged, 0},
	{command.ErrFailed, protocol.StatusShuttingDown, 0}, // nothing happened: another server may do it
}

// refusalOf is the refusal of what err has kept from being queued.
func refusalOf(err error) *refusal {
	r := &refusal{status: protocol.StatusInternal, message: err.Error()}
	for i := range refusals {
		if x := &refusals[i]; errors.Is(err, x.err) {
			r.status, r.retryMillis = x.status, x.retryMillis
			break
		}
	}
	return r
}

func (p *processor) routes(c *conn, f *protocol.Frame) {
	t := p.srv.backend.Topology(p.srv.Address())
	m := protocol.RoutesReply{Epoch: t.Epoch}
	for _, n := range t.Nodes {
		m.Nodes = append(m.Nodes, protocol.RouteNode{ID: n.ID, Address: []byte(n.Address)})
	}
	for i, s := range t.Shards {
		r := protocol.RouteShard{ID: uint16(i), Leader: s.Leader}
		for _, x := range s.Slots {
			r.Slots = append(r.Slots, protocol.SlotRange{First: x[0], Last: x[1]})
		}
		m.Shards = append(m.Shards, r)
	}
	p.reply(c, f.ID, m.AppendTo)
}
