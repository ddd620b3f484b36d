package testcluster

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/protocol"
)

// envFake makes the test binary a fake server.
const envFake = "TESTCLUSTER_FAKE"

// fake is a server that answers HELLO and the cluster's status, and calls its
// peers: it writes its number to each of them all the time. In its status the
// uptime of a node is how often that node has called.
type fake struct {
	id uint64

	mu    sync.Mutex
	calls map[uint64]int64
	added []uint64 // by member.add
}

// fakeServer runs a fake with the flags of a server until it is killed.
func fakeServer(args []string) {
	set := flag.NewFlagSet("serve", flag.ExitOnError)
	f := &fake{calls: map[uint64]int64{}}
	set.Uint64Var(&f.id, "node-id", 0, "")
	var listen, peer, advertised, join string
	for name, p := range map[string]*string{
		"listen": &listen, "peer-listen": &peer, "advertise-peer": &advertised, "join": &join,
		"data": new(string), "log-format": new(string), "shards": new(string), "set": new(string),
	} {
		set.StringVar(p, name, "", "")
	}
	_ = set.Parse(args[1:]) // exits where it fails
	fmt.Println("fake", args)
	go f.listen(peer, f.hear)
	for _, address := range strings.Split(join, ",") {
		if address != advertised {
			go f.call(address)
		}
	}
	f.listen(listen, f.serve)
	os.Exit(1)
}

func (f *fake) listen(address string, serve func(net.Conn)) {
	ln, err := net.Listen("tcp", address)
	if err != nil {
		fmt.Println(err)
		os.Exit(3)
	}
	for {
		nc, err := ln.Accept()
		if err != nil {
			return
		}
		go serve(nc)
	}
}

// call writes the fake's number to a peer, again and again, and answers to
// nobody. A broken connection is made anew.
func (f *fake) call(address string) {
	var nc net.Conn
	err := net.ErrClosed
	for range time.Tick(time.Millisecond) {
		if err != nil {
			if nc, err = net.Dial("tcp", address); err != nil {
				continue
			}
		}
		_, err = fmt.Fprintln(nc, f.id)
	}
}

func (f *fake) hear(nc net.Conn) {
	for lines := bufio.NewScanner(nc); lines.Scan(); {
		var id uint64
		if _, err := fmt.Sscan(lines.Text(), &id); err == nil {
			f.mu.Lock()
			f.calls[id]++
			f.mu.Unlock()
		}
	}
	nc.Close()
}

func (f *fake) serve(nc net.Conn) {
	defer nc.Close()
	for {
		head := make([]byte, protocol.HeaderBytes)
		if _, err := io.ReadFull(nc, head); err != nil {
			return
		}
		frame := append(head, make([]byte, binary.LittleEndian.Uint32(head)-protocol.HeaderBytes)...)
		if _, err := io.ReadFull(nc, frame[protocol.HeaderBytes:]); err != nil {
			return
		}
		request, _, _, err := protocol.Next(frame, protocol.FrameBytesMax)
		if err != nil {
			return
		}
		reply := protocol.Begin(nil, uint8(protocol.StatusOK), protocol.FlagReply, request.ID)
		switch protocol.Opcode(request.Code) {
		case protocol.OpHello:
			hello := protocol.HelloReply{Version: protocol.Version, Node: f.id, Cluster: 1, FrameBytesMax: protocol.FrameBytesMax, KeyBytesMax: protocol.KeyBytesMax, ValueBytesMax: protocol.ValueBytesMax, InFlightMax: 16}
			reply = hello.AppendTo(reply)
		case protocol.OpAdmin:
			var m protocol.Admin
			err := m.Decode(request.Body)
			var answer []byte
			if err == nil {
				answer, err = f.admin(string(m.Verb), m.Args)
			}
			if err != nil {
				_, _ = nc.Write(protocol.AppendError(nil, request.ID, protocol.StatusBadRequest, 0, err.Error()))
				continue
			}
			reply = append(reply, answer...)
		}
		if _, err := nc.Write(protocol.End(reply, 0)); err != nil {
			return
		}
	}
}

func (f *fake) admin(verb string, args []byte) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch verb {
	case command.AdminMemberAdd:
		var m command.MemberArgs
		if err := json.Unmarshal(args, &m); err != nil {
			return nil, err
		}
		f.added = append(f.added, m.Node)
		return json.Marshal(command.Done{Message: "added"})
	case command.AdminStatus:
		return json.Marshal(f.status())
	}
	return nil, fmt.Errorf("no request %s", verb)
}

// status says that node 2 leads shards 0 and 1, and node 1 shard 2 and the meta
// group. Node 3 believes to lead shard 0 too, in an older term.
func (f *fake) status() *command.ClusterStatus {
	s := &command.ClusterStatus{Asked: f.id}
	for id, n := range f.calls {
		s.Nodes = append(s.Nodes, command.NodeInfo{ID: id, State: command.NodeUp, UptimeSeconds: n})
	}
	for _, id := range f.added {
		s.Nodes = append(s.Nodes, command.NodeInfo{ID: id, State: command.NodeExpected})
	}
	leaders := map[int]uint64{command.MetaShard: 1, 0: 2, 1: 2, 2: 1}
	term := uint64(7)
	if f.id == 3 {
		leaders[0], term = 3, 6
	}
	for shard, leader := range leaders {
		s.Shards = append(s.Shards, command.ShardInfo{Shard: shard, Leader: leader, Term: term})
	}
	return s
}

// fakeCluster is a cluster whose servers are fakes.
func fakeCluster(t *testing.T, cfg ClusterConfig) *Cluster {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cfg.Env = append(cfg.Env, envFake+"=1")
	c := NewCluster(t, cfg)
	for _, n := range c.nodes {
		n.binary = program
	}
	return c
}

// called returns how often from has called to.
func called(t *testing.T, c *Cluster, from, to int) int64 {
	t.Helper()
	s := c.View(c.Node(to))
	for _, n := range s.Nodes {
		if n.ID == uint64(from) {
			return n.UptimeSeconds
		}
	}
	return 0
}

// awaitCalls returns when from has called to n times more.
func awaitCalls(t *testing.T, c *Cluster, from, to int, n int64) {
	t.Helper()
	begin := called(t, c, from, to)
	c.await(fmt.Sprintf("%d calls from %d to %d", n, from, to), func(context.Context) error {
		if got := called(t, c, from, to); got < begin+n {
			return fmt.Errorf("%d of %d", got-begin, n)
		}
		return nil
	})
}

// awaitSilence returns when no call gets from one server to another any more while
// many get from other to there: what was under way when the link was cut has arrived.
func awaitSilence(t *testing.T, c *Cluster, from, to, other, there int) {
	t.Helper()
	c.await(fmt.Sprintf("silence between %d and %d", from, to), func(context.Context) error {
		begin := called(t, c, from, to)
		awaitCalls(t, c, other, there, 200)
		if n := called(t, c, from, to) - begin; n > 0 {
			return fmt.Errorf("%d calls passed a cut link", n)
		}
		return nil
	})
}
