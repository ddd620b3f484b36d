// Package audit writes the audit log of a node: a line of JSON for each administrative
// request, and for access that was refused. It never has values or passwords, and keys only
// where Config.Keys asks for them.
//
// Events come from threads that poll, which must not wait, and from strangers, who can cause
// as many as they like. So Log puts an event into a queue, from which one goroutine writes.
// Events of strangers are counted where they repeat (see repeats), and have a part of the
// queue of their own: they cannot push out what administrators do. What has no line is
// counted in a line of the kind Suppressed, as soon as there is room for that.
package audit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/proa-kv/proa/internal/lograte"
)

// Kind says what an event is about.
type Kind string

const (
	Admin      Kind = "admin"      // an administrative request
	Users      Kind = "users"      // one that changes users or roles
	Denied     Kind = "denied"     // a request that its user may not make
	Login      Kind = "login"      // credentials that were refused, or taken for the first time
	Start      Kind = "start"      // of the node
	Stop       Kind = "stop"       // of the node
	Suppressed Kind = "suppressed" // Event.More events have no line; only a Log makes these
)

// Outcomes of events.
const (
	OK      = "ok"
	Refused = "refused"
	Failed  = "failed"
)

// Event is a line of the log. The log keeps texts and arguments: they must not change, nor
// be views into a buffer. Texts that are too long are cut.
type Event struct {
	Time      time.Time      `json:"time"`
	Node      uint64         `json:"node"`
	Kind      Kind           `json:"kind"`
	User      string         `json:"user,omitempty"`
	Remote    string         `json:"remote,omitempty"`    // the peer's address
	Door      string         `json:"door,omitempty"`      // native, redis, http, peer, unix
	Operation string         `json:"operation,omitempty"` // or verb
	Key       []byte         `json:"key,omitempty"`       // copied, in base64, if Config.Keys is set
	Arguments map[string]any `json:"arguments,omitempty"` // of an administrative request; see Arguments
	Outcome   string         `json:"outcome,omitempty"`
	Reason    string         `json:"reason,omitempty"`
	// More counts events like this one before it that have no line of their own.
	More uint64 `json:"more,omitempty"`
}

const (
	// strangersMax bounds the events of kinds that strangers can cause in the queue, and
	// othersMax the others, in the queue or being written.
	strangersMax, othersMax = 1024, 1024
	// interval is how often at most the file is synced and looked for, which may have been
	// moved away, and how often a line of the kind Suppressed is written.
	interval = time.Second
)

// ErrClosed is returned for what comes after Close.
var ErrClosed = errors.New("the audit log is closed")

// Config says where an audit log is, and what is in it.
type Config struct {
	// Path is the file to which lines are appended. It is made, for its owner alone, if it
	// is not there. Its directory must be there, and should be one that only the server's
	// operating system user may change. Symbolic links are refused.
	Path string
	Out  io.Writer // gets the lines, one with each Write, if there is no Path
	Node uint64
	// Logger is told, at a limited rate, what cannot be written; nil: nobody.
	Logger *slog.Logger
	Clock  func() time.Time // nil: time.Now
	Keys   bool             // keys are written, which may be personal data
}

// Log is an audit log. A nil Log takes events and writes nothing. It is safe for concurrent
// use. Log never waits for the disk; LogWait, Reopen and Close do.
type Log struct {
	node     uint64
	keys     bool
	logger   *slog.Logger
	clock    func() time.Time
	failures lograte.Line

	written, suppressed, failed atomic.Uint64

	others chan struct{} // a place for each event that strangers cannot cause
	wake   chan struct{} // the writer has something to do
	done   chan struct{} // the writer has ended, and closeErr is set

	mu        sync.Mutex
	queue     []item
	strangers int // in the queue
	repeats   repeats
	lost      uint64 // events without a line, since the last line that says so
	closed    bool

	// The writer's.
	out      output
	toldLost time.Time // when a line of the kind Suppressed was written last
	closeErr error
}

// item is what the writer has to do: to write an event, or to open the file anew.
type item struct {
	event  Event
	other  bool       // it has a place in Log.others
	reopen bool       // there is no event
	done   chan error // gets the outcome, if there is one; it has room for that
}

// Open opens an audit log, which must be closed.
func Open(c Config) (*Log, error) {
	if (c.Path == "") == (c.Out == nil) {
		return nil, errors.New("an audit log needs either a path or a writer")
	}
	l := &Log{
		node: c.Node, keys: c.Keys, logger: c.Logger, clock: c.Clock,
		others: make(chan struct{}, othersMax), wake: make(chan struct{}, 1), done: make(chan struct{}),
		repeats: repeats{byKey: make(map[repeatKey]*repeat)}, out: output{path: c.Path, w: c.Out},
	}
	if l.clock == nil {
		l.clock = time.Now
	}
	l.logger = cmp.Or(l.logger, slog.New(slog.DiscardHandler))
	if err := l.out.open(l.clock()); err != nil {
		return nil, fmt.Errorf("cannot open the audit log: %w", err)
	}
	go l.write()
	return l, nil
}

// Log takes an event, whose time and node it fills in. An event that finds no room is
// counted.
func (l *Log) Log(e Event) {
	if l == nil {
		return
	}
	now := l.fill(&e)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch stranger := e.Kind == Denied || e.Kind == Login; {
	case l.closed:
		l.suppressed.Add(1)
	case stranger && !l.admit(&e, now):
	case stranger && l.strangers >= strangersMax:
		l.lose(1)
	case stranger:
		l.strangers++
		l.put(item{event: e})
	default:
		select {
		case l.others <- struct{}{}:
			l.put(item{event: e, other: true})
		default:
			l.lose(1)
		}
	}
}

