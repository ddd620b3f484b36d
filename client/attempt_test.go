package client

import (
	"bytes"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/proa-kv/proa/protocol"
)

// byHand leaves the ticks to the test.
func byHand(cfg *Config) { cfg.AttemptTimeout, cfg.KeepAlive = time.Hour, -1 }

func (c *Client) ticks(n int) {
	for range n {
		c.janitor.watchAttempts()
	}
}

// swallowed are requests that a fake has not answered.
type swallowed struct {
	cn *fakeConn
	id uint64
}

// fallSilent lets a node answer nothing any more; each request is given v.
func (cl *fakeCluster) fallSilent(node int, v verdict) *[]swallowed {
	kept := new([]swallowed)
	cl.set(func() {
		cl.nodes[node-1].intercept = func(cn *fakeConn, fr *protocol.Frame, _ *protocol.Extensions) verdict {
			*kept = append(*kept, swallowed{cn, fr.ID})
			return v
		}
	})
	return kept
}

func pending[T any](f *Future[T]) bool {
	select {
	case <-f.Done():
		return false
	default:
		return true
	}
}

// A stopped leader answers nothing, and its connections stay. What has been
// sent there goes elsewhere when its time is up, and so does everything new,
// until the node is heard again.
func TestSilentLeader(t *testing.T) {
	for name, v := range map[string]verdict{"not carried out": {skip: true}, "carried out": {mute: true}} {
		t.Run(name, func(t *testing.T) {
			cl := newFakeCluster(t, 3)
			c := cl.dial(true, func(cfg *Config) { byHand(cfg); cfg.ExactlyOnce = true }, 1)
			k := keyIn(1, 0)
			cn := (*c.router.table.Load().nodes[2].ready.Load())[0]
			kept := cl.fallSilent(2, v)
			write, read := c.IncrAsync(k, 1), c.GetAsync(keyIn(1, 1))
			eventually(t, func() bool {
				cl.mu.Lock()
				defer cl.mu.Unlock()
				return len(*kept) == 2
			})
			c.ticks(attemptTicks)
			late := c.IncrAsync(k, 1) // sent just before the node counts as silent
			eventually(t, func() bool {
				cl.mu.Lock()
				defer cl.mu.Unlock()
				return len(*kept) == 3
			})
			if !pending(write) || !pending(read) || !pending(late) || cn.stalled.Load() {
				t.Fatal("given up too early")
			}
			c.ticks(1)
			sum := int64(0) // they may have gone to different nodes, and overtaken each other
			for _, p := range []*Future[int64]{write, late} {
				n, err := p.Wait(t.Context())
				if sum += n; err != nil {
					t.Error(err)
				}
			}
			if sum != 1+2 {
				t.Errorf("sum of the counter's values is %d", sum)
			}
			if _, err := read.Wait(t.Context()); !errors.Is(err, ErrNotFound) {
				t.Error(err)
			}
			if got := cl.counts(); got[1] != 3 || got[0]+got[2] != 3 || !cn.stalled.Load() {
				t.Errorf("requests %v, stalled %v", got, cn.stalled.Load())
			}
			for range 5 {
				if _, err := c.Incr(t.Context(), k, 1); err != nil {
					t.Fatal(err)
				}
			}
			if got := cl.counts(); got[1] != 0 {
				t.Errorf("requests %v", got)
			}
			checkSessionIdle(t, c)
			// It goes on: its late replies are nobody's.
			var replies []swallowed
			cl.set(func() { replies, cl.nodes[1].intercept = *kept, nil })
			if n := cn.inFlight.Load(); int(n) != len(replies) {
				t.Errorf("%d of %d unanswered requests are counted", n, len(replies))
			}
			for _, r := range replies {
				r.cn.send(errorFrameFor(r.id, protocol.StatusInternal))
			}
			eventually(t, func() bool { return !cn.stalled.Load() && cn.inFlight.Load() == 0 })
			if n, err := c.Incr(t.Context(), k, 1); err != nil || n != 8 {
				t.Errorf("%d, %v", n, err)
			}
			if got := cl.counts(); !slices.Equal(got, []int{0, 1, 0}) {
				t.Errorf("requests %v", got)
			}
			cl.set(func() {
				if cl.applied != 8 {
					t.Errorf("%d writes took effect", cl.applied)
				}
			})
		})
	}
}

