package raftgroup

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/datadir"
	"github.com/proa-kv/proa/raftgroup/engine"
)

// shardsOf says to which shard of n a key belongs.
func shardsOf(n *Node) func(key []byte) int {
	return func(key []byte) int { return shardFor(n, string(key)) }
}

// acrossNow proposes c, over whichever shards, runs passes, and returns what became
// of it.
func acrossNow(t testing.TB, n *Node, c *command.Command) (command.Outcome, command.Result) {
	t.Helper()
	e := &keeper{}
	if err := n.ProposeAcross(shardsOf(n), c, e, command.Tag{}); err != nil {
		t.Fatal(err)
	}
	runUntil(t, n, "an outcome", func() bool { return e.heard })
	return e.outcome, e.result
}

// keeper keeps a copy of one result.
type keeper struct {
	heard   bool
	outcome command.Outcome
	result  command.Result
}

func (k *keeper) Complete(_ command.Tag, o command.Outcome, r *command.Result) {
	if k.heard {
		panic("a second outcome")
	}
	k.heard, k.outcome = true, o
	if r != nil {
		k.result = copyResult(r)
	}
}

func copyResult(r *command.Result) command.Result {
	c := *r
	c.Value, c.Results = bytes.Clone(r.Value), nil
	for i := range r.Results {
		c.Results = append(c.Results, copyResult(&r.Results[i]))
	}
	return c
}

func puts(pairs ...string) (ops []command.Command) {
	for i := 0; i < len(pairs); i += 2 {
		ops = append(ops, *put(pairs[i], pairs[i+1]))
	}
	return ops
}

// apart are keys of different shards of a node with three.
func apart(n *Node) (keys [3]string) {
	for i := 0; keys[0] == "" || keys[1] == "" || keys[2] == ""; i++ {
		k := fmt.Sprintf("k%d", i)
		keys[shardFor(n, k)] = k
	}
	return keys
}

// TestAcrossTornWrite cuts the log write of a command over three shards off at
// every byte, and lets every beginning of it get lost before the rest: a node
// that starts with what is left has all of the command or nothing.
func TestAcrossTornWrite(t *testing.T) {
	t.Run("batch", func(t *testing.T) {
		tornWrite(t, "", "newnewnew", func(k [3]string) *command.Command {
			return &command.Command{Kind: command.Batch, Ops: puts(k[0], "new", k[1], "new", k[2], "new")}
		})
	})
	t.Run("deletion of a range", func(t *testing.T) {
		tornWrite(t, "old", "", func([3]string) *command.Command { return &command.Command{Kind: command.DeleteRange, Key: []byte("k")} })
	})
}

// tornWrite has old in one of three shards, others in the rest, and carries out
// what command makes, after which whole is there.
func tornWrite(t *testing.T, others, whole string, c func(keys [3]string) *command.Command) {
	f := vfs.NewCrashableMem()
	n, err := openMem(f, Options{Shards: 3})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeNode(t, n) })
	k := apart(n)
	mustPut(t, n, k[0], "old")
	if others != "" {
		mustPut(t, n, k[1], others)
		mustPut(t, n, k[2], others)
	}
	path := f.PathJoin(dir, datadir.LogDir, "0000000000000001.seg")
	if names, err := f.List(f.PathJoin(dir, datadir.LogDir)); err == nil {
		for _, name := range names {
			if strings.HasSuffix(name, "1.seg") || strings.HasSuffix(name, "1.log") {
				path = f.PathJoin(dir, datadir.LogDir, name)
			}
		}
	}
	before := readAll(t, f, path)
	if o, r := acrossNow(t, n, c(k)); o != command.Applied || r.Status != command.OK {
		t.Fatal(o, r)
	}
	after := readAll(t, f, path)
	first, last := 0, len(after)-1
	for before[first] == after[first] {
		first++
	}
	for before[last] == after[last] {
		last--
	}
	if last-first < 100 {
		t.Fatalf("the write has bytes %d to %d", first, last)
	}
	all, none := 0, 0
	try := func(image []byte) {
		t.Helper()
		crashed := f.CrashClone(vfs.CrashCloneCfg{})
		writeAll(t, crashed, path, image)
		again, err := openMem(crashed, Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer closeNode(t, again)
		switch found := fmt.Sprint(value(t, again, k[0]), value(t, again, k[1]), value(t, again, k[2])); found {
		case whole:
			all++
		case "old" + others + others:
			none++
		default:
			t.Fatalf("bytes %d to %d: found %q", first, last, found)
		}
	}
	step := 1
	if testing.Short() {
		step = 29
	}
	for cut := first; cut <= last; cut += step {
		try(append(bytes.Clone(after[:cut]), before[cut:]...))
		try(append(bytes.Clone(before[:cut+1]), after[cut+1:]...))
	}
	if all != 0 || none == 0 {
		t.Errorf("of damaged writes %d were taken for whole, %d not", all, none)
	}
	try(after)
	if all != 1 {
		t.Error("the whole write is not there")
	}
}

