package server

import (
	"testing"

	"github.com/proa-kv/proa/protocol"
)

// TestLargeRepliesAreRenderedAside: a thread that polls leaves a large reply to
// others, whoever has made it, and writes small ones itself.
func TestLargeRepliesAreRenderedAside(t *testing.T) {
	s, _ := live(t, Config{Transport: "epoll"})
	th := newThread(s.front.(*epollFront))
	defer s.counters.unregister(&th.counts)
	tr := &counting{}
	reply := func(redis bool, size int) {
		c := s.newConn(tr)
		id := uint64(1)
		if redis {
			c.speakRESP()
			c.redis.fresh()
			id = requestID(c.redis.push(), 0)
		}
		c.mu.Lock()
		c.output().B = protocol.End(append(protocol.Begin(nil, verbatimCode, protocol.FlagReply, id), make([]byte, size)...), 0)
		c.mu.Unlock()
		th.send(c)
	}
	reply(true, 100)
	reply(false, 2*renderBytes) // is written in pieces
	if tr.kicks != 2 || len(th.jobs) != 0 {
		t.Errorf("%d of 2 were written, there are %d jobs", tr.kicks, len(th.jobs))
	}
	reply(true, 2*renderBytes)
	if tr.kicks != 2 || len(th.jobs) != 1 {
		t.Errorf("%d of 2 were written, there are %d jobs, want one", tr.kicks, len(th.jobs))
	}
	th.runJobs()
	if tr.kicks != 3 {
		t.Error("the large reply was not written")
	}
}

// counting is a transport that carries nothing and counts what it should.
type counting struct {
	deaf
	kicks int
}

func (tr *counting) kick(*conn) { tr.kicks++ }
