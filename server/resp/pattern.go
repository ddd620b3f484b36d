package resp

import (
	"bytes"
	"math/bits"
)

// Bounds of a pattern.
const (
	PatternBytesMax = 8 << 10 // the longest key is as long
	segmentMax      = 1 << 10 // elements between two stars that are not all plain bytes
)

// ErrPattern is the error for a pattern that is beyond them.
const ErrPattern = "ERR the pattern is too long: at most 8192 bytes, and 1024 elements between two stars, are allowed"

// A Pattern is a glob pattern by the rules of Redis: * stands for any bytes, ? for
// one, [a-z] for one of a class and [^a-z] for one outside of it, and a backslash
// takes the special meaning from what follows. A class that is not closed ends
// with the pattern. It is safe for concurrent use.
//
// Goal: no pattern makes a string cost more than a small multiple of its length.
// Between the stars stand segments, whose elements take exactly one byte each.
// The first is tied to the front of a string and the last to its end; each of
// the others is looked for behind the one before, and the first place where it
// fits is as good as any. How it is looked for depends on the segment: plain
// bytes by [bytes.Index], a few elements one by one at each place, and many by
// the Shift-And method, which advances all places at once, 64 elements in a
// machine word (Baeza-Yates and Gonnet, "A new approach to text searching",
// 1992). A class is a set of bytes.
type Pattern struct {
	segments []segment
	weight   int // of the costliest segment; see Cost
	empty    bool
}

// segment is what stands between two stars.
type segment struct {
	literal []byte         // what it is, if it is plain; otherwise:
	sets    []byteSet      // the bytes that each element takes
	masks   *[256][]uint64 // Shift-And: the elements that take a byte; nil: few elements
}

// naiveMax is up to how many elements a segment is compared at each place.
const naiveMax = 16

// CompilePattern reads a pattern. noCase makes no difference between ASCII letters
// of both cases, but for a letter behind a backslash in a class. ok is false if
// the pattern is too long; see ErrPattern.
func CompilePattern(pattern []byte, noCase bool) (p *Pattern, ok bool) {
	if len(pattern) > PatternBytesMax {
		return nil, false
	}
	p = &Pattern{empty: len(pattern) == 0, segments: make([]segment, 1)}
	for len(pattern) > 0 {
		if pattern[0] == '*' {
			p.segments = append(p.segments, segment{})
			for len(pattern) > 0 && pattern[0] == '*' {
				pattern = pattern[1:]
			}
			continue
		}
		last := &p.segments[len(p.segments)-1]
		set, size := element(pattern, noCase)
		last.sets = append(last.sets, set)
		pattern = pattern[size:]
	}
	p.weight = 1
	for i := range p.segments {
		inner := i > 0 && i < len(p.segments)-1
		p.weight = max(p.weight, p.segments[i].prepare(inner))
	}
	return p, p.weight <= segmentMax/64
}

// prepare finds out how to look for a segment, and returns what each byte of a
// string then costs.
func (s *segment) prepare(inner bool) (weight int) {
	literal := make([]byte, 0, len(s.sets))
	for i := range s.sets {
		c, one := only(&s.sets[i])
		if !one {
			break
		}
		literal = append(literal, c)
	}
	switch n := len(s.sets); {
	case len(literal) == n:
		s.literal, s.sets = literal, nil
		return 1
	case !inner:
		return 1
	case n <= naiveMax:
		return n
	case n > segmentMax:
		return n
	default:
		s.prepareMasks()
		return (n + 63) / 64
	}
}

func (s *segment) prepareMasks() {
	words := (len(s.sets) + 63) / 64
	all := make([]uint64, 256*words)
	s.masks = new([256][]uint64)
	for c := range s.masks {
		s.masks[c] = all[c*words : (c+1)*words]
	}
	for i := range s.sets {
		for w, set := range s.sets[i] {
			for ; set != 0; set &= set - 1 {
				s.masks[w*64+bits.TrailingZeros64(set)][i/64] |= 1 << (i % 64)
			}
		}
	}
}

// only returns the byte of a set that has one.
func only(set *byteSet) (c byte, one bool) {
	n := 0
	for w, x := range set {
		if n += bits.OnesCount64(x); x != 0 {
			c = byte(w*64 + bits.TrailingZeros64(x))
		}
	}
	return c, n == 1
}

