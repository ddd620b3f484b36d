package test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/internal/testcluster"
)

// TestCrashLoop kills a server at random moments while clients write, and
// after each restart compares everything with a model.
//
// Each worker has keys of its own and one request under way at a time, so its
// model is exact: every acknowledged request has taken effect, and of the one
// that was under way at the kill either all or nothing. Some workers have a
// session, and then no outcome is ever unknown. Counters are shared by all of
// those, and must come out at exactly the sum of what was added.
func TestCrashLoop(t *testing.T) {
	rng := seeded(t)
	rounds, workers := 24, 16
	if testing.Short() {
		rounds, workers = 4, 8
	}
	node := testcluster.Start(t, testcluster.Config{Args: []string{"--shards=4"}, Settings: smallStores})
	loop := &crashLoop{
		plain:    connect(t, node, nil),
		sessions: connect(t, node, func(c *client.Config) { c.ExactlyOnce = true }),
	}
	for i := range workers {
		w := &worker{loop: loop, id: i, rng: rand.New(rand.NewPCG(rng.Uint64(), 0)), rows: make(map[string]row)}
		w.c, w.exactly = loop.plain, i%2 == 0
		if w.exactly {
			w.c = loop.sessions
		}
		loop.workers = append(loop.workers, w)
	}
	for round := range rounds {
		killAfter := int64(1 + rng.IntN(1500))
		loop.begin(killAfter)
		select {
		case <-loop.reached:
		case err := <-loop.failed:
			t.Fatalf("round %d: %v", round, err)
		}
		node.Kill()
		loop.stop()
		if rng.IntN(3) == 0 {
			// Killed again while it starts: recovery must bear being cut off.
			killWhileStarting(node, time.Duration(rng.Int64N(int64(60*time.Millisecond))))
		}
		node.Verify()
		node.Start()
		if err := loop.wait(); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if loop.check(t); t.Failed() {
			t.Fatalf("round %d: the state is not what was acknowledged; it was killed after %d requests", round, killAfter)
		}
	}
	node.Stop()
	node.Verify()
	t.Logf("%d rounds, %d requests acknowledged, %d unknown: %d of them had taken effect", rounds, loop.total, loop.unknown, loop.effective)
}

func killWhileStarting(node *testcluster.Node, after time.Duration) {
	node.Spawn()
	delay := time.NewTimer(after)
	defer delay.Stop()
	select {
	case <-delay.C:
	case <-node.Exited():
	}
	node.Kill()
}

type crashLoop struct {
	plain, sessions *client.Client
	workers         []*worker

	killAfter int64
	acked     atomic.Int64
	counters  [4]atomic.Int64 // what the shared counters have been given
	reached   chan struct{}
	stopping  atomic.Bool
	failed    chan error
	wg        sync.WaitGroup

	total, unknown, effective int64
}

func (l *crashLoop) begin(killAfter int64) {
	l.killAfter = killAfter
	l.acked.Store(0)
	l.stopping.Store(false)
	l.reached, l.failed = make(chan struct{}), make(chan error, len(l.workers))
	for _, w := range l.workers {
		l.wg.Go(func() {
			if err := w.run(); err != nil {
				l.failed <- fmt.Errorf("worker %d: %w", w.id, err)
			}
		})
	}
}

func (l *crashLoop) stop() { l.stopping.Store(true) }

func (l *crashLoop) wait() error {
	l.wg.Wait()
	l.total += l.acked.Load()
	select {
	case err := <-l.failed:
		return err
	default:
		return nil
	}
}

func (l *crashLoop) acknowledged() {
	if l.acked.Add(1) == l.killAfter {
		close(l.reached)
	}
}

func (l *crashLoop) counter(i int) []byte { return fmt.Appendf(nil, "counter/%d", i) }

// check compares the whole store with the model, read by read and by one scan.
func (l *crashLoop) check(t *testing.T) {
	t.Helper()
	ctx := context.Background()
	seen := make(map[string]client.Item)
	from := time.Now()
	for item, err := range l.plain.Scan(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		seen[string(item.Key)] = item
	}
	until := time.Now()
	for i := range l.counters {
		key := l.counter(i)
		want := strconv.FormatInt(l.counters[i].Load(), 10)
		if item, ok := seen[string(key)]; (ok || want != "0") && string(item.Value) != want {
			t.Errorf("%s is %q, want %s", key, item.Value, want)
		}
		delete(seen, string(key))
	}
	for _, w := range l.workers {
		w.check(t, seen, from, until)
	}
	for key := range seen {
		t.Errorf("the scan yields %q, which must not exist", key)
	}
}

