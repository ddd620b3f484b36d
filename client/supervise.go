package client

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/proa-kv/proa/internal/mux"
	"github.com/proa-kv/proa/protocol"
)

// Why the client itself ends a connection.
var (
	errSuperseded = errors.New("another configured endpoint reaches the same node")
	errNodeGone   = errors.New("the cluster no longer names the node at this address")
)

// supervise keeps one connection to an endpoint, until Close or until the
// endpoint has ended. The outcome of the first attempt goes to first. An advertised
// address rests while its node is reached by a configured endpoint.
func (ep *endpointState) supervise(first chan<- error) {
	defer ep.c.wg.Done()
	failures := 0 // in a row, but for those that a waiting call caused
	asked := false
	for ep.c.ctx.Err() == nil && !ep.over() {
		if ep.superfluous() {
			ep.rest()
			continue
		}
		if wait, refusal := ep.bar(ep.c.now()); wait > 0 { // another connection has found out
			if first != nil {
				first <- refusal
				first = nil
			}
			ep.sleep(wait, nil)
			continue
		}
		cn, err := ep.connect()
		if err == nil {
			ep.up.Add(1)
			if err = ep.c.pool.add(cn); err != nil {
				ep.up.Add(-1)
				cn.nc.Close()
			}
		}
		tries := ep.tried(ep.c.now(), err)
		if first != nil {
			first <- err
			first = nil
		}
		if !asked {
			failures++
		}
		if err != nil {
			if tries&(tries-1) == 0 { // waiting calls make it try often
				ep.c.cfg.Logger.Warn("cannot connect", "endpoint", ep.name, "attempt", tries, "error", err)
			}
			ep.c.dispatcher.failRefused()
		} else {
			cn.log.Info("connected", "node", cn.info.Node, "server", cn.info.Version)
			select {
			case <-cn.retired:
			case <-ep.ended:
				cn.end(errNodeGone)
				<-cn.retired
			}
			err = cn.reason()
			ep.lost(err)
			// A connection that lasted is tried again at once; one that breaks
			// as soon as it stands is no better than none.
			if ep.c.now()-cn.since >= int64(ep.c.cfg.BackoffMin) {
				failures = 0
			}
			if ep.c.ctx.Err() == nil {
				cn.log.Info("connection lost", "error", err)
			}
		}
		asked = ep.pause(ep.c.cfg.backoff(failures), err)
	}
}

// over reports whether no more connections are to be made.
func (ep *endpointState) over() bool {
	select {
	case <-ep.ended:
		return true
	default:
		return false
	}
}

// superfluous reports whether ep is the advertised address of a node that is
// reached without it.
func (ep *endpointState) superfluous() bool {
	if ep.node == nil {
		return false
	}
	for _, cn := range *ep.node.ready.Load() {
		if cn.ep.node == nil {
			return true
		}
	}
	return false
}

// rest waits until an advertised address may be needed again.
func (ep *endpointState) rest() {
	ep.node.wanted.Store(false)
	if !ep.superfluous() {
		return // nobody who asked in between has been overlooked
	}
	select {
	case <-ep.wanted:
	case <-ep.ended:
	case <-ep.c.ctx.Done():
	}
}

// backoff is the pause after so many failures in a row.
func (c *Config) backoff(failures int) time.Duration {
	if failures == 0 {
		return 0
	}
	return jitter(doubled(c.BackoffMin, c.BackoffMax, failures-1))
}

// askedPauseMax is the longest pause between two tries to reach an address while
// a call waits for it; jitter shortens it by up to a half.
const askedPauseMax = 100 * time.Millisecond

// pause waits before the next try, after one that ended in err. Back-off spares
// addresses that nobody needs: a call that waits for a connection cuts it short,
// and so does news that the node at the other end leads a shard, so it is up.
// Only a server that has refused for good, or has said when to come back, gets its
// pause whatever waits, and one that has refused the credentials a longer one. It
// reports whether the pause was cut short.
func (ep *endpointState) pause(d time.Duration, err error) (asked bool) {
	if wait, _ := ep.bar(ep.c.now()); wait > 0 {
		ep.sleep(wait, nil)
		return false
	}
	least := jitter(askedPauseMax)
	var e *Error
	switch {
	case errors.As(err, &e) && e.Status.Retry():
		least = max(least, e.RetryAfter)
	case errors.Is(err, ErrUnauthenticated): // a connection was closed; there may be new credentials
	case e != nil, lasting(err):
		least = ep.c.cfg.BackoffMin
	}
	least = min(d, least)
	if ep.sleep(least, nil); d == least {
		return false
	}
	return ep.c.pool.starved() || ep.sleep(d-least, ep.nudged)
}

