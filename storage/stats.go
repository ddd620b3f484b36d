package storage

// Stats is a summary of a Store for operators.
type Stats struct {
	RowCache RowCacheStats
	Sessions int64 // of all shards

	Flushes int64 // of memtables, since the store was opened

	// Of Pebble.
	L0Files          int64
	DiskBytes        uint64
	ReadAmp          int // tables that a read may have to look into
	Compactions      int64
	CompactionDebt   uint64 // bytes to compact until the tree is in shape
	BlockCacheBytes  int64
	BlockCacheHits   int64
	BlockCacheMisses int64
}

// Stats returns the current figures; after Close all are 0. It takes Pebble's
// mutex: meant for a scrape, not for each request.
func (s *Store) Stats() Stats {
	if s.enter() != nil {
		return Stats{}
	}
	defer s.leave()
	m := s.db.Metrics()
	st := Stats{
		RowCache:         s.cache.stats(),
		Flushes:          int64(s.flusher.ingestions.Load() / 2),
		L0Files:          m.Levels[0].TablesCount,
		DiskBytes:        m.DiskSpaceUsage(),
		ReadAmp:          m.ReadAmp(),
		Compactions:      m.Compact.Count,
		CompactionDebt:   m.Compact.EstimatedDebt,
		BlockCacheBytes:  m.BlockCache.Size,
		BlockCacheHits:   m.BlockCache.Hits,
		BlockCacheMisses: m.BlockCache.Misses,
	}
	for i := range s.shards {
		st.Sessions += s.shards[i].sessionCount.Load()
	}
	return st
}
