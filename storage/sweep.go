package storage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/storage/memtable"
)

func splitExpiryKey(key []byte) (at uint64, row []byte, err error) {
	if len(key) <= expiryKeyBytes {
		return 0, nil, fmt.Errorf("%w: expiry index key of %d bytes", ErrCorrupt, len(key))
	}
	return binary.BigEndian.Uint64(key[prefixBytes:]), key[expiryKeyBytes:], nil
}

// sweep removes rows that have expired and sessions long unused. It handles at
// most Limit entries of the expiry index, the earliest first, those that
// overwritten rows left behind included: they cost as much as the others. The
// sessions it forgets may hold Limit records, and one session more.
func (p *pass) sweep(c *command.Command, out *command.Result) error {
	limit := int(min(c.Limit, math.MaxInt32))
	if limit == 0 {
		return nil
	}
	due, err := p.dueExpiries(limit)
	if err != nil && !p.tolerates(err) {
		return err
	}
	for _, key := range due {
		removed, err := p.sweepRow(key)
		if err != nil && !p.tolerates(err) {
			return err
		}
		if removed {
			out.Integer++
		}
	}
	p.state.swept = true
	p.state.sweptTo = p.now + 1
	if len(due) == limit {
		p.state.sweptTo, _, _ = splitExpiryKey(due[limit-1])
	}
	retention := c.TTLMillis
	if retention == 0 {
		retention = p.store.retentionMillis()
	}
	p.sweepSessions(retention, limit)
	return nil
}

// sweepRow acts on an entry of the expiry index.
func (p *pass) sweepRow(indexKey []byte) (removed bool, err error) {
	at, key, err := splitExpiryKey(indexKey)
	if err != nil {
		return false, err
	}
	r := p.find(key)
	if err := p.load(r, false); err != nil {
		return false, err
	}
	if r.exists && r.expireAt == at {
		p.remove(r)
		removed = true
	}
	p.unindex(key, at)
	return removed, nil
}

// dueExpiries returns the keys of the first limit entries of the expiry index
// that are due, in order, as of this point of the pass.
func (p *pass) dueExpiries(limit int) (due [][]byte, err error) {
	pending := p.pendingExpiries()
	from := p.store.shards[p.shard].nextExpiry.Load()
	if from <= p.now && !p.state.emptied {
		if due, err = p.storedExpiries(from, limit, pending); err != nil {
			return nil, err
		}
	}
	for key, set := range pending {
		if set {
			due = append(due, []byte(key))
		}
	}
	slices.SortFunc(due, bytes.Compare)
	return due[:min(limit, len(due))], nil
}

// pendingExpiries returns what the pass changes in the part of the index that
// is due: true for an entry it adds, false for one it deletes.
func (p *pass) pendingExpiries() map[string]bool {
	pending := map[string]bool{}
	due := appendExpiryBound(nil, p.shard, p.now+1)
	prefix := due[:prefixBytes]
	for i := range p.staged {
		r := &p.staged[i]
		if r.list == memtable.Expiries && bytes.HasPrefix(r.key, prefix) && bytes.Compare(r.key, due) < 0 {
			pending[string(r.key)] = !r.deleted
		}
	}
	return pending
}

// storedExpiries returns up to limit due entries of the database that are not
// in pending.
func (p *pass) storedExpiries(from uint64, limit int, pending map[string]bool) (due [][]byte, err error) {
	tables := p.store.memtables.pin()
	defer p.store.memtables.unpin(tables)
	c, err := p.store.expiryCursor(tables, p.shard, from, p.now+1)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	for there := c.first(); there && len(due) < limit; there = c.next() {
		if _, ok := pending[string(c.key)]; !ok {
			due = append(due, p.bytes.copy(c.key))
		}
	}
	return due, c.err
}

// sweepSessions forgets sessions unused for retention milliseconds, those
// unused for longest first, until they held limit records.
func (p *pass) sweepSessions(retention uint64, limit int) {
	if p.now < retention {
		return
	}
	x := &p.store.shards[p.shard].sessions
	records := 0
	for _, s := range x.unusedSince(p.now-retention, limit) {
		if records >= limit {
			break
		}
		records += len(s.records)
		p.dropSession(p.shard, s)
	}
}
