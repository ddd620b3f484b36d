package server

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/proa-kv/proa/protocol"
)

// keysOf scans all keys.
func (d *dialer) keysOf() []string {
	d.t.Helper()
	keys, _, _ := d.readScan(protocol.Extensions{}, &protocol.Scan{Flags: protocol.ScanKeysOnly})
	return keys
}

// deleted reads the reply to a DELETE_RANGE, all parts of which must be done, and
// returns the version of each.
func deleted(t testing.TB, f protocol.Frame) (versions []uint64) {
	t.Helper()
	want(t, f, protocol.StatusOK)
	for _, r := range decode[protocol.BatchReply](t, f).Results {
		var w protocol.WriteReply
		if err := w.Decode(r.Body); err != nil || r.Status != protocol.StatusOK || w.Version == 0 {
			t.Fatalf("%v, %+v, %v", r.Status, w, err)
		}
		versions = append(versions, w.Version)
	}
	return versions
}

func TestDeleteRange(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		s, addr := live(t, cfg)
		d := dial(t, addr)
		shards := s.backend.Shards()
		if shards < 2 {
			t.Fatalf("%d shards", shards)
		}
		fill := func() {
			for i := range 40 {
				want(t, d.put(fmt.Sprintf("a%02d", i), "v"), protocol.StatusOK)
				want(t, d.put(fmt.Sprintf("b%02d", i), "v"), protocol.StatusOK)
			}
		}
		fill()
		if n := len(deleted(t, d.ask(protocol.OpDeleteRange, &protocol.DeleteRange{Flags: protocol.DeleteRangePrefix, Start: []byte("a")}, protocol.StatusOK))); n != shards {
			t.Errorf("results of %d shards", n)
		}
		want(t, d.call(protocol.OpGet, []byte("a07")), protocol.StatusNotFound)
		wantValue(t, d.call(protocol.OpGet, []byte("b07")), "v")
		deleted(t, d.ask(protocol.OpDeleteRange, &protocol.DeleteRange{Start: []byte("b01"), End: []byte("b39")}, protocol.StatusOK))
		if keys := d.keysOf(); !slices.Equal(keys, []string{"b00", "b39"}) {
			t.Errorf("left are %q", keys)
		}
		d.ask(protocol.OpDeleteRange, &protocol.DeleteRange{}, protocol.StatusBadRequest)
		f, _ := d.callWith(protocol.OpDeleteRange, protocol.Extensions{HasShard: true, Shard: uint16(shards)}, (&protocol.DeleteRange{Flags: protocol.DeleteRangeAll}).AppendTo(nil))
		want(t, f, protocol.StatusBadRequest)

		fill()
		shard := s.shardOf([]byte("a00"))
		f, _ = d.callWith(protocol.OpDeleteRange, protocol.Extensions{HasShard: true, Shard: uint16(shard)}, (&protocol.DeleteRange{Flags: protocol.DeleteRangeAll}).AppendTo(nil))
		if n := len(deleted(t, f)); n != 1 {
			t.Errorf("results of %d shards", n)
		}
		keys := d.keysOf()
		if len(keys) == 0 || slices.ContainsFunc(keys, func(key string) bool { return s.shardOf([]byte(key)) == shard }) {
			t.Errorf("left are %q", keys)
		}

		// In a session it is done once, whatever has been written since.
		x := protocol.Extensions{Session: 5, Sequence: 1}
		everything := (&protocol.DeleteRange{Flags: protocol.DeleteRangeAll}).AppendTo(nil)
		f, _ = d.callWith(protocol.OpDeleteRange, x, everything)
		first := deleted(t, f)
		fill()
		f, _ = d.callWith(protocol.OpDeleteRange, x, everything)
		if again := deleted(t, f); !slices.Equal(again, first) {
			t.Errorf("versions %d, the first time %d", again, first)
		}
		if keys := d.keysOf(); len(keys) != 80 {
			t.Errorf("%d keys are left after a retry", len(keys))
		}
		f, _ = d.callWith(protocol.OpDeleteRange, x, (&protocol.DeleteRange{Start: []byte("a")}).AppendTo(nil))
		want(t, f, protocol.StatusOK)
		for _, r := range decode[protocol.BatchReply](t, f).Results {
			want(t, protocol.Frame{Header: protocol.Header{Code: uint8(r.Status)}}, protocol.StatusBadRequest)
		}
	})
}

// A PUT beside a DELETE_RANGE is before it or after it, as their versions say.
func TestDeleteRangeBesidePuts(t *testing.T) {
	s, addr := live(t, Config{})
	const writers, keys, rounds = 3, 20, 8
	var puts sync.WaitGroup
	versions := make([][keys]uint64, writers) // of each key's last PUT
	for w := range writers {
		d := dial(t, addr)
		puts.Go(func() {
			for i := range keys * rounds {
				f := d.put(fmt.Sprintf("w%d/%d", w, i%keys), "v")
				versions[w][i%keys] = decode[protocol.WriteReply](t, f).Version
			}
		})
	}
	d := dial(t, addr)
	var last []uint64
	for range rounds {
		last = deleted(t, d.ask(protocol.OpDeleteRange, &protocol.DeleteRange{Flags: protocol.DeleteRangePrefix, Start: []byte("w")}, protocol.StatusOK))
	}
	puts.Wait()
	for w := range writers {
		for k, version := range versions[w] {
			key := fmt.Appendf(nil, "w%d/%d", w, k)
			there := protocol.Status(d.call(protocol.OpGet, key).Code) == protocol.StatusOK
			if after := version > last[s.shardOf(key)]; there != after {
				t.Errorf("%s: PUT as version %d, deleted as version %d; there: %v", key, version, last[s.shardOf(key)], there)
			}
		}
	}
}

