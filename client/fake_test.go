package client

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"net"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/proa-kv/proa/protocol"
)

// fake is a server that speaks the protocol over a real socket, keeps its rows
// in a map, and misbehaves on demand.
type fake struct {
	*fakeStore
	node    uint64
	cluster *fakeCluster // nil: it stands alone

	ln net.Listener
	wg sync.WaitGroup

	// intercept decides what becomes of a request; nil serves all of them.
	// It is called with mu held.
	intercept func(*fakeConn, *protocol.Frame, *protocol.Extensions) verdict
	hello     func(*fakeConn, *protocol.Hello) []byte // whole reply frame; nil: the usual one
	login     func(user, secret string) bool          // nil: everybody may; called with mu held
	inFlight  uint32
	features  uint64
	wrap      func(net.Conn) net.Conn // TLS
	reverse   bool                    // replies to the requests of one read leave in reverse order
	status    string

	closed   bool
	conns    map[*fakeConn]struct{}
	accepted int
	hellos   int
	requests []seenRequest
	record   bool
}

// fakeStore is what the nodes of a cluster share; mu guards it and the fakes.
type fakeStore struct {
	mu       sync.Mutex
	rows     map[string]fakeRow
	revision uint64
	sessions map[[2]uint64][]byte // (session, sequence) -> status and body
	applied  int                  // writes that took effect
}

func newFakeStore() *fakeStore {
	return &fakeStore{rows: map[string]fakeRow{}, sessions: map[[2]uint64][]byte{}}
}

type fakeRow struct {
	version uint64
	ttl     uint64
	at      uint64 // time of expiry, where it was given as such
	value   []byte
}

type seenRequest struct {
	code protocol.Opcode
	x    protocol.Extensions
	body []byte
}

type verdict struct {
	drop  bool   // close the connection …
	after bool   // … after carrying the request out, not before
	mute  bool   // carry it out and do not answer
	skip  bool   // do not carry it out and do not answer
	reply []byte // answer with this frame instead; the id is filled in
}

type fakeConn struct {
	f       *fake
	nc      net.Conn
	out     []byte
	pending [][]byte
	txn     protocol.Txn
	batch   protocol.Batch
	mget    protocol.MGet
	x       protocol.Extensions
	frame   protocol.Frame
	mu      sync.Mutex
}

func newFake(t testing.TB) *fake {
	t.Helper()
	return newFakeOn(t, "tcp", "127.0.0.1:0")
}

func newFakeOn(t testing.TB, network, address string) *fake {
	t.Helper()
	f, err := startFake(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.close)
	return f
}

func startFake(network, address string) (*fake, error) {
	f, err := listenFake(network, address)
	if err == nil {
		f.start()
	}
	return f, err
}

// listenFake returns a server that does not accept connections yet.
func listenFake(network, address string) (*fake, error) {
	ln, err := net.Listen(network, address)
	if err != nil {
		return nil, err
	}
	return &fake{
		fakeStore: newFakeStore(), node: 1, ln: ln,
		conns: map[*fakeConn]struct{}{}, features: protocol.FeaturesKnown, inFlight: 4096, status: `{"node":1}`,
	}, nil
}

func (f *fake) start() {
	f.wg.Add(1)
	go f.accept()
}

// StartExampleServer starts a server for the examples.
func StartExampleServer() (address string, stop func()) {
	f, err := startFake("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	return f.address(), f.close
}

func (f *fake) address() string { return f.ln.Addr().String() }

func (f *fake) accept() {
	defer f.wg.Done()
	for {
		nc, err := f.ln.Accept()
		if err != nil {
			return
		}
		cn := &fakeConn{f: f, nc: nc}
		f.mu.Lock()
		if f.wrap != nil {
			cn.nc = f.wrap(nc)
		}
		if f.closed {
			f.mu.Unlock()
			nc.Close()
			return
		}
		f.conns[cn] = struct{}{}
		f.accepted++
		f.wg.Add(1)
		f.mu.Unlock()
		go cn.serve()
	}
}

func (f *fake) close() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.ln.Close()
	f.dropAll()
	f.wg.Wait()
}

// dropAll closes every connection at once.
func (f *fake) dropAll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for cn := range f.conns {
		cn.nc.Close()
	}
}

// dismiss closes every connection with a notice, as for a user who is gone.
func (f *fake) dismiss() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for cn := range f.conns {
		cn.send(protocol.AppendError(nil, 0, protocol.StatusUnauthenticated, 0, "user ann was removed or disabled"))
		cn.nc.Close()
	}
}

