package server

import (
	"context"
	"net"

	"github.com/proa-kv/proa/bufpool"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup"
)

// single is a real node that knows no other: what a cluster adds to Backend
// is answered as the leader and only voter of every shard would.
type single struct{ *raftgroup.Node }

func (single) ReadIndex(_ int, done command.Completer, tag command.Tag) error {
	done.Complete(tag, command.Applied, nil)
	return nil
}

func (s single) ReadLocal(dst *bufpool.Buffer, shard int, key []byte, now uint64, valueMax int) (command.Row, command.ReadState) {
	return s.Node.Read(dst, shard, key, now, valueMax)
}

func (s single) ReadLocalCached(dst *bufpool.Buffer, shard int, key []byte, now uint64, valueMax int) (command.Row, command.ReadState) {
	return s.Node.ReadCached(dst, shard, key, now, valueMax)
}

func (single) Age(int) (uint32, bool) { return 0, true }
func (single) Revision(int) uint64    { return 1 << 62 }
func (single) Leader(int) uint64      { return 1 }
func (single) Holds(int) bool         { return true }
func (single) Epoch() uint64          { return 1 }

func (single) Forward(context.Context, uint64) (net.Conn, error) { return nil, command.ErrStopped }

func (single) Admin(context.Context, string, []byte) ([]byte, error) {
	return nil, command.ErrInvalid
}
