package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/protocol"
)

// TestAnyNodeServesAnyRequest writes and reads every shard through every node.
func TestAnyNodeServesAnyRequest(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		fc := newFakeCluster(t, cfg, 3, 6, 1)
		for id, n := range fc.nodes {
			d := n.client()
			for shard := range fc.shards {
				for _, prefix := range []string{"", "cold"} {
					key := prefix + fc.key(shard, int(id))
					leader := fc.leader[fc.shardOf(protocol.Slot([]byte(key)))]
					value := fmt.Sprintf("%s of %d", key, id)
					f := d.put(key, value)
					want(t, f, protocol.StatusOK)
					check := func(x protocol.Extensions) {
						t.Helper()
						if leader != id && (x.Leader != leader || x.Epoch != 7) {
							t.Errorf("forwarded by %d, leader %d: marks %+v", id, leader, x)
						}
						if leader == id && !x.Empty() {
							t.Errorf("answered by the leader: marks %+v", x)
						}
					}
					check(marksOf(t, f))
					f = d.call(protocol.OpGet, []byte(key))
					wantValue(t, f, value)
					check(marksOf(t, f))
					f = d.call(protocol.OpExists, []byte(key))
					want(t, f, protocol.StatusOK)
					f = d.call(protocol.OpGet, []byte(key+"-absent-{"+key+"}"))
					want(t, f, protocol.StatusNotFound)
				}
			}
		}
	})
}

// TestForwardedPipeline keeps many requests under way over all nodes.
func TestForwardedPipeline(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		fc := newFakeCluster(t, cfg, 3, 6, 1)
		var wg sync.WaitGroup
		for _, n := range fc.nodes {
			d := n.client()
			const count = 2000
			wg.Add(2)
			go func() {
				defer wg.Done()
				var b []byte
				for i := range count {
					b = append(b, frame(protocol.OpPut, uint64(i+10), putBody(fc.key(i%6, i%7), "v"))...)
				}
				_, _ = d.nc.Write(b)
			}()
			go func() {
				defer wg.Done()
				seen := map[uint64]bool{}
				for range count {
					f, err := d.tryReceive()
					if err != nil || protocol.Status(f.Code) != protocol.StatusOK || seen[f.ID] {
						t.Errorf("reply to %d: %v, %v, seen %v", f.ID, protocol.Status(f.Code), err, seen[f.ID])
						return
					}
					seen[f.ID] = true
				}
			}()
		}
		wg.Wait()
		for _, n := range fc.nodes {
			for _, u := range n.srv.upstreams.nodes {
				u.mu.Lock()
				if u.requests != 0 || u.bytes != 0 {
					t.Errorf("node %d: %d requests and %d bytes are still counted", n.id, u.requests, u.bytes)
				}
				u.mu.Unlock()
			}
		}
	})
}

// TestFollowerReads reads on a replica that has not heard of the last write.
func TestFollowerReads(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		fc := newFakeCluster(t, cfg, 3, 3, 2) // node 2 leads shard 1 and follows shard 0
		follower := fc.nodes[2]
		follower.age = 42
		for _, prefix := range []string{"key", "cold"} {
			key := prefix
			for i := 0; fc.shardOf(protocol.Slot([]byte(key))) != 0; i++ {
				key = fmt.Sprintf("%s%d", prefix, i)
			}
			d := follower.client()
			fc.set(key, "old")
			f, x := d.callWith(protocol.OpGet, protocol.Extensions{}, []byte(key))
			wantValue(t, f, "old") // after a read index
			if x.Leader != 1 || x.HasAge {
				t.Errorf("linearizable read: marks %+v", x)
			}
			fc.set(key, "new")
			version := fc.state[0].version

			f, x = d.callWith(protocol.OpGet, protocol.Extensions{Consistency: protocol.Stale}, []byte(key))
			wantValue(t, f, "old")
			if !x.HasAge || x.AgeMillis != 42 {
				t.Errorf("stale read: marks %+v", x)
			}
			before := follower.readIndexes.Load()
			f, x = d.callWith(protocol.OpGet, protocol.Extensions{Consistency: protocol.SessionReads, Token: version - 1}, []byte(key))
			wantValue(t, f, "old")
			if x.HasAge || follower.readIndexes.Load() != before {
				t.Errorf("session read: marks %+v, %d read indexes", x, follower.readIndexes.Load()-before)
			}
			f, _ = d.callWith(protocol.OpGet, protocol.Extensions{Consistency: protocol.SessionReads, Token: version}, []byte(key))
			wantValue(t, f, "new")
			if follower.readIndexes.Load() != before+1 {
				t.Error("a session read behind the replica took no read index")
			}
			fc.set(key, "newest")
			wantValue(t, d.call(protocol.OpGet, []byte(key)), "newest")
		}
		if n := follower.dials.Load(); n != 0 {
			t.Errorf("%d streams to other nodes for what the replica here can answer", n)
		}
		fc.with(func() { follower.unknownAge = true })
		if _, x := follower.client().callWith(protocol.OpGet, protocol.Extensions{Consistency: protocol.Stale}, []byte("key")); x.HasAge && x.AgeMillis != protocol.AgeUnknown && fc.shardOf(protocol.Slot([]byte("key"))) != 2 {
			t.Errorf("an unknown age is given as %d", x.AgeMillis)
		}
	})
}

