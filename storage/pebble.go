package storage

import (
	"runtime"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable"
)

// pebbleOptions tunes for short reads: level 0 kept shallow, a bloom filter on
// every level, the index of a table in one block. Against what writing costs in
// the background there are large memtables, each a layer of level 0, and a first level below that is worth a merge with a few of them.
func pebbleOptions(s *Store) *pebble.Options {
	o := basePebbleOptions(s.opts)
	o.FS = &pebbleFS{o.FS, s}
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
		BackgroundError: s.fatal.backgroundError,
		DataCorruption:  s.damage.found,
		// On the goroutine of the compaction, which ends with it.
		CompactionBegin: func(pebble.CompactionInfo) { lowerPriority() },
		CompactionEnd:   func(pebble.CompactionInfo) { notify(s.flusher.compacted) },
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
		LBaseMaxBytes:              max(64<<20, 4*opts.MemtableBytes),
		CompactionConcurrencyRange: func() (int, int) { return 1, compactionsMax(opts.MemtableBytes) },
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

// frugalBytes is the size of a memtable below which the process has
// too little memory for several compactions at a time, each of which may hold a
// dozen copies of the largest rows.
const frugalBytes = 16 << 20

// compactionsMax is how many compactions may run at a time.
func compactionsMax(memtableBytes int64) int {
	if memtableBytes < frugalBytes {
		return 1
	}
	return max(2, runtime.GOMAXPROCS(0)/2)
}

// compactionLayers is how many layers level 0 has when a compaction begins.
const compactionLayers = 4

// level0Max is how many layers level 0 may have, each of which a read may have
// to look into, before flushes wait for compactions.
const level0Max = 24