// Match says whether s as a whole matches the pattern. As in Redis, nothing but
// the empty pattern matches the empty string. Nothing is allocated.
func (p *Pattern) Match(s []byte) bool {
	if len(s) == 0 || p.empty {
		return len(s) == 0 && p.empty
	}
	first, last := &p.segments[0], &p.segments[len(p.segments)-1]
	switch {
	case len(s) < first.len() || !first.fits(s):
		return false
	case first == last:
		return len(s) == first.len()
	}
	s = s[first.len():]
	end := len(s) - last.len()
	if end < 0 || !last.fits(s[end:]) {
		return false
	}
	s = s[:end]
	for i := 1; i < len(p.segments)-1; i++ {
		middle := &p.segments[i]
		at := middle.index(s)
		if at < 0 {
			return false
		}
		s = s[at+middle.len():]
	}
	return true
}

// Cost is about how many steps Match takes for a string of n bytes, a step being
// what one byte costs in an ordinary pattern.
func (p *Pattern) Cost(n int) int { return stepsLeast + n*p.weight }

// stepsLeast is what a string costs whatever its length.
const stepsLeast = 16

func (s *segment) len() int { return len(s.literal) + len(s.sets) }

// fits says whether the segment matches at the front of b, which is no shorter.
func (s *segment) fits(b []byte) bool {
	if s.sets == nil {
		return bytes.HasPrefix(b, s.literal)
	}
	for i := range s.sets {
		if c := b[i]; s.sets[i][c/64]&(1<<(c%64)) == 0 {
			return false
		}
	}
	return true
}

// index returns the first place in b where the segment matches, or -1.
func (s *segment) index(b []byte) int {
	switch {
	case s.sets == nil:
		return bytes.Index(b, s.literal)
	case s.masks != nil:
		return s.shiftAnd(b)
	}
	for i := 0; i+len(s.sets) <= len(b); i++ {
		if s.fits(b[i:]) {
			return i
		}
	}
	return -1
}

// shiftAnd is index for a segment of many elements. Bit n of the state says that
// the elements up to n match the bytes just read.
func (s *segment) shiftAnd(b []byte) int {
	var state [segmentMax / 64]uint64
	last := len(s.sets) - 1
	for i, c := range b {
		masks := s.masks[c]
		carry := uint64(1)
		for w, mask := range masks {
			before := state[w]
			state[w] = (before<<1 | carry) & mask
			carry = before >> 63
		}
		if state[last/64]&(1<<(last%64)) != 0 {
			return i - last
		}
	}
	return -1
}

// byteSet is a set of bytes.
type byteSet = [4]uint64

// add puts the bytes from one to another into set, in whatever order they are.
func add(set *byteSet, from, to byte, noCase bool) {
	if from > to {
		from, to = to, from
	}
	if !noCase {
		for c := int(from); c <= int(to); c++ {
			set[c/64] |= 1 << (c % 64)
		}
		return
	}
	// As Redis has it, the ends are taken in lower case, and then the byte is.
	from, to = lower(from), lower(to)
	for c := range 256 {
		if l := lower(byte(c)); from <= l && l <= to {
			set[c/64] |= 1 << (c % 64)
		}
	}
}

// element returns the bytes that the element at the front of a pattern takes,
// which is not a star, and its size.
func element(pattern []byte, noCase bool) (set byteSet, size int) {
	switch {
	case pattern[0] == '?':
		return byteSet{^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0)}, 1
	case pattern[0] == '[':
		return class(pattern, noCase)
	case pattern[0] == '\\' && len(pattern) >= 2:
		add(&set, pattern[1], pattern[1], noCase)
		return set, 2
	}
	add(&set, pattern[0], pattern[0], noCase)
	return set, 1
}

// class is element for a class.
func class(pattern []byte, noCase bool) (set byteSet, size int) {
	i := 1
	not := i < len(pattern) && pattern[i] == '^'
	if not {
		i++
	}
	for i < len(pattern) && pattern[i] != ']' {
		rest := pattern[i:]
		switch {
		case rest[0] == '\\' && len(rest) >= 2:
			add(&set, rest[1], rest[1], false)
			i += 2
		case len(rest) >= 3 && rest[1] == '-':
			// The end of the range may be the bracket that looks as if it
			// closed the class.
			add(&set, rest[0], rest[2], noCase)
			i += 3
		default:
			add(&set, rest[0], rest[0], noCase)
			i++
		}
	}
	if not {
		for w := range set {
			set[w] = ^set[w]
		}
	}
	return set, min(i+1, len(pattern))
}

// lower is an ASCII letter in lower case, or any other byte as it is.
func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c + ('a' - 'A')
	}
	return c
}

// Match is CompilePattern and Pattern.Match for a pattern that is used once. One
// that is too long matches nothing.
func Match(pattern, s []byte, noCase bool) bool {
	p, ok := CompilePattern(pattern, noCase)
	return ok && p.Match(s)
}
