package server

import (
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync/atomic"

	"github.com/proa-kv/proa/internal/lograte"
	"github.com/proa-kv/proa/internal/wrongport"
)

// handshakeFailure is why a handshake has come to nothing.
type handshakeFailure uint8

const (
	failedTime        handshakeFailure = iota // not over in time
	failedCrowded                             // too many at a time
	failedLeft                                // the client has closed the connection
	failedPlain                               // no TLS
	failedVersion                             // no version in common
	failedCertificate                         // of the client
	failedRejected                            // the client does not accept the server's certificate, or something else
	failedProtocol

	handshakeFailures
)

// failures are the names of what can go wrong, for metrics, and what to do about it, for
// the log.
var failures = [handshakeFailures]struct{ reason, advice string }{
	failedTime:        {"timeout", "the client did not answer in time, or the server has too much to do"},
	failedCrowded:     {"crowded", "too many connections are in their handshakes; clients connect again by themselves, strangers are for a firewall"},
	failedLeft:        {"closed", "the client closed the connection during the handshake: its own log says why"},
	failedPlain:       {"plain", "connect with TLS, or set tls.mode to optional"},
	failedVersion:     {"version", "the client does not support the version of TLS that tls.min_version asks for: update it, or set tls.min_version to 1.2"},
	failedCertificate: {"certificate", "the client needs a valid certificate that an authority in tls.client_ca has signed"},
	failedRejected:    {"rejected", "the client has refused, most likely the server's certificate: it needs the authority that has signed it, and a name or address that is in it"},
	failedProtocol:    {"protocol", "is it a client of TLS?"},
}

// failureOf tells why a handshake failed with err.
func failureOf(err error) handshakeFailure {
	var op *net.OpError
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.Is(err, errCrowded):
		return failedCrowded
	case errors.Is(err, errHandshakeTime), errors.Is(err, os.ErrDeadlineExceeded):
		return failedTime
	case errors.As(err, &op) && op.Op == "remote error": // an alert
		return failedRejected
	case strings.Contains(err.Error(), "bad record MAC"): // an alert of OpenSSL, which is not encrypted
		return failedRejected
	case op != nil && op.Op == "local error":
		return failedProtocol
	case op != nil, errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF): // of the socket
		return failedLeft
	case errors.As(err, &certificate), strings.Contains(err.Error(), "certificate"):
		return failedCertificate
	case strings.Contains(err.Error(), "unsupported versions"):
		return failedVersion
	}
	return failedProtocol
}

// tlsDoor lets in those who speak TLS.
type tlsDoor struct {
	srv        *Server
	handshakes handshakes
	line       lograte.Line // of handshakes that fail

	accepted atomic.Uint64 // handshakes that were completed
	failed   [handshakeFailures]atomic.Uint64
}

func (d *tlsDoor) init(s *Server) {
	d.srv = s
	d.handshakes.init(s.cfg.HandshakesMax)
}

// TLSStatus is the part of a Status that concerns TLS.
type TLSStatus struct {
	Connections int               `json:"connections"` // encrypted
	Handshakes  int               `json:"handshakes"`  // under way
	Accepted    uint64            `json:"accepted"`    // connections whose handshake was completed
	Failed      map[string]uint64 `json:"failed"`      // handshakes, by reason
}

// TLSStatus returns the figures of TLS.
func (d *tlsDoor) TLSStatus() TLSStatus {
	st := TLSStatus{Handshakes: d.handshakes.underWay(), Accepted: d.accepted.Load(), Failed: make(map[string]uint64)}
	for f := range d.failed {
		st.Failed[failures[f].reason] = d.failed[f].Load()
	}
	d.srv.conns.each(func(c *conn) {
		if c.Encrypted() {
			st.Connections++
		}
	})
	return st
}

