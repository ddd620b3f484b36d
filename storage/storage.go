// Package storage is the replicated state machine of a node's shards: rows
// with version and expiry, results of sessions' writes, and how far each shard
// has applied its log, in one Pebble database, with a row cache in front.
//
// # Goal
//
// A write is durable in the Raft log before it is applied, so this package
// never waits for a disk during a request. Apply writes into a memtable; a full
// one is flushed in the background: sorted, and written to files that Pebble
// ingests. Pebble runs without a log of its own (DisableWAL), and Pebble's own
// memtable stays empty. After a crash Pebble holds a prefix of what was applied,
// says through Durable which prefix, and the rest is replayed from the Raft log. A
// read of a row in the row cache is a hash lookup and a copy.
//
// # Invariants
//
//   - A memtable is rotated between two calls of Apply, and becomes part of the
//     database all at once, with the applied indexes as of then: on disk a shard
//     is always exactly the result of its entries up to its applied index.
//   - What Apply does depends on the entries and on the shard's records alone
//     (A1): not on how entries are grouped into calls, not on the cache, not on
//     when memtables are rotated, not on this node's settings or clock.
//   - The newest state of a record is in the mutable memtable, else in the
//     immutable one, else in Pebble. A memtable is dropped only after Pebble has
//     it.
//   - Pebble is written only by ingestion. Everything in it is durable.
//   - A shard is replaced or removed as a whole only when the memtables have
//     nothing of it. See docs/adr/0007.
//   - A row in the cache equals the newest record, except between the publication
//     of a write batch in the memtable and that of its rows in the cache; during that
//     time (publishing) readers cannot put rows of the write batch into the cache, rows
//     that were changed together are not in it, and no scan begins. No reader
//     therefore sees a row go back in time, or half of a transaction. See
//     docs/adr/0005.
//
// # Outline of Apply
//
// Each command works on a rowSet, a hash table of the rows touched so far; a row
// not in it comes from the cache, else from the memtables, else from Pebble, and
// only where the command needs to know it: a plain Put reads nothing. At the end
// the final state of each changed row goes into the mutable memtable, which makes
// all of them visible at once. Then: publish to the cache, advance Applied, deliver
// the results.
//
// # Locks
//
// In the order in which they are taken: Install.mu or View.mu, publishing,
// memtables.mu, and a segment of the cache; holders.mu is taken alone, or below the
// first. A memtable sorts under a lock of its own. None
// from publishing on is held for longer than it takes to look at or copy the rows of
// a write batch or a read; only the replacement of a whole shard holds publishing while
// Pebble writes its manifest. Whoever waits for a flush holds none of these.
//
// # Rejected
//
// Writing each command into an indexed batch and reading through that: a
// skiplist insertion and a merging iterator per command, five times the cost
// of the row set, and a counter incremented a thousand times in one write batch
// would write a thousand versions. Writing each write batch to Pebble: see
// docs/adr/0004.
package storage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/proa-kv/proa/command"
)

// Errors of the store.
var (
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("storage: closed")
	// ErrFailed wraps the first error after which the store's state in memory
	// or on disk cannot be relied on. Every later Apply and Flush returns it.
	ErrFailed = errors.New("storage: failed")
	// ErrStaleIndex is returned by Apply for an entry that was applied already.
	ErrStaleIndex = errors.New("storage: entry is not above the applied index")
)

// Defaults of Options.
const (
	BlockCacheBytesDefault  = 128 << 20
	RowCacheBytesDefault    = 256 << 20
	MemtableBytesDefault    = 64 << 20
	OpenFilesDefault        = 4096
	SessionRetentionDefault = time.Hour
)

