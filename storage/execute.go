package storage

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"strconv"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/storage/memtable"
)

// executor executes the commands of entries, one after the other. What they change
// is in its write batch alone.
type executor struct {
	*writeBatch
	undo    undo
	command command.Command

	// Of the entry at hand.
	alone  bool
	shard  int
	state  *shardChanges
	now    uint64
	digest uint64 // of the command at hand, if it has a session
	joint  bool   // within a command of several operations
	counts bool   // Gets count among what the entry makes
	entry  uint32 // its number among those of the write batch that have commands, from 1
	grown  int    // bytes that its commands have read and made, see growthBytesMax
}

func (ex *executor) runEntry(e *Entry) error {
	r, err := command.NewReader(e.Data)
	if err != nil {
		return err
	}
	ex.shard, ex.state, ex.alone = e.Shard, &ex.shards[e.Shard], e.Alone
	ex.entry++
	ex.grown = 0
	ex.state.stamp = max(ex.state.stamp, r.StampMillis) // time of a shard never goes back
	ex.now = ex.state.stamp
	for {
		more, err := r.Next(&ex.command)
		if err != nil || !more {
			return err
		}
		if ex.command.Session.ID != 0 {
			ex.digest = r.Digest()
		}
		ex.results = append(ex.results, command.Result{})
		if err := ex.executeOnce(&ex.command, &ex.results[len(ex.results)-1]); err != nil {
			return err
		}
	}
}

// executeOnce executes c, unless its session says that it was carried out before.
func (ex *executor) executeOnce(c *command.Command, out *command.Result) error {
	if c.Session.ID == 0 {
		return ex.execute(c, out)
	}
	done, err := ex.replay(ex.shard, c, out)
	if ex.tolerates(err) {
		out.Kind, out.Status = c.Kind, command.SessionExpired // it was carried out; how that went cannot be read
		return nil
	}
	if done || err != nil {
		return err
	}
	if err := ex.execute(c, out); err != nil {
		return err
	}
	if out.Status != command.Busy && out.Status != command.Damaged { // or a retry would get the same answer
		ex.remember(ex.shard, c, out)
	}
	return nil
}

// execute executes c, or answers that it cannot be done because of damage. All
// commands look at the rows they need before they change one.
func (ex *executor) execute(c *command.Command, out *command.Result) error {
	err := ex.dispatch(c, out)
	if ex.tolerates(err) {
		*out = command.Result{Kind: c.Kind, Status: command.Damaged}
		return nil
	}
	return err
}

// tolerates reports whether err is of damage, and the entry is one that goes on
// all the same.
func (ex *executor) tolerates(err error) bool {
	if err == nil || !ex.alone || !isDamage(err) {
		return false
	}
	_ = ex.store.damaged(ex.shard, err)
	return true
}

func (ex *executor) dispatch(c *command.Command, out *command.Result) error {
	out.Kind = c.Kind
	switch c.Kind {
	case command.Put:
		return ex.put(c, out)
	case command.Delete:
		return ex.delete(c, out)
	case command.Incr:
		return ex.incr(c, out)
	case command.Expire:
		return ex.setExpiry(c.Key, expiryAfter(ex.now, c.TTLMillis), out)
	case command.Persist:
		return ex.setExpiry(c.Key, 0, out)
	case command.Append:
		return ex.append(c, out)
	case command.SetRange:
		return ex.setRange(c, out)
	case command.IncrFloat:
		return ex.incrFloat(c, out)
	case command.SetExpiry:
		return ex.changeExpiry(c, out)
	case command.Rename:
		return ex.rename(c, out)
	case command.Watch:
		return ex.watch(c, out)
	case command.Get, command.Exists, command.Expiry:
		return ex.get(c, out)
	case command.GetRange:
		return ex.getRange(c, out)
	case command.Batch:
		ex.counts = c.Flags&command.Counted != 0
		defer func() { ex.counts = false }()
		return ex.all(c, c.Ops, out)
	case command.Txn:
		return ex.txn(c, out)
	case command.DeleteRange:
		ex.deleteRange(c, out)
		return nil
	case command.Sweep:
		return ex.sweep(c, out)
	case command.Mark:
		return nil
	}
	return fmt.Errorf("%w: kind %d", command.ErrMalformed, c.Kind)
}

