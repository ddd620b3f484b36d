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
func (ex *executor) sweep(c *command.Command, out *command.Result) error {
	limit := int(min(c.Limit, math.MaxInt32))
	if limit == 0 {
		return nil
	}
	due, err := ex.dueExpiries(limit)
	if err != nil && !ex.tolerates(err) {
		return err
	}
	for _, key := range due {
		removed, err := ex.sweepRow(key)
		if err != nil && !ex.tolerates(err) {
			return err
		}
		if removed {
			out.Integer++
		}
	}
	ex.state.swept = true
	ex.state.sweptTo = ex.now + 1
	if len(due) == limit {
		ex.state.sweptTo, _, _ = splitExpiryKey(due[limit-1])
	}
	retention := c.TTLMillis
	if retention == 0 {
		retention = ex.store.opts.retentionMillis()
	}
	ex.sweepSessions(retention, limit)
	return nil
}

// sweepRow acts on an entry of the expiry index.
func (ex *executor) sweepRow(indexKey []byte) (removed bool, err error) {
	at, key, err := splitExpiryKey(indexKey)
	if err != nil {
		return false, err
	}
	r := ex.find(key)
	if err := ex.load(r, false); err != nil {
		return false, err
	}
	if r.exists && r.expireAt == at {
		ex.removeRow(r)
		removed = true
	}
	ex.stageDeletion(memtable.Expiries, indexKey)
	return removed, nil
}

// dueExpiries returns the keys of the first limit entries of the expiry index
// that are due, in order, as of this point of the write batch.
func (ex *executor) dueExpiries(limit int) (due [][]byte, err error) {
	pending := ex.pendingExpiries()
	from := ex.store.shards[ex.shard].nextExpiry.Load()
	if from <= ex.now && !ex.state.emptied {
		if due, err = ex.storedExpiries(from, limit, pending); err != nil {
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

// pendingExpiries returns what the write batch changes in the part of the index that
// is due: true for an entry it adds, false for one it deletes.
func (ex *executor) pendingExpiries() map[string]bool {
	pending := map[string]bool{}
	due := appendExpiryBound(nil, ex.shard, ex.now+1)
	prefix := due[:prefixBytes]
	for i := range ex.staged {
		r := &ex.staged[i]
		if r.list == memtable.Expiries && bytes.HasPrefix(r.key, prefix) && bytes.Compare(r.key, due) < 0 {
			pending[string(r.key)] = !r.deleted
		}
	}
	return pending
}

// storedExpiries returns up to limit due entries of the database that are not
// in pending.
func (ex *executor) storedExpiries(from uint64, limit int, pending map[string]bool) (due [][]byte, err error) {
	tables := ex.store.memtables.pin()
	defer ex.store.memtables.unpin(tables)
	c, err := expiryCursor(ex.store.db, tables, ex.shard, from, ex.now+1)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	for there := c.first(); there && len(due) < limit; there = c.next() {
		if _, ok := pending[string(c.key)]; !ok {
			due = append(due, ex.bytes.copy(c.key))
		}
	}
	return due, c.err
}

// sweepSessions forgets sessions unused for retention milliseconds, those
// unused for longest first, until they held limit records.
func (ex *executor) sweepSessions(retention uint64, limit int) {
	if ex.now < retention {
		return
	}
	x := &ex.store.shards[ex.shard].sessions
	records := 0
	for _, s := range x.unusedSince(ex.now-retention, limit) {
		if records >= limit {
			break
		}
		records += len(s.records)
		ex.dropSession(ex.shard, s)
	}
}
