package storage

import (
	"cmp"
	"fmt"
	"slices"
	"testing"

	"github.com/proa-kv/proa/command"
)

// fill spreads rows over shards: key00 to key29 in turn, each third expires.
func fillForScan(t *testing.T, shards int) *Store {
	o := testOptions(nil)
	o.Shards = shards
	s := open(t, o)
	t.Cleanup(func() { closeStore(t, s) })
	var entries []Entry
	for i := range 30 {
		c := put(fmt.Sprintf("key%02d", i), fmt.Sprint("v", i))
		if i%3 == 2 {
			c.Flags, c.TTLMillis = command.SetTTL, 10
		}
		entries = append(entries, Entry{Shard: i % shards, Index: uint64(i + 1), Data: entryOf(100, c)})
	}
	if err := s.Apply(entries[:15], &delivered{}); err != nil {
		t.Fatal(err)
	}
	if err := s.Flush(); err != nil { // half in Pebble, half in the table
		t.Fatal(err)
	}
	if err := s.Apply(entries[15:], &delivered{}); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestScanMergesShardsInKeyOrder(t *testing.T) {
	for _, shards := range []int{1, 2, 3, 7, 16} {
		s := fillForScan(t, shards)
		all := make([]int, shards)
		for i := range all {
			all[i] = shards - 1 - i
		}
		for _, bounds := range [][2]string{{"", ""}, {"key05", "key20"}, {"key05x", ""}, {"", "key05"}, {"key05", "key05"}, {"key20", "key05"}, {"z", ""}, {"", "a"}} {
			for _, now := range []uint64{0, 109, 110} {
				o := ScanOptions{Shards: all, NowMillis: now}
				if bounds[0] != "" {
					o.Start = []byte(bounds[0])
				}
				if bounds[1] != "" {
					o.End = []byte(bounds[1])
				}
				var want []scanned
				for i := range 30 {
					key := fmt.Sprintf("key%02d", i)
					r := read{Value: fmt.Sprint("v", i), Version: uint64(i/shards + 1), Found: true}
					if i%3 == 2 {
						r.TTL = 110 - max(now, 100)
					}
					if key < bounds[0] || bounds[1] != "" && key >= bounds[1] || i%3 == 2 && now >= 110 {
						continue
					}
					want = append(want, scanned{key, r})
				}
				name := fmt.Sprint(shards, " shards, ", bounds, " at ", now)
				diff(t, name, scan(t, s, o), want)
				o.Reverse = true
				slices.SortFunc(want, func(a, b scanned) int { return cmp.Compare(b.Key, a.Key) })
				diff(t, name+", reverse", scan(t, s, o), want)
				o.KeysOnly = true
				for i := range want {
					want[i].Row.Value = ""
				}
				diff(t, name+", keys only", scan(t, s, o), want)
			}
		}
	}
}

func TestScanOfSomeShards(t *testing.T) {
	s := fillForScan(t, 3)
	for _, r := range scan(t, s, ScanOptions{Shards: []int{1}}) {
		var n int
		if _, err := fmt.Sscanf(r.Key, "key%d", &n); err != nil || n%3 != 1 {
			t.Errorf("key %s", r.Key)
		}
	}
	if rows := scan(t, s, ScanOptions{}); len(rows) != 0 {
		t.Errorf("%d rows of no shard", len(rows))
	}
	for _, shard := range []int{-1, 3} {
		if err := s.Scan(ScanOptions{Shards: []int{0, shard}}, nil); err == nil {
			t.Errorf("shard %d is accepted", shard)
		}
	}
}

func TestScanStops(t *testing.T) {
	s := fillForScan(t, 2)
	n := 0
	err := s.Scan(ScanOptions{Shards: []int{0, 1}}, func([]byte, []byte, command.Row) bool { n++; return n < 4 })
	if err != nil || n != 4 {
		t.Errorf("%d visits, error %v", n, err)
	}
}

// A scan shows one moment, whatever is written while it runs, and however
// often the tables that it began with could have been used again.
func TestScanIsASnapshot(t *testing.T) {
	s := fillForScan(t, 1)
	want := scan(t, s, ScanOptions{Shards: []int{0}})
	var got []scanned
	err := s.Scan(ScanOptions{Shards: []int{0}}, func(key, value []byte, row command.Row) bool {
		if len(got) == 3 {
			for range 4 {
				do(t, s, 100, put("key29", "new"), del("key20"), put("key10x", ""), put("key15", "new"))
				scan(t, s, ScanOptions{Shards: []int{0}})
				if err := s.Flush(); err != nil {
					t.Error(err)
				}
			}
		}
		got = append(got, scanned{string(key), read{string(value), row.Version, row.TTLMillis, true}})
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	diff(t, "scan", got, want)
}

func TestKeysOfAllBytes(t *testing.T) {
	s := openTest(t)
	keys := []string{"\x00", "\x00\x00", "\x00\xff", "a", "a\x00", "d", "e", "m", "s", "\xff", "\xff\xff"}
	for i, key := range keys {
		for shard := range 2 {
			e := []Entry{{Shard: shard, Index: uint64(i + 1), Data: entryOf(1, putTTL(key, key, 100))}}
			if err := s.Apply(e, &delivered{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for shard := range 2 {
		var got []string
		for _, r := range scan(t, s, ScanOptions{Shards: []int{shard}}) {
			got = append(got, r.Key)
		}
		diff(t, "keys", got, keys)
		for _, key := range keys {
			diff(t, "value", get(t, s, shard, key, 1).Value, key)
		}
	}
	diff(t, "sweep", do(t, s, 1000, sweep(100)), results{number(0, int64(len(keys)))})
	if rows := scan(t, s, ScanOptions{Shards: []int{1}}); len(rows) != len(keys) {
		t.Errorf("%d rows of the other shard are left", len(rows))
	}
}
