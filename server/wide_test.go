package server

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/protocol"
)

// readMGet collects the rows of one reply.
func (d *dialer) readMGet(id uint64) (rows []protocol.MGetRow, x protocol.Extensions) {
	d.t.Helper()
	for more := true; more; {
		f := d.receive()
		want(d.t, f, protocol.StatusOK)
		if f.ID != id {
			d.t.Fatalf("reply to %d, want %d", f.ID, id)
		}
		var m protocol.MGetReply
		if err := m.Decode(f.Body); err != nil {
			d.t.Fatal(err)
		}
		rows = append(rows, m.Rows...)
		x = marksOf(d.t, f)
		more = f.Flags&protocol.FlagMore != 0
	}
	return rows, x
}

// TestMGetOverNodes asks for keys that lie on the node itself, on one whose
// replica has to catch up, and elsewhere.
func TestMGetOverNodes(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		for copies := 1; copies <= 3; copies++ {
			fc := newFakeCluster(t, cfg, 3, 6, copies)
			var m protocol.MGet
			for i := range 300 {
				key := fc.key(i*5%6, i)
				if i%7 != 0 {
					fc.set(key, strings.Repeat(key, 200)) // more than one frame
				}
				m.Keys = append(m.Keys, []byte(key))
			}
			for _, keys := range [][][]byte{m.Keys, m.Keys[:mgetInline], m.Keys[:1]} {
				for id, n := range fc.nodes {
					d := n.client()
					rows, x := d.readMGet(d.send(protocol.OpMGet, (&protocol.MGet{Keys: keys}).AppendTo(nil)))
					if len(rows) != len(keys) {
						t.Fatalf("%d rows for %d keys", len(rows), len(keys))
					}
					for i, r := range rows {
						if i%7 == 0 != (r.Status == protocol.StatusNotFound) || i%7 != 0 && string(r.Value) != strings.Repeat(string(keys[i]), 200) {
							t.Fatalf("row %d of %s: %v, %d bytes", i, keys[i], r.Status, len(r.Value))
						}
					}
					if x.Leader != 0 || copies < 3 && len(keys) > 1 && x.Epoch != 7 {
						t.Errorf("node %d, %d copies: marks %+v", id, copies, x)
					}
					eventually(t, "nothing is held", func() bool { return n.srv.admission.held.Load() == 0 })
				}
			}
		}
	})
}

func TestStaleMGet(t *testing.T) {
	fc := newFakeCluster(t, Config{}, 3, 3, 2)
	m := protocol.MGet{}
	for shard := range 3 {
		key := fc.key(shard, 0)
		fc.set(key, "v")
		m.Keys = append(m.Keys, []byte(key))
	}
	for id, n := range fc.nodes {
		fc.with(func() { n.age = uint32(10 * id) })
	}
	d := fc.nodes[2].client()
	id := d.sendWith(protocol.OpMGet, protocol.Extensions{Consistency: protocol.Stale}, m.AppendTo(nil))
	rows, x := d.readMGet(id)
	// Shard 0 has a replica here that knows nothing, shard 1 is led here, and
	// shard 2 is node 3's.
	if rows[0].Status != protocol.StatusNotFound || string(rows[1].Value) != "v" || string(rows[2].Value) != "v" {
		t.Errorf("%+v", rows)
	}
	if !x.HasAge || x.AgeMillis != 30 {
		t.Errorf("marks %+v", x)
	}
	if n := fc.nodes[2].readIndexes.Load(); n != 0 {
		t.Errorf("%d read indexes for a stale read", n)
	}
}

