package server

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/protocol"
)

type encoder interface{ AppendTo([]byte) []byte }

// ask sends m and returns the reply, which must have status s.
func (d *dialer) ask(op protocol.Opcode, m encoder, s protocol.Status) protocol.Frame {
	d.t.Helper()
	f := d.call(op, m.AppendTo(nil))
	want(d.t, f, s)
	return f
}

// decode reads the body of f.
func decode[M any, P interface {
	*M
	Decode([]byte) error
}](t testing.TB, f protocol.Frame) (m M) {
	t.Helper()
	if err := P(&m).Decode(f.Body); err != nil {
		t.Fatal(err)
	}
	return m
}

func row(f protocol.Frame, t testing.TB) protocol.RowReply { return decode[protocol.RowReply](t, f) }

func TestExtend(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		_, addr := live(t, cfg)
		d := dial(t, addr)
		key := []byte("k")
		length := func(f protocol.Frame, version uint64, n int64) {
			t.Helper()
			if r := decode[protocol.IncrReply](t, f); r.Value != n || version == 0 && r.Version != 0 || version != 0 && r.Version == 0 {
				t.Fatalf("%+v, want length %d", r, n)
			}
		}
		length(d.ask(protocol.OpSetRange, &protocol.SetRange{Offset: 9, Key: key}, protocol.StatusOK), 0, 0)
		want(t, d.call(protocol.OpGet, key), protocol.StatusNotFound)
		length(d.ask(protocol.OpAppend, &protocol.Append{Key: key, Value: []byte("hello")}, protocol.StatusOK), 1, 5)
		length(d.ask(protocol.OpAppend, &protocol.Append{Key: key, Value: []byte(" you")}, protocol.StatusOK), 1, 9)
		length(d.ask(protocol.OpSetRange, &protocol.SetRange{Offset: 0, Key: key, Value: []byte("H")}, protocol.StatusOK), 1, 9)
		length(d.ask(protocol.OpSetRange, &protocol.SetRange{Offset: 11, Key: key, Value: []byte("!")}, protocol.StatusOK), 1, 12)
		wantValue(t, d.call(protocol.OpGet, key), "Hello you\x00\x00!")
		d.ask(protocol.OpSetRange, &protocol.SetRange{Offset: protocol.ValueBytesMax, Key: key, Value: []byte("!")}, protocol.StatusTooLarge)
		d.ask(protocol.OpAppend, &protocol.Append{Key: key, Value: make([]byte, protocol.ValueBytesMax)}, protocol.StatusTooLarge)
		wantValue(t, d.call(protocol.OpGet, key), "Hello you\x00\x00!")
	})
}

func TestIncrFloat(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		_, addr := live(t, cfg)
		d := dial(t, addr)
		key := []byte("k")
		add := func(increment, sum string) {
			t.Helper()
			f := d.ask(protocol.OpIncrFloat, &protocol.IncrFloat{Key: key, Increment: []byte(increment)}, protocol.StatusOK)
			if r := decode[protocol.FloatReply](t, f); string(r.Text) != sum || r.Version == 0 {
				t.Fatalf("%+v, want %s", r, sum)
			}
			wantValue(t, d.call(protocol.OpGet, key), sum)
		}
		add("10.5", "10.5")
		add("0.1", "10.6")
		add("-0x1p-1", "10.1")
		d.ask(protocol.OpIncrFloat, &protocol.IncrFloat{Key: key, Increment: []byte("ten")}, protocol.StatusNotFloat)
		d.ask(protocol.OpIncrFloat, &protocol.IncrFloat{Key: key, Increment: []byte("inf")}, protocol.StatusOverflow)
		want(t, d.put("k", "ten"), protocol.StatusOK)
		d.ask(protocol.OpIncrFloat, &protocol.IncrFloat{Key: key, Increment: []byte("1")}, protocol.StatusNotFloat)
		wantValue(t, d.call(protocol.OpGet, key), "ten")
	})
}

