package bench

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
)

// By the book: what each workload consists of.
func TestWorkloads(t *testing.T) {
	type shares map[Kind]float64
	for name, tc := range map[string]struct {
		shares shares
		choice Choice
		value  int
	}{
		"get": {shares{KindRead: 1}, Uniform, 128}, "put": {shares{KindUpdate: 1}, Uniform, 128},
		"mixed": {shares{KindRead: 0.5, KindUpdate: 0.5}, Uniform, 128}, "scan": {shares{KindScan: 1}, Uniform, 128},
		"incr": {shares{KindIncr: 1}, Uniform, 128}, "batch": {shares{KindBatch: 1}, Uniform, 128}, "ping": {shares{KindPing: 1}, Uniform, 128},
		"ycsb-a": {shares{KindRead: 0.5, KindUpdate: 0.5}, Zipfian, 1000},
		"ycsb-b": {shares{KindRead: 0.95, KindUpdate: 0.05}, Zipfian, 1000},
		"ycsb-c": {shares{KindRead: 1}, Zipfian, 1000},
		"ycsb-d": {shares{KindRead: 0.95, KindInsert: 0.05}, Latest, 1000},
		"ycsb-e": {shares{KindScan: 0.95, KindInsert: 0.05}, Zipfian, 1000},
		"ycsb-f": {shares{KindRead: 0.5, KindModify: 0.5}, Zipfian, 1000},
	} {
		w, err := FindWorkload(strings.ToUpper(name))
		if err != nil || w.check() != nil {
			t.Fatal(name, err, w.check())
		}
		if w.Choice != tc.choice || w.ValueBytes.Max() != tc.value || w.Hashed != strings.HasPrefix(name, "ycsb") {
			t.Errorf("%s: %+v", name, w)
		}
		s := newGenerator(newRows(&w, 1), newPicker(w.Choice, 1000, 1, 0, 1, 8))
		const draws = 50_000
		var a Operation
		seen := shares{}
		lengths := map[int]bool{}
		for range draws {
			s.draw(&a)
			seen[a.Kind] += 1.0 / draws
			if a.Kind == KindScan {
				lengths[a.count] = true
			}
		}
		for k := range kindEnd {
			if math.Abs(seen[k]-tc.shares[k]) > 0.005 {
				t.Errorf("%s: share of %v is %v, want %v", name, k, seen[k], tc.shares[k])
			}
		}
		if name == "ycsb-e" && (lengths[0] || !lengths[1] || !lengths[100] || len(lengths) != 100) {
			t.Errorf("%d lengths of scans", len(lengths))
		}
	}
	if len(Workloads()) != 13 {
		t.Errorf("%d workloads, not all are tested", len(Workloads()))
	}
	if _, err := FindWorkload("ycsb-g"); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), "ycsb-f") {
		t.Errorf("unknown workload: %v", err)
	}
}

