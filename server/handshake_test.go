package server

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// peerConn is a connection from an address, whose peer sends what the test says.
type peerConn struct {
	net.Conn
	from   net.Addr
	sent   chan int // bytes
	closed chan struct{}
	once   sync.Once
}

func newPeer(from string) *peerConn {
	return &peerConn{from: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), 1)), sent: make(chan int, 8), closed: make(chan struct{})}
}

func (p *peerConn) RemoteAddr() net.Addr             { return p.from }
func (p *peerConn) SetDeadline(time.Time) error      { return nil }
func (p *peerConn) SetWriteDeadline(time.Time) error { return nil }

func (p *peerConn) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *peerConn) Read(b []byte) (int, error) {
	select {
	case n := <-p.sent:
		return min(n, len(b)), nil
	case <-p.closed:
		return 0, io.EOF
	}
}

// gone reports whether the server has closed the connection.
func (p *peerConn) gone() bool {
	select {
	case <-p.closed:
		return true
	default:
		return false
	}
}

// newHandshakes returns handshakes with these bounds.
func newHandshakes(most, begun, cpus int) *handshakes {
	h := new(handshakes)
	h.init(most)
	h.begunMost, h.cpus = begun, cpus
	return h
}

// checkEmpty fails where something is left of handshakes that have all ended.
func (h *handshakes) checkEmpty(t *testing.T) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.open)+len(h.sources)+len(h.ring)+h.begun+h.running+h.fresh.Len()+h.stalled.Len() != 0 {
		t.Errorf("left: %d open, %d sources, %d in the ring, %d begun, %d running, %d fresh, %d stalled", len(h.open), len(h.sources), len(h.ring), h.begun, h.running, h.fresh.Len(), h.stalled.Len())
	}
}

// TestTurnsOfAddresses: the CPU goes to the addresses in turns, and within one first to
// the handshakes that have begun.
func TestTurnsOfAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandshakes(100, 100, 1)
		var order []string
		var all sync.WaitGroup
		begin := func(name, from string) *handshake {
			k := h.enter(newPeer(from), time.Minute)
			all.Go(func() {
				if err := k.compute(); err != nil {
					t.Error(err)
				}
				order = append(order, name) // one at a time
				_ = k.leave()
			})
			synctest.Wait()
			return k
		}
		first, again := h.enter(newPeer("10.0.0.9"), time.Minute), h.enter(newPeer("10.0.0.1"), time.Minute)
		if err := errors.Join(again.compute(), nil); err != nil {
			t.Fatal(err)
		}
		again.await()
		if err := first.compute(); err != nil { // keeps the CPU
			t.Fatal(err)
		}
		for i := range 4 {
			begin(fmt.Sprint("a", i), "10.0.0.1")
		}
		begin("b", "10.0.0.2")
		begin("c0", "2001:db8::1")
		begin("c1", "2001:db8::2") // the same network
		all.Go(func() {
			_ = again.compute()
			order = append(order, "again")
			_ = again.leave()
		})
		synctest.Wait()
		if len(order) > 0 {
			t.Fatalf("%v have a CPU that another has", order)
		}
		first.await() // its peer: it needs no CPU
		all.Wait()
		if want := []string{"again", "b", "c0", "a0", "c1", "a1", "a2", "a3"}; !slices.Equal(order, want) {
			t.Errorf("the order is %v, want %v", order, want)
		}
		_ = first.leave()
		h.checkEmpty(t)
	})
}

// TestWhoGivesWay: one handshake too many takes the place of the one that has waited for
// its peer for longest; where none has for long, of one from the address with most of them.
func TestWhoGivesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandshakes(4, 4, 1)
		peers := map[string]*peerConn{}
		enter := func(name, from string) *handshake {
			peers[name] = newPeer(from)
			return h.enter(peers[name], time.Minute)
		}
		gone := func(want ...string) {
			t.Helper()
			var got []string
			for name, p := range peers {
				if p.gone() {
					got = append(got, name)
				}
			}
			if slices.Sort(got); !slices.Equal(got, want) {
				t.Fatalf("%v are gone, want %v", got, want)
			}
		}
		a0 := enter("a0", "10.0.0.1")
		time.Sleep(handshakePatience / 2)
		a1 := enter("a1", "10.0.0.1")
		if err := a1.compute(); err != nil {
			t.Fatal(err)
		}
		a2, b0 := enter("a2", "10.0.0.1"), enter("b0", "10.0.0.2")
		if enter("a3", "10.0.0.1") != nil {
			t.Fatal("there is a place where none of its address gives way")
		}
		gone()
		queued := make(chan error)
		go func() { queued <- a2.compute() }()
		synctest.Wait()
		if enter("b1", "10.0.0.2") == nil {
			t.Fatal("an address with few finds no place")
		}
		gone("a2")
		if enter("b2", "10.0.0.2") != nil {
			t.Fatal("an address has more than its share")
		}
		if err := <-queued; !errors.Is(err, errCrowded) {
			t.Errorf("who waited for a CPU is told %v", err)
		}
		time.Sleep(handshakePatience/2 + time.Millisecond)
		if enter("d0", "10.0.0.4") == nil {
			t.Fatal("who has waited for long keeps its place")
		}
		gone("a0", "a2")
		if err := a0.leave(); !errors.Is(err, errCrowded) {
			t.Errorf("who has waited is told %v", err)
		}
		a1.await()
		time.Sleep(handshakePatience)
		for i := range 4 { // all are older, and those that have begun no younger than others
			if enter(fmt.Sprint("e", i), "10.0.0.5") == nil {
				t.Fatal("no place")
			}
		}
		gone("a0", "a1", "a2", "b0", "b1", "d0")
		if err := b0.compute(); !errors.Is(err, errCrowded) {
			t.Errorf("who has given way goes on: %v", err)
		}
		h.close()
		if enter("f", "10.0.0.6") != nil {
			t.Error("a handshake begins after the end")
		}
		h.checkEmpty(t)
	})
}