func (f *fake) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (cn *fakeConn) serve() {
	f := cn.f
	defer f.wg.Done()
	defer func() {
		cn.nc.Close()
		f.mu.Lock()
		delete(f.conns, cn)
		f.mu.Unlock()
	}()
	buf := make([]byte, 64<<10)
	from, to := 0, 0
	first := true
	for {
		n, err := cn.nc.Read(buf[to:])
		if err != nil {
			return
		}
		to += n
		need := 0
		for {
			var n, want int
			var err error
			fr := &cn.frame
			*fr, n, want, err = protocol.Next(buf[from:to], protocol.FrameBytesMax)
			if err != nil {
				cn.send(protocol.AppendError(nil, fr.ID, protocol.StatusProtocol, 0, err.Error()))
				return
			}
			if n == 0 {
				need = want
				break
			}
			from += n
			if first {
				first = false
				if !cn.greet(fr) {
					return
				}
			} else if !cn.handle(fr) {
				cn.flush()
				return
			}
		}
		cn.flush()
		to = copy(buf, buf[from:to])
		from = 0
		if need > len(buf) {
			buf = append(buf, make([]byte, need-len(buf))...)
		}
	}
}

func (cn *fakeConn) send(b []byte) {
	cn.mu.Lock()
	defer cn.mu.Unlock()
	cn.nc.Write(b)
}

func (cn *fakeConn) flush() {
	if cn.f.reverse {
		slices.Reverse(cn.pending)
		for _, p := range cn.pending {
			cn.out = append(cn.out, p...)
		}
		cn.pending = cn.pending[:0]
	}
	if len(cn.out) > 0 {
		cn.send(cn.out)
		cn.out = cn.out[:0]
	}
}

func (cn *fakeConn) greet(fr *protocol.Frame) bool {
	var m protocol.Hello
	if protocol.Opcode(fr.Code) != protocol.OpHello || m.Decode(fr.Body) != nil {
		cn.send(protocol.AppendError(nil, fr.ID, protocol.StatusHandshake, 0, "HELLO first"))
		return false
	}
	f := cn.f
	f.mu.Lock()
	f.hellos++
	hello := f.hello
	refused := f.login != nil && !f.login(string(m.User), string(m.Secret))
	f.mu.Unlock()
	if refused {
		cn.send(protocol.AppendError(nil, fr.ID, protocol.StatusUnauthenticated, 0, "wrong user name or password"))
		return false
	}
	if hello != nil {
		reply := hello(cn, &m)
		if reply == nil {
			return false
		}
		cn.send(withID(reply, fr.ID))
		return reply[5] == 0
	}
	cn.send(f.welcome(&m, fr.ID))
	return true
}

// welcome is the usual reply to a HELLO.
func (f *fake) welcome(m *protocol.Hello, id uint64) []byte {
	r := protocol.HelloReply{
		Version: protocol.Version, Features: f.features & m.Features, Node: f.node, Cluster: 2, Connection: 3,
		FrameBytesMax: protocol.FrameBytesMax, KeyBytesMax: protocol.KeyBytesMax, ValueBytesMax: protocol.ValueBytesMax,
		InFlightMax: f.inFlight, Shards: 8, ServerVersion: []byte("fake"),
	}
	return protocol.End(r.AppendTo(protocol.Begin(nil, 0, protocol.FlagReply, id)), 0)
}

func withID(frame []byte, id uint64) []byte {
	b := bytes.Clone(frame)
	for i := range 8 {
		b[8+i] = byte(id >> (8 * i))
	}
	return b
}

// errorFrame is a reply to be used in a verdict.
func errorFrame(s Status, retryAfterMillis uint32, message string) []byte {
	return protocol.AppendError(nil, 0, s, retryAfterMillis, message)
}

