package server

import (
	"errors"
	"fmt"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/protocol"
)

// processor carries out requests on behalf of one thread. Its fields are that
// thread's scratch, kept between requests so that the common ones allocate
// nothing.
type processor struct {
	srv *Server
	now uint64 // Unix ms, set once a round

	touched  touched         // written to at the end of the round
	links    []*upstreamConn // have requests to send on; their writers are woken then
	backlog  int             // unsent output of the connection touched last
	jobs     []job           // must wait for the disk; carried out after the round
	proposed bool            // commands were queued in this round
	others   bool            // requests came that need not wait for a commit

	credit    int  // what may still be carried out in this turn; see turnCredit
	unhurried bool // no event loop waits for this thread

	counts opCounts

	ext      protocol.Extensions // of the request
	extended bool                // ext or marks are not empty
	marks    protocol.Extensions // of its reply

	cmd   command.Command
	put   protocol.Put
	del   protocol.Delete
	incr  protocol.Incr
	exp   protocol.Expire
	app   protocol.Append
	set   protocol.SetRange
	float protocol.IncrFloat
	until protocol.SetExpiry
	name  protocol.Rename
	key   protocol.Key
	part  protocol.GetRange
	mget  protocol.MGet
	batch protocol.Batch
	txn   protocol.Txn
	split splitter

	Scratch any     // of the Translator whose connection was read last
	options Options // of the request, by its Translator
	effects Effects // of it
}

func newProcessor(s *Server) *processor {
	p := &processor{srv: s}
	s.counters.register(&p.counts)
	return p
}

// touch has c's output written at the end of the round. c.mu must be held.
func (p *processor) touch(c *conn) {
	p.backlog = c.unsent()
	c.account(p.backlog)
	p.touched.add(c)
}

// flush ends a round: it writes to every touched connection once, and wakes
// whoever sends requests on.
func (p *processor) flush() {
	p.touched.flush()
	if len(p.links) > 0 {
		for _, l := range p.links {
			l.wakeWriter()
		}
		clear(p.links)
		p.links = p.links[:0]
	}
}

// touched lists connections that have output to be written.
type touched struct{ conns []*conn }

// add has c written to at the next flush. c.mu must be held.
func (t *touched) add(c *conn) {
	if !c.marked {
		c.marked = true
		t.conns = append(t.conns, c)
	}
}

// flush writes to each connection once.
func (t *touched) flush() {
	for i, c := range t.conns {
		c.flush()
		t.conns[i] = nil
	}
	t.conns = t.conns[:0]
}