// Options say how a Store is opened. Dir and Shards are required.
//
// A Store whose memtables never fill (MemtableBytes above what is
// applied between two flushes) does nothing by itself that can be told from
// outside: Durable changes in Flush, FlushAsync, Checksum, SetConf,
// Install.Finish, Store.Install and RemoveShard only, and but for FlushAsync before they return. With
// RowCacheBytes negative, or at most 4 MiB, so does what AppendCached finds. A
// simulator that runs nodes in one goroutine relies on that; OnFlush is still
// called from a goroutine of the store.
type Options struct {
	Dir string
	FS  vfs.FS // nil: the file system of the machine

	// Shards is the number of shards, 1 to ShardsMax. It must not shrink below
	// what the directory holds.
	Shards int

	// Owner is kept in the database, with the number of shards. A database that
	// says otherwise is not opened.
	Owner Owner
	// Begun says that the database was opened for Owner before, so that it is
	// damage if it does not know that.
	Begun bool

	// BlockCacheBytes bounds Pebble's cache of table blocks.
	// 0: BlockCacheBytesDefault.
	BlockCacheBytes int64
	// RowCacheBytes bounds the row cache, its index included. Memory that no
	// row has used yet is not resident. 0: RowCacheBytesDefault; negative: no
	// row cache.
	RowCacheBytes int64
	// MemtableBytes is the size of one memtable; up to two exist,
	// and those that open scans hold. A start after a crash has to replay what two
	// hold. A write batch of entries that needs more gets one of its own.
	// 0: MemtableBytesDefault.
	MemtableBytes int64

	// OpenFiles is how many files may be open at a time, beside a few dozen. With
	// 100 GB there are some 12,000. A read that finds none of its files open has
	// to open one and to read its end, which costs more than the read itself.
	// 0: OpenFilesDefault.
	OpenFiles int

	// SessionRetention is how long, in leader's stamps, the results of a
	// session that writes nothing are kept. 0: SessionRetentionDefault.
	// SweepCommand writes it into the log, so that it need not be the same on
	// all replicas.
	SessionRetention time.Duration

	// Logger receives warnings and errors. nil: slog.Default().
	Logger *slog.Logger

	// OnFlush is called after a memtable became durable and
	// Durable tells so, and when FlushAsync is done, from a goroutine of the
	// store, never twice at once. It must not call Close. May be nil.
	OnFlush func()

	// OnDamage is called when something of a shard has been found unreadable,
	// because its file is damaged (see DamageError), once until the shard is
	// replaced or removed, from a goroutine of the store. It must not call
	// Close. May be nil.
	OnDamage func(shard int)

	// OnFatal is called once, from a goroutine of its own, with the first
	// error after which nothing may be acknowledged any more: the disk is full
	// or failed. The node should stop, and so
	// should the process: where Pebble cannot go on at all, calls that need it
	// do not return any more, and Close leaves the database open. May be nil.
	OnFatal func(error)
}

func (o Options) withDefaults() (Options, error) {
	if o.Dir == "" {
		return o, errors.New("storage: Options.Dir is empty")
	}
	if o.Shards < 1 || o.Shards > ShardsMax {
		return o, fmt.Errorf("storage: %d shards, must be 1 to %d", o.Shards, ShardsMax)
	}
	if o.FS == nil {
		o.FS = vfs.Default
	}
	o.BlockCacheBytes = cmp.Or(max(o.BlockCacheBytes, 0), BlockCacheBytesDefault)
	o.RowCacheBytes = cmp.Or(o.RowCacheBytes, RowCacheBytesDefault)
	o.MemtableBytes = max(cmp.Or(max(o.MemtableBytes, 0), MemtableBytesDefault), memtableBytesMin)
	o.OpenFiles = cmp.Or(max(o.OpenFiles, 0), OpenFilesDefault)
	o.SessionRetention = cmp.Or(max(o.SessionRetention, 0), SessionRetentionDefault)
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o, nil
}

// Store is the state of all shards of a node. Apply is for one goroutine at a
// time; everything else is safe from any goroutine.
type Store struct {
	opts       Options
	db         *pebble.DB
	cache      *rowCache
	shards     []shardState
	writeBatch writeBatch // used by Apply alone
	executor   executor   // likewise

	// publishing is held by Apply from before a write batch becomes visible in the
	// memtable until all of its rows are in the cache, by whoever opens a view
	// that must not be ahead of the cache, and during a rotation.
	publishing sync.Mutex
	memtables  memtables
	flusher    flusher
	large      largeRows
	over       atomic.Bool // compactions are to end

	fatal fatalState

	damage    damage
	remover   remover
	scheduler *scheduler

	holders    holders
	tableBytes int // tableBytesDefault, but for tests

	closing    chan struct{}
	background sync.WaitGroup

	closeOnce sync.Once
	closeErr  error
	life      sync.RWMutex // held briefly, by enter and close
	closed    bool
	users     sync.WaitGroup // calls under way that use db
}

