package storage

import (
	"bytes"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/proa-kv/proa/command"
)

func extend(key, value string) command.Command {
	return command.Command{Kind: command.Append, Key: []byte(key), Value: []byte(value)}
}

func setRange(key string, offset uint32, value string) command.Command {
	return command.Command{Kind: command.SetRange, Key: []byte(key), Offset: offset, Value: []byte(value)}
}

func incrFloat(key, increment string) command.Command {
	return command.Command{Kind: command.IncrFloat, Key: []byte(key), Value: []byte(increment)}
}

func setExpiry(key string, flags command.Flags, millis uint64) command.Command {
	return command.Command{Kind: command.SetExpiry, Key: []byte(key), Flags: flags, TTLMillis: millis}
}

func expiry(key string) command.Command {
	return command.Command{Kind: command.Expiry, Key: []byte(key)}
}

func rename(from, to string, flags command.Flags) command.Command {
	return command.Command{Kind: command.Rename, Key: []byte(from), Value: []byte(to), Flags: flags}
}

// Short forms of flags.
const (
	at        = command.ExpiryAt
	removed   = command.ExpiryRemove
	ifNone    = command.ExpiryIfNone
	ifSome    = command.ExpiryIfSome
	ifLater   = command.ExpiryIfLater
	ifEarlier = command.ExpiryIfEarlier
	returnRow = command.ExpiryReturnRow
	keep      = command.RenameKeepSource
	ifAbsent  = command.RenameIfAbsent
)

