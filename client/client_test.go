package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/proa-kv/proa/protocol"
)

func TestMain(m *testing.M) {
	routesInterval = time.Hour
	goleak.VerifyTestMain(m)
}

func TestOperations(t *testing.T) {
	f := newFake(t)
	c := dial(t, nil, f)
	ctx := t.Context()

	_, err := c.Get(ctx, []byte("k"))
	if !errors.Is(err, ErrNotFound) {
		t.Fatalf("Get of an absent key: %v", err)
	}
	put, err := c.Put(ctx, []byte("k"), []byte("v1"), WithTTL(1500*time.Microsecond))
	if err != nil || put.Version == 0 {
		t.Fatalf("Put: %+v, %v", put, err)
	}
	item, err := c.Get(ctx, []byte("k"))
	if err != nil || string(item.Value) != "v1" || item.Version != put.Version || item.TTL != 2*time.Millisecond || string(item.Key) != "k" {
		t.Fatalf("Get: %+v, %v", item, err)
	}
	put2, err := c.Put(ctx, []byte("k"), []byte("v2"), KeepTTL(), IfVersion(put.Version), ReturnPrevious())
	if err != nil || put2.Previous == nil || string(put2.Previous.Value) != "v1" || string(put2.Previous.Key) != "k" || put2.Previous.Version != put.Version {
		t.Fatalf("Put with conditions: %+v, %v", put2, err)
	}
	if stat, err := c.Stat(ctx, []byte("k")); err != nil || stat.Version != put2.Version || stat.TTL != 2*time.Millisecond || stat.Value != nil {
		t.Fatalf("Stat: %+v, %v", stat, err)
	}
	failed, err := c.Put(ctx, []byte("k"), []byte("v3"), IfAbsent(), ReturnPrevious())
	var e *Error
	if !errors.Is(err, ErrConditionFailed) || !errors.As(err, &e) || e.Version != put2.Version || failed.Version != put2.Version {
		t.Fatalf("Put IfAbsent: %+v, %v", failed, err)
	}
	if failed.Previous == nil || string(failed.Previous.Value) != "v2" || e.Outcome != NotDone || !SafeToRetry(err) {
		t.Fatalf("Put IfAbsent: %+v, %+v", failed, e)
	}
	if _, err := c.Put(ctx, []byte("other"), nil, IfPresent()); !errors.Is(err, ErrConditionFailed) {
		t.Fatalf("Put IfPresent: %v", err)
	}
	if _, err := c.Expire(ctx, []byte("k"), time.Minute); err != nil {
		t.Fatal(err)
	}
	if item, err = c.Get(ctx, []byte("k")); err != nil || item.TTL != time.Minute {
		t.Fatalf("after Expire: %+v, %v", item, err)
	}
	if _, err := c.Persist(ctx, []byte("k")); err != nil {
		t.Fatal(err)
	}
	if item, err = c.Get(ctx, []byte("k"), WithConsistency(Stale)); err != nil || item.TTL != 0 || item.Age != 7*time.Millisecond {
		t.Fatalf("stale Get after Persist: %+v, %v", item, err)
	}
	if _, err := c.Expire(ctx, []byte("absent"), time.Minute); !errors.Is(err, ErrNotFound) {
		t.Fatalf("Expire of an absent key: %v", err)
	}
	if ok, err := c.Exists(ctx, []byte("k")); !ok || err != nil {
		t.Fatalf("Exists: %v, %v", ok, err)
	}
	if ok, err := c.Exists(ctx, []byte("absent")); ok || err != nil {
		t.Fatalf("Exists of an absent key: %v, %v", ok, err)
	}
	if _, err := c.Delete(ctx, []byte("k"), IfVersion(1)); !errors.Is(err, ErrConditionFailed) {
		t.Fatalf("Delete IfVersion: %v", err)
	}
	del, err := c.Delete(ctx, []byte("k"), ReturnPrevious())
	if err != nil || del.Previous == nil || string(del.Previous.Value) != "v2" || del.Version <= put2.Version {
		t.Fatalf("Delete: %+v, %v", del, err)
	}
	if _, err := c.Delete(ctx, []byte("k")); !errors.Is(err, ErrNotFound) {
		t.Fatalf("second Delete: %v", err)
	}
	if rtt, err := c.Ping(ctx); err != nil || rtt <= 0 {
		t.Fatalf("Ping: %v, %v", rtt, err)
	}
	if s, err := c.Status(ctx); err != nil || string(s) != `{"node":1}` {
		t.Fatalf("Status: %s, %v", s, err)
	}
	r, err := c.Routes(ctx)
	if err != nil || r.Epoch != 4 || r.Nodes[0].Address != "a:1" || r.Shards[0].Slots[0].Last != 16383 {
		t.Fatalf("Routes: %+v, %v", r, err)
	}
	if info, ok := c.Server(); !ok || info.Version != "fake" || info.Node != 1 || info.Shards != 8 || info.Endpoint != f.address() {
		t.Fatalf("Server: %+v, %v", info, ok)
	}
}