// lasting reports whether the next attempt to connect will most likely end in the
// same error, until somebody changes something.
func lasting(err error) bool {
	var untrusted *tls.CertificateVerificationError
	var source *credentialsError
	for _, target := range []error{ErrWrongCluster, ErrNotProa, ErrNoTLS, ErrTLSRequired} {
		if errors.Is(err, target) {
			return true
		}
	}
	return errors.As(err, &untrusted) || errors.As(err, &source) || isAlert(err)
}

// sleep waits for d. It reports whether cut ended it.
func (ep *endpointState) sleep(d time.Duration, cut <-chan struct{}) bool {
	if d <= 0 {
		return false
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-cut:
		return true
	case <-ep.ended:
	case <-ep.c.ctx.Done():
	}
	return false
}

func (cn *conn) reason() error {
	cn.mu.Lock()
	defer cn.mu.Unlock()
	return cn.cause
}

// connect dials an endpoint and shakes hands. Credentials that are refused may have
// changed just now.
func (ep *endpointState) connect() (*conn, error) {
	ctx, cancel := context.WithTimeout(ep.c.ctx, ep.c.cfg.DialTimeout)
	defer cancel()
	who, err := ep.c.cfg.credentials(ctx)
	for err == nil {
		cn, failed := ep.connectAs(ctx, who)
		if !errors.Is(failed, ErrUnauthenticated) {
			return cn, failed
		}
		refused := who
		if who, err = ep.c.cfg.credentials(ctx); err == nil && who == refused {
			return nil, failed
		}
	}
	return nil, err
}

func (ep *endpointState) connectAs(ctx context.Context, who login) (cn *conn, err error) {
	var d net.Dialer
	if ep.c.cfg.KeepAlive < 0 {
		d.KeepAlive = -1
	} else {
		d.KeepAlive = ep.c.cfg.KeepAlive
	}
	nc, err := d.DialContext(ctx, ep.network, ep.address)
	if err != nil {
		return nil, err
	}
	// Ends the handshake's reads and writes together with ctx.
	raw := nc // nc becomes the TLS connection over it
	hand, end := context.WithCancelCause(ctx)
	defer end(nil)
	stop := context.AfterFunc(hand, func() { raw.SetDeadline(time.Unix(1, 0)) })
	if ep.reached.Load() == 0 {
		ep.c.wg.Add(1)
		go ep.soundOut(hand, end)
	}
	info, nc, err := ep.handshake(hand, nc, who)
	if !stop() && err == nil {
		err = hand.Err()
	}
	if err != nil {
		nc.Close()
		switch {
		case ctx.Err() != nil:
			err = unanswered(ctx, ep.c.cfg.DialTimeout, err)
		case hand.Err() != nil:
			err = context.Cause(hand)
		}
		return nil, err
	}
	if want := ep.c.cfg.Cluster; want != 0 && info.Cluster != want {
		nc.Close()
		return nil, &WrongClusterError{Endpoint: ep.name, Want: want, Got: info.Cluster}
	}
	if ep.node != nil && info.Node != ep.node.id {
		nc.Close()
		return nil, fmt.Errorf("%w: node %d answered at the address of node %d", ErrHandshake, info.Node, ep.node.id)
	}
	return ep.c.newConn(ep, nc, info), nil
}

// credentialsError says that Config.Credentials has failed.
type credentialsError struct{ err error }

func (e *credentialsError) Error() string { return "Config.Credentials: " + e.err.Error() }
func (e *credentialsError) Unwrap() error { return e.err }

// login is what a connection presents to the server.
type login struct{ user, secret string }

// credentials returns the login for a new connection.
func (c *Config) credentials(ctx context.Context) (login, error) {
	if c.Credentials == nil {
		return login{c.User, c.Secret}, nil
	}
	user, secret, err := c.Credentials(ctx)
	if err == nil && (len(user) > protocol.NameBytesMax || len(secret) > protocol.NameBytesMax) {
		err = fmt.Errorf("user or secret is over %d bytes", protocol.NameBytesMax)
	}
	if err != nil {
		return login{}, &credentialsError{err}
	}
	return login{user, secret}, nil
}

