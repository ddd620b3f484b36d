package storage

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/proa-kv/proa/command"
)

// Short forms for commands and results.

type (
	cmds    = []command.Command
	results = []command.Result
)

func put(key, value string) command.Command {
	return command.Command{Kind: command.Put, Key: []byte(key), Value: []byte(value)}
}

func putIf(key, value string, flags command.Flags, version, ttl uint64) command.Command {
	c := put(key, value)
	c.Flags, c.Version, c.TTLMillis = flags, version, ttl
	return c
}

func putTTL(key, value string, ttl uint64) command.Command {
	return putIf(key, value, command.SetTTL, 0, ttl)
}

func del(key string) command.Command {
	return command.Command{Kind: command.Delete, Key: []byte(key)}
}

func delIf(key string, flags command.Flags, version uint64) command.Command {
	return command.Command{Kind: command.Delete, Key: []byte(key), Flags: flags, Version: version}
}

func incr(key string, delta int64) command.Command {
	return command.Command{Kind: command.Incr, Key: []byte(key), Delta: delta}
}

func expire(key string, ttl uint64) command.Command {
	return command.Command{Kind: command.Expire, Key: []byte(key), TTLMillis: ttl}
}

func persist(key string) command.Command {
	return command.Command{Kind: command.Persist, Key: []byte(key)}
}

func getOp(key string) command.Command {
	return command.Command{Kind: command.Get, Key: []byte(key)}
}

func exists(key string) command.Command {
	return command.Command{Kind: command.Exists, Key: []byte(key)}
}

func batchOf(ops ...command.Command) command.Command {
	return command.Command{Kind: command.Batch, Ops: ops}
}

func sweep(limit uint32) command.Command {
	return command.Command{Kind: command.Sweep, Limit: limit}
}

func compare(target command.Target, relation command.Relation, key string, version uint64, value string) command.Compare {
	return command.Compare{Target: target, Relation: relation, Key: []byte(key), Version: version, Value: []byte(value)}
}

func in(session, sequence, acknowledged uint64, c command.Command) command.Command {
	c.Session = command.Session{ID: session, Sequence: sequence, Acknowledged: acknowledged}
	return c
}

func ok(version uint64) command.Result { return command.Result{Version: version} }

func number(version uint64, n int64) command.Result {
	return command.Result{Version: version, Integer: n}
}

func status(s command.Status, version uint64) command.Result {
	return command.Result{Status: s, Version: version}
}

func withRow(r command.Result, version, ttl uint64, value string) command.Result {
	r.HasRow, r.RowVersion, r.RowTTL = true, version, ttl
	if value != "" {
		r.Value = []byte(value)
	}
	return r
}

const (
	notFound = command.NotFound
	failed   = command.ConditionFailed
	previous = command.ReturnPrevious
)

// step is an entry, what it must answer, and what key "k" must be afterwards
// to a reader whose clock shows the stamp.
type step struct {
	stamp uint64
	do    cmds
	want  results
	k     read
}