func value(t testing.TB, n *Node, key string) string {
	t.Helper()
	v, _ := read(t, n, key)
	return v
}

// TestAcrossIsSeenAtOnce: readers on other threads see all parts of a command
// over several shards or none, whether they read row by row or all at once.
func TestAcrossIsSeenAtOnce(t *testing.T) {
	n := memNode(t, vfs.NewMem(), Options{Shards: 3})
	n.Start(nil)
	const rounds, keys = 200, 400
	key := func(i int) string { return fmt.Sprintf("k%d", i) }
	done := make(chan struct{})
	var readers sync.WaitGroup
	readers.Go(func() {
		for rng := rand.New(rand.NewPCG(1, 1)); ; {
			select {
			case <-done:
				return
			default:
			}
			a, b := key(rng.IntN(keys)), key(rng.IntN(keys))
			first := number(t, n, a)
			if next := number(t, n, b); next < first {
				t.Errorf("%s is %d, and later %s is %d", a, first, b, next)
				return
			}
		}
	})
	readers.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			found := map[string]int{}
			if err := n.Scan(&command.Scan{}, func(_, value []byte, _ command.Row) bool {
				found[string(value)]++
				return true
			}); err != nil {
				t.Error(err)
			}
			if len(found) > 1 {
				t.Errorf("a scan found %v", found)
				return
			}
		}
	})
	for i := range rounds {
		var pairs []string
		for k := range keys {
			pairs = append(pairs, key(k), strconv.Itoa(i))
		}
		if err := n.ProposeAcross(shardsOf(n), &command.Command{Kind: command.Batch, Ops: puts(pairs...)}, &keeper{}, command.Tag{}); err != nil {
			t.Fatal(err)
		}
		run(n)
	}
	close(done)
	readers.Wait()
}

func number(t testing.TB, n *Node, key string) int {
	v, _ := strconv.Atoi(value(t, n, key))
	return v
}

// TestAcrossIsAsInOneShard plays random commands to a node with one shard and to
// one with many, where they are cut up, with restarts in between. Both must
// answer the same.
func TestAcrossIsAsInOneShard(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 10))
			clock := &manualClock{}
			clock.ms.Store(1000)
			one, many := vfs.NewMem(), vfs.NewMem()
			open := func() (a, b *Node) {
				return memNode(t, one, Options{Shards: 1, Clock: clock}), memNode(t, many, Options{Shards: 7, Clock: clock})
			}
			a, b := open()
			for i := range 400 {
				clock.ms.Add(rng.Uint64N(30))
				c := randomCommand(rng)
				_, want := proposeNow(t, a, 0, c)
				_, got := acrossNow(t, b, c)
				if diff := cmp.Diff(want, got, ignoreVersions, cmpopts.EquateEmpty()); diff != "" {
					t.Fatalf("command %d, %+v (-one shard +many):\n%s", i, c, diff)
				}
				if rng.IntN(60) == 0 {
					closeNode(t, a)
					closeNode(t, b)
					a, b = open()
				}
			}
		})
	}
}

// Versions count per shard. What a Rename found is told with the version of
// either key.
var ignoreVersions = cmpopts.IgnoreFields(command.Result{}, "Version", "RowVersion")

