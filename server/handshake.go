package server

import (
	"container/list"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"time"
)

// Handshakes of TLS.
//
// A stranger who connects to a port that speaks TLS takes a descriptor and a
// goroutine, and with a ClientHello some hundred microseconds of CPU (milliseconds,
// if the certificate is of RSA) and tens of kilobytes. So handshakes are bounded in
// three ways: how many connections have not come through theirs, how many of these have
// more than the first bytes read, and how many compute at a time, which leaves the rest of
// the CPUs to the threads that poll.
//
// One handshake too many takes the place of another that waits for its peer, the
// longest first: an honest peer answers within a round trip, one that has stopped
// half-way never does. Where none has waited for long, the address gives way from which most
// come. The CPU is given to the addresses in turns. So neither ten thousand handshakes
// that stop half-way nor as many that do not keep out clients from other addresses.
const (
	// handshakesMax is the default of Config.HandshakesMax.
	handshakesMax = 4096
	// handshakesBegun is how many may have the state of TLS. It is what a CPU can
	// do within 150 ms, the round trip of a distant peer.
	handshakesBegun = 512
	// handshakeTime is how long a handshake may take, or network.frame_timeout, if
	// that is less.
	handshakeTime = 10 * time.Second
	// handshakeBytes is how much a peer may send for it: a ClientHello is some 2 KiB
	// and a chain of certificates some 5 KiB at most.
	handshakeBytes = 32 << 10
	// handshakePatience is how long a peer may take to answer before another
	// connection takes its place.
	handshakePatience = 200 * time.Millisecond
)

// handshakes are those of a server. Its lock is a leaf.
type handshakes struct {
	most      int // under way
	begunMost int // of those, with the state of TLS
	cpus      int // how many compute at a time

	mu      sync.Mutex
	closed  bool
	open    map[*handshake]struct{}
	begun   int
	running int
	fresh   list.List // that wait for their peer's first bytes, the longest first
	stalled list.List // that wait for their peer later, the longest first
	sources map[netip.Addr]*source
	ring    []*source // with handshakes that wait for a CPU, the next first
}

// source is an address from which handshakes come.
type source struct {
	address netip.Addr
	open    int
	queue   []*handshake // wait for a CPU to begin
	again   []*handshake // wait for a CPU to go on
}

// handshakeState is what a handshake does.
type handshakeState uint8

const (
	handshakeAwaits  handshakeState = iota // its peer
	handshakeQueued                        // waits for a CPU
	handshakeRunning                       // has one
	handshakeEnded
)

// handshake is one connection that has not come through it.
type handshake struct {
	of       *handshakes
	nc       net.Conn
	source   *source
	deadline time.Time
	turn     chan struct{} // a CPU has been given, or the end has come

	// Guarded by handshakes.mu.
	state handshakeState
	begun bool          // has the state of TLS
	since time.Time     // it waits for its peer
	place *list.Element // in fresh or stalled
	cause error         // of the end

	bytes int // of the peer; belongs to the goroutine that shakes hands
}

func (h *handshakes) init(most int) {
	h.most, h.begunMost, h.cpus = most, min(handshakesBegun, most), max(1, runtime.NumCPU()/2)
	h.open = make(map[*handshake]struct{})
	h.sources = make(map[netip.Addr]*source)
}

// sourceOf is the address that a connection counts for. Whoever has one address of
// version 6 has 2^64 of them.
func sourceOf(nc net.Conn) netip.Addr {
	tcp, ok := nc.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	a := tcp.AddrPort().Addr().Unmap().WithZone("")
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			a = p.Addr()
		}
	}
	return a
}

// enter begins the handshake of a connection, which has to end within limit. It
// returns nil where there is no place.
func (h *handshakes) enter(nc net.Conn, limit time.Duration) *handshake {
	now := time.Now()
	deadline := now.Add(limit)
	_ = nc.SetDeadline(deadline)
	address := sourceOf(nc)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil
	}
	s := h.sources[address]
	if s == nil {
		s = &source{address: address}
	}
	if len(h.open) >= h.most && !h.makeRoom(s, now) {
		return nil
	}
	h.sources[address] = s
	s.open++
	k := &handshake{of: h, nc: nc, source: s, deadline: deadline, turn: make(chan struct{}, 1)}
	h.open[k] = struct{}{}
	h.list(k, now)
	return k
}

// list has k wait for its peer. h.mu must be held.
func (h *handshakes) list(k *handshake, now time.Time) {
	waiting := &h.fresh
	if k.begun {
		waiting = &h.stalled
	}
	k.state, k.since, k.place = handshakeAwaits, now, waiting.PushBack(k)
}

// unlist ends that. h.mu must be held.
func (h *handshakes) unlist(k *handshake) {
	if k.place == nil {
		return
	}
	if k.begun {
		h.stalled.Remove(k.place)
	} else {
		h.fresh.Remove(k.place)
	}
	k.place = nil
}

// errCrowded ends a handshake whose place another takes.
var errCrowded = errors.New("too many handshakes are under way")