// TestLeaderWithoutLease takes the way of a read index.
func TestLeaderWithoutLease(t *testing.T) {
	fc := newFakeCluster(t, Config{}, 3, 3, 2)
	key := fc.key(0, 0)
	fc.set(key, "v")
	fc.with(func() { fc.nodes[1].noLease = true })
	f, x := fc.nodes[1].client().callWith(protocol.OpGet, protocol.Extensions{}, []byte(key))
	wantValue(t, f, "v")
	if x.Leader != 0 {
		t.Errorf("the leader names %d as leader", x.Leader)
	}
}

// TestStaleReadWithoutReplica is forwarded and still marked.
func TestStaleReadWithoutReplica(t *testing.T) {
	fc := newFakeCluster(t, Config{}, 3, 3, 1)
	fc.nodes[1].age = 5
	key := fc.key(0, 0)
	fc.set(key, "v")
	f, x := fc.nodes[2].client().callWith(protocol.OpGet, protocol.Extensions{Consistency: protocol.Stale}, []byte(key))
	wantValue(t, f, "v")
	if !x.HasAge || x.AgeMillis != 5 || x.Leader != 1 || x.Epoch != 7 {
		t.Errorf("marks %+v", x)
	}
}

// TestReadIndexRefused translates each way in which a read index can fail.
func TestReadIndexRefused(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		fc := newFakeCluster(t, cfg, 3, 3, 2)
		n := fc.nodes[2]
		key := []byte(fc.key(0, 0))
		d := n.client()
		fc.with(func() { n.readIndexErr = command.ErrNoQuorum })
		f := d.call(protocol.OpGet, key)
		want(t, f, protocol.StatusNoQuorum)
		var e protocol.ErrorReply
		if err := e.Decode(f.Body); err != nil || e.RetryAfterMillis != retryQuorumMillis {
			t.Errorf("retry after %d ms, %v", e.RetryAfterMillis, err)
		}
		fc.with(func() { n.readIndexErr = command.ErrStopped })
		want(t, d.call(protocol.OpGet, key), protocol.StatusShuttingDown)
		fc.with(func() { n.readIndexErr, n.readIndexEnd = nil, command.Dropped })
		f, x := d.callWith(protocol.OpGet, protocol.Extensions{}, key)
		want(t, f, protocol.StatusNotLeader)
		if x.Leader != 1 {
			t.Errorf("a dropped read index: marks %+v", x)
		}
		fc.with(func() { n.readIndexErr, fc.leader[0] = command.ErrNotLeader, 0 })
		f, x = d.callWith(protocol.OpGet, protocol.Extensions{}, key)
		want(t, f, protocol.StatusNotLeader)
		if x.Leader != 0 {
			t.Errorf("no leader: marks %+v", x)
		}
		if held := n.srv.admission.held.Load(); held != 0 {
			t.Errorf("%d bytes held", held)
		}
	})
}

// TestBarrierDeadline has the majority fall silent: reads are answered at their
// deadline, and let go of when it speaks again.
func TestBarrierDeadline(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		fc := newFakeCluster(t, cfg, 3, 3, 2)
		n := fc.nodes[2]
		fc.with(func() { n.holdBack = true })
		d := n.client()
		x := protocol.Extensions{DeadlineMillis: 20}
		mget := protocol.MGet{Keys: [][]byte{[]byte(fc.key(0, 0)), []byte(fc.key(0, 1))}}
		for _, r := range []struct {
			op   protocol.Opcode
			body []byte
		}{{protocol.OpGet, []byte(fc.key(0, 0))}, {protocol.OpMGet, mget.AppendTo(nil)}, {protocol.OpScan, (&protocol.Scan{}).AppendTo(nil)}} {
			f, _ := d.callWith(r.op, x, r.body)
			want(t, f, protocol.StatusDeadlineExceeded)
		}
		slow := d.send(protocol.OpGet, []byte(fc.key(0, 0)))
		eventually(t, "it waits", func() bool {
			fc.mu.Lock()
			defer fc.mu.Unlock()
			return len(n.heldBack) >= 4
		})
		n.letGo()
		if f := d.receive(); f.ID != slow || protocol.Status(f.Code) != protocol.StatusNotFound {
			t.Errorf("reply to %d: %v", f.ID, protocol.Status(f.Code))
		}
		eventually(t, "nothing is held", func() bool { return n.srv.admission.held.Load() == 0 })
	})
}