// fail answers the request being dispatched with an error.
func (p *processor) fail(c *conn, id uint64, s protocol.Status, retryMillis uint32, message string) {
	c.mu.Lock()
	out := c.output()
	out.B = p.srv.counters.errors.appendError(out.B, id, &p.marks, s, retryMillis, message)
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
func (p *processor) dispatch(c *conn, f *protocol.Frame) {
	op := protocol.Opcode(f.Code)
	p.counts.add(op)
	if f.Flags&(protocol.FlagReply|protocol.FlagMore) != 0 || f.ID == 0 {
		c.closeWith(f.ID, protocol.StatusProtocol, "a request has neither reply nor more flag, and an id other than 0")
		return
	}
	if p.extended { // by the request before, perhaps of another connection
		p.clearExtensions()
	}
	if !c.greeted {
		p.hello(c, f)
		return
	}
	if p.srv.draining.Load() {
		p.fail(c, f.ID, protocol.StatusShuttingDown, 0, "the server is shutting down; connect to another node")
		return
	}
	if f.Flags&protocol.FlagExtensions != 0 && !p.extensions(c, f, op) {
		return
	}
	p.others = p.others || !writes(op)
	switch op {
	case protocol.OpGet:
		p.read(c, f, true)
	case protocol.OpPut, protocol.OpDelete, protocol.OpIncr, protocol.OpExpire, protocol.OpPersist,
		protocol.OpAppend, protocol.OpSetRange, protocol.OpIncrFloat, protocol.OpSetExpiry, protocol.OpRename, protocol.OpWatch, protocol.OpGetRange:
		p.write(c, f, op)
	case protocol.OpExists, protocol.OpExpiry:
		p.read(c, f, false)
	case protocol.OpPing:
		p.ping(c, f)
	case protocol.OpMGet:
		p.multiGet(c, f)
	case protocol.OpBatch:
		p.writeBatch(c, f)
	case protocol.OpTxn:
		p.writeTxn(c, f)
	case protocol.OpDeleteRange:
		p.deleteRange(c, f)
	case protocol.OpScan:
		p.scan(c, f)
	case protocol.OpRoutes, protocol.OpStatus:
		switch {
		case len(f.Body) != 0:
			p.fail(c, f.ID, protocol.StatusBadRequest, 0, fmt.Sprintf("%v has no body, but %d bytes were sent", op, len(f.Body)))
		case op == protocol.OpRoutes:
			p.routes(c, f)
		default:
			p.later(c, f, op)
		}
	case protocol.OpAdmin:
		p.admin(c, f)
	case protocol.OpHello:
		p.fail(c, f.ID, protocol.StatusBadRequest, 0, "HELLO was already sent on this connection")
	default:
		p.fail(c, f.ID, protocol.StatusUnsupported, 0, fmt.Sprintf("opcode %d is unknown to this server", f.Code))
	}
}

// extensions decodes those of the request. It returns false if the request was
// refused for them.
func (p *processor) extensions(c *conn, f *protocol.Frame, op protocol.Opcode) bool {
	if err := p.ext.Decode(f.Extensions); err != nil {
		p.ext = protocol.Extensions{}
		p.refuse(c, f.ID, err)
		return false
	}
	p.extended = true
	if p.ext.Epoch != 0 {
		if epoch := p.srv.backend.Epoch(); epoch > p.ext.Epoch {
			p.marks.Epoch = epoch
		}
	}
	if p.ext.HasShard {
		if op != protocol.OpScan && op != protocol.OpDeleteRange {
			p.fail(c, f.ID, protocol.StatusBadRequest, 0, fmt.Sprintf("the extension SHARD belongs to SCAN and DELETE_RANGE, not to %v", op))
			return false
		}
		if n := p.srv.backend.Shards(); int(p.ext.Shard) >= n {
			p.fail(c, f.ID, protocol.StatusBadRequest, 0, fmt.Sprintf("there is no shard %d, the last one is %d", p.ext.Shard, n-1))
			return false
		}
	}
	return true
}

// clearExtensions forgets those of an earlier request.
func (p *processor) clearExtensions() {
	p.ext, p.marks, p.extended = protocol.Extensions{}, protocol.Extensions{}, false
}

// writes reports whether requests of this kind are answered by a commit.
func writes(op protocol.Opcode) bool {
	switch op {
	case protocol.OpPut, protocol.OpDelete, protocol.OpIncr, protocol.OpExpire, protocol.OpPersist,
		protocol.OpAppend, protocol.OpSetRange, protocol.OpIncrFloat, protocol.OpSetExpiry, protocol.OpRename,
		protocol.OpBatch, protocol.OpTxn, protocol.OpWatch, protocol.OpGetRange, protocol.OpDeleteRange:
		return true
	}
	return false
}

func (p *processor) hello(c *conn, f *protocol.Frame) {
	if protocol.Opcode(f.Code) != protocol.OpHello {
		c.closeWith(f.ID, protocol.StatusHandshake, "the first request on a connection must be HELLO")
		return
	}
	var m protocol.Hello
	if err := m.Decode(f.Body); err != nil {
		c.closeWith(f.ID, protocol.StatusHandshake, err.Error())
		return
	}
	if m.VersionMin > protocol.Version || m.VersionMax < protocol.Version {
		c.closeWith(f.ID, protocol.StatusHandshake, fmt.Sprintf("the client supports protocol versions %d to %d, the server supports %d", m.VersionMin, m.VersionMax, protocol.Version))
		return
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
	if p.Crowded(c, len(f.Body)) {
		p.fail(c, f.ID, protocol.StatusBusy, retryBusyMillis, NoReplyMemory)
		return
	}
	p.reply(c, f.ID, func(b []byte) []byte { return append(b, f.Body...) })
}

// read carries out GET, EXISTS and EXPIRY, in the log's order if need be.
func (p *processor) read(c *conn, f *protocol.Frame, withValue bool) {
	if p.options.InOrder {
		p.write(c, f, protocol.Opcode(f.Code))
		return
	}
	p.get(c, f, withValue)
}

// get answers GET, EXISTS and EXPIRY from the row cache, straight into the output
// buffer. A row that is not there becomes a job; where this replica may not
// answer by itself the request waits for a read index or goes on to the leader.
func (p *processor) get(c *conn, f *protocol.Frame, withValue bool) {
	if err := p.key.Decode(f.Body); err != nil {
		p.refuse(c, f.ID, err)
		return
	}
	s := p.srv
	shard := s.backend.ShardOf(protocol.Slot(p.key.Key))
	if p.ext.Consistency != protocol.Linearizable && p.mayReadLocal(shard) {
		if !p.getLocal(c, f, shard, withValue) {
			p.fetch(c, f, shard)
		}
		return
	}
	switch p.answerRow(c, f, shard, withValue, s.readCached) {
	case command.ReadMiss:
		p.later(c, f, protocol.Opcode(f.Code))
	case command.ReadNotLeader:
		p.fetch(c, f, shard)
	}
}

// mayReadLocal reports whether the request may be answered from the replica
// here, whatever that has: a stale read, or one for a client that has seen no
// newer version.
func (p *processor) mayReadLocal(shard int) bool {
	return p.ext.Consistency == protocol.Stale || p.srv.backend.Revision(shard) >= p.ext.Token
}

// getLocal answers from the replica here. It returns false if there is none.
func (p *processor) getLocal(c *conn, f *protocol.Frame, shard int, withValue bool) bool {
	if p.ext.Consistency == protocol.Stale {
		p.marks.AgeMillis, p.marks.HasAge = p.srv.age(shard), true
	}
	switch p.answerRow(c, f, shard, withValue, p.srv.readLocalCached) {
	case command.ReadMiss:
		j := p.newJob(c, f, protocol.Opcode(f.Code))
		j.local = true
		p.jobs = append(p.jobs, j)
	case command.ReadNotLeader:
		return false
	}
	return true
}

// age is how old what the replica here has may be, in milliseconds.
func (s *Server) age(shard int) uint32 {
	if age, ok := s.backend.Age(shard); ok {
		return age
	}
	return protocol.AgeUnknown
}

// answerRow answers with the row of p.key if read yields it.
func (p *processor) answerRow(c *conn, f *protocol.Frame, shard int, withValue bool, read readFunc) command.ReadState {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := c.output()
	r := p.srv.counters.errors.beginRow(out, f.ID, protocol.Opcode(f.Code), p.now, &p.marks)
	valueMax := command.NoValue
	if withValue {
		valueMax = command.AnyValue // what is in memory has no large ones
	}
	row, state := read(out, shard, p.key.Key, p.now, valueMax)
	if r.end(out, row, state) {
		p.touch(c)
	}
	return state
}

// fetch has a read that cannot be answered here and now wait for a read index, or
// sends it on.
func (p *processor) fetch(c *conn, f *protocol.Frame, shard int) {
	p.fetchJob(p.newJob(c, f, protocol.Opcode(f.Code)), shard)
}

// fetchJob is fetch for a read of one shard that is a job already.
func (p *processor) fetchJob(j job, shard int) {
	if j.mode == protocol.SessionReads {
		j.mode = protocol.Linearizable // what it is answered with
	}
	if j.mode == protocol.Stale || !p.srv.backend.Holds(shard) {
		p.forwardJob(&j, shard)
		return
	}
	w := p.await(j)
	if w == nil {
		return
	}
	err := w.readIndex(shard)
	if err == nil {
		p.proposed = true
		p.release(w)
		return
	}
	if w.cancel() {
		if s, retry := refusalOf(err); s != protocol.StatusNotLeader {
			p.failJob(&j, &refusal{status: s, retryMillis: retry, message: err.Error()})
		} else {
			p.forwardJob(&j, shard)
		}
	}
}

const (
	retryBusyMillis   = 5
	retryLeaderMillis = 10 // a planned transfer takes a few; clients wait longer each time
	retryQuorumMillis = 200
)

// session returns the session fields of the request.
func (p *processor) session() command.Session {
	return command.Session{ID: p.ext.Session, Sequence: p.ext.Sequence, Acknowledged: p.ext.Acknowledged}
}

// write queues any write but BATCH and TXN, or a read that is to be answered in
// the log's order.
func (p *processor) write(c *conn, f *protocol.Frame, op protocol.Opcode) {
	if err := p.decodeWrite(op, f.Body, &p.cmd); err != nil {
		p.refuse(c, f.ID, err)
		return
	}
	if p.cmd.Kind == command.Get {
		p.cmd.Flags |= command.Counted
	}
	p.cmd.Session = p.session()
	shard := p.shardOf(&p.cmd)
	if shard != acrossShards {
		p.propose(c, f, op, shard)
		return
	}
	if err := p.proposeAcross(c, f, op); err != nil {
		p.refuse(c, f.ID, errKeysApart)
	}
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

// decodeWrite translates a single write into a command, which holds views of
// body.
func (p *processor) decodeWrite(op protocol.Opcode, body []byte, cmd *command.Command) error {
	ops, alt, compares := cmd.Ops[:0], cmd.Else[:0], cmd.Compares[:0]
	var err error
	switch op {
	case protocol.OpPut:
		err = p.put.Decode(body)
		*cmd = command.Command{Kind: command.Put, Flags: command.Flags(p.put.Flags), Key: p.put.Key, Value: p.put.Value, TTLMillis: p.put.TTLMillis, Version: p.put.Version}
	case protocol.OpDelete:
		err = p.del.Decode(body)
		*cmd = command.Command{Kind: command.Delete, Flags: command.Flags(p.del.Flags), Key: p.del.Key, Version: p.del.Version}
	case protocol.OpIncr:
		err = p.incr.Decode(body)
		*cmd = command.Command{Kind: command.Incr, Key: p.incr.Key, Delta: p.incr.Delta}
	case protocol.OpExpire:
		err = p.exp.Decode(body)
		*cmd = command.Command{Kind: command.Expire, Key: p.exp.Key, TTLMillis: p.exp.TTLMillis}
	case protocol.OpPersist:
		err = p.key.Decode(body)
		*cmd = command.Command{Kind: command.Persist, Key: p.key.Key}
	case protocol.OpGet:
		err = p.key.Decode(body)
		*cmd = command.Command{Kind: command.Get, Key: p.key.Key}
	case protocol.OpExists:
		err = p.key.Decode(body)
		*cmd = command.Command{Kind: command.Exists, Key: p.key.Key}
	case protocol.OpExpiry:
		err = p.key.Decode(body)
		*cmd = command.Command{Kind: command.Expiry, Key: p.key.Key}
	case protocol.OpWatch:
		err = p.key.Decode(body)
		*cmd = command.Command{Kind: command.Watch, Key: p.key.Key}
	case protocol.OpGetRange:
		err = p.part.Decode(body)
		*cmd = command.Command{Kind: command.GetRange, Key: p.part.Key, Delta: p.part.Start, Until: p.part.End}
	case protocol.OpAppend:
		err = p.app.Decode(body)
		*cmd = command.Command{Kind: command.Append, Key: p.app.Key, Value: p.app.Value}
	case protocol.OpSetRange:
		err = p.set.Decode(body)
		*cmd = command.Command{Kind: command.SetRange, Key: p.set.Key, Value: p.set.Value, Offset: p.set.Offset}
	case protocol.OpIncrFloat:
		err = p.float.Decode(body)
		*cmd = command.Command{Kind: command.IncrFloat, Key: p.float.Key, Value: p.float.Increment}
	case protocol.OpSetExpiry:
		err = p.until.Decode(body)
		*cmd = command.Command{Kind: command.SetExpiry, Flags: command.Flags(p.until.Flags), Key: p.until.Key, TTLMillis: p.until.Millis}
	case protocol.OpRename:
		err = p.name.Decode(body)
		*cmd = command.Command{Kind: command.Rename, Flags: command.Flags(p.name.Flags), Key: p.name.Source, Value: p.name.Destination}
	default:
		err = fmt.Errorf("%w: %v", protocol.ErrOpcodeInBatch, op)
	}
	cmd.Ops, cmd.Else, cmd.Compares = ops, alt, compares
	return err
}

// The option bits of the wire and of the log are the same, so that decodeWrite
// can take them over, and what a command can make fits on the wire. These fail
// to compile if they drift apart.
const (
	_ = uint8(protocol.WriteTTL) - uint8(command.SetTTL)
	_ = -(uint8(protocol.WriteTTL) - uint8(command.SetTTL))
	_ = uint8(protocol.WriteReturnPrevious) - uint8(command.ReturnPrevious)
	_ = -(uint8(protocol.WriteReturnPrevious) - uint8(command.ReturnPrevious))
	_ = uint8(protocol.WriteExpireAt) - uint8(command.SetExpireAt)
	_ = -(uint8(protocol.WriteExpireAt) - uint8(command.SetExpireAt))
	_ = uint8(protocol.ExpiryAt) - uint8(command.ExpiryAt)
	_ = -(uint8(protocol.ExpiryAt) - uint8(command.ExpiryAt))
	_ = uint8(protocol.ExpiryReturnRow) - uint8(command.ExpiryReturnRow)
	_ = -(uint8(protocol.ExpiryReturnRow) - uint8(command.ExpiryReturnRow))
	_ = uint8(protocol.RenameIfAbsent) - uint8(command.RenameIfAbsent)
	_ = -(uint8(protocol.RenameIfAbsent) - uint8(command.RenameIfAbsent))

	_ = uint(protocol.ValueBytesMax - command.ValueBytesMax)
	_ = uint(command.ValueBytesMax - protocol.ValueBytesMax)
	_ = uint(protocol.FloatBytesMax - command.FloatBytesMax)
)

// propose queues p.cmd; its outcome comes back through conn.Complete. A shard
// that is led elsewhere gets the request sent on.
func (p *processor) propose(c *conn, f *protocol.Frame, op protocol.Opcode, shard int) {
	switch err := p.enqueue(c, f.ID, op, shard); {
	case err == nil:
	case errors.Is(err, command.ErrNotLeader):
		p.sendOn(c, f, shard)
	default:
		p.refuseOrWait(c, f.ID, err)
	}
}

// proposeAcross is propose for a p.cmd whose keys lie in several shards. It
// returns ErrApart, with nothing answered, unless this node is alone or p.cmd has
// a session: then that has to be asked first what became of it, if need be on
// another node.
func (p *processor) proposeAcross(c *conn, f *protocol.Frame, op protocol.Opcode) error {
	switch err := p.enqueue(c, f.ID, op, acrossShards); {
	case err == nil:
	case errors.Is(err, command.ErrApart):
		return err
	case errors.Is(err, command.ErrNotLeader):
		p.sendOn(c, f, p.srv.shardOf(p.cmd.FirstKey()))
	default:
		p.refuseOrWait(c, f.ID, err)
	}
	return nil
}

// refuseOrWait answers a request that could not be queued, unless it is to be
// tried again.
func (p *processor) refuseOrWait(c *conn, id uint64, err error) {
	if errors.Is(err, command.ErrBusy) && p.options.Patient {
		p.effects.Full = true
		return
	}
	p.refuseProposal(c, id, err)
}

// enqueue is propose that leaves failures to the caller.
func (p *processor) enqueue(c *conn, id uint64, op protocol.Opcode, shard int) error {
	size := len(p.cmd.Key) + len(p.cmd.Value)
	for i := range p.cmd.Ops {
		size += len(p.cmd.Ops[i].Key) + len(p.cmd.Ops[i].Value)
	}
	size += p.options.Yields
	tag := command.Tag{ID: id, Aux: uint32(size), Code: uint8(op)}
	if p.marks.Epoch != 0 {
		tag.Code |= tellEpoch
	}
	if p.yieldsMuch() && p.srv.admission.replies.full() {
		return errRepliesFull
	}
	p.cmd.PatienceMillis = p.patienceMillis()
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

// yieldsMuch reports whether p.cmd is a read whose answer may be large, and which
// has not been charged for it.
func (p *processor) yieldsMuch() bool {
	switch p.cmd.Kind {
	case command.Get:
		return !p.options.InOrder
	case command.GetRange:
		from, to := p.cmd.Delta, p.cmd.Until
		return from < 0 || to < 0 || to-from >= LargeBytes
	}
	return false
}

// refuseProposal answers a request that could not be queued.
func (p *processor) refuseProposal(c *conn, id uint64, err error) {
	s, retry := refusalOf(err)
	p.fail(c, id, s, retry, err.Error())
}

// tellEpoch stands in a Tag's Code beside the opcode: the reply names the slot
// map's epoch.
const tellEpoch = 0x80

// sendOn forwards a request as it came.
func (p *processor) sendOn(c *conn, f *protocol.Frame, shard int) {
	p.effects.SentOn = true
	charge := len(f.Extensions) + len(f.Body) + replyReserve
	c.begin(charge)
	p.forward(&request{
		c: c, op: protocol.Opcode(f.Code), id: f.ID, extensions: f.Extensions, body: f.Body,
		deadline: p.deadline(), charge: uint32(charge), epoch: p.marks.Epoch,
	}, shard)
}

// refusalOf translates why a command was not queued.
func refusalOf(err error) (s protocol.Status, retryMillis uint32) {
	switch {
	case errors.Is(err, command.ErrBusy):
		return protocol.StatusBusy, retryBusyMillis
	case errors.Is(err, command.ErrNotLeader):
		return protocol.StatusNotLeader, retryLeaderMillis
	case errors.Is(err, command.ErrNoQuorum):
		return protocol.StatusNoQuorum, retryQuorumMillis
	case errors.Is(err, command.ErrStopped):
		return protocol.StatusShuttingDown, 0
	case errors.Is(err, command.ErrTooLarge):
		return protocol.StatusTooLarge, 0
	case errors.Is(err, command.ErrEarlierVersion):
		return protocol.StatusRefused, 0
	case errors.Is(err, command.ErrDamaged):
		return protocol.StatusDamaged, 0
	case errors.Is(err, command.ErrFailed):
		// Not proposed, so nothing happened: another server may do it.
		return protocol.StatusShuttingDown, 0
	}
	return protocol.StatusInternal, 0
}

func (p *processor) routes(c *conn, f *protocol.Frame) {
	var address string
	if a := p.srv.address.Load(); a != nil {
		address = *a
	}
	t := p.srv.backend.Topology(address)
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
