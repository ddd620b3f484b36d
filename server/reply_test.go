package server

import (
	"testing"

	"github.com/proa-kv/proa/bufpool"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/protocol"
)

// TestExpiryOfALaterRead: a shard's time may be ahead of the one that a read was asked for
// at, as after a change of the leader. The row expires when it does.
func TestExpiryOfALaterRead(t *testing.T) {
	const now, shardTime, expireAt = 1000, 2500, 7000
	read := func(_ *bufpool.Buffer, _ int, _ []byte, at uint64, _ int) (command.Row, command.ReadState) {
		return command.Row{Version: 3, TTLMillis: expireAt - max(at, shardTime), ExpireAtMillis: expireAt}, command.ReadFound
	}
	for op, want := range map[protocol.Opcode]uint64{protocol.OpExpiry: expireAt, protocol.OpExists: expireAt - shardTime} {
		out := bufpool.Get(0)
		defer out.Release()
		appendRow(out, 1, op, new(protocol.Extensions), read, 0, []byte("k"), now, command.AnyValue)
		f, _, _, err := protocol.Next(out.B, uint32(len(out.B)))
		if err != nil {
			t.Fatal(err)
		}
		var m protocol.ExpiryReply // EXISTS has its time to live in the same place
		if err := m.Decode(f.Body); err != nil || m != (protocol.ExpiryReply{Version: 3, ExpireAtMillis: want}) {
			t.Errorf("%v: %+v, %v, want %d", op, m, err, want)
		}
	}
}
