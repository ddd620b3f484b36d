package server

import (
	"fmt"
	"strings"
	"testing"

	"github.com/proa-kv/proa/internal/resptest"
	"github.com/proa-kv/proa/protocol"
)

// TestLargeRepliesOfTheListenerItself: what the Redis listener answers out of its own
// head is counted like any reply, and refused while there is no room for it.
func TestLargeRepliesOfTheListenerItself(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		s, _ := live(t, cfg)
		share := &s.admission.replies
		c := dialRedis(t, redisAddr(s))
		large := strings.Repeat("v", 512<<10)
		bulk := fmt.Sprintf("$%d\r\n%s\r\n", len(large), large)
		share.add(share.max) // others do not take theirs
		for _, name := range []string{"ECHO", "PING"} {
			if got := c.call(name, large); got != "-"+errNoReplyMemory+"\r\n" {
				t.Errorf("%s was answered %.80q", name, got)
			}
			if got := c.call(name, "small"); got != "$5\r\nsmall\r\n" {
				t.Errorf("a small %s was answered %.80q", name, got)
			}
		}
		c.want("MULTI", "+OK|")
		c.want("SET k v", "+QUEUED|")
		c.call("ECHO", large)
		c.want("EXEC", "-"+errNoReplyMemory+"|")
		c.want("GET k", "$-1|")
		share.give(share.max)
		for _, name := range []string{"ECHO", "PING"} {
			if got := c.call(name, large); got != bulk {
				t.Errorf("%s was answered %.80q", name, got)
			}
		}
		eventually(t, "nothing is counted", func() bool { return share.usedBytes() == 0 })

		// A client that takes nothing.
		const n = 20
		var b []byte
		for range n {
			for _, words := range [][]string{{"MULTI"}, {"SET", "k", "v"}, {"ECHO", large}, {"EXEC"}, {"ECHO", large}} {
				b = resptest.AppendRequest(b, words...)
			}
		}
		go func() { _, _ = c.Write(b) }() // as far as it is read
		eventually(t, "what it is owed counts", func() bool { return share.usedBytes() > 4*int64(len(large)) })
		for range n {
			for _, want := range []string{"+OK\r\n", "+QUEUED\r\n", "+QUEUED\r\n", "*2\r\n+OK\r\n" + bulk, bulk} {
				if got := c.next(); got != want {
					t.Fatalf("%.80q, want %.80q", got, want)
				}
			}
		}
		eventually(t, "nothing is counted any more", func() bool { return share.usedBytes() == 0 })
	})
}

// TestKeysAreCounted: the page that a walk looks at and what KEYS has collected
// count among the replies, and KEYS ends where there is no room.
func TestKeysAreCounted(t *testing.T) {
	s, addr := live(t, Config{})
	share := &s.admission.replies
	d := dial(t, addr)
	const rows, keyBytes = 3000, 100
	var m protocol.Batch
	for i := range rows {
		m.Ops = append(m.Ops, protocol.Op{Code: protocol.OpPut, Body: putBody(fmt.Sprintf("%0*d", keyBytes, i), "")})
	}
	want(t, d.call(protocol.OpBatch, m.AppendTo(nil)), protocol.StatusOK)

	p := newProcessor(s)
	defer s.counters.unregister(&p.counts)
	c := s.newConn(deaf{}, NewRedis(s, false))
	request := resptest.AppendRequest(nil, "KEYS", "*")
	most, answered := int64(0), ""
	for begun := false; answered == ""; {
		p.now, p.credit = s.backend.NowMillis(), 64 // turns are short
		if !begun {
			c.consume(p, request)
			begun = true
		} else if !c.paused.Load() {
			c.consume(p, nil)
		}
		if c.translator.Continues() {
			held := c.walked.Load()
			if used := share.usedBytes(); used < held-int64(s.admission.freeOutput) {
				t.Errorf("%d bytes are counted among the replies, %d are held", used, held)
			}
			most = max(most, held)
		}
		p.runJobs()
		c.mu.Lock()
		native := c.out
		c.out, c.marked = nil, false
		c.mu.Unlock()
		if native != nil {
			if out := c.translator.Render(native); out != nil {
				answered += string(out.B)
				out.Release()
			}
			native.Release()
		}
		c.unpause()
	}
	if !strings.HasPrefix(answered, fmt.Sprintf("*%d\r\n", rows)) || most < rows*keyBytes {
		t.Errorf("answered %.20q, at most %d bytes counted", answered, most)
	}
	c.mu.Lock()
	c.unaccount()
	c.mu.Unlock()
	if n := share.usedBytes(); n != 0 || c.walked.Load() != 0 {
		t.Errorf("%d bytes are counted, %d are held, after the answer", n, c.walked.Load())
	}

	r := dialRedis(t, redisAddr(s))
	share.mu.Lock()
	share.max = 1 // one page goes beyond it at a time
	share.mu.Unlock()
	if got := r.do("KEYS *"); !strings.HasPrefix(got, "-TRYAGAIN ") || !strings.Contains(got, "SCAN") {
		t.Errorf("without room KEYS was answered %.80q", got)
	}
	r.want("KEYS nothing*", "*0|")
	eventually(t, "nothing is counted", func() bool { return share.usedBytes() == 0 })
}

// TestEmptyOutputParksNothing: a large reply that is next does not wait behind an output
// buffer in which nothing is, since nobody writes that.
func TestEmptyOutputParksNothing(t *testing.T) {
	s, _ := live(t, Config{})
	c := s.newConn(deaf{}, NewRedis(s, false))
	j := job{c: c, large: &largeReply{bytes: 300_000}}
	for !c.translator.Next(j.id) {
		j.id++
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept.Store(64) // replies that wait for their turn
	c.granted = 64
	out := c.output()
	if c.parks(&j, s.cfg.OutputBytesMax) {
		t.Error("it is parked behind an empty buffer")
	}
	out.B = append(out.B, 1)
	if !c.parks(&j, s.cfg.OutputBytesMax) {
		t.Error("it is not parked behind output that is to be written")
	}
	c.granted = 0
	c.dropOutput()
}