// holders are what must end before the database can be closed.
type holders struct {
	mu       sync.Mutex
	views    map[*View]struct{}
	installs map[int]*Install // by shard
}

// release closes all views and installations. No call of theirs is under way.
func (h *holders) release() (err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for v := range h.views {
		v.release()
	}
	for _, in := range h.installs {
		in.mu.Lock()
		err = errors.Join(err, in.release())
		in.mu.Unlock()
	}
	clear(h.views)
	clear(h.installs)
	return err
}

// shardState is what is known in memory about a shard. The atomics are written
// by Apply (durable: by the flusher) and read by anyone.
type shardState struct {
	applied  atomic.Uint64
	stamp    atomic.Uint64
	durable  atomic.Uint64
	revision atomic.Uint64 // written under publishing
	rotated  uint64        // applied at the last rotation; under publishing

	// generation is raised before the shard's state is replaced or removed as
	// a whole, and again when that is done. Written under publishing.
	generation  atomic.Uint64
	installed   atomic.Pointer[InstallMeta] // nil: never; written under publishing
	rotatedConf *InstallMeta                // installed, at the last rotation; under publishing

	// nextExpiry is a lower bound of the times in the expiry index, never:
	// none. Everything in the index is at or above it.
	nextExpiry atomic.Uint64

	// marked is one more than the revision since which marks are kept, 0: they
	// are not. See marks.go. Apply only.
	marked uint64

	damaged        atomic.Bool // something of it cannot be read, see damage.go
	damageReported atomic.Bool // Options.OnDamage has been called for that
	stopped        bool        // nothing is applied any more; Apply only
	lost           bool        // what it is cannot be told any more, see GiveUp; Apply only

	sessions sessionIndex // Apply only
	// oldestSession is the last use of the session unused for longest, never:
	// there is no session.
	oldestSession atomic.Uint64
	sessionCount  atomic.Int64
}

// meta returns the shard's state beside its records. The caller holds
// publishing, or is Apply.
func (sh *shardState) meta() meta {
	return meta{applied: sh.applied.Load(), stamp: sh.stamp.Load(), revision: sh.revision.Load()}
}

// never is a time that does not come.
const never = math.MaxUint64

// Open opens the store in o.Dir, which it creates if need be, and reads each
// shard's state and sessions into memory. It fails if another process has the
// directory open, if the directory holds shards beyond o.Shards, or if a
// record does not decode. No error of the file system makes it panic. Where
// Pebble cannot go on at all, what it holds is released with the process.
func Open(o Options) (*Store, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Store{
		opts:      o,
		shards:    make([]shardState, o.Shards),
		scheduler: newScheduler(),
		closing:   make(chan struct{}),
	}
	s.fatal.init(o)
	s.flusher.init(s)
	s.damage.init(s)
	if err := s.awaitOpen(); err != nil {
		return nil, fmt.Errorf("storage: open %s: %w", o.Dir, err)
	}
	s.memtables.init(int(o.MemtableBytes))
	s.writeBatch.init(s)
	s.executor.writeBatch = &s.writeBatch
	s.tableBytes = tableBytesDefault
	s.holders.views, s.holders.installs = map[*View]struct{}{}, map[int]*Install{}
	s.background.Add(3)
	go s.damage.inspect()
	go s.flusher.callOnFlush()
	go s.flusher.run()
	return s, nil
}

// awaitOpen runs open, and gives up on it where something else has stopped
// Pebble that it waits for.
func (s *Store) awaitOpen() error {
	opened := make(chan error, 1)
	go func() { opened <- s.open() }()
	select {
	case err := <-opened:
		return err
	case <-s.fatal.wrecked:
	}
	select {
	case err := <-opened: // it was open itself
		return err
	case <-time.After(abandonDelay):
		return s.fatal.get()
	}
}

