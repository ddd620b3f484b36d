package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// escape returns b so that it can be shown on a terminal and be given back
// with --escaped or in the shell: printable text as it is, a backslash doubled,
// everything else as \n, \r, \t or \xNN.
func escape(b []byte) string { return string(appendEscaped(nil, b)) }

// oneLine returns text that a server, a file or an argument may have had a part
// in, as one line that cannot steer a terminal: what is not printable is escaped
// as escape does. A backslash stays one, since nobody types the text back.
func oneLine(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }) {
		return s
	}
	parts := strings.Split(s, `\`)
	for i, part := range parts {
		parts[i] = escape([]byte(part))
	}
	return strings.Join(parts, `\`)
}

// printable is oneLine for text that has line ends of its own, which stay.
func printable(s string) string {
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		lines[i] = oneLine(line)
	}
	return strings.Join(lines, "\n")
}

func appendEscaped(dst, b []byte) []byte {
	for len(b) > 0 {
		r, size := utf8.DecodeRune(b)
		switch {
		case r == '\\':
			dst = append(dst, `\\`...)
		case r == '\n':
			dst = append(dst, `\n`...)
		case r == '\r':
			dst = append(dst, `\r`...)
		case r == '\t':
			dst = append(dst, `\t`...)
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

// unescape turns backslash escapes into the bytes they stand for. Besides
// those that escape writes it takes \0, \", \' and backslash blank.
func unescape(s string) ([]byte, error) {
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
	switch s[1] {
	case 'n':
		c = '\n'
	case 'r':
		c = '\r'
	case 't':
		c = '\t'
	case '0':
		c = 0
	case '\\', '"', '\'', ' ':
		c = s[1]
	case 'x':
		if len(s) < 4 {
			return 0, "", errors.New(`\x needs two hexadecimal digits`)
		}
		n, err := strconv.ParseUint(s[2:4], 16, 8)
		if err != nil {
			return 0, "", errors.New(`\x needs two hexadecimal digits`)
		}
		return byte(n), s[4:], nil
	default:
		_, size := utf8.DecodeRuneInString(s[1:])
		return 0, "", fmt.Errorf(`unknown escape \%s`, s[1:1+size])
	}
	return c, s[2:], nil
}

// splitLine splits a line into words as a shell does: blanks separate, quotes
// join, and a backslash escapes, outside quotes and inside double quotes.
// Inside single quotes everything stands for itself.
func splitLine(line string) ([]string, error) {
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

// quoteWord writes b as one word that splitLine reads back.
func quoteWord(b []byte) string {
	s := escape(b)
	if s == "" {
		return `""`
	}
	return strings.NewReplacer(" ", `\ `, `"`, `\"`, `'`, `\'`).Replace(s)
}

// text is bytes as they stand in JSON: a string where they are valid UTF-8,
// otherwise {"base64": "…"}.
type text []byte

type base64Text struct {
	Base64 *string `json:"base64"`
}

// MarshalJSON writes a string, or base64 for what is not valid UTF-8.
func (t text) MarshalJSON() ([]byte, error) {
	if utf8.Valid(t) {
		return marshalJSON(string(t))
	}
	s := base64.StdEncoding.EncodeToString(t)
	return marshalJSON(base64Text{&s})
}

// UnmarshalJSON reads both forms back.
func (t *text) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		var s string
		if err := json.Unmarshal(b, &s); err != nil {
			return err
		}
		// The decoder puts U+FFFD where a string is no Unicode. A value must
		// not change on its way, so only one that stood there may remain.
		literal := bytes.Count(b, []byte("\uFFFD")) + bytes.Count(bytes.ToLower(b), []byte(`\ufffd`))
		if strings.Count(s, "\uFFFD") > literal {
			return errors.New("a string is not valid Unicode; write it as base64")
		}
		*t = text(s)
		return nil
	}
	var v base64Text
	if err := json.Unmarshal(b, &v); err != nil || v.Base64 == nil {
		return errors.New(`neither a string nor {"base64": "…"}`)
	}
	raw, err := base64.StdEncoding.DecodeString(*v.Base64)
	if err != nil {
		return fmt.Errorf("base64: %w", err)
	}
	*t = raw
	return nil
}

// marshalJSON is json.Marshal that leaves <, > and & as they are, and escapes what
// is not printable.
func marshalJSON(v any) ([]byte, error) {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return printableJSON([]byte(strings.TrimSuffix(b.String(), "\n"))), nil
}

// printableJSON returns the same JSON value with DEL and the characters above ASCII
// that are not printable, such as terminal controls and those that change the
// direction of text, as \u escapes. Valid JSON has them in strings only.
func printableJSON(b []byte) []byte {
	hidden := func(r rune) bool { return r >= 0x7f && r != utf8.RuneError && !unicode.IsPrint(r) }
	if !bytes.ContainsFunc(b, hidden) {
		return b
	}
	out := make([]byte, 0, len(b)+16)
	for len(b) > 0 {
		r, size := utf8.DecodeRune(b)
		if hidden(r) {
			for _, unit := range utf16.Encode([]rune{r}) {
				out = fmt.Appendf(out, `\u%04x`, unit)
			}
		} else {
			out = append(out, b[:size]...)
		}
		b = b[size:]
	}
	return out
}
