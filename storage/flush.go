package storage

import (
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/atomicfs"
)

// abandonDelay is how long Close waits for a store that has failed.
const abandonDelay = time.Second

var errAbandoned = errors.New("storage: a write to the database is still blocked; the database was left open")

// fatalState remembers the first fatal error and tells the owner once, or has
// Open return it.
type fatalState struct {
	logger  *slog.Logger
	onFatal func(error)
	once    sync.Once
	err     atomic.Pointer[error]
	raised  chan struct{} // closed when err is set

	wreck   sync.Once
	wrecked chan struct{} // closed when Pebble has stopped halfway

	opening sync.Mutex // guards opened
	opened  bool       // Open is about to return the store
}

func (f *fatalState) init(o Options) {
	f.logger, f.onFatal = o.Logger, o.OnFatal
	f.raised = make(chan struct{})
	f.wrecked = make(chan struct{})
}

// raise records and logs err and calls the owner's function from a goroutine of
// its own, since the caller may hold Pebble's mutex. Only the first call does
// anything: Pebble repeats failed work at once and without end. While the store
// is opened there is no owner yet.
func (f *fatalState) raise(message string, err error) {
	f.once.Do(func() {
		f.opening.Lock()
		defer f.opening.Unlock()
		_ = f.record(err)
		if !f.opened {
			return
		}
		f.logger.Error(message, "error", err)
		if f.onFatal != nil {
			go f.onFatal(err)
		}
	})
}

// open says that the owner is to be told from here on. It returns what there
// would have been to tell.
func (f *fatalState) open() error {
	f.opening.Lock()
	defer f.opening.Unlock()
	f.opened = true
	return f.get()
}

// isWrecked reports whether the database must not be touched any more.
func (f *fatalState) isWrecked() bool {
	select {
	case <-f.wrecked:
		return true
	default:
		return false
	}
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
	l.s.fatal.stop(fatalError(format, args))
}

// stop ends what the calling goroutine does in Pebble, which cannot go on. Below
// open it unwinds, to have the error returned. Elsewhere it keeps the goroutine,
// with Pebble's locks, so that nothing is built on what is half done: the owner
// is told, and Close leaves the database behind. A panic would end the process
// before the owner can say why.
func (f *fatalState) stop(err error) {
	f.wreck.Do(func() { close(f.wrecked) })
	f.raise("storage failed and cannot continue", err)
	if onStack(openFunction) {
		panic(openFatal{err})
	}
	select {}
}

// fatalError keeps the error that a message was made of, so that it can still
// be told what it is.
func fatalError(format string, args []any) error {
	text := fmt.Sprintf("pebble: "+format, args...)
	for _, a := range args {
		if cause, ok := a.(error); ok {
			return &causedError{text, cause}
		}
	}
	return errors.New(text)
}

// causedError is a text with an error behind it.
type causedError struct {
	text  string
	cause error
}

func (e *causedError) Error() string { return e.text }
func (e *causedError) Unwrap() error { return e.cause }

// openFatal is what stop panics with below open.
type openFatal struct{ err error }

// stoppingFS is the file system as Pebble sees it. When Pebble has moved a
// marker, which says what is the manifest or the format, and cannot sync the
// directory, it panics, on whatever goroutine that is. Here it stops instead.
type stoppingFS struct {
	vfs.FS
	fatal *fatalState
}

func (f *stoppingFS) Unwrap() vfs.FS { return f.FS }

func (f *stoppingFS) OpenDir(name string) (vfs.File, error) {
	dir, err := f.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return stoppingDir{dir, name, f.fatal}, nil
}

type stoppingDir struct {
	vfs.File
	name  string
	fatal *fatalState
}

func (d stoppingDir) Sync() error {
	err := d.File.Sync()
	if err != nil && onStack(moveFunction) {
		d.fatal.stop(fmt.Errorf("syncing the directory %s: %w", d.name, err))
	}
	return err
}

// Functions by the names that stacks have for them.
var (
	openFunction = runtime.FuncForPC(reflect.ValueOf((*Store).open).Pointer()).Name()
	moveFunction = runtime.FuncForPC(reflect.ValueOf((*atomicfs.Marker).Move).Pointer()).Name()
)

// onStack reports whether the calling goroutine runs below a function.
func onStack(function string) bool {
	var pcs [128]uintptr
	for frames := runtime.CallersFrames(pcs[:runtime.Callers(1, pcs[:])]); ; {
		frame, more := frames.Next()
		if frame.Function == function {
			return true
		}
		if !more {
			return false
		}
	}
}

// pebbleOptions tunes for short reads: level 0 kept shallow, a bloom filter on
// every level, the index of a table in one block. Against what writing costs in
// the background there are large tables of recent records, each a layer of level
// 0, and a first level below that is worth a merge with a few of them.
func (s *Store) pebbleOptions() *pebble.Options {
	o := basePebbleOptions(s.opts)
	o.FS = &stoppingFS{&pacedFS{&damagedFS{o.FS, s}, pacing{s.compactionHurries, &s.passes}, &s.over}, &s.fatal}
	fewest, most := o.CompactionConcurrencyRange()
	o.CompactionConcurrencyRange = func() (int, int) {
		held := int(s.damage.held.Load())
		return fewest + held, most + held
	}
	o.DisableWAL = true
	// Pebble may queue an ingestion behind a memtable that overlaps with it, and
	// relies on its log to know it after a crash. Without a log the ingestion has
	// to wait until the memtable is flushed; ours are empty.
	o.Experimental.DisableIngestAsFlushable = func() bool { return true }
	o.Experimental.CompactionScheduler = s.scheduler
	o.Logger = pebbleLogger{s}
	o.EventListener = &pebble.EventListener{
		BackgroundError: s.backgroundError,
		DataCorruption:  s.found,
		// On the goroutine of the compaction, which ends with it.
		CompactionBegin: func(pebble.CompactionInfo) { standBack() },
		CompactionEnd:   func(pebble.CompactionInfo) { notify(s.compacted) },
		TableIngested:   func(pebble.TableIngestInfo) { notify(s.scheduler.wake) },
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
		CompactionConcurrencyRange: func() (int, int) { return 1, compactionsMax(opts.RecentBytes) },
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

// frugalBytes is the size of a table of recent records below which the process has
// too little memory for several compactions at a time, each of which may hold a
// dozen copies of the largest rows.
const frugalBytes = 16 << 20

// compactionsMax is how many compactions may run at a time.
func compactionsMax(recentBytes int64) int {
	if recentBytes < frugalBytes {
		return 1
	}
	return max(2, runtime.GOMAXPROCS(0)/2)
}

// compactionLayers is how many layers level 0 has when a compaction begins.
const compactionLayers = 4

// level0Max is how many layers level 0 may have, each of which a read may have
// to look into, before drains wait for compactions.
const level0Max = 24

// backgroundError takes every failed compaction for fatal, although
// Pebble would try again: a sync that failed once may have lost what it was to
// make durable, and the next one would not say so (D2). What has come to damaged
// data has changed nothing; see damage.go.
func (s *Store) backgroundError(err error) {
	if isDamage(err) {
		return
	}
	if errors.Is(err, pebble.ErrCancelledCompaction) || errors.Is(err, pebble.ErrClosed) {
		return
	}
	s.fatal.raise("storage compaction or flush failed", err)
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
			s.failed("storage flush failed", err)
			continue
		}
		s.tellFlushed()
	}
}
