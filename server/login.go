package server

import (
	"context"
	"errors"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/proa-kv/proa/access"
	"github.com/proa-kv/proa/internal/audit"
	"github.com/proa-kv/proa/protocol"
)

// Who a connection belongs to. A connection has a grant from its beginning: that of nobody,
// until a HELLO (or AUTH) or the client's certificate says who it is. The grant is replaced
// when the user's rights change, and ends with the user: the server looks every policyEvery
// whether anything has changed.
//
// Passwords that have been verified before are recognised at once. Others take 20 ms of a
// core, so a goroutine verifies them while the connection is not read; the request that
// presents them stays in the input, and is looked at again afterwards.

// grant is what a connection may do, and why. It is immutable.
type grant struct {
	login  access.Login
	permit *access.Permit
	policy *access.Policy // of which permit is
}

// policyEvery is how long a change of users and roles may take to reach open connections,
// beside the time in which the node learns of it.
const policyEvery = 100 * time.Millisecond

// loginTimeout bounds how long a password may wait to be verified.
const loginTimeout = 10 * time.Second

// gate says who may do what at a server.
type gate struct {
	srv      *Server
	verifier *access.Verifier
	nobody   *grant // of connections that have not said who they are
}

func (g *gate) init(s *Server) {
	g.srv, g.verifier = s, access.NewVerifier()
	g.nobody = &grant{permit: g.anonymous()}
}

// anonymous is what may be done without a user.
func (g *gate) anonymous() *access.Permit {
	if g.srv.cfg.Authentication {
		return access.Nothing
	}
	return access.Everything
}

// grantFor returns the grant of a login, nil where it does not hold.
func (g *gate) grantFor(l access.Login) *grant {
	policy := g.srv.backend.Access()
	permit, ok := policy.Permit(&l, g.anonymous())
	if !ok {
		return nil
	}
	return &grant{l, permit, policy}
}

// identity is who a connection belongs to.
type identity struct {
	c     *conn
	grant atomic.Pointer[grant]
}

func (i *identity) init(c *conn) {
	i.c = c
	i.grant.Store(c.srv.gate.nobody)
}

// setLogin makes the connection that of a user. It returns false where the login does not
// hold any more.
func (i *identity) setLogin(l access.Login) bool {
	for {
		g := i.c.srv.gate.grantFor(l)
		if g == nil {
			return false
		}
		i.grant.Store(g)
		// A change that came meanwhile may have missed the connection: see renewGrants.
		if i.c.srv.backend.Access() == g.policy {
			return true
		}
	}
}

// ownLogin is that of a connection whose client names no user: by its certificate, or as
// the operator on this machine.
func (i *identity) ownLogin() access.Login {
	c := i.c
	if c.forwarded {
		return access.Local // decided by the node that has sent it on
	}
	if c.socket.local(c) {
		return access.Local
	}
	if name := i.certified(); name != "" {
		if l, ok := c.srv.backend.Access().Certified(name); ok {
			return l
		}
	}
	return access.Login{}
}

// certified is the name in the certificate of the client, "" where there is none.
func (i *identity) certified() string {
	if cert := i.c.PeerCertificate(); cert != nil {
		return cert.Subject.CommonName
	}
	return ""
}

// renewGrants gives connections what their users may do now, and ends those whose user is
// gone, until the server closes.
func (g *gate) renewGrants() {
	s := g.srv
	t := time.NewTicker(policyEvery)
	defer t.Stop()
	known := s.backend.Access()
	for {
		select {
		case <-s.stopped:
			return
		case <-t.C:
			if now := s.backend.Access(); now != known {
				known = now
				s.conns.each(func(c *conn) { c.renew(now) })
			}
		}
	}
}

// replaceLogin makes the connection that of a login in the place of another one, and ends it
// if that does not hold. It returns false where the connection has become somebody else's.
func (i *identity) replaceLogin(from, to access.Login) bool {
	for {
		was := i.grant.Load()
		if was.login != from {
			return false
		}
		if i.grant.CompareAndSwap(was, &grant{to, was.permit, was.policy}) {
			i.renew(i.c.srv.backend.Access())
			return true
		}
	}
}

// renew gives the connection what its user may do now.
func (i *identity) renew(policy *access.Policy) {
	c, was := i.c, i.grant.Load()
	if was.login == (access.Login{}) {
		return // nobody's never changes
	}
	permit, ok := policy.Permit(&was.login, c.srv.gate.anonymous())
	if !i.grant.CompareAndSwap(was, &grant{was.login, permit, policy}) {
		return // has logged in anew, by what holds now
	}
	if !ok {
		c.srv.log.Info("connection closed: its user is gone, or its password or certificate is not valid any more", "connection", c.id, "user", was.login.User)
		c.closeWithNotice(protocol.StatusUnauthenticated, "user "+was.login.User+" was removed or disabled, or its password or certificate is not valid any more; connect again with valid credentials")
	}
}

