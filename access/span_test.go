package access

import (
	"bytes"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func prefixes(texts ...string) (some [][]byte) {
	for _, s := range texts {
		some = append(some, []byte(s))
	}
	return some
}

func TestSpansOf(t *testing.T) {
	for _, x := range []struct {
		prefixes []string
		want     string
	}{
		{nil, ""},
		{[]string{""}, "[..)"},
		{[]string{"a", ""}, "[..)"},
		{[]string{"a/"}, "[a/..a0)"},
		{[]string{"a/", "a/b/"}, "[a/..a0)"},
		{[]string{"b", "a"}, "[a..c)"},
		{[]string{"a", "c"}, "[a..b)[c..d)"},
		{[]string{"\xff"}, "[\xff..)"},
		{[]string{"a\xff\xff", "b"}, "[a\xff\xff..c)"},
		{[]string{"\xff\xff", "a"}, "[a..b)[\xff\xff..)"},
	} {
		got := ""
		for _, s := range spansOf(prefixes(x.prefixes...)) {
			got += "[" + string(s.Start) + ".." + string(s.End) + ")"
		}
		if got != x.want {
			t.Errorf("%q: %q, want %q", x.prefixes, got, x.want)
		}
	}
}

// key draws a short key of few different bytes, so that prefixes meet.
func key(t *rapid.T, name string, least int) []byte {
	return rapid.SliceOfN(rapid.SampledFrom([]byte{0, 'a', 'b', 0xfe, 0xff}), least, 4).Draw(t, name)
}

// TestSpans compares sets of keys with what they are made of.
func TestSpans(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var some [][]byte
		for range rapid.IntRange(0, 5).Draw(t, "prefixes") {
			some = append(some, key(t, "prefix", 0))
		}
		x := spansOf(slices.Clone(some))
		has := func(k []byte) bool {
			return slices.ContainsFunc(some, func(p []byte) bool { return bytes.HasPrefix(k, p) })
		}
		for i := 1; i < len(x); i++ {
			if x[i-1].End == nil || bytes.Compare(x[i-1].End, x[i].Start) >= 0 {
				t.Fatalf("spans %q are not apart", x)
			}
		}
		k := key(t, "key", 1)
		if x.Has(k) != has(k) {
			t.Fatalf("%q has %q: %v", some, k, x.Has(k))
		}
		start, end := key(t, "start", 0), key(t, "end", 0)
		if len(end) == 0 {
			end = nil
		}
		in := func(k []byte) bool { return bytes.Compare(start, k) <= 0 && (end == nil || bytes.Compare(k, end) < 0) }
		if x.Covers(start, end) && in(k) && !has(k) {
			t.Fatalf("%q covers %q to %q, without %q", some, start, end, k)
		}
		reverse := rapid.Bool().Draw(t, "reverse")
		part, more, ok := x.First(start, end, reverse)
		inPart := ok && bytes.Compare(part.Start, k) <= 0 && (part.End == nil || bytes.Compare(k, part.End) < 0)
		switch {
		case inPart && !(in(k) && has(k)):
			t.Fatalf("the part %q of %q to %q of %q has %q", part, start, end, some, k)
		case in(k) && has(k) && !inPart:
			// It is in a later part.
			if !ok || !more || reverse != (bytes.Compare(k, part.Start) < 0) {
				t.Fatalf("the first part of %q to %q of %q is %q (%v, %v), without %q", start, end, some, part, more, ok, k)
			}
		}
		if in(k) && !has(k) && x.Covers(start, end) {
			t.Fatalf("%q covers %q to %q", some, start, end)
		}
	})
}

func TestCovers(t *testing.T) {
	x := spansOf(prefixes("a/", "b", "c/"))
	for _, r := range []struct {
		start, end string
		want       bool
	}{
		{"a/", "a0", true}, {"a/x", "a/y", true}, {"a/", "a/\xff", true}, {"a/", "a0\x00", false}, {"a", "a0", false},
		{"a/", "", false}, {"b", "c", true}, {"b", "c/", false}, {"b", "c0", false}, {"c/", "c0", true}, {"d", "e", false},
	} {
		var end []byte
		if r.end != "" {
			end = []byte(r.end)
		}
		if got := x.Covers([]byte(r.start), end); got != r.want {
			t.Errorf("from %q to %q: %v", r.start, r.end, got)
		}
	}
	if all := spansOf(prefixes("")); !all.All() || !all.Covers(nil, nil) {
		t.Error("the empty prefix does not cover everything")
	}
}

func BenchmarkHas(b *testing.B) {
	for _, x := range []struct {
		name  string
		spans Spans
	}{{"one", spansOf(prefixes("app/"))}, {"sixteen", spansOf(prefixes("a/", "b/", "c/", "d/", "e/", "f/", "g/", "h/", "i/", "j/", "k/", "l/", "m/", "n/", "o/", "p/"))}} {
		b.Run(x.name, func(b *testing.B) {
			b.ReportAllocs()
			k := []byte("app/0123456789")
			for b.Loop() {
				x.spans.Has(k)
			}
		})
	}
}
