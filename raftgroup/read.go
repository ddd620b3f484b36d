package raftgroup

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"time"

	"github.com/proa-kv/proa/bufpool"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/engine"
	"github.com/proa-kv/proa/storage"
)

// Shards returns the number of shards, without the meta group.
func (n *Node) Shards() int { return n.meta() }

// ShardOf returns the shard that owns a slot (0..16383): equal, contiguous
// ranges in order.
func (n *Node) ShardOf(slot uint16) int { return int(slot) * n.meta() / slots }

// slotRange returns the first and the last slot of one of the shards.
func slotRange(shard, shards int) (first, last int) {
	// ShardOf(slot) = slot*shards/slots, so shard i begins at the first slot
	// with slot*shards >= i*slots.
	return (shard*slots + shards - 1) / shards, ((shard+1)*slots+shards-1)/shards - 1
}

func slotText(first, last int) string { return fmt.Sprintf("%d-%d", first, last) }

// NowMillis is the cluster's time in Unix milliseconds, for the now of reads.
func (n *Node) NowMillis() uint64 { return n.time.Now() }

// Leader returns the node that leads a shard as far as this one knows, 0 for
// none.
func (n *Node) Leader(shard int) uint64 { return n.views[shard].Leader.Load() }

// Holds reports whether a replica of shard is here.
func (n *Node) Holds(shard int) bool { return n.views[shard].Held.Load() }

// Epoch returns the epoch of the cluster's map.
func (n *Node) Epoch() uint64 {
	if m := n.cmap.Load(); m != nil {
		return m.Epoch
	}
	return 0
}

// Forward opens a stream to another node's server.
func (n *Node) Forward(ctx context.Context, node uint64) (net.Conn, error) {
	return n.transport.Forward(ctx, node)
}

// Revision returns the highest version that the replica here has seen.
func (n *Node) Revision(shard int) uint64 { return n.store.Revision(shard) }

// Age bounds how old what ReadLocal sees may be, in milliseconds: since when
// this replica has not known itself to have applied all that its leader had
// committed. It is false where there is no replica, or it knows of no
// leader yet.
func (n *Node) Age(shard int) (millis uint32, ok bool) {
	v := n.views[shard]
	if v.Lease.Load() == engine.LeaseForever {
		return 0, true
	}
	if !v.Aged.Load() { // most often it is set already, and the cache line stays everybody's
		v.Aged.Store(true)
	}
	fresh := v.Fresh.Load()
	if !v.Held.Load() || fresh == 0 {
		return 0, false
	}
	return uint32(min((n.clock.Boot()-fresh)/int64(time.Millisecond)+1, math.MaxUint32)), true
}

// ReadCached reads a row without touching the disk: it appends the value to
// dst, if it has any that is not longer than valueMax, and returns what is known
// of the row, or ReadMiss. What is in memory has no long values. now is a recent NowMillis. The read is linearizable: without a
// lease it answers ReadNotLeader.
func (n *Node) ReadCached(dst *bufpool.Buffer, shard int, key []byte, now uint64, valueMax int) (command.Row, command.ReadState) {
	v := n.views[shard]
	if v.Lease.Load() == 0 || !n.current(shard) {
		return command.Row{}, n.refuseRead(v)
	}
	start := len(dst.B)
	row, state := n.ReadLocalCached(dst, shard, key, now, valueMax)
	if !v.Leased(n.clock) { // looked at after the value has been read
		dst.B = dst.B[:start]
		return command.Row{}, n.refuseRead(v)
	}
	return row, state
}

// current reports whether the leader here has applied all that another replica
// may have: entries are committed by any majority of fsyncs, so followers may
// have applied, and shown to somebody, what this node has not got on its own
// disk yet. A read has to look at it before it looks at the value; until it is
// true again reads wait for a read index.
func (n *Node) current(shard int) bool {
	announced := n.views[shard].Announced.Load()
	return n.store.Applied(shard) >= announced
}

