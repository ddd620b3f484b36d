package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"pgregory.net/rapid"

	"github.com/proa-kv/proa/bufpool"
	"github.com/proa-kv/proa/command"
)

var testConf = []byte("configuration")

func openView(t rapid.TB, s *Store, shard int) *View {
	t.Helper()
	v, err := s.OpenView(shard)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func metaOf(v *View) InstallMeta { return InstallMeta{Index: v.Applied(), Term: 7, Conf: testConf} }

func beginInstall(t rapid.TB, s *Store, v *View) *Install {
	t.Helper()
	in, err := s.BeginInstall(v.shard, v.ID(), metaOf(v))
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// staged returns an installation in s of all that v has.
func staged(t rapid.TB, s *Store, v *View) *Install {
	t.Helper()
	in := beginInstall(t, s, v)
	if err := v.Export(in.Write, in.Token()); err != nil {
		t.Fatal(err)
	}
	if err := in.Finish(); err != nil {
		t.Fatal(err)
	}
	return in
}

// send installs shard of from in to.
func send(t rapid.TB, from, to *Store, shard int) {
	t.Helper()
	v := openView(t, from, shard)
	defer v.Close()
	if err := to.Install(staged(t, to, v)); err != nil {
		t.Fatal(err)
	}
}

func chunks(t rapid.TB, v *View, from []byte) (all [][]byte) {
	t.Helper()
	err := v.Export(func(b []byte) error {
		all = append(all, bytes.Clone(b))
		return nil
	}, from)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// filled returns a store whose two shards have rows, expiries and sessions, in
// all kinds of tables, and values longer than a chunk.
func filled(t rapid.TB, o Options) *Store {
	t.Helper()
	s := open(t, o)
	for i := range 300 {
		n := uint64(i + 1)
		c := cmds{in(n%5+1, n, 0, putTTL(fmt.Sprint("ttl", i), strings.Repeat("v", 100), 1e6)), put(fmt.Sprint("k", i%50), fmt.Sprint(i))}
		switch i {
		case 100:
			c = append(c, put("huge", strings.Repeat("h", 700<<10)))
		case 150:
			if err := s.Flush(); err != nil {
				t.Fatal(err)
			}
		case 200:
			if err := s.flushAll(); err != nil {
				t.Fatal(err)
			}
			c = append(c, del("k1"), del("ttl3"))
		}
		for shard := range 2 {
			if err := s.Apply([]Entry{{Shard: shard, Index: n, Data: entryOf(n, c...)}}, &delivered{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	return s
}

// A view is the state of its index, whatever becomes of the tables before and
// after it is used; sent in pieces, over interruptions and crashes of the
// receiver, it makes the receiver the same, next to a shard that keeps its own
// state; from there entries go on as ever.
func TestSnapshotModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		entries := drawEntries(t)
		shard := rapid.IntRange(0, 1).Draw(t, "shard")
		at := rapid.IntRange(0, len(entries)).Draw(t, "view after")
		all := [2]uint64{never, never}

		o := testOptions(nil)
		o.MemtableBytes = rapid.SampledFrom([]int64{1 << 10, 16 << 10, 16 << 20}).Draw(t, "recent bytes")
		a := open(t, o)
		upset := disturb(a, nil)
		upset.crashed = vfs.NewMem() // none wanted
		var begun []Entry
		if at > 0 {
			begun = entries[:at]
		}
		applyInPasses(t, a, begun, 8, func() { upset.do(t) })
		v := openView(t, a, shard)
		v.chunkBytes = rapid.SampledFrom([]int{chunkHeaderBytes + crcBytes + 64, 1000, 50_000, ChunkBytesMax}).Draw(t, "chunk bytes")
		early := rapid.Bool().Draw(t, "used early")
		var sum uint64
		if early {
			sum = viewSum(t, v)
		}
		applyInPasses(t, a, entries[at:], 8, func() { upset.do(t) })
		upset.release()
		if late := viewSum(t, v); early && late != sum {
			t.Fatalf("checksum %x, then %x", sum, late)
		} else {
			sum = late
		}

		ref := open(t, testOptions(nil))
		applyInPasses(t, ref, begun, max(1, len(begun)), func() {})
		if want := checksums(t, ref)[shard]; want != sum || ref.Applied(shard) != v.Applied() {
			t.Fatalf("checksum %x at %d, the store's %x at %d", sum, v.Applied(), want, ref.Applied(shard))
		}
		closeStore(t, ref)
		if v.Applied() > 0 {
			receive(t, entries, a, v, sum, all)
		} else if c := chunks(t, v, nil); len(c) != 1 {
			t.Fatalf("%d chunks of nothing", len(c))
		}
		v.Close()
		closeStore(t, a)
	})
}

func viewSum(t rapid.TB, v *View) uint64 {
	t.Helper()
	sum, err := v.Checksum(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

func receive(t *rapid.T, entries []Entry, a *Store, v *View, sum uint64, all [2]uint64) {
	shard, index := v.shard, v.Applied()
	have := rapid.Uint64Range(0, index-1).Draw(t, "receiver has") // of the shard
	var before []Entry
	for _, e := range entries {
		if e.Shard != shard && len(before) < 40 || e.Shard == shard && e.Index <= have {
			before = append(before, e)
		}
	}
	fs := vfs.NewCrashableMem()
	b := open(t, testOptions(fs))
	b.tableBytes = rapid.SampledFrom([]int{100, 5000, 1 << 20}).Draw(t, "table bytes")
	upset := disturb(b, nil)
	upset.crashed = fs
	applyInPasses(t, b, before, 8, func() { upset.do(t) })
	upset.release()
	in := beginInstall(t, b, v)
	interrupted := errors.New("interrupted")
	interruptions := rapid.IntRange(0, 6).Draw(t, "interruptions")
	for ended := false; !ended; interruptions-- {
		left := uint64(never)
		if interruptions > 0 {
			left = rapid.Uint64Range(0, 40).Draw(t, "chunks")
		}
		err := v.Export(func(c []byte) error {
			if left == 0 {
				return interrupted
			}
			left--
			return in.Write(c)
		}, in.Token())
		if err != nil && !errors.Is(err, interrupted) {
			t.Fatal(err)
		}
		ended = err == nil
		if interruptions <= 0 || !ended && rapid.Bool().Draw(t, "connection lost") {
			continue
		}
		if ended && rapid.Bool().Draw(t, "finish") {
			if err := in.Finish(); err != nil {
				t.Fatal(err)
			}
		}
		switch rapid.IntRange(0, 5).Draw(t, "interruption") {
		case 0:
			if err := in.Close(); err != nil {
				t.Fatal(err)
			}
			in, ended = beginInstall(t, b, v), false
		case 1:
			crashed := fs.CrashClone(vfs.CrashCloneCfg{
				UnsyncedDataPercent: rapid.SampledFrom([]int{0, 50, 100}).Draw(t, "survives"),
				RNG:                 rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "crash"), 1)),
			})
			closeStore(t, b)
			tableBytes := b.tableBytes
			fs, b = crashed, open(t, testOptions(crashed))
			b.tableBytes = tableBytes
			var again []Entry
			for _, e := range before {
				if e.Index > b.Applied(e.Shard) {
					again = append(again, e)
				}
			}
			applyInPasses(t, b, again, 8, func() {})
			in, ended = beginInstall(t, b, v), false
		}
	}
	if err := in.Finish(); err != nil {
		t.Fatal(err)
	}
	have2 := b.Applied(shard)
	for _, e := range entries { // a few more before Install
		if e.Shard == shard && e.Index > have2 && e.Index < index && rapid.IntRange(0, 3).Draw(t, "late entry") == 0 {
			applyInPasses(t, b, []Entry{e}, 1, func() {})
			break
		}
	}
	now := [2]uint64{b.Applied(0), b.Applied(1)}
	if err := b.Install(in); err != nil {
		t.Fatal(err)
	}
	now[shard] = index
	models, _ := replayModels(t, entries, now)
	sameAsModels(t, b, models)
	if got := checksums(t, b)[shard]; got != sum || b.Durable(shard) != index {
		t.Fatalf("checksum %x, of the view %x; durable %d, index %d", got, sum, b.Durable(shard), index)
	}
	if m, ok := b.Installed(shard); !ok || !m.equal(metaOf(v)) || b.Revision(shard) != models[shard].revision {
		t.Fatalf("installed %+v %v, revision %d of %d", m, ok, b.Revision(shard), models[shard].revision)
	}

	// Right after it only what is synced counts.
	c := open(t, testOptions(fs.CrashClone(vfs.CrashCloneCfg{})))
	found := [2]uint64{c.Applied(0), c.Applied(1)}
	if found[shard] != index {
		t.Fatalf("%d applied after a crash, installed was %d", found[shard], index)
	}
	models, _ = replayModels(t, entries, found)
	sameAsModels(t, c, models)
	if m, ok := c.Installed(shard); !ok || !m.equal(metaOf(v)) {
		t.Fatalf("installed %+v %v after a crash", m, ok)
	}
	closeStore(t, c)

	var rest []Entry
	for _, e := range entries {
		if e.Index > now[e.Shard] {
			rest = append(rest, e)
		}
	}
	applyInPasses(t, b, rest, 8, func() { upset.s, upset.gate = b, &gate{}; upset.do(t) })
	upset.release()
	models, _ = replayModels(t, entries, all)
	sameAsModels(t, b, models)
	diff(t, "checksums in the end", checksums(t, b), checksums(t, a))
	if rapid.Bool().Draw(t, "remove") {
		if err := b.RemoveShard(shard); err != nil {
			t.Fatal(err)
		}
		models[shard] = newModel()
		sameAsModels(t, b, models)
	}
	closeStore(t, b)
	if names, err := fs.List("data"); err != nil || slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, stagingPrefix) }) {
		t.Fatalf("staging left: %v, error %v", names, err)
	}
	applied, err := Verify(Options{FS: fs, Dir: "data", Shards: 2}, func(s string) { t.Error(s) })
	if err != nil || applied[shard] != models[shard].applied {
		t.Fatalf("verify: %d, error %v", applied, err)
	}
}

