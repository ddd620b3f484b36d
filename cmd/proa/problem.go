package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"

	"github.com/proa-kv/proa/bench"
	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/config"
	"github.com/proa-kv/proa/internal/contexts"
	"github.com/proa-kv/proa/internal/render"
	"github.com/proa-kv/proa/protocol"
	"github.com/proa-kv/proa/raftgroup/datadir"
)

// problem is an error as the user sees it. Its JSON form is described in
// docs/cli.md.
type problem struct {
	Class     string            `json:"class"` // names the exit status
	Code      string            `json:"code"`  // names the error
	Message   string            `json:"message"`
	Endpoints []endpointProblem `json:"endpoints,omitempty"` // that could not be reached
	Hint      string            `json:"hint,omitempty"`      // what to do next
	Exit      int               `json:"exit"`
}

// endpointProblem is why a server could not be reached.
type endpointProblem struct {
	Endpoint string `json:"endpoint"`
	Error    string `json:"error"`
	text     string // both, and how often it was tried
}

// classes name the exit statuses.
var classes = [...]string{exitFailed: "failed", exitUsage: "usage", exitServer: "server", exitUnknown: "unknown"}

// codes name errors that are not the server's answers, which have the name of
// their status. The first that matches counts.
var codes = []struct {
	err  error
	code string
}{
	{client.ErrWrongCluster, "wrong_cluster"}, {client.ErrUnauthenticated, "unauthenticated"}, {client.ErrTLS, "tls"}, {contexts.ErrDamaged, "contexts_damaged"}, {datadir.ErrInUse, "directory_in_use"},
	{datadir.ErrNotDataDir, "no_data_directory"}, {client.ErrNotFound, "not_found"}, {client.ErrTooLarge, "too_large"},
	{client.ErrBusy, "busy"}, {client.ErrHandshake, "handshake"}, {client.ErrUnavailable, "unavailable"},
	{client.ErrConnectionLost, "connection_lost"}, {client.ErrSessionExpired, "session_expired"}, {context.DeadlineExceeded, "timeout"},
	{context.Canceled, "interrupted"}, {fs.ErrNotExist, "no_such_file"},
}

func codeOf(err error, exit int) string {
	if e := asClientError(err); e != nil && e.Status != protocol.StatusOK {
		return strings.ToLower(e.Status.String())
	}
	for _, c := range codes {
		if errors.Is(err, c.err) {
			return c.code
		}
	}
	if isType[config.Errors](err) {
		return "configuration"
	}
	return classes[exit]
}

// explain returns err as the user sees it, nil where the output has described it.
func explain(err error, a *app) *problem {
	if err == nil || errors.Is(err, errSilent) {
		return nil
	}
	exit := exitStatus(err)
	p := &problem{Class: classes[exit], Code: codeOf(err, exit), Exit: exit, Message: plainText(err)}
	var unavailable *client.UnavailableError
	answer := asClientError(err)
	drop := func(text, replacement string) { p.Message = strings.Replace(p.Message, text, replacement, 1) }
	if answer != nil {
		if answer.Op != "" { // the command has a name of its own
			drop(answer.Op+": ", "")
		}
		name := answer.Err.Error() + ": " // the server may name the error as the client does
		drop(name+name, name)
		if answer.RetryAfter > 0 { // the client has done that, for as long as it had
			drop(fmt.Sprintf(" (retry after %v)", answer.RetryAfter), "")
		}
	}
	drop(outOfRangePrefix, "") // what is out of range says more than that something is
	switch {
	case errors.As(err, &unavailable):
		explainUnavailable(a, p, unavailable)
	case isType[*usageError](err):
		text := plainText(err)
		if a.shell {
			// The root command of a shell has no name.
			text = strings.Replace(text, ` for ""`, "", 1)
		}
		p.Message, p.Hint = strings.TrimSpace(text), "See: "+helpOf(a)
	case answer != nil && answer.Op == "ADMIN" && answer.Message != "" && isAny(answer.Err, client.ErrBadRequest, client.ErrRefused):
		p.Message = render.OneLine(answer.Message) // it says what is wrong
	case unreadable(err):
		p.Hint = "The server says that the write was carried out, in a reply that this version cannot read: read the key before you repeat the command."
	case exit == exitUnknown && isType[*statusError](err): // it says what is known
	case exit == exitUnknown && answer != nil && answer.Op == "ADMIN":
		p.Hint = "The change may or may not have begun, and may go on: see proa status before you repeat the command."
	case exit == exitUnknown:
		p.Hint = "The write may or may not have taken effect, now or later: read the key before you repeat the command."
	case errors.Is(err, client.ErrNoQuorum) && !strings.Contains(p.Message, "proa status"):
		p.Hint = "A majority of the replicas does not answer; to see which nodes are down: proa status"
	case errors.Is(err, client.ErrPermission):
		p.Hint = "To see what you may do: proa user whoami. An administrator can allow more: proa user change"
	case errors.Is(err, context.Canceled):
		p.Message = "interrupted"
	}
	return p
}