func proposeNow(t testing.TB, n *Node, shard int, c *command.Command) (command.Outcome, command.Result) {
	t.Helper()
	e := &keeper{}
	if err := n.Propose(shard, c, e, command.Tag{}); err != nil {
		t.Fatal(err)
	}
	runUntil(t, n, "an outcome", func() bool { return e.heard })
	return e.outcome, e.result
}

func randomCommand(rng *rand.Rand) *command.Command {
	key := func() []byte { return fmt.Appendf(nil, "k%d", rng.IntN(12)) }
	op := func() command.Command {
		c := command.Command{Key: key()}
		switch rng.IntN(9) {
		case 0:
			c.Kind = command.Delete
		case 1:
			c.Kind, c.Delta = command.Incr, 1
		case 2:
			c.Kind = command.Get
		case 3:
			c.Kind, c.Value = command.Append, []byte("1")
		case 4:
			c.Kind, c.TTLMillis = command.Expire, 1+rng.Uint64N(100)
		case 5, 6:
			c.Kind, c.Value, c.Flags = command.Rename, key(), command.Flags(rng.IntN(4))
		default:
			c.Kind, c.Value = command.Put, fmt.Append(nil, rng.IntN(3))
			if rng.IntN(2) == 0 {
				c.Flags, c.TTLMillis = command.SetTTL, 1+rng.Uint64N(200)
			}
		}
		return c
	}
	ops := func() (list []command.Command) {
		for range 1 + rng.IntN(5) {
			list = append(list, op())
		}
		return list
	}
	switch rng.IntN(3) {
	case 0:
		return &command.Command{Kind: command.Batch, Ops: ops()}
	case 1:
		return &command.Command{Kind: command.Rename, Key: key(), Value: key(), Flags: command.Flags(rng.IntN(4))}
	}
	c := &command.Command{Kind: command.Txn, Ops: ops(), Else: ops()}
	if rng.IntN(2) == 0 {
		c.Flags = command.Whole
	}
	for range rng.IntN(3) {
		x := command.Compare{Target: command.OnValue, Relation: command.Relation(1 + rng.IntN(4)), Key: key(), Value: []byte("1")}
		if rng.IntN(2) == 0 {
			x.Target, x.Value = command.OnVersion, nil // there, or not
		}
		c.Compares = append(c.Compares, x)
	}
	return c
}

// TestAcrossRetry: within a session a command over several shards takes effect
// once, and a retry is told what the first was, whatever has changed since.
func TestAcrossRetry(t *testing.T) {
	f := vfs.NewMem()
	clock := &manualClock{}
	clock.ms.Store(1000)
	n := memNode(t, f, Options{Shards: 3, Clock: clock})
	k := apart(n)
	c := &command.Command{
		Kind: command.Txn, Session: command.Session{ID: 7, Sequence: 1},
		Compares: []command.Compare{{Target: command.OnVersion, Relation: command.Equal, Key: []byte(k[0])}},
		Ops:      append(puts(k[0], "there"), command.Command{Kind: command.Incr, Key: []byte(k[1]), Delta: 1}),
		Else:     []command.Command{{Kind: command.Incr, Key: []byte(k[2]), Delta: 1}},
	}
	_, first := acrossNow(t, n, c)
	if !first.Succeeded || first.Results[1].Integer != 1 {
		t.Fatalf("%+v", first)
	}
	mustPut(t, n, k[1], "other")
	for range 2 {
		if _, again := acrossNow(t, n, c); cmp.Diff(first, again, cmpopts.EquateEmpty()) != "" {
			t.Errorf("the retry:\n%s", cmp.Diff(first, again))
		}
		closeNode(t, n)
		n = memNode(t, f, Options{Clock: clock})
	}
	other := *c
	other.Ops = puts(k[0], "another")
	if _, r := acrossNow(t, n, &other); r.Status != command.SessionMismatch {
		t.Errorf("another request under the number: %+v", r)
	}
	// With its result gone from one of the shards, nothing can be said.
	sweep := n.store.SweepCommand(100)
	sweep.TTLMillis = 1
	clock.ms.Add(10_000)
	if o, _ := proposeNow(t, n, shardFor(n, k[1]), &sweep); o != command.Applied {
		t.Fatal(o)
	}
	if _, r := acrossNow(t, n, c); r.Status != command.SessionExpired {
		t.Errorf("the retry with a part forgotten: %+v", r)
	}
	if got := value(t, n, k[1]) + value(t, n, k[2]); got != "other" {
		t.Errorf("the retries left %q", got)
	}
}

