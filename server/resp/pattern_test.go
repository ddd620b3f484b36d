package resp

import (
	"strings"
	"testing"
)

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, s   string
		want, noCase bool // noCase is what Match says when case makes no difference
	}{
		{"", "", true, true},
		{"", "a", false, false},
		{"*", "", false, false}, // as in Redis
		{"*", "a", true, true},
		{"**", "abc", true, true},
		{"a*", "a", true, true},
		{"a**", "a", true, true},
		{"*a", "ba", true, true},
		{"*a", "ab", false, false},
		{"a*c", "abbbc", true, true},
		{"a*c", "abbb", false, false},
		{"*a*b*", "xaybz", true, true},
		{"*ab*cd", "abacabcd", true, true},
		{"*ab?d", "ababcd", true, true},
		{"?", "a", true, true},
		{"?", "", false, false},
		{"?", "ab", false, false},
		{"h?llo", "hello", true, true},
		{"abc", "abc", true, true},
		{"abc", "abd", false, false},
		{"abc", "ab", false, false},
		{"abc", "abcd", false, false},
		{"ABC", "abc", false, true},
		{"abc", "aBc", false, true},
		// Escapes.
		{`\*`, "*", true, true},
		{`\*`, "a", false, false},
		{`a\?`, "a?", true, true},
		{`\[a]`, "[a]", true, true},
		{`\A`, "a", false, true},
		{`\`, `\`, true, true},
		{`a\`, `a\`, true, true},
		{`\\`, `\`, true, true},
		// Classes.
		{"[abc]", "b", true, true},
		{"[abc]", "d", false, false},
		{"[abc]", "B", false, true},
		{"[^abc]", "d", true, true},
		{"[^abc]", "a", false, false},
		{"[^abc]", "A", true, false},
		{"[a-c]x", "bx", true, true},
		{"[a-c]", "d", false, false},
		{"[c-a]", "b", true, true},
		{"[a-c]", "B", false, true},
		{"[^a-c]", "b", false, false},
		{"[a-cx-z]", "y", true, true},
		{"[-a]", "-", true, true},
		{"[-a]", "a", true, true},
		{"[a-]", "b", false, false}, // a range from ] to a, and the class is not closed
		{"[a-]", "_", true, true},
		{"[a-]]", "]", true, true},
		{`[\]]`, "]", true, true},
		{`[\-]`, "-", true, true},
		{`[\a]`, "A", false, false}, // behind a backslash case counts
		{`[a\`, `\`, true, true},
		{"[]", "a", false, false},
		{"[]a", "a", false, false},
		{"[^]", "a", true, true},
		{"[^]a", "xa", true, true},
		{"[", "[", false, false},
		{"[^", "x", true, true},
		{"[a", "a", true, true},
		{"[a", "ab", false, false},
		{"[ab", "b", true, true},
		{"[*]", "*", true, true},
		{"[?]", "a", false, false},
		{"*[ab]*[cd]", "xaxbxc", true, true},
		{"a[^", "a", false, false},
		{"\xff*", "\xff\x00", true, true},
		{"[\x80-\xff]", "\xc3", true, true},
	} {
		if got := Match([]byte(c.pattern), []byte(c.s), false); got != c.want {
			t.Errorf("Match(%q, %q) = %v", c.pattern, c.s, got)
		}
		if got := Match([]byte(c.pattern), []byte(c.s), true); got != c.noCase {
			t.Errorf("Match(%q, %q), without case, = %v", c.pattern, c.s, got)
		}
	}
}

// A pattern that takes exponential time with plain recursion.
func TestMatchManyStars(t *testing.T) {
	s := []byte(strings.Repeat("a", 10_000))
	if Match([]byte(strings.Repeat("*a", 100)+"b"), s, false) {
		t.Error("matches")
	}
	if !Match([]byte(strings.Repeat("a*", 4000)), s, false) {
		t.Error("does not match")
	}
}

func TestMatchAllocates(t *testing.T) {
	s := []byte("user:1234:cd")
	for _, pattern := range []string{"user:*:[a-f]?", "*" + strings.Repeat("?", 100) + "*"} {
		p, _ := CompilePattern([]byte(pattern), true)
		if got := testing.AllocsPerRun(100, func() { p.Match(s) }); got != 0 {
			t.Errorf("%.20s: %v allocations", pattern, got)
		}
	}
}

// TestPatternCost: no pattern makes a string cost more than a small multiple of
// its length, nor is one longer than a bound.
func TestPatternCost(t *testing.T) {
	const n = PatternBytesMax
	for name, tt := range map[string]struct {
		pattern string
		weight  int
	}{
		"plain":           {"user:*:name", 1},
		"plain, long":     {"*" + strings.Repeat("a", n-3) + "b*", 1},
		"a large class":   {"*[" + strings.Repeat("z", n-4) + "]*", 1},
		"many classes":    {"*" + strings.Repeat("[a-z]", segmentMax) + "*", segmentMax / 64},
		"many segments":   {strings.Repeat("*?a", n/3), 2},
		"at the end only": {"*" + strings.Repeat("?", n-1), 1},
		"at the front":    {strings.Repeat("?", n-1) + "*", 1},
	} {
		p, ok := CompilePattern([]byte(tt.pattern), false)
		if most := stepsLeast + 1000*tt.weight; !ok || p.Cost(1000) > most {
			t.Errorf("%s: %d steps for 1000 bytes, want at most %d; taken: %v", name, p.Cost(1000), most, ok)
		}
	}
	for _, long := range []string{strings.Repeat("x", n+1), "*" + strings.Repeat("?", segmentMax+1) + "*"} {
		if _, ok := CompilePattern([]byte(long), false); ok {
			t.Errorf("a pattern of %d bytes that is too long was taken", len(long))
		}
	}
}

func BenchmarkMatch(b *testing.B) {
	key := []byte("user:0000001234:profile")
	long := []byte(strings.Repeat("a", 8000))
	for _, c := range []struct {
		name, pattern string
		s             []byte
	}{
		{"prefix", "user:*", key},
		{"middle", "*1234*", key},
		{"class", "user:[0-9]*:prof?le", key},
		{"hostile class", "*[" + strings.Repeat("z", 8000) + "]", long},
		{"hostile marks", "*" + strings.Repeat("?", 1023) + "b*", long},
		{"hostile letters", "*" + strings.Repeat("a", 4000) + "b*", long},
		{"hostile stars", strings.Repeat("*a?", 2000) + "b", long},
	} {
		b.Run(c.name, func(b *testing.B) {
			p, _ := CompilePattern([]byte(c.pattern), false)
			b.ReportAllocs()
			for b.Loop() {
				p.Match(c.s)
			}
		})
	}
}

// reference matches by recursion over everything a star may stand for, and
// remembers what it has tried.
type reference struct {
	pattern, s []byte
	noCase     bool
	tried      map[[2]int]bool
}

func (r *reference) match(p, i int) bool {
	at := [2]int{p, i}
	if got, ok := r.tried[at]; ok {
		return got
	}
	got := r.compute(p, i)
	r.tried[at] = got
	return got
}

func (r *reference) compute(p, i int) bool {
	switch {
	case p == len(r.pattern):
		return i == len(r.s)
	case r.pattern[p] == '*':
		return r.match(p+1, i) || i < len(r.s) && r.match(p, i+1)
	case i == len(r.s):
		return false
	}
	size, ok := r.element(r.pattern[p:], r.s[i])
	return ok && r.match(p+size, i+1)
}

// element is a second writing of the elements of one byte: it collects the set
// of bytes an element stands for.
func (r *reference) element(p []byte, c byte) (size int, ok bool) {
	var set [256]bool
	fold := func(c byte) byte {
		if r.noCase && 'A' <= c && c <= 'Z' {
			return c + 32
		}
		return c
	}
	add := func(from, to byte) {
		for x := range 256 {
			if b := fold(byte(x)); fold(from) <= b && b <= fold(to) {
				set[x] = true
			}
		}
	}
	switch {
	case p[0] == '?':
		return 1, true
	case p[0] == '\\' && len(p) > 1:
		add(p[1], p[1])
		return 2, set[c]
	case p[0] != '[':
		add(p[0], p[0])
		return 1, set[c]
	}
	i, not := 1, false
	if i < len(p) && p[i] == '^' {
		i, not = 2, true
	}
	for ; i < len(p) && p[i] != ']'; i++ {
		switch {
		case p[i] == '\\' && i+1 < len(p):
			i++
			set[p[i]] = true
		case i+2 < len(p) && p[i+1] == '-':
			add(min(p[i], p[i+2]), max(p[i], p[i+2]))
			i += 2
		default:
			add(p[i], p[i])
		}
	}
	if i < len(p) {
		i++ // the bracket
	}
	return i, set[c] != not
}

func FuzzMatch(f *testing.F) {
	for _, s := range [][2]string{
		{"*a*b", "xaxxb"}, {"[a-c]?\\*", "bx*"}, {"[^", "x"}, {"[a-]]", "]"}, {"**[^\\]]**", "]]a"}, {"h[a", "ha"}, {"a*a*a*c", "aaaaaaab"},
	} {
		f.Add([]byte(s[0]), []byte(s[1]), false)
		f.Add([]byte(s[0]), []byte(s[1]), true)
	}
	f.Fuzz(func(t *testing.T, pattern, s []byte, noCase bool) {
		if len(pattern) > 200 || len(s) > 200 {
			return
		}
		r := &reference{pattern, s, noCase, map[[2]int]bool{}}
		want := r.match(0, 0)
		if len(s) == 0 {
			want = len(pattern) == 0
		}
		if got := Match(pattern, s, noCase); got != want {
			t.Errorf("Match(%q, %q, %v) = %v", pattern, s, noCase, got)
		}
	})
}
