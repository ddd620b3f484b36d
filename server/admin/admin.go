// Package admin is the admin HTTP server: health, status, metrics and profiles.
// It serves no data.
package admin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/proa-kv/proa/access"
	"github.com/proa-kv/proa/internal/lograte"
	"github.com/proa-kv/proa/internal/wrongport"
)

// Source is what the admin server shows.
type Source struct {
	// Status returns the node's status as JSON.
	Status func() ([]byte, error)
	// Ready returns nil while the node serves.
	Ready func() error
	// Collect adds the node's own metrics to the registry.
	Collect prometheus.Collector

	// Secure shakes hands with a client of TLS, on a connection of which first has
	// been read; Server.Secure of package server does. nil: there is no TLS.
	Secure func(nc net.Conn, first []byte) (*tls.Conn, error)
	// PlainToo has clients without TLS served beside those with it.
	PlainToo bool

	// Authorize returns what a caller may do who presents a name and a password, or neither.
	// nil: everything.
	Authorize func(ctx context.Context, user, password, address string) (*access.Permit, error)

	// ConnectionsMax bounds the connections open at a time. 0: 64.
	ConnectionsMax int
	// Ports knows the node's ports, for callers who come to the wrong one; nil:
	// the answer then names the port without its address.
	Ports *wrongport.Ports
	// Logger gets what is wrong with clients, a line in a while. nil: nobody.
	Logger *slog.Logger
}

// Server is the admin server.
type Server struct {
	http      http.Server
	ln        net.Listener
	ports     *wrongport.Ports
	secure    func(nc net.Conn, first []byte) (*tls.Conn, error)
	plain     bool // is served
	log       *slog.Logger
	wrongPort lograte.Line
}

// Listen opens the admin server on address (host:port) and serves it until
// Shutdown.
func Listen(address string, src Source) (*Server, error) {
	return listen(address, src, timeoutsUsual)
}

func listen(address string, src Source, limit timeouts) (*Server, error) {
	ln, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s for admin HTTP: %w; choose another address with --admin-listen", address, err)
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if src.Collect != nil {
		reg.MustRegister(src.Collect)
	}
	if src.ConnectionsMax <= 0 {
		src.ConnectionsMax = connectionsDefault
	}
	if src.Logger == nil {
		src.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{ln: ln, ports: src.Ports, secure: src.Secure, plain: src.Secure == nil || src.PlainToo, log: src.Logger}
	bounded := newBoundedListener(ln, src.ConnectionsMax, func(nc net.Conn) net.Conn { return &caller{Conn: nc, s: s} })
	s.http = http.Server{
		Handler:           withoutBody(routes(src, reg)),
		ReadHeaderTimeout: limit.header,
		ReadTimeout:       limit.read,
		WriteTimeout:      limit.write,
		IdleTimeout:       limit.idle,
		MaxHeaderBytes:    headerBytesMax,
		ConnState:         bounded.changed,
		ConnContext:       withCaller,
		ErrorLog:          log.New(&lineWriter{log: src.Logger}, "", 0),
	}
	go func() { _ = s.http.Serve(bounded) }()
	return s, nil
}

func routes(src Source, reg *prometheus.Registry) *http.ServeMux {
	mux := http.NewServeMux()
	guard := guard{src.Authorize}
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "proa\n\n/healthz       the process is running\n/readyz        the node knows a leader of every shard\n/status        this node's own view, as proa status --node -o json\n/metrics       metrics for Prometheus\n/debug/pprof/  profiles\n")
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := src.Ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.Handle("GET /status", guard.only(access.Monitor, func(w http.ResponseWriter, _ *http.Request) {
		b, err := src.Status()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(b)
	}))
	mux.Handle("GET /metrics", guard.only(access.Monitor, promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP))
	for path, profile := range map[string]http.HandlerFunc{
		"/debug/pprof/": pprof.Index, "/debug/pprof/cmdline": pprof.Cmdline, "/debug/pprof/profile": pprof.Profile,
		symbolPath: pprof.Symbol, "/debug/pprof/trace": pprof.Trace,
	} {
		mux.Handle(path, guard.only(access.Admin, profile))
	}
	return mux
}

// Addr returns the address listened on.
func (s *Server) Addr() net.Addr { return s.ln.Addr() }

// shutdownTime is how long requests under way have when the server stops: none
// changes anything.
const shutdownTime = time.Second

// Shutdown stops the server. It waits for requests under way until ctx ends, for
// a second at most.
func (s *Server) Shutdown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, shutdownTime)
	defer cancel()
	if err := s.http.Shutdown(ctx); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return errors.Join(err, s.http.Close())
	}
	return nil
}