// TestDeadlineOfAWrite: whoever queues a write is told how long its client waits,
// also where another node has sent it on, and a client whose write was not
// proposed in that time hears that nothing was done.
func TestDeadlineOfAWrite(t *testing.T) {
	fc := newFakeCluster(t, Config{RequestTimeout: time.Minute}, 2, 2, 1)
	here, there := fc.nodes[1], fc.nodes[2]
	fc.with(func() { here.overdue = true })
	batch := protocol.Batch{Flags: protocol.BatchNonAtomic, Ops: protocol.Ops{
		{Code: protocol.OpPut, Body: putBody(fc.key(0, 0), "v")}, {Code: protocol.OpPut, Body: putBody(fc.key(1, 0), "v")},
	}}
	for _, r := range []struct {
		n    *fakeNode
		op   protocol.Opcode
		body []byte
	}{
		{here, protocol.OpPut, putBody(fc.key(0, 0), "v")},
		{there, protocol.OpPut, putBody(fc.key(0, 0), "v")},
		{here, protocol.OpBatch, batch.AppendTo(nil)},
	} {
		for _, deadline := range []uint32{20_000, 0} {
			f, _ := r.n.client().callWith(r.op, protocol.Extensions{DeadlineMillis: deadline}, r.body)
			if r.op == protocol.OpBatch {
				var m protocol.BatchReply
				if err := m.Decode(f.Body); err != nil || m.Results[0].Status != protocol.StatusDeadlineExceeded || m.Results[1].Status != protocol.StatusOK {
					t.Errorf("%+v, %v", m, err)
				}
			} else {
				want(t, f, protocol.StatusDeadlineExceeded)
			}
			most := deadline
			if most == 0 {
				most = 60_000
			}
			fc.with(func() {
				if here.patience == 0 || here.patience > most {
					t.Errorf("%v with a deadline of %d ms: queued for %d", r.op, deadline, here.patience)
				}
			})
		}
	}
}

// TestOneHop sends what a node may not answer over a stream from another node.
func TestOneHop(t *testing.T) {
	fc := newFakeCluster(t, Config{}, 3, 3, 1)
	here, there := socketPair(t)
	defer here.Close()
	fc.nodes[1].srv.ServeForwarded(2, there)
	d := &dialer{t: t, nc: here}
	want(t, d.call(protocol.OpHello, (&protocol.Hello{VersionMin: 1, VersionMax: 1}).AppendTo(nil)), protocol.StatusOK)
	mine, other := fc.key(0, 0), fc.key(1, 0)
	want(t, d.put(mine, "v"), protocol.StatusOK)
	wantValue(t, d.call(protocol.OpGet, []byte(mine)), "v")
	want(t, d.call(protocol.OpGet, []byte("cold"+mine+"{"+mine+"}")), protocol.StatusNotFound)
	for _, r := range []struct {
		op   protocol.Opcode
		body []byte
	}{
		{protocol.OpGet, []byte(other)}, {protocol.OpPut, putBody(other, "v")},
		{protocol.OpMGet, (&protocol.MGet{Keys: [][]byte{[]byte(mine), []byte(other)}}).AppendTo(nil)},
	} {
		f, x := d.callWith(r.op, protocol.Extensions{}, r.body)
		want(t, f, protocol.StatusNotLeader)
		if x.Leader != 2 {
			t.Errorf("%v: marks %+v", r.op, x)
		}
	}
	want(t, d.call(protocol.OpScan, (&protocol.Scan{}).AppendTo(nil)), protocol.StatusNotLeader)
	if n := fc.nodes[1].dials.Load(); n != 0 {
		t.Errorf("%d streams: what was forwarded went on", n)
	}
	if fc.nodes[1].srv.conns.len() != 0 || fc.nodes[1].srv.forwarded.len() != 1 {
		t.Error("a stream from another node counts as a client")
	}
	here.Close()
	eventually(t, "its place is free again", func() bool { return fc.nodes[1].srv.forwarded.len() == 0 })
}

