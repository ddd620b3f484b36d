package storage

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
)

// # Damaged tables
//
// A block of a table that does not have its checksum concerns the rows in it,
// and whoever depends on them; the rest of the database is what it was. So it is
// no reason to stop. What is found damaged is remembered here:
//
//   - A read that needs such a block fails with a DamageError, for its shard.
//   - Apply does not guess either. See Entry.Alone.
//   - A compaction that needs the block fails, and waits before it tries again.
//   - The inspector reads the whole file, to learn which shards are concerned,
//     and tells the owner of each (Options.OnDamage).
//   - A shard that is removed or replaced takes its damage along.
//
// Pebble looks for a flipped bit in a block of the wrong checksum, which takes
// some tenths of a second of processor time. To pay that once for each block,
// the file system below Pebble refuses to read it again (pebbleFS).

// ErrDamaged is wrapped by every DamageError.
var ErrDamaged = errors.New("storage: the data on disk is damaged")

// DamageError says that something of a shard cannot be read, because its file is
// damaged. Retrying does not help. It wraps ErrDamaged.
type DamageError struct {
	Shard int
	File  string // its name; empty: not known
	Err   error
}

func (e *DamageError) Error() string {
	if e.File == "" {
		return fmt.Sprintf("%v: shard %d", ErrDamaged, e.Shard)
	}
	return fmt.Sprintf("%v: shard %d, file %s", ErrDamaged, e.Shard, e.File)
}

// Unwrap returns ErrDamaged and the cause.
func (e *DamageError) Unwrap() []error { return []error{ErrDamaged, e.Err} }

// DamagedFile is a file of the database in which damage has been found.
type DamagedFile struct {
	File   string `json:"file"`   // its name
	Blocks int    `json:"blocks"` // that are known to be damaged; 0: the file cannot be opened
	Shards []int  `json:"shards"` // that need something of it that cannot be read
}

// damage is what is known to be damaged.
type damage struct {
	store   *Store
	options *pebble.Options // with which damaged files are read
	any     atomic.Bool     // there are files

	mu    sync.Mutex
	files map[string]*damagedFile // by path

	news chan struct{} // capacity 1: there is something to inspect
	held atomic.Int32  // compactions that wait
	rest time.Duration // of compactions, compactionRest but for tests
}

type damagedFile struct {
	blocks map[int64]int64 // where they begin, how long they are
	shards map[int]bool
	due    bool // it has to be inspected
}

// compactionRest is how long a compaction waits that has come to a damaged block. Where Pebble can it leaves such a compaction alone by itself, for
// five minutes; at level 0 it cannot.
const compactionRest = time.Minute

func (d *damage) init(s *Store) {
	d.store = s
	d.files = make(map[string]*damagedFile)
	d.news = make(chan struct{}, 1)
	d.rest = compactionRest
}

// isDamage reports whether err says that data are damaged, and not that the disk
// does not do what it is asked.
func isDamage(err error) bool {
	return err != nil && (errors.Is(err, ErrDamaged) || pebble.IsCorruptionError(err))
}

// found takes in what Pebble has found, on whatever goroutine, perhaps with its
// locks held. A compaction is held here and not where it reads: there it would have
// readers of the same block or file wait for it.
func (d *damage) found(info pebble.DataCorruptionInfo) {
	offset, length, isBlock := blockOf(info.Details)
	d.mu.Lock()
	f := d.files[info.Path]
	first := f == nil
	if first {
		f = &damagedFile{blocks: make(map[int64]int64), shards: make(map[int]bool), due: true}
		d.files[info.Path] = f
		d.any.Store(true)
	}
	if _, known := f.blocks[offset]; isBlock && !known {
		f.blocks[offset] = length
		f.due = true
	}
	due := f.due
	d.mu.Unlock()
	if first {
		d.store.opts.Logger.Error("state file is damaged; requests that need the damaged part are refused", "file", info.Path, "error", info.Details.Error())
	}
	if due {
		notify(d.news)
	}
	if onStack(compactFunction) {
		d.holdCompaction()
	}
}

