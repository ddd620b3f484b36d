package server

import (
	"errors"
	"strings"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/internal/audit"
)

// audit tells the audit log of something that was refused.
func (i *identity) audit(kind audit.Kind, operation, reason string) {
	c := i.c
	if c.srv.cfg.Audit == nil {
		return
	}
	c.srv.cfg.Audit.Log(audit.Event{Kind: kind, User: i.name(), Remote: c.socket.remote(c), Door: i.door(), Operation: operation, Outcome: audit.Refused, Reason: reason})
}

// AuditDenied tells the audit log that the connection's user may not do something.
func (i *identity) AuditDenied(operation, reason string) { i.audit(audit.Denied, operation, reason) }

// AuditLogin tells the audit log that credentials were refused.
func (i *identity) AuditLogin(user, operation string, err error) {
	c := i.c
	if c.srv.cfg.Audit == nil {
		return
	}
	c.srv.cfg.Audit.Log(audit.Event{Kind: audit.Login, User: user, Remote: c.socket.remote(c), Door: i.door(), Operation: operation, Outcome: audit.Refused, Reason: err.Error()})
}

// auditAdmin tells the audit log what has become of an administrative request of remote: the
// connection may be closed by now, and its descriptor another's.
func (i *identity) auditAdmin(remote, verb string, args []byte, err error) {
	c := i.c
	if c.srv.cfg.Audit == nil || verb == command.AdminStatus || verb == command.AdminUserSelf {
		return // who only looks changes nothing, and does so every second
	}
	e := audit.Event{Kind: audit.Admin, User: i.name(), Remote: remote, Door: i.door(), Operation: verb, Arguments: audit.Arguments(verb, args), Outcome: audit.OK}
	if strings.HasPrefix(verb, "user.") || strings.HasPrefix(verb, "role.") {
		e.Kind = audit.Users
	}
	if err != nil {
		e.Outcome, e.Reason = audit.Failed, plain(err)
		if errors.Is(err, command.ErrRefused) || errors.Is(err, command.ErrInvalid) {
			e.Outcome = audit.Refused
		}
	}
	c.srv.cfg.Audit.Log(e)
}

// name is the connection's user as the audit log has it.
func (i *identity) name() string {
	l := i.grant.Load().login
	if l.Method() == "local" {
		return "(local)"
	}
	return l.User
}

// door is what the connection speaks.
func (i *identity) door() string {
	if p := i.c.protocol; p != nil {
		return p.Scheme()
	}
	return "native"
}