// readingFlags are the options of Put that depend on the row there is. A Put
// without them reads nothing.
const readingFlags = command.KeepTTL | command.IfAbsent | command.IfPresent | command.IfVersion | command.ReturnPrevious

func (ex *executor) put(c *command.Command, out *command.Result) error {
	r := ex.find(c.Key)
	var expireAt, indexed uint64
	if c.Flags&readingFlags != 0 {
		if err := ex.load(r, c.Flags&command.ReturnPrevious != 0); err != nil {
			return err
		}
		if ex.refuses(r, c, out) {
			return nil
		}
		if c.Flags&command.KeepTTL != 0 {
			expireAt = r.expiry(ex.now)
		}
		indexed = r.indexed()
	}
	switch {
	case c.Flags&command.SetExpireAt != 0:
		if expireAt = min(c.TTLMillis, math.MaxInt64); expireAt <= ex.now {
			return ex.deleteRow(r, out)
		}
	case c.Flags&command.SetTTL != 0:
		expireAt = expiryAfter(ex.now, c.TTLMillis)
	}
	ex.write(r, c.Value, expireAt)
	ex.reindex(r.key, indexed, expireAt)
	out.Version = r.version
	return nil
}

// deleteRow deletes r: for a Delete, and for a write after which the row would have
// expired already.
func (ex *executor) deleteRow(r *row, out *command.Result) error {
	if err := ex.load(r, false); err != nil {
		return err
	}
	ex.state.revision++
	out.Version = ex.state.revision
	if r.exists {
		ex.remove(r)
	} else {
		ex.went(r.hash)
	}
	return nil
}

func (ex *executor) delete(c *command.Command, out *command.Result) error {
	r := ex.find(c.Key)
	if err := ex.load(r, c.Flags&command.ReturnPrevious != 0); err != nil {
		return err
	}
	if ex.refuses(r, c, out) {
		return nil
	}
	if !r.visible(ex.now) {
		out.Status = command.NotFound
		return nil
	}
	return ex.deleteRow(r, out)
}

func (ex *executor) incr(c *command.Command, out *command.Result) error {
	r := ex.find(c.Key)
	if err := ex.load(r, true); err != nil {
		return err
	}
	var value int64
	if r.visible(ex.now) {
		out.Version = r.version
		var ok bool
		if value, ok = parseInteger(r.value); !ok {
			out.Status = command.NotInteger
			return nil
		}
	}
	sum := value + c.Delta
	if (c.Delta > 0) != (sum > value) && c.Delta != 0 {
		out.Status = command.Overflow
		return nil
	}
	ex.replace(r, strconv.AppendInt(ex.bytes.alloc(integerBytesMax)[:0], sum, 10), r.expiry(ex.now))
	out.Version, out.Integer = r.version, sum
	return nil
}

func (ex *executor) setExpiry(key []byte, expireAt uint64, out *command.Result) error {
	r := ex.find(key)
	if err := ex.load(r, true); err != nil {
		return err
	}
	if !r.visible(ex.now) {
		out.Status = command.NotFound
		return nil
	}
	if expireAt == 0 && r.expireAt == 0 {
		out.Version = r.version
		return nil
	}
	ex.replace(r, r.value, expireAt)
	out.Version = r.version
	return nil
}

// changeExpiry carries out a SetExpiry.
func (ex *executor) changeExpiry(c *command.Command, out *command.Result) error {
	r, ok, err := ex.takeVisible(c.Key, out)
	if !ok {
		return err
	}
	if c.Flags&command.ExpiryReturnRow != 0 {
		r.show(out, ex.now, true)
	}
	expireAt := newExpiry(c, ex.now)
	if !mayExpire(c.Flags, r.expireAt, expireAt) {
		out.Status = command.ConditionFailed
		return nil
	}
	switch {
	case expireAt == never && r.expireAt == 0:
		return nil
	case expireAt <= ex.now:
		return ex.deleteRow(r, out)
	case expireAt == never:
		expireAt = 0
	}
	ex.replace(r, r.value, expireAt)
	out.Version = r.version
	return nil
}

// newExpiry is when the row must expire after a SetExpiry, never for "not at all".
func newExpiry(c *command.Command, now uint64) uint64 {
	switch {
	case c.Flags&command.ExpiryRemove != 0:
		return never
	case c.Flags&command.ExpiryAt != 0:
		return min(c.TTLMillis, math.MaxInt64)
	}
	return expiryAfter(now, c.TTLMillis)
}