func TestExtending(t *testing.T) {
	v := func(value string, version, ttl uint64) read { return read{value, version, ttl, true} }
	text := func(version, ttl uint64, value string) command.Result {
		return withRow(ok(version), version, ttl, value)
	}
	runSteps(t, map[string][]step{
		"append": {
			{100, cmds{extend("k", "ab")}, results{number(1, 2)}, v("ab", 1, 0)},
			{100, cmds{extend("k", ""), extend("k", "c")}, results{number(2, 2), number(3, 3)}, v("abc", 3, 0)},
			{100, cmds{expire("k", 50), extend("k", "d")}, results{ok(4), number(5, 4)}, v("abcd", 5, 50)},
			{150, cmds{extend("k", "e")}, results{number(6, 1)}, v("e", 6, 0)}, // it had expired
			{150, cmds{del("k"), extend("k", "")}, results{ok(7), number(8, 0)}, v("", 8, 0)},
		},
		"append leaves what was delivered before as it was": {
			{1, cmds{put("k", "a"), extend("k", "b"), extend("k", "c"), batchOf(getOp("k"), extend("k", "d"), getOp("k"), extend("k", "e"), getOp("k"))},
				results{ok(1), number(2, 2), number(3, 3),
					{Results: results{text(3, 0, "abc"), number(4, 4), text(4, 0, "abcd"), number(5, 5), text(5, 0, "abcde")}}},
				v("abcde", 5, 0)},
			{1, cmds{extend("k", "x"), rename("k", "j", keep), extend("j", "J"), extend("k", "K"), extend("j", "jj"), batchOf(getOp("j"), getOp("k"))},
				results{number(6, 6), ok(7), number(8, 7), number(9, 7), number(10, 9), {Results: results{text(10, 0, "abcdexJjj"), text(9, 0, "abcdexK")}}},
				v("abcdexK", 9, 0)},
		},
		"setrange": {
			{100, cmds{setRange("k", 5, "")}, results{number(0, 0)}, read{}},
			{100, cmds{setRange("k", 2, "ab")}, results{number(1, 4)}, v("\x00\x00ab", 1, 0)},
			{100, cmds{setRange("k", 0, "xyz")}, results{number(2, 4)}, v("xyzb", 2, 0)},
			{100, cmds{setRange("k", 9, "")}, results{number(2, 4)}, v("xyzb", 2, 0)},
			{100, cmds{expire("k", 50), setRange("k", 6, "!")}, results{ok(3), number(4, 7)}, v("xyzb\x00\x00!", 4, 50)},
			{150, cmds{setRange("k", 9, "")}, results{number(0, 0)}, read{}}, // it has expired
			{150, cmds{setRange("k", 1, "a")}, results{number(5, 2)}, v("\x00a", 5, 0)},
		},
		"setrange leaves what was delivered before as it was": {
			{1, cmds{put("k", "abc"), batchOf(getOp("k"), setRange("k", 1, "X"), getOp("k"), setRange("k", 0, "Y"), getOp("k"))},
				results{ok(1), {Results: results{text(1, 0, "abc"), number(2, 3), text(2, 0, "aXc"), number(3, 3), text(3, 0, "YXc")}}}, v("YXc", 3, 0)},
		},
		"values at the limit and over it": {
			{1, cmds{setRange("k", command.ValueBytesMax-1, "a"), extend("k", "b"), setRange("k", command.ValueBytesMax, "b"), setRange("k", math.MaxUint32, "b"), put("k", "")},
				results{number(1, command.ValueBytesMax), status(command.TooLarge, 1), status(command.TooLarge, 1), status(command.TooLarge, 1), ok(2)}, v("", 2, 0)},
			{1, cmds{setRange("k", math.MaxUint32, "")}, results{number(2, 0)}, v("", 2, 0)},
		},
		"incrfloat": {
			{100, cmds{incrFloat("k", "10.5")}, results{text(1, 0, "10.5")}, v("10.5", 1, 0)},
			{100, cmds{expire("k", 50), incrFloat("k", "0.1")}, results{ok(2), text(3, 50, "10.6")}, v("10.6", 3, 50)},
			{100, cmds{incrFloat("k", ""), incrFloat("k", "x"), incrFloat("k", "inf")},
				results{status(command.NotFloat, 3), status(command.NotFloat, 3), status(command.Overflow, 3)}, v("10.6", 3, 50)},
			{150, cmds{incrFloat("k", "3e2")}, results{text(4, 0, "300")}, v("300", 4, 0)}, // it had expired
			{150, cmds{incr("k", 1), incrFloat("k", "-1"), put("k", "x"), incrFloat("k", "1")},
				results{number(5, 301), text(6, 0, "300"), ok(7), status(command.NotFloat, 7)}, v("x", 7, 0)},
			{150, cmds{put("k", strings.Repeat("1", 6000)), incrFloat("k", "1"), put("k", "")}, results{ok(8), status(command.NotFloat, 8), ok(9)}, v("", 9, 0)},
		},
		"setexpiry": {
			{100, cmds{setExpiry("k", 0, 5), expiry("k")}, results{status(notFound, 0), status(notFound, 0)}, read{}},
			{100, cmds{put("k", "a"), expiry("k")}, results{ok(1), number(1, 0)}, v("a", 1, 0)},
			{100, cmds{setExpiry("k", 0, 50), expiry("k")}, results{ok(2), number(2, 150)}, v("a", 2, 50)},
			{110, cmds{setExpiry("k", at, 200), expiry("k")}, results{ok(3), number(3, 200)}, v("a", 3, 90)},
			{110, cmds{setExpiry("k", at|returnRow, 210)}, results{withRow(ok(4), 3, 90, "a")}, v("a", 4, 100)},
			{110, cmds{setExpiry("k", removed, 0), setExpiry("k", removed|returnRow, 0)}, results{ok(5), withRow(ok(5), 5, 0, "a")}, v("a", 5, 0)},
			{110, cmds{setExpiry("k", at, math.MaxUint64), expiry("k")}, results{ok(6), number(6, math.MaxInt64)}, v("a", 6, math.MaxInt64-110)},
			{110, cmds{setExpiry("k", 0, math.MaxUint64)}, results{ok(7)}, v("a", 7, math.MaxInt64-110)},
			{110, cmds{setExpiry("k", at|returnRow, 110), expiry("k"), setExpiry("k", 0, 5)},
				results{withRow(ok(8), 7, math.MaxInt64-110, "a"), status(notFound, 0), status(notFound, 0)}, read{}},
			{110, cmds{put("k", "a"), setExpiry("k", at, 0)}, results{ok(9), ok(10)}, read{}},
			{110, cmds{put("k", "a"), setExpiry("k", at, 111)}, results{ok(11), ok(12)}, v("a", 12, 1)},
		},
		"setexpiry with conditions, of a row that does not expire": {
			{100, cmds{put("k", "a")}, results{ok(1)}, v("a", 1, 0)},
			{100, cmds{setExpiry("k", ifSome, 50), setExpiry("k", ifLater, 50), setExpiry("k", ifSome|ifEarlier, 50), setExpiry("k", removed|ifLater, 0),
				setExpiry("k", removed|ifEarlier, 0), setExpiry("k", at|ifLater|returnRow, 1)},
				results{status(failed, 1), status(failed, 1), status(failed, 1), status(failed, 1), status(failed, 1), withRow(status(failed, 1), 1, 0, "a")}, v("a", 1, 0)},
			{100, cmds{setExpiry("k", removed|ifNone, 0), setExpiry("k", ifEarlier, 50)}, results{ok(1), ok(2)}, v("a", 2, 50)},
			{100, cmds{setExpiry("k", removed|ifSome, 0), setExpiry("k", ifNone, 60)}, results{ok(3), ok(4)}, v("a", 4, 60)},
			{100, cmds{put("k", "b"), setExpiry("k", at|ifEarlier, 1)}, results{ok(5), ok(6)}, read{}},
		},
		"setexpiry with conditions, of a row that does": {
			{100, cmds{putTTL("k", "a", 50)}, results{ok(1)}, v("a", 1, 50)},
			{100, cmds{setExpiry("k", ifNone, 60), setExpiry("k", ifLater, 50), setExpiry("k", ifEarlier, 50), setExpiry("k", at|ifEarlier, 151),
				setExpiry("k", at|ifLater, 1), setExpiry("k", removed|ifEarlier, 0)},
				results{status(failed, 1), status(failed, 1), status(failed, 1), status(failed, 1), status(failed, 1), status(failed, 1)}, v("a", 1, 50)},
			{100, cmds{setExpiry("k", ifLater|ifSome, 51)}, results{ok(2)}, v("a", 2, 51)},
			{100, cmds{setExpiry("k", ifEarlier|ifSome, 50)}, results{ok(3)}, v("a", 3, 50)},
			{100, cmds{setExpiry("k", ifSome|at, 160)}, results{ok(4)}, v("a", 4, 60)},
			{100, cmds{setExpiry("k", removed|ifLater, 0)}, results{ok(5)}, v("a", 5, 0)},
		},
		"put with a time of expiry": {
			{100, cmds{putIf("k", "a", command.SetExpireAt, 0, 150)}, results{ok(1)}, v("a", 1, 50)},
			{100, cmds{putIf("k", "b", command.SetExpireAt|previous, 0, 101)}, results{withRow(ok(2), 1, 50, "a")}, v("b", 2, 1)},
			{100, cmds{putIf("k", "c", command.SetExpireAt|previous, 0, 100)}, results{withRow(ok(3), 2, 1, "b")}, read{}},
			{100, cmds{putIf("k", "c", command.SetExpireAt, 0, 100)}, results{ok(4)}, read{}},
			{100, cmds{putIf("k", "c", command.SetExpireAt|command.IfPresent, 0, 0)}, results{status(failed, 0)}, read{}},
			{100, cmds{putTTL("k", "d", 9), putIf("k", "c", command.SetExpireAt, 0, 0), putIf("k", "e", command.IfAbsent, 0, 0)}, results{ok(5), ok(6), ok(7)}, v("e", 7, 0)},
			{100, cmds{putIf("k", "f", command.SetExpireAt, 0, math.MaxUint64)}, results{ok(8)}, v("f", 8, math.MaxInt64-100)},
		},
		"rename": {
			{100, cmds{rename("k", "j", 0), rename("k", "k", 0)}, results{status(notFound, 0), status(notFound, 0)}, read{}},
			{100, cmds{putTTL("j", "a", 50), rename("j", "k", 0), exists("j")}, results{ok(1), ok(2), status(notFound, 0)}, v("a", 2, 50)},
			{100, cmds{put("j", "b"), rename("j", "k", ifAbsent), getOp("j")}, results{ok(3), status(failed, 2), text(3, 0, "b")}, v("a", 2, 50)},
			{100, cmds{rename("j", "k", 0), exists("j")}, results{ok(4), status(notFound, 0)}, v("b", 4, 0)},
			{100, cmds{rename("k", "k", 0), rename("k", "k", keep), rename("k", "k", ifAbsent)}, results{ok(4), ok(4), status(failed, 4)}, v("b", 4, 0)},
			{100, cmds{rename("k", "j", keep|ifAbsent), getOp("j")}, results{ok(5), text(5, 0, "b")}, v("b", 4, 0)},
			{100, cmds{expire("k", 50), rename("k", "j", keep), expiry("j")}, results{ok(6), ok(7), number(7, 150)}, v("b", 6, 50)},
			{150, cmds{rename("j", "k", 0), put("i", "c"), rename("i", "k", ifAbsent)}, results{status(notFound, 0), ok(8), ok(9)}, v("c", 9, 0)}, // both had expired
		},
	})
}

