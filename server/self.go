package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/proa-kv/proa/access"
	"github.com/proa-kv/proa/command"
)

// What users ask about themselves. The server that they are connected to answers: it is the
// one that knows who they are.

// describe says whose the connection is, and what they may do.
func (i *identity) describe() ([]byte, error) {
	g := i.grant.Load()
	id := command.Identity{Login: g.login.Method(), Everything: g.permit == access.Everything}
	if a := g.policy.Account(g.login.User); a != nil {
		info := command.InfoOf(a.User, a.Permit)
		id.User, id.Granted = &info, a.Granted
	}
	return json.Marshal(id)
}

// changePassword changes the password of the connection's user, whose current one it
// verifies as at a login from the address remote. The connection goes on with the new
// password; others of the user end with the old one.
func (i *identity) changePassword(ctx context.Context, remote string, args []byte) ([]byte, error) {
	var a command.PasswordArgs
	if err := json.Unmarshal(args, &a); err != nil {
		return nil, fmt.Errorf("%w: arguments: %w", command.ErrInvalid, err)
	}
	s, login := i.c.srv, i.grant.Load().login
	edit := command.UserArgs{UserEdit: access.UserEdit{Name: login.User, Mode: access.Only, Newest: !a.KeepOld}}
	switch {
	case login.Method() != access.ByPassword:
		return nil, fmt.Errorf("%w: only who has logged in by a password can change it like this; an administrator can change any: proa user passwd NAME", command.ErrRefused)
	case a.Name != "" && a.Name != login.User:
		return nil, fmt.Errorf("%w: you have logged in as %s, not as %q", command.ErrRefused, login.User, a.Name)
	case a.DropOld && (a.KeepOld || a.Password != ""):
		return nil, fmt.Errorf("%w: drop_old goes with no password and not with keep_old", command.ErrInvalid)
	case !a.DropOld:
		if err := access.CheckPassword(a.Password); err != nil {
			return nil, fmt.Errorf("%w: %s", command.ErrInvalid, access.Sentence(err))
		}
		edit.Passwords = []string{a.Password}
	}
	policy := s.backend.Access()
	current, err := s.gate.verifier.Verify(ctx, policy, login.User, a.Current, remote)
	if err != nil {
		return nil, wrongCurrent(err)
	}
	if a.DropOld && !policy.Newest(&current) {
		return nil, fmt.Errorf("%w: this is the old password; the one that stays is the newer one: log in by that", command.ErrRefused)
	}
	request, err := json.Marshal(edit)
	if err != nil {
		return nil, err
	}
	changing := login.Changing()
	if !i.replaceLogin(login, changing) {
		return nil, fmt.Errorf("%w: the connection is changing its user or password already", command.ErrRefused)
	}
	defer i.replaceLogin(changing, login) // unless there is a new one
	answer, err := s.backend.Admin(ctx, command.AdminUserSet, request)
	if err != nil {
		return nil, err
	}
	if !a.DropOld {
		current = i.awaitPassword(ctx, policy, login.User, a.Password, remote)
	}
	if current != (access.Login{}) {
		i.replaceLogin(changing, current)
	}
	return answer, nil
}

// learnTimeout is how long a connection whose password is changed waits until this node
// knows of it. It holds with any password meanwhile.
const learnTimeout = 2 * time.Second

// awaitPassword returns the login by a password that the user gets beside or instead of
// those of before, when this node knows of it, or none if it does not learn of it in time.
func (i *identity) awaitPassword(ctx context.Context, before *access.Policy, user, password, remote string) access.Login {
	s := i.c.srv
	var had []string
	if a := before.Account(user); a != nil {
		had = a.Passwords
	}
	ctx, cancel := context.WithTimeout(ctx, learnTimeout)
	defer cancel()
	t := time.NewTicker(policyEvery / 20)
	defer t.Stop()
	for {
		policy := s.backend.Access()
		a := policy.Account(user)
		if a == nil {
			return access.Login{}
		}
		if !slices.Equal(a.Passwords, had) { // another change may come before
			l, err := s.gate.verifier.Verify(ctx, policy, user, password, remote)
			if err == nil {
				return l
			}
			had = a.Passwords
		}
		select {
		case <-ctx.Done():
			return access.Login{}
		case <-t.C:
		}
	}
}

// wrongCurrent is an error of access.Verifier.Verify as one of an administrative request.
func wrongCurrent(err error) error {
	switch {
	case errors.Is(err, access.ErrWrong):
		return fmt.Errorf("%w: the current password is wrong", command.ErrRefused)
	case errors.Is(err, access.ErrCrowded), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return access.ErrCrowded
	}
	return fmt.Errorf("%w: %w", command.ErrRefused, err) // it says how long to wait
}