// TestAcrossWhole: of a transaction that shows more than one reply can hold nothing
// is done, in any shard.
func TestAcrossWhole(t *testing.T) {
	n := memNode(t, vfs.NewMem(), Options{Shards: 3})
	k := apart(n)
	large := string(make([]byte, 9<<20))
	mustPut(t, n, k[0], large)
	get := func(key string) command.Command { return command.Command{Kind: command.Get, Key: []byte(key)} }
	c := &command.Command{Kind: command.Txn, Flags: command.Whole, Ops: append(puts(k[1], "v", k[2], "v"), get(k[0]), get(k[0]))}
	if o, r := acrossNow(t, n, c); o != command.Applied || r.Status != command.TooLarge || r.Succeeded || len(r.Results) > 0 {
		t.Errorf("outcome %v, %v, succeeded %v, %d results", o, r.Status, r.Succeeded, len(r.Results))
	}
	if got := value(t, n, k[1]) + value(t, n, k[2]); got != "" {
		t.Errorf("found %q", got)
	}
	c.Ops = c.Ops[:3]
	if _, r := acrossNow(t, n, c); r.Status != command.OK || !r.Succeeded || len(r.Results) != 3 || string(r.Results[2].Value) != large {
		t.Errorf("what fits: %v, succeeded %v, %d results", r.Status, r.Succeeded, len(r.Results))
	}
	if got := value(t, n, k[1]) + value(t, n, k[2]); got != "vv" {
		t.Errorf("found %q", got)
	}
}

// TestAcrossManyInOnePass queues commands that depend on one another, and others
// of one shard: nothing is lost, and each transfer finds what those before it
// have left.
func TestAcrossManyInOnePass(t *testing.T) {
	n := memNode(t, vfs.NewMem(), Options{Shards: 3})
	k := apart(n)
	e := newEar()
	const rounds = 50
	take := func(from, to string, i int) *command.Command {
		return &command.Command{
			Kind: command.Txn, Compares: []command.Compare{{Target: command.OnValue, Relation: command.Equal, Key: []byte(from), Value: fmt.Append(nil, i)}},
			Ops: puts(from, strconv.Itoa(i+1), to, strconv.Itoa(i+1)),
		}
	}
	mustPut(t, n, k[0], "0")
	incr := &command.Command{Kind: command.Incr, Key: []byte("count"), Delta: 1}
	for i := range rounds {
		if err := n.ProposeAcross(shardsOf(n), take(k[0], k[1+i%2], i), e, command.Tag{ID: uint64(i)}); err != nil {
			t.Fatal(err)
		}
		if err := n.Propose(shardFor(n, "count"), incr, e, command.Tag{ID: uint64(rounds + i)}); err != nil {
			t.Fatal(err)
		}
	}
	run(n)
	for i := range rounds {
		if e.outcomes[uint64(i)] != command.Applied || !e.results[uint64(i)].Succeeded || e.outcomes[uint64(rounds+i)] != command.Applied {
			t.Fatalf("command %d: outcome %v, %+v", i, e.outcomes[uint64(i)], e.results[uint64(i)])
		}
	}
	if got := value(t, n, k[0]) + " " + value(t, n, "count"); got != "50 50" {
		t.Errorf("found %s", got)
	}
}

