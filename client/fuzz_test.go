package client

import (
	"bytes"
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/proa-kv/proa/protocol"
)

// FuzzReplies feeds arbitrary bytes to a connection that has four requests
// under way. Whatever they are, nothing panics, and when the stream ends every
// call has been answered or has failed.
func FuzzReplies(f *testing.F) {
	row := protocol.RowReply{Version: 1, Value: []byte("v")}
	get := protocol.End(row.AppendTo(protocol.Begin(nil, 0, protocol.FlagReply, 1)), 0)
	write := protocol.WriteReply{Version: 2, HasPrevious: true, PreviousValue: []byte("p")}
	put := protocol.End(write.AppendTo(protocol.Begin(nil, 2, protocol.FlagReply, 2)), 0)
	scan := protocol.ScanReply{Cursor: []byte("c"), Rows: []protocol.ScanRow{{Key: []byte("k")}}}
	part := protocol.End(scan.AppendTo(protocol.Begin(nil, 0, protocol.FlagReply|protocol.FlagMore, 3)), 0)
	last := protocol.End(scan.AppendTo(protocol.Begin(nil, 0, protocol.FlagReply, 3)), 0)
	age := protocol.Extensions{HasAge: true, AgeMillis: 3, Leader: 2}
	extended := protocol.End(row.AppendTo(age.AppendTo(protocol.Begin(nil, 0, protocol.FlagReply|protocol.FlagExtensions, 4))), 0)
	for _, seed := range [][]byte{
		nil, get, put, part, append(part, last...), extended, append(get, put...), get[:10], get[:len(get)-1],
		errorFrameFor(1, protocol.StatusBusy), errorFrameFor(2, protocol.StatusStorageFailed),
		errorFrameFor(0, protocol.StatusGoAway), errorFrameFor(0, protocol.StatusIdle), errorFrameFor(0, protocol.StatusProtocol),
		errorFrameFor(9, protocol.StatusOK), withID(notLeader(2), 1), append(bytes.Clone(extended), withID(notLeader(9), 1)...), errorFrameFor(1, 200), {0xff, 0xff, 0xff, 0xff}, make([]byte, 64),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		c, err := newClient(Config{Endpoints: []string{"fuzz"}, RetryMax: -1, RequestTimeout: -1})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		here, there := net.Pipe()
		drained := make(chan struct{})
		requests := make(chan struct{})
		go func() {
			defer close(drained)
			for range 4 {
				if _, err := readRequest(there); err != nil {
					break
				}
			}
			close(requests)
			io.Copy(io.Discard, there)
		}()
		cn := c.newConn(c.pool.endpoints[0], here, ServerInfo{FrameBytesMax: protocol.FrameBytesMax})
		if err := c.pool.add(cn); err != nil {
			t.Fatal(err)
		}
		ctx := context.Background()
		ops := []Operation{OpGet([]byte("k")), OpPut([]byte("k"), []byte("v"), ReturnPrevious()), {code: protocol.OpScan}, OpIncr([]byte("n"), 1)}
		pending := make([]*call, len(ops))
		for i := range ops {
			ca := c.caller.newCall(ctx, &ops[i])
			start := len(ca.frame)
			ca.frame = ops[i].appendBody(ca.frame)
			ca.keyAt, ca.keyLen = start, 0
			pending[i] = ca
			if err := c.dispatcher.submit(ca); err != nil {
				t.Fatal(err)
			}
		}
		<-requests
		there.SetWriteDeadline(time.Now().Add(90 * time.Second))
		there.Write(stream)
		there.Close()
		<-drained
		<-cn.gone
		c.Close()
		for i, ca := range pending {
			select {
			case <-ca.ready:
				var r Result
				if err := ca.result(&r); err == nil && ca.failure != nil {
					t.Errorf("call %d: neither answer nor failure", i)
				}
			default:
				t.Errorf("call %d was left behind", i)
			}
		}
	})
}

// FuzzAdopt makes whatever a server sends as ROUTES the route table, on top of
// one that is known. It never panics, every slot can be looked up, and every
// leader is one of the nodes.
func FuzzAdopt(f *testing.F) {
	known := protocol.RoutesReply{Epoch: 1, Nodes: []protocol.RouteNode{{ID: 1, Address: []byte("h:1")}, {ID: 2}},
		Shards: []protocol.RouteShard{{ID: 7, Leader: 2, Slots: []protocol.SlotRange{{First: 0, Last: protocol.Slots - 1}}}}}
	for _, seed := range []protocol.RoutesReply{
		{}, known, {Epoch: 9, Nodes: known.Nodes},
		{Epoch: 2, Nodes: known.Nodes[1:], Shards: []protocol.RouteShard{{ID: 7}, {ID: 7, Leader: 3}, {ID: 9, Leader: 2, Slots: known.Shards[0].Slots}}},
	} {
		f.Add(seed.AppendTo(nil))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var m protocol.RoutesReply
		if m.Decode(body) != nil {
			return
		}
		c, err := newClient(Config{Endpoints: []string{"fuzz"}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.router.adopt(&known)
		c.router.adopt(&m)
		table := c.router.table.Load()
		for slot := range uint16(protocol.Slots) {
			if n := table.leader(slot); n != nil && (n.id == 0 || table.nodes[n.id] != n) {
				t.Fatalf("slot %d is led by node %d, which is not in the table", slot, n.id)
			}
		}
		if len(c.pool.nodes) != len(table.nodes) {
			t.Errorf("%d nodes are kept for %d", len(c.pool.nodes), len(table.nodes))
		}
	})
}

func errorFrameFor(id uint64, s Status) []byte {
	return protocol.AppendError(nil, id, s, 5, "message")
}

// readRequest reads one frame of a client.
func readRequest(r io.Reader) (protocol.Frame, error) {
	b := make([]byte, protocol.HeaderBytes)
	if _, err := io.ReadFull(r, b); err != nil {
		return protocol.Frame{}, err
	}
	_, _, need, err := protocol.Next(b, protocol.FrameBytesMax)
	if err != nil {
		return protocol.Frame{}, err
	}
	b = append(b, make([]byte, max(need-len(b), 0))...)
	if _, err := io.ReadFull(r, b[protocol.HeaderBytes:]); err != nil {
		return protocol.Frame{}, err
	}
	f, _, _, err := protocol.Next(b, protocol.FrameBytesMax)
	return f, err
}