// What the silent node may have done, the refusal of another does not undo.
func TestSilentLeaderOutcome(t *testing.T) {
	cl := newFakeCluster(t, 2)
	c := cl.dial(true, func(cfg *Config) { byHand(cfg); cfg.ExactlyOnce = true }, 1)
	kept := cl.fallSilent(2, verdict{mute: true})
	write := c.IncrAsync(keyIn(1, 0), 1)
	eventually(t, func() bool {
		cl.mu.Lock()
		defer cl.mu.Unlock()
		return len(*kept) == 1
	})
	cl.set(func() {
		cl.nodes[0].intercept = once(protocol.OpIncr, verdict{reply: errorFrame(protocol.StatusPermission, 0, "")})
	})
	c.ticks(attemptTicks + 1)
	if _, err := write.Wait(t.Context()); !errors.Is(err, ErrPermission) || !errors.Is(err, ErrOutcomeUnknown) {
		t.Error(err)
	}
}

// Without a session a write that was sent stays where it is: a second attempt
// might carry it out twice.
func TestSilentLeaderPlainWrite(t *testing.T) {
	cl := newFakeCluster(t, 3)
	c := cl.dial(true, byHand, 1)
	kept := cl.fallSilent(2, verdict{skip: true})
	write := c.PutAsync(keyIn(1, 0), nil)
	eventually(t, func() bool {
		cl.mu.Lock()
		defer cl.mu.Unlock()
		return len(*kept) == 1
	})
	c.ticks(100)
	if got := cl.counts(); !pending(write) || !slices.Equal(got, []int{0, 1, 0}) {
		t.Errorf("requests %v", got)
	}
	// But it tells that the node is silent, and other calls avoid it.
	if _, err := c.Put(t.Context(), keyIn(1, 1), nil); err != nil {
		t.Error(err)
	}
	cl.nodes[1].dropAll()
	if _, err := write.Wait(t.Context()); !errors.Is(err, ErrOutcomeUnknown) {
		t.Error(err)
	}
}

// A node that is alive and leaves one request unanswered: that one goes to
// others, each time with twice the patience; the rest still goes to the node.
func TestSlowRequest(t *testing.T) {
	cl := newFakeCluster(t, 3)
	c := cl.dial(true, byHand, 1)
	slow, quick := keyIn(1, 0), keyIn(1, 1)
	asked := make([]int, 3)
	cl.set(func() {
		for i, f := range cl.nodes {
			f.intercept = func(_ *fakeConn, fr *protocol.Frame, _ *protocol.Extensions) verdict {
				if bytes.Equal(fr.Body, slow) {
					asked[i]++
					return verdict{skip: true}
				}
				return verdict{}
			}
		}
	})
	// total counts the requests for slow, after all that was sent has arrived.
	total := func() (n int) {
		for _, node := range []uint64{1, 2, 3} {
			o := OpPing()
			ca, err := c.caller.encode(t.Context(), &o)
			if err != nil {
				t.Fatal(err)
			}
			ca.to = c.router.table.Load().nodes[node]
			if err := c.caller.await(t.Context(), ca); err != nil {
				t.Fatal(err)
			}
			c.caller.release(ca)
		}
		cl.set(func() { n = asked[0] + asked[1] + asked[2] })
		return n
	}
	read := c.GetAsync(slow)
	for attempt, patience := range []int{attemptTicks, 2 * attemptTicks, 4 * attemptTicks} {
		for range patience {
			if n := total(); n != attempt+1 {
				t.Fatalf("attempt %d: asked %d times", attempt+1, n)
			}
			c.ticks(1)
		}
		if n := total(); n != attempt+1 {
			t.Fatalf("attempt %d: asked %d times", attempt+1, n)
		}
		c.ticks(1)
		if n := total(); n != attempt+2 {
			t.Fatalf("after attempt %d: asked %d times", attempt+1, n)
		}
	}
	cl.forgetRequests()
	if _, err := c.Get(t.Context(), quick); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if got := cl.counts(); !slices.Equal(got, []int{0, 1, 0}) {
		t.Errorf("other requests: %v", got)
	}
	if !pending(read) {
		t.Error("answered")
	}
}

func TestPatienceIsBounded(t *testing.T) {
	ca := new(call)
	for attempts, want := range map[int32]uint32{0: 4, 1: 4, 2: 8, 3: 16, 6: 128, 7: 128, 1 << 30: 128} {
		ca.attempts.Store(attempts)
		if got := ca.patience(); got != want {
			t.Errorf("attempt %d: %d ticks, want %d", attempts, got, want)
		}
	}
}