func TestIncr(t *testing.T) {
	c := dial(t, nil, newFake(t))
	ctx := t.Context()
	for i := int64(1); i <= 3; i++ {
		if n, err := c.Incr(ctx, []byte("n"), 5); n != 5*i || err != nil {
			t.Fatalf("Incr: %d, %v", n, err)
		}
	}
	if n, err := c.Incr(ctx, []byte("n"), -20); n != -5 || err != nil {
		t.Fatalf("Incr: %d, %v", n, err)
	}
	c.Put(ctx, []byte("n"), []byte(fmt.Sprint(math.MaxInt64)))
	if _, err := c.Incr(ctx, []byte("n"), 1); !errors.Is(err, ErrOverflow) {
		t.Fatalf("Incr: %v", err)
	}
	c.Put(ctx, []byte("n"), []byte("x"))
	if _, err := c.Incr(ctx, []byte("n"), 1); !errors.Is(err, ErrNotInteger) || !SafeToRetry(err) {
		t.Fatalf("Incr: %v", err)
	}
}

func TestMGet(t *testing.T) {
	c := dial(t, nil, newFake(t))
	ctx := t.Context()
	var keys [][]byte
	for i := range 9 {
		keys = append(keys, key(i))
		if i%3 != 0 {
			c.Put(ctx, key(i), fmt.Appendf(nil, "v%d", i))
		}
	}
	got, err := c.MGet(ctx, keys)
	if err != nil || len(got) != 9 {
		t.Fatalf("MGet: %d, %v", len(got), err)
	}
	for i, l := range got {
		if !bytes.Equal(l.Key, keys[i]) || l.Found != (i%3 != 0) || l.Found && string(l.Value) != fmt.Sprintf("v%d", i) {
			t.Errorf("row %d: %+v", i, l)
		}
	}
	if got, err := c.MGet(ctx, nil); len(got) != 0 || err != nil {
		t.Errorf("MGet of nothing: %v, %v", got, err)
	}
	if _, err := c.MGet(ctx, make([][]byte, protocol.OpsMax+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("MGet of too many: %v", err)
	}
	if _, err := c.MGet(ctx, [][]byte{{}}); !errors.Is(err, ErrBadRequest) {
		t.Errorf("MGet of an empty key: %v", err)
	}
}

func TestBatch(t *testing.T) {
	c := dial(t, nil, newFake(t))
	ctx := t.Context()
	b := NewBatch().Put([]byte("a"), []byte("1"), WithTTL(time.Second)).
		Put([]byte("a"), []byte("2"), IfAbsent()).Incr([]byte("a"), 4).
		Delete([]byte("absent")).Persist([]byte("a")).Expire([]byte("a"), time.Hour)
	r, err := c.Batch(ctx, b)
	if err != nil || len(r) != b.Len() {
		t.Fatalf("Batch: %v, %v", r, err)
	}
	if r[0].Err != nil || !errors.Is(r[1].Err, ErrConditionFailed) || r[2].Integer != 5 || !errors.Is(r[3].Err, ErrNotFound) || r[5].Err != nil {
		t.Fatalf("Batch: %+v", r)
	}
	if r[5].Version <= r[4].Version {
		t.Fatalf("versions do not grow: %+v", r)
	}
	far := NewBatch().Put([]byte("a"), nil).Put([]byte("far"), nil)
	if _, err := c.Batch(ctx, far); !errors.Is(err, ErrCrossShard) {
		t.Fatalf("Batch across shards: %v", err)
	}
	if r, err := c.Batch(ctx, far.NonAtomic()); err != nil || len(r) != 2 {
		t.Fatalf("non-atomic Batch: %v, %v", r, err)
	}
	if _, err := c.Batch(ctx, far.Reset().Add(OpPing())); !errors.Is(err, ErrBadRequest) {
		t.Fatalf("Batch with a Get: %v", err)
	}
	if r, err := c.Batch(ctx, NewBatch()); r != nil || err != nil {
		t.Fatalf("empty Batch: %v, %v", r, err)
	}
	if _, err := c.Batch(ctx, NewBatch().Put(nil, nil)); !errors.Is(err, ErrBadRequest) {
		t.Fatalf("Batch with an empty key: %v", err)
	}
}

func TestTxn(t *testing.T) {
	c := dial(t, nil, newFake(t))
	ctx := t.Context()
	k := []byte("k")
	swap := func(cond ...Condition) TxnResult {
		t.Helper()
		r, err := c.Txn(ctx, NewTxn().If(cond...).Then(OpPut(k, []byte("then")), OpGet(k)).Else(OpExists(k), OpGet(k)))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := swap(Absent(k))
	if !r.Succeeded || len(r.Results) != 2 || string(r.Results[1].Value) != "then" || r.Results[1].Version != r.Results[0].Version {
		t.Fatalf("%+v", r)
	}
	v := r.Results[0].Version
	if r := swap(Version(k, NotEqual, v)); r.Succeeded || r.Results[0].Version != v {
		t.Fatalf("%+v", r)
	}
	if r := swap(Present(k), Value(k, Equal, []byte("then")), Value(k, Less, []byte("thenz")), Version(k, Greater, v-1)); !r.Succeeded {
		t.Fatalf("%+v", r)
	}
	if _, err := c.Txn(ctx, NewTxn()); !errors.Is(err, ErrBadRequest) {
		t.Fatalf("empty Txn: %v", err)
	}
	if _, err := c.Txn(ctx, NewTxn().Then(OpPing())); !errors.Is(err, ErrBadRequest) {
		t.Fatalf("Txn with a Ping: %v", err)
	}
}

// Bad arguments are found before anything is sent.
func TestInvalidArguments(t *testing.T) {
	f := newFake(t)
	f.record = true
	c := dial(t, nil, f)
	ctx := t.Context()
	big := make([]byte, protocol.KeyBytesMax+1)
	huge := make([]byte, protocol.ValueBytesMax+1)
	for name, test := range map[string]struct {
		err  func() error
		want error
	}{
		"empty key":      {func() error { _, err := c.Get(ctx, nil); return err }, ErrBadRequest},
		"long key":       {func() error { _, err := c.Get(ctx, big); return err }, ErrTooLarge},
		"long value":     {func() error { _, err := c.Put(ctx, []byte("k"), huge); return err }, ErrTooLarge},
		"zero TTL":       {func() error { _, err := c.Put(ctx, []byte("k"), nil, WithTTL(0)); return err }, ErrBadRequest},
		"negative TTL":   {func() error { _, err := c.Expire(ctx, []byte("k"), -1); return err }, ErrBadRequest},
		"consistency":    {func() error { _, err := c.Get(ctx, []byte("k"), WithConsistency(9)); return err }, ErrBadRequest},
		"early expiry":   {func() error { _, err := c.SetExpiry(ctx, []byte("k"), WithExpiryAt(time.UnixMilli(-1))); return err }, ErrBadRequest},
		"offset":         {func() error { _, err := c.SetRange(ctx, []byte("k"), -1, nil); return err }, ErrBadRequest},
		"no destination": {func() error { _, err := c.Rename(ctx, []byte("k"), nil); return err }, ErrBadRequest},
		"long source":    {func() error { _, err := c.Copy(ctx, big, []byte("k")); return err }, ErrTooLarge},
		"long addition":  {func() error { _, err := c.Append(ctx, []byte("k"), huge); return err }, ErrTooLarge},
		"timeout":        {func() error { _, err := c.Ping(ctx, WithTimeout(0)); return err }, ErrBadRequest},
		"zero operation": {func() error { return c.Do(Operation{}, HandlerFunc(func(*Result) {})) }, ErrBadRequest},
		"future":         {func() error { _, err := c.GetAsync(nil).Wait(ctx); return err }, ErrBadRequest},
		"status timeout": {func() error { _, err := c.Status(ctx, WithTimeout(-1)); return err }, ErrBadRequest},
	} {
		err := test.err()
		if !errors.Is(err, test.want) || !SafeToRetry(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	f.set(func() {
		if len(f.requests) != 0 {
			t.Errorf("%d requests were sent", len(f.requests))
		}
	})
}

func TestManyGoroutines(t *testing.T) {
	for name, prepare := range map[string]func(*fake, *Config){
		"in order": func(*fake, *Config) {},
		"reverse":  func(f *fake, _ *Config) { f.reverse = true },
		"TLS":      func(f *fake, cfg *Config) { cfg.TLS = f.secureLocal() },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			c := dial(t, func(cfg *Config) {
				cfg.Connections = 2
				prepare(f, cfg)
			}, f)
			var wg sync.WaitGroup
			for g := range 32 {
				wg.Go(func() {
					for i := range 200 {
						k := fmt.Appendf(nil, "%d-%d", g, i%17)
						v := fmt.Appendf(nil, "%d/%d/%s", g, i, strings.Repeat("x", i*7%300))
						if _, err := c.Put(t.Context(), k, v); err != nil {
							t.Error(err)
							return
						}
						item, err := c.Get(t.Context(), k)
						if err != nil || !bytes.Equal(item.Value, v) {
							t.Errorf("Get %s: %q, %v", k, item.Value, err)
							return
						}
					}
				})
			}
			wg.Wait()
		})
	}
}

// More callers than the server lets be in flight: the rest wait their turn.
func TestInFlightLimit(t *testing.T) {
	f := newFake(t)
	f.inFlight = 3
	c := dial(t, nil, f)
	var wg sync.WaitGroup
	for g := range 50 {
		wg.Go(func() {
			for i := range 50 {
				if _, err := c.Put(t.Context(), key(g), key(i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for cn := range c.pool.conns {
		if cn.limit != 3 {
			t.Errorf("%d requests may be pending", cn.limit)
		}
	}
}

func TestLargeValues(t *testing.T) {
	c := dial(t, nil, newFake(t))
	var wg sync.WaitGroup
	for _, size := range []int{0, 1, frameKeptBytes - 100, frameKeptBytes, writeBufferBytes, 1 << 20, protocol.ValueBytesMax} {
		wg.Go(func() {
			v := bytes.Repeat([]byte{byte(size), 1, 2}, size/3+1)[:size]
			k := key(size)
			for range 3 {
				if _, err := c.Put(t.Context(), k, v); err != nil {
					t.Error(err)
				}
				if item, err := c.Get(t.Context(), k); err != nil || !bytes.Equal(item.Value, v) || item.Value == nil {
					t.Errorf("%d bytes: %d, %v", size, len(item.Value), err)
				}
			}
		})
	}
	wg.Wait()
}

func TestRequestTooLargeForServer(t *testing.T) {
	f := newFake(t)
	f.hello = func(*fakeConn, *protocol.Hello) []byte {
		r := protocol.HelloReply{Version: 1, FrameBytesMax: 1000}
		return protocol.End(r.AppendTo(protocol.Begin(nil, 0, protocol.FlagReply, 0)), 0)
	}
	c := dial(t, nil, f)
	if _, err := c.Put(t.Context(), []byte("k"), make([]byte, 1000)); !errors.Is(err, ErrTooLarge) || !SafeToRetry(err) {
		t.Fatal(err)
	}
	if _, err := c.Put(t.Context(), []byte("k"), make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
}

// What a call returns stays as it is when later calls reuse the buffers.
func TestResultsAreCopies(t *testing.T) {
	c := dial(t, nil, newFake(t))
	ctx := t.Context()
	var items []Item
	var previous []WriteResult
	k := []byte("k")
	for i := range 100 {
		w, err := c.Put(ctx, k, key(i), ReturnPrevious())
		if err != nil {
			t.Fatal(err)
		}
		previous = append(previous, w)
		item, err := c.GetAsync(k).Wait(ctx)
		if err != nil {
			t.Fatal(err)
		}
		items = append(items, item)
	}
	for i := range 100 {
		if !bytes.Equal(items[i].Value, key(i)) || string(items[i].Key) != "k" {
			t.Fatalf("item %d: %q", i, items[i].Value)
		}
		if i > 0 && !bytes.Equal(previous[i].Previous.Value, key(i-1)) {
			t.Fatalf("previous %d: %q", i, previous[i].Previous.Value)
		}
	}
}

func TestFutures(t *testing.T) {
	f := newFake(t)
	c := dial(t, nil, f)
	ctx := t.Context()
	var puts []*Future[WriteResult]
	k, v := []byte("key-x"), []byte("value-x")
	for i := range 500 {
		k[4], v[6] = byte(i), byte(i) // may be reused at once
		puts = append(puts, c.PutAsync(k, v))
	}
	for _, p := range puts {
		if _, err := p.Wait(ctx); err != nil {
			t.Fatal(err)
		}
		<-p.Done()
	}
	k[4] = 7
	if item, err := c.GetAsync(k).Wait(ctx); err != nil || item.Value[6] != 7 || item.Key[4] != 7 {
		t.Fatalf("%+v, %v", item, err)
	}
	if n, err := c.IncrAsync([]byte("n"), 3).Wait(ctx); n != 3 || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
	if _, err := c.DeleteAsync([]byte("n")).Wait(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := c.DeleteAsync([]byte("n")).Wait(ctx); !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
	// Giving up waiting does not end the call.
	release := make(chan struct{})
	f.set(func() {
		f.intercept = func(*fakeConn, *protocol.Frame, *protocol.Extensions) verdict { <-release; return verdict{} }
	})
	p := c.PutAsync([]byte("late"), nil)
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := p.Wait(gone); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	close(release)
	if _, err := p.Wait(ctx); err != nil {
		t.Fatal(err)
	}
}

// A closed loop of handlers, as the load generator drives it.
func TestDo(t *testing.T) {
	c := dial(t, func(cfg *Config) { cfg.Connections = 2 }, newFake(t))
	const depth, total = 16, 5000
	var mu sync.Mutex
	sent, done := 0, 0
	finished := make(chan struct{})
	var h Handler
	next := func() {
		mu.Lock()
		i := sent
		sent++
		mu.Unlock()
		if i >= total {
			return
		}
		o := OpPut(key(i), key(i))
		if i%2 == 1 {
			o = OpGet(key(i))
		}
		if err := c.Do(o, h); err != nil {
			t.Error(err)
		}
	}
	h = HandlerFunc(func(r *Result) {
		if r.Err != nil && !errors.Is(r.Err, ErrNotFound) {
			t.Error(r.Err)
		}
		mu.Lock()
		done++
		last := done == total
		mu.Unlock()
		if last {
			close(finished)
		}
		next()
	})
	for range depth {
		next()
	}
	<-finished
}

func TestScan(t *testing.T) {
	f := newFake(t)
	c := dial(t, nil, f)
	ctx := t.Context()
	var want []string
	for i := range 50 {
		c.Put(ctx, key(i), fmt.Appendf(nil, "v%d", i))
		want = append(want, string(key(i)))
	}
	c.Put(ctx, []byte("zzz"), []byte("end"))
	backwards := make([]string, 50)
	for i := range want {
		backwards[49-i] = want[i]
	}
	collect := func(opts ...ScanOption) (got []string) {
		t.Helper()
		for item, err := range c.Scan(ctx, opts...) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, string(item.Key))
		}
		return got
	}
	check := func(name string, got, want []string) {
		t.Helper()
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
	check("all", collect(), append(append([]string{}, want...), "zzz"))
	for _, page := range []int{1, 2, 7, 50, 1000} {
		check("prefix", collect(Prefix([]byte("key-")), PageSize(page)), want)
		check("reverse", collect(Prefix([]byte("key-")), PageSize(page), Reverse()), backwards)
		check("range", collect(Range(key(10), key(20)), PageSize(page)), want[10:20])
		check("limit", collect(Limit(13), PageSize(page)), want[:13])
		check("empty", collect(Prefix([]byte("nothing")), PageSize(page)), nil)
	}
	for item, err := range c.Scan(ctx, KeysOnly(), Limit(1)) {
		if err != nil || len(item.Value) != 0 {
			t.Errorf("keys only: %+v, %v", item, err)
		}
	}
	for item, err := range c.Scan(ctx, Limit(1)) {
		if err != nil || string(item.Value) != "v0" || item.Version == 0 {
			t.Errorf("item: %+v, %v", item, err)
		}
	}
}

// A scan that stops anywhere goes on behind the last item, in another scanner
// as in the same one.
func TestScanResume(t *testing.T) {
	c := dial(t, nil, newFake(t))
	ctx := t.Context()
	for i := range 20 {
		c.Put(ctx, key(i), nil)
	}
	for _, opts := range [][]ScanOption{
		{Prefix([]byte("key"))}, {Prefix([]byte("key")), Reverse()}, {Range(key(2), key(18))}, {Range(key(2), nil), Reverse()}, {},
	} {
		opts = append(opts, PageSize(6))
		var want []string
		for item, err := range c.Scan(ctx, opts...) {
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, string(item.Key))
		}
		for stop := 1; stop <= len(want); stop++ {
			var got []string
			s := c.NewScanner(opts...)
			take := func(s *Scanner, n int) {
				for item, err := range s.All(ctx) {
					if err != nil {
						t.Fatal(err)
					}
					got = append(got, string(item.Key))
					if n--; n == 0 {
						return
					}
				}
			}
			take(s, stop)
			cursor := s.Cursor()
			take(s, 1000)
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Fatalf("stopped after %d: %v, want %v", stop, got, want)
			}
			if !s.Exhausted() || s.Cursor() != nil {
				t.Fatal("not exhausted")
			}
			got = got[:stop]
			take(c.NewScanner(append(opts, FromCursor(cursor))...), 1000)
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Fatalf("resumed after %d: %v, want %v", stop, got, want)
			}
		}
	}
}

func TestScanCursors(t *testing.T) {
	c := dial(t, nil, newFake(t))
	ctx := t.Context()
	scanError := func(opts ...ScanOption) error {
		for _, err := range c.Scan(ctx, opts...) {
			return err
		}
		return nil
	}
	for _, cursor := range []string{"p", "k", "x???", "pforeign", "kother", "r" + string(key(1)), "k" + strings.Repeat("x", protocol.KeyBytesMax+1)} {
		if err := scanError(Prefix([]byte("key")), FromCursor([]byte(cursor))); !errors.Is(err, ErrBadCursor) {
			t.Errorf("cursor %.20q: %v", cursor, err)
		}
	}
	if err := scanError(PageSize(0)); !errors.Is(err, ErrBadRequest) {
		t.Error(err)
	}
	if err := scanError(Limit(-1)); !errors.Is(err, ErrBadRequest) {
		t.Error(err)
	}
	// The greatest key there can be has no successor.
	top := bytes.Repeat([]byte{0xff}, protocol.KeyBytesMax)
	c.Put(ctx, top, nil)
	s := c.NewScanner(FromCursor(append([]byte{cursorKey}, top...)))
	for item, err := range s.All(ctx) {
		t.Errorf("%d bytes, %v", len(item.Key), err)
	}
	if !s.Exhausted() {
		t.Error("not exhausted")
	}
}

func TestSuccessor(t *testing.T) {
	full := bytes.Repeat([]byte{'a'}, protocol.KeyBytesMax)
	for _, test := range []struct{ key, want []byte }{
		{[]byte("a"), []byte("a\x00")},
		{full, append(bytes.Clone(full[:len(full)-1]), 'b')},
		{bytes.Repeat([]byte{0xff}, protocol.KeyBytesMax), nil},
	} {
		if got := successor(test.key); !bytes.Equal(got, test.want) {
			t.Errorf("successor(%.10q…): %.10q…", test.key, got)
		}
	}
	if got := protocol.PrefixEnd([]byte("a\xff\xff")); string(got) != "b" {
		t.Errorf("%q", got)
	}
}

func TestCloseEndsCalls(t *testing.T) {
	f := newFake(t)
	arrived := make(chan struct{}, 10)
	f.intercept = func(_ *fakeConn, _ *protocol.Frame, x *protocol.Extensions) verdict {
		arrived <- struct{}{}
		return verdict{skip: true}
	}
	f.inFlight = 2
	c := dial(t, nil, f)
	read := c.GetAsync([]byte("k"))
	write := c.PutAsync([]byte("k"), nil)
	<-arrived
	<-arrived
	queued := c.PutAsync([]byte("k"), nil) // no room for it in flight
	c.Close()
	c.Close()
	ctx := t.Context()
	if _, err := read.Wait(ctx); !errors.Is(err, ErrClosed) || !SafeToRetry(err) {
		t.Errorf("read: %v", err)
	}
	if _, err := write.Wait(ctx); !errors.Is(err, ErrClosed) || !errors.Is(err, ErrOutcomeUnknown) || SafeToRetry(err) {
		t.Errorf("write: %v", err)
	}
	if _, err := queued.Wait(ctx); !errors.Is(err, ErrClosed) || !SafeToRetry(err) {
		t.Errorf("queued write: %v", err)
	}
	if _, err := c.Get(ctx, []byte("k")); !errors.Is(err, ErrClosed) {
		t.Errorf("Get after Close: %v", err)
	}
}

func TestExtensionOffsets(t *testing.T) {
	for _, deadline := range []uint32{0, 1} {
		x := protocol.Extensions{DeadlineMillis: deadline, Session: 3, Consistency: Stale, HasTrace: true}
		ca := &call{deadline: int64(deadline)}
		ca.frame = x.AppendTo(protocol.Begin(nil, 3, protocol.FlagExtensions, 0))
		ca.setSequence(1<<40, 1<<39)
		ca.setRemaining(1 - 99*int64(time.Millisecond))
		want := x
		want.Sequence, want.Acknowledged, want.DeadlineMillis = 1<<40, 1<<39, 99*deadline
		var got protocol.Extensions
		f, _, _, err := protocol.Next(protocol.End(ca.frame, 0), protocol.FrameBytesMax)
		if err != nil || got.Decode(f.Extensions) != nil || got != want {
			t.Fatalf("%+v, %v; want %+v", got, err, want)
		}
	}
}

// Every time to live that a Duration can hold is rounded up to milliseconds, and
// the protocol takes it; the longest timeouts and deadlines do not overflow.
func TestLongTimes(t *testing.T) {
	for d, want := range map[time.Duration]uint64{
		1: 1, time.Millisecond: 1, time.Millisecond + 1: 2, time.Hour: 3600_000,
		math.MaxInt64: 9223372036855, 9223372036854000001: 9223372036855, 9223372036854000000: 9223372036854,
	} {
		put, expire := OpPut([]byte("k"), nil, WithTTL(d)), OpExpire([]byte("k"), d)
		if put.number != want || expire.number != want || want > protocol.TTLMillisMax {
			t.Errorf("%d: %d and %d ms, want %d", d, put.number, expire.number, want)
		}
		var m protocol.Put
		if err := m.Decode(put.appendBody(nil)); err != nil {
			t.Errorf("%v: %v", d, err)
		}
	}
	f := newFake(t)
	c := dial(t, nil, f)
	ctx, cancel := context.WithTimeout(t.Context(), math.MaxInt64)
	defer cancel()
	if _, err := c.Put(ctx, []byte("k"), nil, WithTimeout(math.MaxInt64)); err != nil {
		t.Error(err)
	}
	if _, err := c.PutAsync([]byte("k"), nil, WithTimeout(math.MaxInt64)).Wait(t.Context()); err != nil {
		t.Error(err)
	}
	patient, err := newClient(Config{Endpoints: []string{"h"}, BackoffMax: math.MaxInt64})
	if err != nil {
		t.Fatal(err)
	}
	defer patient.Close()
	if d := patient.cfg.backoff(1000); d < math.MaxInt64/2 {
		t.Error(d)
	}
}

func TestParseEndpoint(t *testing.T) {
	for in, want := range map[string]string{
		"localhost":         "tcp localhost:7400",
		"127.0.0.1":         "tcp 127.0.0.1:7400",
		"db.example:99":     "tcp db.example:99",
		":7500":             "tcp localhost:7500",
		"h:":                "tcp h:7400",
		"::1":               "tcp [::1]:7400",
		"[::1]":             "tcp [::1]:7400",
		"[::1]:8":           "tcp [::1]:8",
		"unix:///run/p.sck": "unix /run/p.sck",
		"unix://rel.sck":    "unix rel.sck",
		"":                  "error",
		"unix://":           "error",
		"http://x":          "error",
		"a:b:c":             "error",
	} {
		ep, err := parseEndpoint(in)
		got := ep.network + " " + ep.address
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}

func TestConfigErrors(t *testing.T) {
	ok := Config{Endpoints: []string{"h"}}
	for name, change := range map[string]func(*Config){
		"Endpoints":      func(c *Config) { c.Endpoints = nil },
		"Connections":    func(c *Config) { c.Connections = -1 },
		"DialTimeout":    func(c *Config) { c.DialTimeout = -1 },
		"BackoffMax":     func(c *Config) { c.BackoffMax = 1 },
		"MaxReplyBytes":  func(c *Config) { c.MaxReplyBytes = 10 },
		"Name":           func(c *Config) { c.Name = strings.Repeat("x", 257) },
		"Consistency":    func(c *Config) { c.Consistency = 3 },
		"MaxQueued":      func(c *Config) { c.MaxQueued = -5 },
		"User or Secret": func(c *Config) { c.Secret = strings.Repeat("x", 257) },
		"Credentials": func(c *Config) {
			c.User, c.Credentials = "ann", func(context.Context) (string, string, error) { return "", "", nil }
		},
	} {
		cfg := ok
		change(&cfg)
		if _, err := New(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	cfg, err := ok.withDefaults()
	if err != nil || cfg.RequestTimeout != 30*time.Second || cfg.BackoffMin != time.Second || cfg.BackoffMax != time.Minute || cfg.Logger == nil {
		t.Errorf("%+v, %v", cfg, err)
	}
}