// row is what the model knows of one key.
type row struct {
	value   []byte
	version uint64 // 0: not known, since the reply got lost
	// A row with a time to live has certainly not expired before earliest, and
	// certainly has after latest. Both are zero for other rows.
	earliest, latest time.Time
}

// clockSlack is what the stamp of an entry may be off the moment its request
// was sent or answered: the wall clock is counted in milliseconds, and a round
// goes by the clock at its beginning, which on a busy machine is a while before it
// comes to a request.
const clockSlack = time.Second

func (r row) expires() bool { return !r.earliest.IsZero() }

// worker issues random requests on its own keys.
type worker struct {
	loop    *crashLoop
	id      int
	c       *client.Client
	rng     *rand.Rand
	exactly bool
	rows    map[string]row // of the keys that exist, or may not have expired yet
	pending *action        // its outcome is unknown
	version uint64         // newest version any reply told
}

// action is a request and its effect on a model.
type action struct {
	name  string
	send  func() error
	apply func(map[string]row)
}

func (w *worker) run() error {
	for !w.loop.stopping.Load() {
		r := w.next()
		err := r.send()
		switch {
		case err == nil:
			r.apply(w.rows)
			w.loop.acknowledged()
		case errors.Is(err, client.ErrOutcomeUnknown) && !w.exactly:
			w.pending = r
			return nil
		default:
			return fmt.Errorf("%s: %w", r.name, err)
		}
	}
	return nil
}

// key returns one of the worker's keys. All keys of a worker lie in one shard,
// so that batches over them are atomic.
func (w *worker) key(kind string, n int) string {
	return fmt.Sprintf("{w%d}/%s/%d", w.id, kind, w.rng.IntN(n))
}

func (w *worker) next() *action {
	switch n := w.rng.IntN(100); {
	case n < 30:
		return w.put(w.key("row", 12), w.value())
	case n < 45:
		return w.del(w.key("row", 12))
	case n < 60:
		return w.incr(w.key("count", 3))
	case n < 72:
		return w.batch()
	case n < 84:
		return w.putTTL(w.key("ttl", 6))
	case n < 94 || !w.exactly:
		return w.get(w.key("row", 12))
	default:
		return w.share()
	}
}

// value draws a value that occurs only once: mostly small, sometimes large.
func (w *worker) value() []byte {
	size := w.rng.IntN(300)
	switch n := w.rng.IntN(1000); {
	case n < 3:
		size = 1<<20 + w.rng.IntN(4<<20)
	case n < 60:
		size = w.rng.IntN(100 << 10)
	}
	v := fmt.Appendf(make([]byte, 0, size+32), "%d/%016x/", w.id, w.rng.Uint64())
	for len(v) < size {
		v = append(v, byte(len(v)*7))
	}
	return v
}

var errReply = errors.New("the reply contradicts the model")

// wrote checks the version of a write's reply: versions grow with every write
// in a shard, also across restarts.
func (w *worker) wrote(version uint64) error {
	if version <= w.version {
		return fmt.Errorf("%w: version %d after %d", errReply, version, w.version)
	}
	w.version = version
	return nil
}

func (w *worker) put(key string, value []byte) *action {
	var version uint64
	return &action{
		name: "PUT " + key,
		send: func() error {
			before, existed := w.rows[key]
			r, err := w.c.Put(context.Background(), []byte(key), value, client.ReturnPrevious())
			if err != nil {
				return err
			}
			version = r.Version
			if existed != (r.Previous != nil) || existed && !bytes.Equal(before.value, r.Previous.Value) && len(before.value) <= 1<<10 {
				return fmt.Errorf("%w: previous row %v, the model has one: %v", errReply, r.Previous != nil, existed)
			}
			return w.wrote(version)
		},
		apply: func(m map[string]row) { m[key] = row{value: value, version: version} },
	}
}