func TestOperations(t *testing.T) {
	v := func(value string, version, ttl uint64) read { return read{value, version, ttl, true} }
	tests := map[string][]step{
		"put overwrites": {
			{1, cmds{put("k", "a")}, results{ok(1)}, v("a", 1, 0)},
			{1, cmds{put("k", "b"), put("k", "c")}, results{ok(2), ok(3)}, v("c", 3, 0)},
			{1, cmds{put("k", "")}, results{ok(4)}, v("", 4, 0)},
		},
		"put clears the expiry, keep-TTL keeps it": {
			{100, cmds{putTTL("k", "a", 50)}, results{ok(1)}, v("a", 1, 50)},
			{110, cmds{putIf("k", "b", command.KeepTTL, 0, 0)}, results{ok(2)}, v("b", 2, 40)},
			{110, cmds{put("k", "c")}, results{ok(3)}, v("c", 3, 0)},
			{110, cmds{putIf("k", "d", command.KeepTTL, 0, 0)}, results{ok(4)}, v("d", 4, 0)},
		},
		"keep-TTL of an expired row keeps nothing": {
			{100, cmds{putTTL("k", "a", 50)}, results{ok(1)}, v("a", 1, 50)},
			{150, cmds{putIf("k", "b", command.KeepTTL, 0, 0)}, results{ok(2)}, v("b", 2, 0)},
		},
		"a row is gone at the millisecond of its expiry": {
			{100, cmds{putTTL("k", "a", 50)}, results{ok(1)}, v("a", 1, 50)},
			{149, cmds{exists("k")}, results{withRow(ok(1), 1, 1, "")}, v("a", 1, 1)},
			{150, cmds{exists("k"), getOp("k"), del("k"), expire("k", 1), persist("k")},
				results{status(notFound, 0), status(notFound, 0), status(notFound, 0), status(notFound, 0), status(notFound, 0)}, read{}},
		},
		"if absent": {
			{100, cmds{putIf("k", "a", command.IfAbsent, 0, 0)}, results{ok(1)}, v("a", 1, 0)},
			{100, cmds{putIf("k", "b", command.IfAbsent, 0, 0)}, results{status(failed, 1)}, v("a", 1, 0)},
			{100, cmds{putIf("k", "b", command.IfAbsent|previous, 0, 0)}, results{withRow(status(failed, 1), 1, 0, "a")}, v("a", 1, 0)},
			{100, cmds{expire("k", 5)}, results{ok(2)}, v("a", 2, 5)},
			{105, cmds{putIf("k", "c", command.IfAbsent|previous, 0, 0)}, results{ok(3)}, v("c", 3, 0)},
		},
		"if present": {
			{1, cmds{putIf("k", "a", command.IfPresent|previous, 0, 0)}, results{status(failed, 0)}, read{}},
			{1, cmds{put("k", "a")}, results{ok(1)}, v("a", 1, 0)},
			{1, cmds{putIf("k", "b", command.IfPresent|previous, 0, 0)}, results{withRow(ok(2), 1, 0, "a")}, v("b", 2, 0)},
		},
		"if version": {
			{1, cmds{putIf("k", "a", command.IfVersion, 1, 0)}, results{status(failed, 0)}, read{}},
			{1, cmds{putIf("k", "a", command.IfVersion, 0, 0)}, results{ok(1)}, v("a", 1, 0)},
			{1, cmds{putIf("k", "b", command.IfVersion, 0, 0)}, results{status(failed, 1)}, v("a", 1, 0)},
			{1, cmds{putIf("k", "b", command.IfVersion|previous, 2, 0)}, results{withRow(status(failed, 1), 1, 0, "a")}, v("a", 1, 0)},
			{1, cmds{putIf("k", "b", command.IfVersion, 1, 0)}, results{ok(2)}, v("b", 2, 0)},
		},
		"contradicting conditions fail": {
			{1, cmds{putIf("k", "a", command.IfAbsent|command.IfPresent, 0, 0)}, results{status(failed, 0)}, read{}},
			{1, cmds{put("k", "a"), putIf("k", "a", command.IfAbsent|command.IfPresent, 0, 0)}, results{ok(1), status(failed, 1)}, v("a", 1, 0)},
		},
		"delete": {
			{1, cmds{del("k")}, results{status(notFound, 0)}, read{}},
			{1, cmds{put("k", "a")}, results{ok(1)}, v("a", 1, 0)},
			{1, cmds{delIf("k", command.IfVersion, 7)}, results{status(failed, 1)}, v("a", 1, 0)},
			{1, cmds{delIf("k", command.IfVersion|previous, 1)}, results{withRow(ok(2), 1, 0, "a")}, read{}},
			{1, cmds{delIf("k", command.IfVersion, 1)}, results{status(failed, 0)}, read{}},
			{1, cmds{delIf("k", command.IfVersion, 0)}, results{status(notFound, 0)}, read{}},
			{1, cmds{put("k", "b")}, results{ok(3)}, v("b", 3, 0)}, // grows across the deletion
		},
		"incr": {
			{100, cmds{incr("k", 5)}, results{number(1, 5)}, v("5", 1, 0)},
			{100, cmds{incr("k", -7), incr("k", 0)}, results{number(2, -2), number(3, -2)}, v("-2", 3, 0)},
			{100, cmds{expire("k", 50), incr("k", 1)}, results{ok(4), number(5, -1)}, v("-1", 5, 50)},
			{150, cmds{incr("k", 1)}, results{number(6, 1)}, v("1", 6, 0)}, // it had expired
		},
		"incr to the limits and not beyond": {
			{1, cmds{incr("k", math.MaxInt64), incr("k", 1)}, results{number(1, math.MaxInt64), status(command.Overflow, 1)}, v("9223372036854775807", 1, 0)},
			{1, cmds{put("k", "-9223372036854775807"), incr("k", -1), incr("k", -1)},
				results{ok(2), number(3, math.MinInt64), status(command.Overflow, 3)}, v("-9223372036854775808", 3, 0)},
			{1, cmds{incr("k", math.MaxInt64)}, results{number(4, -1)}, v("-1", 4, 0)},
			{1, cmds{put("k", "-1"), incr("k", math.MinInt64)}, results{ok(5), status(command.Overflow, 5)}, v("-1", 5, 0)},
		},
		"expire and persist": {
			{100, cmds{expire("k", 5), persist("k")}, results{status(notFound, 0), status(notFound, 0)}, read{}},
			{100, cmds{put("k", "a"), persist("k")}, results{ok(1), ok(1)}, v("a", 1, 0)},
			{100, cmds{expire("k", 5)}, results{ok(2)}, v("a", 2, 5)},
			{100, cmds{expire("k", 9)}, results{ok(3)}, v("a", 3, 9)},
			{100, cmds{persist("k")}, results{ok(4)}, v("a", 4, 0)},
			{100, cmds{expire("k", math.MaxUint64)}, results{ok(5)}, v("a", 5, math.MaxInt64-100)},
			{100, cmds{expire("k", 0)}, results{ok(6)}, v("a", 6, 1)},
		},
		"time of a shard does not go back": {
			{100, cmds{putTTL("k", "a", 10)}, results{ok(1)}, v("a", 1, 10)},
			{110, cmds{exists("k")}, results{status(notFound, 0)}, read{}},
			{105, cmds{exists("k"), put("j", "")}, results{status(notFound, 0), ok(2)}, read{}},
			{105, cmds{putTTL("k", "b", 10)}, results{ok(3)}, v("b", 3, 10)},
		},
		"batch": {
			{1, cmds{batchOf(put("k", "1"), putIf("k", "x", command.IfAbsent, 0, 0), incr("k", 1), del("j"), getOp("k"), put("k", "z"), incr("k", 1))},
				results{{Results: results{ok(1), status(failed, 1), number(2, 2), status(notFound, 0), withRow(ok(2), 2, 0, "2"), ok(3), status(command.NotInteger, 3)}}},
				v("z", 3, 0)},
			{1, cmds{batchOf()}, results{{}}, v("z", 3, 0)},
		},
		"transaction": {
			{1, cmds{put("k", "m")}, results{ok(1)}, v("m", 1, 0)},
			{1, cmds{{Kind: command.Txn,
				Compares: []command.Compare{compare(command.OnVersion, command.Equal, "k", 1, ""), compare(command.OnValue, command.Greater, "k", 0, "l")},
				Ops:      cmds{put("k", "then"), getOp("k")}, Else: cmds{put("k", "else")}}},
				results{{Succeeded: true, Results: results{ok(2), withRow(ok(2), 2, 0, "then")}}}, v("then", 2, 0)},
			{1, cmds{{Kind: command.Txn,
				Compares: []command.Compare{compare(command.OnVersion, command.Equal, "k", 2, ""), compare(command.OnVersion, command.Greater, "j", 0, "")},
				Ops:      cmds{put("k", "then")}, Else: cmds{exists("j"), exists("k")}}},
				results{{Results: results{status(notFound, 0), withRow(ok(2), 2, 0, "")}}}, v("then", 2, 0)},
			{1, cmds{{Kind: command.Txn, Ops: cmds{del("k")}}}, results{{Succeeded: true, Results: results{ok(3)}}}, read{}},
		},
	}
	runSteps(t, tests)
}

