package server

import (
	"errors"
	"fmt"
)

// Capability is something that not every transport can do. Where one cannot, a
// connection is closed that others would serve on.
type Capability string

const (
	// Pauses: a connection that has reached a bound is not read until it has
	// caught up, so that its client waits.
	Pauses Capability = "pauses"
	// HalfClose: what has been asked before the client closed its sending
	// direction is answered.
	HalfClose Capability = "half-close"
)

// Transport is a way to drive sockets, by the name that Config gives it.
type Transport struct {
	Name  string
	Lacks map[Capability]string // and what happens instead
	open  func(*Server) (transport, error)
}

// Transports are all transports. What one lacks is told by this table alone: the
// documentation and the tests have it from here.
var Transports = []Transport{
	{Name: "epoll", open: newEpollTransport},
	{Name: "net", open: func(s *Server) (transport, error) { return newNetTransport(s), nil }},
	{Name: "netpoll", open: newNetpollTransport, Lacks: map[Capability]string{
		Pauses:    "netpoll reads whatever arrives. What a connection at a bound sends on is kept, up to `network.in_flight_bytes_max`, and counted as memory of requests that have not arrived completely; beyond it the connection is closed with the reason (BUSY)",
		HalfClose: "netpoll closes a connection as soon as the client has closed its sending direction. What has not been answered by then is not answered",
	}},
}

// newTransport returns the transport that is configured, or by default the first
// that this system has.
func (s *Server) newTransport() (transport, error) {
	name := s.cfg.Transport
	for _, t := range Transports {
		if name != "" && name != t.Name {
			continue
		}
		tr, err := t.open(s)
		if errors.Is(err, errors.ErrUnsupported) {
			if name == "" {
				continue
			}
			err = fmt.Errorf("transport %s is not available on this system: %w", name, err)
		}
		return tr, err
	}
	return nil, fmt.Errorf("unknown transport %q; use epoll, net or netpoll", name)
}