// expiryAfter is the time at which ttl, counted from now, is over. A ttl of 0 counts
// as one millisecond, and a sum past the end of time as it.
func expiryAfter(now, ttl uint64) uint64 {
	ttl = max(ttl, 1)
	if ttl > math.MaxInt64-now {
		return math.MaxInt64
	}
	return now + ttl
}

// mayExpire reports whether the conditions of a SetExpiry allow a row that
// expires at before (0: not at all) to expire at after (never: not at all).
func mayExpire(flags command.Flags, before, after uint64) bool {
	if before == 0 {
		before = never
	}
	return (flags&command.ExpiryIfNone == 0 || before == never) &&
		(flags&command.ExpiryIfSome == 0 || before != never) &&
		(flags&command.ExpiryIfLater == 0 || after > before) &&
		(flags&command.ExpiryIfEarlier == 0 || after < before)
}

func (ex *executor) get(c *command.Command, out *command.Result) error {
	withValue := c.Kind == command.Get
	if withValue && c.Flags&command.Counted != 0 && !ex.counts {
		ex.counts = true
		defer func() { ex.counts = false }()
	}
	r, ok, err := ex.readRow(c.Key, withValue, out)
	if !ok {
		return err
	}
	if !r.visible(ex.now) {
		out.Status = command.NotFound
		return nil
	}
	out.Version = r.version
	if c.Kind == command.Expiry {
		out.Integer = int64(r.expireAt)
		return nil
	}
	r.show(out, ex.now, withValue)
	return nil
}

// getRange carries out a GetRange.
func (ex *executor) getRange(c *command.Command, out *command.Result) error {
	r, ok, err := ex.takeVisible(c.Key, out)
	if !ok {
		return err
	}
	out.Version, out.Integer = r.version, int64(len(r.value))
	r.show(out, ex.now, false)
	out.Value = command.Cut(r.value, c.Delta, c.Until)
	return nil
}

// readRow loads the row of key. A value counts among what the entry makes, see
// takeRow, where it is to.
func (ex *executor) readRow(key []byte, withValue bool, out *command.Result) (r *row, ok bool, err error) {
	if withValue && ex.counts {
		return ex.takeRow(key, out)
	}
	r = ex.find(key)
	err = ex.load(r, withValue)
	return r, err == nil, err
}

// all carries out ops of c; the failure of one does not touch the others.
func (ex *executor) all(c *command.Command, ops []command.Command, out *command.Result) error {
	ex.joint = len(ops) > 1 || c.Flags&command.Part != 0
	defer func() { ex.joint = false }()
	out.Results = ex.allocResults(len(ops))
	for i := range ops {
		if err := ex.execute(&ops[i], &out.Results[i]); err != nil {
			return err
		}
	}
	return nil
}

func (ex *executor) txn(c *command.Command, out *command.Result) error {
	run := func(ops []command.Command) error { return ex.all(c, ops, out) }
	if ex.counts = c.Flags&command.Whole != 0; ex.counts {
		run = func(ops []command.Command) error { return ex.whole(ops, out) }
	}
	defer func() { ex.counts = false }()
	if c.Flags&command.Refuted != 0 {
		return ex.all(c, c.Else, out)
	}
	for i := range c.Compares {
		holds, err := ex.compare(&c.Compares[i])
		if err != nil {
			return err
		}
		if !holds {
			return run(c.Else)
		}
	}
	out.Succeeded = true
	return run(c.Ops)
}

func (ex *executor) compare(x *command.Compare) (bool, error) {
	if x.Target == command.OnAbsence {
		holds, err := ex.absentSince(x.Key, x.Version)
		return holds == (x.Relation == command.Equal), err
	}
	r := ex.find(x.Key)
	if err := ex.load(r, x.Target == command.OnValue); err != nil {
		return false, err
	}
	var order int
	switch visible := r.visible(ex.now); {
	case x.Target != command.OnValue && visible:
		order = cmp.Compare(r.version, x.Version)
	case x.Target != command.OnValue:
		order = cmp.Compare(0, x.Version)
	case !visible:
		return false, nil
	default:
		order = bytes.Compare(r.value, x.Value)
	}
	switch x.Relation {
	case command.Equal:
		return order == 0, nil
	case command.NotEqual:
		return order != 0, nil
	case command.Less:
		return order < 0, nil
	default:
		return order > 0, nil
	}
}