// runSteps runs each list of steps on stores of its own.
func runSteps(t *testing.T, tests map[string][]step) {
	t.Helper()
	for name, steps := range tests {
		t.Run(name, func(t *testing.T) {
			// The same must come out whether a row is found in a row set, in
			// the cache or in Pebble.
			cached, uncached := openTest(t), open(t, withoutRowCache())
			defer closeStore(t, uncached)
			var entries []Entry
			var want results
			for i, st := range steps {
				diff(t, "results", do(t, cached, st.stamp, st.do...), st.want)
				diff(t, "row", get(t, cached, 0, "k", st.stamp), st.k)
				diff(t, "results without cache", do(t, uncached, st.stamp, st.do...), st.want)
				diff(t, "row without cache", get(t, uncached, 0, "k", st.stamp), st.k)
				entries = append(entries, Entry{Index: uint64(i + 1), Data: entryOf(st.stamp, st.do...)})
				want = append(want, st.want...)
			}
			onePass := openTest(t)
			var d delivered
			if err := onePass.Apply(entries, &d); err != nil {
				t.Fatal(err)
			}
			diff(t, "results in one pass", plain(d.results), want)
			diff(t, "checksums", checksums(t, onePass), checksums(t, cached))
			diff(t, "checksums without cache", checksums(t, uncached), checksums(t, cached))
		})
	}
}