func (w *worker) del(key string) *action {
	return &action{
		name: "DELETE " + key,
		send: func() error {
			_, existed := w.rows[key]
			r, err := w.c.Delete(context.Background(), []byte(key))
			if errors.Is(err, client.ErrNotFound) && !existed {
				return nil
			}
			if err != nil {
				return err
			}
			if !existed {
				return fmt.Errorf("%w: it deleted a key that does not exist", errReply)
			}
			return w.wrote(r.Version)
		},
		apply: func(m map[string]row) { delete(m, key) },
	}
}

func integer(r row) int64 {
	n, _ := strconv.ParseInt(string(r.value), 10, 64)
	return n
}

func (w *worker) incr(key string) *action {
	delta := int64(w.rng.IntN(1000) - 300)
	return &action{
		name: "INCR " + key,
		send: func() error {
			got, err := w.c.Incr(context.Background(), []byte(key), delta)
			if err == nil && got != integer(w.rows[key])+delta {
				return fmt.Errorf("%w: %d, want %d", errReply, got, integer(w.rows[key])+delta)
			}
			return err
		},
		apply: func(m map[string]row) { m[key] = row{value: strconv.AppendInt(nil, integer(m[key])+delta, 10)} },
	}
}

// share adds to counters that several workers add to at the same time: to one,
// or to all, which lie in several shards, in one request.
func (w *worker) share() *action {
	l := w.loop
	if i := w.rng.IntN(len(l.counters) + 1); i < len(l.counters) {
		return &action{
			name: "INCR of a shared counter",
			send: func() error {
				_, err := w.c.Incr(context.Background(), l.counter(i), 1)
				return err
			},
			apply: func(map[string]row) { l.counters[i].Add(1) },
		}
	}
	b := client.NewBatch().NonAtomic()
	for i := range l.counters {
		b.Incr(l.counter(i), 1)
	}
	return &action{
		name: "BATCH over shards",
		send: func() error {
			results, err := w.c.Batch(context.Background(), b)
			for _, r := range results {
				err = errors.Join(err, r.Err)
			}
			return err
		},
		apply: func(map[string]row) {
			for i := range l.counters {
				l.counters[i].Add(1)
			}
		},
	}
}

// batch is atomic: after a kill either all of it is there or nothing.
func (w *worker) batch() *action {
	b := client.NewBatch()
	var parts []func(map[string]row)
	for range 2 + w.rng.IntN(8) {
		switch w.rng.IntN(3) {
		case 0:
			key, value := w.key("row", 12), w.value()
			b.Put([]byte(key), value)
			parts = append(parts, func(m map[string]row) { m[key] = row{value: value} })
		case 1:
			key := w.key("row", 12)
			b.Delete([]byte(key))
			parts = append(parts, func(m map[string]row) { delete(m, key) })
		default:
			key, delta := w.key("count", 3), int64(w.rng.IntN(100))
			b.Incr([]byte(key), delta)
			parts = append(parts, func(m map[string]row) {
				m[key] = row{value: strconv.AppendInt(nil, integer(m[key])+delta, 10)}
			})
		}
	}
	return &action{
		name: "BATCH",
		send: func() error {
			results, err := w.c.Batch(context.Background(), b)
			for _, r := range results {
				if r.Err != nil && !errors.Is(r.Err, client.ErrNotFound) {
					return r.Err
				}
			}
			return err
		},
		apply: func(m map[string]row) {
			for _, part := range parts {
				part(m)
			}
		},
	}
}

// putTTL writes a row that expires: soon, a little later than a restart, or
// not while the test runs.
func (w *worker) putTTL(key string) *action {
	ttl := []time.Duration{20 * time.Millisecond, 300 * time.Millisecond, 2 * time.Second, time.Hour}[w.rng.IntN(4)]
	value := w.value()
	var sent, answered time.Time
	return &action{
		name: "PUT with a TTL " + key,
		send: func() error {
			sent = time.Now()
			_, err := w.c.Put(context.Background(), []byte(key), value, client.WithTTL(ttl))
			answered = time.Now()
			return err
		},
		apply: func(m map[string]row) {
			m[key] = row{value: value, earliest: sent.Add(ttl - clockSlack), latest: answered.Add(ttl + clockSlack)}
		},
	}
}