// handshake starts TLS, if configured, and exchanges HELLO. The connection it
// returns is to be used instead of nc, even after an error.
func (ep *endpointState) handshake(ctx context.Context, nc net.Conn, who login) (ServerInfo, net.Conn, error) {
	if t := ep.tls(); t != nil {
		tc := tls.Client(mux.NewSocket(nc), t)
		nc = tc
		if err := tc.HandshakeContext(ctx); err != nil {
			var plain tls.RecordHeaderError
			switch {
			case errors.As(err, &plain):
				err = ErrNoTLS
			case isHangUp(err):
				err = fmt.Errorf("%w (%w)", errHangUpTLS, err)
			}
			return ServerInfo{}, nc, ep.tlsError(t, err)
		}
		info, err := ep.hello(nc, who)
		switch { // with TLS 1.3 the server has looked at the client's certificate only now
		case isAlert(err):
			err = ep.tlsError(t, err)
		case isHangUp(err):
			err = ep.tlsError(t, fmt.Errorf("%w (%w)", errHangUpBehind, err))
		}
		return info, nc, err
	}
	info, err := ep.hello(nc, who)
	if cause := tlsRequired(err); cause != nil {
		err = &TLSError{Endpoint: ep.name, Err: cause}
	}
	return info, nc, err
}

// tls returns the configuration for the endpoint, nil for none.
func (ep *endpointState) tls() *tls.Config {
	if ep.c.cfg.TLS == nil || ep.network == "unix" {
		return nil
	}
	t := ep.c.cfg.TLS.Clone()
	host, _, _ := strings.Cut(ep.host, "%") // the zone of an IPv6 address is in no certificate
	t.ServerName = cmp.Or(t.ServerName, host)
	t.DynamicRecordSizingDisabled = true // what is written together shall leave together
	return t
}

func (ep *endpointState) hello(nc net.Conn, who login) (ServerInfo, error) {
	m := protocol.Hello{
		VersionMin: protocol.Version, VersionMax: protocol.Version,
		Name: []byte(ep.c.cfg.Name), User: []byte(who.user), Secret: []byte(who.secret),
	}
	if ep.c.session != nil {
		m.Features |= protocol.FeatureSessions
	}
	if who != (login{}) {
		m.Features |= protocol.FeatureCredentials
	}
	frame := m.AppendTo(protocol.Begin(nil, uint8(protocol.OpHello), 0, helloID))
	if _, err := nc.Write(protocol.End(frame, 0)); err != nil {
		return ServerInfo{}, err
	}
	f, err := readFrame(nc)
	if err != nil {
		return ServerInfo{}, err
	}
	if status := Status(f.Code); status != protocol.StatusOK {
		e := replyError(protocol.OpHello, status)
		e.Op, e.Outcome = "", NotDone // the error that it becomes part of names an operation
		e.addReply(f.Body)
		return ServerInfo{}, e
	}
	var r protocol.HelloReply
	if err := r.Decode(f.Body); err != nil {
		return ServerInfo{}, fmt.Errorf("%w: reply to HELLO: %w", ErrHandshake, err)
	}
	if r.Version != protocol.Version {
		return ServerInfo{}, fmt.Errorf("%w: the server chose protocol version %d", ErrHandshake, r.Version)
	}
	if ep.c.session != nil && r.Features&protocol.FeatureSessions == 0 {
		return ServerInfo{}, fmt.Errorf("%w: the server has no sessions, which ExactlyOnce needs", ErrUnsupported)
	}
	return ServerInfo{
		Endpoint: ep.name, Version: string(r.ServerVersion), Node: r.Node, Cluster: r.Cluster,
		Connection: r.Connection, Shards: int(r.Shards), KeyBytesMax: int(r.KeyBytesMax),
		ValueBytesMax: int(r.ValueBytesMax),
		FrameBytesMax: int(clampFrame(r.FrameBytesMax)), InFlightMax: int(min(r.InFlightMax, 1<<20)),
	}, nil
}

func clampFrame(n uint32) uint32 {
	if n == 0 || n > protocol.FrameBytesMax {
		return protocol.FrameBytesMax
	}
	return n
}
