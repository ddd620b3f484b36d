package server

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/proa-kv/proa/bufpool"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/internal/resptest"
	"github.com/proa-kv/proa/protocol"
)

func newShare(max int64) *share { return &share{max: max, wake: make(chan struct{}, 1)} }

func TestShareIsFirstComeFirstServed(t *testing.T) {
	s := newShare(100)
	var a, b, c, d claim
	if !s.ask(&a, 60, 60) || s.ask(&b, 60, 60) || s.ask(&c, 10, 10) {
		t.Fatal("60 of 100 bytes are free for the first, and not for the second; the third stands behind it")
	}
	if s.take(1) {
		t.Error("what does not wait has overtaken what does")
	}
	if k := s.next(); k != nil {
		t.Fatal("granted although nothing was given back")
	}
	s.drop(&a)
	if s.next() != &b || s.next() != &c || s.next() != nil || s.used != 70 {
		t.Fatalf("the two that waited get their turn in order; %d bytes are used", s.used)
	}
	if s.ask(&d, 500, 500) {
		t.Fatal("what is larger than the share is granted beside others")
	}
	s.drop(&b)
	s.drop(&c)
	if s.next() != &d {
		t.Fatal("what is larger than the share is granted alone")
	}
	s.drop(&d)
	if s.used != 0 || s.contended() || !s.take(1000) {
		t.Errorf("%d bytes are used at the end", s.used)
	}
}

func TestShareForgetsWhoLeaves(t *testing.T) {
	s := newShare(100)
	var a, b, c claim
	s.ask(&a, 100, 100)
	s.ask(&b, 100, 100)
	s.ask(&c, 50, 50)
	s.drop(&b)
	s.drop(&a)
	if s.next() != &c || s.next() != nil || s.used != 50 || s.contended() {
		t.Errorf("%d bytes are used, want those of the third alone", s.used)
	}
}

// Claims that grow would wait for each other for ever if none could go beyond
// the share.
func TestShareLetsOneOfThoseThatGrowEnd(t *testing.T) {
	s := newShare(100)
	var a, b, whole, part, fresh claim
	if !s.ask(&a, 25, 200) || !s.ask(&b, 25, 200) || !s.ask(&whole, 10, 10) {
		t.Fatal("there is room for parts in one half, and for what is whole in all of the share")
	}
	if s.ask(&part, 10, 200) {
		t.Fatal("parts have taken more than half")
	}
	s.drop(&whole)
	if !s.ask(&a, 40, 200) || a.held != 200 {
		t.Fatalf("the first that grows holds %d bytes, want all it will ever need", a.held)
	}
	if s.ask(&b, 40, 200) || s.ask(&fresh, 10, 10) {
		t.Fatal("two have gone beyond the share")
	}
	s.drop(&a)
	if s.next() != &b || b.held != 40 || s.next() != &part || s.next() != &fresh {
		t.Fatal("the second that grows comes next, and before who holds nothing")
	}
}

// TestShareOfThoseWhoStop: how long those that have sent a little and then stop can
// make others wait depends on what they have sent, not on what they announce.
func TestShareOfThoseWhoStop(t *testing.T) {
	const max, peers = 32 << 20, 1000
	for _, announced := range []int64{1 << 20, 15 << 20} {
		s := newShare(max)
		holding := map[*claim]bool{}
		for range peers {
			k := new(claim)
			if s.ask(k, min(4*LargeBytes, announced), announced) {
				holding[k] = true
			}
		}
		var honest claim
		granted, rounds := s.ask(&honest, 100<<10, 100<<10), 0
		for ; !granted; rounds++ {
			for k := range holding { // they are expelled
				s.drop(k)
			}
			clear(holding)
			for k := s.next(); k != nil; k = s.next() {
				granted = granted || k == &honest
				holding[k] = true
			}
			if used := s.usedBytes(); used > max {
				t.Fatalf("%d bytes are used", used)
			}
		}
		if most := peers*4*LargeBytes/(max/2) + 1; rounds > most {
			t.Errorf("%d rounds of expulsions where %d bytes are announced, want at most %d", rounds, announced, most)
		}
	}
}

// Replies over RESP that stand behind a large one are made and counted, and
// cannot be sent before it.
func TestShareLetsTheHeadOfRepliesEnd(t *testing.T) {
	s := newShare(100)
	s.add(60) // behind the head
	var native claim
	head, second := claim{head: true, deadline: 1000}, claim{head: true, deadline: 1000}
	if s.ask(&native, 80, 80) {
		t.Fatal("no 80 bytes are free")
	}
	if !s.ask(&head, 70, 70) {
		t.Fatal("the head of replies waits for those behind it")
	}
	if s.ask(&second, 70, 70) {
		t.Fatal("two have gone beyond the share")
	}
	if s.overdue(1001) != &second {
		t.Fatal("a head does not expire")
	}
	s.drop(&head)
	s.give(60)
	if s.next() != &native || s.next() != nil || s.used != 80 || s.contended() {
		t.Errorf("%d bytes are used, want those of the one that has waited", s.used)
	}
}