// makeRoom ends a handshake so that another from s may begin, or returns false.
// h.mu must be held.
func (h *handshakes) makeRoom(s *source, now time.Time) bool {
	var longest *handshake
	for _, waiting := range [...]*list.List{&h.fresh, &h.stalled} {
		if e := waiting.Front(); e != nil {
			if k := e.Value.(*handshake); longest == nil || k.since.Before(longest.since) {
				longest = k
			}
		}
	}
	if longest != nil && now.Sub(longest.since) >= handshakePatience {
		h.evict(longest, errCrowded)
		return true
	}
	largest := s
	for _, other := range h.sources {
		if other.open > largest.open {
			largest = other
		}
	}
	if largest.open <= s.open+1 {
		return false
	}
	if n := len(largest.queue); n > 0 {
		h.evict(largest.queue[n-1], errCrowded)
		return true
	}
	for k := range h.open {
		if k.source == largest && k.state == handshakeAwaits {
			h.evict(k, errCrowded)
			return true
		}
	}
	return false
}

// evict ends a handshake that does not compute. h.mu must be held.
func (h *handshakes) evict(k *handshake, cause error) {
	k.cause = cause
	k.nc.Close()
	queued := k.state == handshakeQueued
	h.remove(k)
	if queued {
		k.turn <- struct{}{}
	}
}

// remove takes k out of everything. h.mu must be held.
func (h *handshakes) remove(k *handshake) {
	switch k.state {
	case handshakeAwaits:
		h.unlist(k)
	case handshakeQueued:
		is := func(other *handshake) bool { return other == k }
		s := k.source
		s.queue, s.again = slices.DeleteFunc(s.queue, is), slices.DeleteFunc(s.again, is)
		if len(s.queue)+len(s.again) == 0 {
			h.ring = slices.DeleteFunc(h.ring, func(other *source) bool { return other == s })
		}
	case handshakeRunning:
		h.running--
	case handshakeEnded:
		return
	}
	k.state = handshakeEnded
	if k.begun {
		h.begun--
	}
	delete(h.open, k)
	if k.source.open--; k.source.open == 0 {
		delete(h.sources, k.source.address)
	}
}

// leave ends k. It returns why another has ended it before: the connection is closed
// then.
func (k *handshake) leave() error {
	h := k.of
	h.mu.Lock()
	defer h.mu.Unlock()
	h.remove(k)
	h.dispatch()
	return k.cause
}

// await has k wait for its peer: its CPU is for others.
func (k *handshake) await() {
	h := k.of
	h.mu.Lock()
	defer h.mu.Unlock()
	if k.state != handshakeRunning {
		return
	}
	h.running--
	h.list(k, time.Now())
	h.dispatch()
}

// compute waits for a CPU. It returns an error where k has been ended.
func (k *handshake) compute() error {
	h := k.of
	h.mu.Lock()
	if k.state == handshakeAwaits {
		h.unlist(k)
		s := k.source
		if len(s.queue)+len(s.again) == 0 {
			h.ring = append(h.ring, s)
		}
		if k.state = handshakeQueued; k.begun {
			s.again = append(s.again, k)
		} else {
			s.queue = append(s.queue, k)
		}
		h.dispatch()
		h.mu.Unlock()
		<-k.turn
		h.mu.Lock()
	}
	defer h.mu.Unlock()
	return k.cause
}

// dispatch gives CPUs to those that wait for one. h.mu must be held.
func (h *handshakes) dispatch() {
	for h.running < h.cpus {
		k := h.next()
		switch {
		case k == nil:
			return
		case !time.Now().Before(k.deadline):
			h.evict(k, errHandshakeTime)
			continue
		case !k.begun:
			if h.begun >= h.begunMost {
				h.evict(h.stalled.Front().Value.(*handshake), errCrowded)
			}
			k.begun = true
			h.begun++
		}
		k.state = handshakeRunning
		h.running++
		k.turn <- struct{}{}
	}
}

// errHandshakeTime ends a handshake that has waited for a CPU for too long.
var errHandshakeTime = errors.New("the handshake did not end in time")

// next takes the next handshake that may have a CPU from the ring, or returns nil. Of
// one source those that have begun come first. h.mu must be held.
func (h *handshakes) next() (k *handshake) {
	full := h.begun >= h.begunMost && h.stalled.Len() == 0
	for i, s := range h.ring {
		switch {
		case len(s.again) > 0:
			k, s.again = s.again[0], s.again[1:]
		case full:
			continue // until one of those that have begun has ended, or waits for its peer
		default:
			k, s.queue = s.queue[0], s.queue[1:]
		}
		h.ring = slices.Delete(h.ring, i, i+1)
		if len(s.queue)+len(s.again) > 0 {
			h.ring = append(h.ring, s)
		}
		return k
	}
	return nil
}

// read reads of the peer, and waits for a CPU to go on with.
func (k *handshake) read(b []byte) (int, error) {
	k.await()
	if k.bytes >= handshakeBytes {
		return 0, errHandshakeBytes
	}
	n, err := k.nc.Read(b[:min(len(b), handshakeBytes-k.bytes)])
	k.bytes += n
	if n == 0 {
		return 0, k.why(err)
	}
	return n, k.compute()
}

// errHandshakeBytes ends a handshake that is too long.
var errHandshakeBytes = errors.New("the client has sent too much for a handshake")

// why is the cause of an error: where the server has closed the connection, why.
func (k *handshake) why(err error) error {
	k.of.mu.Lock()
	defer k.of.mu.Unlock()
	if k.cause != nil {
		return k.cause
	}
	return err
}

// underWay is how many connections have not come through their handshakes.
func (h *handshakes) underWay() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.open)
}

// close ends all handshakes.
func (h *handshakes) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for k := range h.open {
		k.cause = net.ErrClosed
		if k.state == handshakeRunning {
			k.nc.Close() // whoever has the CPU notices
		} else {
			h.evict(k, net.ErrClosed)
		}
	}
}