// TestRequestGoesOnAsItCame but for its id and what is left of its deadline.
func TestRequestGoesOnAsItCame(t *testing.T) {
	x := protocol.Extensions{DeadlineMillis: 5000, Session: 1, Sequence: 2, Epoch: 3, HasTrace: true}
	for _, x := range []protocol.Extensions{x, {}, {Consistency: protocol.Stale}} {
		r := &request{op: protocol.OpPut, id: 9, body: putBody("k", "v")}
		if !x.Empty() {
			r.extensions = x.AppendTo(nil)[2:]
		}
		b := appendRequest(nil, r, 77)
		f, n, _, err := protocol.Next(b, protocol.FrameBytesMax)
		if err != nil || n != len(b) || f.Code != uint8(protocol.OpPut) || string(f.Body) != string(r.body) {
			t.Fatalf("%+v, %v", f, err)
		}
		if x.DeadlineMillis != 0 {
			x.DeadlineMillis = 77
		}
		if got := marksOf(t, f); got != x {
			t.Errorf("extensions %+v, want %+v", got, x)
		}
	}
}

// TestForwardedToFormerLeader passes on who the leader is by now.
func TestForwardedToFormerLeader(t *testing.T) {
	fc := newFakeCluster(t, Config{}, 3, 3, 1)
	n := fc.nodes[2]
	script := newScript(t, n)
	d := n.client()
	id := d.send(protocol.OpPut, putBody(fc.key(0, 0), "v"))
	s := <-script
	s.hello(1)
	f := s.receive()
	s.write(appendError(nil, f.ID, &protocol.Extensions{Leader: 3}, protocol.StatusNotLeader, 9, "node 3 leads the shard"))
	r := d.receive()
	want(t, r, protocol.StatusNotLeader)
	if x := marksOf(t, r); x.Leader != 3 || r.ID != id {
		t.Errorf("marks %+v, reply to %d", x, r.ID)
	}
	// A node that stops is not the client's concern.
	d.send(protocol.OpPut, putBody(fc.key(0, 0), "v"))
	f = s.receive()
	s.write(appendError(nil, f.ID, &protocol.Extensions{}, protocol.StatusShuttingDown, 0, "stopping"))
	want(t, d.receive(), protocol.StatusNotLeader)
}

// scripted is the far end of a node's stream, played by a test.
type scripted struct{ *dialer }

// newScript has n's streams to other nodes end at the test.
func newScript(t testing.TB, n *fakeNode) chan scripted {
	ch := make(chan scripted, 16)
	n.forwardTo(func() net.Conn {
		here, there := socketPair(t)
		t.Cleanup(func() { there.Close() })
		ch <- scripted{&dialer{t: t, nc: there}}
		return here
	})
	return ch
}

func (s scripted) write(b []byte) {
	s.t.Helper()
	if _, err := s.nc.Write(b); err != nil {
		s.t.Fatal(err)
	}
}

func (s scripted) hello(node uint64) {
	s.t.Helper()
	f := s.receive()
	m := protocol.HelloReply{Version: 1, Node: node, Cluster: 99, FrameBytesMax: 1 << 20}
	s.write(protocol.End(m.AppendTo(protocol.Begin(nil, 0, protocol.FlagReply, f.ID)), 0))
}

func TestSilentNode(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		cfg.RequestTimeout = 200 * time.Millisecond
		fc := newFakeCluster(t, cfg, 3, 3, 1)
		n := fc.nodes[2]
		script := newScript(t, n)
		d := n.client()
		key := fc.key(0, 0)
		d.sendWith(protocol.OpGet, protocol.Extensions{DeadlineMillis: 5000}, []byte(key))
		s := <-script
		s.hello(1)
		s.write(protocol.AppendError(nil, s.receive().ID, protocol.StatusBusy, 0, "not now"))
		want(t, d.receive(), protocol.StatusBusy)
		put := d.send(protocol.OpPut, putBody(key, "v"))
		late := s.receive()
		f := d.receive()
		if f.ID != put {
			t.Errorf("reply to %d", f.ID)
		}
		want(t, f, protocol.StatusTimeout)
		want(t, d.call(protocol.OpGet, []byte(key)), protocol.StatusDeadlineExceeded)
		// The answer that comes late belongs to nobody.
		s.write(protocol.AppendError(nil, late.ID, protocol.StatusBusy, 0, "late"))
		f, _ = d.callWith(protocol.OpGet, protocol.Extensions{DeadlineMillis: 1}, []byte(key))
		want(t, f, protocol.StatusDeadlineExceeded)
		m := protocol.Batch{Flags: protocol.BatchNonAtomic, Ops: protocol.Ops{{Code: protocol.OpPut, Body: putBody(key, "v")}, {Code: protocol.OpPut, Body: putBody(fc.key(1, 0), "v")}}}
		var r protocol.BatchReply
		for millis := uint32(40); ; millis *= 2 { // in which a busy machine may not get to the part that is done
			f, _ = d.callWith(protocol.OpBatch, protocol.Extensions{DeadlineMillis: millis}, m.AppendTo(nil))
			want(t, f, protocol.StatusOK)
			if err := r.Decode(f.Body); err != nil || r.Results[0].Status != protocol.StatusTimeout && r.Results[0].Status != protocol.StatusDeadlineExceeded {
				t.Fatalf("%+v, %v", r, err)
			}
			if r.Results[1].Status == protocol.StatusOK {
				break
			}
			if millis > 10_000 {
				t.Fatalf("%+v", r)
			}
		}
	})
}