func TestShareExpires(t *testing.T) {
	s := newShare(100)
	var a claim
	b := claim{deadline: 1000}
	s.ask(&a, 100, 100)
	s.ask(&b, 1, 1)
	if s.overdue(1000) != nil || s.overdue(1001) != &b || s.overdue(1001) != nil {
		t.Fatal("a claim is taken out when its deadline has passed, once")
	}
	s.drop(&b)
	s.drop(&a)
	if s.next() != nil || s.used != 0 || s.contended() {
		t.Error("the claim that has expired is granted after all")
	}
}

// TestShareModel plays any order of events. Whoever holds all it will need
// ends at some time; then everybody gets a turn, and the share is exceeded by
// no more than one claim.
func TestShareModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const most = 40
		s := newShare(rapid.Int64Range(1, 100).Draw(t, "max"))
		size := rapid.Int64Range(1, most)
		var holding, waiting []*claim
		grant := func() {
			for k := s.next(); k != nil; k = s.next() {
				for i, x := range waiting {
					if x == k {
						waiting = append(waiting[:i:i], waiting[i+1:]...)
					}
				}
				holding = append(holding, k)
			}
		}
		end := func(i int) {
			s.drop(holding[i])
			holding = append(holding[:i:i], holding[i+1:]...)
			grant()
		}
		t.Repeat(map[string]func(*rapid.T){
			"arrive": func(t *rapid.T) {
				k := &claim{head: rapid.Bool().Draw(t, "head")}
				n := size.Draw(t, "bytes")
				if s.ask(k, n, rapid.SampledFrom([]int64{n, most}).Draw(t, "most")) {
					holding = append(holding, k)
				} else {
					waiting = append(waiting, k)
				}
			},
			"grow": func(t *rapid.T) {
				for i, k := range holding {
					if k.held < k.most {
						if !s.ask(k, rapid.Int64Range(k.held+1, k.most).Draw(t, "bytes"), k.most) {
							holding = append(holding[:i:i], holding[i+1:]...)
							waiting = append(waiting, k)
						}
						return
					}
				}
			},
			"end": func(t *rapid.T) {
				if len(holding) > 0 {
					end(rapid.IntRange(0, len(holding)-1).Draw(t, "which"))
				}
			},
			"leave": func(t *rapid.T) {
				if len(waiting) > 0 {
					i := rapid.IntRange(0, len(waiting)-1).Draw(t, "which")
					s.drop(waiting[i])
					waiting = append(waiting[:i:i], waiting[i+1:]...)
					grant()
				}
			},
			"": func(t *rapid.T) {
				var held int64
				for _, k := range append(holding[:len(holding):len(holding)], waiting...) {
					held += k.held
				}
				if s.full() != (held >= s.max) {
					t.Fatalf("%d bytes of %d are used; full: %v", held, s.max, s.full())
				}
				if s.used != held || held > s.max+most || s.contended() != (len(waiting) > 0) {
					t.Fatalf("%d bytes are used of %d, the claims hold %d, %d wait", s.used, s.max, held, len(waiting))
				}
				if len(waiting) > 0 && len(holding) == 0 {
					t.Fatalf("%d wait and nobody goes on", len(waiting))
				}
			},
		})
		for len(holding) > 0 {
			end(0)
		}
		if len(waiting) > 0 || s.used != 0 {
			t.Fatalf("%d never got a turn, %d bytes are still used", len(waiting), s.used)
		}
	})
}

// A server with so little memory admits two such requests at a time.
const (
	crowdMemory  = 16 << 20 // of which 2 MiB are for large requests
	crowdRequest = 1 << 20
)