func TestExpiry(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		_, addr := live(t, cfg)
		d := dial(t, addr)
		key := []byte("k")
		expiry := func() protocol.ExpiryReply {
			t.Helper()
			f := d.call(protocol.OpExpiry, key)
			want(t, f, protocol.StatusOK)
			return decode[protocol.ExpiryReply](t, f)
		}
		f := d.call(protocol.OpExpiry, key)
		want(t, f, protocol.StatusNotFound)
		if len(f.Body) != 0 {
			t.Errorf("an absent key has an expiry: %x", f.Body)
		}
		at := uint64(time.Now().Add(time.Hour).UnixMilli())
		put := decode[protocol.WriteReply](t, d.ask(protocol.OpPut,
			&protocol.Put{Flags: protocol.WriteExpireAt, TTLMillis: at, Key: key, Value: []byte("v")}, protocol.StatusOK))
		if got := (protocol.ExpiryReply{Version: put.Version, ExpireAtMillis: at}); expiry() != got {
			t.Errorf("after PUT %+v, want %+v", expiry(), got)
		}
		set := func(flags protocol.ExpiryFlags, millis uint64, s protocol.Status) protocol.WriteReply {
			t.Helper()
			return decode[protocol.WriteReply](t, d.ask(protocol.OpSetExpiry, &protocol.SetExpiry{Flags: flags, Millis: millis, Key: key}, s))
		}
		set(protocol.ExpiryAt|protocol.ExpiryIfNone, at+1, protocol.StatusConditionFailed)
		set(protocol.ExpiryAt|protocol.ExpiryIfEarlier, at, protocol.StatusConditionFailed)
		set(protocol.ExpiryAt|protocol.ExpiryIfLater, at+1, protocol.StatusOK)
		if got := expiry().ExpireAtMillis; got != at+1 {
			t.Errorf("expires at %d, want %d", got, at+1)
		}
		r := set(protocol.ExpiryRemove|protocol.ExpiryReturnRow, 0, protocol.StatusOK)
		if !r.HasPrevious || string(r.PreviousValue) != "v" || r.PreviousTTLMillis == 0 || r.PreviousVersion >= r.Version {
			t.Errorf("the row was %+v", r)
		}
		if got := expiry(); got.ExpireAtMillis != 0 || got.Version != r.Version {
			t.Errorf("after removal %+v", got)
		}
		before := uint64(time.Now().UnixMilli())
		set(0, 60_000, protocol.StatusOK)
		// The cluster's time may differ a little from this process's clock.
		if got := expiry().ExpireAtMillis; got < before+50_000 || got > before+120_000 {
			t.Errorf("expires at %d, set to live for a minute at %d", got, before)
		}
		set(protocol.ExpiryAt, 1, protocol.StatusOK)
		set(protocol.ExpiryAt, at, protocol.StatusNotFound)
		want(t, d.put("k", "v"), protocol.StatusOK)
		d.ask(protocol.OpPut, &protocol.Put{Flags: protocol.WriteExpireAt, Key: key}, protocol.StatusOK)
		want(t, d.call(protocol.OpGet, key), protocol.StatusNotFound)
	})
}

// apart returns keys of two shards.
func apart(t testing.TB, s *Server) (a, b []byte) {
	t.Helper()
	a = []byte("k")
	for i := range 1000 {
		b = fmt.Appendf(nil, "other%d", i)
		if s.backend.ShardOf(protocol.Slot(a)) != s.backend.ShardOf(protocol.Slot(b)) {
			return a, b
		}
	}
	t.Fatal("there is one shard only")
	return nil, nil
}

