// Package audit writes the audit log of a node: a line of JSON for each administrative
// request, and for access that was refused. It never has values, keys or passwords.
package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/proa-kv/proa/internal/lograte"
)

// Kind says what an event is about.
type Kind string

const (
	Admin  Kind = "admin"  // an administrative request
	Users  Kind = "users"  // one that changes users or roles
	Denied Kind = "denied" // a request that its user may not make
	Login  Kind = "login"  // credentials that were refused
	Start  Kind = "start"  // of the node
	Stop   Kind = "stop"
)

// Outcomes of events.
const (
	OK      = "ok"
	Refused = "refused"
	Failed  = "failed"
)

// Event is a line of the log.
type Event struct {
	Time      time.Time      `json:"time"`
	Node      uint64         `json:"node"`
	Kind      Kind           `json:"kind"`
	User      string         `json:"user,omitempty"`
	Remote    string         `json:"remote,omitempty"`    // the peer's address
	Door      string         `json:"door,omitempty"`      // native, redis, http
	Operation string         `json:"operation,omitempty"` // or verb
	Arguments map[string]any `json:"arguments,omitempty"` // of an administrative request; see Arguments
	Outcome   string         `json:"outcome,omitempty"`
	Reason    string         `json:"reason,omitempty"`
	// More counts events like this one since the line before of that kind, user and address,
	// that have no line of their own.
	More uint64 `json:"more,omitempty"`
}

const (
	// queueMax bounds the lines that wait for the disk. Those of Admin and Users may be twice
	// as many: strangers must not push them out.
	queueMax = 1024
	// repeatsFree is how many events of a kind, user and address have lines of their own in
	// repeatWindow; the others are counted.
	repeatsFree  = 3
	repeatWindow = 10 * time.Second
	// repeatsMax bounds the kinds, users and addresses that are told apart.
	repeatsMax = 4096
	// textBytesMax bounds the texts of an event that strangers choose.
	textBytesMax = 256
	// rotationCheck is how often the file is looked for: it may have been moved away.
	rotationCheck = time.Second
)

// Log is an audit log. A nil Log takes events and writes nothing. It is safe for concurrent
// use, and its methods but Close never wait for the disk.
type Log struct {
	node   uint64
	logger *slog.Logger
	path   string
	out    io.Writer // in place of a file
	failed lograte.Line

	written, dropped, failures atomic.Uint64

	mu      sync.Mutex
	some    sync.Cond // the queue is not empty, or the end has come
	queue   []Event
	lost    uint64 // events that found no room, since the last line that says so
	repeats map[repeatKey]*repeat
	closed  bool
	done    chan struct{}

	file    *os.File // the writer's
	looked  time.Time
	partial bool // the last line may not be whole
}

type repeatKey struct {
	kind         Kind
	user, remote string
}

type repeat struct {
	since time.Time
	lines int
	more  uint64
}

// Open opens the audit log in a file, which is made if need be, for a node. logger is told of
// what cannot be written.
func Open(path string, node uint64, logger *slog.Logger) (*Log, error) {
	l := &Log{path: path}
	if err := l.openFile(); err != nil {
		return nil, fmt.Errorf("cannot open the audit log: %w", err)
	}
	l.start(node, logger)
	return l, nil
}

// New returns an audit log that writes to w.
func New(w io.Writer, node uint64, logger *slog.Logger) *Log {
	l := &Log{out: w}
	l.start(node, logger)
	return l
}

func (l *Log) start(node uint64, logger *slog.Logger) {
	l.node, l.logger, l.done = node, logger, make(chan struct{})
	l.some.L = &l.mu
	l.repeats = make(map[repeatKey]*repeat)
	go l.write()
}

func (l *Log) openFile() error {
	f, err := os.OpenFile(l.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return errors.Join(err, fmt.Errorf("%s is no regular file", l.path), f.Close())
	}
	if l.file != nil {
		l.file.Close()
	}
	l.file = f
	return nil
}

// Log takes an event, whose time and node it fills in.
func (l *Log) Log(e Event) {
	if l == nil {
		return
	}
	now := time.Now()
	e.Time, e.Node = now.UTC().Truncate(time.Microsecond), l.node
	e.User, e.Remote, e.Operation, e.Reason = clip(e.User), clip(e.Remote), clip(e.Operation), clip(e.Reason)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	if e.Kind == Denied || e.Kind == Login {
		if !l.admit(&e, now) {
			return
		}
	}
	room := queueMax
	if e.Kind != Denied && e.Kind != Login {
		room *= 2
	}
	if len(l.queue) >= room {
		l.lost++
		l.dropped.Add(1)
		return
	}
	l.queue = append(l.queue, e)
	l.some.Signal()
}