// TestAcrossDeletesARange deletes a range in all shards at once, among commands
// before and after it: those after it that ask for keys find it done.
func TestAcrossDeletesARange(t *testing.T) {
	n := memNode(t, vfs.NewMem(), Options{Shards: 3})
	k := apart(n)
	e := newEar()
	for i, c := range []*command.Command{
		{Kind: command.Batch, Ops: puts(k[0], "v", k[1], "v", k[2], "v", "other", "v")},
		{Kind: command.DeleteRange, Key: []byte("k"), Value: []byte("l")},
		{
			Kind: command.Txn, Compares: []command.Compare{{Target: command.OnVersion, Relation: command.Equal, Key: []byte(k[1])}},
			Ops: puts(k[2], "again", k[0], "again"),
		},
	} {
		if err := n.ProposeAcross(shardsOf(n), c, e, command.Tag{ID: uint64(i)}); err != nil {
			t.Fatal(err)
		}
	}
	run(n)
	for i := range uint64(3) {
		if e.outcomes[i] != command.Applied {
			t.Fatalf("command %d: %v", i, e.outcomes[i])
		}
	}
	if !e.results[2].Succeeded {
		t.Error("a comparison in the same pass has not seen the deletion")
	}
	if got := fmt.Sprintf("%s|%s|%s|%s", value(t, n, k[0]), value(t, n, k[1]), value(t, n, k[2]), value(t, n, "other")); got != "again||again|v" {
		t.Errorf("found %s", got)
	}
	o, r := acrossNow(t, n, &command.Command{Kind: command.DeleteRange})
	if o != command.Applied || len(r.Results) != 3 || r.Kind != command.DeleteRange {
		t.Fatalf("%v, %+v", o, r)
	}
	for shard, r := range r.Results {
		if r.Version == 0 || r.Version != n.store.Revision(shard) {
			t.Errorf("shard %d: version %d, the shard's revision %d", shard, r.Version, n.store.Revision(shard))
		}
	}
}

// TestAcrossNeedsANodeAlone: as soon as there may be another node the command is
// refused, also where it is queued already.
func TestAcrossNeedsANodeAlone(t *testing.T) {
	n := memNode(t, vfs.NewMem(), Options{Shards: 3})
	k := apart(n)
	c := &command.Command{Kind: command.Batch, Ops: puts(k[0], "v", k[1], "v")}
	queued := &keeper{}
	if err := n.ProposeAcross(shardsOf(n), c, queued, command.Tag{}); err != nil {
		t.Fatal(err)
	}
	n.state.Clear(engine.Alone)
	run(n)
	if !queued.heard || queued.outcome != command.Apart {
		t.Errorf("outcome %v", queued.outcome)
	}
	if err := n.ProposeAcross(shardsOf(n), c, queued, command.Tag{}); !errors.Is(err, command.ErrApart) {
		t.Error(err)
	}
	n.state.Set(engine.Alone)
}

// TestAcrossRetryOfWhole: the retry of a command that was carried out is not
// measured by what its reads would find now.
func TestAcrossRetryOfWhole(t *testing.T) {
	n := memNode(t, vfs.NewMem(), Options{Shards: 3})
	k := apart(n)
	get := func(key string) command.Command { return command.Command{Kind: command.Get, Key: []byte(key)} }
	c := &command.Command{
		Kind: command.Txn, Flags: command.Whole, Session: command.Session{ID: 1, Sequence: 1},
		Ops: append(puts(k[2], "done"), get(k[0]), get(k[1])),
	}
	for range 2 {
		if o, r := acrossNow(t, n, c); o != command.Applied || r.Status != command.OK || len(r.Results) != 3 {
			t.Fatalf("outcome %v, %v with %d results", o, r.Status, len(r.Results))
		}
		for _, key := range k[:2] {
			mustPut(t, n, key, strings.Repeat("v", 9<<20))
		}
	}
}

// rounds proposes c many times at once, runs passes, and returns how often each
// status came.
func rounds(t *testing.T, n *Node, c *command.Command, times int) map[command.Status]int {
	t.Helper()
	e := newEar()
	for i := range times {
		if err := n.ProposeAcross(shardsOf(n), c, e, command.Tag{ID: uint64(i)}); err != nil {
			t.Fatal(err)
		}
	}
	got := map[command.Status]int{}
	for deadline := time.Now().Add(time.Minute); len(e.outcomes) < times; {
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d have an outcome", len(e.outcomes), times)
		}
		n.engine.Wake() // as each tick and each drain does
		run(n)
	}
	for i := range uint64(times) {
		if o := e.outcomes[i]; o != command.Applied {
			t.Fatalf("outcome %v", o)
		}
		got[e.results[i].Status]++
	}
	return got
}