// TestMGetFailsAsAWhole where one of its shards cannot be read.
func TestMGetFailsAsAWhole(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		fc := newFakeCluster(t, cfg, 3, 3, 1)
		n := fc.nodes[1]
		var m protocol.MGet
		for shard := range 3 {
			m.Keys = append(m.Keys, []byte(fc.key(shard, 0)))
		}
		body := m.AppendTo(nil)
		d := n.client()
		fc.with(func() { fc.leader[2] = 0 })
		want(t, d.call(protocol.OpMGet, body), protocol.StatusNotLeader)
		fc.with(func() { fc.leader[2] = 2 }) // which has no replica
		want(t, d.call(protocol.OpMGet, body), protocol.StatusNotLeader)
		fc.with(func() { fc.leader[2] = 3; n.readIndexErr = command.ErrNoQuorum })
		want(t, d.call(protocol.OpMGet, body), protocol.StatusNoQuorum)
		fc.with(func() { n.readIndexErr = nil })
		want(t, d.call(protocol.OpMGet, body), protocol.StatusOK)
		for name, answer := range map[string]func(id uint64) []byte{
			"too few rows": func(id uint64) []byte {
				return protocol.End(protocol.Begin(nil, 0, protocol.FlagReply, id), 0)
			},
			"too many rows": func(id uint64) []byte {
				b := protocol.Begin(nil, 0, protocol.FlagReply, id)
				return protocol.End(append(b, byte(protocol.StatusNotFound), byte(protocol.StatusNotFound)), 0)
			},
			"no rows at all": func(id uint64) []byte {
				return protocol.End(append(protocol.Begin(nil, 0, protocol.FlagReply, id), 0, 1, 2), 0)
			},
		} {
			fc := newFakeCluster(t, cfg, 3, 3, 2)
			n := fc.nodes[1]
			script := newScript(t, n)
			d := n.client()
			d.send(protocol.OpMGet, (&protocol.MGet{Keys: [][]byte{[]byte(fc.key(0, 0)), []byte(fc.key(1, 0))}}).AppendTo(nil))
			s := <-script
			s.hello(2)
			s.write(answer(s.receive().ID))
			if f := d.receive(); protocol.Status(f.Code) != protocol.StatusInternal {
				t.Errorf("%s: %v", name, protocol.Status(f.Code))
			}
			eventually(t, "nothing is held", func() bool { return n.srv.admission.held.Load() == 0 })
		}
	})
}

// TestHeldBytesBound refuses reads that would hold too much.
func TestHeldBytesBound(t *testing.T) {
	fc := newFakeCluster(t, Config{}, 3, 3, 2)
	n := fc.nodes[1]
	fc.with(func() { n.noLease = true })
	key := []byte(fc.key(0, 0))
	d := n.client()
	n.srv.admission.held.Store(n.srv.admission.heldMax - waitingBytes - int64(len(key)))
	want(t, d.call(protocol.OpGet, key), protocol.StatusNotFound)
	n.srv.admission.held.Add(1)
	want(t, d.call(protocol.OpGet, key), protocol.StatusBusy)
	n.srv.admission.held.Store(n.srv.admission.heldMax - 3000)
	far := fc.key(1, 0)
	fc.set(far, strings.Repeat("v", 3000))
	want(t, d.call(protocol.OpMGet, (&protocol.MGet{Keys: [][]byte{[]byte(far)}}).AppendTo(nil)), protocol.StatusBusy)
	eventually(t, "all is let go", func() bool { return n.srv.admission.held.Load() == n.srv.admission.heldMax-3000 })
}

