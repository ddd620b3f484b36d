package server

import (
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"time"
)

// acceptor accepts connections through Go's net package, for the transports that
// do not poll their listeners themselves.
type acceptor struct {
	srv  *Server
	open func(net.Conn) acceptedSocket

	mu        sync.Mutex
	listeners []listener
	running   sync.WaitGroup // what serves connections, and accepts them
	ending    bool           // nothing may be added to running any more
	stopped   chan struct{}
}

// acceptedSocket is the socket of a connection that has been accepted.
type acceptedSocket interface {
	socket
	// start begins to serve c, which is in its table.
	start(c *conn)
}

func newAcceptor(s *Server) *acceptor {
	return &acceptor{srv: s, stopped: make(chan struct{})}
}

func (a *acceptor) listen(ln listener) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.listeners = append(a.listeners, ln)
	return nil
}

func (a *acceptor) stopAccepting() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, ln := range a.listeners {
		ln.Close()
	}
}

// accept begins to accept connections.
func (a *acceptor) accept() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, ln := range a.listeners {
		a.running.Go(func() { a.acceptFrom(ln) })
	}
}

// begin counts what serves a connection among running, unless the end has come.
func (a *acceptor) begin(n int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ending {
		return false
	}
	a.running.Add(n)
	return true
}

func (a *acceptor) stop() {
	a.mu.Lock()
	a.ending = true
	a.mu.Unlock()
	close(a.stopped)
}

func (a *acceptor) acceptFrom(ln listener) {
	var pause time.Duration
	for {
		nc, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			pause = a.srv.acceptPause(err, pause)
			select {
			case <-a.stopped:
				return
			case <-time.After(pause):
			}
			continue
		}
		pause = 0
		a.admit(nc, ln)
	}
}

func (a *acceptor) admit(nc net.Conn, ln listener) {
	s := a.srv
	if tc, ok := nc.(*net.TCPConn); ok {
		_ = tc.SetNoDelay(!s.cfg.Delay)
		_ = tc.SetKeepAliveConfig(net.KeepAliveConfig{Enable: s.cfg.KeepAlive > 0, Idle: max(s.cfg.KeepAlive, 0)})
	}
	if ln.tls == nil {
		a.serve(nc, nil, ln)
		return
	}
	switch k := s.enter(nc); {
	case k == nil:
	case a.begin(1):
		go a.shakeHands(k, ln)
	default:
		_ = k.leave()
		nc.Close()
	}
}

// serve makes a connection of one that has been accepted. tc is nc, where it speaks
// TLS.
func (a *acceptor) serve(nc net.Conn, tc *tls.Conn, ln listener) {
	s := a.srv
	x := a.open(nc)
	c := s.newConn(x, ln.protocol)
	c.listener, c.tls = ln.number, tc
	if s.draining.Load() || !s.conns.add(c) {
		_ = nc.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = nc.Write(s.rejection(c))
		nc.Close()
		return
	}
	x.start(c)
}
