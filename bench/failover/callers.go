//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/protocol"
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

const (
	// failurePause keeps callers that fail at once from spinning.
	failurePause = 10 * time.Millisecond
	// numberBytes is the longest number in a value, in decimal.
	numberBytes = 20
)

// record is what is known of a key.
type record struct {
	key   []byte
	acked uint64 // the newest number that was acknowledged
	tried uint64 // the newest number that was sent
}

// holds reports whether the key may hold a number.
func (r *record) holds(number uint64) bool { return number >= r.acked && number <= r.tried }

// acknowledge notes that the number tried last is acknowledged, and that it
// replaced previous, nil where there was nothing. It reports whether that shows
// that the key had lost a write.
func (r *record) acknowledge(previous *client.Item) (lost bool) {
	sent := record{acked: r.acked, tried: r.tried - 1} // before this write
	r.acked = r.tried
	number, ok := numberOf(previous)
	return !ok || !sent.holds(number)
}

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
	keys  []*record
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
	tags, err := tagsOf(routes.Shards)
	if err != nil {
		return nil, errors.Join(err, l.stop())
	}
	for _, s := range routes.Shards {
		for k, c := range l.clients {
			l.callers = append(l.callers, &caller{shard: int(s.ID), kind: kind(k), client: c, prefix: fmt.Sprintf("{%s}:%s:%d", tags[s.ID], name, k), value: bytes.Repeat([]byte{' '}, valueBytes)})
		}
	}
	l.open(time.Now())
	for _, c := range l.callers {
		l.running.Go(func() { l.write(ctx, c) })
	}
	return l, nil
}

// triesMax is how many hash tags are looked at before a shard counts as one
// that no key belongs to. Of 16,384 slots each is hit once in as many tries.
const triesMax = 1 << 20

// tagsOf finds a hash tag for each shard, by its number.
func tagsOf(shards []client.Shard) (map[uint16]string, error) {
	owner := map[uint16]uint16{} // by slot
	for _, s := range shards {
		for _, r := range s.Slots {
			for slot := int(r.First); slot <= int(r.Last); slot++ {
				owner[uint16(slot)] = s.ID
			}
		}
	}
	tags := map[uint16]string{}
	for i := 0; len(tags) < len(shards); i++ {
		if i == triesMax {
			return nil, fmt.Errorf("keys belong to %d of %d shards only", len(tags), len(shards))
		}
		tag := strconv.Itoa(i)
		shard, owned := owner[protocol.Slot([]byte(tag))]
		if _, known := tags[shard]; owned && !known {
			tags[shard] = tag
		}
	}
	return tags, nil
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
			_ = pause(ctx, failurePause) // its end is seen above
		}
	}
}

// freshKey lets the caller go on with a key that nobody has written to.
func (c *caller) freshKey() {
	c.keys = append(c.keys, &record{key: fmt.Appendf(nil, "%s:%d", c.prefix, len(c.keys))})
}

// once writes the next number, and looks at the one it replaces.
func (c *caller) once(ctx context.Context) error {
	r := c.keys[len(c.keys)-1]
	r.tried++
	copy(c.value, fmt.Sprintf("%-*d", numberBytes, r.tried))
	begin := time.Now()
	result, err := c.client.Put(ctx, r.key, c.value, client.ReturnPrevious())
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
	if r.acknowledge(result.Previous) {
		c.lost.Add(1)
	}
	return nil
}

// numberOf returns the number in a value that a caller wrote, 0 where there is
// no value. It is not ok where the value is nothing a caller writes.
func numberOf(item *client.Item) (number uint64, ok bool) {
	if item == nil {
		return 0, true
	}
	number, err := strconv.ParseUint(string(bytes.TrimSpace(item.Value)), 10, 64)
	return number, err == nil
}

// failureClasses are the kinds of failure that a write may meet.
var failureClasses = []error{
	client.ErrBusy, client.ErrNoQuorum, client.ErrNotLeader, client.ErrDropped, client.ErrShuttingDown, client.ErrSessionExpired,
	client.ErrUnavailable, client.ErrConnectionLost, client.ErrDeadlineExceeded, client.ErrStorageFailed, client.ErrInternal,
}

// classOf names the kind of an error. There are few, whatever addresses the
// errors contain.
func classOf(err error) string {
	class := "other"
	for _, kind := range failureClasses {
		if errors.Is(err, kind) {
			class = kind.Error()
			break
		}
	}
	if errors.Is(err, client.ErrOutcomeUnknown) {
		class += ", outcome unknown"
	}
	return class
}

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
		if err := pause(ctx, serviceStep); err != nil {
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
		for _, r := range c.keys {
			item, err := l.clients[plain].Get(ctx, r.key)
			found := &item
			if errors.Is(err, client.ErrNotFound) {
				found = nil
			} else if err != nil {
				return missing, errors.Join(fmt.Errorf("reading the keys back: %w", err), l.stop())
			}
			if number, ok := numberOf(found); !ok || !r.holds(number) {
				missing++
			}
		}
	}
	return missing, l.stop()
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
