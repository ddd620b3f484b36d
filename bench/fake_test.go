//go:build linux

package bench

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/proa-kv/proa/internal/certtest"
	"github.com/proa-kv/proa/protocol"
)

// request is one request as the fake server understood it.
type request struct {
	op         string // by its name in the protocol
	id         uint64
	key, value string
	body       []byte // of a Proa frame
	extensions []byte
}

// fake is a server of either protocol over a map, with bad habits on demand.
type fake struct {
	resp    bool
	secure  bool                 // with TLS
	login   string               // "user password" that clients must present, "" for none
	answer  func(request) []byte // instead of the proper reply, if not nil
	reverse bool                 // answer what arrived together back to front
	chunk   int                  // write so many bytes at a time, 0 for all
	silent  bool                 // after the greeting
	hangUp  int                  // close after so many requests, 0 for never

	ln    net.Listener
	group sync.WaitGroup

	mu    sync.Mutex
	data  map[string]string
	seen  map[string]int // requests by op
	conns map[net.Conn]bool

	// For loads of several nodes.
	id      uint64                             // node, 0 meaning 1
	cluster uint64                             // 0 meaning 7
	asked   int                                // STATUS requests so far
	routes  func() *protocol.RoutesReply       // nil: this node leads all
	ask     func(c net.Conn, r request) []byte // like answer, without the lock
}

// start serves on address until the test ends.
func (s *fake) start(t testing.TB, network, address string) Target {
	t.Helper()
	var err error
	if s.ln, err = net.Listen(network, address); err != nil {
		t.Fatal(err)
	}
	target := Target{Address: s.ln.Addr().String(), Codec: Proa{}}
	if s.secure && network != "unix" {
		target.TLS = &tls.Config{RootCAs: authority().Pool()}
		s.ln = tls.NewListener(s.ln, &tls.Config{Certificates: []tls.Certificate{certificate()}})
	}
	s.data, s.seen, s.conns = map[string]string{}, map[string]int{}, map[net.Conn]bool{}
	s.group.Go(func() {
		for {
			c, err := s.ln.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns[c] = true
			s.mu.Unlock()
			s.group.Go(func() { s.serve(c) })
		}
	})
	t.Cleanup(func() {
		s.ln.Close()
		s.mu.Lock()
		for c := range s.conns {
			c.Close()
		}
		s.mu.Unlock()
		s.group.Wait()
	})
	if s.resp {
		target.Codec = RESP{}
	}
	if network == "unix" {
		target.Address = "unix://" + address
	}
	return target
}

var (
	authority   = sync.OnceValue(func() *certtest.Authority { return certtest.NewAuthority("bench") })
	certificate = sync.OnceValue(func() tls.Certificate { return authority().Server("127.0.0.1") })
)

func (s *fake) serve(c net.Conn) {
	defer c.Close()
	in := bufio.NewReaderSize(c, 1<<16)
	var out [][]byte
	for n := 0; ; n++ {
		r, err := s.read(in)
		if err != nil || s.hangUp > 0 && n == s.hangUp {
			return
		}
		if s.ask != nil && n > 0 {
			if b := s.ask(c, r); b != nil {
				if !s.write(c, b) {
					return
				}
				continue
			}
		}
		if reply := s.reply(r, n == 0); reply != nil {
			out = append(out, reply)
		}
		if in.Buffered() > 0 && len(out) < 1000 {
			continue
		}
		if s.reverse {
			slices.Reverse(out)
		}
		if !s.write(c, bytes.Join(out, nil)) {
			return
		}
		out = out[:0]
	}
}

func (s *fake) write(c net.Conn, b []byte) bool {
	for len(b) > 0 {
		n := len(b)
		if s.chunk > 0 {
			n = min(n, s.chunk)
		}
		if _, err := c.Write(b[:n]); err != nil {
			return false
		}
		b = b[n:]
	}
	return true
}