// With nobody else to ask a second attempt would only add to the load.
func TestSilentOnlyNode(t *testing.T) {
	cl := newFakeCluster(t, 1)
	c := cl.dial(true, func(cfg *Config) { byHand(cfg); cfg.Connections = 2 }, 1)
	kept := cl.fallSilent(1, verdict{skip: true})
	read := c.GetAsync([]byte("k"))
	eventually(t, func() bool {
		cl.mu.Lock()
		defer cl.mu.Unlock()
		return len(*kept) == 1
	})
	c.ticks(200)
	if got := cl.counts(); !pending(read) || got[0] != 1 {
		t.Errorf("requests %v", got)
	}
	(*kept)[0].cn.send(errorFrameFor((*kept)[0].id, protocol.StatusBadRequest))
	if _, err := read.Wait(t.Context()); !errors.Is(err, ErrBadRequest) {
		t.Error(err)
	}
}

// With RetryMax spent there is no further attempt.
func TestSilentLeaderRetryMax(t *testing.T) {
	cl := newFakeCluster(t, 2)
	c := cl.dial(true, func(cfg *Config) { byHand(cfg); cfg.RetryMax = -1 }, 1)
	kept := cl.fallSilent(2, verdict{skip: true})
	read := c.GetAsync(keyIn(1, 0))
	eventually(t, func() bool {
		cl.mu.Lock()
		defer cl.mu.Unlock()
		return len(*kept) > 0
	})
	c.ticks(200)
	if got := cl.counts(); !pending(read) || got[0] != 0 {
		t.Errorf("requests %v", got)
	}
}

// A reply of which some frames have come is waited for.
func TestPartlyAnswered(t *testing.T) {
	cl := newFakeCluster(t, 2)
	c := cl.dial(true, byHand, 1)
	for i := range 4 {
		if _, err := c.Put(t.Context(), key(i), nil); err != nil {
			t.Fatal(err)
		}
	}
	var finish func()
	page := func(more bool, id uint64, from, to int) []byte {
		var m protocol.ScanReply
		for i := from; i < to; i++ {
			m.Rows = append(m.Rows, protocol.ScanRow{Version: 1, Key: key(i)})
		}
		flags := protocol.FlagReply
		if more {
			flags |= protocol.FlagMore
		}
		return protocol.End(m.AppendTo(protocol.Begin(nil, 0, flags, id)), 0)
	}
	cl.set(func() {
		for _, f := range cl.nodes {
			f.intercept = func(cn *fakeConn, fr *protocol.Frame, _ *protocol.Extensions) verdict {
				if protocol.Opcode(fr.Code) != protocol.OpScan {
					return verdict{}
				}
				id := fr.ID
				finish = func() { cn.send(page(false, id, 2, 4)) }
				cn.send(page(true, id, 0, 2))
				return verdict{skip: true}
			}
		}
	})
	cl.forgetRequests()
	rows := make(chan int)
	go func() {
		n := 0
		for _, err := range c.Scan(t.Context()) {
			if err != nil {
				t.Error(err)
			}
			n++
		}
		rows <- n
	}()
	eventually(t, func() bool {
		for _, cn := range *c.pool.ready.Load() {
			cn.mu.Lock()
			for _, r := range cn.pending.All() {
				if r.partly {
					cn.mu.Unlock()
					return true
				}
			}
			cn.mu.Unlock()
		}
		return false
	})
	c.ticks(50)
	cl.set(func() { finish() })
	if n := <-rows; n != 4 {
		t.Errorf("%d rows", n)
	}
	if got := cl.counts(); got[0]+got[1] != 1 {
		t.Errorf("requests %v", got)
	}
}

