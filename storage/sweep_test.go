package storage

import (
	"fmt"
	"testing"

	"github.com/proa-kv/proa/command"
)

func TestSweepRemovesExpiredRows(t *testing.T) {
	s := openTest(t)
	if _, ok := s.NextExpiry(0); ok {
		t.Error("an empty shard has an expiry")
	}
	do(t, s, 100, putTTL("a", "1", 10), putTTL("b", "2", 20), putTTL("c", "3", 30), put("d", "4"))
	next := func(want uint64, wantOK bool) {
		t.Helper()
		if at, ok := s.NextExpiry(0); ok != wantOK || ok && at != want {
			t.Errorf("next expiry %d %v, want %d %v", at, ok, want, wantOK)
		}
	}
	next(110, true)
	if s.SweepDue(0, 109) || !s.SweepDue(0, 110) || s.SweepDue(1, 1<<40) {
		t.Error("a sweep is due at 110, of shard 0")
	}
	diff(t, "nothing yet", do(t, s, 109, sweep(10)), results{number(0, 0)})
	next(110, true)
	diff(t, "one", do(t, s, 110, sweep(10)), results{number(0, 1)})
	next(120, true)
	diff(t, "none again", do(t, s, 110, sweep(10)), results{number(0, 0)})
	diff(t, "two, one at a time", do(t, s, 200, sweep(1), sweep(1), sweep(1)), results{number(0, 1), number(0, 1), number(0, 0)})
	next(0, false)
	var keys []string
	for _, r := range scan(t, s, ScanOptions{Shards: []int{0}}) {
		keys = append(keys, r.Key)
	}
	diff(t, "left", keys, []string{"d"})
	// The version went on, though nobody saw the removal.
	diff(t, "version", do(t, s, 200, put("a", "")), results{ok(5)})
}

func TestSweepLooksAtTheRowNotTheIndex(t *testing.T) {
	s := openTest(t)
	do(t, s, 100, putTTL("overwritten", "1", 10), putTTL("later", "1", 10), putTTL("sooner", "1", 50), putTTL("gone", "1", 10))
	do(t, s, 101, put("overwritten", "2"), putTTL("later", "2", 100), putTTL("sooner", "2", 5), put("gone", "2"), del("gone"))
	diff(t, "sweep", do(t, s, 150, sweep(10)), results{number(0, 1)})
	diff(t, "overwritten", get(t, s, 0, "overwritten", 150), read{"2", 5, 0, true})
	diff(t, "later", get(t, s, 0, "later", 150), read{"2", 6, 51, true})
	diff(t, "sooner", get(t, s, 0, "sooner", 150), read{})
	diff(t, "rest", do(t, s, 201, sweep(10)), results{number(0, 1)})
	if at, ok := s.NextExpiry(0); ok {
		t.Errorf("still an expiry at %d", at)
	}
}

func TestSweepSeesWhatItsPassDid(t *testing.T) {
	s := openTest(t)
	do(t, s, 100, putTTL("a", "1", 10), putTTL("b", "1", 10))
	var d delivered
	err := s.Apply([]Entry{
		{Index: 2, Data: entryOf(105, persist("a"), putTTL("c", "1", 3), putTTL("d", "1", 300))},
		{Index: 3, Data: entryOf(120, exists("c"), sweep(10), put("c", "2"), sweep(10))},
		{Index: 4, Data: entryOf(130, sweep(10))},
	}, &d)
	if err != nil {
		t.Fatal(err)
	}
	diff(t, "results", plain(d.results)[3:], results{status(notFound, 0), number(0, 2), ok(6), number(0, 0), number(0, 0)})
	if at, ok := s.NextExpiry(0); !ok || at != 405 {
		t.Errorf("next expiry %d %v", at, ok)
	}
	diff(t, "a", get(t, s, 0, "a", 130), read{"1", 3, 0, true})
	diff(t, "b", get(t, s, 0, "b", 130), read{})
	diff(t, "c", get(t, s, 0, "c", 130), read{"2", 6, 0, true})
}

func TestSweepOfNothingAndOfMany(t *testing.T) {
	s := openTest(t)
	var commands cmds
	for i := range 3000 {
		commands = append(commands, putTTL(fmt.Sprint("k", i), "v", uint64(1+i%50)))
	}
	do(t, s, 100, commands...)
	diff(t, "limit 0", do(t, s, 1000, sweep(0)), results{number(0, 0)})
	var total, rounds int64
	for s.SweepDue(0, 1000) {
		total += do(t, s, 1000, sweep(700))[0].Integer
		if rounds++; rounds > 10 {
			t.Fatal("does not end")
		}
	}
	diff(t, "removed", []int64{total, rounds}, []int64{3000, 5})
	sum, _, err := s.Checksum(0)
	if err != nil {
		t.Fatal(err)
	}
	other := openTest(t)
	do(t, other, 100, commands...)
	if err := other.Flush(); err != nil {
		t.Fatal(err)
	}
	do(t, other, 1000, command.Command{Kind: command.Sweep, Limit: 1e6})
	if got, _, _ := other.Checksum(0); got != sum {
		t.Error("one large sweep and many small ones differ")
	}
}
