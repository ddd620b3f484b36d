package render

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Text is bytes as they stand in JSON: a string where they are valid UTF-8,
// otherwise {"base64": "…"}.
type Text []byte

type base64Text struct {
	Base64 *string `json:"base64"`
}

// MarshalJSON writes a string, or base64 for what is not valid UTF-8.
func (t Text) MarshalJSON() ([]byte, error) {
	if utf8.Valid(t) {
		return MarshalJSON(string(t))
	}
	s := base64.StdEncoding.EncodeToString(t)
	return MarshalJSON(base64Text{&s})
}

// UnmarshalJSON reads both forms back.
func (t *Text) UnmarshalJSON(b []byte) error {
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
		*t = Text(s)
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

// MarshalJSON is json.Marshal that leaves <, > and & as they are, and escapes what
// is not printable.
func MarshalJSON(v any) ([]byte, error) {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return PrintableJSON([]byte(strings.TrimSuffix(b.String(), "\n"))), nil
}

// PrintableJSON returns the same JSON value with DEL and the characters above ASCII
// that are not printable, such as terminal controls and those that change the
// direction of text, as \u escapes. Valid JSON has them in strings only.
func PrintableJSON(b []byte) []byte {
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

// IsZero tells omitzero to leave a value out only where there is none: an
// empty value is a value.
func (t Text) IsZero() bool { return t == nil }