func TestRename(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		s, addr := live(t, cfg)
		d := dial(t, addr)
		from, to := []byte("{k}from"), []byte("{k}to")
		d.ask(protocol.OpRename, &protocol.Rename{Source: from, Destination: to}, protocol.StatusNotFound)
		want(t, d.put(string(from), "v"), protocol.StatusOK)
		r := decode[protocol.WriteReply](t, d.ask(protocol.OpRename,
			&protocol.Rename{Flags: protocol.RenameKeepSource | protocol.RenameIfAbsent, Source: from, Destination: to}, protocol.StatusOK))
		if got := row(d.call(protocol.OpGet, to), t); got.Version != r.Version || string(got.Value) != "v" {
			t.Errorf("copied as version %d: %+v", r.Version, got)
		}
		wantValue(t, d.call(protocol.OpGet, from), "v")
		d.ask(protocol.OpRename, &protocol.Rename{Flags: protocol.RenameIfAbsent, Source: from, Destination: to}, protocol.StatusConditionFailed)
		want(t, d.put(string(from), "w"), protocol.StatusOK)
		d.ask(protocol.OpRename, &protocol.Rename{Source: from, Destination: to}, protocol.StatusOK)
		wantValue(t, d.call(protocol.OpGet, to), "w")
		want(t, d.call(protocol.OpGet, from), protocol.StatusNotFound)

		// Keys of several shards, wherever the operation stands.
		a, b := apart(t, s)
		there := protocol.Rename{Source: a, Destination: b}
		back := protocol.Rename{Source: b, Destination: a}
		want(t, d.put(string(a), "moved"), protocol.StatusOK)
		d.ask(protocol.OpRename, &there, protocol.StatusOK)
		want(t, d.call(protocol.OpGet, a), protocol.StatusNotFound)
		wantValue(t, d.call(protocol.OpGet, b), "moved")
		ops := protocol.Ops{{Code: protocol.OpRename, Body: back.AppendTo(nil)}, {Code: protocol.OpRename, Body: there.AppendTo(nil)}}
		for _, flags := range []uint8{0, protocol.BatchNonAtomic} {
			d.ask(protocol.OpBatch, &protocol.Batch{Flags: flags, Ops: ops}, protocol.StatusOK)
		}
		d.ask(protocol.OpTxn, &protocol.Txn{Then: ops[:1]}, protocol.StatusOK)
		wantValue(t, d.call(protocol.OpGet, a), "moved")
	})
}