// TestDesertedNode gives up on a node that is silent when others lead its
// shards, long before the deadline, and not while it leads one.
func TestDesertedNode(t *testing.T) {
	fc := newFakeCluster(t, Config{}, 3, 6, 1)
	n := fc.nodes[2]
	script := newScript(t, n)
	d := n.client()
	put := d.send(protocol.OpPut, putBody(fc.key(0, 0), "v"))
	get := d.send(protocol.OpGet, []byte(fc.key(0, 0)))
	s := <-script
	s.hello(1)
	s.receive()
	s.receive()
	l := func() *upstreamConn {
		u := n.srv.upstreams.to(1)
		u.mu.Lock()
		defer u.mu.Unlock()
		return u.conns[laneSmall]
	}()
	eventually(t, "the silence is noticed", func() bool { return !l.active.Load() })
	fc.with(func() { fc.leader[0] = 3 })
	if l.leadsNothing() {
		t.Error("given up while it leads shard 3")
	}
	fc.with(func() {
		fc.leader[0], fc.leader[1], fc.leader[2], fc.leader[3], fc.leader[4], fc.leader[5] = 0, 0, 0, 0, 0, 0
	})
	if l.leadsNothing() {
		t.Error("given up while nobody leads")
	}
	fc.with(func() { fc.leader[0] = 3 })
	got := map[uint64]protocol.Frame{}
	for range 2 {
		f := d.receive()
		got[f.ID] = f
	}
	want(t, got[put], protocol.StatusTimeout)
	want(t, got[get], protocol.StatusNotLeader)
}

// TestUnsentWriteIsNotDone gives up on a node that does not even shake hands.
func TestUnsentWriteIsNotDone(t *testing.T) {
	fc := newFakeCluster(t, Config{}, 3, 3, 1)
	n := fc.nodes[2]
	script := newScript(t, n)
	d := n.client()
	f, _ := d.callWith(protocol.OpPut, protocol.Extensions{DeadlineMillis: 20}, putBody(fc.key(0, 0), "v"))
	want(t, f, protocol.StatusDeadlineExceeded)
	// When the node wakes up, the write must not be sent any more.
	s := <-script
	s.hello(1)
	id := d.send(protocol.OpGet, []byte(fc.key(0, 0)))
	if f := s.receive(); protocol.Opcode(f.Code) != protocol.OpGet {
		t.Fatalf("sent a %v that had been answered as not done", protocol.Opcode(f.Code))
	} else {
		s.write(protocol.AppendError(nil, f.ID, protocol.StatusBusy, 3, "busy"))
	}
	if f := d.receive(); f.ID != id || protocol.Status(f.Code) != protocol.StatusBusy {
		t.Errorf("reply to %d: %v", f.ID, protocol.Status(f.Code))
	}
	u := n.srv.upstreams.to(1)
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.requests != 0 || u.bytes != 0 {
		t.Errorf("%d requests and %d bytes are still counted", u.requests, u.bytes)
	}
}

func TestBrokenStream(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		fc := newFakeCluster(t, cfg, 3, 3, 1)
		n := fc.nodes[2]
		script := newScript(t, n)
		d := n.client()
		key := fc.key(0, 0)
		put := d.send(protocol.OpPut, putBody(key, "v"))
		get := d.send(protocol.OpGet, []byte(key))
		s := <-script
		s.hello(1)
		s.receive()
		s.receive()
		s.nc.Close()
		got := map[uint64]protocol.Status{}
		for range 2 {
			f := d.receive()
			got[f.ID] = protocol.Status(f.Code)
		}
		if got[put] != protocol.StatusTimeout || got[get] != protocol.StatusNotLeader {
			t.Errorf("PUT %v, GET %v", got[put], got[get])
		}
		// The next request opens another.
		d.send(protocol.OpGet, []byte(key))
		s = <-script
		s.hello(1)
		f := s.receive()
		s.write(protocol.End(protocol.Begin(nil, uint8(protocol.StatusNotFound), protocol.FlagReply, f.ID), 0))
		want(t, d.receive(), protocol.StatusNotFound)
	})
}

