package server

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/proa-kv/proa/bufpool"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/protocol"
)

// processor carries out requests on behalf of one thread. Its fields are that
// thread's scratch, kept between requests so that the common ones allocate
// nothing.
type processor struct {
	srv *Server
	now uint64 // Unix ms, set once a round

	touched  []*conn // have output to be written at the end of the round
	backlog  int     // unsent output of the connection touched last
	jobs     []job   // must wait for the disk; carried out after the round
	proposed bool    // commands were queued in this round
	others   bool    // requests came that need not wait for a commit

	counts opCounts

	ext   protocol.Extensions
	cmd   command.Command
	put   protocol.Put
	del   protocol.Delete
	incr  protocol.Incr
	exp   protocol.Expire
	key   protocol.Key
	mget  protocol.MGet
	batch protocol.Batch
	txn   protocol.Txn
	split splitter
}

func newProcessor(s *Server) *processor {
	p := &processor{srv: s}
	s.counters.register(&p.counts)
	return p
}

// touch has c's output written at the end of the round. c.mu must be held.
func (p *processor) touch(c *conn) {
	p.backlog = c.unsent()
	if !c.marked {
		c.marked = true
		p.touched = append(p.touched, c)
	}
}

// flush ends a round: it writes to every touched connection once.
func (p *processor) flush() {
	for i, c := range p.touched {
		c.flush()
		p.touched[i] = nil
	}
	p.touched = p.touched[:0]
}

// fail answers a request with an error.
func (p *processor) fail(c *conn, id uint64, s protocol.Status, retryMillis uint32, message string) {
	p.counts.failed.Add(1)
	c.mu.Lock()
	out := c.output()
	out.B = protocol.AppendError(out.B, id, s, retryMillis, message)
	p.touch(c)
	c.mu.Unlock()
}

// refuse answers a request whose message could not be accepted.
func (p *processor) refuse(c *conn, id uint64, err error) {
	p.fail(c, id, protocol.StatusOf(err), 0, err.Error())
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
	if !c.greeted {
		p.hello(c, f)
		return
	}
	if p.srv.draining.Load() {
		p.fail(c, f.ID, protocol.StatusShuttingDown, 0, "the server is shutting down; connect to another")
		return
	}
	hasExt := f.Flags&protocol.FlagExtensions != 0
	if hasExt {
		if err := p.ext.Decode(f.Extensions); err != nil {
			p.refuse(c, f.ID, err)
			return
		}
	} else if p.ext != (protocol.Extensions{}) {
		p.ext = protocol.Extensions{}
	}
	p.others = p.others || !writes(op)
	switch op {
	case protocol.OpGet:
		p.get(c, f, true)
	case protocol.OpPut, protocol.OpDelete, protocol.OpIncr, protocol.OpExpire, protocol.OpPersist:
		p.write(c, f, op)
	case protocol.OpExists:
		p.get(c, f, false)
	case protocol.OpPing:
		p.ping(c, f)
	case protocol.OpMGet:
		p.multiGet(c, f)
	case protocol.OpBatch:
		p.writeBatch(c, f)
	case protocol.OpTxn:
		p.writeTxn(c, f)
	case protocol.OpScan:
		p.scan(c, f)
	case protocol.OpRoutes:
		p.routes(c, f)
	case protocol.OpStatus:
		p.later(c, f, op)
	case protocol.OpHello:
		p.fail(c, f.ID, protocol.StatusBadRequest, 0, "HELLO was said already")
	default:
		p.fail(c, f.ID, protocol.StatusUnsupported, 0, fmt.Sprintf("opcode %d is not known to this server", f.Code))
	}
}

// writes reports whether requests of this kind are answered by a commit.
func writes(op protocol.Opcode) bool {
	switch op {
	case protocol.OpPut, protocol.OpDelete, protocol.OpIncr, protocol.OpExpire, protocol.OpPersist, protocol.OpBatch, protocol.OpTxn:
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
		c.closeWith(f.ID, protocol.StatusHandshake, fmt.Sprintf("the client speaks protocol versions %d to %d, the server %d", m.VersionMin, m.VersionMax, protocol.Version))
		return
	}
	c.greeted = true
	c.frameSince.Store(0)
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
	out.B = protocol.End(body(protocol.Begin(out.B, uint8(protocol.StatusOK), protocol.FlagReply, id)), start)
	p.touch(c)
	c.mu.Unlock()
}

func (p *processor) ping(c *conn, f *protocol.Frame) {
	c.mu.Lock()
	out := c.output()
	out.Grow(protocol.HeaderBytes + len(f.Body))
	start := len(out.B)
	out.B = protocol.End(append(protocol.Begin(out.B, uint8(protocol.StatusOK), protocol.FlagReply, f.ID), f.Body...), start)
	p.touch(c)
	c.mu.Unlock()
}