func TestBatchOverNodes(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		fc := newFakeCluster(t, cfg, 3, 6, 1)
		for id, n := range fc.nodes {
			d := n.client()
			m := protocol.Batch{Flags: protocol.BatchNonAtomic}
			for i := range 60 {
				m.Ops = append(m.Ops, protocol.Op{Code: protocol.OpPut, Body: putBody(fc.key(i%6, i), fmt.Sprint(id, i))})
			}
			f, x := d.callWith(protocol.OpBatch, protocol.Extensions{Session: 5, Sequence: id}, m.AppendTo(nil))
			want(t, f, protocol.StatusOK)
			if x.Epoch != 7 || x.Leader != 0 {
				t.Errorf("marks %+v", x)
			}
			var r protocol.BatchReply
			if err := r.Decode(f.Body); err != nil || len(r.Results) != 60 {
				t.Fatalf("%d results, %v", len(r.Results), err)
			}
			for i, o := range r.Results {
				var w protocol.WriteReply
				if err := w.Decode(o.Body); err != nil || o.Status != protocol.StatusOK || w.Version == 0 {
					t.Fatalf("operation %d: %v, %v", i, o.Status, err)
				}
				wantValue(t, d.call(protocol.OpGet, []byte(fc.key(i%6, i))), fmt.Sprint(id, i))
			}
		}
		// A shard without a leader fails for itself, also with the node asked.
		fc.with(func() { fc.leader[0], fc.leader[1] = 0, 3 })
		var m protocol.Batch
		m.Flags = protocol.BatchNonAtomic
		for shard := range 3 {
			m.Ops = append(m.Ops, protocol.Op{Code: protocol.OpPut, Body: putBody(fc.key(shard, 1), "w")})
		}
		f := fc.nodes[1].client().call(protocol.OpBatch, m.AppendTo(nil))
		want(t, f, protocol.StatusOK)
		var r protocol.BatchReply
		if err := r.Decode(f.Body); err != nil || r.Results[0].Status != protocol.StatusNotLeader || r.Results[1].Status != protocol.StatusOK || r.Results[2].Status != protocol.StatusOK {
			t.Errorf("%+v, %v", r.Results, err)
		}
		fc.nodes[1].forwardTo(nil)
		fc.nodes[1].cluster.mu.Lock()
		for _, c := range fc.nodes[1].streams {
			c.Close()
		}
		fc.nodes[1].cluster.mu.Unlock()
	})
}

// TestBatchPartWithRows makes the rows of a part fit into the reply of the
// whole.
func TestBatchPartWithRows(t *testing.T) {
	s := new(Server)
	s.admission.heldMax = replyBytesMax
	g := &writeGather{c: &conn{srv: s}, codes: []protocol.Opcode{protocol.OpPut, protocol.OpPut}, bodies: make([][]byte, 2)}
	big := protocol.WriteReply{Version: 2, HasPrevious: true, PreviousVersion: 1, PreviousValue: make([]byte, 9<<20)}
	g.keepReply(0, protocol.OpResult{Status: protocol.StatusOK, Body: big.AppendTo(nil)})
	g.keepReply(1, protocol.OpResult{Status: protocol.StatusConditionFailed, Body: big.AppendTo(nil)})
	var first, second protocol.WriteReply
	if err := first.Decode(g.bodies[0][5:]); err != nil || len(first.PreviousValue) != 9<<20 {
		t.Errorf("%d bytes, %v", len(first.PreviousValue), err)
	}
	if err := second.Decode(g.bodies[1][5:]); err != nil || !second.PreviousOmitted || second.PreviousVersion != 1 || g.bodies[1][0] != byte(protocol.StatusConditionFailed) {
		t.Errorf("%+v, %v", second, err)
	}
	if n := binary.LittleEndian.Uint32(g.bodies[1][1:]); int(n) != len(g.bodies[1])-5 {
		t.Errorf("length %d of %d", n, len(g.bodies[1])-5)
	}
}

// readScan collects the rows of one page.
func (d *dialer) readScan(x protocol.Extensions, m *protocol.Scan) (keys []string, cursor []byte, marks protocol.Extensions) {
	d.t.Helper()
	id := d.sendWith(protocol.OpScan, x, m.AppendTo(nil))
	for more := true; more; {
		f := d.receive()
		want(d.t, f, protocol.StatusOK)
		if f.ID != id {
			d.t.Fatalf("reply to %d, want %d", f.ID, id)
		}
		var r protocol.ScanReply
		if err := r.Decode(f.Body); err != nil {
			d.t.Fatal(err)
		}
		for _, row := range r.Rows {
			if m.Flags&protocol.ScanKeysOnly == 0 && !strings.HasPrefix(string(row.Value), "value of "+string(row.Key)) {
				d.t.Fatalf("%s has the value %.40q", row.Key, row.Value)
			}
			keys = append(keys, string(row.Key))
		}
		cursor, marks = r.Cursor, marksOf(d.t, f)
		more = f.Flags&protocol.FlagMore != 0
	}
	return keys, cursor, marks
}