// Read is ReadCached for threads that may wait for the disk.
func (n *Node) Read(dst *bufpool.Buffer, shard int, key []byte, now uint64, valueMax int) (command.Row, command.ReadState) {
	v := n.views[shard]
	if v.Lease.Load() == 0 || !n.current(shard) {
		return command.Row{}, n.refuseRead(v)
	}
	start := len(dst.B)
	row, state := n.ReadLocal(dst, shard, key, now, valueMax)
	if !v.Leased(n.clock) {
		dst.B = dst.B[:start]
		return command.Row{}, n.refuseRead(v)
	}
	return row, state
}

// ReadLocalCached is ReadLocal without touching the disk; see ReadMiss.
func (n *Node) ReadLocalCached(dst *bufpool.Buffer, shard int, key []byte, now uint64, valueMax int) (command.Row, command.ReadState) {
	v := n.views[shard]
	if !v.Held.Load() {
		return command.Row{}, n.refuseRead(v)
	}
	return n.store.AppendCached(dst, shard, key, v.Now(now), valueMax >= 0)
}

// ReadLocal reads what the replica here has: after a read index, or where any age
// will do. Without a replica it answers ReadNotLeader. It may wait for the
// disk.
func (n *Node) ReadLocal(dst *bufpool.Buffer, shard int, key []byte, now uint64, valueMax int) (command.Row, command.ReadState) {
	v := n.views[shard]
	if !v.Held.Load() {
		return command.Row{}, n.refuseRead(v)
	}
	row, found, err := n.store.Append(dst, shard, key, v.Now(now), valueMax)
	switch {
	case errors.Is(err, storage.ErrDamaged):
		return command.Row{}, n.refuseDamaged(shard)
	case err != nil:
		n.logger.Error("cannot read a row", "shard", shard, "error", err)
		return command.Row{}, command.ReadFailed
	case !found:
		return command.Row{}, command.ReadAbsent
	}
	return row, command.ReadFound
}

// refuseRead is why a replica is not read.
func (n *Node) refuseRead(v *engine.View) command.ReadState {
	switch {
	case n.state.Is(engine.Failed):
		return command.ReadFailed
	case v.Broken.Load() && v.Sole.Load():
		return command.ReadDamaged
	}
	return command.ReadNotLeader
}

// Scan visits the rows of a range in key order over the shards asked for, as of
// one moment, until visit returns false. Key and value are views, valid during
// the call of visit. It may wait for the disk. Unless the scan is Local this
// node must have leases for all its shards: ErrNotLeader otherwise, and before
// visit has been called.
func (n *Node) Scan(s *command.Scan, visit func(key, value []byte, row command.Row) bool) error {
	now := n.time.Now()
	o := storage.ScanOptions{Start: s.Start, End: s.End, Reverse: s.Reverse, KeysOnly: s.KeysOnly, NowMillis: now, Shards: s.Shards}
	if o.Shards == nil {
		for shard := range n.meta() {
			o.Shards = append(o.Shards, shard)
		}
	}
	for _, shard := range o.Shards {
		v := n.views[shard]
		switch {
		case n.state.Is(engine.Failed):
			return command.ErrFailed
		case v.Broken.Load() && v.Sole.Load():
			return command.ErrDamaged
		case !v.Held.Load(), !s.Local && (v.Lease.Load() == 0 || !n.current(shard)):
			return command.ErrNotLeader
		}
		o.NowMillis = max(o.NowMillis, v.Now(now))
	}
	if !s.Local {
		o.Opened = func() error { // the state is fixed: were the leases good until then?
			for _, shard := range o.Shards {
				if !n.views[shard].Leased(n.clock) {
					return command.ErrNotLeader
				}
			}
			return nil
		}
	}
	err := n.store.Scan(o, visit)
	var damage *storage.DamageError
	if !errors.As(err, &damage) {
		return err
	}
	if n.refuseDamaged(damage.Shard) == command.ReadDamaged {
		return command.ErrDamaged
	}
	return command.ErrNotLeader
}

// refuseDamaged turns the failure of a read for damage into what the reader has to
// do. For any thread.
func (n *Node) refuseDamaged(shard int) command.ReadState {
	v := n.views[shard]
	if v.Sole.Load() {
		return command.ReadDamaged
	}
	v.Condemn()
	n.engine.Post(func() { n.engine.BreakDown(shard) })
	return command.ReadNotLeader
}