// Rows of the new commands are swept when their time has come, and the expiry
// index has nothing else.
func TestExtendingKeepsTheExpiryIndex(t *testing.T) {
	s := openTest(t)
	do(t, s, 100,
		putIf("a", "1", command.SetExpireAt, 0, 110),
		putTTL("b", "1", 10), rename("b", "b2", 0),
		putTTL("c", "1", 10), setExpiry("c", at, 120), rename("c", "c2", keep),
		putTTL("d", "1", 10), setExpiry("d", removed, 0),
		putTTL("e", "1", 10), setExpiry("e", at, 1),
		putTTL("f", "1", 10), extend("f", "2"), setRange("f", 0, "3"), incrFloat("f", "1"),
		put("g", "1"), putTTL("g2", "1", 10), rename("g", "g2", 0),
		put("h", "1"), putIf("h", "2", command.SetExpireAt, 0, 100),
		put("i", "1"), setExpiry("i", at, 100))
	diff(t, "at their time", do(t, s, 110, sweep(3)), results{{Integer: 3}}) // a, b2, f
	diff(t, "later", do(t, s, 120, sweep(2)), results{{Integer: 2}})         // c, c2
	if at, due := s.NextExpiry(0); due {
		t.Errorf("another sweep is due at %d", at)
	}
	var left []string
	for _, r := range scan(t, s, ScanOptions{Shards: []int{0}, NowMillis: 200}) {
		left = append(left, r.Key)
	}
	diff(t, "what is left", left, []string{"d", "g2"})
}