// TestLargeRequestsTakeTurns sends far more at once than there is memory for.
// Every request is carried out, and small ones do not wait for any of them.
func TestLargeRequestsTakeTurns(t *testing.T) {
	const clients = 40
	value := strings.Repeat("v", crowdRequest)
	put := protocol.Put{Key: []byte("large"), Value: []byte(value)}
	native := frame(protocol.OpPut, 7, put.AppendTo(nil))
	set := fmt.Appendf(nil, "*3\r\n$3\r\nSET\r\n$5\r\nlarge\r\n$%d\r\n%s\r\n", crowdRequest, value)
	half := value[:crowdRequest/2]
	mset := fmt.Appendf(nil, "*5\r\n$4\r\nMSET\r\n$4\r\n{m}1\r\n$%d\r\n%s\r\n$4\r\n{m}2\r\n$%d\r\n%s\r\n", len(half), half, len(half), half)
	transports(t, func(t *testing.T, cfg Config) {
		cfg.MemoryBytesMax = crowdMemory
		s, addr := live(t, cfg)
		small := dial(t, addr)
		type peer struct {
			request []byte
			nc      io.Writer
			ok      func() error // reads the answer
		}
		var peers []peer
		for i := range clients {
			switch i % 4 {
			case 0:
				c := dialRedis(t, redisAddr(s))
				peers = append(peers, peer{[][]byte{set, mset}[i/4%2], c, func() error { return c.expect("+OK\r\n") }})
			default:
				d := dial(t, addr)
				peers = append(peers, peer{native, d.nc, d.expectOK})
			}
		}
		for _, p := range peers { // all have begun; a few are admitted, whose other half does not come
			if _, err := p.nc.Write(p.request[:100<<10]); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, "some wait", func() bool { return s.admission.requests.large.waiting.Load() > clients/2 })
		if f := small.put("small", "v"); protocol.Status(f.Code) != protocol.StatusOK {
			t.Fatalf("a small PUT beside %d that wait: %v", s.admission.requests.large.waiting.Load(), protocol.Status(f.Code))
		}
		failed := make(chan error, clients)
		for _, p := range peers {
			go func() {
				_, err := p.nc.Write(p.request[100<<10:])
				if err == nil {
					err = p.ok()
				}
				failed <- err
			}()
		}
		for range peers {
			if err := <-failed; err != nil {
				t.Error(err)
			}
			if f := small.put("small", "v"); protocol.Status(f.Code) != protocol.StatusOK {
				t.Fatalf("a small PUT: %v", protocol.Status(f.Code))
			}
		}
		eventually(t, "all memory is given back", func() bool {
			r := &s.admission.requests
			return r.middle.usedBytes()+r.large.usedBytes() == 0 && !r.middle.contended() && !r.large.contended()
		})
	}, Pauses)
}

// expectOK reads one reply.
func (d *dialer) expectOK() error {
	f, err := d.tryReceive()
	if err == nil && protocol.Status(f.Code) != protocol.StatusOK {
		err = fmt.Errorf("answered %v: %q", protocol.Status(f.Code), f.Body)
	}
	return err
}

func (c *redisClient) expect(reply string) error {
	_, err := c.Read()
	if err == nil && string(c.Raw()) != reply {
		err = fmt.Errorf("answered %q", c.Raw())
	}
	return err
}

// announcements are the first bytes of a large request in either protocol, and where
// it goes.
func announcements(s *Server, addr net.Addr, size int) map[string]func(*testing.T) (nc net.Conn, request []byte, ok string) {
	value := strings.Repeat("v", size)
	put := protocol.Put{Key: []byte("large"), Value: []byte(value)}
	return map[string]func(*testing.T) (net.Conn, []byte, string){
		"native": func(t *testing.T) (net.Conn, []byte, string) {
			return dial(t, addr).nc, frame(protocol.OpPut, 7, put.AppendTo(nil)), ""
		},
		"redis": func(t *testing.T) (net.Conn, []byte, string) {
			nc, _ := dialListener(t, s)
			return nc, resptest.AppendRequest(nil, "SET", "large", value), "+OK\r\n"
		},
	}
}

// awaitRead waits until the server has read n bytes more than before bytes.
func (s *Server) awaitRead(t *testing.T, before uint64, n int) {
	t.Helper()
	eventually(t, "all is read", func() bool { return s.counters.bytesIn.Load() >= before+uint64(n) })
}

// TestAnnouncedIsNotHeld: who announces a large request and sends nothing keeps
// nobody waiting, however many do so.
func TestAnnouncedIsNotHeld(t *testing.T) {
	const peers = 60
	transports(t, func(t *testing.T, cfg Config) {
		cfg.MemoryBytesMax = crowdMemory
		s, addr := live(t, cfg)
		share := &s.admission.requests.large
		for range peers / 2 {
			for _, open := range announcements(s, addr, crowdRequest) {
				nc, request, _ := open(t)
				before := s.counters.bytesIn.Load()
				if _, err := nc.Write(request[:100]); err != nil {
					t.Fatal(err)
				}
				s.awaitRead(t, before, 100)
			}
		}
		if used := share.usedBytes(); used > 0 || share.contended() {
			t.Fatalf("those who have announced hold %d bytes, some wait: %v", used, share.contended())
		}
		want(t, dial(t, addr).put("k", strings.Repeat("v", 100<<10)), protocol.StatusOK)
		if got := dialRedis(t, redisAddr(s)).call("SET", "k", strings.Repeat("v", 100<<10)); got != "+OK\r\n" {
			t.Errorf("SET is answered %q", got)
		}
		if n := s.conns.len(); n != peers+2 {
			t.Errorf("%d connections are left: some were expelled", n)
		}
	})
}