func (s *fake) reply(r request, greeting bool) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !greeting {
		s.seen[r.op]++
		if s.silent {
			return nil
		}
		if s.answer != nil {
			if b := s.answer(r); b != nil {
				return b
			}
		}
	}
	value, found := s.data[r.key]
	switch r.op {
	case "PUT":
		s.data[r.key] = r.value
	case "DELETE":
		delete(s.data, r.key)
	}
	if s.resp {
		switch {
		case r.op == "AUTH":
			if r.key+" "+r.value != s.login {
				return []byte("-WRONGPASS invalid username-password pair or user is disabled.\r\n")
			}
			return []byte("+OK\r\n")
		case greeting && s.login != "":
			return []byte("-NOAUTH Authentication required.\r\n")
		case r.op == "PING":
			return []byte("+PONG\r\n")
		case r.op == "PUT":
			return []byte("+OK\r\n")
		case !found:
			return []byte("$-1\r\n")
		}
		return appendBulk(nil, []byte(value))
	}
	switch {
	case r.op == "HELLO" && !s.welcome(r.body):
		return protocol.AppendError(nil, r.id, protocol.StatusUnauthenticated, 0, "wrong user name or password")
	case r.op == "HELLO":
		m := protocol.HelloReply{
			Version: protocol.Version, Node: s.node(), Cluster: cmp.Or(s.cluster, 7), Connection: 1, FrameBytesMax: protocol.FrameBytesMax,
			KeyBytesMax: protocol.KeyBytesMax, ValueBytesMax: protocol.ValueBytesMax, InFlightMax: 1024, Shards: 2, ServerVersion: []byte("fake"),
		}
		return proaReply(r.id, protocol.StatusOK, m.AppendTo(nil))
	case r.op == "ROUTES", r.op == "STATUS", r.op == "INCR", r.op == "BATCH", r.op == "SCAN", r.op == "MGET", r.op == "DELETE_RANGE":
		return s.further(&r)
	case r.op == "PING":
		return proaReply(r.id, protocol.StatusOK, nil)
	case r.op == "PUT":
		return proaReply(r.id, protocol.StatusOK, written())
	case !found:
		return proaReply(r.id, protocol.StatusNotFound, nil)
	case r.op == "DELETE":
		return proaReply(r.id, protocol.StatusOK, written())
	}
	return proaReply(r.id, protocol.StatusOK, row(value))
}

// welcome reports whether a HELLO presents the right credentials.
func (s *fake) welcome(body []byte) bool {
	var m protocol.Hello
	err := m.Decode(body)
	return err == nil && (s.login == "" || string(m.User)+" "+string(m.Secret) == s.login && m.Features&protocol.FeatureCredentials != 0)
}

// rows returns a copy of what is stored.
func (s *fake) rows() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.data)
}

// count returns how many requests of a kind have arrived.
func (s *fake) count(op string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[op]
}

func (s *fake) read(in *bufio.Reader) (r request, err error) {
	if s.resp {
		return readRESP(in)
	}
	head, err := in.Peek(4)
	if err != nil {
		return r, err
	}
	b := make([]byte, binary.LittleEndian.Uint32(head))
	if _, err := io.ReadFull(in, b); err != nil {
		return r, err
	}
	f, _, _, err := protocol.Next(b, protocol.FrameBytesMax)
	if err != nil {
		return r, err
	}
	r = request{op: protocol.Opcode(f.Code).String(), id: f.ID, body: f.Body, extensions: f.Extensions}
	switch r.op {
	case "GET":
		r.key = string(f.Body)
	case "PUT":
		var m protocol.Put
		err = m.Decode(f.Body)
		r.key, r.value = string(m.Key), string(m.Value)
	case "DELETE":
		var m protocol.Delete
		err = m.Decode(f.Body)
		r.key = string(m.Key)
	}
	return r, err
}

func readRESP(in *bufio.Reader) (r request, err error) {
	n, err := readCount(in, '*')
	if err != nil {
		return r, err
	}
	words := make([]string, n)
	for i := range words {
		size, err := readCount(in, '$')
		if err != nil {
			return r, err
		}
		b := make([]byte, size+2)
		if _, err := io.ReadFull(in, b); err != nil {
			return r, err
		}
		words[i] = string(b[:size])
	}
	words = append(words, "", "")
	r = request{op: words[0], key: words[1], value: words[2]}
	if r.op == "SET" {
		r.op = "PUT"
	}
	return r, nil
}

func readCount(in *bufio.Reader, kind byte) (int, error) {
	line, err := in.ReadString('\n')
	if err != nil {
		return 0, err
	}
	if line[0] != kind {
		return 0, fmt.Errorf("got %q", line)
	}
	return strconv.Atoi(strings.TrimSpace(line[1:]))
}

func (s *fake) node() uint64 { return max(s.id, 1) }