// handle carries one request out. It returns false to end the connection.
func (cn *fakeConn) handle(fr *protocol.Frame) bool {
	f := cn.f
	cn.x = protocol.Extensions{} // kept here so that serving allocates nothing
	x := &cn.x
	if err := x.Decode(fr.Extensions); err != nil {
		cn.out = protocol.AppendError(cn.out, fr.ID, protocol.StatusBadRequest, 0, err.Error())
		return true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.record {
		f.requests = append(f.requests, seenRequest{protocol.Opcode(fr.Code), *x, bytes.Clone(fr.Body)})
	}
	v := verdict{}
	if f.intercept != nil {
		v = f.intercept(cn, fr, x)
	}
	if v.reply != nil {
		cn.out = append(cn.out, withID(v.reply, fr.ID)...)
		return true
	}
	if v.drop && !v.after {
		return false
	}
	if v.skip {
		return true
	}
	start := len(cn.out)
	if f.cluster == nil || !f.cluster.redirect(cn, fr, x) {
		cn.execute(fr, x)
	}
	if v.drop || v.mute {
		cn.out = cn.out[:start]
		return !v.drop
	}
	if f.reverse {
		cn.pending = append(cn.pending, bytes.Clone(cn.out[start:]))
		cn.out = cn.out[:start]
	}
	return true
}

func (cn *fakeConn) execute(fr *protocol.Frame, x *protocol.Extensions) {
	f := cn.f
	start := len(cn.out)
	id := [2]uint64{x.Session, x.Sequence}
	if x.Session != 0 {
		if old, ok := f.sessions[id]; ok {
			cn.out = protocol.Begin(cn.out, old[0], protocol.FlagReply, fr.ID)
			cn.out = protocol.End(append(cn.out, old[1:]...), start)
			return
		}
	}
	code := protocol.Opcode(fr.Code)
	switch code {
	case protocol.OpMGet:
		cn.executeMGet(fr)
		return
	case protocol.OpScan:
		cn.executeScan(fr)
		return
	}
	flags := protocol.FlagReply
	if x.Consistency == Stale {
		flags |= protocol.FlagExtensions
	}
	cn.out = protocol.Begin(cn.out, 0, flags, fr.ID)
	if x.Consistency == Stale {
		age := protocol.Extensions{HasAge: true, AgeMillis: 7}
		cn.out = age.AppendTo(cn.out)
	}
	var status Status
	body := len(cn.out)
	cn.out, status = f.apply(cn, cn.out, code, fr.Body)
	cn.out[start+5] = byte(status)
	cn.out = protocol.End(cn.out, start)
	if x.Session != 0 {
		f.sessions[id] = append([]byte{byte(status)}, cn.out[body:]...)
	}
}

func fail(dst []byte, s Status, message string) ([]byte, Status) {
	m := protocol.ErrorReply{Message: []byte(message)}
	return m.AppendTo(dst), s
}

// apply carries out one operation and appends the body of its reply.
func (f *fake) apply(cn *fakeConn, dst []byte, code protocol.Opcode, body []byte) ([]byte, Status) {
	switch code {
	case protocol.OpPing:
		return dst, 0
	case protocol.OpStatus:
		return append(dst, f.status...), 0
	case protocol.OpAdmin:
		var m protocol.Admin
		if err := m.Decode(body); err != nil {
			return fail(dst, protocol.StatusBadRequest, err.Error())
		}
		if string(m.Verb) != "echo" {
			return fail(dst, protocol.StatusRefused, "not now")
		}
		f.applied++
		return append(dst, m.Args...), 0
	case protocol.OpRoutes:
		m := protocol.RoutesReply{
			Epoch: 4, Nodes: []protocol.RouteNode{{ID: 1, Address: []byte("a:1")}},
			Shards: []protocol.RouteShard{{ID: 2, Leader: 1, Slots: []protocol.SlotRange{{First: 0, Last: 16383}}}},
		}
		return m.AppendTo(dst), 0
	case protocol.OpGet, protocol.OpExists:
		row, ok := f.rows[string(body)]
		if !ok {
			return dst, protocol.StatusNotFound
		}
		m := protocol.RowReply{Version: row.version, TTLMillis: row.ttl, Value: row.value}
		if code == protocol.OpExists {
			m.Value = nil
		}
		return m.AppendTo(dst), 0
	case protocol.OpWatch:
		m := protocol.WatchReply{Version: f.rows[string(body)].version, Revision: f.revision}
		return m.AppendTo(dst), 0
	case protocol.OpDeleteRange:
		var m protocol.DeleteRange
		if err := m.Decode(body); err != nil {
			return fail(dst, protocol.StatusBadRequest, err.Error())
		}
		start, end := m.Bounds()
		for key := range f.rows {
			if key >= string(start) && (len(end) == 0 || key < string(end)) {
				delete(f.rows, key)
			}
		}
		f.revision++
		f.applied++
		w := protocol.WriteReply{Version: f.revision}
		r := protocol.BatchReply{Results: protocol.OpResults{{Body: w.AppendTo(nil)}}}
		return r.AppendTo(dst), 0
	case protocol.OpBatch:
		if err := cn.batch.Decode(body); err != nil {
			return fail(dst, protocol.StatusBadRequest, err.Error())
		}
		if cn.batch.Flags == 0 && slices.ContainsFunc(cn.batch.Ops, func(o protocol.Op) bool { return bytes.Contains(o.Body, []byte("far")) }) {
			return fail(dst, protocol.StatusCrossShard, "")
		}
		m := protocol.BatchReply{Results: f.applyAll(cn, cn.batch.Ops)}
		return m.AppendTo(dst), 0
	case protocol.OpTxn:
		if err := cn.txn.Decode(body); err != nil {
			return fail(dst, protocol.StatusBadRequest, err.Error())
		}
		m := protocol.TxnReply{Succeeded: f.holds(cn.txn.Compares)}
		ops := cn.txn.Then
		if !m.Succeeded {
			ops = cn.txn.Else
		}
		m.Results = f.applyAll(cn, ops)
		return m.AppendTo(dst), 0
	}
	return f.applyWrite(dst, code, body)
}

func (f *fake) applyAll(cn *fakeConn, ops protocol.Ops) protocol.OpResults {
	results := protocol.OpResults{}
	for _, o := range ops {
		body, status := f.apply(cn, nil, o.Code, o.Body)
		results = append(results, protocol.OpResult{Status: status, Body: body})
	}
	return results
}

func (f *fake) holds(compares []protocol.Compare) bool {
	for _, c := range compares {
		row, ok := f.rows[string(c.Key)]
		order := 0
		if c.Target == protocol.CompareAbsent {
			if ok { // or was meanwhile, which no test asks
				order = 1
			}
		} else if c.Target == protocol.CompareVersion {
			order = int(int64(row.version) - int64(c.Version))
		} else if !ok {
			return false
		} else {
			order = bytes.Compare(row.value, c.Value)
		}
		if !map[Relation]bool{Equal: order == 0, NotEqual: order != 0, Less: order < 0, Greater: order > 0}[c.Relation] {
			return false
		}
	}
	return true
}

func (f *fake) applyWrite(dst []byte, code protocol.Opcode, body []byte) ([]byte, Status) {
	var (
		p   protocol.Put
		d   protocol.Delete
		n   protocol.Incr
		e   protocol.Expire
		k   protocol.Key
		err error
	)
	switch code {
	case protocol.OpPut:
		err = p.Decode(body)
	case protocol.OpDelete:
		err = d.Decode(body)
		p.Key, p.Flags, p.Version = d.Key, d.Flags, d.Version
	case protocol.OpIncr:
		err = n.Decode(body)
		p.Key = n.Key
	case protocol.OpExpire:
		err = e.Decode(body)
		p.Key = e.Key
	case protocol.OpPersist:
		err = k.Decode(body)
		p.Key = k.Key
	default:
		return f.applyPart(dst, code, body)
	}
	if err != nil {
		return fail(dst, protocol.StatusBadRequest, err.Error())
	}
	old, found := f.rows[string(p.Key)]
	reply := protocol.WriteReply{Version: old.version}
	if p.Flags&protocol.WriteReturnPrevious != 0 && found {
		reply.HasPrevious, reply.PreviousVersion, reply.PreviousTTLMillis, reply.PreviousValue = true, old.version, old.ttl, old.value
	}
	if p.Flags&protocol.WriteIfAbsent != 0 && found || p.Flags&protocol.WriteIfPresent != 0 && !found ||
		p.Flags&protocol.WriteIfVersion != 0 && p.Version != old.version {
		return reply.AppendTo(dst), protocol.StatusConditionFailed
	}
	if !found && code != protocol.OpPut && code != protocol.OpIncr {
		return reply.AppendTo(dst), protocol.StatusNotFound
	}
	row := old
	switch code {
	case protocol.OpPut:
		row.value = append([]byte(nil), p.Value...)
		if p.Flags&protocol.WriteKeepTTL == 0 {
			row.ttl, row.at = p.TTLMillis, 0
			if p.Flags&protocol.WriteExpireAt != 0 {
				row.ttl, row.at = 0, p.TTLMillis
			}
		}
	case protocol.OpIncr:
		v := int64(0)
		if found {
			if v, err = strconv.ParseInt(string(old.value), 10, 64); err != nil {
				return fail(dst, protocol.StatusNotInteger, "")
			}
		}
		if n.Delta > 0 && v > math.MaxInt64-n.Delta {
			return fail(dst, protocol.StatusOverflow, "")
		}
		row.value = strconv.AppendInt(nil, v+n.Delta, 10)
	case protocol.OpExpire:
		row.ttl = e.TTLMillis
	case protocol.OpPersist:
		row.ttl, row.at = 0, 0
	}
	f.revision++
	f.applied++
	row.version = f.revision
	reply.Version = row.version
	if code == protocol.OpDelete {
		delete(f.rows, string(p.Key))
	} else {
		f.rows[string(p.Key)] = row
	}
	if code == protocol.OpIncr {
		v, _ := strconv.ParseInt(string(row.value), 10, 64)
		m := protocol.IncrReply{Version: row.version, Value: v}
		return m.AppendTo(dst), 0
	}
	return reply.AppendTo(dst), 0
}

func (cn *fakeConn) executeMGet(fr *protocol.Frame) {
	if err := cn.mget.Decode(fr.Body); err != nil {
		cn.out = protocol.AppendError(cn.out, fr.ID, protocol.StatusBadRequest, 0, err.Error())
		return
	}
	// Two rows to a frame, to exercise continuation.
	for i, keys := 0, cn.mget.Keys; i < len(keys); i += 2 {
		var m protocol.MGetReply
		for _, k := range keys[i:min(i+2, len(keys))] {
			row, ok := cn.f.rows[string(k)]
			r := protocol.MGetRow{Status: protocol.StatusNotFound}
			if ok {
				r = protocol.MGetRow{Version: row.version, TTLMillis: row.ttl, Value: row.value}
			}
			m.Rows = append(m.Rows, r)
		}
		cn.part(fr.ID, i+2 < len(keys), m.AppendTo(nil))
	}
}

func (cn *fakeConn) part(id uint64, more bool, body []byte) {
	flags := protocol.FlagReply
	if more {
		flags |= protocol.FlagMore
	}
	start := len(cn.out)
	cn.out = protocol.Begin(cn.out, 0, flags, id)
	cn.out = protocol.End(append(cn.out, body...), start)
}

func (cn *fakeConn) executeScan(fr *protocol.Frame) {
	var m protocol.Scan
	if err := m.Decode(fr.Body); err != nil {
		cn.out = protocol.AppendError(cn.out, fr.ID, protocol.StatusBadRequest, 0, err.Error())
		return
	}
	var keys []string
	for k := range cn.f.rows {
		in := k >= string(m.Start) && (len(m.End) == 0 || k < string(m.End))
		if m.Flags&protocol.ScanPrefix != 0 {
			in = strings.HasPrefix(k, string(m.Start))
		}
		keys = append(keys, k)
		if !in {
			keys = keys[:len(keys)-1]
		}
	}
	sort.Strings(keys)
	if m.Flags&protocol.ScanReverse != 0 {
		slices.Reverse(keys)
	}
	if len(m.Cursor) > 0 {
		last, ok := bytes.CutPrefix(m.Cursor, []byte("fake:"))
		at := slices.Index(keys, string(last))
		if !ok || at < 0 {
			cn.out = protocol.AppendError(cn.out, fr.ID, protocol.StatusBadCursor, 0, "")
			return
		}
		keys = keys[at+1:]
	}
	var reply protocol.ScanReply
	if len(keys) > int(m.CountMax) {
		keys = keys[:m.CountMax]
		reply.Cursor = []byte("fake:" + keys[len(keys)-1])
	}
	rows := []protocol.ScanRow{}
	for _, k := range keys {
		row := cn.f.rows[k]
		r := protocol.ScanRow{Version: row.version, TTLMillis: row.ttl, Key: []byte(k), Value: row.value}
		if m.Flags&protocol.ScanKeysOnly != 0 {
			r.Value = nil
		}
		rows = append(rows, r)
	}
	for len(rows) > 3 { // three rows to a frame
		p := protocol.ScanReply{Rows: rows[:3]}
		cn.part(fr.ID, true, p.AppendTo(nil))
		rows = rows[3:]
	}
	reply.Rows = rows
	cn.part(fr.ID, false, reply.AppendTo(nil))
}

// dial connects a client whose pauses are short to the given servers.
func dial(t testing.TB, change func(*Config), servers ...*fake) *Client {
	t.Helper()
	cfg := Config{
		Connections: 1, BackoffMin: 5 * time.Millisecond, BackoffMax: 20 * time.Millisecond,
		ForwardOnly: true, // tests that count requests do not want ROUTES among them
	}
	for _, s := range servers {
		cfg.Endpoints = append(cfg.Endpoints, s.address())
	}
	if change != nil {
		change(&cfg)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	c, err := New(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func key(i int) []byte { return fmt.Appendf(nil, "key-%05d", i) }