// LogWait is Log for events that must not be lost, of goroutines that may wait: it returns
// when the line is written, though not synced, or with the error why it could not be. It
// waits for room where there is none. When ctx ends it returns its error; the event is
// written nevertheless if there was room for it. It counts no repetitions.
func (l *Log) LogWait(ctx context.Context, e Event) error {
	if l == nil {
		return nil
	}
	l.fill(&e)
	select { // where there is room, the event is taken even if ctx has ended
	case l.others <- struct{}{}:
	default:
		select {
		case l.others <- struct{}{}:
		case <-ctx.Done():
			l.mu.Lock()
			defer l.mu.Unlock()
			l.lose(1)
			return fmt.Errorf("the audit log has no room for the event: %w", ctx.Err())
		}
	}
	return l.hand(ctx, item{event: e, other: true})
}

// Reopen opens the file anew, for example after it has been moved away: when Reopen returns,
// nothing more is written to the one before. Where it cannot be opened, that one stays in
// use.
func (l *Log) Reopen() error {
	if l == nil {
		return nil
	}
	return l.hand(context.Background(), item{reopen: true})
}

// hand gives the writer something to do, and waits until it is done, or ctx ends.
func (l *Log) hand(ctx context.Context, it item) error {
	it.done = make(chan error, 1)
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		if it.other {
			<-l.others
			l.suppressed.Add(1)
		}
		return ErrClosed
	}
	l.put(it)
	l.mu.Unlock()
	select {
	case err := <-it.done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("the event is yet to be written to the audit log: %w", ctx.Err())
	}
}

// fill makes e an event of now, and cuts what is too long.
func (l *Log) fill(e *Event) (now time.Time) {
	now = l.clock()
	e.Time, e.Node = now, l.node
	e.cut(l.keys)
	return now
}

// put puts it into the queue. l.mu must be held.
func (l *Log) put(it item) {
	l.queue = append(l.queue, it)
	l.alert()
}

// lose counts events that will have no line, n of them not counted yet as suppressed. l.mu
// must be held.
func (l *Log) lose(n uint64) {
	l.lost += n
	l.suppressed.Add(n)
	l.alert()
}

// alert tells the writer that there is something to do.
func (l *Log) alert() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// write is the writer: it does what is in the queue until Close.
func (l *Log) write() {
	defer close(l.done)
	timer := time.NewTimer(interval)
	defer timer.Stop()
	for {
		batch, more, closed := l.take()
		for i := range batch {
			l.carryOut(&batch[i])
		}
		if err := l.out.sync(l.clock()); err != nil {
			l.fail("the audit log cannot be synced to the disk", err)
		}
		if len(batch) > 0 {
			continue
		}
		if closed {
			l.closeErr = l.out.close()
			return
		}
		var later <-chan time.Time
		if more || l.out.dirty {
			timer.Reset(interval)
			later = timer.C
		}
		select {
		case <-l.wake:
		case <-later:
		}
	}
}

// take empties the queue, and adds lines that count events whose time has come. more: there
// are counts whose time has not come.
func (l *Log) take() (batch []item, more, closed bool) {
	now := l.clock()
	l.mu.Lock()
	defer l.mu.Unlock()
	batch, l.queue, l.strangers = l.queue, nil, 0
	batch = l.summaries(batch, now)
	if l.lost > 0 && (l.closed || now.Sub(l.toldLost) >= interval) {
		batch = append(batch, item{event: Event{Time: now, Node: l.node, Kind: Suppressed, More: l.lost}})
		l.lost, l.toldLost = 0, now
	}
	return batch, l.lost > 0 || l.repeats.counting.Len() > 0, l.closed
}

// carryOut does what it says.
func (l *Log) carryOut(it *item) {
	var err error
	if it.reopen {
		err = l.out.open(l.clock())
	} else if err = l.writeEvent(&it.event); err != nil {
		l.fail("an event cannot be written to the audit log", err)
		l.missed(&it.event)
	} else {
		l.written.Add(1)
	}
	if it.other {
		<-l.others
	}
	if it.done != nil {
		it.done <- err
	}
}

func (l *Log) writeEvent(e *Event) error {
	line, err := e.line()
	if err != nil {
		return err
	}
	if err := l.out.follow(l.clock()); err != nil {
		l.fail("the audit log was moved away: where no new file can be opened, lines go to the one that was moved", err)
	}
	return l.out.write(line)
}

// missed counts the events of a line that could not be written, so that the log will say
// that they are missing.
func (l *Log) missed(e *Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return // nothing is tried again
	}
	l.lost += e.More
	if e.Kind != Suppressed {
		l.lost++
	}
}

// fail counts and reports a failure.
func (l *Log) fail(message string, err error) {
	l.failed.Add(1)
	l.failures.Warn(l.logger, message, "error", err)
}

// Close writes what is queued, and what has been counted, and syncs the file. Events that
// come later are counted as suppressed. It may be called more than once.
func (l *Log) Close() error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	l.closed = true
	l.alert()
	l.mu.Unlock()
	<-l.done
	return l.closeErr
}

// Written counts the lines that were written.
func (l *Log) Written() uint64 {
	if l == nil {
		return 0
	}
	return l.written.Load()
}

// Suppressed counts the events that have no line of their own because there were too many.
func (l *Log) Suppressed() uint64 {
	if l == nil {
		return 0
	}
	return l.suppressed.Load()
}

// Failed counts what went wrong: lines that could not be written, files that could not be
// synced or opened anew.
func (l *Log) Failed() uint64 {
	if l == nil {
		return 0
	}
	return l.failed.Load()
}