// TestExtendInside has every new operation inside a TXN and, but for the read, a
// BATCH, in one shard and over several.
func TestExtendInside(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		s, addr := live(t, cfg)
		d := dial(t, addr)
		at := uint64(time.Now().Add(time.Hour).UnixMilli())
		key := func(name string) []byte { return []byte("{k}" + name) }
		writes := protocol.Ops{
			{Code: protocol.OpAppend, Body: (&protocol.Append{Key: key("a"), Value: []byte("12")}).AppendTo(nil)},
			{Code: protocol.OpSetRange, Body: (&protocol.SetRange{Offset: 1, Key: key("a"), Value: []byte(".5")}).AppendTo(nil)},
			{Code: protocol.OpIncrFloat, Body: (&protocol.IncrFloat{Key: key("a"), Increment: []byte("1")}).AppendTo(nil)},
			{Code: protocol.OpSetExpiry, Body: (&protocol.SetExpiry{Flags: protocol.ExpiryAt, Millis: at, Key: key("a")}).AppendTo(nil)},
			{Code: protocol.OpIncrFloat, Body: (&protocol.IncrFloat{Key: key("a"), Increment: []byte("x")}).AppendTo(nil)},
			{Code: protocol.OpRename, Body: (&protocol.Rename{Flags: protocol.RenameKeepSource, Source: key("a"), Destination: key("b")}).AppendTo(nil)},
		}
		statuses := []protocol.Status{0, 0, 0, 0, protocol.StatusNotFloat, 0}
		check := func(results protocol.OpResults) {
			t.Helper()
			for i, s := range statuses {
				if results[i].Status != s {
					t.Fatalf("operation %d: %v, want %v", i, results[i].Status, s)
				}
			}
			var n protocol.IncrReply
			if err := n.Decode(results[1].Body); err != nil || n.Value != 3 {
				t.Errorf("SETRANGE: %+v, %v", n, err)
			}
			var f protocol.FloatReply
			if err := f.Decode(results[2].Body); err != nil || string(f.Text) != "2.5" {
				t.Errorf("INCRFLOAT: %+v, %v", f, err)
			}
			wantValue(t, d.call(protocol.OpGet, key("b")), "2.5")
		}
		m := protocol.Txn{Then: append(writes,
			protocol.Op{Code: protocol.OpExpiry, Body: key("b")}, protocol.Op{Code: protocol.OpExpiry, Body: key("none")})}
		txn := decode[protocol.TxnReply](t, d.ask(protocol.OpTxn, &m, protocol.StatusOK))
		check(txn.Results)
		n := len(writes)
		var x protocol.ExpiryReply
		if err := x.Decode(txn.Results[n].Body); err != nil || x.ExpireAtMillis != at || x.Version == 0 {
			t.Errorf("EXPIRY: %+v, %v, want %d", x, err, at)
		}
		if r := txn.Results[n+1]; r.Status != protocol.StatusNotFound || len(r.Body) != 0 {
			t.Errorf("EXPIRY of an absent key: %+v", r)
		}

		_, far := apart(t, s)
		more := append(writes[:n:n], protocol.Op{Code: protocol.OpAppend, Body: (&protocol.Append{Key: far, Value: []byte("v")}).AppendTo(nil)})
		for flags, ops := range map[uint8]protocol.Ops{0: writes, protocol.BatchNonAtomic: more} {
			for _, name := range []string{"a", "b"} {
				d.call(protocol.OpDelete, (&protocol.Delete{Key: key(name)}).AppendTo(nil))
			}
			check(decode[protocol.BatchReply](t, d.ask(protocol.OpBatch, &protocol.Batch{Flags: flags, Ops: ops}, protocol.StatusOK)).Results)
		}
		d.ask(protocol.OpBatch, &protocol.Batch{Ops: more}, protocol.StatusOK)
	})
}

// TestExtendWithSession retries each new write: it takes effect once, and is
// answered as before.
func TestExtendWithSession(t *testing.T) {
	_, addr := live(t, Config{})
	d := dial(t, addr)
	for i, r := range []struct {
		op protocol.Opcode
		m  encoder
	}{
		{protocol.OpAppend, &protocol.Append{Key: []byte("k"), Value: []byte("1")}},
		{protocol.OpSetRange, &protocol.SetRange{Offset: 1, Key: []byte("k"), Value: []byte(".5")}},
		{protocol.OpIncrFloat, &protocol.IncrFloat{Key: []byte("k"), Increment: []byte("1")}},
		{protocol.OpSetExpiry, &protocol.SetExpiry{Flags: protocol.ExpiryReturnRow, Millis: 60_000, Key: []byte("k")}},
		{protocol.OpRename, &protocol.Rename{Source: []byte("k"), Destination: []byte("{k}2")}},
		{protocol.OpRename, &protocol.Rename{Source: []byte("k"), Destination: []byte("{k}2")}}, // NOT_FOUND
	} {
		x := protocol.Extensions{Session: 7, Sequence: uint64(i + 1)}
		first, _ := d.callWith(r.op, x, r.m.AppendTo(nil))
		again, _ := d.callWith(r.op, x, r.m.AppendTo(nil))
		if first.Code != again.Code || string(first.Body) != string(again.Body) {
			t.Errorf("%v: %v %x, then %v %x", r.op, first.Code, first.Body, again.Code, again.Body)
		}
	}
	wantValue(t, d.call(protocol.OpGet, []byte("{k}2")), "2.5")
}

