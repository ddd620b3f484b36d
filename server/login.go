package server

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/proa-kv/proa/access"
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

// anonymous is what may be done without a user.
func (s *Server) anonymous() *access.Permit {
	if s.cfg.Authentication {
		return access.Nothing
	}
	return access.Everything
}

// grantFor returns the grant of a login, nil where it does not hold.
func (s *Server) grantFor(l access.Login) *grant {
	policy := s.backend.Access()
	permit, ok := policy.Permit(&l, s.anonymous())
	if !ok {
		return nil
	}
	return &grant{l, permit, policy}
}

// setLogin makes c that of a user. It returns false where the login does not hold any more.
func (c *conn) setLogin(l access.Login) bool {
	for {
		g := c.srv.grantFor(l)
		if g == nil {
			return false
		}
		c.grant.Store(g)
		// A change that came meanwhile may have missed the connection: see renewGrants.
		if c.srv.backend.Access() == g.policy {
			return true
		}
	}
}

// ownLogin is that of a connection whose client names no user: by its certificate, or as
// the operator on this machine.
func (c *conn) ownLogin() access.Login {
	if c.forwarded {
		return access.Local // decided by the node that has sent it on
	}
	if c.socket.local(c) {
		return access.Local
	}
	if name := c.certified(); name != "" {
		if l, ok := c.srv.backend.Access().Certified(name); ok {
			return l
		}
	}
	return access.Login{}
}

// certified is the name in the certificate of the client, "" where there is none.
func (c *conn) certified() string { return "" }

// renewGrants gives connections what their users may do now, and ends those whose user is
// gone, until the server closes.
func (s *Server) renewGrants() {
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
				s.conns.each(func(c *conn) { c.renewGrant(now) })
			}
		}
	}
}

func (c *conn) renewGrant(policy *access.Policy) {
	was := c.grant.Load()
	if was == c.srv.nobody {
		return
	}
	permit, ok := policy.Permit(&was.login, c.srv.anonymous())
	if !c.grant.CompareAndSwap(was, &grant{was.login, permit, policy}) {
		return // has logged in anew, by what holds now
	}
	if !ok {
		c.srv.log.Info("connection closed: its user is gone, or its password or certificate is not valid any more", "connection", c.id, "user", was.login.User)
		c.closeWithNotice(protocol.StatusUnauthenticated, "user "+was.login.User+" was removed or disabled, or its password or certificate is not valid any more; connect again with valid credentials")
	}
}

// Login makes c that of the user whose password it is, or c's own user where both are
// empty. pending says that the password is being verified: nothing of c is read meanwhile,
// and whoever asks must ask again with the same credentials when it is. err is one that
// refusalOfLogin translates. The reader calls it.
func (c *conn) Login(user, password string) (pending bool, err error) {
	s := c.srv
	if r := c.verified.Swap(nil); r != nil {
		return false, c.loggedIn(r.login, r.err)
	}
	if user == "" && password == "" {
		l := c.ownLogin()
		if l == (access.Login{}) && s.cfg.Authentication {
			err = &noCredentialsError{c.certified()}
		}
		return false, c.loggedIn(l, err)
	}
	policy := s.backend.Access()
	if l, ok := s.verifier.Known(policy, user, password); ok {
		return false, c.loggedIn(l, nil)
	}
	c.verifying.Store(true)
	c.Pause()
	if !s.Go(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, loginTimeout)
		defer cancel()
		l, err := s.verifier.Verify(ctx, policy, user, password, c.socket.remote(c))
		c.verified.Store(&verified{l, err})
		c.verifying.Store(false)
		c.unpause()
	}) {
		c.verifying.Store(false)
		c.unpause()
		return false, access.ErrCrowded // the server closes
	}
	return true, nil
}

// verified is what has become of a password.
type verified struct {
	login access.Login
	err   error
}

// loggedIn is setLogin, unless there is an error.
func (c *conn) loggedIn(l access.Login, err error) error {
	if err == nil && !c.setLogin(l) {
		err = access.ErrWrong
	}
	return err
}

// noCredentialsError refuses who names no user.
type noCredentialsError struct{ certificate string }

func (e *noCredentialsError) Error() string {
	if e.certificate != "" {
		return "the certificate is that of " + strconv.QuoteToASCII(e.certificate[:min(len(e.certificate), access.NameBytesMax)]) + ", which is no user here or may not log in by certificate; name a user and its password, or let an administrator allow it: proa user change NAME --certificate"
	}
	return "a user and its password are required"
}

// refusalOfLogin says what to answer to who is not let in, and counts it.
func (s *Server) refusalOfLogin(err error) *refusal {
	s.counters.loginsRefused.Add(1)
	r := &refusal{status: protocol.StatusUnauthenticated, message: err.Error()}
	var slow *access.SlowDownError
	switch {
	case errors.As(err, &slow):
		r.retryMillis = uint32(slow.After.Milliseconds() + 1)
	case errors.Is(err, access.ErrCrowded), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		r.status, r.retryMillis, r.message = protocol.StatusBusy, retryQuorumMillis, access.ErrCrowded.Error()
	}
	return r
}
