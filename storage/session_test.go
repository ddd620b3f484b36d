package storage

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/proa-kv/proa/command"
)

var expired = status(command.SessionExpired, 0)

// reopen closes s and opens its directory again.
func reopen(t *testing.T, s *Store) *Store {
	t.Helper()
	closeStore(t, s)
	o := s.opts
	return open(t, o)
}

func TestRetryTakesEffectOnce(t *testing.T) {
	txn := command.Command{Kind: command.Txn, Ops: cmds{incr("n", 1), getOp("n"), del("none")}}
	txnResult := results{{Succeeded: true, Results: results{number(3, 2), withRow(ok(3), 3, 0, "2"), status(notFound, 0)}}}
	steps := []struct {
		do   command.Command
		want results
	}{
		{in(1, 1, 0, incr("n", 1)), results{number(1, 1)}},
		{in(1, 2, 0, putIf("k", "v", command.IfAbsent, 0, 0)), results{ok(2)}},
		{in(1, 3, 0, txn), txnResult},
		{in(1, 4, 0, putIf("k", "w", previous|command.SetTTL, 0, 9)), results{withRow(ok(4), 2, 0, "v")}},
		{in(1, 5, 0, putIf("k", "x", previous|command.IfAbsent, 0, 0)), results{withRow(status(failed, 4), 4, 9, "w")}},
		{in(1, 6, 0, del("none")), results{status(notFound, 0)}},
		{in(1, 7, 0, batchOf(incr("k", 1))), results{{Results: results{status(command.NotInteger, 4)}}}},
	}
	s := open(t, testOptions(nil))
	for _, st := range steps {
		// At once, in the same entry.
		got := do(t, s, 1, st.do, st.do)
		diff(t, "first", got[:1], st.want)
		diff(t, "again in the same pass", got[1:], st.want)
	}
	for range 2 {
		for _, st := range steps {
			diff(t, "again", do(t, s, 5, st.do), st.want)
		}
		s = reopen(t, s)
	}
	defer closeStore(t, s)
	diff(t, "n", get(t, s, 0, "n", 1).Value, "2")
	// Another session, another shard, no session: not a retry.
	diff(t, "other session", do(t, s, 5, in(2, 1, 0, incr("n", 1)))[0].Integer, int64(3))
	diff(t, "no session", do(t, s, 5, incr("n", 1), incr("n", 1))[1].Integer, int64(5))
	var d delivered
	if err := s.Apply([]Entry{{Shard: 1, Index: 1, Data: entryOf(1, in(1, 1, 0, incr("n", 1)))}}, &d); err != nil {
		t.Fatal(err)
	}
	diff(t, "other shard", plain(d.results), results{number(1, 1)})
}

// A number that was used for something else is not answered with its result, and
// nothing is done.
func TestSequenceOfAnotherRequest(t *testing.T) {
	mismatch := status(command.SessionMismatch, 0)
	used := in(1, 1, 0, incr("n", 1))
	others := cmds{
		put("n", "x"), incr("n", 2), incr("m", 1), del("n"), batchOf(incr("n", 1)), batchOf(incr("n", 2)),
		{Kind: command.Txn, Ops: cmds{incr("n", 1)}}, {Kind: command.Txn, Else: cmds{incr("n", 1)}},
		{Kind: command.Expire, Key: []byte("n"), TTLMillis: 1}, {Kind: command.Append, Key: []byte("n"), Value: []byte{0}},
	}
	s := open(t, testOptions(nil))
	diff(t, "first", do(t, s, 1, used), results{number(1, 1)})
	for _, withDigest := range []bool{true, false} {
		for _, other := range others {
			if !withDigest && other.Kind == command.Incr {
				continue // cannot be told from a repetition
			}
			diff(t, other.Kind.String(), do(t, s, 2, in(1, 1, 0, other), used, in(1, 1, 9, other)), results{mismatch, number(1, 1), mismatch})
		}
		diff(t, "n", get(t, s, 0, "n", 2).Value, "1")
		forgetDigests(t, s)
		s = reopen(t, s)
	}
	diff(t, "within a pass", do(t, s, 3, in(1, 3, 0, incr("n", 1)), in(1, 3, 0, incr("n", 2))), results{number(2, 2), mismatch})
	// A record as older versions wrote it is dropped like any other.
	do(t, s, 3, in(1, 4, 3, incr("n", 1)))
	s = reopen(t, s)
	if n := len(sessionRecords(t, s)); n != 1 {
		t.Errorf("%d records", n)
	}
	closeStore(t, s)
}

// Nothing of a digest shows in the state, or replicas of which some have no
// digests would differ.
func TestDigestsAreNotPartOfTheState(t *testing.T) {
	s := open(t, testOptions(nil))
	do(t, s, 1, in(1, 1, 0, incr("n", 1)), in(1, 2, 0, put("k", "v")))
	export := func() (format byte) {
		v := openView(t, s, 0)
		defer v.Close()
		for _, b := range chunks(t, v, nil) {
			format = max(format, b[0])
		}
		return format
	}
	with, chunksWith := checksums(t, s)[0], export()
	forgetDigests(t, s)
	s = reopen(t, s)
	if without := checksums(t, s)[0]; with != without {
		t.Errorf("checksum %x with digests, %x without", with, without)
	}
	if without := export(); chunksWith != chunkFormatOfDigests || without != chunkFormat {
		t.Errorf("chunks of format %d with digests, %d without", chunksWith, without)
	}
	closeStore(t, s)
}