// TestSequenceUsedTwice gives two writes one number: the second is refused, in
// whatever frame it comes, and does nothing.
func TestSequenceUsedTwice(t *testing.T) {
	_, addr := live(t, Config{})
	d := dial(t, addr)
	incr, put := (&protocol.Incr{Key: []byte("k"), Delta: 1}).AppendTo(nil), putBody("k", "v")
	x := protocol.Extensions{Session: 7, Sequence: 1}
	first, _ := d.callWith(protocol.OpIncr, x, incr)
	want(t, first, protocol.StatusOK)
	batch := protocol.Batch{Flags: protocol.BatchNonAtomic, Ops: protocol.Ops{{Code: protocol.OpIncr, Body: incr}}}
	for op, body := range map[protocol.Opcode][]byte{
		protocol.OpPut: put, protocol.OpPersist: []byte("k"), protocol.OpBatch: batch.AppendTo(nil),
		protocol.OpIncr: (&protocol.Incr{Key: []byte("k"), Delta: 2}).AppendTo(nil),
	} {
		f, _ := d.callWith(op, x, body)
		want(t, f, protocol.StatusBadRequest)
		if e := decode[protocol.ErrorReply](t, f); !strings.Contains(string(e.Message), "sequence number") {
			t.Errorf("%v: %s", op, e.Message)
		}
	}
	again, _ := d.callWith(protocol.OpIncr, x, incr)
	want(t, again, protocol.StatusOK)
	if string(first.Body) != string(again.Body) {
		t.Errorf("%x, then %x", first.Body, again.Body)
	}
	wantValue(t, d.call(protocol.OpGet, []byte("k")), "1")
}

// TestExtendForwarded sends the new operations through a node that does not
// lead the shard, and asks for an expiry in every way in which one is found.
func TestExtendForwarded(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		for _, copies := range []int{1, 2} { // without a replica at the node asked, and with one
			fc := newFakeCluster(t, cfg, 3, 3, copies)
			n := fc.nodes[2]
			d := n.client()
			key := []byte(fc.key(0, 0))
			tagged := func(name string) []byte { return fmt.Appendf(nil, "%s{%s}", name, key) }
			fc.answer(command.Result{Version: 5, Integer: 7, HasRow: true, RowVersion: 4, RowTTL: 9, Value: []byte("10.6")})
			for _, r := range []struct {
				op    protocol.Opcode
				m     encoder
				reply encoder
			}{
				{protocol.OpAppend, &protocol.Append{Key: key, Value: []byte("v")}, &protocol.IncrReply{Version: 5, Value: 7}},
				{protocol.OpSetRange, &protocol.SetRange{Key: key, Value: []byte("v")}, &protocol.IncrReply{Version: 5, Value: 7}},
				{protocol.OpIncrFloat, &protocol.IncrFloat{Key: key, Increment: []byte("1")}, &protocol.FloatReply{Version: 5, Text: []byte("10.6")}},
				{protocol.OpSetExpiry, &protocol.SetExpiry{Millis: 1, Key: key}, &protocol.WriteReply{
					Version: 5, HasPrevious: true, PreviousVersion: 4, PreviousTTLMillis: 9, PreviousValue: []byte("10.6")}},
				{protocol.OpRename, &protocol.Rename{Source: key, Destination: tagged("to")}, &protocol.WriteReply{
					Version: 5, HasPrevious: true, PreviousVersion: 4, PreviousTTLMillis: 9, PreviousValue: []byte("10.6")}},
			} {
				f, x := d.callWith(r.op, protocol.Extensions{}, r.m.AppendTo(nil))
				want(t, f, protocol.StatusOK)
				if string(f.Body) != string(r.reply.AppendTo(nil)) || x.Leader != 1 {
					t.Errorf("%v: %x, marks %+v", r.op, f.Body, x)
				}
			}
			for s, status := range map[command.Status]protocol.Status{
				command.TooLarge: protocol.StatusTooLarge, command.NotFloat: protocol.StatusNotFloat, command.Busy: protocol.StatusBusy,
			} {
				fc.answer(command.Result{Status: s})
				f := d.ask(protocol.OpAppend, &protocol.Append{Key: key}, status)
				if e := decode[protocol.ErrorReply](t, f); (e.RetryAfterMillis > 0) != status.Retry() {
					t.Errorf("%v: retry after %d ms", status, e.RetryAfterMillis)
				}
			}

			const at = 1 << 45
			for _, node := range []*fakeNode{n, fc.nodes[1]} {
				d := node.client()
				for _, prefix := range []string{"", "cold"} {
					name := append([]byte(prefix), tagged("x")...)
					fc.expire(string(name), at)
					f := d.call(protocol.OpExpiry, name)
					want(t, f, protocol.StatusOK)
					if r := decode[protocol.ExpiryReply](t, f); r.ExpireAtMillis != at || r.Version == 0 {
						t.Errorf("node %d, %s: %+v", node.id, name, r)
					}
					f, _ = d.callWith(protocol.OpExpiry, protocol.Extensions{Consistency: protocol.Stale}, name)
					want(t, f, protocol.StatusOK)
					if r := decode[protocol.ExpiryReply](t, f); r.ExpireAtMillis != at {
						t.Errorf("node %d, %s, stale: %+v", node.id, name, r)
					}
					want(t, d.call(protocol.OpExpiry, append(name, "-absent"...)), protocol.StatusNotFound)
				}
			}
		}
	})
}