// open opens the database and reads what must be known of it.
func (s *Store) open() (err error) {
	defer func() {
		r := recover()
		fatal, ok := r.(openFatal)
		switch {
		case ok:
			err = fatal.err
		case r != nil:
			panic(r)
		case err != nil && s.db != nil:
			err = errors.Join(err, s.closeDatabase())
		}
	}()
	o := pebbleOptions(s)
	s.damage.options = o
	if err := checkMarker(&s.opts); err != nil {
		return err
	}
	if s.db, err = pebble.Open(s.opts.Dir, o); err != nil {
		return explainFiles(err, s.opts.Dir, o)
	}
	s.scheduler.start()
	owned, err := checkOwner(s.db, &s.opts)
	if isDamage(err) {
		s.opts.Logger.Error("cannot read which node owns the state, because a state file is damaged; assuming that it belongs to this node", "error", err.Error())
		owned, err = true, nil
	}
	if err != nil {
		return err
	}
	if err := errors.Join(s.load(), s.cleanStaging(), s.flusher.open()); err != nil {
		return err
	}
	if !owned {
		// Nobody's yet: it becomes the owner's.
		path, err := s.flusher.writeRecords("owner", []record{s.opts.ownerRecord()})
		if err == nil {
			err = s.db.Ingest(context.Background(), []string{path})
		}
		if err != nil {
			return err
		}
	}
	if s.cache, err = newRowCache(s.opts.RowCacheBytes, mapMemory); err != nil {
		return err
	}
	if err := s.fatal.open(); err != nil {
		return errors.Join(err, s.cache.close())
	}
	return nil
}

// closeDatabase closes the database, unless it has stopped halfway, or does so
// meanwhile.
func (s *Store) closeDatabase() error {
	if s.fatal.isWrecked() {
		return errAbandoned
	}
	s.over.Store(true)
	closed := make(chan error, 1)
	go func() { closed <- s.db.Close() }()
	select {
	case err := <-closed:
		return err
	case <-s.fatal.wrecked:
		return errAbandoned
	}
}

// load reads the state of all shards.
func (s *Store) load() error {
	if err := s.checkShards(); err != nil {
		return err
	}
	for i := range s.shards {
		to, err := s.readShard(i)
		if isDamage(err) {
			_ = s.damaged(i, err)
			to = replacement{nextExpiry: never, lost: true}
			to.sessions.clear()
			err = nil
		}
		if err != nil {
			return err
		}
		s.shards[i].become(to)
	}
	return nil
}

// readShard reads what must be known of a shard. Without a WAL all that Open finds
// is in tables.
func (s *Store) readShard(i int) (r replacement, err error) {
	if r.lost, err = readLost(s.db, i); err == nil && r.lost {
		r.nextExpiry = never
		r.sessions.clear()
		return r, nil
	}
	if err == nil {
		r.meta, err = readMeta(s.db, i)
	}
	if err == nil {
		r.installed, err = readInstallMeta(s.db, i)
	}
	if err == nil {
		r.marked, err = readMarked(s.db, i)
	}
	if err != nil {
		return r, fmt.Errorf("storage: state of shard %d: %w", i, err)
	}
	if err = r.sessions.load(s.db, i); err != nil {
		return r, err
	}
	r.nextExpiry, err = firstExpiry(s.db, nil, i, 0)
	if isDamage(err) {
		_ = s.damaged(i, err)
		r.nextExpiry, err = never, nil // rows that expire stay, and are not seen
	}
	return r, err
}

// checkShards fails if there is a record of a shard that is not ours.
func (s *Store) checkShards() (err error) {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: appendPrefix(nil, s.opts.Shards, 0), UpperBound: appendPrefix(nil, ownerShard, 0)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	if it.First() {
		return fmt.Errorf("storage: %s holds records beyond shard %d", s.opts.Dir, s.opts.Shards-1)
	}
	if err := it.Error(); !isDamage(err) {
		return err
	}
	return nil // a shard will find it
}

// Close makes everything applied durable, so that the next start replays
// nothing, and closes the database. It waits for calls that are under way;
// later ones return ErrClosed. After a fatal error nothing is flushed, and
// where a write hangs in the database it is abandoned open. It
// returns the same error however often it is called. It must not be called
// from OnFlush or from the function given to Scan.
func (s *Store) Close() error {
	s.closeOnce.Do(func() { s.closeErr = s.close() })
	return s.closeErr
}