// TestMiddlingDoNotWaitForLarge: what needs no more than middleBytes is carried out
// while larger requests use all of their memory and wait.
func TestMiddlingDoNotWaitForLarge(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		s, addr := live(t, cfg)
		large := &s.admission.requests.large
		large.add(large.max)
		defer large.give(large.max)
		for _, open := range announcements(s, addr, crowdRequest) {
			nc, request, _ := open(t)
			if _, err := nc.Write(request[:2*LargeBytes]); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, "both wait", func() bool { return large.waiting.Load() == 2 })
		value := strings.Repeat("v", middleBytes-1000)
		want(t, dial(t, addr).put("k", value), protocol.StatusOK)
		if got := dialRedis(t, redisAddr(s)).call("SET", "k", value); got != "+OK\r\n" {
			t.Errorf("SET is answered %q", got)
		}
	})
}

// TestMemoryFollowsBytes: a request that has not arrived holds at most four times
// what has.
func TestMemoryFollowsBytes(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		s, addr := live(t, cfg)
		for name, open := range announcements(s, addr, 3<<20) {
			nc, request, ok := open(t)
			for sent := 0; sent < len(request)-1; {
				n := min(max(sent, 100), len(request)-1-sent)
				before := s.counters.bytesIn.Load()
				if _, err := nc.Write(request[sent:][:n]); err != nil {
					t.Fatal(err)
				}
				sent += n
				s.awaitRead(t, before, n)
				if used := s.admission.requests.large.usedBytes(); used > max(4*int64(sent), partMin) || used > 0 && sent < LargeBytes {
					t.Errorf("%s: %d bytes are held for %d", name, used, sent)
				}
			}
			if _, err := nc.Write(request[len(request)-1:]); err != nil {
				t.Fatal(err)
			}
			answer := make([]byte, max(len(ok), 1))
			if _, err := io.ReadFull(nc, answer); err != nil || ok != "" && string(answer) != ok {
				t.Errorf("%s: answered %q %v", name, answer, err)
			}
			eventually(t, "nothing is held", func() bool { return s.admission.requests.large.usedBytes() == 0 })
		}
	})
}

// TestAdmittedMustGetOn has a peer take the memory for large requests and then
// send nothing more. Who waits for it gets it, and the peer is told.
func TestAdmittedMustGetOn(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		cfg.MemoryBytesMax = crowdMemory
		s, addr := live(t, cfg)
		put := protocol.Put{Key: []byte("large"), Value: make([]byte, crowdRequest*3/2)}
		for name, open := range announcements(s, addr, len(put.Value)) {
			idle, request, _ := open(t)
			if _, err := idle.Write(request[:600<<10]); err != nil {
				t.Fatal(err)
			}
			eventually(t, "it has the memory", func() bool { return s.admission.requests.large.usedBytes() >= crowdRequest })
			d := dial(t, addr)
			if _, err := d.nc.Write(frame(protocol.OpPut, 7, put.AppendTo(nil))); err != nil {
				t.Fatal(err)
			}
			if err := d.expectOK(); err != nil {
				t.Errorf("a PUT behind one that does not get on: %v", err)
			}
			_ = idle.SetReadDeadline(time.Now().Add(90 * time.Second))
			last, err := io.ReadAll(idle)
			text := string(last)
			if name == "redis" && !strings.HasPrefix(text, "-TRYAGAIN ") || !strings.Contains(text, "memory.max_memory_usage") || !strings.Contains(text, "send it again") {
				t.Errorf("%s: who has taken memory and sends nothing gets %q %v", name, last, err)
			}
		}
	})
}

// TestFrameTimeoutIsAnswered: also over RESP, and not when the request is whole by then.
func TestFrameTimeoutIsAnswered(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		s, addr := live(t, cfg)
		whole, native := dialRedis(t, redisAddr(s)), dial(t, addr)
		whole.want("SET k v", "+OK|")
		part, _ := dialListener(t, s)
		for nc, b := range map[net.Conn]string{part: "*1\r\n$4\r\nPING\r\n*2\r\n$3\r\nGET\r\n", native.nc: string(frame(protocol.OpGet, 7, []byte("k"))[:18])} {
			before := s.counters.bytesIn.Load()
			if _, err := io.WriteString(nc, b); err != nil {
				t.Fatal(err)
			}
			s.awaitRead(t, before, len(b))
		}
		s.EachConn(func(c *Conn) { // too late for who has no frame, in time for who has one
			if c.frameSince.Load() == 0 {
				c.endFrame(protocol.StatusIdle, "too late")
			} else {
				c.checkTimeouts(time.Now().Add(time.Minute).UnixMilli())
			}
		})
		const text = "a request did not arrive completely within 30s (network.frame_timeout)"
		if last, err := io.ReadAll(part); err != nil || !strings.HasPrefix(string(last), "+PONG\r\n-ERR "+text) {
			t.Errorf("half a command is answered %q %v", last, err)
		}
		if got := errorText(t, ended(t, native)); !strings.HasPrefix(got, text) {
			t.Errorf("half a frame is answered %q", got)
		}
		whole.want("GET k", "$1|v|")
	})
}