// admit reports whether an event that strangers can cause has a line of its own. l.mu must
// be held.
func (l *Log) admit(e *Event, now time.Time) bool {
	k := repeatKey{e.Kind, e.User, hostOf(e.Remote)}
	r := l.repeats[k]
	if r == nil {
		if len(l.repeats) >= repeatsMax {
			l.forget(now)
		}
		if len(l.repeats) >= repeatsMax {
			l.lost++
			l.dropped.Add(1)
			return false
		}
		r = &repeat{since: now}
		l.repeats[k] = r
	}
	if now.Sub(r.since) >= repeatWindow {
		e.More = r.more
		*r = repeat{since: now}
	}
	if r.lines >= repeatsFree {
		r.more++
		l.dropped.Add(1)
		return false
	}
	r.lines++
	return true
}

// forget makes room for others to be told apart: what has not happened lately goes, and
// counts among what is lost if it has no line. l.mu must be held.
func (l *Log) forget(now time.Time) {
	for k, r := range l.repeats {
		if now.Sub(r.since) >= repeatWindow {
			l.lost += r.more
			delete(l.repeats, k)
		}
	}
}

// write writes what is queued until Close.
func (l *Log) write() {
	defer close(l.done)
	for {
		l.mu.Lock()
		for len(l.queue) == 0 && !l.closed {
			l.some.Wait()
		}
		events, lost, closed := l.queue, l.lost, l.closed
		l.queue, l.lost = nil, 0
		l.mu.Unlock()
		if lost > 0 {
			events = append(events, Event{Time: time.Now().UTC().Truncate(time.Microsecond), Node: l.node, Kind: "suppressed", More: lost})
		}
		for i := range events {
			l.writeEvent(&events[i])
		}
		if closed && len(events) == 0 {
			return
		}
	}
}

func (l *Log) writeEvent(e *Event) {
	b, err := json.Marshal(e)
	if err == nil {
		err = l.writeLine(append(b, '\n'))
	}
	if err != nil {
		l.failures.Add(1)
		l.failed.Warn(l.logger, "an event cannot be written to the audit log", "error", err)
		return
	}
	l.written.Add(1)
}

func (l *Log) writeLine(line []byte) error {
	w := l.out
	if w == nil {
		if err := l.followRotation(); err != nil {
			return err
		}
		w = l.file
	}
	if l.partial {
		line = append([]byte{'\n'}, line...)
	}
	n, err := w.Write(line)
	l.partial = err != nil && (n > 0 || l.partial)
	return err
}

// followRotation opens the file anew where it has been moved away or deleted.
func (l *Log) followRotation() error {
	now := time.Now()
	if l.file != nil && now.Sub(l.looked) < rotationCheck {
		return nil
	}
	l.looked = now
	if l.file != nil {
		there, err := os.Stat(l.path)
		mine, err2 := l.file.Stat()
		if err == nil && err2 == nil && os.SameFile(there, mine) {
			return nil
		}
	}
	l.partial = false
	return l.openFile()
}

// Close writes what is queued, and what has been counted, and has it on the disk.
func (l *Log) Close() error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	if !l.closed {
		for _, r := range l.repeats {
			l.lost += r.more
		}
		l.closed = true
	}
	l.some.Signal()
	l.mu.Unlock()
	<-l.done
	if l.file == nil {
		return nil
	}
	return errors.Join(l.file.Sync(), l.file.Close())
}

// Written counts the lines that were written.
func (l *Log) Written() uint64 { return l.written.Load() }

// Dropped counts the events that have no line of their own.
func (l *Log) Dropped() uint64 { return l.dropped.Load() }

// Failures counts the lines that could not be written.
func (l *Log) Failures() uint64 { return l.failures.Load() }

func clip(s string) string { return s[:min(len(s), textBytesMax)] }

// hostOf is an address without its port.
func hostOf(remote string) string {
	if host, _, err := net.SplitHostPort(remote); err == nil {
		return host
	}
	return remote
}