func (s *Store) close() error {
	err := s.Flush()
	s.life.Lock()
	s.closed = true
	s.life.Unlock()
	if !awaitAll(&s.users, s.fatal.wrecked) || s.fatal.isWrecked() {
		close(s.closing)
		return errors.Join(err, errAbandoned)
	}
	err = errors.Join(err, s.holders.release())
	close(s.closing)
	// When Pebble cannot flush, a write that it has stalled waits without end.
	if !awaitAll(&s.background, s.fatal.raised) {
		return errors.Join(err, errAbandoned)
	}
	closed := s.closeDatabase()
	if errors.Is(closed, errAbandoned) {
		return errors.Join(err, closed) // there may still be readers of the cache
	}
	return errors.Join(err, closed, s.cache.close())
}

// awaitAll waits until all of g have ended, but not for long once failed is
// closed.
func awaitAll(g *sync.WaitGroup, failed <-chan struct{}) bool {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		g.Wait()
	}()
	select {
	case <-ended:
		return true
	case <-failed:
	}
	select {
	case <-ended:
		return true
	case <-time.After(abandonDelay):
		return false
	}
}

// exclusive is what a View and an Install have in common: one caller at a time
// uses it, and keeps the database open meanwhile.
type exclusive struct {
	store *Store
	mu    sync.Mutex
	err   error // why it is of no more use
}

// use excludes others until leave.
func (x *exclusive) use() error {
	if err := x.store.enter(); err != nil {
		return err
	}
	x.mu.Lock()
	if err := x.err; err != nil {
		x.leave()
		return err
	}
	return nil
}

func (x *exclusive) leave() {
	x.mu.Unlock()
	x.store.leave()
}

// enter keeps the database open until leave, or returns ErrClosed: Pebble
// panics when it is used after its end.
func (s *Store) enter() error {
	s.life.RLock()
	defer s.life.RUnlock()
	if s.closed {
		return ErrClosed
	}
	s.users.Add(1)
	return nil
}

func (s *Store) leave() { s.users.Done() }

// Applied returns the index of the last entry of shard whose effects readers
// see. It rises, but for RemoveShard.
func (s *Store) Applied(shard int) uint64 { return s.shards[shard].applied.Load() }

// Durable returns the applied index that shard would have after the loss of
// everything not synced. The log must keep the entries above it. It rises, but
// for RemoveShard; Store.Install raises it without a call of OnFlush.
func (s *Store) Durable(shard int) uint64 { return s.shards[shard].durable.Load() }

// Revision returns the highest version that shard has given to a row, 0 if
// none. A reader that has seen a row of version n is served nothing older by a
// replica whose Revision is at least n. It costs one atomic load.
func (s *Store) Revision(shard int) uint64 { return s.shards[shard].revision.Load() }

// LastStamp returns the highest stamp applied to shard, in Unix milliseconds.
// A leader never stamps below it; Apply counts a lower stamp as this one.
func (s *Store) LastStamp(shard int) uint64 { return s.shards[shard].stamp.Load() }

// SweepDue reports whether a Sweep of shard stamped nowMillis has work: an
// expiry to act on, or a session unused for Options.SessionRetention. It costs
// two atomic loads.
func (s *Store) SweepDue(shard int, nowMillis uint64) bool {
	sh := &s.shards[shard]
	if sh.nextExpiry.Load() <= nowMillis {
		return true
	}
	oldest := sh.oldestSession.Load()
	return oldest != never && nowMillis >= oldest && nowMillis-oldest >= s.opts.retentionMillis()
}

// SweepCommand returns the command to propose when SweepDue: it handles at
// most limit rows, and carries Options.SessionRetention.
func (s *Store) SweepCommand(limit uint32) command.Command {
	return command.Command{Kind: command.Sweep, Limit: limit, TTLMillis: s.opts.retentionMillis()}
}

func (o *Options) retentionMillis() uint64 {
	return uint64(max(o.SessionRetention.Milliseconds(), 1))
}

// publishSessions makes what SweepDue and Stats need visible to other
// goroutines.
func (sh *shardState) publishSessions() {
	sh.oldestSession.Store(sh.sessions.oldest())
	sh.sessionCount.Store(int64(len(sh.sessions.byID)))
}