func TestProgress(t *testing.T) {
	var g progress
	const (
		window = 3 * time.Second
		least  = 100
	)
	for _, step := range []struct {
		since, bytes, now int64
		slow              bool
	}{
		{0, 0, 1000, false},
		{1500, 0, 2000, false},              // just begun
		{1500, 10, 4000, false},             // not looked at for long enough
		{1500, 10, 5000, true},              // ten bytes in three seconds
		{1500, 10 + least, 8000, false},     // enough
		{1500, 10 + least, 10_999, false},   // not yet
		{0, 10 + least, 11_000, false},      // nobody waits
		{1500, 10 + least, 12_000, false},   // counted anew
		{14_000, 10 + least, 15_000, false}, // another request
		{14_000, 10 + least, 18_000, true},
	} {
		if got := g.slow(step.since, step.bytes, step.now, window, least); got != step.slow {
			t.Errorf("at %d with %d bytes since %d: %v", step.now, step.bytes, step.since, got)
		}
	}
}

// TestLargeRepliesTakeTurns has clients ask for far more than there is memory
// for. Those that do not read hold no more than the share of replies; those that
// do, get every reply.
func TestLargeRepliesTakeTurns(t *testing.T) {
	const silent, clients, asks = 2, 6, 5
	transports(t, func(t *testing.T, cfg Config) {
		cfg.MemoryBytesMax = crowdMemory // of which 6 MiB are for replies
		cfg.RequestTimeout = 2 * time.Minute
		s, addr := live(t, cfg)
		d := dial(t, addr)
		value := strings.Repeat("v", crowdRequest)
		for i := range 4 {
			d.put(fmt.Sprint("{l}", i), value)
		}
		mget := protocol.MGet{Keys: [][]byte{[]byte("{l}0"), []byte("{l}1"), []byte("{l}2")}}
		scan := protocol.Scan{Flags: protocol.ScanPrefix, Start: []byte("{l}"), CountMax: 10, BytesMax: 4 << 20}
		ask := func() (b []byte) {
			for i := range uint64(asks) {
				b = append(b, frame(protocol.OpGet, 100+i, fmt.Append(nil, "{l}", i%4))...)
			}
			b = append(b, frame(protocol.OpMGet, 200, mget.AppendTo(nil))...)
			return append(b, frame(protocol.OpScan, 201, scan.AppendTo(nil))...)
		}()
		get := strings.Repeat("*2\r\n$3\r\nGET\r\n$4\r\n{l}0\r\n", asks) + "*3\r\n$4\r\nMGET\r\n$4\r\n{l}0\r\n$4\r\n{l}1\r\n"
		for i := range silent { // never read
			var w io.Writer = dial(t, addr).nc
			b := ask
			if i%2 == 1 {
				w, b = dialRedis(t, redisAddr(s)), []byte(get)
			}
			if _, err := w.Write(b); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, "replies are counted", func() bool { return s.admission.replies.usedBytes() > 0 })
		if f := d.put("small", "v"); protocol.Status(f.Code) != protocol.StatusOK {
			t.Errorf("a small PUT: %v", protocol.Status(f.Code))
		}
		var all sync.WaitGroup
		for range clients { // that do, while others go away one after another
			all.Go(func() {
				d, err := connect(addr)
				if err != nil {
					t.Error(err)
					return
				}
				defer d.Close()
				x := &dialer{t: t, nc: d}
				hello := protocol.Hello{VersionMin: 1, VersionMax: 1, Name: []byte("test")}
				_, _ = d.Write(append(frame(protocol.OpHello, 1, hello.AppendTo(nil)), ask...))
				rows := 0
				for seen := 0; seen < 1+asks+2; {
					f, err := x.waitReceive()
					if err != nil || protocol.Status(f.Code) != protocol.StatusOK {
						t.Errorf("after %d replies: %v %v", seen, protocol.Status(f.Code), err)
						return
					}
					if f.Flags&protocol.FlagMore == 0 {
						seen++
					}
					rows += len(f.Body) / crowdRequest
				}
				if rows < asks+3+2 {
					t.Errorf("%d rows came", rows)
				}
			})
		}
		all.Wait()
		eventually(t, "the share is given back", func() bool { return s.admission.replies.usedBytes() == 0 && !s.admission.replies.contended() })
	})
}

// waitReceive is tryReceive with patience for a turn.
func (d *dialer) waitReceive() (protocol.Frame, error) {
	_ = d.nc.SetReadDeadline(time.Now().Add(90 * time.Second))
	b := make([]byte, 4)
	if _, err := io.ReadFull(d.nc, b); err != nil {
		return protocol.Frame{}, err
	}
	b = append(b, make([]byte, binary.LittleEndian.Uint32(b)-4)...)
	if _, err := io.ReadFull(d.nc, b[4:]); err != nil {
		return protocol.Frame{}, err
	}
	f, _, _, err := protocol.Next(b, protocol.FrameBytesMax)
	return f, err
}

func (s *share) usedBytes() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.used
}