// A connection that takes no more bytes: what has not left goes elsewhere,
// writes too. Of what was sent, or may have been, only reads do; a large frame
// stays, since it is being written from where it stands.
func TestSilentNodeTakesNothing(t *testing.T) {
	c, stuck, _ := piped(t) // nobody reads at the other end
	here, there := net.Pipe()
	t.Cleanup(func() { there.Close() })
	large := make([]byte, frameKeptBytes+100)
	first := c.PutAsync([]byte("being written"), large)
	queued := c.PutAsync([]byte("queued"), []byte("value"))
	read := c.GetAsync([]byte("read"))
	eventually(t, func() bool {
		stuck.mu.Lock()
		defer stuck.mu.Unlock()
		return stuck.writing && len(stuck.queue)-stuck.head == 2
	})
	c.ticks(attemptTicks)
	other := c.newConn(c.pool.newEndpoint(endpoint{name: "other"}), here, ServerInfo{Node: 2, FrameBytesMax: protocol.FrameBytesMax})
	if err := c.pool.add(other); err != nil {
		t.Fatal(err)
	}
	c.ticks(1)
	for range 2 {
		f, err := readRequest(there)
		if err != nil {
			t.Fatal(err)
		}
		if protocol.Opcode(f.Code) == protocol.OpGet {
			there.Write(errorFrameFor(f.ID, protocol.StatusBadRequest))
		} else {
			there.Write(writeReply(f.ID, 5))
		}
	}
	if w, err := queued.Wait(t.Context()); err != nil || w.Version != 5 {
		t.Errorf("%+v, %v", w, err)
	}
	if _, err := read.Wait(t.Context()); !errors.Is(err, ErrBadRequest) {
		t.Error(err)
	}
	if !pending(first) || stuck.inFlight.Load() != 1 {
		t.Errorf("%d in flight at the silent node", stuck.inFlight.Load())
	}
}

// A large request whose frame is being written is not moved, even if it could
// be repeated: a second attempt would change the frame under the writer.
func TestLargeFrameStays(t *testing.T) {
	c, stuck, there := piped(t)
	here, beyond := net.Pipe()
	t.Cleanup(func() { beyond.Close() })
	keys := make([][]byte, 0, 8)
	for range 8 {
		keys = append(keys, bytes.Repeat([]byte("k"), protocol.KeyBytesMax))
	}
	failed := make(chan error)
	go func() {
		_, err := c.MGet(t.Context(), keys)
		failed <- err
	}()
	if _, err := io.ReadFull(there, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	other := c.newConn(c.pool.newEndpoint(endpoint{name: "other"}), here, ServerInfo{Node: 2, FrameBytesMax: protocol.FrameBytesMax})
	if err := c.pool.add(other); err != nil {
		t.Fatal(err)
	}
	c.ticks(50)
	if n := other.inFlight.Load(); n != 0 || !stuck.stalled.Load() {
		t.Errorf("%d requests elsewhere", n)
	}
	there.Close() // then it is, for it never left as a whole
	f, err := readRequest(beyond)
	if err != nil {
		t.Fatal(err)
	}
	go beyond.Write(errorFrameFor(f.ID, protocol.StatusBadRequest))
	if err := <-failed; !errors.Is(err, ErrBadRequest) {
		t.Error(err)
	}
}

// The clock does what the tests above do by hand, within RequestTimeout.
func TestAttemptTimeout(t *testing.T) {
	cl := newFakeCluster(t, 3)
	c := cl.dial(true, func(cfg *Config) { cfg.RequestTimeout, cfg.ExactlyOnce = 10*time.Second, true }, 1)
	if c.cfg.AttemptTimeout != DefaultAttemptTimeout {
		t.Error(c.cfg.AttemptTimeout)
	}
	c.Close()
	c = cl.dial(true, func(cfg *Config) { cfg.AttemptTimeout, cfg.ExactlyOnce = 10*time.Millisecond, true }, 1)
	cl.fallSilent(2, verdict{skip: true})
	if _, err := c.Get(t.Context(), keyIn(1, 0)); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if n, err := c.Incr(t.Context(), keyIn(1, 0), 1); n != 1 || err != nil {
		t.Error(n, err)
	}
	checkSessionIdle(t, c)
}

func TestAttemptTimeoutDefault(t *testing.T) {
	for _, test := range []struct{ attempt, request, want time.Duration }{
		{0, 0, time.Second}, {0, -1, time.Second}, {0, 300 * time.Millisecond, 100 * time.Millisecond},
		{0, 1, time.Millisecond}, {-1, 0, -1}, {time.Minute, 0, time.Minute},
	} {
		cfg, err := Config{Endpoints: []string{"h"}, AttemptTimeout: test.attempt, RequestTimeout: test.request}.withDefaults()
		if err != nil || cfg.AttemptTimeout != test.want {
			t.Errorf("%v with %v: %v, %v", test.attempt, test.request, cfg.AttemptTimeout, err)
		}
	}
}
