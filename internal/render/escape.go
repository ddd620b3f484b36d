package render

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Escape returns b so that it can be shown on a terminal and be given back
// with --escaped or in the shell: printable text as it is, a backslash doubled,
// everything else as \n, \r, \t or \xNN.
func Escape(b []byte) string { return string(appendEscaped(nil, b)) }

// OneLine returns text that a server, a file or an argument may have had a part
// in, as one line that cannot steer a terminal: what is not printable is escaped
// as Escape does. A backslash stays one, since the text is not typed back.
func OneLine(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }) {
		return s
	}
	parts := strings.Split(s, `\`)
	for i, part := range parts {
		parts[i] = Escape([]byte(part))
	}
	return strings.Join(parts, `\`)
}

// Printable is OneLine for text that has line ends of its own, which stay.
func Printable(s string) string {
	return mapLines(s, func(line, _, _ string) string { return OneLine(line) })
}

func appendEscaped(dst, b []byte) []byte {
	for len(b) > 0 {
		r, size := utf8.DecodeRune(b)
		named := strings.IndexRune("\\\n\r\t", r)
		switch {
		case named >= 0:
			dst = append(dst, '\\', `\nrt`[named])
		case r == utf8.RuneError && size <= 1, !unicode.IsPrint(r):
			for _, c := range b[:size] {
				dst = fmt.Appendf(dst, `\x%02x`, c)
			}
		default:
			dst = append(dst, b[:size]...)
		}
		b = b[size:]
	}
	return dst
}

// Unescape turns backslash escapes into the bytes they stand for. Besides
// those that Escape writes it takes \0, \", \' and backslash blank.
func Unescape(s string) ([]byte, error) {
	out := make([]byte, 0, len(s))
	for len(s) > 0 {
		if s[0] != '\\' {
			out = append(out, s[0])
			s = s[1:]
			continue
		}
		c, rest, err := unescapeOne(s)
		if err != nil {
			return nil, err
		}
		out, s = append(out, c), rest
	}
	return out, nil
}

// unescapeOne reads the escape s begins with.
func unescapeOne(s string) (c byte, rest string, err error) {
	if len(s) < 2 {
		return 0, "", errors.New("a backslash ends the text")
	}
	if c, ok := escapes[s[1]]; ok {
		return c, s[2:], nil
	}
	if s[1] != 'x' {
		_, size := utf8.DecodeRuneInString(s[1:])
		return 0, "", fmt.Errorf(`unknown escape \%s`, s[1:1+size])
	}
	n, err := strconv.ParseUint(s[2:min(4, len(s))], 16, 8)
	if err != nil || len(s) < 4 {
		return 0, "", errors.New(`\x needs two hexadecimal digits`)
	}
	return byte(n), s[4:], nil
}

// escapes are the bytes that a letter behind a backslash stands for.
var escapes = map[byte]byte{'n': '\n', 'r': '\r', 't': '\t', '0': 0, '\\': '\\', '"': '"', '\'': '\'', ' ': ' '}

// SplitLine splits a line into words as a shell does: blanks separate, quotes
// join, and a backslash escapes, outside quotes and inside double quotes.
// Inside single quotes everything stands for itself.
func SplitLine(line string) ([]string, error) {
	var words []string
	var word []byte
	inWord := false
	for len(line) > 0 {
		switch c := line[0]; c {
		case ' ', '\t', '\r', '\n':
			if inWord {
				words, word, inWord = append(words, string(word)), word[:0], false
			}
			line = line[1:]
		case '\'':
			end := strings.IndexByte(line[1:], '\'')
			if end < 0 {
				return nil, errors.New("a single quote is not closed")
			}
			word, line, inWord = append(word, line[1:1+end]...), line[2+end:], true
		case '"':
			var err error
			if word, line, err = appendQuoted(word, line[1:]); err != nil {
				return nil, err
			}
			inWord = true
		case '\\':
			e, rest, err := unescapeOne(line)
			if err != nil {
				return nil, err
			}
			word, line, inWord = append(word, e), rest, true
		default:
			word, line, inWord = append(word, c), line[1:], true
		}
	}
	if inWord {
		words = append(words, string(word))
	}
	return words, nil
}

// appendQuoted appends up to the closing double quote and returns what is
// behind it.
func appendQuoted(word []byte, line string) ([]byte, string, error) {
	for len(line) > 0 {
		switch line[0] {
		case '"':
			return word, line[1:], nil
		case '\\':
			c, rest, err := unescapeOne(line)
			if err != nil {
				return nil, "", err
			}
			word, line = append(word, c), rest
		default:
			word, line = append(word, line[0]), line[1:]
		}
	}
	return nil, "", errors.New("a double quote is not closed")
}

// QuoteWord writes b as one word that SplitLine reads back.
func QuoteWord(b []byte) string {
	s := Escape(b)
	if s == "" {
		return `""`
	}
	return strings.NewReplacer(" ", `\ `, `"`, `\"`, `'`, `\'`).Replace(s)
}

// plainWord needs no quotes in a POSIX shell.
var plainWord = regexp.MustCompile(`^[A-Za-z0-9_@%+=:,./-]+$`)

// ShellQuote returns word so that a POSIX shell reads it as one word that is
// word, in printable text.
func ShellQuote(word string) string {
	switch {
	case plainWord.MatchString(word):
		return word
	case OneLine(word) != word:
		return quoteUnprintable(word)
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// quoteUnprintable has the shell call printf, since $'…' is not known to every
// shell. A substitution drops line ends at its end: those are quoted behind it.
func quoteUnprintable(word string) string {
	head := strings.TrimRight(word, "\n")
	var b strings.Builder
	b.WriteString(`"$(printf '`)
	for _, c := range []byte(head) {
		if c == ' ' || c != '%' && c != '-' && plainWord.MatchString(string(rune(c))) {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, `\%03o`, c)
		}
	}
	b.WriteString(`')"`)
	if head != word {
		b.WriteString("'" + word[len(head):] + "'")
	}
	return b.String()
}