// sessionRecords returns the keys of the session records of shard 0, with their
// values.
func sessionRecords(t *testing.T, s *Store) (records [][2][]byte) {
	t.Helper()
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: appendPrefix(nil, 0, kindSession), UpperBound: appendPrefix(nil, 0, kindSession+1)})
	if err != nil {
		t.Fatal(err)
	}
	for it.First(); it.Valid(); it.Next() {
		records = append(records, [2][]byte{bytes.Clone(it.Key()), bytes.Clone(it.Value())})
	}
	if err := it.Close(); err != nil {
		t.Fatal(err)
	}
	return records
}

// forgetDigests makes the records of shard 0 what an older version would have
// written. The store must be reopened.
func forgetDigests(t *testing.T, s *Store) {
	t.Helper()
	if err := s.flushAll(); err != nil {
		t.Fatal(err)
	}
	for _, r := range sessionRecords(t, s) {
		key := r[0]
		if err := errors.Join(s.db.Delete(key, pebble.NoSync), s.db.Set(key[:sessionKeyBytes], r[1], pebble.NoSync)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.db.Flush(); err != nil {
		t.Fatal(err)
	}
}

func TestAcknowledgedResultsAreDropped(t *testing.T) {
	for _, restart := range []bool{false, true} {
		s := open(t, testOptions(nil))
		step := func(c command.Command, want ...command.Result) {
			t.Helper()
			if restart {
				s = reopen(t, s)
			}
			diff(t, "result", do(t, s, 1, c), want)
		}
		step(in(1, 1, 0, incr("n", 1)), number(1, 1))
		step(in(1, 2, 0, incr("n", 1)), number(2, 2))
		step(in(1, 5, 1, incr("n", 1)), number(3, 3))
		step(in(1, 1, 0, incr("n", 1)), expired)      // dropped
		step(in(1, 2, 0, incr("n", 1)), number(2, 2)) // kept
		step(in(1, 4, 0, incr("n", 1)), number(4, 4)) // late, not acknowledged, never seen
		step(in(1, 6, 4, incr("n", 1)), number(5, 5))
		step(in(1, 3, 0, incr("n", 1)), expired) // never seen, but acknowledged
		step(in(1, 4, 9, incr("n", 1)), expired) // a retry's acknowledgement does not count
		step(in(1, 5, 9, incr("n", 1)), number(3, 3))
		step(in(1, 7, 99, incr("n", 1)), number(6, 6)) // acknowledges at most what is before it
		step(in(1, 7, 99, incr("n", 1)), number(6, 6))
		step(in(1, 6, 0, incr("n", 1)), expired)
		step(in(1, 8, 0, incr("n", 1)), number(7, 7)) // acknowledgements do not fall
		step(in(1, 6, 0, incr("n", 1)), expired)
		step(in(1, 0, 0, incr("n", 1)), expired) // sequences count from 1
		step(in(9, 0, 0, incr("n", 1)), expired)
		closeStore(t, s)
	}
}

func TestRetryIsToldRowsOnlyIfTheyAreSmall(t *testing.T) {
	s := openTest(t)
	small, large := strings.Repeat("s", sessionValueBytesMax), strings.Repeat("l", sessionValueBytesMax+1)
	do(t, s, 1, put("small", small), put("large", large))
	read := func(key string, sequence uint64) command.Command {
		return in(1, sequence, 0, batchOf(getOp(key), exists("small")))
	}
	first := do(t, s, 1, read("small", 1), read("large", 2))
	again := do(t, s, 1, read("small", 1), read("large", 2))
	diff(t, "small", again[0], first[0])
	want := first[1]
	want.Results[0].Value, want.Results[0].RowOmitted = nil, true // not an empty value
	diff(t, "large", again[1], want)
}

func TestRecordsOfASessionAreBounded(t *testing.T) {
	s := open(t, testOptions(nil))
	var commands cmds
	for i := range sessionRecordsMax + 10 {
		commands = append(commands, in(1, uint64(i+100), 0, incr("n", 1)))
	}
	do(t, s, 1, commands...)
	for range 2 {
		if n := len(s.shards[0].sessions.byID[1].records); n != sessionRecordsMax {
			t.Errorf("%d records", n)
		}
		diff(t, "dropped", do(t, s, 1, in(1, 109, 0, incr("n", 1))), results{expired})
		diff(t, "kept", do(t, s, 1, in(1, 110, 0, incr("n", 1))), results{number(11, 11)})
		diff(t, "below", do(t, s, 1, in(1, 50, 0, incr("n", 1))), results{expired})
		s = reopen(t, s)
	}
	closeStore(t, s)
}

func TestSessionsOfAShardAreBounded(t *testing.T) {
	s := open(t, testOptions(nil))
	const extra = 10
	for id := 1; id <= sessionsMax+extra; {
		var commands cmds
		for ; len(commands) < 4096 && id <= sessionsMax+extra; id++ {
			commands = append(commands, in(uint64(id), 1, 0, incr("n", 1)))
		}
		slices.Reverse(commands) // which one goes must not depend on the order of arrival
		do(t, s, uint64(100+id/5000), commands...)
	}
	if n := s.Stats().Sessions; n != sessionsMax {
		t.Errorf("%d sessions", n)
	}
	s = reopen(t, s)
	defer closeStore(t, s)
	if n := s.Stats().Sessions; n != sessionsMax {
		t.Errorf("%d sessions after a restart", n)
	}
	for id := 1; id <= extra+1; id++ {
		if _, there := s.shards[0].sessions.byID[uint64(id)]; there != (id > extra) {
			t.Errorf("session %d is there: %v", id, there)
		}
	}
}

func TestSweepForgetsUnusedSessions(t *testing.T) {
	s := open(t, testOptions(nil))
	retention := s.opts.retentionMillis()
	do(t, s, 1000, in(1, 1, 0, incr("n", 1)), in(2, 1, 0, incr("n", 1)))
	do(t, s, 2000, in(2, 2, 0, incr("n", 1)))
	for _, due := range []struct {
		now  uint64
		want bool
	}{{999 + retention, false}, {1000 + retention, true}, {5, false}} {
		if got := s.SweepDue(0, due.now); got != due.want {
			t.Errorf("due at %d: %v", due.now, got)
		}
	}
	diff(t, "early", do(t, s, 999+retention, s.SweepCommand(10)), results{number(0, 0)})
	diff(t, "kept", do(t, s, 999+retention, in(1, 1, 0, incr("n", 1))), results{number(1, 1)})
	do(t, s, 1000+retention, s.SweepCommand(10)) // the retry did not count as use
	if s.SweepDue(0, 1999+retention) || !s.SweepDue(0, 2000+retention) {
		t.Error("session 2 is next, and not before its time")
	}
	diff(t, "kept", do(t, s, 1000+retention, in(2, 1, 0, incr("n", 1))), results{number(2, 2)})
	diff(t, "forgotten", do(t, s, 1000+retention, in(1, 1, 0, incr("n", 1))), results{number(4, 4)})
	s = reopen(t, s)
	do(t, s, 2000+retention, s.SweepCommand(10))
	diff(t, "sessions", s.Stats().Sessions, int64(1))
	closeStore(t, s)
}

// Which sessions a bounded sweep forgets must not depend on the order that a
// restart gives to sessions of one stamp.
func TestSweepOfSessionsIsTheSameAfterARestart(t *testing.T) {
	entries := [][]byte{
		entryOf(1000, in(5, 1, 0, incr("n", 1)), in(3, 1, 0, incr("n", 1)), in(9, 1, 0, incr("n", 1)), in(1, 1, 0, incr("n", 1)), in(5, 2, 0, incr("n", 1))),
		entryOf(5000, command.Command{Kind: command.Sweep, Limit: 2, TTLMillis: 100}),
	}
	var sums []uint64
	for _, restart := range []bool{false, true} {
		s := open(t, testOptions(vfs.NewMem()))
		for i, data := range entries {
			if err := s.Apply([]Entry{{Index: uint64(i + 1), Data: data}}, &delivered{}); err != nil {
				t.Fatal(err)
			}
			if restart {
				s = reopen(t, s)
			}
		}
		diff(t, "sessions left", fmt.Sprint(s.shards[0].sessions.byID[5] != nil, s.shards[0].sessions.byID[9] != nil, s.Stats().Sessions), "true true 2")
		sums = append(sums, checksums(t, s)[0])
		closeStore(t, s)
	}
	if sums[0] != sums[1] {
		t.Error("checksums differ")
	}
}

func FuzzDecodeSessionRecord(f *testing.F) {
	result := command.Result{Status: failed, Version: 300, Integer: -5, HasRow: true, RowVersion: 1, RowTTL: 2, Value: []byte("v")}
	f.Add(appendResult(nil, &result, true))
	f.Add(appendResult(nil, &result, false))
	f.Add(appendResult(nil, &command.Result{Kind: command.Txn, Succeeded: true, Results: results{result, ok(7)}}, true))
	f.Add([]byte{resultHasOps, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, b []byte) {
		var r command.Result
		rest, err := decodeOneResult(b, &r, func(n int) results { return make(results, n) })
		if err != nil {
			return
		}
		var again command.Result
		encoded := appendResult(nil, &r, true)
		tail, err := decodeOneResult(encoded, &again, func(n int) results { return make(results, n) })
		if err != nil || len(tail) != 0 || len(rest) > len(b) {
			t.Fatalf("%x does not survive: %v", b, err)
		}
		diff(t, "again", cloneResult(again), cloneResult(r))
	})
}
