package main

import (
	"errors"
	"fmt"

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
// as after a prompt was declined, or since a file is missing or its content is
// wrong: the status of a usageError, and no word about help.
func notDonef(format string, args ...any) error {
	return &statusError{exitUsage, fmt.Errorf(format, args...)}
}

// errSilent is a failure that the output has described.
var errSilent = errors.New("failed")

// statusError carries an exit status of its own.
type statusError struct {
	status int
	err    error
}

func (e *statusError) Error() string { return e.err.Error() }
func (e *statusError) Unwrap() error { return e.err }

// silently returns an error of a status that the output has explained, nil for
// exitDone.
func silently(status int) error {
	if status == exitDone {
		return nil
	}
	return &statusError{status, errSilent}
}

// exitStatus returns the exit status of the process after err.
func exitStatus(err error) int {
	if own, ok := errors.AsType[*statusError](err); ok {
		return own.status
	}
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, client.ErrOutcomeUnknown), unreadable(err):
		return exitUnknown
	case isType[*bench.ForeignRowsError](err), isAny(err, client.ErrRefused, client.ErrNotFound, client.ErrConditionFailed, client.ErrNotInteger, client.ErrOverflow):
		return exitFailed
	case isType[*usageError](err), isType[config.Errors](err),
		isAny(err, bench.ErrConfig, client.ErrBadRequest, client.ErrTooLarge, client.ErrCrossShard, client.ErrBadCursor):
		return exitUsage
	}
	return exitServer
}

// unreadable reports whether the server said that a write was carried out, in a
// reply that cannot be read beyond that.
func unreadable(err error) bool {
	e := asClientError(err)
	return e != nil && e.Outcome == client.Done && errors.Is(e.Err, client.ErrProtocol)
}

// isType reports whether err is or wraps an error of a type.
func isType[T error](err error) bool {
	_, ok := errors.AsType[T](err)
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