// TestWritesAreKnown compares what a BATCH may hold with what counts as a write:
// only of that is the outcome unknown when an answer does not come.
func TestWritesAreKnown(t *testing.T) {
	for o := protocol.Opcode(1); o.Known(); o++ {
		m := protocol.Batch{Ops: protocol.Ops{{Code: o}}}
		reads := o == protocol.OpGet || o == protocol.OpExists || o == protocol.OpExpiry
		inside := !reads && new(protocol.Batch).Decode(m.AppendTo(nil)) == nil
		if want := inside || o == protocol.OpBatch || o == protocol.OpTxn || o == protocol.OpDeleteRange; writes(o) != want {
			t.Errorf("%v counts as a write: %v", o, !want)
		}
	}
}

// TestNumbersThatDoNotFit are left out of the results, as previous rows are.
func TestNumbersThatDoNotFit(t *testing.T) {
	text := []byte(strings.Repeat("9", 4000))
	body := (&protocol.FloatReply{Version: 3, Text: text}).AppendTo(nil)
	short := string((&protocol.FloatReply{Version: 3}).AppendTo(nil))
	if got := withoutRow(protocol.OpIncrFloat, protocol.OpResult{Body: body}).Body; string(got) != short {
		t.Errorf("%d bytes of another node's number are left", len(got))
	}
	g := writeGather{codes: []protocol.Opcode{protocol.OpIncrFloat}, c: &conn{srv: new(Server)}, bodies: make([][]byte, 1), bytes: bodyBytesMax - 100}
	g.keepReply(0, protocol.OpResult{Body: body})
	if got := g.bodies[0][5:]; string(got) != short {
		t.Errorf("another node's: %d bytes", len(got))
	}
	g.bytes = bodyBytesMax - 100
	g.keep(0, &command.Result{Kind: command.IncrFloat, Version: 3, HasRow: true, Value: text})
	if got := g.bodies[0][5:]; string(got) != short {
		t.Errorf("this node's: %d bytes", len(got))
	}
	// What is small is kept whole however full the frame is.
	g.bytes = bodyBytesMax
	n := (&protocol.IncrReply{Version: 3, Value: 1}).AppendTo(nil)
	g.keepReply(0, protocol.OpResult{Body: n})
	if got := g.bodies[0][5:]; string(got) != string(n) {
		t.Errorf("%x, want %x", got, n)
	}
}