// fail counts and logs a handshake that has come to nothing, and closes the connection.
func (d *tlsDoor) fail(nc net.Conn, err error) {
	defer nc.Close()
	if errors.Is(err, net.ErrClosed) {
		return // the server stops
	}
	f := failureOf(err)
	d.failed[f].Add(1)
	d.srv.log.Debug("TLS handshake failed", "remote", nc.RemoteAddr().String(), "error", err)
	d.line.Log(d.srv.log, slog.LevelInfo, "a TLS handshake failed", "reason", failures[f].reason, "error", err, "remote", nc.RemoteAddr().String(), "advice", failures[f].advice)
}

// shakeHands serves a connection to a listener that speaks TLS, once it has come through
// its handshake.
func (a *acceptor) shakeHands(k *handshake, ln listener) {
	defer a.running.Done()
	w := &wire{Conn: k.nc, handshake: k}
	caller, err := w.recognize()
	if err != nil {
		if first := w.first; k.leave() != nil || len(first) > 0 || !errors.Is(err, io.EOF) {
			a.srv.fail(k.nc, err)
		}
		k.nc.Close() // a port that is only looked at
		return
	}
	switch {
	case caller == wrongport.TLS:
		if tc, err := a.srv.shake(w, ln.tls.Config); err == nil {
			a.serve(tc, tc, ln)
		}
	case !ln.tls.Optional:
		a.refusePlain(w, caller, ln)
	case k.leave() == nil:
		w.handOn()
		a.serve(w, nil, ln)
	default: // its place was needed
		k.nc.Close()
	}
}

// recognize reads of a connection until it shows what the caller speaks.
func (w *wire) recognize() (wrongport.Protocol, error) {
	w.first = make([]byte, 0, wrongport.RecognizeBytes)
	for {
		n, err := w.Conn.Read(w.first[len(w.first):cap(w.first)])
		w.first = w.first[:len(w.first)+n]
		if caller, more := wrongport.Recognize(w.first); n > 0 && !more {
			return caller, nil
		}
		if err != nil {
			return wrongport.Unknown, w.handshake.why(err)
		}
	}
}

// shake shakes hands. Where that fails the connection is closed.
func (d *tlsDoor) shake(w *wire, config *tls.Config) (*tls.Conn, error) {
	k := w.handshake
	tc := tls.Server(w, config)
	err := k.compute()
	if err == nil {
		err = tc.Handshake()
	}
	if cause := k.leave(); cause != nil {
		err = cause
	}
	if err != nil {
		d.fail(k.nc, err)
		return nil, err
	}
	d.accepted.Add(1)
	w.handOn()
	return tc, nil
}

// Secure shakes hands with a client of TLS on a connection that is none of the server's
// own, and of which first has been read. Its handshakes are bounded together with those
// of the server. Where it fails the connection is closed; otherwise it has no deadlines
// afterwards.
func (d *tlsDoor) Secure(nc net.Conn, first []byte, config *tls.Config) (*tls.Conn, error) {
	k := d.enter(nc)
	if k == nil {
		return nil, errCrowded
	}
	return d.shake(&wire{Conn: nc, first: first, handshake: k}, config)
}

// enter begins a handshake. Where there is no place it returns nil, and closes the
// connection.
func (d *tlsDoor) enter(nc net.Conn) *handshake {
	k := d.handshakes.enter(nc, min(d.srv.cfg.FrameTimeout, handshakeTime))
	if k == nil {
		d.fail(nc, errCrowded)
	}
	return k
}

// refusePlain answers a caller without TLS in the protocol that it speaks.
func (a *acceptor) refusePlain(w *wire, caller wrongport.Protocol, ln listener) {
	s, port := a.srv, wrongport.Client
	if ln.protocol != nil {
		port = ln.protocol.Port()
	}
	answer, why := s.cfg.Ports.AnswerPlain(port, caller, w.first)
	s.counters.refused.Add(1)
	s.failed[failedPlain].Add(1)
	s.lines.wrongProtocol.Warn(s.log, "closed a connection without TLS", "port", port.String(), "speaks", caller.String(), "remote", w.RemoteAddr().String(), "answer", why)
	wrongport.Dismiss(w.Conn, answer)
	_ = w.handshake.leave()
}