// No entry makes much more than it brings: what comes too late in it is
// refused, in the same way however the entries are cut into passes, and a retry
// is carried out.
func TestGrowthOfAnEntryIsBounded(t *testing.T) {
	skipRace(t)
	const size = 8 << 20
	value := strings.Repeat("v", size)
	copies := slices.Repeat(cmds{rename("k", "j", keep)}, 20)
	entries := []Entry{
		{Index: 1, Data: entryOf(1, put("k", value))},
		{Index: 2, Data: entryOf(1, copies...)},
		{Index: 3, Data: entryOf(1, batchOf(copies...), in(7, 1, 0, extend("k", "1")), in(7, 2, 0, expire("k", 5)))},
		{Index: 4, Data: entryOf(1, in(7, 1, 0, extend("k", "2")))},
	}
	carriedOut := func(rs results) (n int) {
		for i, r := range rs {
			switch {
			case r.Status == command.OK && n == i:
				n++
			case r.Status != command.Busy || r.Version != 0:
				t.Fatalf("copy %d: %+v after %d", i, r, n)
			}
		}
		return n
	}
	var sums [2][]uint64
	for pass, together := range []bool{true, false} {
		s := openTest(t)
		var d delivered
		if together {
			if err := s.Apply(entries, &d); err != nil {
				t.Fatal(err)
			}
		} else {
			for _, e := range entries {
				if err := s.Apply([]Entry{e}, &d); err != nil {
					t.Fatal(err)
				}
			}
		}
		r := plain(d.results)
		for name, n := range map[string]int{"in an entry": carriedOut(r[1:21]), "in a batch": carriedOut(r[21].Results)} {
			if made := (n + 1) * size; made > growthBytesMax || made+size <= growthBytesMax-command.ValueBytesMax {
				t.Errorf("%d copies of %d bytes %s", n, size, name)
			}
		}
		diff(t, "after the bound", r[22].Status, command.Busy)
		diff(t, "what does not count", r[23].Status, command.OK)
		diff(t, "the retry", r[24].Integer, int64(size+1))
		sums[pass] = checksums(t, s)
	}
	diff(t, "checksums", sums[0], sums[1])
}