// readAll follows the cursors to the end, with each page at another node.
func (fc *fakeCluster) readAll(ds []*dialer, x protocol.Extensions, m protocol.Scan) (keys []string, pages int) {
	fc.t.Helper()
	for {
		page, cursor, _ := ds[pages%len(ds)].readScan(x, &m)
		pages++
		if len(page) == 0 && len(cursor) > 0 || len(page) > int(m.CountMax) {
			fc.t.Fatalf("a page of %d rows", len(page))
		}
		keys = append(keys, page...)
		if len(cursor) == 0 {
			return keys, pages
		}
		m.Cursor = cursor
	}
}

// TestScanOverNodes compares ranges read through all nodes with what is there.
func TestScanOverNodes(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		for copies := 1; copies <= 3; copies++ {
			fc := newFakeCluster(t, cfg, 3, 6, copies)
			var all []string
			for i := range 600 {
				key := fmt.Sprintf("row%05d", rand.IntN(100000))
				fc.set(key, "value of "+key+strings.Repeat(".", i))
				all = append(all, key)
			}
			for i := range 100 { // all in one shard: the others run dry
				key := fmt.Sprintf("row{tag}%05d", i)
				fc.set(key, "value of "+key)
				all = append(all, key)
			}
			slices.Sort(all)
			all = slices.Compact(all)
			var ds []*dialer
			for id := uint64(1); id <= 3; id++ {
				ds = append(ds, fc.nodes[id].client())
			}
			for _, flags := range []protocol.ScanFlags{protocol.ScanPrefix, protocol.ScanPrefix | protocol.ScanReverse, protocol.ScanPrefix | protocol.ScanKeysOnly} {
				expected := slices.Clone(all)
				if flags&protocol.ScanReverse != 0 {
					slices.Reverse(expected)
				}
				for _, bounds := range [][2]uint32{{1, 0}, {37, 0}, {10000, 0}, {10000, 5000}, {10000, 1}} {
					if bounds[0]*bounds[1] == 10000 && copies != 2 || bounds[0] == 1 && copies != 1 {
						continue // many pages
					}
					m := protocol.Scan{Flags: flags, Start: []byte("row"), CountMax: bounds[0], BytesMax: bounds[1]}
					got, pages := fc.readAll(ds, protocol.Extensions{}, m)
					if !slices.Equal(got, expected) {
						t.Fatalf("%d copies, options %d, bounds %v: %d rows of %d", copies, flags, bounds, len(got), len(expected))
					}
					if bounds[0] == 37 && pages > 60 {
						t.Errorf("%d pages for %d rows of at most 37", pages, len(got))
					}
				}
			}
			m := protocol.Scan{Start: []byte("row2"), End: []byte("row7"), CountMax: 50}
			got, _ := fc.readAll(ds, protocol.Extensions{}, m)
			from, _ := slices.BinarySearch(all, "row2")
			to, _ := slices.BinarySearch(all, "row7")
			if !slices.Equal(got, all[from:to]) {
				t.Errorf("%d rows from row2 to row7, want %d", len(got), to-from)
			}
			for _, n := range fc.nodes {
				eventually(t, "nothing is held", func() bool { return n.srv.admission.held.Load() == 0 })
			}
		}
	})
}

