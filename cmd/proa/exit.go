package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/proa-kv/proa/bench"
	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/config"
)

// Exit statuses.
const (
	exitDone    = 0
	exitFailed  = 1 // not found, a condition did not hold, or the cluster's state did not allow it
	exitUsage   = 2
	exitServer  = 3 // server or network error
	exitUnknown = 4 // a write may or may not have taken effect
)

// usageError is a mistake on the command line.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

// notDonef is for what was asked for in order and is not done all the same, such
// as after a prompt was declined: the status of a usageError, and no word about
// help.
func notDonef(format string, args ...any) error {
	return &statusError{exitUsage, fmt.Errorf(format, args...)}
}

// errSilent is a failure whose output said all there is to say.
var errSilent = errors.New("failed")

// statusError carries an exit status of its own.
type statusError struct {
	status int
	err    error
}

func (e *statusError) Error() string { return e.err.Error() }
func (e *statusError) Unwrap() error { return e.err }

// exitStatus says how the process ends after err.
func exitStatus(err error) int {
	var own *statusError
	var usage *usageError
	var cfg config.Errors
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &own):
		return own.status
	case errors.Is(err, client.ErrOutcomeUnknown):
		return exitUnknown
	case refused(err), foreignRows(err), isAny(err, client.ErrNotFound, client.ErrConditionFailed, client.ErrNotInteger, client.ErrOverflow):
		return exitFailed
	case errors.As(err, &usage), errors.As(err, &cfg),
		isAny(err, bench.ErrConfig, client.ErrBadRequest, client.ErrTooLarge, client.ErrCrossShard, client.ErrBadCursor):
		return exitUsage
	}
	return exitServer
}

// refused reports whether the cluster's state did not allow what was asked.
func refused(err error) bool {
	var e *client.Error
	return errors.As(err, &e) && e.Status == statusRefused
}

// foreignRows reports whether a load was not begun, since it would have
// overwritten rows of others.
func foreignRows(err error) bool {
	_, ok := errors.AsType[*bench.ForeignRowsError](err)
	return ok
}

func isAny(err error, targets ...error) bool {
	for _, t := range targets {
		if errors.Is(err, t) {
			return true
		}
	}
	return false
}

// describe returns what to tell the user about err, or "".
func describe(err error, a *app) string {
	var usage *usageError
	var unavailable *client.UnavailableError
	var unreachable *bench.UnreachableError
	switch {
	case err == nil, errors.Is(err, errSilent):
		return ""
	case errors.As(err, &unavailable):
		return a.describeUnavailable(unavailable)
	case errors.As(err, &unreachable):
		e := &client.UnavailableError{}
		for _, f := range unreachable.Failed {
			e.Endpoints = append(e.Endpoints, client.EndpointError{Endpoint: f.Address, Err: f.Err})
		}
		return a.describeUnavailable(e)
	case errors.As(err, &usage):
		text := err.Error()
		if a.shell {
			// The root command of a shell has no name that could be told.
			text = strings.Replace(text, ` for ""`, "", 1)
		}
		return fmt.Sprintf("proa: %s\nSee: %s", strings.TrimSpace(text), a.helpOf())
	case isBadAdmin(err):
		return "proa: " + asClientError(err).Message // it says what is wrong
	case errors.Is(err, context.Canceled) && !errors.Is(err, client.ErrOutcomeUnknown):
		return "proa: interrupted"
	}
	text := strings.TrimPrefix(strings.TrimPrefix(err.Error(), "proa: "), "bench: ")
	return "proa: " + strings.TrimPrefix(text, "ADMIN: ") // the command has a name of its own
}

// helpOf is what tells of the command that was called.
func (a *app) helpOf() string {
	path := ""
	if a.called != nil {
		path = strings.TrimSpace(a.called.CommandPath())
	}
	switch {
	case a.shell:
		return strings.TrimSpace("help " + path)
	case path == "":
		return "proa --help"
	}
	return path + " --help"
}

// isBadAdmin reports whether an administrative request cannot be carried out as
// it was made, for example since there is no such node.
func isBadAdmin(err error) bool {
	e := asClientError(err)
	return e != nil && e.Op == "ADMIN" && e.Message != "" && errors.Is(e.Err, client.ErrBadRequest)
}

// asClientError returns the client.Error in err, or nil.
func asClientError(err error) *client.Error {
	var e *client.Error
	if !errors.As(err, &e) {
		return nil
	}
	return e
}

// describeUnavailable says what was tried and how to go on.
func (a *app) describeUnavailable(e *client.UnavailableError) string {
	t := a.link.target
	if t == nil { // the client is not this program's own
		t = &target{source: byFlag}
	}
	var b strings.Builder
	b.WriteString("proa: no server could be reached. Tried:\n")
	if t.context != "" {
		b.Reset()
		fmt.Fprintf(&b, "proa: no server of context %s could be reached. Tried:\n", t.context)
	}
	for _, p := range e.Endpoints {
		fmt.Fprintf(&b, "  %v\n", p)
	}
	b.WriteString(adviceUnreachable(e, t))
	return b.String()
}
