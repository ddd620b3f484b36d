package peer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"
)

type gotFrame struct {
	from    uint64
	payload []byte
}

// startFrames starts a node whose frames arrive in a channel.
func startFrames(t testing.TB, node uint64, setup func(*Config, *testHandler)) (*testNode, chan gotFrame) {
	frames := make(chan gotFrame, 1<<16)
	return startNode(t, node, func(c *Config, h *testHandler) {
		h.frame = func(from uint64, payload []byte) error {
			frames <- gotFrame{from, payload}
			return nil
		}
		if setup != nil {
			setup(c, h)
		}
	}), frames
}

// frameFrom returns frame n of a sender, of about as many bytes.
func frameFrom(sender, n uint64, bytes int) []byte {
	p := make([]byte, 16+bytes)
	binary.LittleEndian.PutUint64(p, sender)
	binary.LittleEndian.PutUint64(p[8:], n)
	for i := range p[16:] {
		p[16+i] = byte(sender*31 + n*7 + uint64(i))
	}
	return p
}

// Frames of several goroutines, beside messages, reports and calls, arrive whole, in
// each one's order, and stay the handler's.
func TestFramesArriveInOrder(t *testing.T) {
	const senders, frames = 4, 200
	sizes := []int{0, 1, 100, 5000, readBufferBytes, frameBytesTarget, trustBytes + 1}
	a := startNode(t, 1, func(c *Config, _ *testHandler) { c.QueueBytesMax = 1 << 30 }) // more than is sent
	b, arrived := startFrames(t, 2, func(_ *Config, h *testHandler) { h.call = echo(nil, nil) })
	join(t, a, b)
	if err := a.Connected(2); err != nil {
		t.Error(err)
	}
	var all sync.WaitGroup
	for s := range uint64(senders) {
		all.Go(func() {
			for n := range uint64(frames) {
				if err := a.SendFrame(2, frameFrom(s, n, sizes[(s+n)%uint64(len(sizes))])); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Go(func() {
		for n := range uint64(frames) {
			a.Send(2, 1, heartbeat(n))
			a.Transmit()
			a.Report(2, []byte("{}"))
		}
	})
	all.Go(func() {
		for range frames / 10 {
			if _, err := a.Call(t.Context(), 2, "echo", []byte("x")); err != nil {
				t.Error(err)
			}
		}
	})
	var kept []gotFrame
	for range senders * frames {
		kept = append(kept, receive(t, arrived))
	}
	for n := range uint64(frames) {
		if m := receive(t, b.h.messages); m.Raft.Term != n {
			t.Fatalf("message %d after %d", m.Raft.Term, n)
		}
	}
	all.Wait()
	var next [senders]uint64
	for _, f := range kept {
		s := binary.LittleEndian.Uint64(f.payload)
		n := next[s]
		if f.from != 1 || !bytes.Equal(f.payload, frameFrom(s, n, sizes[(s+n)%uint64(len(sizes))])) {
			t.Fatalf("frame %d of sender %d, %d bytes from node %d: not what was sent", n, s, len(f.payload), f.from)
		}
		next[s]++
	}
	eventually(t, func() bool { // the sender counts after it has written
		s := a.peerStatus(t, 2)
		return s.QueuedBytes == 0 && s.Dropped == 0 && s.BytesOut == b.peerStatus(t, 1).BytesIn
	})
}

// A frame that the engine does not accept ends the connection, with its reason in the log.
func TestRefusedFrameEndsTheConnection(t *testing.T) {
	a := startNode(t, 1, func(c *Config, _ *testHandler) { c.ReconnectMin = time.Millisecond })
	b, arrived := startFrames(t, 2, func(_ *Config, h *testHandler) {
		take := h.frame
		h.frame = func(from uint64, payload []byte) error {
			if string(payload) == "bad" {
				return fmt.Errorf("node %d sends nonsense", from)
			}
			return take(from, payload)
		}
	})
	join(t, a, b)
	if err := a.SendFrame(2, []byte("bad")); err != nil {
		t.Fatal(err)
	}
	b.log.wait(t, "node 1 sends nonsense")
	if n := receive(t, a.h.unreachable); n != 2 {
		t.Fatal(n)
	}
	eventually(t, func() bool { return a.connects(2) == 2 && a.Connected(2) == nil })
	if err := a.SendFrame(2, []byte("good")); err != nil {
		t.Fatal(err)
	}
	if f := receive(t, arrived); string(f.payload) != "good" {
		t.Fatalf("%q", f.payload)
	}
}

// Without a connection a frame is an error, and the handler hears of it once.
func TestFrameWithoutConnection(t *testing.T) {
	g := gate{asked: make(chan string, 1)}
	a := startNode(t, 1, func(c *Config, _ *testHandler) { c.ReconnectMin, c.Dial = 100*time.Hour, g.dial })
	if err := a.SendFrame(2, nil); !errors.Is(err, ErrUnknownPeer) || !errors.Is(a.Connected(2), ErrUnknownPeer) {
		t.Error(err, a.Connected(2))
	}
	if n := receive(t, a.h.unreachable); n != 2 {
		t.Error(n)
	}
	b, arrived := startFrames(t, 2, nil)
	a.SetPeer(2, b.address())
	for range 100 {
		if err := a.SendFrame(2, []byte("lost")); !errors.Is(err, ErrNotConnected) || !errors.Is(a.Connected(2), ErrNotConnected) {
			t.Fatal(err, a.Connected(2))
		}
	}
	if n := receive(t, a.h.unreachable); n != 2 {
		t.Error(n)
	}
	if s := a.peerStatus(t, 2); s.Dropped != 100 || s.QueuedBytes != 0 {
		t.Errorf("%+v", s)
	}
	g.open.Store(true)
	a.SetPeer(2, b.address())
	a.waitConnected(t, 2)
	if err := a.SendFrame(2, make([]byte, frameBytesMax+1)); !errors.Is(err, ErrTooLarge) {
		t.Error(err)
	}
	if err := a.SendFrame(2, make([]byte, frameBytesMax)); err != nil {
		t.Error(err)
	}
	if f := receive(t, arrived); len(f.payload) != frameBytesMax {
		t.Error(len(f.payload))
	}
	b.Close()
	eventually(t, func() bool { return errors.Is(a.Connected(2), ErrNotConnected) })
}

// A peer that does not read costs its queue and no more, in few buffers however small
// the frames are.
func TestFrameQueueOverflow(t *testing.T) {
	const queue = 4 << 20
	block := make(chan struct{})
	release := sync.OnceFunc(func() { close(block) })
	defer release()
	b, arrived := startFrames(t, 2, func(_ *Config, h *testHandler) {
		take := h.frame
		h.frame = func(from uint64, payload []byte) error {
			<-block
			return take(from, payload)
		}
	})
	a := startNode(t, 1, func(c *Config, _ *testHandler) { c.QueueBytesMax = queue })
	join(t, a, b)
	sent := uint64(0)
	for ; sent < 1<<20; sent++ {
		if err := a.SendFrame(2, frameFrom(1, sent, 1000)); errors.Is(err, ErrBusy) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if q := a.peerStatus(t, 2).QueuedBytes; q > queue {
			t.Fatalf("%d bytes wait; the limit is %d", q, queue)
		}
	}
	if n := receive(t, a.h.unreachable); n != 2 {
		t.Fatal(n)
	}
	p := a.peer(2)
	p.mu.Lock()
	if n := len(p.frames.closed); n > queue/frameBytesTarget+2 {
		t.Errorf("%d bytes of small frames wait in %d buffers", queue, n)
	}
	for _, b := range p.frames.closed {
		if len(b.B) > frameBytesTarget {
			t.Errorf("%d bytes in one buffer", len(b.B))
		}
	}
	p.mu.Unlock()
	release()
	for n := range sent {
		if f := receive(t, arrived); !bytes.Equal(f.payload, frameFrom(1, n, 1000)) {
			t.Fatalf("frame %d: not what was sent", n)
		}
	}
	eventually(t, func() bool { return a.peerStatus(t, 2).QueuedBytes == 0 })
}

// A frame costs one allocation in both nodes together: the payload that the receiver keeps.
func TestFrameAllocations(t *testing.T) {
	if testing.Short() || raceEnabled {
		t.Skip("allocations are counted without the race detector")
	}
	arrived := make(chan struct{})
	a := startNode(t, 1, nil)
	b := startNode(t, 2, func(_ *Config, h *testHandler) {
		h.frame = func(uint64, []byte) error { arrived <- struct{}{}; return nil }
	})
	join(t, a, b)
	for _, size := range []int{128, 32 << 10, 256 << 10} {
		frame := make([]byte, size)
		n := testing.AllocsPerRun(1000, func() {
			if err := a.SendFrame(2, frame); err != nil {
				t.Error(err)
			}
			<-arrived
		})
		if n != 1 {
			t.Errorf("%d bytes: %v allocations, want 1", size, n)
		}
	}
}