// blockTrailer is what follows a block: how it is compressed, and a checksum.
const blockTrailer = 5

// blockOf returns where the block is that err says is damaged, if it says so.
func blockOf(err error) (offset, length int64, ok bool) {
	text := err.Error()
	at := strings.Index(text, "block ")
	if at < 0 {
		return 0, 0, false
	}
	if n, _ := fmt.Sscanf(text[at:], "block %d/%d: ", &offset, &length); n != 2 {
		return 0, 0, false
	}
	return offset, length + blockTrailer, true
}

// damaged turns an error of reading something of shard into a DamageError where
// that is what it is, and takes it in.
func (s *Store) damaged(shard int, err error) error {
	if !isDamage(err) {
		return err
	}
	if _, known := errors.AsType[*DamageError](err); known {
		return err
	}
	path, name := "", ""
	if info := pebble.ExtractDataCorruptionInfo(err); info != nil {
		path, name = info.Path, filepath.Base(info.Path)
	}
	s.damage.concerns(path, shard, s.shards[shard].generation.Load())
	return &DamageError{shard, name, err}
}

// concerns takes in that damage to the file at path, if that is known, concerns
// what shard was at a generation.
func (d *damage) concerns(path string, shard int, generation uint64) {
	sh := &d.store.shards[shard]
	d.mu.Lock()
	defer d.mu.Unlock()
	if sh.generation.Load() != generation {
		return // it has been replaced
	}
	if f := d.files[path]; f != nil {
		f.shards[shard] = true
	}
	if !sh.damaged.Swap(true) {
		notify(d.news) // the inspector tells
	}
}

// settle forgets that damage concerns shard: nothing is left of what it was.
func (d *damage) settle(shard int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, f := range d.files {
		delete(f.shards, shard)
	}
	d.store.shards[shard].sound()
}

// sound says that no damage of the shard is known any more.
func (sh *shardState) sound() {
	sh.damaged.Store(false)
	sh.damageReported.Store(false)
}

