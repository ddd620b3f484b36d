package bench

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Generators ask for what the threads of a Harness ask for, in its words.
func TestGenerators(t *testing.T) {
	w, err := FindWorkload("ycsb-a")
	if err != nil {
		t.Fatal(err)
	}
	const keys, seed, n = 1000, 7, 3
	generators, err := NewGenerators(w, keys, seed, n)
	if err != nil || len(generators) != n {
		t.Fatal(len(generators), err)
	}
	made := newRows(&w, seed)
	updates, versions := 0, map[uint64]bool{}
	for i, g := range generators {
		s := newGenerator(made, newPicker(w.Choice, keys, seed, i, n, 64))
		for range 1000 {
			want, got := s.Next(), g.Next()
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(Operation{})); diff != "" {
				t.Fatalf("generator %d: %s", i, diff)
			}
			if got.Kind != KindUpdate {
				continue
			}
			if updates++; versions[got.Version] || got.Version == 0 {
				t.Fatalf("version %d is given twice, or that of the preload", got.Version)
			}
			versions[got.Version] = true
			if key := g.AppendKey(nil, got.Row); !bytes.Equal(key, made.AppendKey(nil, got.Row)) {
				t.Fatalf("key %q", key)
			}
			value := g.AppendValue(nil, got.Row, got.Version)
			if !made.is(value, got.Row, got.Version) || !g.Plausible(value, got.Row, false) || g.Plausible(value, got.Row+1, false) {
				t.Fatalf("row %d holds %.24q", got.Row, value)
			}
		}
	}
	if updates < 1300 || updates > 1700 {
		t.Errorf("%d updates of 3000 operations", updates)
	}
}

func TestGeneratorsRefused(t *testing.T) {
	good, _ := FindWorkload("ycsb-c")
	scans, _ := FindWorkload("ycsb-e")
	broken := good
	broken.ValueBytes = FixedSize(ValueBytesMax + 1)
	for name, f := range map[string]func() ([]*Generator, error){
		"scans":         func() ([]*Generator, error) { return NewGenerators(scans, 1, 1, 1) },
		"no keys":       func() ([]*Generator, error) { return NewGenerators(good, 0, 1, 1) },
		"too many keys": func() ([]*Generator, error) { return NewGenerators(good, KeysMax+1, 1, 1) },
		"none":          func() ([]*Generator, error) { return NewGenerators(good, 1, 1, 0) },
		"large values":  func() ([]*Generator, error) { return NewGenerators(broken, 1, 1, 1) },
	} {
		if _, err := f(); !errors.Is(err, ErrConfig) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := NewGenerators(good, KeysMax, 1, 1); err != nil {
		t.Error(err)
	}
}

// What goes on for as long as a load lasts allocates nothing.
func TestGeneratorAllocations(t *testing.T) {
	w, _ := FindWorkload("ycsb-a")
	generators, err := NewGenerators(w, 1000, 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	g, key, value := generators[0], make([]byte, 0, 64), make([]byte, 0, 1000)
	if n := testing.AllocsPerRun(100, func() {
		o := g.Next()
		key = g.AppendKey(key[:0], o.Row)
		value = g.AppendValue(value[:0], o.Row, o.Version)
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
