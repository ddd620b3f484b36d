package redis

import (
	"context"
	"sync"
	"time"

	"github.com/proa-kv/proa/command"
)

// keyCounter is how many keys there were when somebody looked last. Nothing counts
// keys as they come and go: a PUT does not know whether its key is there. So a
// goroutine walks over what the replicas here have, when somebody asks for the
// number and the last one is old enough. Who asks gets the last one at once.
type keyCounter struct {
	mu      sync.Mutex
	running bool
	last    keyCount
	next    time.Time // when there may be another
}

// keyCount is the result of a count.
type keyCount struct {
	keys    int64
	expires int64   // of them, those that expire
	ttl     float64 // of these, the mean of the time left, in milliseconds
}

const (
	// A count takes no more than 1/countShare of the time, and there are no
	// more than one in countPause.
	countShare = 50
	countPause = 100 * time.Millisecond

	// countRows are looked at by one scan: what a scan sees stays in memory and
	// on disk while it lasts.
	countRows = 20_000
)

// keyCount returns the latest count of the keys that clients of the Redis protocol
// see here, and has them counted again if it is time to.
func (l *Listener) keyCount() keyCount {
	c := &l.counter
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.running && time.Now().After(c.next) {
		c.running = l.srv.Go(l.recount)
	}
	return c.last
}

func (l *Listener) recount(ctx context.Context) {
	start := time.Now()
	n, ok := l.countKeys(ctx)
	c := &l.counter
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running, c.next = false, time.Now().Add(max(countPause, countShare*time.Since(start)))
	if ok {
		c.last = n
	}
}

// countKeys counts what the replicas here have. Shards without one count as much
// as the others do on average. It returns false where there is nothing to count,
// or ctx has ended.
func (l *Listener) countKeys(ctx context.Context) (keyCount, bool) {
	shards, confined := l.shards()
	if !confined {
		for shard := range l.backend.Shards() {
			shards = append(shards, uint16(shard))
		}
	}
	var n keyCount
	counted := int64(0)
	for _, shard := range shards {
		part, err := l.countShard(ctx, int(shard), countRows)
		if ctx.Err() != nil {
			return keyCount{}, false
		}
		if err == nil {
			counted++
			n.keys, n.expires, n.ttl = n.keys+part.keys, n.expires+part.expires, n.ttl+part.ttl
		}
	}
	if n.expires > 0 {
		n.ttl /= float64(n.expires)
	}
	if of := int64(len(shards)); counted > 0 && counted < of {
		n.keys, n.expires = n.keys*of/counted, n.expires*of/counted
	}
	return n, counted > 0 || len(shards) == 0
}

// countShard counts the keys of a shard, so many with each scan. ttl is a sum.
func (l *Listener) countShard(ctx context.Context, shard, rows int) (n keyCount, err error) {
	scan := command.Scan{Shards: []int{shard}, Local: true, KeysOnly: true}
	for more := true; more && err == nil && ctx.Err() == nil; {
		left := rows
		more = false
		err = l.backend.Scan(&scan, func(key, _ []byte, row command.Row) bool {
			n.keys++
			if row.TTLMillis != 0 {
				n.expires++
				n.ttl += float64(row.TTLMillis)
			}
			if left--; left > 0 {
				return true
			}
			scan.Start = append(append(scan.Start[:0], key...), 0)
			more = true
			return false
		})
	}
	return n, err
}