// get answers GET and EXISTS from the row cache, straight into the output
// buffer; a row that is not there becomes a job.
func (p *processor) get(c *conn, f *protocol.Frame, withValue bool) {
	if err := p.key.Decode(f.Body); err != nil {
		p.refuse(c, f.ID, err)
		return
	}
	be := p.srv.backend
	shard := be.ShardOf(protocol.Slot(p.key.Key))
	c.mu.Lock()
	out := c.output()
	start := beginRow(out, f.ID)
	row, state := be.ReadCached(out, shard, p.key.Key, p.now, withValue)
	done := endRow(out, start, f.ID, row, state)
	if done {
		p.touch(c)
	}
	c.mu.Unlock()
	if !done {
		p.later(c, f, protocol.Opcode(f.Code))
	}
}

// beginRow appends the reply to GET or EXISTS up to where the value goes.
func beginRow(out *bufpool.Buffer, id uint64) (start int) {
	out.Grow(protocol.HeaderBytes + protocol.RowReplyBytes)
	start = len(out.B)
	b := protocol.Begin(out.B, uint8(protocol.StatusOK), protocol.FlagReply, id)
	out.B = b[:len(b)+protocol.RowReplyBytes]
	return start
}

// endRow completes the reply that began at start, whose value has been
// appended, or replaces it by what state demands. It returns false, with the
// reply taken back, where the row is not known yet.
func endRow(out *bufpool.Buffer, start int, id uint64, row command.Row, state command.ReadState) bool {
	switch state {
	case command.ReadFound:
		b := out.B
		binary.LittleEndian.PutUint64(b[start+protocol.HeaderBytes:], row.Version)
		binary.LittleEndian.PutUint64(b[start+protocol.HeaderBytes+8:], row.TTLMillis)
		out.B = protocol.End(b, start)
		return true
	case command.ReadMiss:
		out.B = out.B[:start]
		return false
	case command.ReadAbsent:
		out.B = protocol.End(protocol.Begin(out.B[:start], uint8(protocol.StatusNotFound), protocol.FlagReply, id), start)
		return true
	case command.ReadNotLeader:
		out.B = protocol.AppendError(out.B[:start], id, protocol.StatusNotLeader, retryLeaderMillis, "this node does not lead the shard")
		return true
	}
	out.B = protocol.AppendError(out.B[:start], id, protocol.StatusStorageFailed, 0, "reading from disk failed; see the server's log")
	return true
}

const (
	retryBusyMillis   = 5
	retryLeaderMillis = 50
)

// session returns the session fields of the request.
func (p *processor) session() command.Session {
	return command.Session{ID: p.ext.Session, Sequence: p.ext.Sequence, Acknowledged: p.ext.Acknowledged}
}

// write queues PUT, DELETE, INCR, EXPIRE and PERSIST.
func (p *processor) write(c *conn, f *protocol.Frame, op protocol.Opcode) {
	if err := p.decodeWrite(op, f.Body, &p.cmd); err != nil {
		p.refuse(c, f.ID, err)
		return
	}
	p.cmd.Session = p.session()
	p.propose(c, f.ID, op, p.srv.backend.ShardOf(protocol.Slot(p.cmd.Key)))
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
	default:
		err = fmt.Errorf("%w: %v", protocol.ErrOpcodeInBatch, op)
	}
	cmd.Ops, cmd.Else, cmd.Compares = ops, alt, compares
	return err
}

// The option bits of the wire and of the log are the same, so that decodeWrite
// can take them over. These fail to compile if they drift apart.
const (
	_ = uint8(protocol.WriteTTL) - uint8(command.SetTTL)
	_ = -(uint8(protocol.WriteTTL) - uint8(command.SetTTL))
	_ = uint8(protocol.WriteReturnPrevious) - uint8(command.ReturnPrevious)
	_ = -(uint8(protocol.WriteReturnPrevious) - uint8(command.ReturnPrevious))
)

// propose queues p.cmd; its outcome comes back through conn.Complete.
func (p *processor) propose(c *conn, id uint64, op protocol.Opcode, shard int) {
	size := len(p.cmd.Key) + len(p.cmd.Value)
	for i := range p.cmd.Ops {
		size += len(p.cmd.Ops[i].Key) + len(p.cmd.Ops[i].Value)
	}
	c.begin(size)
	err := p.srv.backend.Propose(shard, &p.cmd, c, command.Tag{ID: id, Aux: uint32(size), Code: uint8(op)})
	if err != nil {
		c.end(uint32(size))
		s, retry := refusalOf(err)
		p.fail(c, id, s, retry, err.Error())
		return
	}
	p.proposed = true
}

// refusalOf translates why a command was not queued.
func refusalOf(err error) (s protocol.Status, retryMillis uint32) {
	switch {
	case errors.Is(err, command.ErrBusy):
		return protocol.StatusBusy, retryBusyMillis
	case errors.Is(err, command.ErrNotLeader):
		return protocol.StatusNotLeader, retryLeaderMillis
	case errors.Is(err, command.ErrStopped):
		return protocol.StatusShuttingDown, 0
	case errors.Is(err, command.ErrTooLarge):
		return protocol.StatusTooLarge, 0
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
