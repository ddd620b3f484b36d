package resp

// Match says whether s as a whole matches a glob pattern, by the rules of
// Redis: * stands for any bytes, ? for one, [a-z] for one of a class and [^a-z]
// for one outside of it, and a backslash takes the special meaning from what
// follows. A class that is not closed ends with the pattern. noCase makes no
// difference between ASCII letters of both cases, but for a letter behind a
// backslash in a class.
//
// As in Redis, nothing but the empty pattern matches the empty string.
//
// Every element but * takes exactly one byte, so it is enough to go back to the
// last star: whatever an earlier one could reach, the last one can. The time is
// therefore at most proportional to len(pattern) × len(s), and no pattern makes
// it exponential; nothing is allocated.
func Match(pattern, s []byte, noCase bool) bool {
	if len(s) == 0 {
		return len(pattern) == 0
	}
	p, i := 0, 0
	star, from := -1, 0 // behind the last star, and where in s it is tried next
	for i < len(s) {
		if p < len(pattern) {
			if pattern[p] == '*' {
				p++
				star, from = p, i
				if p == len(pattern) {
					return true
				}
				continue
			}
			if size, ok := matchOne(pattern[p:], s[i], noCase); ok {
				p += size
				i++
				continue
			}
		}
		if star < 0 {
			return false
		}
		from++
		p, i = star, from
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// matchOne matches one byte with the element at the front of a pattern, which
// is not a star. size is the length of the element where it does.
func matchOne(pattern []byte, c byte, noCase bool) (size int, ok bool) {
	switch {
	case pattern[0] == '?':
		return 1, true
	case pattern[0] == '[':
		return matchClass(pattern, c, noCase)
	case pattern[0] == '\\' && len(pattern) >= 2:
		return 2, equal(pattern[1], c, noCase)
	}
	return 1, equal(pattern[0], c, noCase)
}

// matchClass matches one byte with the class at the front of a pattern.
func matchClass(pattern []byte, c byte, noCase bool) (size int, ok bool) {
	i := 1
	not := i < len(pattern) && pattern[i] == '^'
	if not {
		i++
	}
	for i < len(pattern) && pattern[i] != ']' {
		rest := pattern[i:]
		switch {
		case rest[0] == '\\' && len(rest) >= 2:
			ok = ok || rest[1] == c
			i += 2
		case len(rest) >= 3 && rest[1] == '-':
			// The end of the range may be the bracket that looks as if it
			// closed the class.
			ok = ok || inRange(c, rest[0], rest[2], noCase)
			i += 3
		default:
			ok = ok || equal(rest[0], c, noCase)
			i++
		}
	}
	return min(i+1, len(pattern)), ok != not
}

// inRange says whether c lies between two bytes, in whatever order they are.
func inRange(c, from, to byte, noCase bool) bool {
	if from > to {
		from, to = to, from
	}
	if noCase {
		c, from, to = lower(c), lower(from), lower(to)
	}
	return from <= c && c <= to
}

func equal(a, b byte, noCase bool) bool {
	return a == b || noCase && lower(a) == lower(b)
}

// lower is an ASCII letter in lower case, or any other byte as it is.
func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c + ('a' - 'A')
	}
	return c
}