func withoutRowCache() Options {
	o := testOptions(nil)
	o.RowCacheBytes = -1
	return o
}

func TestIncrReadsOnlyWhatItWrites(t *testing.T) {
	for _, value := range []string{
		"", "-", "+1", " 1", "1 ", "01", "-0", "-01", "00", "1.0", "0x1", "1e3", "a", "1_0", "١",
		"9223372036854775808", "-9223372036854775809", "99999999999999999999", "18446744073709551617", "100000000000000000000",
	} {
		s := openTest(t)
		got := do(t, s, 1, put("k", value), incr("k", 1))
		diff(t, value, got, results{ok(1), status(command.NotInteger, 1)})
	}
	for value, want := range map[string]int64{"0": 0, "-1": -1, "10": 10, "9223372036854775807": math.MaxInt64, "-9223372036854775808": math.MinInt64} {
		s := openTest(t)
		got := do(t, s, 1, put("k", value), incr("k", 0))
		diff(t, value, got, results{ok(1), number(2, want)})
	}
}

func TestCompareRelations(t *testing.T) {
	relations := []command.Relation{command.Equal, command.NotEqual, command.Less, command.Greater}
	tests := []struct {
		name    string
		compare command.Compare
		holds   string // one digit for each relation
	}{
		{"version, lower", compare(command.OnVersion, 0, "k", 3, ""), "0110"},
		{"version, same", compare(command.OnVersion, 0, "k", 2, ""), "1000"},
		{"version, higher", compare(command.OnVersion, 0, "k", 1, ""), "0101"},
		{"version of an absent row is 0", compare(command.OnVersion, 0, "j", 0, ""), "1000"},
		{"value, lower", compare(command.OnValue, 0, "k", 0, "mm"), "0110"},
		{"value, same", compare(command.OnValue, 0, "k", 0, "m"), "1000"},
		{"value, higher", compare(command.OnValue, 0, "k", 0, "l\xff"), "0101"},
		{"value of an absent row fails them all", compare(command.OnValue, 0, "j", 0, ""), "0000"},
		{"value of an expired row, too", compare(command.OnValue, 0, "old", 0, "x"), "0000"},
		{"version of an expired row is 0", compare(command.OnVersion, 0, "old", 0, ""), "1000"},
	}
	s := openTest(t)
	do(t, s, 1, putTTL("old", "x", 5), put("k", "m"))
	for _, tt := range tests {
		for i, relation := range relations {
			x := tt.compare
			x.Relation = relation
			r := do(t, s, 10, command.Command{Kind: command.Txn, Compares: []command.Compare{x}})
			if want := tt.holds[i] == '1'; r[0].Succeeded != want {
				t.Errorf("%s: relation %d holds: %v", tt.name, relation, !want)
			}
		}
	}
}

func TestVersionsAreOfTheShard(t *testing.T) {
	s := openTest(t)
	var d delivered
	err := s.Apply([]Entry{
		{Shard: 0, Index: 3, Data: entryOf(5, put("k", "a"))},
		{Shard: 1, Index: 9, Data: entryOf(7, put("k", "b"), put("j", "c"))},
		{Shard: 0, Index: 4},
		{Shard: 0, Index: 8, Data: entryOf(6, put("k", "d"))},
	}, &d)
	if err != nil {
		t.Fatal(err)
	}
	diff(t, "results", plain(d.results), results{ok(1), ok(1), ok(2), ok(2)})
	diff(t, "order", strings.Join(d.order, " "), "0.0 1.0 1.1 3.0")
	diff(t, "applied", []uint64{s.Applied(0), s.Applied(1), s.LastStamp(0), s.LastStamp(1)}, []uint64{8, 9, 6, 7})
	diff(t, "shard 0", get(t, s, 0, "k", 1), read{"d", 2, 0, true})
	diff(t, "shard 1", get(t, s, 1, "k", 1), read{"b", 1, 0, true})
}

