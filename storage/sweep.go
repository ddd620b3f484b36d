package storage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/proa-kv/proa/command"
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
	if err != nil {
		return err
	}
	for _, key := range due {
		removed, err := p.sweepRow(key)
		if err != nil {
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
	return p.sweepSessions(retention, limit)
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
	return removed, p.unindex(key, at)
}

// dueExpiries returns the keys of the first limit entries of the expiry index
// that are due, in order, as of this point of the pass: what the batch holds
// counts.
func (p *pass) dueExpiries(limit int) (due [][]byte, err error) {
	pending, err := p.pendingExpiries()
	if err != nil {
		return nil, err
	}
	from := p.store.shards[p.shard].nextExpiry.Load()
	if from <= p.now {
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

// pendingExpiries returns what the batch changes in the part of the index that
// is due: true for an entry it adds, false for one it deletes.
func (p *pass) pendingExpiries() (map[string]bool, error) {
	pending := map[string]bool{}
	if p.batch.Empty() {
		return pending, nil
	}
	prefix := appendPrefix(nil, p.shard, kindExpiry)
	for r := p.batch.Reader(); ; {
		kind, key, _, ok, err := r.Next()
		if err != nil || !ok {
			return pending, err
		}
		if !bytes.HasPrefix(key, prefix) {
			continue
		}
		at, _, err := splitExpiryKey(key)
		if err != nil {
			return nil, err
		}
		if at <= p.now {
			pending[string(key)] = kind == pebble.InternalKeyKindSet
		}
	}
}

// storedExpiries returns up to limit due entries of the database that are not
// in pending.
func (p *pass) storedExpiries(from uint64, limit int, pending map[string]bool) (due [][]byte, err error) {
	it, err := p.store.db.NewIter(&pebble.IterOptions{
		LowerBound: appendExpiryBound(nil, p.shard, from),
		UpperBound: appendExpiryBound(nil, p.shard, p.now+1),
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for it.First(); it.Valid() && len(due) < limit; it.Next() {
		if _, ok := pending[string(it.Key())]; !ok {
			due = append(due, p.bytes.copy(it.Key()))
		}
	}
	return due, it.Error()
}

// sweepSessions forgets sessions unused for retention milliseconds, those
// unused for longest first, until they held limit records.
func (p *pass) sweepSessions(retention uint64, limit int) error {
	if p.now < retention {
		return nil
	}
	x := &p.store.shards[p.shard].sessions
	records := 0
	for _, s := range x.unusedSince(p.now-retention, limit) {
		if records >= limit {
			break
		}
		records += len(s.records)
		if err := p.dropSession(p.shard, s); err != nil {
			return err
		}
	}
	return nil
}