// TestScanOfOneShard is for clients that know the shards.
func TestScanOfOneShard(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		fc := newFakeCluster(t, cfg, 3, 3, 1)
		per := make([][]string, 3)
		for i := range 300 {
			key := fc.key(i%3, i)
			fc.set(key, "value of "+key)
			per[i%3] = append(per[i%3], key)
		}
		for _, n := range fc.nodes {
			d := n.client()
			for shard := range 3 {
				slices.Sort(per[shard])
				x := protocol.Extensions{HasShard: true, Shard: uint16(shard)}
				m := protocol.Scan{CountMax: 30}
				got, pages := fc.readAll([]*dialer{d}, x, m)
				if !slices.Equal(got, per[shard]) || pages != 4 {
					t.Fatalf("shard %d at node %d: %d rows in %d pages", shard, n.id, len(got), pages)
				}
				_, cursor, marks := d.readScan(x, &m)
				if leader := fc.leader[shard]; leader != n.id && marks.Leader != leader {
					t.Errorf("marks %+v", marks)
				}
				// A cursor belongs to its shard.
				m.Cursor = cursor
				want(t, d.call(protocol.OpScan, m.AppendTo(nil)), protocol.StatusBadCursor)
				x.Shard = uint16((shard + 1) % 3)
				f, _ := d.callWith(protocol.OpScan, x, m.AppendTo(nil))
				want(t, f, protocol.StatusBadCursor)
			}
			f, _ := d.callWith(protocol.OpScan, protocol.Extensions{HasShard: true, Shard: 2}, (&protocol.Scan{}).AppendTo(nil))
			want(t, f, protocol.StatusOK)
			f, _ = d.callWith(protocol.OpScan, protocol.Extensions{HasShard: true, Shard: 3}, (&protocol.Scan{}).AppendTo(nil))
			want(t, f, protocol.StatusBadRequest)
			f, _ = d.callWith(protocol.OpGet, protocol.Extensions{HasShard: true, Shard: 1}, []byte("k"))
			want(t, f, protocol.StatusBadRequest)
		}
	})
}

// TestScanCatchesUp reads at nodes whose replicas have not heard of anything.
func TestScanCatchesUp(t *testing.T) {
	fc := newFakeCluster(t, Config{}, 3, 6, 2)
	var all []string
	for i := range 60 {
		key := fc.key(i%6, i)
		fc.set(key, "value of "+key)
		all = append(all, key)
	}
	slices.Sort(all)
	for id, n := range fc.nodes {
		fc.with(func() { n.age = uint32(id) })
	}
	for id, n := range fc.nodes {
		d := n.client()
		m := protocol.Scan{}
		stale, _, x := d.readScan(protocol.Extensions{Consistency: protocol.Stale}, &m)
		if len(stale) != 40 || !x.HasAge || x.AgeMillis < uint32(id) || x.Epoch != 7 {
			t.Errorf("node %d: a stale scan saw %d rows, marks %+v", id, len(stale), x)
		}
		got, _, x := d.readScan(protocol.Extensions{}, &m)
		if !slices.Equal(got, all) || x.HasAge {
			t.Errorf("node %d: %d rows, marks %+v", id, len(got), x)
		}
		fc.with(func() { // so that the next node finds the replicas as they were
			for s := range n.replicas {
				if fc.leader[s] != n.id {
					n.replicas[s] = fakeShard{rows: map[string]fakeRow{}}
				}
			}
		})
	}
	fc.with(func() { fc.leader[3] = 0 })
	n := fc.nodes[3] // has no replica of shard 3
	want(t, n.client().call(protocol.OpScan, (&protocol.Scan{}).AppendTo(nil)), protocol.StatusNotLeader)
	eventually(t, "nothing is held", func() bool { return n.srv.admission.held.Load() == 0 })
}

// TestClientThatNeverReadsForwardedReplies stays within its bound.
func TestClientThatNeverReadsForwardedReplies(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		cfg.OutputBytesMax = 1 << 20
		fc := newFakeCluster(t, cfg, 2, 2, 1)
		n := fc.nodes[2]
		key := fc.key(0, 0)
		const size, count = 64 << 10, 800
		fc.set(key, strings.Repeat("v", size))
		d := n.client()
		var b []byte
		for i := range count {
			b = append(b, frame(protocol.OpGet, uint64(i+10), []byte(key))...)
		}
		go func() { _, _ = d.nc.Write(b) }()
		other := n.client()
		eventually(t, "the output is full", func() bool {
			full := false
			n.srv.conns.each(func(c *conn) { full = full || c.Backlog() > cfg.OutputBytesMax })
			return full
		})
		wantValue(t, other.call(protocol.OpGet, []byte(key)), strings.Repeat("v", size))
		n.srv.conns.each(func(c *conn) {
			if unsent := c.Backlog(); unsent > cfg.OutputBytesMax+2*size+count*200 {
				t.Errorf("%d bytes unsent", unsent)
			}
		})
		busy := 0
		for range count {
			if f := d.receive(); protocol.Status(f.Code) == protocol.StatusBusy {
				busy++
			} else {
				want(t, f, protocol.StatusOK)
			}
		}
		if busy == 0 {
			t.Error("every reply was kept for a client that takes none")
		}
	})
}