// TestBegunIsBounded: where as many have begun as may, the one that has waited for its peer
// for longest gives way to the next that begins; where none waits, that one waits.
func TestBegunIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandshakes(100, 2, 2)
		var peers []*peerConn
		var all []*handshake
		for range 4 {
			peers = append(peers, newPeer("10.0.0.1"))
			all = append(all, h.enter(peers[len(peers)-1], time.Minute))
		}
		for _, k := range all[:2] {
			if err := k.compute(); err != nil {
				t.Fatal(err)
			}
		}
		begun := make(chan error)
		go func() { begun <- all[2].compute() }()
		all[1].await()
		synctest.Wait()
		if !peers[1].gone() || <-begun != nil {
			t.Error("who waits for its peer keeps out another")
		}
		go func() { begun <- all[3].compute() }()
		synctest.Wait()
		select {
		case <-begun:
			t.Error("more have begun than may")
		default:
		}
		_ = all[0].leave()
		if err := <-begun; err != nil {
			t.Error(err)
		}
		for _, k := range all {
			_ = k.leave()
		}
		h.checkEmpty(t)
	})
}

// TestLateForACPU: who has waited for a CPU beyond its time gets none.
func TestLateForACPU(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandshakes(100, 100, 1)
		busy, late := h.enter(newPeer("10.0.0.1"), time.Minute), h.enter(newPeer("10.0.0.1"), time.Second)
		_ = busy.compute()
		time.AfterFunc(2*time.Second, func() { _ = busy.leave() })
		if err := late.compute(); failureOf(err) != failedTime {
			t.Errorf("it is told %v", err)
		}
		_ = late.leave()
		h.checkEmpty(t)
	})
}

// TestHandshakeBytes: what a peer sends for a handshake is bounded, to the byte.
func TestHandshakeBytes(t *testing.T) {
	h := newHandshakes(1, 1, 1)
	p := newPeer("10.0.0.1")
	k := h.enter(p, time.Minute)
	_ = k.compute()
	p.sent <- handshakeBytes - 1
	b := make([]byte, 2*handshakeBytes)
	for _, want := range []int{handshakeBytes - 1, 1} {
		if n, err := k.read(b); n != want || err != nil {
			t.Errorf("read %d bytes, %v, want %d", n, err, want)
		}
		p.sent <- 5
	}
	if n, err := k.read(b); n != 0 || !errors.Is(err, errHandshakeBytes) {
		t.Errorf("beyond the bound: %d bytes, %v", n, err)
	}
	_ = k.leave()
	h.checkEmpty(t)
}

// TestHandshakesAtRandom: whatever comes, the bounds hold, all go on, and nothing is left.
func TestHandshakesAtRandom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(1, 2))
		h := newHandshakes(20, 6, 2)
		var all sync.WaitGroup
		var mu sync.Mutex
		running, done := 0, 0
		for range 2000 {
			p := newPeer(fmt.Sprintf("10.0.0.%d", 1+r.IntN(1+r.IntN(8))))
			k := h.enter(p, time.Second)
			steps, stops, work := r.IntN(4), r.IntN(3) == 0, time.Duration(r.IntN(2000))*time.Microsecond
			time.Sleep(time.Duration(r.IntN(10_000)) * time.Microsecond)
			if k == nil {
				continue
			}
			all.Go(func() {
				defer func() { _ = k.leave() }()
				for step := range steps + 1 {
					if step > 0 {
						if !stops { // otherwise until another takes the place, or the test ends
							p.sent <- 1
						}
						if n, err := k.read(make([]byte, 9)); n == 0 || err != nil {
							return
						}
					} else if k.compute() != nil {
						return
					}
					mu.Lock()
					running++
					if running > h.cpus {
						t.Errorf("%d compute at a time", running)
					}
					mu.Unlock()
					time.Sleep(work)
					mu.Lock()
					running--
					mu.Unlock()
				}
				mu.Lock()
				done++
				mu.Unlock()
			})
			h.mu.Lock()
			if len(h.open) > h.most || h.begun > h.begunMost || h.running > h.cpus {
				t.Errorf("%d open, %d begun, %d running", len(h.open), h.begun, h.running)
			}
			h.mu.Unlock()
		}
		h.close()
		all.Wait()
		if done < 100 {
			t.Errorf("%d have come through", done)
		}
		h.checkEmpty(t)
	})
}