// further answers what only whole loads ask for. The lock is held.
func (s *fake) further(r *request) []byte {
	ok := func(body []byte) []byte { return proaReply(r.id, protocol.StatusOK, body) }
	switch r.op {
	case "ROUTES":
		m := &protocol.RoutesReply{Epoch: 1, Nodes: []protocol.RouteNode{{ID: s.node(), Address: []byte(s.ln.Addr().String())}}, Shards: []protocol.RouteShard{
			{ID: 0, Leader: s.node(), Slots: []protocol.SlotRange{{First: 0, Last: 8191}}}, {ID: 1, Leader: s.node(), Slots: []protocol.SlotRange{{First: 8192, Last: 16383}}},
		}}
		if s.routes != nil {
			m = s.routes()
		}
		return ok(m.AppendTo(nil))
	case "STATUS":
		s.asked++
		return ok(fmt.Appendf(nil, `{"server":{"version":"fake","cpu_us":%d},"node":{"fsyncs":%d,"fsync_mean_us":5}}`, 1000*s.asked, 10*s.asked))
	case "INCR":
		var m protocol.Incr
		if m.Decode(r.body) != nil {
			return nil
		}
		n, _ := strconv.ParseInt(s.data[string(m.Key)], 10, 64)
		s.data[string(m.Key)] = strconv.FormatInt(n+m.Delta, 10)
		reply := protocol.IncrReply{Version: 1, Value: n + m.Delta}
		return ok(reply.AppendTo(nil))
	case "BATCH":
		return ok(s.batch(r))
	case "MGET":
		return ok(s.mget(r))
	case "DELETE_RANGE":
		return ok(s.deleteRange(r))
	}
	return s.scan(r)
}

func (s *fake) batch(r *request) []byte {
	var m protocol.Batch
	var reply protocol.BatchReply
	if m.Decode(r.body) != nil {
		return nil
	}
	for i := range m.Ops {
		var p protocol.Put
		if m.Ops[i].Code != protocol.OpPut || p.Decode(m.Ops[i].Body) != nil {
			return nil
		}
		s.data[string(p.Key)] = string(p.Value)
		reply.Results = append(reply.Results, protocol.OpResult{Body: written()})
	}
	return reply.AppendTo(nil)
}

func (s *fake) mget(r *request) []byte {
	var m protocol.MGet
	var reply protocol.MGetReply
	if m.Decode(r.body) != nil {
		return nil
	}
	for _, k := range m.Keys {
		row := protocol.MGetRow{Status: protocol.StatusNotFound}
		if v, ok := s.data[string(k)]; ok {
			row = protocol.MGetRow{Version: 1, Value: []byte(v)}
		}
		reply.Rows = append(reply.Rows, row)
	}
	return reply.AppendTo(nil)
}

// deleteRange is carried out as if there were one shard.
func (s *fake) deleteRange(r *request) []byte {
	var m protocol.DeleteRange
	if m.Decode(r.body) != nil {
		return nil
	}
	start, end := m.Bounds()
	maps.DeleteFunc(s.data, func(k, _ string) bool { return k >= string(start) && (len(end) == 0 || k < string(end)) })
	reply := protocol.BatchReply{Results: []protocol.OpResult{{Body: written()}}}
	return reply.AppendTo(nil)
}

// scan answers in frames of at most three rows.
func (s *fake) scan(r *request) (out []byte) {
	var m protocol.Scan
	if m.Decode(r.body) != nil {
		return nil
	}
	if m.Flags&protocol.ScanPrefix != 0 {
		m.End = protocol.PrefixEnd(m.Start)
	}
	var rows []protocol.ScanRow
	for _, k := range slices.Sorted(maps.Keys(s.data)) {
		if k >= string(m.Start) && k < string(m.End) && len(rows) < int(m.CountMax) {
			rows = append(rows, protocol.ScanRow{Version: 1, Key: []byte(k), Value: []byte(s.data[k])})
		}
	}
	for len(rows) > 3 {
		part := protocol.ScanReply{Rows: rows[:3]}
		rows = rows[3:]
		start := len(out)
		out = protocol.Begin(out, 0, protocol.FlagReply|protocol.FlagMore, r.id)
		out = protocol.End(part.AppendTo(out), start)
	}
	part := protocol.ScanReply{Rows: rows}
	return append(out, proaReply(r.id, protocol.StatusOK, part.AppendTo(nil))...)
}