// TestAcrossMakesLittleOfManyRequests: of small requests over several shards that
// are queued together, few make large rows. The others are Busy, and a later one is
// carried out.
func TestAcrossMakesLittleOfManyRequests(t *testing.T) {
	const size, times = 1 << 20, 200
	rename := func(k [3]string, flags command.Flags) command.Command {
		return command.Command{Kind: command.Rename, Flags: flags | command.RenameKeepSource, Key: []byte(k[0]), Value: []byte(k[1])}
	}
	setRanges := func(k [3]string) (ops []command.Command) {
		for _, key := range k {
			ops = append(ops, command.Command{Kind: command.SetRange, Key: []byte(key), Offset: size - 1, Value: []byte("x")})
		}
		return ops
	}
	for name, x := range map[string]struct {
		c      func(k [3]string) command.Command
		status command.Status
	}{
		"rename":                 {func(k [3]string) command.Command { return rename(k, 0) }, command.OK},
		"rename that reads only": {func(k [3]string) command.Command { return rename(k, command.RenameIfAbsent) }, command.ConditionFailed},
		"rename within a transaction": {func(k [3]string) command.Command {
			return command.Command{Kind: command.Txn, Flags: command.Whole, Ops: []command.Command{rename(k, 0)}}
		}, command.OK},
		"batch": {func(k [3]string) command.Command {
			return command.Command{Kind: command.Batch, Flags: command.Counted, Ops: setRanges(k)}
		}, command.OK},
	} {
		t.Run(name, func(t *testing.T) {
			n := memNode(t, vfs.NewMem(), Options{Shards: 3})
			n.lim.TurnBytes = command.ValueBytesMax + 3*size
			k := apart(n)
			for _, key := range k {
				mustPut(t, n, key, strings.Repeat("v", size))
			}
			c := x.c(k)
			written := n.log.Position()
			got := rounds(t, n, &c, times)
			if done := got[x.status]; done < 1 || done > 3 || done+got[command.Busy] != times {
				t.Errorf("statuses %v, want %v up to three times and %v otherwise", got, x.status, command.Busy)
			}
			if made := n.log.Position() - written; made > 4*size {
				t.Errorf("the log has taken %d bytes", made)
			}
			if got := rounds(t, n, &c, 1); got[x.status] != 1 {
				t.Errorf("a later one: %v", got)
			}
		})
	}
}

// TestAcrossMakesLittleInAllShards: a single command is not allowed more over
// several shards than in one, and does nothing then.
func TestAcrossMakesLittleInAllShards(t *testing.T) {
	n := memNode(t, vfs.NewMem(), Options{Shards: 3})
	var ops []command.Command
	for i := range 7 {
		ops = append(ops, command.Command{Kind: command.SetRange, Key: fmt.Append(nil, "k", i), Offset: command.ValueBytesMax - 1, Value: []byte("x")})
	}
	o, r := acrossNow(t, n, &command.Command{Kind: command.Batch, Flags: command.Counted, Ops: ops})
	if o != command.Applied || r.Status != command.Busy {
		t.Errorf("outcome %v, %v", o, r.Status)
	}
	if _, there := read(t, n, "k0"); there {
		t.Error("a part has been carried out")
	}
}

// TestAcrossIsDroppedByAStop: what makes much of little is not begun any more when
// the node stops.
func TestAcrossIsDroppedByAStop(t *testing.T) {
	n := memNode(t, vfs.NewMem(), Options{Shards: 3})
	k := apart(n)
	mustPut(t, n, k[0], strings.Repeat("v", 1<<20))
	e := newEar()
	c := &command.Command{Kind: command.Rename, Flags: command.RenameKeepSource, Key: []byte(k[0]), Value: []byte(k[1])}
	const times = 20
	for i := range uint64(times) {
		if err := n.ProposeAcross(shardsOf(n), c, e, command.Tag{ID: i}); err != nil {
			t.Fatal(err)
		}
	}
	closeNode(t, n)
	for i := range uint64(times) {
		if e.outcomes[i] != command.Dropped {
			t.Fatalf("command %d: outcome %v", i, e.outcomes[i])
		}
	}
}