func (w *worker) get(key string) *action {
	return &action{
		name: "GET " + key,
		send: func() error {
			want, exists := w.rows[key]
			item, err := w.c.Get(context.Background(), []byte(key))
			if errors.Is(err, client.ErrNotFound) && !exists {
				return nil
			}
			if err == nil && (!exists || !bytes.Equal(item.Value, want.value) || want.version != 0 && item.Version != want.version) {
				return fmt.Errorf("%w: a row of %d bytes, version %d; want %d bytes, version %d", errReply, len(item.Value), item.Version, len(want.value), want.version)
			}
			return err
		},
		apply: func(map[string]row) {},
	}
}

// check compares the worker's keys with what a scan between from and until has
// seen, and takes them out of it. A request with an unknown outcome has taken
// effect as a whole or not at all; the model follows what is found.
func (w *worker) check(t *testing.T, seen map[string]client.Item, from, until time.Time) {
	t.Helper()
	prefix := fmt.Sprintf("{w%d}/", w.id)
	mine := make(map[string]client.Item)
	for key, item := range seen {
		if strings.HasPrefix(key, prefix) {
			mine[key] = item
			delete(seen, key)
		}
	}
	differences := compare(w.rows, mine, from, until)
	if r := w.pending; r != nil {
		w.loop.unknown++
		w.pending = nil
		after := make(map[string]row, len(w.rows))
		for key, row := range w.rows {
			after[key] = row
		}
		r.apply(after)
		if d := compare(after, mine, from, until); len(d) == 0 {
			w.loop.effective++
			w.rows, differences = after, nil
		} else if len(differences) > 0 {
			differences = append(differences, fmt.Sprintf("and with %s, whose outcome is unknown:", r.name))
			differences = append(differences, d...)
		}
	}
	for _, d := range differences {
		t.Errorf("worker %d: %s", w.id, d)
	}
	w.confirm(t, mine)
	// What has expired must never come back.
	for key, row := range w.rows {
		if _, ok := mine[key]; row.expires() && !ok {
			delete(w.rows, key)
		}
	}
}

// confirm reads each of the worker's keys by itself: the path of single reads
// must agree with the scan.
func (w *worker) confirm(t *testing.T, mine map[string]client.Item) {
	t.Helper()
	var keys [][]byte
	for key, row := range w.rows {
		if !row.expires() {
			keys = append(keys, []byte(key))
		}
	}
	for n := range 12 {
		if key := fmt.Sprintf("{w%d}/row/%d", w.id, n); w.rows[key].value == nil {
			keys = append(keys, []byte(key))
		}
	}
	slices.SortFunc(keys, bytes.Compare)
	got, err := w.c.MGet(context.Background(), keys)
	if err != nil {
		t.Fatal(err)
	}
	for i, key := range keys {
		item, ok := mine[string(key)]
		if got[i].Found != ok || ok && (!bytes.Equal(got[i].Value, item.Value) || got[i].Version != item.Version) {
			t.Errorf("MGET and SCAN disagree on %s: found %v and %v, versions %d and %d", key, got[i].Found, ok, got[i].Version, item.Version)
		}
	}
}

// compare lists how the rows that were read between from and until differ from
// the model.
func compare(model map[string]row, mine map[string]client.Item, from, until time.Time) []string {
	var out []string
	for key, want := range model {
		item, ok := mine[key]
		switch {
		case !ok && want.expires() && until.After(want.earliest):
		case !ok:
			out = append(out, fmt.Sprintf("%s is missing", key))
		case want.expires() && from.After(want.latest):
			out = append(out, fmt.Sprintf("%s is there %v after it expired", key, from.Sub(want.latest)))
		case !bytes.Equal(item.Value, want.value):
			out = append(out, fmt.Sprintf("%s has %.40q (%d bytes), want %.40q (%d bytes)", key, item.Value, len(item.Value), want.value, len(want.value)))
		case want.version != 0 && item.Version != want.version:
			out = append(out, fmt.Sprintf("%s has version %d, want %d", key, item.Version, want.version))
		}
	}
	for key := range mine {
		if _, ok := model[key]; !ok {
			out = append(out, fmt.Sprintf("%s is there, but was deleted, had expired, or was never written", key))
		}
	}
	slices.Sort(out)
	return out
}