// Whenever the machine stops while a shard is installed or removed, its state
// is the old one or the new one, and the other shard has what was durable.
func TestCrashAtEveryStep(t *testing.T) {
	from := filled(t, testOptions(nil))
	defer closeStore(t, from)
	v := openView(t, from, 0)
	defer v.Close()
	sums := checksums(t, from)
	var old []uint64

	mem := vfs.NewCrashableMem()
	var mu sync.Mutex
	var cuts []*vfs.MemFS
	seed := uint64(0)
	cutNow := func() {
		mu.Lock()
		defer mu.Unlock()
		for _, survives := range []int{0, 50, 100} {
			seed++
			cuts = append(cuts, mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: survives, RNG: rand.New(rand.NewPCG(seed, 2))}))
		}
	}
	watch := &errorfs.Toggle{Injector: errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			cutNow()
		}
		return nil
	})}
	s := open(t, testOptions(errorfs.Wrap(mem, watch)))
	for i := range uint64(50) {
		for shard := range 2 {
			e := Entry{Shard: shard, Index: i + 1, Data: entryOf(i, put(fmt.Sprint("old", i), "v"), in(9, i+1, 0, putTTL("k1", "old", 5)))}
			if err := s.Apply([]Entry{e}, &delivered{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	old = checksums(t, s)
	// Not durable, of the other shard.
	if err := s.Apply([]Entry{{Shard: 1, Index: 51, Data: entryOf(99, put("later", "v"))}}, &delivered{}); err != nil {
		t.Fatal(err)
	}
	check := func(step string, states map[uint64]uint64) {
		t.Helper()
		mu.Lock() // Pebble may still be removing files
		found := cuts
		cuts = nil
		mu.Unlock()
		for _, fs := range found {
			after := open(t, testOptions(fs))
			index := after.Applied(0)
			want, ok := states[index]
			if got := checksums(t, after); !ok || got[0] != want {
				t.Fatalf("%s: checksum %x at %d, allowed are %x", step, got[0], index, states)
			}
			if m, installed := after.Installed(0); installed != (index == 300) || installed && !m.equal(metaOf(v)) {
				t.Fatalf("%s: installed %+v %v at %d", step, m, installed, index)
			}
			if n := after.Applied(1); n < 50 || get(t, after, 1, "k1", 1).Value != "old" || n == 50 && checksums(t, after)[1] != old[1] {
				t.Fatalf("%s: the other shard is at %d", step, n)
			}
			closeStore(t, after)
		}
		t.Logf("%s: %d cuts", step, len(found))
	}
	in := beginInstall(t, s, v)
	if err := v.Export(in.Write, nil); err != nil {
		t.Fatal(err)
	}
	watch.On()
	cutNow()
	if err := in.Finish(); err != nil {
		t.Fatal(err)
	}
	watch.Off()
	cutNow()
	check("before Finish", map[uint64]uint64{50: old[0]})

	watch.On()
	if err := s.Install(in); err != nil {
		t.Fatal(err)
	}
	watch.Off()
	check("Install", map[uint64]uint64{50: old[0], 300: sums[0]})
	cutNow()
	check("after Install", map[uint64]uint64{300: sums[0]})

	watch.On()
	if err := s.RemoveShard(0); err != nil {
		t.Fatal(err)
	}
	watch.Off()
	empty := newStateHash(meta{})
	check("RemoveShard", map[uint64]uint64{300: sums[0], 0: empty.finish()})
	cutNow()
	check("after RemoveShard", map[uint64]uint64{0: empty.finish()})
	closeStore(t, s)
}

// What the cache, the tables and Pebble know of the old state is gone at once,
// however it got there.
func TestInstallReplacesEverything(t *testing.T) {
	from := open(t, testOptions(nil))
	defer closeStore(t, from)
	for range 10 {
		do(t, from, 100, in(7, from.Applied(0)+1, 0, put("new", "n")), putTTL("t", "x", 50))
	}
	for _, state := range []string{"active", "frozen", "drained", "flushed"} {
		s := open(t, testOptions(nil))
		g := newGate(s)
		do(t, s, 900, put("old", "o"), put("new", "o"), putTTL("u", "x", 5), in(3, 1, 0, put("in session", "v")))
		if err := s.Apply([]Entry{{Shard: 1, Index: 1, Data: entryOf(1, put("other", "v"))}}, &delivered{}); err != nil {
			t.Fatal(err)
		}
		get(t, s, 0, "old", 1)
		get(t, s, 0, "absent", 1)
		get(t, s, 1, "other", 1)
		switch state {
		case "frozen":
			g.Lock()
			rotateTable(s)
			go func() { <-g.waits; g.Unlock() }()
		case "drained":
			if err := s.flushAll(); err != nil {
				t.Fatal(err)
			}
		case "flushed":
			if err := s.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		stale := openView(t, s, 0)
		v := openView(t, from, 0)
		install := staged(t, s, v)
		do(t, s, 901, put("late", "o")) // after Finish: Install flushes
		if err := s.Install(install); err != nil {
			t.Fatal(err)
		}
		v.Close()
		for _, key := range []string{"old", "late", "in session", "absent", "u"} {
			diff(t, state+": "+key, get(t, s, 0, key, 1), read{})
		}
		diff(t, state+": new", get(t, s, 0, "new", 1), read{"n", 19, 0, true})
		if _, hit := s.AppendCached(nil, 1, []byte("other"), 1, false); hit != command.ReadFound {
			t.Error("the other shard has lost its cache")
		}
		next, _ := s.NextExpiry(0)
		diff(t, state, []uint64{s.Applied(0), s.Durable(0), s.LastStamp(0), s.Revision(0), next}, []uint64{10, 10, 100, 20, 150})
		diff(t, state+": sums", checksums(t, s)[0], checksums(t, from)[0])
		if err := stale.Export(func([]byte) error { return nil }, nil); !errors.Is(err, ErrViewGone) {
			t.Errorf("%s: export of a replaced state: %v", state, err)
		}
		// The dropped session is unknown, the new one is known.
		diff(t, "retry", do(t, s, 100, in(7, 10, 0, put("new", "n")), in(3, 1, 0, put("in session", "v"))), results{ok(19), ok(21)})

		if err := s.RemoveShard(0); err != nil {
			t.Fatal(err)
		}
		for _, key := range []string{"new", "in session", "t"} {
			diff(t, key+" removed", get(t, s, 0, key, 1), read{})
		}
		_, due := s.NextExpiry(0)
		_, installed := s.Installed(0)
		diff(t, "removed", []any{s.Applied(0), s.Durable(0), s.LastStamp(0), s.Revision(0), due, installed}, []any{uint64(0), uint64(0), uint64(0), uint64(0), false, false})
		diff(t, "begins anew", do(t, s, 1, in(7, 10, 0, put("new", "first"))), results{ok(1)})
		diff(t, "the other", get(t, s, 1, "other", 1).Value, "v")
		send(t, from, s, 0)
		s = reopen(t, s)
		diff(t, "again", checksums(t, s)[0], checksums(t, from)[0])
		stale.Close()
		closeStore(t, s)
	}
}

// A shard is not replaced while a table has something of it, although Pebble
// has it as well.
func TestReplacementWaitsForTheFlush(t *testing.T) {
	s := open(t, testOptions(nil))
	defer closeStore(t, s)
	g := newGate(s)
	g.Lock()
	do(t, s, 1, put("old", "v"))
	rotateTable(s)
	<-g.waits
	s.shards[0].durable.Store(1) // as after a flush that was quicker than the release of the table
	drains := make(chan bool)
	go func() {
		if err := (shardRange{s, 0, 0}).lockSettled(); err != nil {
			t.Error(err)
		}
		defer s.publishing.Unlock()
		drains <- s.memtables.flushes(0)
	}()
	for range 1000 { // time to do it wrong
		runtime.Gosched()
	}
	g.Unlock()
	if <-drains {
		t.Error("a table has rows of the shard")
	}
}

// Whatever is not the next chunk of the snapshot is refused and changes nothing.
func TestChunksThatAreRefused(t *testing.T) {
	from := filled(t, testOptions(nil))
	defer closeStore(t, from)
	v := openView(t, from, 0)
	defer v.Close()
	v.chunkBytes = 20_000
	all := chunks(t, v, nil)
	other := openView(t, from, 0)
	defer other.Close()
	shard1 := openView(t, from, 1)
	defer shard1.Close()
	s := openTest(t)
	in := beginInstall(t, s, v)
	refuse := func(name string, b []byte) {
		t.Helper()
		token := in.Token()
		if err := in.Write(b); !errors.Is(err, ErrChunk) {
			t.Errorf("%s: %v", name, err)
		}
		if !bytes.Equal(in.Token(), token) {
			t.Errorf("%s has moved the token", name)
		}
	}
	change := func(b []byte, f func(c *chunk)) []byte {
		c, err := decodeChunk(b)
		if err != nil {
			t.Fatal(err)
		}
		f(&c)
		return c.seal(append(make([]byte, chunkHeaderBytes), c.payload...))
	}
	if in.Token() != nil {
		t.Error("a token before the first chunk")
	}
	if err := in.Finish(); !errors.Is(err, ErrIncomplete) {
		t.Errorf("finish: %v", err)
	}
	broken := 0
	for i, b := range all {
		if i == 0 || i == 3 || i == len(all)-1 {
			for at := 0; at < len(b); at += 1 + len(b)/500 {
				damaged := bytes.Clone(b)
				damaged[at] ^= 4
				refuse(fmt.Sprintf("byte %d flipped", at), damaged)
				refuse(fmt.Sprintf("%d bytes", at), b[:at])
			}
			refuse("more bytes", append(bytes.Clone(b), 0))
			refuse("another view", chunks(t, other, nil)[0])
			refuse("another shard", chunks(t, shard1, nil)[0])
			refuse("a chunk ahead", change(b, func(c *chunk) { c.sequence++ }))
			refuse("another index", change(b, func(c *chunk) { c.meta.applied-- }))
			refuse("another count", change(b, func(c *chunk) { c.records++ }))
			refuse("another checksum", change(b, func(c *chunk) { c.sum++ }))
			refuse("shard", change(b, func(c *chunk) { c.shard = 1 }))
			if i > 0 {
				refuse("another state", change(b, func(c *chunk) { c.meta.stamp++ }))
				refuse("the end too early", change(all[len(all)-1], func(c *chunk) { c.sequence = uint64(i); c.sum++ }))
				refuse("again", all[i-1])
			}
		}
		if in.state.left > 0 {
			broken++
			refuse("the end within a record", change(all[len(all)-1], func(c *chunk) {
				hash := in.state.hash
				c.sequence, c.records, c.sum = uint64(i), in.state.records, hash.finish()
			}))
		}
		if err := in.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	if broken == 0 {
		t.Error("no record of several chunks")
	}
	if err := in.Write(all[len(all)-1]); err != nil {
		t.Errorf("the last chunk again: %v", err)
	}
	refuse("a chunk after the end", change(all[0], func(c *chunk) { c.sequence = uint64(len(all) - 1) }))
	if err := s.Install(in); !errors.Is(err, ErrIncomplete) {
		t.Errorf("install before finish: %v", err)
	}
	for range 2 {
		if err := in.Finish(); err != nil {
			t.Fatal(err)
		}
	}
	if err := from.Install(in); err == nil {
		t.Error("installs in another store")
	}
	if err := s.Install(in); err != nil {
		t.Fatal(err)
	}
	diff(t, "sums", checksums(t, s)[0], checksums(t, from)[0])
	for name, err := range map[string]error{"install": s.Install(in), "write": in.Write(all[0]), "finish": in.Finish()} {
		if !errors.Is(err, ErrInstallOver) {
			t.Errorf("%s afterwards: %v", name, err)
		}
	}
	if err := errors.Join(in.Abort(), in.Close()); err != nil {
		t.Errorf("end afterwards: %v", err)
	}
}

// Records in a chunk that is otherwise right.
func TestRecordsThatAreRefused(t *testing.T) {
	row := func(version uint64) []byte {
		b := make([]byte, rowHeaderBytes)
		putRowHeader(b, version, 0)
		return b
	}
	key := func(full []byte) []byte { return full[shardBytes:] }
	a, b := key(appendDataKey(nil, 0, []byte("a"))), key(appendDataKey(nil, 0, []byte("b")))
	for name, records := range map[string][]record{
		"order":           {{b, row(1)}, {a, row(1)}},
		"twice":           {{a, row(1)}, {a, row(1)}},
		"version":         {{a, row(6)}},
		"no version":      {{a, row(0)}},
		"short row":       {{a, []byte{1}}},
		"no key":          {{a[:1], row(1)}},
		"state":           {{[]byte{kindMeta}, make([]byte, metaBytes)}},
		"installation":    {{[]byte{kindInstall}, appendInstallMeta(nil, InstallMeta{Index: 1})}},
		"kind":            {{[]byte("zzz"), nil}},
		"expiry":          {{key(appendExpiryBound(nil, 0, 4)), nil}},
		"expiry value":    {{append(key(appendExpiryBound(nil, 0, 4)), 'k'), []byte{1}}},
		"session":         {{key(appendSessionKey(nil, 0, 1, 1, 0)), []byte{1, 2}}},
		"session's stamp": {{key(appendSessionKey(nil, 0, 1, 1, 0)), append([]byte{sessionRecordFormat, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 0, 0, 1, 0, 0)}},
	} {
		s := open(t, testOptions(nil))
		in, err := s.BeginInstall(0, 1, InstallMeta{Index: 5})
		if err != nil {
			t.Fatal(err)
		}
		m := meta{5, 5, 5}
		state := streamState{hash: newStateHash(m)}
		buf := make([]byte, chunkHeaderBytes)
		for _, r := range records {
			state.begin(r.key, len(r.value))
			state.add(r.value)
			buf = append(appendRecordHeader(buf, r.key, len(r.value)), r.value...)
		}
		c := chunk{id: 1, meta: m, records: state.records, sum: state.hash.sum()}
		if err := in.Write(c.seal(buf)); !errors.Is(err, ErrChunk) {
			t.Errorf("%s: %v", name, err)
		}
		if err := in.Abort(); err != nil {
			t.Error(err)
		}
		closeStore(t, s)
	}
}

func TestBoundsOfRecords(t *testing.T) {
	data, session := []byte{kindData, 'k'}, []byte{kindSession}
	long := bytes.Repeat([]byte{kindData}, streamKeyBytesMax+1)
	for i, c := range []struct {
		key   []byte
		value uint64
		ok    bool
	}{
		{data, streamValueBytesMax, true}, {data, streamValueBytesMax + 1, false}, {data, 1 << 63, false},
		{session, streamSessionBytesMax, true}, {session, streamSessionBytesMax + 1, false},
		{long[1:], 0, true}, {long, 0, false},
	} {
		if err := checkRecordSize(c.key, c.value); (err == nil) != c.ok {
			t.Errorf("case %d: %v", i, err)
		}
		if c.value < 1<<40 {
			if n := len(appendRecordHeader(nil, c.key, int(c.value))); n != recordHeaderBytes(c.key, int(c.value)) {
				t.Errorf("case %d: header of %d bytes", i, n)
			}
		}
	}
	s := openTest(t)
	for n, ok := range map[int]bool{ConfBytesMax: true, ConfBytesMax + 1: false} {
		in, err := s.BeginInstall(0, 1, InstallMeta{Index: 1, Conf: make([]byte, n)})
		if (err == nil) != ok {
			t.Errorf("configuration of %d bytes: %v", n, err)
		}
		if err == nil {
			_ = in.Abort()
		}
	}
	// The longest key and value that a frame can bring.
	do(t, s, 1, put(strings.Repeat("k", 8<<10), strings.Repeat("v", 15<<20)), put("z", ""))
	v := openView(t, s, 0)
	defer v.Close()
	for _, b := range chunks(t, v, nil) {
		if len(b) > ChunkBytesMax {
			t.Errorf("chunk of %d bytes", len(b))
		}
	}
	to := openTest(t)
	send(t, s, to, 0)
	diff(t, "sums", checksums(t, to), checksums(t, s))
}

func TestBeginInstallRefuses(t *testing.T) {
	s := openTest(t)
	do(t, s, 1, put("k", "v"))
	if _, err := s.BeginInstall(0, 1, InstallMeta{Index: 1}); !errors.Is(err, ErrStaleIndex) {
		t.Errorf("index 1: %v", err)
	}
	if _, err := s.BeginInstall(1, 1, InstallMeta{}); !errors.Is(err, ErrStaleIndex) {
		t.Errorf("index 0: %v", err)
	}
	in, err := s.BeginInstall(0, 1, InstallMeta{Index: 2})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.BeginInstall(0, 2, InstallMeta{Index: 2}); !errors.Is(err, ErrInstalling) {
		t.Errorf("second: %v", err)
	}
	for _, shard := range []int{-1, 2} {
		_, beginErr := s.BeginInstall(shard, 1, InstallMeta{Index: 2})
		_, viewErr := s.OpenView(shard)
		if beginErr == nil || viewErr == nil || s.RemoveShard(shard) == nil {
			t.Errorf("shard %d is taken", shard)
		}
	}
	if err := in.Abort(); err != nil {
		t.Error(err)
	}
	// Entries that were applied meanwhile.
	from := openTest(t)
	do(t, from, 1, put("k", "w"))
	do(t, from, 1, put("k", "w"))
	v := openView(t, from, 0)
	defer v.Close()
	in = staged(t, s, v)
	do(t, s, 1, put("k", "x"))
	if err := s.Install(in); !errors.Is(err, ErrStaleIndex) {
		t.Errorf("install: %v", err)
	}
	diff(t, "k", get(t, s, 0, "k", 1).Value, "x")
	if err := in.Abort(); err != nil {
		t.Error(err)
	}
}

// A shard that never applied anything is installed where its log begins.
func TestEmptySnapshot(t *testing.T) {
	from, s := openTest(t), openTest(t)
	v := openView(t, from, 0)
	defer v.Close()
	in, err := s.BeginInstall(0, v.ID(), InstallMeta{Index: 1, Term: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Export(in.Write, nil); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(in.Finish(), s.Install(in)); err != nil {
		t.Fatal(err)
	}
	diff(t, "sums", checksums(t, s), checksums(t, from))
	diff(t, "state", []uint64{v.Applied(), s.Applied(0), s.Durable(0)}, []uint64{0, 1, 1})
}

func TestTokens(t *testing.T) {
	from := filled(t, testOptions(nil))
	v, other := openView(t, from, 0), openView(t, from, 0)
	v.chunkBytes = 10_000
	s := openTest(t)
	in := beginInstall(t, s, v)
	n := 0
	enough := errors.New("enough")
	err := v.Export(func(b []byte) error {
		if n++; n > 30 { // within the huge value
			return enough
		}
		return in.Write(b)
	}, nil)
	token := in.Token()
	if err != enough || in.state.left == 0 {
		t.Fatalf("%v, left %d", err, in.state.left)
	}
	if err := other.Export(in.Write, token); !errors.Is(err, ErrToken) {
		t.Errorf("another view: %v", err)
	}
	for i := range token {
		bad := bytes.Clone(token)
		bad[i] ^= 1
		if err := v.Export(in.Write, bad); !errors.Is(err, ErrToken) {
			t.Errorf("byte %d flipped: %v", i, err)
		}
		if err := v.Export(in.Write, token[:i]); i > 0 && !errors.Is(err, ErrToken) || i == 0 && !errors.Is(err, ErrChunk) {
			t.Errorf("%d bytes: %v", i, err)
		}
	}
	lost := in.state.clone()
	lost.key = []byte("dno such row")
	if err := v.Export(in.Write, lost.appendTo(nil, v.ID())); !errors.Is(err, ErrToken) {
		t.Errorf("a row that is not there: %v", err)
	}
	if err := v.Export(in.Write, token); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(in.Finish(), s.Install(in)); err != nil {
		t.Fatal(err)
	}
	diff(t, "sums", checksums(t, s)[0], checksums(t, from)[0])
	v.Close()
	v.Close()
	if _, err := v.Checksum(t.Context()); !errors.Is(err, ErrViewGone) {
		t.Errorf("closed: %v", err)
	}
	closeStore(t, from)
	if err := other.Export(in.Write, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("store closed: %v", err)
	}
	other.Close()
	if _, err := from.OpenView(0); !errors.Is(err, ErrClosed) {
		t.Errorf("view of a closed store: %v", err)
	}
}

// What was staged is used again, unless it is of another snapshot or damaged.
func TestStagingIsPickedUp(t *testing.T) {
	from := filled(t, testOptions(nil))
	defer closeStore(t, from)
	v := openView(t, from, 0)
	defer v.Close()
	mem := vfs.NewMem()
	s := open(t, testOptions(mem))
	s.tableBytes = 15_000
	in := beginInstall(t, s, v)
	v.chunkBytes = 10_000
	if err := v.Export(in.Write, nil); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s) // ends it, too
	if err := in.Write(nil); !errors.Is(err, ErrClosed) {
		t.Errorf("write: %v", err)
	}
	dir := stagingDir(s.opts, 0)
	copyOf := func() *Store {
		fs := vfs.NewMem()
		if ok, err := vfs.Clone(mem, fs, "data", "data"); !ok || err != nil {
			t.Fatal(ok, err)
		}
		return open(t, testOptions(fs))
	}
	for name, change := range map[string]func(fs vfs.FS, id *uint64, m *InstallMeta){
		"same":           func(vfs.FS, *uint64, *InstallMeta) {},
		"other view":     func(_ vfs.FS, id *uint64, _ *InstallMeta) { *id++ },
		"other term":     func(_ vfs.FS, _ *uint64, m *InstallMeta) { m.Term++ },
		"other conf":     func(_ vfs.FS, _ *uint64, m *InstallMeta) { m.Conf = nil },
		"damaged table":  func(fs vfs.FS, _ *uint64, _ *InstallMeta) { flipByte(t, fs, dir+"/000001.sst", 500) },
		"lost table":     func(fs vfs.FS, _ *uint64, _ *InstallMeta) { _ = fs.Remove(dir + "/000000.sst") },
		"short table":    func(fs vfs.FS, _ *uint64, _ *InstallMeta) { writeFile(t, fs, dir+"/000000.sst", nil) },
		"damaged":        func(fs vfs.FS, _ *uint64, _ *InstallMeta) { flipByte(t, fs, dir+"/"+progressName, 30) },
		"without":        func(fs vfs.FS, _ *uint64, _ *InstallMeta) { _ = fs.Remove(dir + "/" + progressName) },
		"table too many": func(fs vfs.FS, _ *uint64, _ *InstallMeta) { writeFile(t, fs, dir+"/000099.sst", []byte("x")) },
	} {
		s := copyOf()
		id, m := v.ID(), metaOf(v)
		change(s.opts.FS, &id, &m)
		in, err := s.BeginInstall(0, id, m)
		if err != nil {
			t.Fatal(err)
		}
		kept := name == "same" || name == "table too many"
		if (in.Token() != nil) != kept {
			t.Errorf("%s: token %x", name, in.Token())
		}
		names, err := s.opts.FS.List(dir)
		if err != nil || (len(names) > 0) != kept || slices.Contains(names, "000099.sst") {
			t.Errorf("%s: %v, error %v", name, names, err)
		}
		if kept {
			if n := len(chunks(t, v, in.Token())); n > 20 {
				t.Errorf("%s: %d chunks again", name, n)
			}
			if err := errors.Join(v.Export(in.Write, in.Token()), in.Finish(), s.Install(in)); err != nil {
				t.Fatal(err)
			}
			diff(t, "sums", checksums(t, s)[0], checksums(t, from)[0])
		} else if err := in.Abort(); err != nil {
			t.Error(err)
		}
		if _, err := s.opts.FS.Stat(dir); err == nil {
			t.Errorf("%s: the directory stays", name)
		}
		closeStore(t, s)
	}
	// Open removes what is of no use, RemoveShard what is not used.
	s = copyOf()
	if _, err := s.opts.FS.Stat(dir); err != nil {
		t.Error(err)
	}
	if err := s.RemoveShard(0); err != nil {
		t.Error(err)
	}
	if _, err := s.opts.FS.Stat(dir); err == nil {
		t.Error("RemoveShard leaves it")
	}
	closeStore(t, s)
	s = copyOf()
	if err := s.Apply([]Entry{{Index: v.Applied()}}, &delivered{}); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, s)
	if _, err := s.opts.FS.Stat(dir); err == nil {
		t.Error("Open leaves it")
	}
	closeStore(t, s)
}

func flipByte(t *testing.T, fs vfs.FS, path string, at int) {
	t.Helper()
	f, err := fs.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	if _, err := f.ReadAt(b[:], int64(at)); err != nil {
		t.Fatal(path, err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b[:], int64(at)); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// Errors of the disk: while staging they end the installation, while
// installing they are fatal.
func TestSnapshotDiskErrors(t *testing.T) {
	from := filled(t, testOptions(nil))
	defer closeStore(t, from)
	v := openView(t, from, 0)
	defer v.Close()
	for _, kind := range []errorfs.OpKind{errorfs.OpCreate, errorfs.OpFileWrite, errorfs.OpFileSync, errorfs.OpRename, errorfs.OpLink} {
		mem := vfs.NewCrashableMem()
		faults := &errorfs.Toggle{Injector: errorfs.InjectorFunc(func(op errorfs.Op) error {
			staging := strings.Contains(op.Path, stagingPrefix)
			if op.Kind == kind && staging || kind == errorfs.OpLink && op.Kind == errorfs.OpCreate && !staging {
				return syscall.ENOSPC // instead of a link Pebble would make a copy
			}
			return nil
		})}
		s := open(t, testOptions(errorfs.Wrap(mem, faults)))
		do(t, s, 1, put("old", "v"))
		in := beginInstall(t, s, v)
		if kind != errorfs.OpLink {
			faults.On()
		}
		err := v.Export(in.Write, nil)
		if err == nil {
			err = in.Finish()
		}
		if kind == errorfs.OpLink {
			if err != nil {
				t.Fatal(err)
			}
			faults.On()
			if err := s.Install(in); !errors.Is(err, syscall.ENOSPC) || !errors.Is(err, ErrFailed) {
				t.Errorf("install: %v", err)
			}
			if err := s.Close(); !errors.Is(err, ErrFailed) {
				t.Errorf("close: %v", err)
			}
		} else {
			if !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("%v: %v", kind, err)
			}
			if again := in.Write(nil); !errors.Is(again, syscall.ENOSPC) {
				t.Errorf("%v, again: %v", kind, again)
			}
			faults.Off()
			if err := in.Abort(); err != nil {
				t.Error(err)
			}
			diff(t, "goes on", do(t, s, 1, put("more", "v")), results{ok(2)})
			if err := s.Install(staged(t, s, v)); err != nil {
				t.Error(err)
			}
			closeStore(t, s)
		}
		after := open(t, testOptions(mem.CrashClone(vfs.CrashCloneCfg{})))
		if n := after.Applied(0); kind != errorfs.OpLink && n != 300 || kind == errorfs.OpLink && n != 1 {
			t.Errorf("%v: applied %d afterwards", kind, n)
		}
		closeStore(t, after)
	}
}

func TestExportReadsADamagedDatabase(t *testing.T) {
	s := open(t, testOptions(nil))
	do(t, s, 1, put("a", "b"), put("z", "y"))
	if err := s.flushAll(); err != nil {
		t.Fatal(err)
	}
	if err := s.db.Set(appendDataKey(nil, 0, []byte("k")), []byte{9}, pebble.NoSync); err != nil {
		t.Fatal(err)
	}
	v := openView(t, s, 0)
	err := v.Export(func(b []byte) error { t.Error("a chunk is written"); return nil }, nil)
	if !errors.Is(err, ErrCorrupt) {
		t.Errorf("export: %v", err)
	}
	if _, err := v.Checksum(t.Context()); !errors.Is(err, ErrCorrupt) {
		t.Errorf("checksum: %v", err)
	}
	closeStore(t, s)

	mem := vfs.NewMem()
	s = filled(t, testOptions(mem))
	closeStore(t, s)
	broken := errors.New("broken disk")
	fs, faults := faultyTables(mem, broken, errorfs.OpFileReadAt)
	s = open(t, testOptions(fs))
	v = openView(t, s, 0)
	faults.On()
	if err := v.Export(func([]byte) error { return nil }, nil); !errors.Is(err, broken) {
		t.Errorf("export: %v", err)
	}
	faults.Off()
	if err := s.Close(); err != nil && !errors.Is(err, broken) { // a compaction may have come to the disk too
		t.Errorf("close: %v", err)
	}
}

// While a shard is replaced its rows are always found.
func TestReadsDuringInstall(t *testing.T) {
	from, to := filled(t, testOptions(nil)), open(t, testOptions(nil))
	defer closeStore(t, from)
	defer closeStore(t, to)
	install := func() {
		n := from.Applied(0)
		if err := from.Apply([]Entry{{Index: n + 1, Data: entryOf(1, incr("counter", 1))}}, &delivered{}); err != nil {
			t.Fatal(err)
		}
		v := openView(t, from, 0)
		defer v.Close()
		if err := to.Install(staged(t, to, v)); err != nil {
			t.Fatal(err)
		}
	}
	install()
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			b := bufpool.Get(0)
			defer b.Release()
			for !stop.Load() {
				if _, found, err := to.Append(b, 0, []byte("counter"), 1, command.NoValue); err != nil || !found {
					t.Errorf("found %v, error %v", found, err)
					return
				}
			}
		})
	}
	for range 60 {
		install()
	}
	stop.Store(true)
	wg.Wait()
}

// Views are sent while entries of all shards are applied, and tables drained
// and flushed; the receiver applies entries of the other shard, and is read.
func TestSnapshotsUnderLoad(t *testing.T) {
	from, to := filled(t, testOptions(nil)), open(t, testOptions(nil))
	defer closeStore(t, from)
	defer closeStore(t, to)
	var stop atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		for !stop.Load() {
			if err := errors.Join(from.Flush(), to.FlushAsync()); err != nil {
				t.Error(err)
			}
		}
	})
	for range 2 { // a reader never sees a row, or the revision, go back
		wg.Go(func() {
			last, revision := uint64(0), uint64(0)
			for !stop.Load() {
				r := to.Revision(0)
				b := bufpool.Get(0)
				row, _, err := to.Append(b, 0, []byte("counter"), 1, command.AnyValue)
				b.Release()
				if err != nil || row.Version < last || r < revision {
					t.Errorf("version %d after %d, revision %d after %d, error %v", row.Version, last, r, revision, err)
					return
				}
				last, revision = row.Version, r
			}
		})
	}
	type sending struct {
		v   *View
		sum uint64
		err error
	}
	sent := make(chan sending)
	for round := range 6 {
		v := openView(t, from, 0)
		v.chunkBytes = 5000
		go func() {
			sum, err := v.Checksum(context.Background())
			sent <- sending{v, sum, err}
		}()
		in := beginInstall(t, to, v)
		exported := make(chan error)
		go func() { exported <- errors.Join(v.Export(in.Write, nil), in.Finish()) }()
		for ended := false; !ended; {
			for shard := range 2 {
				n := from.Applied(shard)
				e := Entry{Shard: shard, Index: n + 1, Data: entryOf(1, incr("counter", 1), put(fmt.Sprint("k", n%70), "x"), del(fmt.Sprint("ttl", n%300)))}
				if err := from.Apply([]Entry{e}, &delivered{}); err != nil {
					t.Fatal(err)
				}
			}
			e := Entry{Shard: 1, Index: to.Applied(1) + 1, Data: entryOf(1, incr("counter", 1))}
			if err := to.Apply([]Entry{e}, &delivered{}); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-exported:
				if err != nil {
					t.Fatal(err)
				}
				ended = true
			default:
			}
		}
		if err := to.Install(in); err != nil {
			t.Fatal(err)
		}
		x := <-sent
		if got := checksums(t, to)[0]; x.err != nil || got != x.sum || to.Applied(0) != v.Applied() {
			t.Fatalf("round %d: checksum %x, of the view %x, error %v", round, got, x.sum, x.err)
		}
		x.v.Close()
	}
	stop.Store(true)
	wg.Wait()
	diff(t, "the other shard", get(t, to, 1, "counter", 1).Value, fmt.Sprint(to.Applied(1)))
}

// Close ends what is under way.
func TestCloseDuringExport(t *testing.T) {
	s := filled(t, testOptions(nil))
	v := openView(t, s, 0)
	v.chunkBytes = 1000
	started := make(chan struct{}, 1)
	ended := make(chan error)
	go func() {
		var err error
		for err == nil {
			err = v.Export(func([]byte) error {
				select {
				case started <- struct{}{}:
				default:
				}
				return nil
			}, nil)
		}
		ended <- err
	}()
	<-started
	closeStore(t, s)
	if err := <-ended; !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

func TestViewsAndInstallsOfAFailedStore(t *testing.T) {
	from := filled(t, testOptions(nil))
	defer closeStore(t, from)
	v := openView(t, from, 0)
	s := open(t, testOptions(nil))
	in := staged(t, s, v)
	if err := s.Apply([]Entry{{Index: 1, Data: []byte("not an entry")}}, &delivered{}); !errors.Is(err, ErrFailed) {
		t.Error(err)
	}
	if err := s.Install(in); !errors.Is(err, ErrFailed) {
		t.Errorf("install: %v", err)
	}
	if err := s.RemoveShard(0); !errors.Is(err, ErrFailed) {
		t.Errorf("remove: %v", err)
	}
	if err := s.Close(); !errors.Is(err, ErrFailed) {
		t.Errorf("close: %v", err)
	}
}

// With tables that are never full nothing happens by itself: what a simulator
// relies on.
func TestNothingIsDurableUnasked(t *testing.T) {
	o := testOptions(nil)
	o.MemtableBytes = 64 << 20
	o.RowCacheBytes = -1
	flushed := 0
	s := open(t, o)
	defer closeStore(t, s)
	s.flusher.before = func() error { flushed++; return nil }
	for i := range 2000 {
		do(t, s, 1, put(fmt.Sprint("k", i%100), strings.Repeat("v", 10_000)))
		if i%500 == 0 {
			v := openView(t, s, 0)
			if _, err := v.Checksum(t.Context()); err != nil {
				t.Fatal(err)
			}
			v.Close()
		}
	}
	if flushed != 0 || s.Durable(0) != 0 || s.memtables.flushing() != nil || s.Stats().Flushes != 0 {
		t.Errorf("%d drains, durable %d", flushed, s.Durable(0))
	}
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	if flushed != 1 || s.Durable(0) != 2000 {
		t.Errorf("%d drains, durable %d after a flush", flushed, s.Durable(0))
	}
}

// TestChecksumInPages reads a view whose records fill several chunks, in the
// tables and in Pebble, and gives up when its context ends.
func TestChecksumInPages(t *testing.T) {
	o := testOptions(vfs.NewMem())
	o.MemtableBytes = 8 * ChunkBytesMax
	s := open(t, o)
	defer closeStore(t, s)
	value := strings.Repeat("v", ChunkBytesMax)
	for i := range 12 {
		do(t, s, 0, put(fmt.Sprint("k", i%10), value))
	}
	do(t, s, 0, put("large", strings.Repeat("l", 12*ChunkBytesMax)))
	v := openView(t, s, 0)
	defer v.Close()
	want, _, err := s.Checksum(0)
	if got := viewSum(t, v); err != nil || got != want {
		t.Errorf("%x, want %x, %v", got, want, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := v.Checksum(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("its context ended: %v", err)
	}
}