// Entries that make much are carried out in several passes; to the outside it
// looks as if it were one.
func TestEntriesAreCutIntoPasses(t *testing.T) {
	skipRace(t)
	s := openTest(t)
	const size = 15 << 20
	value := strings.Repeat("v", size)
	conf := []byte("conf")
	entries := []Entry{{Index: 1, Data: entryOf(1, put("k", value))}, {Shard: 1, Index: 5, Data: entryOf(1, put("k", value))}}
	for i := range uint64(6) {
		entries = append(entries, Entry{Shard: int(i % 2), Index: 10 + i, Data: entryOf(10+i, rename("k", "j", keep), rename("k", "j", keep))})
	}
	entries = append(entries, Entry{Index: 30, Conf: conf, Term: 4}, Entry{Shard: 1, Index: 40, Data: entryOf(50, expiry("j"))})
	var d delivered
	before := s.writeBatch.number
	if err := s.Apply(entries, &d); err != nil {
		t.Fatal(err)
	}
	if n := s.writeBatch.number - before; n < 3 {
		t.Errorf("%d passes", n)
	}
	diff(t, "order", strings.Join(d.order, " "), "0.0 1.0 2.0 2.1 3.0 3.1 4.0 4.1 5.0 5.1 6.0 6.1 7.0 7.1 9.0")
	for i, r := range d.results {
		if r.Status != command.OK {
			t.Errorf("result %d: %+v", i, r)
		}
	}
	diff(t, "applied", []uint64{s.Applied(0), s.Applied(1), s.LastStamp(0), s.LastStamp(1)}, []uint64{30, 40, 14, 50})
	if m := s.shards[0].installed.Load(); m == nil || !bytes.Equal(m.Conf, conf) || m.Index != 30 {
		t.Errorf("configuration %+v", m)
	}
	if err := s.Apply([]Entry{{Index: 31, Data: entries[2].Data}, {Index: 31}}, &d); err == nil {
		t.Error("a stale index is not noticed")
	}
	diff(t, "nothing was done", s.Applied(0), uint64(30))
}

// Many small additions to a large value within an entry do not each count, nor
// cost, as much as the value.
func TestManyAppendsToALargeValue(t *testing.T) {
	s := openTest(t)
	const size, n = 4 << 20, 1000
	do(t, s, 1, put("k", strings.Repeat("v", size)))
	all := make(cmds, n)
	for i := range all {
		all[i] = extend("k", "x")
	}
	for i, r := range do(t, s, 1, all...) {
		if r.Status != command.OK || r.Integer != int64(size+i+1) {
			t.Fatalf("%d: %+v", i, r)
		}
	}
	if got := get(t, s, 0, "k", 1); got.Value != strings.Repeat("v", size)+strings.Repeat("x", n) {
		t.Errorf("value of %d bytes", len(got.Value))
	}
}

// Both rows of a rename leave the cache while they change, as those of a write batch
// do, and a single change after it does not.
func TestRenameIsOneChange(t *testing.T) {
	s := openTest(t)
	do(t, s, 1, put("a", "v"), rename("a", "b", 0), put("c", "v"))
	joint := map[string]bool{}
	for _, r := range s.writeBatch.rows.rows {
		joint[string(r.key)] = r.joint
	}
	diff(t, "rows of a rename", joint, map[string]bool{"a": true, "b": true, "c": false})
}

// Replicas of earlier versions do not count what a Get reads, so it counts only
// where the command says so.
func TestGetsCountWhereTheyAreTo(t *testing.T) {
	skipRace(t)
	const size = 8 << 20
	get := command.Command{Kind: command.Get, Key: []byte("k")}
	counted := get
	counted.Flags = command.Counted
	gets := batchOf(slices.Repeat(cmds{rename("k", "j", keep)}, 8)...)
	gets.Ops = append(gets.Ops, get)
	countedGets := gets
	countedGets.Flags = command.Counted
	for _, tt := range []struct {
		name string
		c    command.Command
		want command.Status
	}{
		{"a get", get, command.OK}, {"one that is counted", counted, command.Busy},
		{"a batch", gets, command.OK}, {"one that is counted", countedGets, command.Busy},
	} {
		s := openTest(t)
		var d delivered
		grown := slices.Repeat(cmds{rename("k", "j", keep)}, 8)
		entries := []Entry{
			{Index: 1, Data: entryOf(1, put("k", strings.Repeat("v", size)))},
			{Index: 2, Data: entryOf(1, append(grown, tt.c)...)},
		}
		if err := s.Apply(entries, &d); err != nil {
			t.Fatal(err)
		}
		r := plain(d.results)
		last := r[len(r)-1]
		if tt.c.Kind == command.Batch {
			last = last.Results[len(last.Results)-1]
		}
		diff(t, tt.name, last.Status, tt.want)
	}
}