// forget forgets a file that is no more, and what only it has done to shards.
func (d *damage) forget(path string) {
	if !d.any.Load() {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	gone := d.files[path]
	if gone == nil {
		return
	}
	delete(d.files, path)
	d.any.Store(len(d.files) > 0)
	for shard := range gone.shards {
		still := false
		for _, f := range d.files {
			still = still || f.shards[shard]
		}
		if !still {
			d.store.shards[shard].sound()
		}
	}
}

// covers reports whether a read of n bytes from offset on would meet a block that
// is known to be damaged.
func (d *damage) covers(path string, offset, n int64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.files[path]
	if f == nil {
		return false
	}
	for at, length := range f.blocks {
		if at < offset+n && offset < at+length {
			return true
		}
	}
	return false
}

// Damaged reports whether something of shard is known to be unreadable, because
// its file is damaged. It costs one atomic load.
func (s *Store) Damaged(shard int) bool { return s.shards[shard].damaged.Load() }

// Damage returns the files that are known to be damaged and that some shard
// needs, by name.
func (s *Store) Damage() []DamagedFile {
	d := &s.damage
	if !d.any.Load() {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []DamagedFile
	for path, f := range d.files {
		if len(f.shards) > 0 {
			all = append(all, DamagedFile{filepath.Base(path), len(f.blocks), slices.Sorted(maps.Keys(f.shards))})
		}
	}
	slices.SortFunc(all, func(a, b DamagedFile) int { return cmp.Compare(a.File, b.File) })
	return all
}

// inspect finds out which shards new damage concerns, and tells the owner, until
// the store is closed.
func (d *damage) inspect() {
	s := d.store
	defer s.background.Done()
	for {
		d.report()
		select {
		case <-s.closing:
			return
		case <-d.news:
		}
		for _, path := range d.takeDue() {
			var inspection sync.WaitGroup
			inspection.Go(func() { d.inspectFile(path) })
			inspection.Wait()
		}
	}
}

// report tells the owner of shards that have been found damaged.
func (d *damage) report() {
	s := d.store
	for i := range s.shards {
		if sh := &s.shards[i]; !sh.damaged.Load() || sh.damageReported.Swap(true) {
			continue
		}
		if s.opts.OnDamage != nil {
			s.opts.OnDamage(i)
		}
	}
}

// takeDue returns the files to be inspected.
func (d *damage) takeDue() (paths []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for path, f := range d.files {
		if f.due {
			f.due = false
			paths = append(paths, path)
		}
	}
	return paths
}

// inspectFile reads what the file at path has of each shard, as far as it is
// still part of the database, up to what is damaged.
func (d *damage) inspectFile(path string) {
	lowerPriority()
	s := d.store
	var generations []uint64 // before the look at what is in use
	for i := range s.shards {
		generations = append(generations, s.shards[i].generation.Load())
	}
	levels, err := s.db.SSTables()
	for _, tables := range levels {
		for i := range tables {
			if t := &tables[i]; err == nil && t.BackingSSTNum.String()+".sst" == filepath.Base(path) {
				err = d.inspectShards(path, t.Smallest.UserKey, t.Largest.UserKey, generations)
			}
		}
	}
	if err != nil {
		s.opts.Logger.Warn("cannot scan a damaged state file completely", "file", path, "error", err)
	}
}

// inspectShards reads the part of a file with the keys from lower to upper.
func (d *damage) inspectShards(path string, lower, upper []byte, generations []uint64) error {
	s := d.store
	if len(lower) < shardBytes || len(upper) < shardBytes {
		return nil
	}
	r, err := openTable(d.options, path)
	if isDamage(err) || errors.Is(err, fs.ErrNotExist) { // all of it is of no use
		for shard := shardOf(lower); shard <= min(shardOf(upper), len(s.shards)-1); shard++ {
			d.concerns(path, shard, generations[shard])
		}
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	for shard := shardOf(lower); shard <= min(shardOf(upper), len(s.shards)-1); shard++ {
		select {
		case <-s.closing:
			return nil
		default:
		}
		from, to := shardBounds(shard)
		from, to = from[:shardBytes], to[:shardBytes]
		if bytes.Compare(from, lower) < 0 {
			from = lower
		}
		if bytes.Compare(upper, to) < 0 {
			to = append(bytes.Clone(upper), 0)
		}
		if err := readThrough(r, from, to); isDamage(err) {
			d.add(path, err)
			d.concerns(path, shard, generations[shard])
		} else if err != nil {
			return err
		}
	}
	return nil
}

// add takes in a block that the inspector has found.
func (d *damage) add(path string, err error) {
	offset, length, ok := blockOf(err)
	d.mu.Lock()
	defer d.mu.Unlock()
	if f := d.files[path]; f != nil && ok {
		f.blocks[offset] = length
	}
}

// readThrough reads the records of a table within [from, to).
func readThrough(r *sstable.Reader, from, to []byte) (err error) {
	it, err := r.NewIter(sstable.NoTransforms, from, to, sstable.AssertNoBlobHandles)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for kv := it.SeekGE(from, 0); kv != nil; kv = it.Next() {
		if _, _, err := kv.Value(nil); err != nil {
			return err
		}
	}
	if err := it.Error(); err != nil {
		return err
	}
	it.SeekPrefixGE(from, from, 0) // looks at the filter
	return it.Error()
}

// shardOf returns the shard of a key of the database.
func shardOf(key []byte) int { return int(key[0])<<8 | int(key[1]) }

// CheckEdges fails with a DamageError, which names a shard beside shard, where that
// keeps shard from being removed or replaced. It reads the disk.
func (s *Store) CheckEdges(shard int) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	return shardRange{s, shard, shard}.checkEdges()
}

// compactFunction is what compactions run below while they hold no lock of Pebble.
const compactFunction = "github.com/cockroachdb/pebble/v2.(*DB).compactAndWrite"

// holdCompaction lets a compaction that is about to fail wait, and lets Pebble
// begin another one meanwhile.
func (d *damage) holdCompaction() {
	d.held.Add(1)
	defer d.held.Add(-1)
	select {
	case <-d.store.closing:
	case <-time.After(d.rest):
	}
}
