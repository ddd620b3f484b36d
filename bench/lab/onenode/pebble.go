//go:build linux

package onenode

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable"

	"github.com/proa-kv/proa/bench"
	"github.com/proa-kv/proa/bench/rig"
)

// engine is Pebble in this process: what a server without network and consensus
// could be at best. Its writes are synced; those of several callers share an
// fsync, as Pebble's commit pipeline has it.
type engine struct{ db *pebble.DB }

// openEngine opens Pebble on a fresh directory, with the blocks and filters that
// Proa's own state has, memtables of its own in place of Proa's, and
// Pebble's log.
func openEngine(dir string, cacheBytes int64) (*engine, error) {
	o := &pebble.Options{
		FormatMajorVersion:          pebble.FormatNewest,
		CacheSize:                   cacheBytes,
		MaxOpenFiles:                8 << 10, // all of them, as Proa's
		MemTableSize:                64 << 20,
		MemTableStopWritesThreshold: 4,
		L0CompactionThreshold:       2,
		L0StopWritesThreshold:       24,
		LBaseMaxBytes:               64 << 20,
		CompactionConcurrencyRange:  func() (int, int) { return 1, max(2, runtime.GOMAXPROCS(0)/2) },
		Logger:                      quietLogger{},
	}
	for i := range o.Levels {
		l := &o.Levels[i]
		l.BlockSize = 4 << 10
		l.IndexBlockSize = 256 << 10
		l.FilterPolicy = bloom.FilterPolicy(10)
		l.Compression = func() *sstable.CompressionProfile { return sstable.NoCompression }
		if i >= 5 {
			l.Compression = func() *sstable.CompressionProfile { return sstable.FastestCompression }
		}
	}
	db, err := pebble.Open(dir, o)
	if err != nil {
		return nil, fmt.Errorf("pebble: %w", err)
	}
	return &engine{db}, nil
}

// quietLogger keeps Pebble's chatter out of the progress. Its errors are
// returned by what has failed.
type quietLogger struct{}

func (quietLogger) Infof(string, ...any)  {}
func (quietLogger) Errorf(string, ...any) {}

// Fatalf is called where Pebble cannot go on.
func (quietLogger) Fatalf(format string, args ...any) {
	panic("pebble: " + fmt.Sprintf(format, args...))
}

func (e *engine) close() error { return e.db.Close() }

// load writes all rows in the version of a preload, and makes them durable.
func (e *engine) load(ctx context.Context, g *bench.Generator, keys uint64) error {
	const batchBytes = 1 << 20
	b := e.db.NewBatch()
	var key, value []byte
	for row := range keys {
		key, value = g.AppendKey(key[:0], row), g.AppendValue(value[:0], row, 0)
		if err := b.Set(key, value, nil); err != nil {
			return errors.Join(err, b.Close())
		}
		if b.Len() < batchBytes && row+1 < keys {
			continue
		}
		if err := errors.Join(b.Commit(pebble.NoSync), ctx.Err()); err != nil {
			return errors.Join(err, b.Close())
		}
		b.Reset()
	}
	return errors.Join(b.Close(), e.db.Flush())
}

// run makes the operations of the generators, each in a goroutine of its own,
// for so long, or until one fails. The CPU time is that of this process.
func (e *engine) run(ctx context.Context, generators []*bench.Generator, warmup, duration time.Duration) (s ycsbSample, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	l := rig.Loop{
		Callers: len(generators), Warmup: warmup, Duration: duration, Timeout: time.Minute,
		ServerCPU: func() (time.Duration, error) { return rig.OwnCPU(), nil },
	}
	all, kinds, err := l.Run(ctx, func(i int) rig.Call {
		c := &engineCaller{engine: e, Generator: generators[i]}
		return func(context.Context) (int, error) {
			kind, err := c.once()
			if err != nil {
				cancel(fmt.Errorf("pebble: %v: %w", kind, err))
			}
			return int(kind - bench.KindRead), err // 0 for a read, 1 for an update
		}
	}, error.Error)
	return ycsbSample{all, kinds[0], kinds[1]}, err
}

// engineCaller makes one operation after the other, reads and updates.
type engineCaller struct {
	*engine
	*bench.Generator
	key, value []byte
}

var errWrongRow = errors.New("a value that was never written to that row")

// once makes one operation.
func (c *engineCaller) once() (bench.Kind, error) {
	o := c.Next()
	c.key = c.AppendKey(c.key[:0], o.Row)
	if o.Kind == bench.KindUpdate {
		c.value = c.AppendValue(c.value[:0], o.Row, o.Version)
		return o.Kind, c.db.Set(c.key, c.value, pebble.Sync)
	}
	value, closer, err := c.db.Get(c.key)
	if err != nil {
		return o.Kind, err
	}
	if !c.Plausible(value, o.Row, false) {
		err = errWrongRow
	}
	return o.Kind, errors.Join(err, closer.Close())
}
