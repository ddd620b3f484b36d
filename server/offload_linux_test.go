package server

import (
	"testing"

	"github.com/proa-kv/proa/internal/wrongport"
	"github.com/proa-kv/proa/protocol"
)

// TestLargeRepliesAreRenderedAside: a thread that polls leaves a large reply to
// others, whoever has made it, and writes small ones itself.
func TestLargeRepliesAreRenderedAside(t *testing.T) {
	s, _ := live(t, Config{Transport: "epoll"})
	th := newThread(s.transport.(*epollTransport))
	defer s.counters.unregister(&th.counts)
	tr := &counting{}
	reply := func(translated bool, size int) {
		var speaks Protocol
		if translated {
			speaks = foreign{}
		}
		c := s.newConn(tr, speaks)
		c.mu.Lock()
		c.output().B = protocol.End(append(protocol.Begin(nil, uint8(protocol.StatusOK), protocol.FlagReply, 1), make([]byte, size)...), 0)
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

// foreign is a protocol that is translated, into what it was.
type foreign struct{}

func (foreign) Scheme() string            { return "foreign" }
func (foreign) Port() wrongport.Port      { return wrongport.Client }
func (foreign) Attach(c *Conn) Translator { return native{c} }

// counting is a socket that carries nothing and counts what it should.
type counting struct {
	deaf
	kicks int
}

func (tr *counting) kick(*conn) { tr.kicks++ }
