package test

import (
	"io"
	"net"
	"sync"
	"testing"

	"github.com/proa-kv/proa/protocol"
)

// proxy stands between clients and a server and can lose a reply: the server
// has carried the request out by then, and the client cannot know.
type proxy struct {
	ln     net.Listener
	server string

	mu     sync.Mutex
	armed  func() // not nil: the next reply is lost, and this is called before the connection breaks
	conns  map[net.Conn]struct{}
	closed bool
	cuts   int
	wg     sync.WaitGroup
}

func startProxy(t *testing.T, server string) *proxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{ln: ln, server: server, conns: make(map[net.Conn]struct{})}
	p.wg.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

// loseNext has the next reply lost and both sides of its connection closed.
// Before the client notices, then is called, if not nil.
func (p *proxy) loseNext(then func()) {
	if then == nil {
		then = func() {}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.armed = then
}

// lost returns how many replies have been lost.
func (p *proxy) lost() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cuts
}

func (p *proxy) close() {
	p.mu.Lock()
	p.closed = true
	for nc := range p.conns {
		nc.Close()
	}
	p.mu.Unlock()
	p.ln.Close()
	p.wg.Wait()
}

// track registers a connection to be closed with the proxy.
func (p *proxy) track(nc net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		nc.Close()
		return false
	}
	p.conns[nc] = struct{}{}
	return true
}

func (p *proxy) accept() {
	for {
		nc, err := p.ln.Accept()
		if err != nil {
			return
		}
		if p.track(nc) {
			p.wg.Go(func() { p.serve(nc) })
		}
	}
}

func (p *proxy) serve(toClient net.Conn) {
	defer toClient.Close()
	toServer, err := net.Dial("tcp", p.server)
	if err != nil || !p.track(toServer) {
		return
	}
	defer toServer.Close()
	p.wg.Go(func() {
		_, _ = io.Copy(toServer, toClient)
		toServer.Close()
	})
	p.replies(toClient, toServer)
}

// replies forwards whole frames. The first, the answer to HELLO, always
// passes.
func (p *proxy) replies(toClient, toServer net.Conn) {
	var buf []byte
	chunk := make([]byte, 64<<10)
	for first := true; ; {
		f, n, _, err := protocol.Next(buf, protocol.FrameBytesMax)
		switch {
		case err != nil:
			return
		case n == 0:
			k, err := toServer.Read(chunk)
			if err != nil {
				return
			}
			buf = append(buf, chunk[:k]...)
			continue
		}
		if !first && f.ID != 0 {
			if then := p.disarm(); then != nil {
				then()
				return
			}
		}
		first = false
		if _, err := toClient.Write(buf[:n]); err != nil {
			return
		}
		buf = append(buf[:0], buf[n:]...)
	}
}

func (p *proxy) disarm() (then func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if then = p.armed; then != nil {
		p.armed = nil
		p.cuts++
	}
	return then
}