// outOfRangePrefix is what the client puts before what is wrong with a field.
var outOfRangePrefix = fmt.Sprintf("%v: %v: ", client.ErrBadRequest, protocol.ErrOutOfRange)

// packagePrefix is what packages of this repository put before their errors.
var packagePrefix = regexp.MustCompile(`(^|: |; |\n)(?:(?:proa|bench|client|storage|raftlog|raftgroup|peer|server|config): )+`)

// plainText is the text of err without the names of the packages that it has
// come through, without the system call by which a file was looked for, and
// without line ends that are not this program's own.
func plainText(err error) string { return packagePrefix.ReplaceAllString(ownLines(err), "$1") }

// ownLines is the text of err in which only line ends between the errors of a list
// are line ends. Those in the text of one error are escaped: a server, a file or an
// argument can have put them there, to write a line as if this program said it.
func ownLines(err error) string {
	if e, ok := err.(*fs.PathError); ok && slices.Contains([]string{"open", "stat", "lstat", "readlink"}, e.Op) {
		return render.OneLine(e.Path + ": " + e.Err.Error())
	}
	inner, rest := unwrapped(err), err.Error()
	var b strings.Builder
	for _, e := range inner {
		before, behind, found := strings.Cut(rest, e.Error())
		if !found {
			continue
		}
		head := before
		if len(inner) > 1 {
			head = strings.TrimRight(before, "\n ")
		}
		b.WriteString(render.OneLine(head) + before[len(head):] + ownLines(e))
		rest = behind
	}
	return b.String() + render.OneLine(rest)
}

// unwrapped returns the errors that err wraps.
func unwrapped(err error) (inner []error) {
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		inner = []error{e.Unwrap()}
	case interface{ Unwrap() []error }:
		inner = slices.Clone(e.Unwrap())
	}
	return slices.DeleteFunc(inner, func(e error) bool { return e == nil })
}

// describe returns the text of explain, or "".
func describe(err error, a *app) string {
	p := explain(err, a)
	if p == nil {
		return ""
	}
	return p.text()
}

// text is what is shown of p where the output is text.
func (p *problem) text() string {
	var b strings.Builder
	b.WriteString("proa: " + p.Message)
	if len(p.Endpoints) > 0 {
		b.WriteString(". Tried:")
	}
	for _, e := range p.Endpoints {
		b.WriteString("\n  " + render.OneLine(e.text))
	}
	if p.Hint != "" {
		b.WriteString("\n" + p.Hint)
	}
	return render.Printable(b.String())
}

// showError shows err to the user.
func (a *app) showError(err error) {
	if p := explain(err, a); p != nil {
		a.showProblem(p)
	}
}

// showProblem shows p to the user, in the form that the output has.
func (a *app) showProblem(p *problem) {
	if a.JSON() {
		a.WriteErrJSON(map[string]*problem{"error": p})
		return
	}
	fmt.Fprintln(a.Err, p.text())
}

// helpOf is the command that shows help on the command that was called.
func helpOf(a *app) string {
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

// asClientError returns the client.Error in err, or nil.
func asClientError(err error) *client.Error {
	e, _ := errors.AsType[*client.Error](err)
	return e
}

// explainUnavailable adds what was tried and how to go on.
func explainUnavailable(a *app, p *problem, e *client.UnavailableError) {
	t := a.link.target
	if t == nil { // the client is not this program's own
		t = &target{source: byFlag}
	}
	p.Message = "no server could be reached"
	if t.context != "" {
		p.Message = fmt.Sprintf("no server of context %s could be reached", t.context)
	}
	if errors.Is(e, client.ErrProtocol) {
		p.Message = "no server gave a reply that can be read"
	}
	for _, f := range e.Endpoints {
		said := endpointProblem{Endpoint: f.Endpoint, Error: "no answer yet", text: f.String()}
		if f.Err != nil {
			said.Error = plainText(f.Err)
		}
		p.Endpoints = append(p.Endpoints, said)
	}
	s := a.link.security
	if s == nil {
		s = &security{}
	}
	if errors.Is(e, client.ErrUnauthenticated) {
		p.Message = s.refused()
	}
	p.Hint = adviceUnreachable(e, t, s)
}

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

// notDonef returns the error of a valid command that is not carried out, because a
// prompt was declined, a file is missing, or its content is wrong. It has the status
// of a usageError, without the hint at the help.
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