func TestWorkloadIsChecked(t *testing.T) {
	for name, tc := range map[string]struct {
		from  string
		spoil func(*Workload)
		ok    bool
	}{
		"shares below 1":    {"mixed", func(w *Workload) { w.Shares[KindRead] = 0.4 }, false},
		"negative share":    {"mixed", func(w *Workload) { w.Shares[KindRead], w.Shares[KindUpdate] = -0.5, 1.5 }, false},
		"NaN":               {"get", func(w *Workload) { w.Shares[KindRead] = math.NaN() }, false},
		"reads only":        {"mixed", func(w *Workload) { *w = w.WithReads(1) }, true},
		"unknown choice":    {"get", func(w *Workload) { w.Choice = choiceEnd }, false},
		"short keys":        {"get", func(w *Workload) { w.KeyBytes = FixedSize(15) }, false},
		"shortest keys":     {"get", func(w *Workload) { w.KeyBytes = FixedSize(16) }, true},
		"short hashed keys": {"ycsb-a", func(w *Workload) { w.KeyBytes = FixedSize(23) }, false},
		"longest keys":      {"get", func(w *Workload) { w.KeyBytes = FixedSize(8 << 10) }, true},
		"too long keys":     {"get", func(w *Workload) { w.KeyBytes = FixedSize(8<<10 + 1) }, false},
		"largest values":    {"put", func(w *Workload) { w.ValueBytes = FixedSize(ValueBytesMax) }, true},
		"too large values":  {"put", func(w *Workload) { w.ValueBytes = FixedSize(ValueBytesMax + 1) }, false},
		"empty scan":        {"scan", func(w *Workload) { w.ScanRows = FixedSize(0) }, false},
		"longest scan":      {"scan", func(w *Workload) { w.ScanRows = FixedSize(ScanRowsMax) }, true},
		"too long scan":     {"scan", func(w *Workload) { w.ScanRows = FixedSize(ScanRowsMax + 1) }, false},
		"empty batch":       {"batch", func(w *Workload) { w.BatchRows = 0 }, false},
		"largest batch":     {"batch", func(w *Workload) { w.BatchRows = BatchRowsMax }, true},
		"too large batch":   {"batch", func(w *Workload) { w.BatchRows = BatchRowsMax + 1 }, false},
		"too many bytes":    {"batch", func(w *Workload) { w.ValueBytes = FixedSize(ValueBytesMax) }, false},
	} {
		w, err := FindWorkload(tc.from)
		if err != nil {
			t.Fatal(err)
		}
		tc.spoil(&w)
		if err := w.check(); (err == nil) != tc.ok || err != nil && !errors.Is(err, ErrConfig) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// No two writes have the same version, whatever thread makes them.
func TestVersions(t *testing.T) {
	w, _ := FindWorkload("batch")
	r := newRows(&w, 1)
	seen := map[uint64]bool{0: true}
	for thread := range 3 {
		s := newGenerator(r, newPicker(Uniform, 100, 1, thread, 3, 0))
		var a Operation
		for range 20 {
			s.draw(&a)
			for i := range a.batch {
				v := a.Version + uint64(i)*3
				if seen[v] {
					t.Fatalf("version %d comes twice", v)
				}
				seen[v] = true
			}
		}
	}
}

// The threads together load every row once.
func TestLoading(t *testing.T) {
	w, _ := FindWorkload("get")
	r := newRows(&w, 1)
	for _, keys := range []uint64{1, 2, 7, 9} {
		var rows []uint64
		for thread := range 3 {
			s := newGenerator(r, newPicker(Uniform, keys, 1, thread, 3, 0))
			var a Operation
			for i := range s.loads() {
				s.load(&a, i)
				rows = append(rows, a.Row)
			}
		}
		slices.Sort(rows)
		for i := range keys {
			if uint64(len(rows)) != keys || rows[i] != i {
				t.Fatalf("%d rows: %v", keys, rows)
			}
		}
	}
}

func TestRows(t *testing.T) {
	plain, _ := FindWorkload("put")
	book, _ := FindWorkload("ycsb-a")
	if got := string(newRows(&plain, 1).AppendKey(nil, 42)); got != "_bench/k0000001a" {
		t.Errorf("key %q", got)
	}
	if got := string(newRows(&book, 1).AppendKey(nil, 0)); got != "_bench/userahhvo68k1kee5" {
		t.Errorf("hashed key %q", got)
	}
	plain.KeyBytes, _ = ParseSizes("16..30")
	lengths := map[int]bool{}
	r := newRows(&plain, 1)
	for row := range uint64(500) {
		k := r.AppendKey(nil, row)
		if !strings.HasPrefix(string(k), plainRows) || !slices.Equal(k, r.AppendKey(nil, row)) || string(k) >= string(r.endKey) {
			t.Fatalf("key %q", k)
		}
		lengths[len(k)] = true
	}
	if len(lengths) != 15 || !lengths[16] || !lengths[30] {
		t.Errorf("lengths of keys: %v", lengths)
	}
}

// A value is told from that of any other row, version or seed, and from itself
// with any byte changed.
func TestValues(t *testing.T) {
	for _, size := range []string{"0", "1", "8", "15", "16", "17", "100", "24..60"} {
		w, _ := FindWorkload("put")
		w.ValueBytes, _ = ParseSizes(size)
		r, other := newRows(&w, 1), newRows(&w, 2)
		v := r.AppendValue(nil, 7, 3)
		if !r.is(v, 7, 3) || !r.Plausible(v, 7, true) || len(v) < w.ValueBytes.Min() || len(v) > w.ValueBytes.Max() {
			t.Errorf("%s: the value is not recognised", size)
		}
		if len(v) >= 16 && (r.is(v, 8, 3) || r.is(v, 7, 4) || r.Plausible(v, 8, false)) {
			t.Errorf("%s: taken for another's", size)
		}
		if len(v) > 17 && other.is(v, 7, 3) {
			t.Errorf("%s: the seed makes no difference", size)
		}
		if r.is(append(slices.Clone(v), 0), 7, 3) || len(v) > 0 && r.is(v[1:], 7, 3) {
			t.Errorf("%s: another length is accepted", size)
		}
		for i := range v {
			bad := slices.Clone(v)
			bad[i] ^= 1
			if r.is(bad, 7, 3) || len(v) >= 24 && r.Plausible(bad, 7, true) {
				t.Errorf("%s: byte %d changed is not noticed", size, i)
			}
		}
	}
}