// Login makes c that of the user whose password it is, or c's own user where both are
// empty. pending says that the password is being verified; see Background. err is one that
// gate.refusal translates. The reader calls it.
func (i *identity) Login(user, password string) (pending bool, err error) {
	c, s := i.c, i.c.srv
	if c.outcome.Load() == nil && user == "" && password == "" {
		l := i.ownLogin()
		if l == (access.Login{}) && s.cfg.Authentication {
			err = &noCredentialsError{i.certified()}
		}
		return false, i.loggedIn(l, err)
	}
	policy := s.backend.Access()
	if l, ok := s.gate.verifier.Known(policy, user, password); ok {
		c.outcome.Store(nil)
		return false, i.loggedIn(l, nil)
	}
	remote := c.socket.remote(c) // of now: later the descriptor may be another's
	done, pending := c.Background(func(ctx context.Context) any {
		ctx, cancel := context.WithTimeout(ctx, loginTimeout)
		defer cancel()
		l, err := s.gate.verifier.Verify(ctx, policy, user, password, remote)
		return verified{l, err}
	})
	if pending {
		return true, nil
	}
	v, ok := done.(verified)
	if !ok {
		v.err = access.ErrCrowded // the server closes
	}
	return false, i.loggedIn(v.login, v.err)
}

// verified is what has become of a password.
type verified struct {
	login access.Login
	err   error
}

// loggedIn is setLogin, unless there is an error.
func (i *identity) loggedIn(l access.Login, err error) error {
	if err == nil && !i.setLogin(l) {
		err = access.ErrWrong
	}
	return err
}

// Authorize returns what somebody may do who comes from an address with a name and a
// password, or without either, over another protocol than the server's own. It may wait for
// the password to be verified. Errors are those of access.Verifier.Verify, or say that
// credentials are missing.
func (g *gate) Authorize(ctx context.Context, user, password, address string) (*access.Permit, error) {
	if user == "" && password == "" {
		if g.srv.cfg.Authentication {
			return nil, &noCredentialsError{}
		}
		return g.anonymous(), nil
	}
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	l, err := g.verifier.Verify(ctx, g.srv.backend.Access(), user, password, address)
	if err != nil {
		g.srv.counters.errors.add(g.refusal(err).status)
		g.srv.cfg.Audit.Log(audit.Event{Kind: audit.Login, User: user, Remote: address, Door: "http", Outcome: audit.Refused, Reason: err.Error()})
		return nil, err
	}
	if has := g.grantFor(l); has != nil {
		return has.permit, nil
	}
	return nil, access.ErrWrong
}

// noCredentialsError refuses who names no user.
type noCredentialsError struct{ certificate string }

func (e *noCredentialsError) Error() string {
	if e.certificate != "" {
		return "the certificate is that of " + strconv.QuoteToASCII(e.certificate[:min(len(e.certificate), access.NameBytesMax)]) + ", which is no user here or may not log in by certificate; name a user and its password, or let an administrator allow it: proa user change NAME --certificate"
	}
	return "a user and its password are required"
}

// refusal says what to answer to who is not let in.
func (g *gate) refusal(err error) *refusal {
	r := &refusal{status: protocol.StatusUnauthenticated, message: err.Error()}
	var slow *access.SlowDownError
	switch {
	case errors.As(err, &slow):
		r.retryMillis = uint32(slow.After.Milliseconds() + 1)
	case errors.Is(err, access.ErrNoUsers) && g.srv.cfg.Authentication: // there may be some soon
		r.status, r.retryMillis = protocol.StatusBusy, retryQuorumMillis
	case errors.Is(err, access.ErrCrowded), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		r.status, r.retryMillis, r.message = protocol.StatusBusy, retryQuorumMillis, access.ErrCrowded.Error()
	}
	return r
}

// User is the name of the connection's user, "" if it has none.
func (i *identity) User() string { return i.grant.Load().login.User }

// Authenticated reports whether the connection may ask for anything: it is that of a user,
// or needs none.
func (i *identity) Authenticated() bool {
	return i.grant.Load().login != (access.Login{}) || !i.c.srv.cfg.Authentication
}

// Can reports whether the connection has rights of the whole cluster.
func (i *identity) Can(need access.Rights) bool { return i.grant.Load().permit.Can(need) }

// May reports whether the connection may read or write a key.
func (i *identity) May(key []byte, need access.Rights) bool {
	return i.grant.Load().permit.May(key, need)
}

// Logout makes the connection that of nobody, or of its certificate's user. The reader calls
// it.
func (i *identity) Logout() {
	if !i.setLogin(i.ownLogin()) {
		i.grant.Store(i.c.srv.gate.nobody)
	}
}
