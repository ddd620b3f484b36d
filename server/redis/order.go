package redis

import (
	"math"

	"github.com/bytedance/gopkg/util/xxhash3"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/protocol"
)

// The order of one connection's commands.
//
// A command must see what earlier commands of its connection have written,
// answered or not. order knows, by hash, which keys unanswered commands
// touch. A command that meets one of them goes one of two ways:
//
//   - It waits: the reader stops until the earlier command is answered. So does
//     every write behind a read that is under way, and everything behind a write
//     that another node carries out. What is written to several shards at once
//     goes before what waits in the queue of one of them: it waits for every
//     earlier write of its keys and for every read in the log, and everything
//     later waits for it.
//   - A read goes through the log, behind the write, as an operation that has no
//     effect and is answered as of its place. Its key costs a few bytes of the
//     log; the reader goes on, and the pipeline is one group commit and not one for
//     each pair. Nothing later has to wait for such a read.
//
// What goes through the log is answered when it is applied, wherever the
// connection's output stands by then, so a read goes that way only if its reply
// is known to be small (orderedBytesMax) and counts as in flight by that size.
// Another connection may have made the row larger meanwhile: see conn.rowRoom.

// orderBuckets is how many hashes of keys order distinguishes.
const orderBuckets = 512

// order has the keys that unanswered commands touch, by hash. A collision
// only has a command wait where it need not.
type order [orderBuckets]orderBucket

// orderBucket has the numbers of commands, modulo 2^32, of the keys of one hash.
type orderBucket struct {
	write  uint32 // the last write
	before uint32 // the last write before it of another key
	wait   uint32 // the last one that later writes wait for: a read under way, a write sent to another node or to several shards at once
	tag    uint32 // distinguishes the key of write from others
	bytes  uint32 // what the row of that key has at most, see rowBytes
}

const (
	// orderedBytesMax bounds the rows that one read through the log may yield.
	// A larger reply costs more than the group commit that the read would wait for.
	orderedBytesMax = 1 << 20

	// bytesOnTop in orderBucket.bytes: the row has so many bytes more than is
	// known of it.
	bytesOnTop = 1 << 31
	// bytesUnknown: nothing is known of the row.
	bytesUnknown = math.MaxUint32
)

// hashOfKey returns the bucket of a key, and its tag there.
func hashOfKey(key []byte) (bucket, tag uint32) {
	h := xxhash3.Hash(key)
	return uint32(h) % orderBuckets, uint32(h >> 32)
}

// unanswered returns the number of a command of which the lower half is n, or 0
// if it is answered. What counts lies between head and tail.
func (c *conn) unanswered(n uint32) uint64 {
	head := c.head.Load()
	if behind := uint64(n - uint32(head)); behind < c.tail.Load()-head {
		return head + behind
	}
	return 0
}

// waitsFor returns the command that one of key has to wait for, or 0.
func (c *conn) waitsFor(key []byte, write bool) uint64 {
	last := c.lastWrite
	if write {
		last = c.lastWait
	}
	if last < c.head.Load() || c.order == nil {
		return 0
	}
	bucket, tag := hashOfKey(key)
	b := &c.order[bucket]
	switch {
	case write:
		return c.unanswered(b.wait)
	case b.tag != tag:
		return c.unanswered(b.before)
	}
	return c.unanswered(b.write)
}

// noteWrite remembers that a plan's command writes its keys; remote says that
// another node carries it out.
func (c *conn) noteWrite(number uint64, x *plan, remote bool) {
	made := x.rowBytes()
	for _, key := range x.keys {
		b, tag := c.bucket(key)
		switch {
		case c.unanswered(b.write) == 0:
			b.before, b.bytes = 0, made
		case b.tag != tag:
			b.before, b.bytes = b.write, made
		default:
			b.bytes = laterBytes(b.bytes, made)
		}
		b.write, b.tag = uint32(number), tag
		if remote {
			b.wait = uint32(number)
		}
	}
	c.lastWrite = number
	if remote {
		c.lastWait = number
	}
}

// laterBytes is what a row has at most of which an unanswered write made before,
// after another.
func laterBytes(before, made uint32) uint32 {
	switch {
	case before == bytesUnknown || made == bytesUnknown:
		return bytesUnknown
	case made&bytesOnTop != 0:
		return before + made&^bytesOnTop
	case before&bytesOnTop != 0: // neither may take place
		return max(before, made|bytesOnTop)
	}
	return max(before, made)
}

// rowBytes is what the rows that the plan writes have at most: a number of
// bytes, one with bytesOnTop, or bytesUnknown.
func (x *plan) rowBytes() uint32 {
	switch {
	case x.unbounded:
		return bytesUnknown
	case x.hasPut:
		// It may depend on the row and then not take place.
		if x.put.Flags == 0 {
			return uint32(len(x.put.Value))
		}
		return uint32(len(x.put.Value)) | bytesOnTop
	}
	return uint32(x.requestBytes()) | bytesOnTop
}