// TestLargeWritesKeepTheirPlace pipelines large writes and what depends on them:
// they queue by themselves, and no client of Redis may notice.
func TestLargeWritesKeepTheirPlace(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		_, c := liveRedis(t, cfg)
		for _, size := range []int{40 << 10, 100 << 10, 900 << 10, 3 << 20} {
			value := strings.Repeat("v", size)
			type step struct {
				args []string
				want string
			}
			var steps []step
			add := func(want string, args ...string) { steps = append(steps, step{args, want}) }
			for range 5 {
				add("+OK\r\n", "SET", "k", value)
				add(fmt.Sprintf(":%d\r\n", size), "STRLEN", "k")
				add("$2\r\nvv\r\n", "GETRANGE", "k", "0", "1")
				add("+OK\r\n", "SET", "k", "x")
				add("$1\r\nx\r\n", "GET", "k")
				add(fmt.Sprintf(":%d\r\n", size+1), "APPEND", "k", value)
				add(fmt.Sprintf(":%d\r\n", size+2), "APPEND", "k", "y")
				add("+OK\r\n", "WATCH", "k")
				add("+OK\r\n", "MULTI")
				add("+QUEUED\r\n", "SET", "k", value)
				add("+QUEUED\r\n", "SET", "k", "z")
				add("*2\r\n+OK\r\n+OK\r\n", "EXEC")
				add("$1\r\nz\r\n", "GET", "k")
				add("+OK\r\n", "SET", "k", value)
				add(":1\r\n", "DEL", "k")
				add(":0\r\n", "EXISTS", "k")
			}
			sent := make(chan error, 1)
			go func() {
				for _, s := range steps {
					if err := c.Send(s.args...); err != nil {
						sent <- err
						return
					}
				}
				sent <- nil
			}()
			for i, s := range steps {
				if got := c.next(); got != s.want {
					t.Fatalf("%d bytes, step %d: %s is answered %.60q, want %q", size, i, s.args[0], got, s.want)
				}
			}
			if err := <-sent; err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestInputIsFull fills what partial requests may have together. Who sends
// whole requests does not notice, who sends a part of one is told, and a stream
// of another node goes on.
func TestInputIsFull(t *testing.T) {
	t.Run("clients", func(t *testing.T) {
		transports(t, func(t *testing.T, cfg Config) {
			s, addr := live(t, cfg)
			full := s.admission.inputMax
			s.admission.inputBytes.Add(full)
			defer s.admission.inputBytes.Add(-full)
			d, part := dial(t, addr), dial(t, addr)
			large := strings.Repeat("v", 2*LargeBytes)
			for range 3 {
				want(t, d.put("k", "v"), protocol.StatusOK)
			}
			if _, err := part.nc.Write(frame(protocol.OpPut, 7, make([]byte, 100))[:50]); err != nil {
				t.Fatal(err)
			}
			want(t, ended(t, part), protocol.StatusBusy)
			s.admission.inputBytes.Add(-full / 2)
			want(t, d.put("k", large), protocol.StatusOK)
			s.admission.inputBytes.Add(full / 2)
			want(t, d.put("k", "v"), protocol.StatusOK)
		})
	})
	t.Run("nodes", func(t *testing.T) {
		fc := newFakeCluster(t, Config{}, 2, 2, 1)
		s := fc.nodes[1].srv
		s.admission.inputBytes.Add(s.admission.inputMax)
		defer s.admission.inputBytes.Add(-s.admission.inputMax)
		d, key := fc.nodes[2].client(), fc.key(0, 0)
		for _, value := range []string{"v", strings.Repeat("v", 30<<10), strings.Repeat("v", 2*LargeBytes), "v"} {
			want(t, d.put(key, value), protocol.StatusOK)
		}
	})
}

// TestCrowdedInputIsNotKept: where partial requests use more than half of their memory,
// who does not send the rest of one soon is told, and leaves room to others.
func TestCrowdedInputIsNotKept(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		s, addr := live(t, cfg)
		d, native := dial(t, addr), dial(t, addr)
		redis, _ := dialListener(t, s)
		silent, _ := dialListener(t, s)
		for nc, b := range map[net.Conn]string{redis: "*2\r\n$3\r\nGET\r\n", native.nc: string(frame(protocol.OpGet, 7, []byte("k"))[:18])} {
			before := s.counters.bytesIn.Load()
			if _, err := io.WriteString(nc, b); err != nil {
				t.Fatal(err)
			}
			s.awaitRead(t, before, len(b))
		}
		eventually(t, "all are there", func() bool { return s.conns.len() == 4 })
		later := func() {
			now := time.Now().Add(2 * crowdedTimeout).UnixMilli()
			s.EachConn(func(c *Conn) { c.checkTimeouts(now) })
		}
		later()
		want(t, d.put("k", "v"), protocol.StatusOK)
		if n := s.conns.len(); n != 4 {
			t.Fatalf("%d connections are left where there is room", n)
		}
		half := s.admission.inputMax/2 + 1
		s.admission.inputBytes.Add(half)
		defer s.admission.inputBytes.Add(-half)
		later()
		want(t, ended(t, native), protocol.StatusBusy)
		if last, err := io.ReadAll(redis); err != nil || !strings.HasPrefix(string(last), "-TRYAGAIN a request did not arrive completely within 3s") {
			t.Errorf("half a command is answered %q %v", last, err)
		}
		want(t, d.put("k", "v"), protocol.StatusOK)
		if _, err := io.WriteString(silent, "PING\r\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(silent, make([]byte, len("+PONG\r\n"))); err != nil {
			t.Errorf("who has not sent anything was closed: %v", err)
		}
	})
}

