package memtable

import (
	"bytes"
	"fmt"
	"hash/maphash"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"
)

var seed = maphash.MakeSeed()

func hash(key string) uint64 { return maphash.String(seed, key) }

// add adds a record as a writer does.
func (t *Table) add(l List, key string, r record) {
	var to Record
	if r.deleted {
		to = t.ReserveDeletion(len(key))
	} else {
		to = t.Reserve(len(key), len(r.value))
		copy(to.Value(), r.value)
	}
	copy(to.Key(), key)
	t.Add(l, hash(key), to)
}

type record struct {
	value   string
	deleted bool
}

// model is what a table has of each key: nothing, or a record.
type model map[string]record

func (m model) deleteRange(from, to string, keys []string) {
	for _, key := range keys {
		if from <= key && key < to {
			m[key] = record{deleted: true}
		}
	}
}

func (t *Table) check(tt *rapid.T, key string, want model) {
	r, found := t.Get(hash(key), []byte(key))
	wanted, there := want[key]
	if found != there || found && (r.Deleted() != wanted.deleted || string(r.Value()) != wanted.value) {
		tt.Fatalf("key %q: found %v %q, want %v %+v", key, found, r, there, wanted)
	}
}

// walk returns what an iterator shows, in its order.
func walk(it Iterator, forward func(a, b []byte) bool) (model, error) {
	got, last := model{}, []byte(nil)
	for it.Next() {
		if last != nil && !forward(last, it.Key()) {
			return nil, fmt.Errorf("key %q after %q", it.Key(), last)
		}
		last = it.Key()
		r := record{deleted: it.Deleted()}
		if !r.deleted {
			r.value = string(it.Value())
		}
		got[string(last)] = r
	}
	if it.Key() != nil {
		return nil, fmt.Errorf("key %q at the end", it.Key())
	}
	return got, nil
}

// A table says of each key what was published last. Snapshots taken at any time
// keep saying in order what was there then, whenever they are sorted.
func TestTableAgainstModel(t *testing.T) {
	type snapshot struct {
		Snapshot
		want model
	}
	rapid.Check(t, func(t *rapid.T) {
		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		n := rapid.SampledFrom([]int{1, 5, 100, 2000}).Draw(t, "keys")
		prefix := rapid.SampledFrom([]string{"", "0123456", "a rather long common beginning "}).Draw(t, "prefix")
		withRanges := rapid.Bool().Draw(t, "ranges")
		var keys []string
		for i := range n {
			keys = append(keys, prefix+strings.Repeat("\x00", i%3)+fmt.Sprint(i))
		}
		table := New(300 << 10)
		for range 2 { // the second time after Reset
			table.Reset()
			published, pending := model{}, model{}
			var snapshots []snapshot
			publish := func() {
				table.Publish()
				published = maps.Clone(pending)
			}
			check := func(s *snapshot) {
				for _, reverse := range []bool{false, true} {
					lower, upper := "", "\xff"
					if random.IntN(2) == 0 {
						lower, upper = keys[random.IntN(n)], keys[random.IntN(n)]
					}
					it := NewIterator([]Snapshot{s.Snapshot}, Rows, []byte(lower), []byte(upper), reverse)
					got, err := walk(it, func(a, b []byte) bool { return (bytes.Compare(a, b) < 0) != reverse })
					if err != nil {
						t.Fatal(err)
					}
					want := model{}
					for key, r := range s.want { // without those that only a range deletes
						if _, there := got[key]; lower <= key && key < upper && (there || !r.deleted) {
							want[key] = r
						}
					}
					if !maps.Equal(got, want) {
						t.Fatalf("[%q, %q): %v, want %v", lower, upper, got, want)
					}
				}
				it := NewIterator([]Snapshot{s.Snapshot}, Rows, nil, []byte{0xff}, false)
				got, _ := walk(it, func(a, b []byte) bool { return true })
				for range 5 {
					key := keys[random.IntN(n)]
					_, found := got[key]
					_, there := s.want[key]
					if deletes := it.Deletes([]byte(key)) != nil; deletes && !there || !deletes && there && !found {
						t.Fatalf("key %q: deletes what is older %v, found %v, in the model %v", key, deletes, found, there)
					}
				}
			}
			for range 2000 {
				key := keys[random.IntN(n)]
				switch random.IntN(40) {
				case 0, 1:
					publish()
				case 2:
					publish()
					if len(snapshots) < 8 {
						snapshots = append(snapshots, snapshot{table.Snapshot(), published})
					}
				case 3:
					if len(snapshots) > 0 {
						check(&snapshots[random.IntN(len(snapshots))])
					}
				case 4:
					if withRanges {
						to := keys[random.IntN(n)]
						from := min(key, to)
						to = max(key, to) + "\x00"
						table.AddRange([]byte(from), []byte(to))
						pending.deleteRange(from, to, keys)
					}
				default:
					r := record{deleted: random.IntN(4) == 0}
					if !r.deleted {
						r.value = strings.Repeat("v", random.IntN(40))
					}
					table.add(Rows, key, r)
					pending[key] = r
				}
				table.check(t, keys[random.IntN(n)], published)
			}
			publish()
			snapshots = append(snapshots, snapshot{table.Snapshot(), published})
			last := &snapshots[len(snapshots)-1]
			if runs := len(last.runs(Rows)); runs > 8 {
				t.Fatalf("%d runs", runs)
			}
			if rapid.Bool().Draw(t, "sort") {
				last.Sort(Rows)
				if runs := len(last.runs(Rows)); runs != 1 {
					t.Fatalf("%d runs after Sort", runs)
				}
			}
			for i := range snapshots {
				check(&snapshots[i])
			}
		}
	})
}