func TestUnreachableNode(t *testing.T) {
	fc := newFakeCluster(t, Config{}, 3, 3, 1)
	n := fc.nodes[2]
	n.forwardTo(nil)
	d := n.client()
	for range 50 {
		f := d.put(fc.key(0, 0), "v")
		want(t, f, protocol.StatusNotLeader)
		if !protocol.Status(f.Code).Retry() {
			t.Error("not to be tried again")
		}
	}
	if dials := n.dials.Load(); dials > 25 {
		t.Errorf("%d dials for 50 requests", dials)
	}
}

// TestWrongNodeAnswers refuses a stream that ends at another node or cluster.
func TestWrongNodeAnswers(t *testing.T) {
	fc := newFakeCluster(t, Config{}, 3, 3, 1)
	n := fc.nodes[2]
	script := newScript(t, n)
	d := n.client()
	d.send(protocol.OpPut, putBody(fc.key(0, 0), "v"))
	s := <-script
	s.hello(3)
	want(t, d.receive(), protocol.StatusNotLeader)
	if _, err := s.tryReceive(); !errors.Is(err, io.EOF) && !strings.Contains(fmt.Sprint(err), "reset") {
		t.Errorf("the stream lives: %v", err)
	}
}

// TestFrameLimitOfOtherNode keeps a frame back that would break the stream.
func TestFrameLimitOfOtherNode(t *testing.T) {
	fc := newFakeCluster(t, Config{}, 3, 3, 1)
	n := fc.nodes[2]
	script := newScript(t, n)
	d := n.client()
	d.send(protocol.OpPut, putBody(fc.key(0, 0), strings.Repeat("v", 2<<20)))
	s := <-script
	s.hello(1) // takes 1 MiB
	want(t, d.receive(), protocol.StatusTooLarge)
}

// TestUpstreamBound fills what may wait for one node.
func TestUpstreamBound(t *testing.T) {
	fc := newFakeCluster(t, Config{InFlightMax: 2 * upstreamRequestsMax, InFlightBytesMax: 1 << 40}, 2, 2, 1)
	n := fc.nodes[2]
	script := newScript(t, n)
	d := n.client()
	key := []byte(fc.key(0, 0))
	var b []byte
	for i := range upstreamRequestsMax + 5 {
		b = append(b, frame(protocol.OpGet, uint64(i+10), key)...)
	}
	go func() { _, _ = d.nc.Write(b) }()
	for range 5 {
		want(t, d.receive(), protocol.StatusBusy)
	}
	s := <-script
	s.nc.Close()
	for range upstreamRequestsMax {
		want(t, d.receive(), protocol.StatusNotLeader)
	}
	n.forwardTo(nil)
	want(t, d.call(protocol.OpGet, key), protocol.StatusNotLeader)
}

// TestOtherNodeStops moves to another connection when one is told to go away,
// with a request under way on the first.
func TestOtherNodeStops(t *testing.T) {
	fc := newFakeCluster(t, Config{}, 3, 3, 1)
	n := fc.nodes[2]
	script := newScript(t, n)
	d := n.client()
	key := []byte(fc.key(0, 0))
	first := d.send(protocol.OpGet, key)
	s1 := <-script
	s1.hello(1)
	f1 := s1.receive()
	s1.write(protocol.AppendError(nil, 0, protocol.StatusGoAway, 0, "stopping"))
	eventually(t, "the connection is retired", func() bool {
		u := n.srv.upstreams.to(1)
		u.mu.Lock()
		defer u.mu.Unlock()
		return u.conns[laneSmall] == nil
	})
	second := d.send(protocol.OpGet, key)
	s2 := <-script
	s2.hello(1)
	f2 := s2.receive()
	s2.write(protocol.End(protocol.Begin(nil, uint8(protocol.StatusNotFound), protocol.FlagReply, f2.ID), 0))
	if f := d.receive(); f.ID != second {
		t.Errorf("reply to %d, want %d", f.ID, second)
	}
	s1.write(protocol.End(protocol.Begin(nil, uint8(protocol.StatusNotFound), protocol.FlagReply, f1.ID), 0))
	if f := d.receive(); f.ID != first {
		t.Errorf("reply to %d, want %d", f.ID, first)
	}
	if _, err := s1.tryReceive(); err == nil {
		t.Error("the retired connection lives on")
	}
}