// FuzzUpstream has another node answer with arbitrary bytes. The requests that
// wait for it must all be answered, and others be served.
func FuzzUpstream(f *testing.F) {
	f.Add(appendError(nil, 1, &protocol.Extensions{Leader: 3}, protocol.StatusNotLeader, 9, "elsewhere"))
	f.Add(protocol.End(append(protocol.Begin(nil, 0, protocol.FlagReply, 2), 0, 0), 0))
	f.Add(protocol.End(append(protocol.Begin(nil, 0, protocol.FlagReply|protocol.FlagMore, 1), 1), 0))
	f.Add(protocol.AppendError(nil, 0, protocol.StatusGoAway, 0, "bye"))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	fc := newFakeCluster(f, Config{}, 2, 2, 1)
	n := fc.nodes[2]
	far, near := fc.key(0, 0), fc.key(1, 0)
	batch := protocol.Batch{Flags: protocol.BatchNonAtomic, Ops: protocol.Ops{{Code: protocol.OpPut, Body: putBody(far, "v")}, {Code: protocol.OpPut, Body: putBody(near, "v")}}}
	mget := protocol.MGet{Keys: [][]byte{[]byte(far), []byte(near)}}
	f.Fuzz(func(t *testing.T, answer []byte) {
		var ending sync.WaitGroup
		n.forwardTo(func() net.Conn {
			here, there := socketPair(t)
			ending.Go(func() {
				defer there.Close()
				s := scripted{&dialer{t: t, nc: there}}
				s.hello(1)
				s.receive()
				_, _ = there.Write(answer)
			})
			return here
		})
		d := dial(t, n.addr)
		d.send(protocol.OpPut, putBody(far, "v"))
		d.send(protocol.OpGet, []byte(far))
		d.send(protocol.OpMGet, mget.AppendTo(nil))
		d.send(protocol.OpBatch, batch.AppendTo(nil))
		d.send(protocol.OpScan, (&protocol.Scan{}).AppendTo(nil))
		open := map[uint64]bool{2: true, 3: true, 4: true, 5: true, 6: true}
		for len(open) > 0 {
			fr := d.receive()
			if !open[fr.ID] {
				t.Fatalf("an answer to %d", fr.ID)
			}
			if fr.Flags&protocol.FlagMore == 0 {
				delete(open, fr.ID)
			}
		}
		ending.Wait()
		d.nc.Close()
	})
}

// TestAcrossIsRecalledByWhoCan: a session's command over several shards, which was
// carried out when the node was alone, is asked of a node that has the shard of
// its first key.
func TestAcrossIsRecalledByWhoCan(t *testing.T) {
	fc := newFakeCluster(t, Config{}, 3, 3, 1)
	puts := protocol.Ops{
		{Code: protocol.OpPut, Body: putBody(fc.key(1, 0), "v")},
		{Code: protocol.OpPut, Body: putBody(fc.key(2, 0), "v")},
	}
	batch, txn := protocol.Batch{Ops: puts}, protocol.Txn{Then: puts}
	for id, n := range fc.nodes {
		d := n.client()
		for op, body := range map[protocol.Opcode][]byte{protocol.OpBatch: batch.AppendTo(nil), protocol.OpTxn: txn.AppendTo(nil)} {
			f, _ := d.callWith(op, protocol.Extensions{Session: 5, Sequence: 1}, body)
			want(t, f, protocol.StatusOK)
			if op == protocol.OpTxn {
				f.Body = f.Body[1:]
			}
			var results protocol.BatchReply
			var w protocol.WriteReply
			if err := results.Decode(f.Body); err != nil || len(results.Results) != 2 || w.Decode(results.Results[0].Body) != nil || w.Version != 2 {
				t.Errorf("%v at node %d: %+v, %v", op, id, results, err)
			}
			want(t, d.call(op, body), protocol.StatusCrossShard)
		}
	}
}