func TestApplyRefusesStaleIndex(t *testing.T) {
	s := openTest(t)
	do(t, s, 1, put("k", "a"))
	data := entryOf(1, put("k", "b"))
	for name, entries := range map[string][]Entry{
		"applied":          {{Index: 2, Data: data}, {Index: 1, Data: data}},
		"same again":       {{Index: 1, Data: data}},
		"twice in a pass":  {{Index: 2, Data: data}, {Index: 2, Data: data}},
		"unknown shard":    {{Shard: 2, Index: 5, Data: data}},
		"negative shard":   {{Shard: -1, Index: 5, Data: data}},
		"empty, too":       {{Index: 1}},
		"index 0 is below": {{Shard: 1, Index: 0}},
	} {
		var d delivered
		if err := s.Apply(entries, &d); err == nil || len(d.results) > 0 {
			t.Errorf("%s: error %v, %d results", name, err, len(d.results))
		}
	}
	if err := s.Apply([]Entry{{Index: 1}}, &delivered{}); !errors.Is(err, ErrStaleIndex) {
		t.Errorf("error %v", err)
	}
	diff(t, "row", get(t, s, 0, "k", 1), read{"a", 1, 0, true})
	diff(t, "next", do(t, s, 1, put("k", "b")), results{ok(2)})
}

func TestApplyOfNothing(t *testing.T) {
	s := openTest(t)
	if err := s.Apply(nil, &delivered{}); err != nil {
		t.Fatal(err)
	}
	if err := s.Apply([]Entry{{Index: 5}, {Shard: 1, Index: 2, Data: entryOf(9)}}, &delivered{}); err != nil {
		t.Fatal(err)
	}
	diff(t, "applied", []uint64{s.Applied(0), s.Applied(1), s.LastStamp(0), s.LastStamp(1)}, []uint64{5, 2, 0, 9})
}

func TestUndecodableEntryIsFatalAndAppliesNothing(t *testing.T) {
	good := entryOf(1, put("k", "b"))
	for name, bad := range map[string][]byte{
		"cut off":       good[:len(good)-1],
		"trailing":      append(entryOf(1, put("k", "b")), 0),
		"other format":  append([]byte{9}, good[1:]...),
		"second broken": append(entryOf(1, put("j", "x")), 1, 2),
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, testOptions(nil))
			do(t, s, 1, put("k", "a"))
			before := checksums(t, s)
			var d delivered
			err := s.Apply([]Entry{{Index: 2, Data: good}, {Index: 3, Data: bad}}, &d)
			if !errors.Is(err, command.ErrMalformed) && !errors.Is(err, command.ErrFormat) || !errors.Is(err, ErrFailed) {
				t.Fatalf("error %v", err)
			}
			if len(d.results) != 0 || s.Applied(0) != 1 {
				t.Errorf("%d results, applied %d", len(d.results), s.Applied(0))
			}
			diff(t, "row", get(t, s, 0, "k", 1), read{"a", 1, 0, true})
			diff(t, "checksums", checksums(t, s), before)
			if err := s.Apply([]Entry{{Index: 2, Data: good}}, &d); !errors.Is(err, ErrFailed) {
				t.Errorf("afterwards: %v", err)
			}
			if err := s.Close(); !errors.Is(err, ErrFailed) { // nothing to be flushed
				t.Errorf("close: %v", err)
			}
		})
	}
}

func TestLargeValues(t *testing.T) {
	s := openTest(t)
	for i, n := range []int{0, 1, rowBytesMax - 1, rowBytesMax, 1 << 20, 15 << 20} {
		value := strings.Repeat("v", n)
		diff(t, "result", do(t, s, 1, put("k", value)), results{ok(uint64(i + 1))})
		if got := get(t, s, 0, "k", 1); got.Value != value {
			t.Fatalf("value of %d bytes comes back with %d", n, len(got.Value))
		}
	}
	diff(t, "small again", do(t, s, 1, putIf("k", "x", previous, 0, 0))[0].Version, uint64(7))
	diff(t, "row", get(t, s, 0, "k", 1), read{"x", 7, 0, true})
}

func TestManyRowsInOnePass(t *testing.T) {
	// Makes the row set, the arena and the result arrays grow.
	s := openTest(t)
	var commands cmds
	for i := range 20_000 {
		commands = append(commands, incr(string(rune('a'+i%7000)), 1))
	}
	got := do(t, s, 1, commands...)
	for i, r := range got {
		if want := int64(i/7000 + 1); r.Integer != want || r.Version != uint64(i+1) {
			t.Fatalf("result %d: %+v", i, r)
		}
	}
	diff(t, "afterwards", do(t, s, 1, incr("a", 1)), results{number(20_001, 4)})
}
