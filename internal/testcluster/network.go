package testcluster

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// network stands between the servers of a cluster: each server's peers connect
// to a proxy in front of it. A connection is taken for the server whose process
// holds its other end, so a proxy knows both ends of each link although all
// servers advertise one address to all others.
type network struct {
	t    testing.TB
	done chan struct{} // closed when the test has ended
	wg   sync.WaitGroup

	mu    sync.Mutex
	nodes []*Node
	links map[[2]int]*Link // by the numbers of sender and receiver
	conns map[net.Conn]struct{}
}

func newNetwork(t testing.TB) *network {
	t.Helper()
	if !canIdentify {
		t.Skip("links between servers can be disturbed on Linux only")
	}
	w := &network{t: t, done: make(chan struct{}), links: map[[2]int]*Link{}, conns: map[net.Conn]struct{}{}}
	t.Cleanup(w.close)
	return w
}

// add makes a server known as a sender.
func (w *network) add(n *Node) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.nodes = append(w.nodes, n)
}

func (w *network) link(from, to int) *Link {
	w.mu.Lock()
	defer w.mu.Unlock()
	l := w.links[[2]int{from, to}]
	if l == nil {
		l = newLink()
		w.links[[2]int{from, to}] = l
	}
	return l
}

// front starts the proxy in front of a server that listens on address, and
// returns the proxy's own.
func (w *network) front(to int, address string) string {
	w.t.Helper()
	ln, err := net.Listen("tcp", FreeAddress(w.t))
	if err != nil {
		w.t.Fatal(err)
	}
	w.wg.Go(func() {
		<-w.done
		ln.Close()
	})
	w.wg.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			w.wg.Go(func() { w.serve(nc.(*net.TCPConn), to, address) })
		}
	})
	return ln.Addr().String()
}

func (w *network) close() {
	close(w.done)
	w.mu.Lock()
	for nc := range w.conns {
		nc.Close()
	}
	w.mu.Unlock()
	w.wg.Wait()
}

// track has nc closed with the network. It reports whether that is still to
// come.
func (w *network) track(nc net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-w.done:
		nc.Close()
		return false
	default:
	}
	w.conns[nc] = struct{}{}
	return true
}

func (w *network) drop(nc net.Conn) {
	nc.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.conns, nc)
}

// sender returns the number of the server that dialled nc.
func (w *network) sender(nc *net.TCPConn) (id int, ok bool) {
	w.mu.Lock()
	pids := make([]int, len(w.nodes))
	for i, n := range w.nodes {
		pids[i] = n.PID()
	}
	w.mu.Unlock()
	i, ok := owner(nc, pids)
	return i + 1, ok
}

// serve carries one connection.
func (w *network) serve(dialled *net.TCPConn, to int, address string) {
	if !w.track(dialled) {
		return
	}
	defer w.drop(dialled)
	from, ok := w.sender(dialled)
	if !ok {
		return // its process has gone
	}
	there, back := w.link(from, to), w.link(to, from)
	if !there.pass(time.Now(), w.done) {
		return
	}
	nc, err := net.Dial("tcp", address)
	if err != nil {
		// That nothing listens is news from there, too.
		back.pass(time.Now(), w.done)
		return
	}
	accepted := nc.(*net.TCPConn)
	if !w.track(accepted) {
		return
	}
	defer w.drop(accepted)
	var both sync.WaitGroup
	both.Go(func() { w.carry(dialled, accepted, there, back) })
	both.Go(func() { w.carry(accepted, dialled, back, there) })
	both.Wait()
}

const (
	chunkBytes = 32 << 10
	// chunksMax bounds what is under way on one direction of a connection.
	chunksMax = 128
)

// chunk is what was read at once, nil for the end of the stream.
type chunk struct {
	bytes []byte
	sent  time.Time
}

// carry moves one direction of a connection over its link until it ends. back
// is the link on which the sender learns that the receiver has gone.
func (w *network) carry(from, to *net.TCPConn, link, back *Link) {
	queue := make(chan chunk, chunksMax)
	gone := make(chan struct{}) // closed when nobody takes from queue
	var reader sync.WaitGroup
	reader.Go(func() { read(from, queue, gone) })
	defer reader.Wait()
	defer close(gone)
	for c := range queue {
		if !link.pass(c.sent, w.done) {
			return
		}
		if c.bytes == nil {
			// The other direction may have more to say.
			_ = to.CloseWrite()
			return
		}
		if _, err := to.Write(c.bytes); err != nil {
			back.pass(time.Now(), w.done)
			from.Close()
			return
		}
	}
}

// read queues what arrives, and its end. A connection that broke ends like one
// that was closed.
func read(from *net.TCPConn, queue chan<- chunk, gone <-chan struct{}) {
	defer close(queue)
	for {
		b := make([]byte, chunkBytes)
		n, err := from.Read(b)
		if n > 0 {
			select {
			case queue <- chunk{b[:n], time.Now()}:
			case <-gone:
				return
			}
		}
		if err != nil {
			if errors.Is(err, io.EOF) || !errors.Is(err, net.ErrClosed) {
				select {
				case queue <- chunk{nil, time.Now()}:
				case <-gone:
				}
			}
			return
		}
	}
}
