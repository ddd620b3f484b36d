// Package ledger keeps what a load knows of what it has written, to tell lost
// and stale values: each key has one writer, which writes growing numbers to it.
// A key must hold the number that was acknowledged last or one sent later.
package ledger

import (
	"bytes"
	"context"
	"fmt"
	"strconv"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/protocol"
)

// NumberBytes is the length of the longest number in decimal.
const NumberBytes = 20

// Record is what is known of a key. It belongs to the key's writer.
type Record struct {
	Key   []byte
	Acked uint64 // the newest number that was acknowledged, 0 for none
	Tried uint64 // the newest number that was sent
}

// Next fills value with the next number to send, behind which stand blanks. The
// value must be NumberBytes long at least.
func (r *Record) Next(value []byte) {
	r.Tried++
	number := strconv.AppendUint(value[:0], r.Tried, 10)
	for i := len(number); i < len(value); i++ {
		value[i] = ' '
	}
}

// Acknowledge notes that the number sent last was acknowledged.
func (r *Record) Acknowledge() { r.Acked = r.Tried }

// Replaced notes that the number sent last was acknowledged, and that it replaced
// a value. It reports whether that shows that the key had lost a write.
func (r *Record) Replaced(value []byte, found bool) (lost bool) {
	before := Record{Acked: r.Acked, Tried: r.Tried - 1}
	r.Acknowledge()
	return !before.Allows(value, found)
}

// Allows reports whether the key may hold a value, or, if it was not found, none.
func (r *Record) Allows(value []byte, found bool) bool {
	if !found {
		return r.Acked == 0
	}
	n, err := strconv.ParseUint(string(bytes.TrimRight(value, " ")), 10, 64)
	return err == nil && n >= r.Acked && n <= r.Tried
}

// Missing reads keys back and returns how many hold what they may not.
func Missing(ctx context.Context, records []*Record, get func(ctx context.Context, key []byte) (value []byte, found bool, err error)) (missing int, err error) {
	for _, r := range records {
		value, found, err := get(ctx, r.Key)
		if err != nil {
			return missing, fmt.Errorf("reading the keys back: %w", err)
		}
		if !r.Allows(value, found) {
			missing++
		}
	}
	return missing, nil
}

// tagsTriesMax is how many hash tags are tried before a shard counts as one that
// no key belongs to. Of 16,384 slots each is hit once in as many tries.
const tagsTriesMax = 1 << 20

// Tags finds a hash tag for each shard, by its number: keys with the tag belong
// to the shard.
func Tags(shards []client.Shard) (map[uint16]string, error) {
	owner := map[uint16]uint16{} // by slot
	for _, s := range shards {
		for _, r := range s.Slots {
			for slot := int(r.First); slot <= int(r.Last); slot++ {
				owner[uint16(slot)] = s.ID
			}
		}
	}
	tags := map[uint16]string{}
	for i := 0; len(tags) < len(shards); i++ {
		if i == tagsTriesMax {
			return nil, fmt.Errorf("keys belong to %d of %d shards only", len(tags), len(shards))
		}
		tag := strconv.Itoa(i)
		shard, owned := owner[protocol.Slot([]byte(tag))]
		if _, known := tags[shard]; owned && !known {
			tags[shard] = tag
		}
	}
	return tags, nil
}
