package resp

import "bytes"

// inline parses a line of words, as people type them into telnet. An LF ends
// the line, with or without a CR before it.
//
// Redis reads the line as a C string, so that a NUL in it hides the LF and the
// client waits for ever; here a NUL is a byte like any other.
func (p *Parser) inline(b []byte) (taken int, err error) {
	limit := orDefault(p.InlineBytesMax, InlineBytesMaxDefault)
	to := min(len(b), limit+1)
	i := bytes.IndexByte(b[p.scanned:to], '\n')
	switch {
	case i < 0 && len(b) > limit:
		return 0, errInlineTooBig
	case i < 0:
		p.scanned = to
		return 0, nil
	}
	end := p.scanned + i
	line := b[:end]
	if end > 0 && line[end-1] == '\r' {
		line = line[:end-1]
	}
	if err := p.split(line); err != nil {
		p.Args = p.Args[:0]
		return 0, err
	}
	return end + 1, nil
}

// split appends the words of a line to p.Args. It returns errQuotes where a quote
// is not closed, or is followed by something else than a space.
//
// The rules are those of Redis. A word ends at a space, tab, CR or LF, and
// vertical tab and form feed are skipped before a word only. In double quotes
// \xHH is a byte, \n \r \t \b \a are what they are in C, and a backslash before
// anything else stands for that; in single quotes only \' is special. A quote
// may open in the midst of a word; the word ends where it closes.
func (p *Parser) split(line []byte) error {
	most := orDefault(p.MultibulkMax, MultibulkMaxDefault)
	p.scratch = p.scratch[:0]
	for i := 0; ; {
		for i < len(line) && isSpace(line[i]) {
			i++
		}
		switch {
		case i == len(line):
			return nil
		case len(p.Args) == most:
			return errInlineWords
		}
		start := i
		for i < len(line) && !endsWord(line[i]) && line[i] != '"' && line[i] != '\'' {
			i++
		}
		if i == len(line) || endsWord(line[i]) {
			p.Args = append(p.Args, line[start:i:i])
			continue
		}
		n, ok := p.quoted(line, start, i)
		if !ok {
			return errQuotes
		}
		i = n
	}
}

// quoted appends to p.Args a word that starts at start and opens a quote at
// open. It returns where the word ends; ok is false for an unbalanced quote.
func (p *Parser) quoted(line []byte, start, open int) (end int, ok bool) {
	if cap(p.scratch) < len(line) {
		// Unquoting makes nothing longer, so the words of one line fit, and do
		// not move as others join them.
		p.scratch = make([]byte, 0, max(len(line), scratchBytesMin))
	}
	at := len(p.scratch)
	p.scratch = append(p.scratch, line[start:open]...)
	quote := line[open]
	for i := open + 1; i < len(line); i++ {
		c := line[i]
		switch {
		case c == quote:
			if i+1 < len(line) && !isSpace(line[i+1]) {
				return 0, false
			}
			word := p.scratch[at:]
			p.Args = append(p.Args, word[:len(word):len(word)])
			return i + 1, true
		case c == '\\' && quote == '\'':
			if i+1 < len(line) && line[i+1] == '\'' {
				i++
			}
			c = line[i]
		case c == '\\':
			var size int
			c, size = escape(line[i:])
			i += size - 1
		}
		p.scratch = append(p.scratch, c)
	}
	return 0, false
}

// escape reads the escape sequence at the front of b, of size bytes. A
// backslash with nothing behind it stands for itself.
func escape(b []byte) (c byte, size int) {
	if len(b) == 1 {
		return '\\', 1
	}
	if len(b) >= 4 && b[1] == 'x' {
		high, low := hexDigit(b[2]), hexDigit(b[3])
		if high >= 0 && low >= 0 {
			return byte(high<<4 | low), 4
		}
	}
	switch b[1] {
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	case 'b':
		return '\b', 2
	case 'a':
		return '\a', 2
	}
	return b[1], 2
}

// hexDigit returns the value of a hexadecimal digit, or -1.
func hexDigit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

func isSpace(c byte) bool  { return c == ' ' || c >= '\t' && c <= '\r' }
func endsWord(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }
