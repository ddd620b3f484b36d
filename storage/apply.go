package storage

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"

	"github.com/cockroachdb/pebble/v2"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/storage/memtable"
)

// Entry is a committed entry of a shard's log. Data is an entry as package
// command writes it; empty Data only advances the applied index.
type Entry struct {
	Shard int
	Index uint64
	Data  []byte // commands; nil: none

	// Conf is the group's configuration from this entry on, nil where the
	// entry leaves it as it is; at most ConfBytesMax bytes, and not to be
	// changed afterwards. It becomes part of the shard's state, so that after
	// a crash the configuration found is the one as of Applied. Term, of the
	// entry, counts only with it.
	Conf []byte
	Term uint64

	// Together entries stand at the front of a call of Apply, and their effects
	// become visible all at once: they hold the parts of commands over several
	// shards.
	Together bool

	// Alone says that no other replica carries the entry out. Where a row that
	// a command needs is damaged, the command is then answered
	// command.Damaged, and the others are carried out. Otherwise replicas
	// would differ, and Apply stops the shard.
	Alone bool
}

// Deliverer receives the results of Apply: of entries[entry], of its command
// number cmd, both from 0. The Result and what it points to are valid until
// Apply returns.
type Deliverer interface {
	Deliver(entry, cmd int, r *command.Result)
}

// Apply carries out entries in order, all at once, or in several passes where
// they make far more than they bring (see growthBytesMax). When it returns nil
// their effects are visible to readers, Applied has advanced, and each
// command's result has been delivered, in order; nothing is durable by it (see
// Durable). The entries' Data must not change until Apply returns, and is not
// kept. One goroutine at a time may call it; it waits while both memtables are full, and reads rows from disk where a command depends on
// them.
//
// Indexes of a shard must rise: otherwise Apply returns ErrStaleIndex and has
// done nothing. An error that wraps ErrDamaged says that some shards are
// stopped (see Stopped): of those nothing is applied from the entry on that
// could not be carried out, for which Applied is the measure, and nothing will be
// until they are replaced or removed; the entries of the others have been
// applied. Any other error means that the node must stop: the entries
// cannot be understood (command.ErrMalformed, command.ErrFormat, with nothing
// of their pass applied or delivered) or Pebble failed. Every later call then returns
// ErrFailed.
func (s *Store) Apply(entries []Entry, d Deliverer) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	if err := s.fatal.get(); err != nil {
		return err
	}
	p := &s.pass
	p.stop = nil
	for first := 0; ; {
		n, err := p.apply(entries[first:], first, d)
		if first += n; err != nil {
			return err
		}
		if first == len(entries) {
			return p.stop
		}
	}
}

// Stopped reports whether nothing of shard is applied any more because its data
// are damaged. It is for the goroutine that calls Apply.
func (s *Store) Stopped(shard int) bool { return s.shards[shard].stopped }

// apply carries out entries, of which the first has number first for d, as far
// as one pass may go. It returns how many that were.
func (p *pass) apply(entries []Entry, first int, d Deliverer) (int, error) {
	p.begin()
	defer p.end()
	if err := p.admit(entries); err != nil {
		return 0, err
	}
	n, err := p.run(entries)
	if err != nil {
		return 0, p.store.fatal.record(err)
	}
	if n < len(entries) {
		p.admitOnly(entries[:n])
	}
	if p.stop != nil {
		p.dropStopped()
	}
	if err := p.commit(); err != nil {
		return 0, p.store.fatal.record(err)
	}
	p.deliver(entries, first, d)
	return n, nil
}

// stopShard has nothing of the shard at hand be applied any more.
func (p *pass) stopShard(err error) {
	p.store.shards[p.shard].stopped = true
	p.stop = errors.Join(p.stop, p.store.damaged(p.shard, err))
}

// dropStopped takes what the pass has done to stopped shards out of it.
func (p *pass) dropStopped() {
	for i := range p.rows.rows {
		if r := &p.rows.rows[i]; p.store.Stopped(int(r.shard)) {
			r.dirty, r.fresh = false, false
		}
	}
	p.staged = slices.DeleteFunc(p.staged, func(r stagedRecord) bool { return p.store.Stopped(shardOf(r.key)) })
	p.ranges = slices.DeleteFunc(p.ranges, func(r passRange) bool { return p.store.Stopped(r.shard) })
	p.touched = slices.DeleteFunc(p.touched, p.store.Stopped)
}

// pass is the working state of one call of Apply, kept for the next one.
type pass struct {
	store  *Store
	number uint64
	rows   rowSet
	staged []stagedRecord // changes of the expiry index and of session records
	bytes  arena
	undo   undo
	ranges []passRange         // that the pass has deleted, in order
	gone   map[goneMark]uint64 // the marks that the pass has set; nil: none ever

	shards  []passShard
	touched []int // shards with entries in this pass

	stop error // why shards are stopped that had entries in this call of Apply; nil: none is

	// Of the entry being carried out.
	alone  bool
	shard  int
	state  *passShard
	now    uint64
	digest uint64 // of the command being carried out, if it has a session
	joint  bool   // within a command of several operations
	counts bool   // Gets count among what the entry makes
	entry  uint32 // its number among those of the pass that have commands, from 1
	grown  int    // bytes that its commands have read and made, see growthBytesMax

	command command.Command
	results []command.Result
	ends    []int            // per entry: the number of results so far
	nested  []command.Result // results of operations are cut from it
	pending [][]byte         // session records written in this pass

	key    []byte
	record []byte
}

// stagedRecord is a change that the pass makes beside its rows. Key and value
// are bytes of the pass.
type stagedRecord struct {
	list    memtable.List
	deleted bool
	key     []byte // as in the database
	value   []byte
}

// passShard is the state of a shard as the pass has left it.
type passShard struct {
	meta
	pass      uint64
	marked    uint64       // as in shardState
	conf      *InstallMeta // nil: unchanged
	newExpiry uint64       // earliest expiry added
	emptied   bool         // what was in the expiry index before the pass is not any more
	swept     bool
	sweptTo   uint64 // nothing below it is left in the expiry index
}

const (
	// What a pass needed once is kept up to these sizes.
	passRowsKeep    = 64 << 10
	passResultsKeep = 64 << 10
	passStagedKeep  = 64 << 10
)

func (p *pass) init(s *Store) {
	p.store = s
	p.shards = make([]passShard, len(s.shards))
}

func (p *pass) begin() {
	p.number++
	p.entry = 0
	p.rows.reset()
	p.bytes.reset()
	p.touched = p.touched[:0]
	p.results = p.results[:0]
	p.ends = p.ends[:0]
	p.nested = p.nested[:0]
	p.pending = p.pending[:0]
	p.staged = p.staged[:0]
	p.ranges = p.ranges[:0]
	clear(p.gone)
}

// end lets go of the entries and of what an unusually large pass needed.
func (p *pass) end() {
	clear(p.results)
	clear(p.nested)
	clear(p.pending)
	clear(p.staged)
	clear(p.ranges)
	if cap(p.staged) > passStagedKeep {
		p.staged = nil
	}
	if cap(p.results) > passResultsKeep {
		p.results = nil
	}
	if cap(p.nested) > passResultsKeep {
		p.nested = nil
	}
	if cap(p.rows.rows) > passRowsKeep {
		p.rows.rows = nil
	}
}

// admit checks and takes over the indexes of entries.
func (p *pass) admit(entries []Entry) error {
	for i := range entries {
		e := &entries[i]
		if e.Shard < 0 || e.Shard >= len(p.shards) {
			return fmt.Errorf("storage: entry for shard %d of %d, which is out of range", e.Shard, len(p.shards))
		}
		sh := p.touch(e.Shard)
		if e.Index <= sh.applied {
			return fmt.Errorf("%w: shard %d, index %d, applied %d", ErrStaleIndex, e.Shard, e.Index, sh.applied)
		}
		if len(e.Conf) > ConfBytesMax {
			return fmt.Errorf("storage: configuration of %d bytes, at most %d are allowed", len(e.Conf), ConfBytesMax)
		}
		sh.take(e)
	}
	return nil
}

// touch returns the state of a shard as the pass has left it so far.
func (p *pass) touch(shard int) *passShard {
	sh := &p.shards[shard]
	if sh.pass != p.number {
		st := &p.store.shards[shard]
		*sh = passShard{meta: st.meta(), pass: p.number, marked: st.marked, newExpiry: never}
		p.touched = append(p.touched, shard)
	}
	return sh
}

// admitOnly takes over the indexes of entries where those of later ones were
// taken over as well.
func (p *pass) admitOnly(entries []Entry) {
	for _, i := range p.touched {
		st := &p.store.shards[i]
		p.shards[i].applied, p.shards[i].conf = st.applied.Load(), nil
	}
	for i := range entries {
		p.shards[entries[i].Shard].take(&entries[i])
	}
	p.touched = slices.DeleteFunc(p.touched, func(i int) bool {
		return p.shards[i].applied == p.store.shards[i].applied.Load()
	})
}

// take takes over what e says beside its commands.
func (sh *passShard) take(e *Entry) {
	if e.Conf != nil {
		sh.conf = &InstallMeta{Index: e.Index, Term: e.Term, Conf: e.Conf}
	}
	sh.applied = e.Index
}

// run carries out the commands of entries until they have grown as far as a
// pass may; their effects are in p alone. It returns how many entries it has
// carried out, at least one if there is one.
func (p *pass) run(entries []Entry) (int, error) {
	grown := 0
	for i := range entries {
		e := &entries[i]
		switch {
		case p.store.shards[e.Shard].stopped:
			p.stop = cmp.Or[error](p.stop, &DamageError{Shard: e.Shard, Err: errStopped})
		case len(e.Data) != 0:
			if err := p.runEntry(e); isDamage(err) {
				p.stopShard(fmt.Errorf("index %d: %w", e.Index, err))
			} else if err != nil {
				return 0, fmt.Errorf("shard %d, index %d: %w", e.Shard, e.Index, err)
			}
			grown += p.grown
		}
		p.ends = append(p.ends, len(p.results))
		if (grown > passGrowthMax || len(p.ranges) > batchRangesMax) && !e.Together {
			return i + 1, nil
		}
	}
	return len(entries), nil
}

// errStopped is why nothing is applied to a shard that was stopped before.
var errStopped = errors.New("the shard is stopped")

func (p *pass) runEntry(e *Entry) error {
	r, err := command.NewReader(e.Data)
	if err != nil {
		return err
	}
	p.shard, p.state, p.alone = e.Shard, &p.shards[e.Shard], e.Alone
	p.entry++
	p.grown = 0
	p.state.stamp = max(p.state.stamp, r.StampMillis) // time of a shard never goes back
	p.now = p.state.stamp
	for {
		more, err := r.Next(&p.command)
		if err != nil || !more {
			return err
		}
		if p.command.Session.ID != 0 {
			p.digest = r.Digest()
		}
		p.results = append(p.results, command.Result{})
		if err := p.once(&p.command, &p.results[len(p.results)-1]); err != nil {
			return err
		}
	}
}

// once carries out c, unless its session says that it was carried out before.
func (p *pass) once(c *command.Command, out *command.Result) error {
	if c.Session.ID == 0 {
		return p.carryOut(c, out)
	}
	done, err := p.replay(p.shard, c, out)
	if p.tolerates(err) {
		out.Kind, out.Status = c.Kind, command.SessionExpired // it was carried out; how that went cannot be read
		return nil
	}
	if done || err != nil {
		return err
	}
	if err := p.carryOut(c, out); err != nil {
		return err
	}
	if out.Status != command.Busy && out.Status != command.Damaged { // or a retry would be told so again
		p.remember(p.shard, c, out)
	}
	return nil
}

// carryOut carries out c, or says that it cannot be done for damage. All commands
// look at the rows they need before they change one.
func (p *pass) carryOut(c *command.Command, out *command.Result) error {
	err := p.execute(c, out)
	if p.tolerates(err) {
		*out = command.Result{Kind: c.Kind, Status: command.Damaged}
		return nil
	}
	return err
}

// tolerates reports whether err is of damage, and the entry is one that goes on
// all the same.
func (p *pass) tolerates(err error) bool {
	if err == nil || !p.alone || !isDamage(err) {
		return false
	}
	_ = p.store.damaged(p.shard, err)
	return true
}

func (p *pass) execute(c *command.Command, out *command.Result) error {
	out.Kind = c.Kind
	switch c.Kind {
	case command.Put:
		return p.put(c, out)
	case command.Delete:
		return p.delete(c, out)
	case command.Incr:
		return p.incr(c, out)
	case command.Expire:
		return p.expire(c, out)
	case command.Persist:
		return p.persist(c, out)
	case command.Append:
		return p.append(c, out)
	case command.SetRange:
		return p.setRange(c, out)
	case command.IncrFloat:
		return p.incrFloat(c, out)
	case command.SetExpiry:
		return p.changeExpiry(c, out)
	case command.Rename:
		return p.rename(c, out)
	case command.Watch:
		return p.watch(c, out)
	case command.Get, command.Exists, command.Expiry:
		return p.get(c, out)
	case command.GetRange:
		return p.getRange(c, out)
	case command.Batch:
		p.counts = c.Flags&command.Counted != 0
		defer func() { p.counts = false }()
		return p.all(c, c.Ops, out)
	case command.Txn:
		return p.txn(c, out)
	case command.DeleteRange:
		p.deleteRange(c, out)
		return nil
	case command.Sweep:
		return p.sweep(c, out)
	case command.Mark:
		return nil
	}
	return fmt.Errorf("%w: kind %d", command.ErrMalformed, c.Kind)
}

// readingFlags are the options of Put that depend on the row there is. A Put
// without them reads nothing.
const readingFlags = command.KeepTTL | command.IfAbsent | command.IfPresent | command.IfVersion | command.ReturnPrevious

func (p *pass) put(c *command.Command, out *command.Result) error {
	r := p.find(c.Key)
	var expireAt, indexed uint64
	if c.Flags&readingFlags != 0 {
		if err := p.load(r, c.Flags&command.ReturnPrevious != 0); err != nil {
			return err
		}
		if p.refuses(r, c, out) {
			return nil
		}
		if c.Flags&command.KeepTTL != 0 && p.visible(r) {
			expireAt = r.expireAt
		}
		if r.exists {
			indexed = r.expireAt
		}
	}
	switch {
	case c.Flags&command.SetExpireAt != 0:
		if expireAt = min(c.TTLMillis, math.MaxInt64); expireAt <= p.now {
			return p.expired(r, out)
		}
	case c.Flags&command.SetTTL != 0:
		expireAt = p.expiry(c.TTLMillis)
	}
	p.write(r, c.Value, expireAt)
	out.Version = r.version
	p.reindex(r.key, indexed, expireAt)
	return nil
}

// expired carries out a write after which r would have expired already: the row
// is deleted.
func (p *pass) expired(r *row, out *command.Result) error {
	if err := p.load(r, false); err != nil {
		return err
	}
	p.state.revision++
	out.Version = p.state.revision
	if r.exists {
		indexed := r.expireAt
		p.remove(r)
		p.reindex(r.key, indexed, 0)
	} else {
		p.went(r.hash)
	}
	return nil
}

func (p *pass) delete(c *command.Command, out *command.Result) error {
	r := p.find(c.Key)
	if err := p.load(r, c.Flags&command.ReturnPrevious != 0); err != nil {
		return err
	}
	if p.refuses(r, c, out) {
		return nil
	}
	if !p.visible(r) {
		out.Status = command.NotFound
		return nil
	}
	p.state.revision++
	out.Version = p.state.revision
	indexed := r.expireAt
	p.remove(r)
	p.reindex(r.key, indexed, 0)
	return nil
}

func (p *pass) incr(c *command.Command, out *command.Result) error {
	r := p.find(c.Key)
	if err := p.load(r, true); err != nil {
		return err
	}
	var value int64
	var expireAt, indexed uint64
	if r.exists {
		indexed = r.expireAt
	}
	if p.visible(r) {
		out.Version = r.version
		expireAt = r.expireAt
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
	p.write(r, strconv.AppendInt(p.bytes.alloc(integerBytesMax)[:0], sum, 10), expireAt)
	out.Version, out.Integer = r.version, sum
	p.reindex(r.key, indexed, expireAt)
	return nil
}

func (p *pass) expire(c *command.Command, out *command.Result) error {
	return p.setExpiry(c.Key, p.expiry(c.TTLMillis), out)
}

func (p *pass) persist(c *command.Command, out *command.Result) error {
	return p.setExpiry(c.Key, 0, out)
}

func (p *pass) setExpiry(key []byte, expireAt uint64, out *command.Result) error {
	r := p.find(key)
	if err := p.load(r, true); err != nil {
		return err
	}
	if !p.visible(r) {
		out.Status = command.NotFound
		return nil
	}
	if expireAt == 0 && r.expireAt == 0 {
		out.Version = r.version
		return nil
	}
	indexed := r.expireAt
	p.write(r, r.value, expireAt)
	out.Version = r.version
	p.reindex(r.key, indexed, expireAt)
	return nil
}

// changeExpiry carries out a SetExpiry.
func (p *pass) changeExpiry(c *command.Command, out *command.Result) error {
	r, ok, err := p.takeRow(c.Key, out)
	if !ok {
		return err
	}
	if !p.visible(r) {
		out.Status = command.NotFound
		return nil
	}
	if c.Flags&command.ExpiryReturnRow != 0 {
		p.show(r, out, true)
	}
	expireAt := p.newExpiry(c)
	if !mayExpire(c.Flags, r.expireAt, expireAt) {
		out.Status = command.ConditionFailed
		return nil
	}
	switch {
	case expireAt == never && r.expireAt == 0:
		return nil
	case expireAt <= p.now:
		return p.expired(r, out)
	case expireAt == never:
		expireAt = 0
	}
	indexed := r.expireAt
	p.write(r, r.value, expireAt)
	out.Version = r.version
	p.reindex(r.key, indexed, expireAt)
	return nil
}

// newExpiry is when the row shall expire after a SetExpiry, never for "not at
// all".
func (p *pass) newExpiry(c *command.Command) uint64 {
	switch {
	case c.Flags&command.ExpiryRemove != 0:
		return never
	case c.Flags&command.ExpiryAt != 0:
		return min(c.TTLMillis, math.MaxInt64)
	}
	return p.expiry(c.TTLMillis)
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

func (p *pass) get(c *command.Command, out *command.Result) error {
	withValue := c.Kind == command.Get
	if withValue && c.Flags&command.Counted != 0 && !p.counts {
		p.counts = true
		defer func() { p.counts = false }()
	}
	r, ok, err := p.readRow(c.Key, withValue, out)
	if !ok {
		return err
	}
	if !p.visible(r) {
		out.Status = command.NotFound
		return nil
	}
	out.Version = r.version
	if c.Kind == command.Expiry {
		out.Integer = int64(r.expireAt)
		return nil
	}
	p.show(r, out, withValue)
	return nil
}

// getRange carries out a GetRange.
func (p *pass) getRange(c *command.Command, out *command.Result) error {
	r, ok, err := p.takeRow(c.Key, out)
	if !ok {
		return err
	}
	if !p.visible(r) {
		out.Status = command.NotFound
		return nil
	}
	out.Version, out.Integer = r.version, int64(len(r.value))
	p.show(r, out, false)
	out.Value = command.Cut(r.value, c.Delta, c.Until)
	return nil
}

// readRow loads the row of key. A value counts among what the entry makes, see
// takeRow, where it is to.
func (p *pass) readRow(key []byte, withValue bool, out *command.Result) (r *row, ok bool, err error) {
	if withValue && p.counts {
		return p.takeRow(key, out)
	}
	r = p.find(key)
	err = p.load(r, withValue)
	return r, err == nil, err
}

// all carries out ops of c; the failure of one does not touch the others.
func (p *pass) all(c *command.Command, ops []command.Command, out *command.Result) error {
	p.joint = len(ops) > 1 || c.Flags&command.Part != 0
	defer func() { p.joint = false }()
	out.Results = p.allocResults(len(ops))
	for i := range ops {
		if err := p.carryOut(&ops[i], &out.Results[i]); err != nil {
			return err
		}
	}
	return nil
}

func (p *pass) txn(c *command.Command, out *command.Result) error {
	whole := c.Flags&command.Whole != 0
	p.counts = whole
	defer func() { p.counts = false }()
	if c.Flags&command.Refuted != 0 {
		return p.all(c, c.Else, out)
	}
	for i := range c.Compares {
		holds, err := p.compare(&c.Compares[i])
		if err != nil {
			return err
		}
		if !holds {
			return p.branch(c, c.Else, whole, out)
		}
	}
	out.Succeeded = true
	return p.branch(c, c.Ops, whole, out)
}

// branch carries out one list of a Txn.
func (p *pass) branch(c *command.Command, ops []command.Command, whole bool, out *command.Result) error {
	if whole {
		return p.whole(ops, out)
	}
	return p.all(c, ops, out)
}

func (p *pass) compare(x *command.Compare) (bool, error) {
	if x.Target == command.OnAbsence {
		holds, err := p.absentSince(x.Key, x.Version)
		return holds == (x.Relation == command.Equal), err
	}
	r := p.find(x.Key)
	if err := p.load(r, x.Target == command.OnValue); err != nil {
		return false, err
	}
	there := p.visible(r)
	var order int
	switch {
	case x.Target == command.OnValue && !there:
		return false, nil
	case x.Target == command.OnValue:
		order = bytes.Compare(r.value, x.Value)
	default:
		var version uint64
		if there {
			version = r.version
		}
		switch {
		case version < x.Version:
			order = -1
		case version > x.Version:
			order = 1
		}
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
func (p *pass) refuses(r *row, c *command.Command, out *command.Result) bool {
	there := p.visible(r)
	var version uint64
	if there {
		version = r.version
		if c.Flags&command.ReturnPrevious != 0 {
			p.show(r, out, true)
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

// show puts the visible row r into out.
func (p *pass) show(r *row, out *command.Result, withValue bool) {
	out.HasRow = true
	out.RowVersion = r.version
	out.RowTTL = ttlLeft(r.expireAt, p.now)
	if withValue {
		out.Value = r.value
	}
}

func (p *pass) visible(r *row) bool { return r.exists && visible(r.expireAt, p.now) }

// expiry is the time at which ttl, counted from the entry's stamp, is over. A
// ttl of 0 counts as one millisecond, and a sum past the end of time as it.
func (p *pass) expiry(ttl uint64) uint64 {
	ttl = max(ttl, 1)
	if ttl > math.MaxInt64-p.now {
		return math.MaxInt64
	}
	return p.now + ttl
}

func (p *pass) find(key []byte) *row {
	return p.rows.find(uint16(p.shard), key, hashKey(p.shard, key))
}

// write makes value the row's new state, with the next version.
func (p *pass) write(r *row, value []byte, expireAt uint64) {
	p.undo.keep(r)
	p.state.revision++
	r.value, r.version, r.expireAt = value, p.state.revision, expireAt
	r.loaded, r.exists, r.hasValue, r.dirty = true, true, true, true
	r.joint = r.joint || p.joint
}

func (p *pass) remove(r *row) {
	p.undo.keep(r)
	p.went(r.hash)
	r.value, r.version, r.expireAt = nil, 0, 0
	r.exists, r.hasValue, r.dirty = false, false, true
	r.joint = r.joint || p.joint
}

// load makes the state of r known, and its value where withValue.
func (p *pass) load(r *row, withValue bool) (err error) {
	if r.loaded && (!withValue || r.hasValue || !r.exists) {
		return nil
	}
	if len(p.ranges) > 0 && p.wentInRange(r) {
		r.loaded, r.exists = true, false
		return nil
	}
	if p.store.cache.load(r, withValue, &p.bytes) {
		return nil
	}
	p.key = appendDataKey(p.key[:0], int(r.shard), r.key)
	b, found, closer, err := p.stored(r.hash, p.key)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closer.Close()) }()
	if !found {
		r.loaded, r.exists, r.fresh = true, false, true
		return nil
	}
	version, expireAt, value, err := decodeRow(b)
	if err != nil {
		return err
	}
	r.version, r.expireAt = version, expireAt
	r.loaded, r.exists = true, true
	if withValue {
		r.value, r.hasValue, r.fresh = p.bytes.copy(value), true, true
	}
	return nil
}

// stored returns the record of a key of the database as the last pass left it,
// which is valid until closer is closed.
func (p *pass) stored(hash uint64, key []byte) (record []byte, found bool, closer io.Closer, err error) {
	x := &p.store.memtables
	x.mu.RLock()
	if r, ok := x.get(hash, key); ok && !r.Deleted() {
		return r.Value(), true, (*memtablesCloser)(x), nil
	} else if x.mu.RUnlock(); ok {
		return nil, false, noCloser{}, nil
	}
	record, closer, err = p.store.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, false, noCloser{}, nil
	}
	return record, err == nil, closer, err
}

// memtablesCloser lets the memtables go that a record was found in.
type memtablesCloser memtables

func (x *memtablesCloser) Close() error {
	x.mu.RUnlock()
	return nil
}

type noCloser struct{}

func (noCloser) Close() error { return nil }

// reindex keeps the expiry index: before is the expiry under which the row is
// known to be indexed, after the one it has now, 0 for none. A plain Put knows
// no before; the entry it leaves behind is dropped by the Sweep that meets it.
// What is written here may depend on the command and on the row, never on how
// the row was found: Sweep counts the entries.
func (p *pass) reindex(key []byte, before, after uint64) {
	if before == after {
		return
	}
	if before != 0 {
		p.unindex(key, before)
	}
	if after == 0 {
		return
	}
	p.state.newExpiry = min(p.state.newExpiry, after)
	p.stage(memtable.Expiries, p.expiryKey(after, key), nil)
}

func (p *pass) unindex(key []byte, at uint64) {
	p.stageDeletion(memtable.Expiries, p.expiryKey(at, key))
}

// expiryKey returns a key of the expiry index as bytes of the pass.
func (p *pass) expiryKey(at uint64, key []byte) []byte {
	b := p.bytes.alloc(expiryKeyBytes + len(key))
	putPrefix(b, p.shard, kindExpiry)
	binary.BigEndian.PutUint64(b[prefixBytes:], at)
	copy(b[expiryKeyBytes:], key)
	return b
}

func (p *pass) stage(l memtable.List, key, value []byte) {
	p.staged = append(p.staged, stagedRecord{list: l, key: key, value: value})
}

func (p *pass) stageDeletion(l memtable.List, key []byte) {
	p.staged = append(p.staged, stagedRecord{list: l, deleted: true, key: key})
}

// commit makes the pass visible: in the memtable, then row by
// row in the cache, see the package comment for why nobody notices the
// difference.
func (p *pass) commit() error {
	if len(p.touched) == 0 {
		return nil
	}
	if err := p.publish(); err != nil {
		return err
	}
	for _, i := range p.touched {
		if err := p.finishShard(i); err != nil {
			return err
		}
	}
	return nil
}

func (p *pass) publish() error {
	s := p.store
	if err := s.lockPublishing(p.bytesNeeded(), len(p.ranges)); err != nil {
		return err
	}
	defer s.publishing.Unlock()
	t := s.memtables.mutable
	if len(p.ranges) > 0 {
		s.cache.beginRanges(p.ranges)
		defer s.endRanges(p.ranges)
	}
	for i := range p.ranges { // before the rows
		t.AddRange(p.ranges[i].bounds())
	}
	for rows := range slices.Chunk(p.rows.rows, prefetchRows) {
		s.addRows(t, rows)
	}
	for i := range p.staged {
		p.staged[i].addTo(t)
	}
	s.memtables.publish(len(p.ranges) > 0)
	for i := range p.rows.rows {
		if r := &p.rows.rows[i]; r.dirty {
			s.cache.publish(r)
		} else if r.fresh {
			s.cache.add(r)
		}
		if r := &p.rows.rows[i]; len(r.value) > largeRowBytes || r.counted != 0 {
			s.large.note(r.hash, len(r.value))
		}
	}
	for _, i := range p.touched {
		sh, st := &p.shards[i], &s.shards[i]
		st.revision.Store(sh.revision)
		st.stamp.Store(sh.stamp)
		st.marked = sh.marked
		if sh.conf != nil {
			st.installed.Store(sh.conf)
		}
		st.applied.Store(sh.applied)
	}
	return nil
}

// bytesNeeded is what the records of the pass take in a memtable.
func (p *pass) bytesNeeded() int {
	n := p.rangesBytes()
	for i := range p.rows.rows {
		r := &p.rows.rows[i]
		switch {
		case r.dirty && r.exists:
			n += memtable.Bytes(prefixBytes+len(r.key), rowHeaderBytes+len(r.value))
		case r.dirty:
			n += memtable.Bytes(prefixBytes+len(r.key), 0)
		}
	}
	for i := range p.staged {
		n += memtable.Bytes(len(p.staged[i].key), len(p.staged[i].value))
	}
	return n
}

// prefetchRows is how many rows are fetched before the first is worked on:
// enough to have the memory busy, few enough for the nearest cache.
const prefetchRows = 64

// addRows announces the changed ones of rows to the cache and adds them to t.
func (s *Store) addRows(t *table, rows []row) {
	for i := range rows {
		if r := &rows[i]; r.dirty {
			t.PrefetchBucket(r.hash)
			s.cache.prefetch(r.hash)
		}
	}
	for i := range rows {
		if r := &rows[i]; r.dirty {
			s.cache.begin(r)
			t.PrefetchRecord(r.hash)
		}
	}
	for i := range rows {
		if r := &rows[i]; r.dirty {
			r.addTo(t)
		}
	}
}

// addTo adds the row's state to a memtable.
func (r *row) addTo(t *table) {
	var to memtable.Record
	if r.exists {
		to = t.Reserve(prefixBytes+len(r.key), rowHeaderBytes+len(r.value))
	} else {
		to = t.ReserveDeletion(prefixBytes + len(r.key))
	}
	key := to.Key()
	putPrefix(key, int(r.shard), kindData)
	copy(key[prefixBytes:], r.key)
	if r.exists {
		value := to.Value()
		putRowHeader(value, r.version, r.expireAt)
		copy(value[rowHeaderBytes:], r.value)
	}
	t.Add(memtable.Rows, r.hash, to)
}

func (r *stagedRecord) addTo(t *table) {
	var to memtable.Record
	if r.deleted {
		to = t.ReserveDeletion(len(r.key))
	} else {
		to = t.Reserve(len(r.key), len(r.value))
	}
	copy(to.Key(), r.key)
	copy(to.Value(), r.value)
	t.Add(r.list, hashRecord(r.key), to)
}

// finishShard brings up to date when the shard needs its next Sweep.
func (p *pass) finishShard(i int) error {
	sh, st := &p.shards[i], &p.store.shards[i]
	st.publishSessions()
	if sh.emptied && !sh.swept {
		st.nextExpiry.Store(sh.newExpiry)
	} else if sh.swept {
		next, err := p.firstExpiry(i, sh.sweptTo)
		if isDamage(err) {
			_ = p.store.damaged(i, err)
			next, err = never, nil // rows that expire stay, and are not seen
		}
		if err != nil {
			return err
		}
		st.nextExpiry.Store(next)
	} else if sh.newExpiry < st.nextExpiry.Load() {
		st.nextExpiry.Store(sh.newExpiry)
	}
	return nil
}

func (p *pass) firstExpiry(shard int, from uint64) (uint64, error) {
	tables := p.store.memtables.pin()
	defer p.store.memtables.unpin(tables)
	return p.store.firstExpiry(tables, shard, from)
}

// deliver hands the results of entries over, those of the first as those of entry
// number entry.
func (p *pass) deliver(entries []Entry, entry int, d Deliverer) {
	first := 0
	for i, end := range p.ends {
		if p.stop != nil && p.store.Stopped(entries[i].Shard) {
			first = end
			continue
		}
		for n := first; n < end; n++ {
			d.Deliver(entry+i, n-first, &p.results[n])
		}
		first = end
	}
}

// allocResults returns n zero Results that live until the end of the pass.
func (p *pass) allocResults(n int) []command.Result {
	if n > cap(p.nested)-len(p.nested) {
		// Results handed out before keep the old array alive.
		p.nested = make([]command.Result, 0, max(n, 2*cap(p.nested), 64))
	}
	start := len(p.nested)
	p.nested = p.nested[:start+n]
	return p.nested[start : start+n : start+n]
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