// requestBytes is how large the plan's native requests are.
func (x *plan) requestBytes() (n int) {
	if x.hasPut {
		n = len(x.put.Key) + len(x.put.Value)
	}
	for i := range x.ops {
		n += len(x.ops[i].Body)
	}
	return n
}

// mayBeOvertaken reports whether later commands of the same shard may be carried
// out before the plan's: large ones queue by themselves.
func (x *plan) mayBeOvertaken() bool {
	return x.requestBytes()+opBytes*len(x.keys) > overtakenBytes
}

// opBytes is what an operation takes in the log beside its body, at most. Each
// has a key of its own.
const opBytes = 80

// overtakenBytes is well below what makes a command large for the log.
const overtakenBytes = 32 << 10

// noteRead remembers that a command that was not answered at once reads keys.
func (c *conn) noteRead(number uint64, keys [][]byte) {
	for _, key := range keys {
		b, _ := c.bucket(key)
		b.wait = uint32(number)
		c.lastWait = number
	}
}

func (c *conn) bucket(key []byte) (b *orderBucket, tag uint32) {
	if c.order == nil {
		c.order = new(order)
	}
	bucket, tag := hashOfKey(key)
	return &c.order[bucket], tag
}

// mustWait reports whether a command that touches keys has to wait for the
// answers of earlier ones; the reader then stops.
func (p *processor) mustWait(c *conn, keys [][]byte, write bool) bool {
	across := write && p.spans(keys)
	if n := c.lastInOrder; across && n >= c.head.Load() && c.awaitAnswer(n) {
		return true
	}
	for _, key := range keys {
		if n := c.waitsFor(key, write); n != 0 && c.awaitAnswer(n) {
			return true
		}
		if !across {
			continue
		}
		if n := c.waitsFor(key, false); n != 0 && c.awaitAnswer(n) {
			return true
		}
	}
	return false
}

// spans reports whether keys lie in several shards.
func (p *processor) spans(keys [][]byte) bool {
	for i := 1; i < len(keys); i++ {
		if p.l.shardOf(keys[i]) != p.l.shardOf(keys[0]) {
			return true
		}
	}
	return false
}

// meetsWrite reports whether an unanswered command writes one of keys.
func (c *conn) meetsWrite(keys [][]byte) bool {
	for _, key := range keys {
		if c.waitsFor(key, false) != 0 {
			return true
		}
	}
	return false
}

// readsInOrder reports whether a plan that reads can go through the log, and
// then turns it into what does. Every row must be led here, and its size known.
func (p *processor) readsInOrder(c *conn, x *plan) bool {
	bytes, request := 0, 0
	for _, key := range x.keys {
		// What is written behind a large command may be carried out before it.
		if request += len(key) + opBytes; request > overtakenBytes {
			return false
		}
		shard := p.l.shardOf(key)
		if p.l.backend.Leader(shard) != p.l.cfg.Node {
			return false
		}
		n, ok := p.bytesBehind(c, shard, key)
		if bytes += n; !ok || bytes > orderedBytesMax {
			return false
		}
	}
	x.throughLog(bytes)
	return true
}

// bytesBehind is how many bytes the row of key has at most behind the
// connection's unanswered commands, or false where that is not known.
func (p *processor) bytesBehind(r *conn, shard int, key []byte) (n int, ok bool) {
	bucket, tag := hashOfKey(key)
	b := &r.order[bucket]
	onTop := 0
	switch {
	case r.unanswered(b.wait) != 0:
		return 0, false
	case r.unanswered(b.write) == 0:
	case b.tag != tag:
		if r.unanswered(b.before) != 0 {
			return 0, false
		}
	case b.bytes == bytesUnknown:
		return 0, false
	case b.bytes&bytesOnTop == 0:
		return int(b.bytes), true
	default:
		onTop = int(b.bytes &^ bytesOnTop)
	}
	switch row, state := p.l.backend.ReadCached(&p.nothing, shard, key, p.Now(), command.NoValue); state {
	case command.ReadFound:
		return int(row.ValueBytes) + onTop, true
	case command.ReadAbsent:
		return onTop, true
	}
	return 0, false
}

// throughLog makes the plan's reads operations of the log: one by itself,
// several as a BATCH. bytes is what they yield at most.
func (x *plan) throughLog(bytes int) {
	x.inOrder, x.extraBytes = true, bytes
	code := x.ops[0].Code
	if code == protocol.OpMGet {
		code = protocol.OpGet
	} else if len(x.ops) == 1 {
		return
	}
	x.batchOfKeys(code)
}

// batchOfKeys plans nothing but one BATCH of an operation for each key whose body is
// the key.
func (x *plan) batchOfKeys(code protocol.Opcode) {
	x.ops, x.body, x.at = x.ops[:0], x.body[:0], 0
	x.several(code, protocol.BatchNonAtomic, keyBody)
}
