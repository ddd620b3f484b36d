package admin

import (
	"bytes"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/proa-kv/proa/internal/lograte"
)

// What one client of the admin server may take, which shares its process with the data
// plane, and answers some requests of anybody.
const (
	connectionsDefault = 64
	headerBytesMax     = 16 << 10
	bodyBytesMax       = 1 << 20 // of /debug/pprof/symbol, the only request with a body
	symbolPath         = "/debug/pprof/symbol"
)

// timeouts bound how long a client may take.
type timeouts struct {
	header time.Duration // from the connection, or the first byte of a further request
	read   time.Duration // header and body
	write  time.Duration // from the header on; net/http/pprof adds what a profile takes
	idle   time.Duration // between two requests
}

var timeoutsUsual = timeouts{header: 5 * time.Second, read: 10 * time.Second, write: 30 * time.Second, idle: 30 * time.Second}

// withoutBody refuses requests that carry a body where none is expected, and
// does not wait for it.
func withoutBody(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		switch {
		case r.URL.Path == symbolPath:
			r.Body = http.MaxBytesReader(w, r.Body, bodyBytesMax)
		case r.ContentLength != 0:
			_ = control.SetReadDeadline(time.Now())
			w.Header().Set("Connection", "close")
			http.Error(w, "the admin port accepts no request bodies", http.StatusRequestEntityTooLarge)
			return
		default:
			// The request is there. What is read from now on only tells that the
			// client has gone, and a profile may take longer than a request.
			_ = control.SetReadDeadline(time.Time{})
		}
		next.ServeHTTP(w, r)
	})
}

// boundedListener is a listener that bounds its connections. One too many takes the place
// of the one that has waited longest for a request, so that silent connections
// keep nobody out; where all carry requests, it is closed itself.
type boundedListener struct {
	net.Listener
	max  int
	wrap func(net.Conn) net.Conn // what is handed on of a connection

	mu      sync.Mutex
	open    map[net.Conn]struct{}
	waiting []net.Conn // without a request, the longest first
}

func newBoundedListener(ln net.Listener, max int, wrap func(net.Conn) net.Conn) *boundedListener {
	return &boundedListener{Listener: ln, max: max, wrap: wrap, open: make(map[net.Conn]struct{})}
}

// Accept implements net.Listener.
func (c *boundedListener) Accept() (net.Conn, error) {
	for {
		nc, err := c.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if nc = c.wrap(nc); c.enter(nc) {
			return nc, nil
		}
		nc.Close()
	}
}

// enter makes room for a connection, or returns false where there is none.
func (c *boundedListener) enter(nc net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.open) >= c.max {
		if len(c.waiting) == 0 {
			return false
		}
		longest := c.waiting[0]
		c.leave(longest)
		go longest.Close() // which may have to say so to its client
	}
	c.open[nc] = struct{}{}
	c.waiting = append(c.waiting, nc)
	return true
}

// leave forgets a connection. c.mu must be held.
func (c *boundedListener) leave(nc net.Conn) {
	delete(c.open, nc)
	c.attend(nc)
}

// attend takes a connection out of those that wait. c.mu must be held.
func (c *boundedListener) attend(nc net.Conn) {
	c.waiting = slices.DeleteFunc(c.waiting, func(x net.Conn) bool { return x == nc })
}

// changed is the server's ConnState.
func (c *boundedListener) changed(nc net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch state {
	case http.StateActive:
		c.attend(nc)
	case http.StateIdle:
		if _, ok := c.open[nc]; ok {
			c.waiting = append(c.waiting, nc)
		}
	case http.StateClosed, http.StateHijacked:
		c.leave(nc)
	}
}

// lineWriter takes what net/http logs of its clients.
type lineWriter struct {
	log  *slog.Logger
	line lograte.Line
}

// Write implements io.Writer for a log.Logger, which calls it once a line.
func (w *lineWriter) Write(b []byte) (int, error) {
	w.line.Warn(w.log, "HTTP error on the admin port", "problem", string(bytes.TrimSpace(b)))
	return len(b), nil
}
