package storage

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable"
)

// panicDelay is how long OnFatal may take before an error that Pebble cannot
// survive ends the process.
const panicDelay = 5 * time.Second

// abandonDelay is how long Close waits for a store that has failed.
const abandonDelay = time.Second

var errAbandoned = errors.New("storage: a write still hangs in the database, which is left open")

// fatalState remembers the first fatal error and tells the owner once.
type fatalState struct {
	logger  *slog.Logger
	onFatal func(error)
	once    sync.Once
	err     atomic.Pointer[error]
	raised  chan struct{} // closed when err is set
	told    chan struct{} // closed when onFatal has returned
}

func (f *fatalState) init(o Options) {
	f.logger, f.onFatal = o.Logger, o.OnFatal
	f.raised = make(chan struct{})
	f.told = make(chan struct{})
}

// raise records and logs err and calls the owner's function from a goroutine of
// its own, since the caller may hold Pebble's mutex. Only the first call does
// anything: Pebble repeats failed work at once and without end.
func (f *fatalState) raise(message string, err error) {
	f.once.Do(func() {
		f.logger.Error(message, "error", err)
		_ = f.record(err)
		go func() {
			defer close(f.told)
			if f.onFatal != nil {
				f.onFatal(err)
			}
		}()
	})
}

// record sets the error without telling the owner, who is about to have it
// returned.
func (f *fatalState) record(err error) error {
	err = fmt.Errorf("%w: %w", ErrFailed, err)
	if f.err.CompareAndSwap(nil, &err) {
		close(f.raised)
	}
	return f.get()
}

func (f *fatalState) get() error {
	if err := f.err.Load(); err != nil {
		return *err
	}
	return nil
}

// pebbleLogger passes Pebble's errors on. Its chatter about flushes and
// compactions is left out; Stats has the figures.
type pebbleLogger struct{ s *Store }

func (l pebbleLogger) Infof(string, ...any) {}

func (l pebbleLogger) Errorf(format string, args ...any) {
	l.s.opts.Logger.Error("pebble", "error", fmt.Sprintf(format, args...))
}

// Fatalf must not return: Pebble calls it with its locks held and its state
// half changed, for example when the manifest cannot be synced.
func (l pebbleLogger) Fatalf(format string, args ...any) {
	err := fmt.Errorf("pebble: "+format, args...)
	l.s.fatal.raise("storage cannot go on", err)
	select {
	case <-l.s.fatal.told:
	case <-time.After(panicDelay):
	}
	panic(err)
}

// pebbleOptions tunes for short reads: level 0 kept shallow, a bloom filter on
// every level, the index of a table in one block. Against what writing costs in
// the background there are large tables of recent records, each a layer of level
// 0, and a first level below that is worth a merge with a few of them.
func (s *Store) pebbleOptions() *pebble.Options {
	o := basePebbleOptions(s.opts)
	o.FS = &pacedFS{o.FS, pacing{s.compactionHurries, &s.passes}, &s.over}
	o.DisableWAL = true
	// Pebble may queue an ingestion behind a memtable that overlaps with it, and
	// relies on its log to know it after a crash. Without a log the ingestion has
	// to wait until the memtable is flushed; ours are empty.
	o.Experimental.DisableIngestAsFlushable = func() bool { return true }
	o.Logger = pebbleLogger{s}
	o.EventListener = &pebble.EventListener{
		BackgroundError: s.backgroundError,
		DataCorruption: func(info pebble.DataCorruptionInfo) {
			s.fatal.raise("database is damaged", fmt.Errorf("%s: %w", info.Path, info.Details))
		},
		// On the goroutine of the compaction, which ends with it.
		CompactionBegin: func(pebble.CompactionInfo) { standBack() },
		CompactionEnd:   func(pebble.CompactionInfo) { notify(s.compacted) },
	}
	o.EnsureDefaults()
	return o
}

// basePebbleOptions are the settings that decide how data lie on disk, shared
// by a store that runs and by Verify.
func basePebbleOptions(opts Options) *pebble.Options {
	o := &pebble.Options{
		FS:                         opts.FS,
		FormatMajorVersion:         pebble.FormatNewest,
		CacheSize:                  opts.BlockCacheBytes,
		MaxOpenFiles:               opts.OpenFiles,
		MemTableSize:               256 << 10, // nothing goes into it
		L0CompactionThreshold:      compactionLayers,
		LBaseMaxBytes:              max(64<<20, 4*opts.RecentBytes),
		CompactionConcurrencyRange: func() (int, int) { return 1, max(2, runtime.GOMAXPROCS(0)/2) },
	}
	for i := range o.Levels {
		l := &o.Levels[i]
		l.BlockSize = 4 << 10
		l.IndexBlockSize = 256 << 10
		l.FilterPolicy = bloom.FilterPolicy(10)
		l.Compression = func() *sstable.CompressionProfile { return sstable.NoCompression }
		if i == len(o.Levels)-1 { // nine tenths of the bytes, the least of the writing
			l.Compression = func() *sstable.CompressionProfile { return sstable.FastestCompression }
		}
	}
	return o
}

// compactionLayers is how many layers level 0 has when a compaction begins.
const compactionLayers = 4

// level0Max is how many layers level 0 may have, each of which a read may have
// to look into, before drains wait for compactions.
const level0Max = 24

// backgroundError takes every failed compaction for fatal, although
// Pebble would try again: a sync that failed once may have lost what it was to
// make durable, and the next one would not say so (D2).
func (s *Store) backgroundError(err error) {
	if errors.Is(err, pebble.ErrCancelledCompaction) || errors.Is(err, pebble.ErrClosed) {
		return
	}
	s.fatal.raise("background work of the storage failed", err)
}

// failed takes an error of the store's own background work for fatal, unless it
// only says that the store has failed before, or is closed.
func (s *Store) failed(message string, err error) {
	if !errors.Is(err, ErrFailed) && !errors.Is(err, ErrClosed) {
		s.fatal.raise(message, err)
	}
}

// tellFlushed has OnFlush called, once for all that became durable since the
// last call began.
func (s *Store) tellFlushed() { notify(s.flushed) }

// notify leaves word in a channel of capacity 1.
func notify(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default: // there is word already
	}
}

// callOnFlush calls OnFlush when it is due, until the store is closed.
func (s *Store) callOnFlush() {
	defer s.background.Done()
	for {
		select {
		case <-s.closing:
			return
		case <-s.flushed:
		}
		if s.opts.OnFlush != nil {
			s.opts.OnFlush()
		}
	}
}

// Flush makes everything applied so far durable and returns when Durable says
// so. It fails with ErrFailed after a fatal error, and with ErrClosed.
func (s *Store) Flush() error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	return s.flush()
}

// flush does what Flush does, within a call that keeps the store open.
func (s *Store) flush() error {
	if err := s.fatal.get(); err != nil {
		return err
	}
	return s.drain()
}

// FlushAsync begins what Flush does and returns at once; OnFlush tells when it
// is done, even if there was nothing to do. It fails as Flush does.
func (s *Store) FlushAsync() error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	if err := s.fatal.get(); err != nil {
		return err
	}
	notify(s.flushAsked)
	return nil
}

// flushWhenAsked does the work of FlushAsync until the store is closed.
func (s *Store) flushWhenAsked() {
	defer s.background.Done()
	for {
		select {
		case <-s.closing:
			return
		case <-s.flushAsked:
		}
		if err := s.flush(); err != nil {
			s.failed("flush of the storage failed", err)
			continue
		}
		s.tellFlushed()
	}
}