// TestAdmittedIsNotParked: what holds memory goes on whatever its connection
// has not sent, also on a stream of another node.
func TestAdmittedIsNotParked(t *testing.T) {
	s, _ := live(t, Config{})
	for _, forwarded := range []bool{false, true} {
		c := s.newConn(nil, nil)
		c.forwarded = forwarded
		c.mu.Lock()
		out := c.output()
		out.Grow(s.cfg.OutputBytesMax)
		out.B = out.B[:s.cfg.OutputBytesMax]
		c.mu.Unlock()
		j := job{c: c, large: &largeReply{bytes: 2 * LargeBytes}}
		if parked := c.park(j); !parked {
			t.Fatalf("forwarded %v: a large reply joins what is not sent", forwarded)
		}
		j.large.asked, j.large.taken = true, true
		if c.park(j) {
			t.Errorf("forwarded %v: a job that holds memory waits", forwarded)
		}
	}
}

// drain is a socket that takes whatever is sent, at once.
type drain struct {
	deaf
	resumed bool
}

func (d *drain) kick(c *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.marked = false
	if c.out != nil {
		c.out.Release()
		c.out = nil
	}
}

func (d *drain) resume(*conn) { d.resumed = true }

// TestParkedGoOn: whoever ends what parked jobs wait for has them taken up, whether it
// is a claim of the connection or what it has not sent. Others may have sent and looked
// before.
func TestParkedGoOn(t *testing.T) {
	s, _ := live(t, Config{})
	for _, tt := range []struct {
		name   string
		unsent int
		end    func(c *conn, first *job)
	}{
		{"another large reply is made", 0, func(c *conn, first *job) {
			var others touched
			c.mu.Lock()
			others.add(c)
			c.mu.Unlock()
			var own touched
			c.put(bufpool.Get(outputSize), 0, first.large, &own)
			others.send() // what first has put as well
			first.release()
			own.send()
		}},
		{"another large reply is refused", 0, func(c *conn, first *job) {
			var others touched
			c.mu.Lock()
			others.add(c)
			c.mu.Unlock()
			var own touched
			s.refuse(c, 1, 0, &protocol.Extensions{}, &refusal{status: protocol.StatusBusy}, &own)
			others.send()
			first.release()
			own.send()
		}},
		{"the last answer is sent", s.cfg.OutputBytesMax, func(c *conn, _ *job) { c.sendLast([]byte("bye")) }},
		{"a notice is sent", s.cfg.OutputBytesMax, func(c *conn, _ *job) { c.notice(protocol.StatusGoAway, "") }},
		{"the connection is closed after its replies", s.cfg.OutputBytesMax, func(c *conn, _ *job) { c.CloseAfterReplies() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := &drain{}
			c := s.newConn(d, nil)
			newJob := func() *job {
				c.begin(0)
				return &job{c: c, body: bufpool.Get(1), large: &largeReply{bytes: int(s.admission.fairReplies)}}
			}
			first, second := newJob(), newJob()
			if c.park(*first) {
				t.Fatal("a connection without any waits with its first large reply")
			}
			if tt.unsent > 0 {
				first.release()
				c.mu.Lock()
				c.output().Append(make([]byte, tt.unsent))
				c.mu.Unlock()
			}
			if !c.park(*second) {
				t.Fatal("the second one does not wait")
			}
			tt.end(c, first)
			if !d.resumed {
				t.Error("the second one is not taken up")
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			if parked := c.takeParked(); len(parked) != 1 {
				t.Errorf("%d jobs can be taken up", len(parked))
			}
			second.release()
		})
	}
}

// TestLogAnswersAreBounded has a thousand small commands answered in one pass
// with much more than their connection may have unsent. Every one is answered;
// reads are refused, and what was changed is told without the rows.
func TestLogAnswersAreBounded(t *testing.T) {
	s, _ := live(t, Config{})
	value := make([]byte, 15<<20)
	get := command.Result{Kind: command.Get, HasRow: true, RowVersion: 1, Value: value}
	part := command.Result{Kind: command.GetRange, Integer: int64(len(value)), Value: value}
	del := command.Result{Kind: command.Delete, HasRow: true, RowVersion: 1, Value: value}
	batch := func(r command.Result) command.Result {
		return command.Result{Kind: command.Batch, Results: []command.Result{r}}
	}
	const small = 1 << 10
	for _, x := range []struct {
		name   string
		op     protocol.Opcode
		result command.Result
	}{
		{"GET", protocol.OpGet, get},
		{"GETRANGE", protocol.OpGetRange, part},
		{"DELETE", protocol.OpDelete, del},
		{"BATCH", protocol.OpBatch, batch(get)},
		{"BATCH of GETRANGE", protocol.OpBatch, batch(part)},
		{"TXN", protocol.OpTxn, batch(del)},
		{"NON_ATOMIC BATCH", 0, get},
		{"NON_ATOMIC BATCH of DELETE", 0, del},
	} {
		t.Run(x.name, func(t *testing.T) {
			c := s.newConn(nil, nil)
			c.marked = true // nobody writes
			defer func() {
				c.mu.Lock()
				c.dropOutput()
				c.mu.Unlock()
				if n := s.admission.replies.usedBytes(); n != 0 || s.admission.held.Load() != 0 {
					t.Errorf("%d bytes count as replies, %d as held", n, s.admission.held.Load())
				}
			}()
			const asked = 100
			var gathers []*writeGather
			for i := range uint64(asked) {
				c.begin(10)
				if x.op != 0 {
					c.Complete(command.Tag{ID: i + 1, Code: uint8(x.op), Aux: 10}, command.Applied, &x.result)
					continue
				}
				code := protocol.OpGet
				if x.result.Kind == command.Delete {
					code = protocol.OpDelete
				}
				g := &writeGather{c: c, id: i + 1, size: 10, codes: []protocol.Opcode{code, code}, bodies: make([][]byte, 2), left: 2, parts: [][]int32{{0}, {1}}}
				r := batch(x.result)
				g.Complete(command.Tag{ID: 0}, command.Applied, &r)
				gathers = append(gathers, g)
			}
			for _, g := range gathers {
				r := batch(command.Result{Kind: command.Get, Status: command.NotFound})
				g.Complete(command.Tag{ID: 1}, command.Applied, &r)
			}
			if n := c.Backlog(); n < 4*len(value) || n > replyBytesMax+small*asked {
				t.Errorf("%d bytes are unsent", n)
			}
			answers, b := 0, c.out.B
			for len(b) > 0 {
				f, n, _, err := protocol.Next(b, protocol.FrameBytesMax)
				if err != nil || n == 0 {
					t.Fatalf("after %d answers: %v", answers, err)
				}
				answers, b = answers+1, b[n:]
				if status := protocol.Status(f.Code); status != protocol.StatusOK && status != protocol.StatusBusy {
					t.Fatalf("answered %v", status)
				}
			}
			if answers != asked || c.inFlight.Load() != 0 {
				t.Errorf("%d answers, %d are in flight", answers, c.inFlight.Load())
			}
		})
	}
}

// TestWaitersHoldNoMemory: a read that goes on to wait for other nodes gives
// back what it was admitted for, since they may wait for it in turn.
func TestWaitersHoldNoMemory(t *testing.T) {
	s, _ := live(t, Config{})
	c := s.newConn(nil, nil)
	p := newProcessor(s)
	defer s.counters.unregister(&p.counts)
	j := job{c: c, op: protocol.OpMGet, body: bufpool.Get(64), deadline: math.MaxInt64, large: &largeReply{bytes: 1 << 20}}
	if c.park(j) || !p.admitReply(&j) || s.admission.replies.usedBytes() == 0 {
		t.Fatal("the job is not admitted")
	}
	w := p.await(j)
	if n := s.admission.replies.usedBytes(); n != 0 || w.job.large != nil || c.claimed != 0 {
		t.Errorf("who waits for others holds %d bytes", n)
	}
	w.timer.Stop()
	s.admission.held.Add(-int64(waitingBytes + len(j.body.B)))
	w.job.release()
}

// TestInputIsTrimmed: what has come behind a large frame does not keep its
// buffer.
func TestInputIsTrimmed(t *testing.T) {
	s, _ := live(t, Config{})
	c := s.newConn(nil, nil)
	defer c.dropInput()
	c.in = bufpool.Get(1 << 20)
	c.in.B = append(c.in.B, strings.Repeat("x", 1<<20-3)+"abc"...)
	if !c.share.Load().ask(&c.claim, 1<<20, 1<<20) {
		t.Fatal("not admitted")
	}
	c.inAt = 1<<20 - 3
	c.releaseClaim()
	if string(c.input()) != "abc" || cap(c.in.B) > LargeBytes || c.claim.held != 0 {
		t.Errorf("%q is left in %d bytes", c.input(), cap(c.in.B))
	}
	if n := inputSize(16, LargeBytes); n > readBytesIdle {
		t.Errorf("16 bytes get a buffer of %d", n)
	}
}

// take is ask that does not wait: it returns false if there is no room, or if
// others wait. What it took goes back by give.
func (s *share) take(n int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.first() != nil || s.used != 0 && s.used+n > s.max {
		return false
	}
	s.use(n)
	return true
}