// The parts of a DELETE_RANGE go to the leaders of their shards, and each says for
// itself what became of it.
func TestDeleteRangeOverNodes(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		fc := newFakeCluster(t, cfg, 3, 6, 1)
		fill := func() {
			for shard := range 6 {
				fc.set(fc.key(shard, 0), "v")
			}
		}
		everything := (&protocol.DeleteRange{Flags: protocol.DeleteRangeAll}).AppendTo(nil)
		for id, n := range fc.nodes {
			fill()
			d := n.client()
			f, x := d.callWith(protocol.OpDeleteRange, protocol.Extensions{Session: id, Sequence: 1}, everything)
			if n := len(deleted(t, f)); n != 6 || x.Epoch != 7 {
				t.Errorf("node %d: results of %d shards, %+v", id, n, x)
			}
			if keys := d.keysOf(); len(keys) != 0 {
				t.Errorf("node %d: left are %q", id, keys)
			}
			fill()
			f, x = d.callWith(protocol.OpDeleteRange, protocol.Extensions{HasShard: true, Shard: 4}, everything)
			deleted(t, f)
			if keys := d.keysOf(); len(keys) != 5 {
				t.Errorf("node %d: left are %q", id, keys)
			}
			if (x.Leader == 2) != (id != 2) {
				t.Errorf("node %d: the shard is led by node 2, the reply has %+v", id, x)
			}
		}
		fill()
		fc.with(func() { fc.leader[3] = 0 })
		d := fc.nodes[1].client()
		f := d.call(protocol.OpDeleteRange, everything)
		want(t, f, protocol.StatusOK)
		for shard, r := range decode[protocol.BatchReply](t, f).Results {
			if (r.Status == protocol.StatusNotLeader) != (shard == 3) || shard != 3 && r.Status != protocol.StatusOK {
				t.Errorf("shard %d: %v", shard, r.Status)
			}
		}
	})
}

// FLUSHALL concerns what SCAN does: the keys of all shards, or with resp.redirect
// those of the shards that the node leads.
func TestRedisFlush(t *testing.T) {
	for _, redirect := range []bool{false, true} {
		fill := func(fc *fakeCluster) {
			for shard := range 6 {
				fc.set(fc.key(shard, 0), "v")
			}
		}
		fc := newFakeCluster(t, Config{}, 3, 6, 1, redirect)
		fill(fc)
		native := fc.nodes[2].client()
		c := dialRedis(t, fc.nodes[1].redisAddr)
		c.want("FLUSHALL ASYNC", "+OK|")
		c.want("DBSIZE", ":0|")
		left := 0
		if redirect {
			left = 4
		}
		if n := len(native.keysOf()); n != left {
			t.Errorf("redirect %v: %d keys are left, want %d", redirect, n, left)
		}
		c.want("MULTI", "+OK|")
		c.want("FLUSHDB", "-ERR flushdb is not available inside MULTI|")
		c.want("DISCARD", "+OK|")

		// Once a part of it may have been done, nobody is told that it was not.
		for timeout := 100 * time.Millisecond; ; timeout *= 2 { // in which a busy machine may do nothing
			fc := newFakeCluster(t, Config{RequestTimeout: timeout}, 3, 6, 1, redirect)
			fill(fc)
			fc.with(func() {
				fc.leader[3] = 0 // once led by node 1
				fc.nodes[1].unsure = redirect
			})
			got := dialRedis(t, fc.nodes[1].redisAddr).do("FLUSHDB")
			if strings.HasPrefix(got, "-UNKNOWN the outcome of the write is unknown: ") {
				break
			}
			if timeout > 10*time.Second {
				t.Fatalf("redirect %v: %q", redirect, got)
			}
		}
	}
	fc := newFakeCluster(t, Config{RequestTimeout: 100 * time.Millisecond}, 2, 1, 1)
	fc.with(func() { fc.leader[0] = 0 })
	if got := dialRedis(t, fc.nodes[1].redisAddr).do("FLUSHALL"); !strings.HasPrefix(got, "-CLUSTERDOWN ") {
		t.Errorf("without a leader: %q", got)
	}
}

// FLUSHALL waits for a shard that has no leader for a moment.
func TestFlushWaitsForALeader(t *testing.T) {
	fc := newFakeCluster(t, Config{}, 3, 6, 1)
	rows := func(shard int) (n int) {
		fc.with(func() { n = len(fc.state[shard].rows) })
		return n
	}
	fc.set(fc.key(0, 0), "v")
	fc.set(fc.key(3, 0), "v")
	fc.with(func() { fc.leader[3] = 0 })
	c := dialRedis(t, fc.nodes[2].redisAddr)
	begun := time.Now()
	if err := c.Send("FLUSHALL"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the others are done", func() bool { return rows(0) == 0 })
	fc.set(fc.key(0, 0), "after")
	fc.with(func() { fc.leader[3] = 1 })
	if got := c.next(); got != "+OK\r\n" && time.Since(begun) < LeaderWait {
		t.Errorf("%q", got)
	} else if got == "+OK\r\n" && (rows(3) != 0 || rows(0) != 1) {
		t.Errorf("%d rows are left where there was no leader, %d where one was written meanwhile", rows(3), rows(0))
	}
}