// refuses checks the conditions of a Put or Delete on the loaded row r, and
// fills out if one fails. Where the previous row is wanted it shows it in
// either case.
func (ex *executor) refuses(r *row, c *command.Command, out *command.Result) bool {
	there := r.visible(ex.now)
	var version uint64
	if there {
		version = r.version
		if c.Flags&command.ReturnPrevious != 0 {
			r.show(out, ex.now, true)
		}
	}
	if c.Flags&command.IfAbsent != 0 && there ||
		c.Flags&command.IfPresent != 0 && !there ||
		c.Flags&command.IfVersion != 0 && c.Version != version {
		out.Status = command.ConditionFailed
		out.Version = version
		return true
	}
	return false
}

func (ex *executor) find(key []byte) *row {
	return ex.rows.find(uint16(ex.shard), key, hashKey(ex.shard, key))
}

// write makes value the row's new state, with the next version.
func (ex *executor) write(r *row, value []byte, expireAt uint64) {
	ex.undo.keep(r)
	ex.state.revision++
	r.value, r.version, r.expireAt = value, ex.state.revision, expireAt
	r.loaded, r.exists, r.hasValue, r.dirty = true, true, true, true
	r.joint = r.joint || ex.joint
}

// replace is write for a loaded row: the expiry index follows.
func (ex *executor) replace(r *row, value []byte, expireAt uint64) {
	indexed := r.indexed()
	ex.write(r, value, expireAt)
	ex.reindex(r.key, indexed, expireAt)
}

// remove removes the loaded row r, if it exists, and what the expiry index has of it.
func (ex *executor) remove(r *row) {
	indexed := r.indexed()
	ex.removeRow(r)
	ex.reindex(r.key, indexed, 0)
}

func (ex *executor) removeRow(r *row) {
	ex.undo.keep(r)
	ex.went(r.hash)
	r.value, r.version, r.expireAt = nil, 0, 0
	r.exists, r.hasValue, r.dirty = false, false, true
	r.joint = r.joint || ex.joint
}

// reindex keeps the expiry index: before is the expiry under which the row is
// known to be indexed, after the one it has now, 0 for none. A plain Put knows
// no before; the entry it leaves behind is dropped by the Sweep that meets it.
// What is written here may depend on the command and on the row, never on how
// the row was found: Sweep counts the entries.
func (ex *executor) reindex(key []byte, before, after uint64) {
	if before == after {
		return
	}
	if before != 0 {
		ex.stageDeletion(memtable.Expiries, ex.bytes.expiryKey(ex.shard, before, key))
	}
	if after == 0 {
		return
	}
	ex.state.newExpiry = min(ex.state.newExpiry, after)
	ex.stage(memtable.Expiries, ex.bytes.expiryKey(ex.shard, after, key), nil)
}

// expiryKey returns a key of the expiry index as bytes of the arena.
func (a *arena) expiryKey(shard int, at uint64, key []byte) []byte {
	b := a.alloc(expiryKeyBytes + len(key))
	putPrefix(b, shard, kindExpiry)
	binary.BigEndian.PutUint64(b[prefixBytes:], at)
	copy(b[expiryKeyBytes:], key)
	return b
}

// integerBytesMax is the length of the smallest int64 in decimal.
const integerBytesMax = len("-9223372036854775808")

// parseInteger reads the one spelling that Incr writes: an optional minus, no
// leading zeros, no minus zero, within int64.
func parseInteger(b []byte) (int64, bool) {
	digits := b
	negative := len(b) > 0 && b[0] == '-'
	if negative {
		digits = b[1:]
	}
	if len(digits) == 0 || len(b) > integerBytesMax || digits[0] == '0' && len(b) > 1 {
		return 0, false
	}
	var n uint64
	for _, c := range digits {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + uint64(c-'0') // 19 digits at most (20 without a minus fit too)
	}
	switch {
	case negative && n <= 1<<63:
		return -int64(n), true
	case !negative && n < 1<<63 && len(digits) < 20:
		return int64(n), true
	}
	return 0, false
}