// Of several tables the newest one that has a key counts, and what is hidden by a
// newer table's range is deleted.
func TestIteratorOverTables(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		keys := strings.Split("a b c d e f g h", " ")
		want := model{}
		var snapshots []Snapshot
		for range 3 {
			table := New(4 << 10)
			for range random.IntN(12) {
				key := keys[random.IntN(len(keys))]
				if random.IntN(5) == 0 {
					to := keys[random.IntN(len(keys))] + "x"
					if key < to {
						table.AddRange([]byte(key), []byte(to))
						want.deleteRange(key, to, keys)
					}
					continue
				}
				r := record{fmt.Sprint(random.Uint32()), false}
				if random.IntN(4) == 0 {
					r = record{deleted: true}
				}
				table.add(Rows, key, r)
				want[key] = r
			}
			table.Publish()
			snapshots = slices.Insert(snapshots, 0, table.Snapshot())
		}
		copies := slices.Clone(snapshots)
		for i := range copies {
			copies[i] = copies[i].Copy(nil)
		}
		for name, of := range map[string][]Snapshot{"tables": snapshots, "copies": copies} {
			it := NewIterator(of, Rows, nil, []byte{0xff}, false)
			got, err := walk(it, func(a, b []byte) bool { return bytes.Compare(a, b) < 0 })
			if err != nil {
				t.Fatal(err)
			}
			for _, key := range keys {
				w, there := want[key]
				g, found := got[key]
				switch {
				case found && (g != w || !there):
					t.Fatalf("%s: key %s: %+v, want %+v", name, key, g, w)
				case !found && there && !w.deleted:
					t.Fatalf("%s: key %s is not found, want %+v", name, key, w)
				case !found && there && it.Deletes([]byte(key)) == nil:
					t.Fatalf("%s: key %s: what is older is not deleted", name, key)
				}
			}
		}
	})
}

// A copy has what begins with the prefix, of all lists.
func TestCopyHasOnlyThePrefix(t *testing.T) {
	table := New(4 << 10)
	table.add(Rows, "ad1", record{value: "1"})
	table.add(Sessions, "as1", record{value: "s"})
	table.add(Rows, "bd1", record{value: "other"})
	table.AddRange([]byte("ad1"), []byte("ad2"))
	table.AddRange([]byte("bd"), []byte("be"))
	table.add(Expiries, "ae1", record{deleted: true})
	table.add(Rows, "ad1x", record{value: "after the range"})
	table.Publish()
	s := table.Snapshot()
	c := s.Copy([]byte("a"))
	it := NewIterator([]Snapshot{c}, Rows, nil, []byte{0xff}, false)
	got, err := walk(it, func(a, b []byte) bool { return bytes.Compare(a, b) < 0 })
	want := model{"ad1x": {value: "after the range"}, "ae1": {deleted: true}, "as1": {value: "s"}}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("copy: %v, want %v, error %v", got, want, err)
	}
	if it.Deletes([]byte("ad1")) == nil || it.Deletes([]byte("bd")) != nil {
		t.Error("the copy has other ranges")
	}
}

// Readers and snapshots of any number of goroutines see whole batches, and none
// goes back, while one goroutine adds.
func TestReadersWhileTheWriterAdds(t *testing.T) {
	const keys, batches, readers = 16, 300, 4
	table := New(Bytes(4, 8) * keys * (batches + 1))
	var mu sync.Mutex // keeps the writer from snapshots
	name := func(i int) string { return fmt.Sprintf("k%03d", i) }
	write := func(batch int) {
		mu.Lock()
		defer mu.Unlock()
		for i := range keys {
			table.add(Rows, name(i), record{value: fmt.Sprintf("%08d", batch)})
		}
		table.Publish()
	}
	write(0)
	var done atomic.Bool
	var wg sync.WaitGroup
	for r := range readers {
		wg.Go(func() {
			last := ""
			for !done.Load() {
				for i := range keys { // what was seen of one key is the least of the next
					found, ok := table.Get(hash(name(i)), []byte(name(i)))
					if value := string(found.Value()); !ok || value < last {
						t.Errorf("%q after %q", value, last)
						return
					} else {
						last = value
					}
				}
				if r%2 == 0 {
					continue
				}
				mu.Lock()
				s := table.Snapshot()
				mu.Unlock()
				it, n, batch := NewIterator([]Snapshot{s}, Rows, nil, []byte{0xff}, false), 0, ""
				for ; it.Next(); n++ {
					if value := string(it.Value()); batch != "" && value != batch || value < last {
						t.Errorf("%s of a snapshot: %q beside %q", it.Key(), value, batch)
						return
					} else {
						batch = value
					}
				}
				if n != keys {
					t.Errorf("a snapshot of %d keys", n)
				}
			}
		})
	}
	for batch := range batches {
		write(batch + 1)
	}
	done.Store(true)
	wg.Wait()
}

func TestPiecesAreInTheOrderOfKeys(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		gen := rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 'a', 0xff}), 1, 20)
		a, b := gen.Draw(t, "a"), gen.Draw(t, "b")
		order := 0
		for from := 0; order == 0 && (from < len(a) || from < len(b)); from += pieceBytes {
			x, y := pieceOf(a, from), pieceOf(b, from)
			switch {
			case x < y:
				order = -1
			case x > y:
				order = 1
			}
			if order == 0 && x&0xff <= pieceBytes {
				break // the end of both
			}
		}
		if want := bytes.Compare(a, b); order != want {
			t.Fatalf("%q, %q: %d, want %d", a, b, order, want)
		}
	})
}
