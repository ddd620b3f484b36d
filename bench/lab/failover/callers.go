//go:build linux

package failover

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/proa-kv/proa/bench/rig"
	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/internal/ledger"
)

// kind is how a caller's client is configured.
type kind int

const (
	session kind = iota // client.Config.ExactlyOnce
	plain               // the default
	kinds
)

// String returns what the tables call it.
func (k kind) String() string {
	return [...]string{"with a session", "default settings"}[k]
}

// failurePause keeps callers that fail at once from spinning.
const failurePause = 10 * time.Millisecond

// caller writes growing numbers to a key of one shard, one write after the
// other.
type caller struct {
	shard  int
	kind   kind
	client *client.Client
	prefix string // of its keys: with a hash tag of the shard, and new to the cluster

	mu   sync.Mutex
	line timeline

	acked, failed, lost atomic.Uint64

	// Of the caller's goroutine while it runs. The last of the keys is the one
	// it writes to; the others met an unknown outcome.
	keys  []*ledger.Record
	value []byte
}

// load is all callers, and what they have seen.
type load struct {
	clients [kinds]*client.Client
	callers []*caller
	halt    chan struct{}
	running sync.WaitGroup
	stopped bool

	mu       sync.Mutex
	failures map[string]uint64 // by class
}

// startLoad connects and lets the callers begin. The name is part of their keys
// and must be new to the cluster. The end of ctx breaks off what they are doing.
func startLoad(ctx context.Context, endpoints []string, name string, valueBytes int) (*load, error) {
	l := &load{halt: make(chan struct{}), failures: map[string]uint64{}}
	for k := range kinds {
		var err error
		if l.clients[k], err = client.New(ctx, client.Config{Endpoints: endpoints, ExactlyOnce: k == session}); err != nil {
			return nil, errors.Join(err, l.stop())
		}
	}
	routes, err := l.clients[plain].Routes(ctx)
	if err != nil {
		return nil, errors.Join(err, l.stop())
	}
	tags, err := ledger.Tags(routes.Shards)
	if err != nil {
		return nil, errors.Join(err, l.stop())
	}
	for _, s := range routes.Shards {
		for k, c := range l.clients {
			l.callers = append(l.callers, &caller{shard: int(s.ID), kind: kind(k), client: c, prefix: fmt.Sprintf("{%s}:%s:%d", tags[s.ID], name, k), value: make([]byte, valueBytes)})
		}
	}
	l.open(time.Now())
	for _, c := range l.callers {
		l.running.Go(func() { l.write(ctx, c) })
	}
	return l, nil
}

// write is the life of one caller.
func (l *load) write(ctx context.Context, c *caller) {
	c.freshKey()
	for {
		select {
		case <-l.halt:
			return
		case <-ctx.Done():
			return
		default:
		}
		if err := c.once(ctx); err != nil && ctx.Err() == nil {
			c.failed.Add(1)
			l.note(err)
			_ = rig.Pause(ctx, failurePause) // its end is seen above
		}
	}
}

// freshKey lets the caller go on with a key that nobody has written to.
func (c *caller) freshKey() {
	c.keys = append(c.keys, &ledger.Record{Key: fmt.Appendf(nil, "%s:%d", c.prefix, len(c.keys))})
}

// once writes the next number, and looks at the one it replaces.
func (c *caller) once(ctx context.Context) error {
	r := c.keys[len(c.keys)-1]
	r.Next(c.value)
	begin := time.Now()
	result, err := c.client.Put(ctx, r.Key, c.value, client.ReturnPrevious())
	if err != nil {
		if errors.Is(err, client.ErrOutcomeUnknown) {
			c.freshKey()
		}
		return err
	}
	c.mu.Lock()
	c.line.ack(begin, time.Now())
	c.mu.Unlock()
	c.acked.Add(1)
	var previous []byte
	if result.Previous != nil {
		previous = result.Previous.Value
	}
	if r.Replaced(previous, result.Previous != nil) {
		c.lost.Add(1)
	}
	return nil
}

// classOf names the kind of an error. There are few, whatever addresses the
// errors contain.
func classOf(err error) string { return cmp.Or(rig.ProaClass(err), "other") }

func (l *load) note(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failures[classOf(err)]++
}

// takeFailures returns the failures since it was called last, by class.
func (l *load) takeFailures() map[string]uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.failures
	l.failures = map[string]uint64{}
	return f
}

// tally counts writes.
type tally struct{ acked, failed, lost uint64 }

// tally counts the writes of one kind of callers so far.
func (l *load) tally(k kind) (t tally) {
	for _, c := range l.callers {
		if c.kind == k {
			t.acked += c.acked.Load()
			t.failed += c.failed.Load()
			t.lost += c.lost.Load()
		}
	}
	return t
}

// some chooses callers.
type some func(*caller) bool

func all(*caller) bool               { return true }
func withSession(c *caller) bool     { return c.kind == session }
func ofShard(shard int) some         { return func(c *caller) bool { return c.shard == shard } }
func (s some) and(other some) some   { return func(c *caller) bool { return s(c) && other(c) } }
func among(shards map[int]bool) some { return func(c *caller) bool { return shards[c.shard] } }
func (s some) not() some             { return func(c *caller) bool { return !s(c) } }

// open begins a window for all callers, for an event that has taken effect
// since its time.
func (l *load) open(event time.Time) {
	for _, c := range l.callers {
		c.mu.Lock()
		c.line.open(event, time.Now())
		c.mu.Unlock()
	}
}

// window returns what the open window shows of some of the callers by now.
func (l *load) window(which some) window {
	var windows []window
	for _, c := range l.callers {
		if which(c) {
			c.mu.Lock()
			windows = append(windows, c.line.until(time.Now()))
			c.mu.Unlock()
		}
	}
	return join(windows)
}

const (
	serviceTimeout = 30 * time.Second
	serviceStep    = 2 * time.Millisecond
)

// awaitService waits until some of the callers have all been served in the open
// window.
func (l *load) awaitService(ctx context.Context, which some) error {
	ctx, cancel := context.WithTimeoutCause(ctx, serviceTimeout, fmt.Errorf("a shard has acknowledged no write for %v", serviceTimeout))
	defer cancel()
	for !l.window(which).served {
		if err := rig.Pause(ctx, serviceStep); err != nil {
			return err
		}
	}
	return nil
}

// finish ends the callers, reads every key back and closes the clients. It
// returns how many keys hold neither what was acknowledged nor something that
// was sent later.
func (l *load) finish(ctx context.Context) (missing uint64, err error) {
	l.end()
	for _, c := range l.callers {
		n, err := ledger.Missing(ctx, c.keys, l.read)
		if missing += uint64(n); err != nil {
			return missing, errors.Join(err, l.stop())
		}
	}
	return missing, l.stop()
}

func (l *load) read(ctx context.Context, key []byte) (value []byte, found bool, err error) {
	item, err := l.clients[plain].Get(ctx, key)
	if errors.Is(err, client.ErrNotFound) {
		return nil, false, nil
	}
	return item.Value, true, err
}

// end lets the callers finish the writes they have begun.
func (l *load) end() {
	if !l.stopped {
		l.stopped = true
		close(l.halt)
	}
	l.running.Wait()
}

// stop ends the load at once: writes under way fail. It may be called after
// finish.
func (l *load) stop() error {
	var err error
	for _, c := range l.clients {
		if c != nil {
			err = errors.Join(err, c.Close())
		}
	}
	l.end()
	return err
}