// TestHalfCloseWhileForwarded still delivers every reply, then the end.
func TestHalfCloseWhileForwarded(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		fc := newFakeCluster(t, cfg, 3, 3, 2)
		d := fc.nodes[3].client()
		const n = 300
		var b []byte
		for i := range n {
			b = append(b, frame(protocol.OpPut, uint64(i+10), putBody(fc.key(i%3, i%5), "v"))...)
			b = append(b, frame(protocol.OpGet, uint64(i+10000), []byte(fc.key(i%3, i%5)))...)
		}
		if _, err := d.nc.Write(b); err != nil {
			t.Fatal(err)
		}
		if err := halfClose(d.nc); err != nil {
			t.Fatal(err)
		}
		for i := range 2 * n {
			if f := d.receive(); !protocol.Status(f.Code).CarriesResult() {
				t.Fatalf("reply %d: %v", i, protocol.Status(f.Code))
			}
		}
		if _, err := d.tryReceive(); !errors.Is(err, io.EOF) {
			t.Fatalf("after the last reply: %v, want EOF", err)
		}
		eventually(t, "no connection left", func() bool { return fc.nodes[3].srv.conns.len() == 0 })
	}, HalfClose)
}

// TestDrainWhileForwarded answers what is on its way before it ends.
func TestDrainWhileForwarded(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		fc := newFakeCluster(t, cfg, 3, 3, 1)
		n := fc.nodes[2]
		script := newScript(t, n)
		d := n.client()
		id := d.send(protocol.OpPut, putBody(fc.key(0, 0), "v"))
		s := <-script
		s.hello(1)
		f := s.receive()
		done := make(chan error, 1)
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			done <- n.srv.Shutdown(ctx)
		}()
		if g := d.receive(); g.ID != 0 || protocol.Status(g.Code) != protocol.StatusGoAway {
			t.Errorf("%v for %d", protocol.Status(g.Code), g.ID)
		}
		m := protocol.WriteReply{Version: 3}
		s.write(protocol.End(m.AppendTo(protocol.Begin(nil, 0, protocol.FlagReply, f.ID)), 0))
		if g := d.receive(); g.ID != id || protocol.Status(g.Code) != protocol.StatusOK {
			t.Errorf("%v for %d", protocol.Status(g.Code), g.ID)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestEpochIsTold marks replies for clients whose slot map is old.
func TestEpochIsTold(t *testing.T) {
	fc := newFakeCluster(t, Config{}, 1, 2, 1)
	fc.nodes[1].unsure = true
	d := fc.nodes[1].client()
	key := fc.key(0, 0)
	fc.set(key, "v")
	scan := (&protocol.Scan{}).AppendTo(nil)
	mget := (&protocol.MGet{Keys: [][]byte{[]byte(key)}}).AppendTo(nil)
	for _, r := range []struct {
		op   protocol.Opcode
		body []byte
		want protocol.Status
	}{
		{protocol.OpGet, []byte(key), protocol.StatusOK}, {protocol.OpGet, []byte("cold"), protocol.StatusNotFound},
		{protocol.OpPut, putBody(key, "v"), protocol.StatusTimeout}, {protocol.OpPing, []byte("x"), protocol.StatusOK},
		{protocol.OpScan, scan, protocol.StatusOK}, {protocol.OpMGet, mget, protocol.StatusOK},
		{protocol.OpStatus, nil, protocol.StatusOK}, {protocol.OpRoutes, nil, protocol.StatusOK},
		{protocol.OpGet, nil, protocol.StatusBadRequest},
	} {
		for epoch, told := range map[uint64]uint64{0: 0, 6: 7, 7: 0, 8: 0} {
			f, x := d.callWith(r.op, protocol.Extensions{Epoch: epoch}, r.body)
			want(t, f, r.want)
			if x.Epoch != told {
				t.Errorf("%v with epoch %d is told %d, want %d", r.op, epoch, x.Epoch, told)
			}
		}
	}
	// What was told once is not told to the next.
	if f, x := d.callWith(protocol.OpGet, protocol.Extensions{}, []byte(key)); !x.Empty() {
		t.Errorf("%v with %+v", protocol.Status(f.Code), x)
	}
}

func TestAdmin(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		fc := newFakeCluster(t, cfg, 1, 1, 1)
		n := fc.nodes[1]
		n.administers(func(_ context.Context, verb string, args []byte) ([]byte, error) {
			return fmt.Appendf(nil, "%s(%s)", verb, args), nil
		})
		d := n.client()
		request := func(verb, args string) []byte {
			return (&protocol.Admin{Verb: []byte(verb), Args: []byte(args)}).AppendTo(nil)
		}
		f := d.call(protocol.OpAdmin, request("status", `{"a":1}`))
		want(t, f, protocol.StatusOK)
		if string(f.Body) != `status({"a":1})` {
			t.Errorf("answered %q", f.Body)
		}
		want(t, d.call(protocol.OpAdmin, request("", "")), protocol.StatusBadRequest)
		want(t, d.call(protocol.OpAdmin, request(strings.Repeat("v", protocol.VerbBytesMax+1), "")), protocol.StatusTooLarge)
		want(t, d.call(protocol.OpAdmin, request("v", strings.Repeat("x", protocol.AdminBytesMax+1))), protocol.StatusTooLarge)
		for err, status := range map[error]protocol.Status{
			fmt.Errorf("%w: no such node", command.ErrInvalid):      protocol.StatusBadRequest,
			fmt.Errorf("%w: the node is down", command.ErrRefused):  protocol.StatusRefused,
			fmt.Errorf("%w: it took too long", command.ErrTimeout):  protocol.StatusTimeout,
			fmt.Errorf("meta group: %w", command.ErrNotLeader):      protocol.StatusNotLeader,
			fmt.Errorf("meta group: %w", command.ErrNoQuorum):       protocol.StatusNoQuorum,
			fmt.Errorf("asking: %w", context.DeadlineExceeded):      protocol.StatusTimeout,
			fmt.Errorf("the moon is full"):                          protocol.StatusInternal,
			fmt.Errorf("%w: %s", command.ErrRefused, longText(600)): protocol.StatusRefused,
		} {
			n.administers(func(context.Context, string, []byte) ([]byte, error) { return nil, err })
			f := d.call(protocol.OpAdmin, request("x", ""))
			want(t, f, status)
			// The name of the class, if there is one, is left to the status.
			_, sentence, _ := strings.Cut(err.Error(), ": ")
			if got := errorText(t, f); !strings.HasPrefix(err.Error(), got) && !strings.HasPrefix(sentence, got) || got == "" {
				t.Errorf("message %q for %q", got, err)
			}
		}
		// As many as may be under way, and one more. PING is answered meanwhile.
		gate := make(chan struct{})
		n.administers(func(ctx context.Context, _ string, _ []byte) ([]byte, error) {
			select {
			case <-gate:
			case <-ctx.Done():
			}
			return nil, ctx.Err()
		})
		for range adminsMax {
			d.send(protocol.OpAdmin, request("wait", ""))
		}
		for range adminsMax + 1 {
			last := d.send(protocol.OpAdmin, request("wait", ""))
			if f := d.receive(); f.ID != last || protocol.Status(f.Code) != protocol.StatusBusy {
				t.Fatalf("%v for %d", protocol.Status(f.Code), f.ID)
			}
		}
		want(t, d.call(protocol.OpPing, nil), protocol.StatusOK)
		close(gate)
		for range adminsMax {
			want(t, d.receive(), protocol.StatusOK)
		}
		n.administers(func(ctx context.Context, _ string, _ []byte) ([]byte, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		f, _ = d.callWith(protocol.OpAdmin, protocol.Extensions{DeadlineMillis: 10}, request("wait", ""))
		want(t, f, protocol.StatusTimeout)
		d.send(protocol.OpAdmin, request("wait", "")) // ends with the server
	})
}

func longText(n int) string { return strings.Repeat("x", n) }

// TestForwardConnections bounds the connections to all other nodes together.
func TestForwardConnections(t *testing.T) {
	fc := newFakeCluster(t, Config{ForwardConnections: 1}, 3, 3, 1)
	n := fc.nodes[1]
	d := n.client()
	want(t, d.put(fc.key(1, 0), "v"), protocol.StatusOK)
	want(t, d.put(fc.key(1, 1), longText(2*bulkBytes)), protocol.StatusOK)
	want(t, d.put(fc.key(2, 0), "v"), protocol.StatusBusy)
	if dials := n.dials.Load(); dials != 1 {
		t.Errorf("%d connections", dials)
	}
	u := n.srv.upstreams.to(2)
	u.mu.Lock()
	l := u.conns[laneSmall]
	u.mu.Unlock()
	fc.with(func() { n.streams[0].Close() })
	<-l.ended
	eventually(t, "another node can be reached", func() bool {
		return protocol.Status(d.put(fc.key(2, 0), "v").Code) == protocol.StatusOK
	})
}
