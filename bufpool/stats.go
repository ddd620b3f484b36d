package bufpool

import "sync/atomic"

// Statistics describes the buffers of the whole process. Counts taken while
// buffers come and go are each right for some moment near the call, not all
// for the same one.
type Statistics struct {
	Gets        uint64 // buffers handed out since the start
	LiveBuffers int64  // handed out and not yet released
	LiveBytes   int64  // memory behind the live buffers, in bytes
}

// Counters are striped, and a buffer header keeps to one stripe. Headers are
// pooled per processor, so a stripe is seldom touched by two of them at once,
// and counting costs one uncontended atomic addition per Get and Release.
const stripes = 16

type stripe struct {
	gets, gone    [classes + 1]atomic.Int64 // memory taken and given back, by class
	unpooledBytes atomic.Int64              // live bytes of the class unpooled
	moves         atomic.Int64              // memory taken by Grow, not by Get
	_             [64]byte                  // keeps neighbours off the last cache line
}

var (
	counters   [stripes]stripe
	lastStripe atomic.Uint32
)

func nextStripe() *stripe { return &counters[lastStripe.Add(1)%stripes] }

func (s *stripe) took(class int8, size int) {
	s.gets[class].Add(1)
	if class == unpooled {
		s.unpooledBytes.Add(int64(size))
	}
}

func (s *stripe) gave(class int8, size int) {
	s.gone[class].Add(1)
	if class == unpooled {
		s.unpooledBytes.Add(-int64(size))
	}
}

func (s *stripe) moved(from int8, fromSize int, to int8, toSize int) {
	s.moves.Add(1)
	s.took(to, toSize)
	s.gave(from, fromSize)
}

// Stats returns the statistics of the whole process. It is safe from any
// goroutine and reads a few kilobytes of counters.
func Stats() Statistics {
	var st Statistics
	for i := range counters {
		s := &counters[i]
		moves := s.moves.Load()
		st.Gets -= uint64(moves)
		for c := range s.gets {
			// What is gone is read first, so that a live count is never negative.
			gone := s.gone[c].Load()
			gets := s.gets[c].Load()
			st.Gets += uint64(gets)
			st.LiveBuffers += gets - gone
			if c != unpooled {
				st.LiveBytes += (gets - gone) * (ClassBytesMin << c)
			}
		}
		st.LiveBytes += s.unpooledBytes.Load()
	}
	return st
}
