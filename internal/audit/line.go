package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/proa-kv/proa/access"
)

const (
	// userBytesMax bounds the names of users: strangers can send longer ones, but there is
	// no such user.
	userBytesMax = access.NameBytesMax
	// textBytesMax bounds the other texts of an event.
	textBytesMax = 256
	// keyBytesMax bounds what is told of a key.
	keyBytesMax = 256
	// timeLayout has as many digits for each time, so that lines can be sorted as texts.
	timeLayout = "2006-01-02T15:04:05.000000Z"
	// cutMark ends a text that was cut. It makes the name of a user longer than one can be.
	cutMark = "…"
)

// cut cuts what is too long, and has nothing of the key unless keys are wanted.
func (e *Event) cut(keys bool) {
	e.User = clip(e.User, userBytesMax)
	e.Remote, e.Operation, e.Reason = clip(e.Remote, textBytesMax), clip(e.Operation, textBytesMax), clip(e.Reason, textBytesMax)
	if !keys {
		e.Key = nil
	}
	e.Key = bytes.Clone(e.Key[:min(len(e.Key), keyBytesMax)])
}

// clip returns at most the first most bytes of s, in whole characters, and then a mark. It
// does not keep the rest of s in memory.
func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	n := most
	for n > most-utf8.UTFMax && !utf8.RuneStart(s[n]) {
		n--
	}
	return strings.Clone(s[:n]) + cutMark
}

// line is e as one line of JSON, with its end. Whatever is not to be seen, or changes what
// a terminal shows, is escaped.
func (e *Event) line() ([]byte, error) {
	type plain Event
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(struct {
		Time string `json:"time"` // in place of Event.Time
		*plain
	}{e.Time.UTC().Format(timeLayout), (*plain)(e)})
	if err != nil {
		return nil, err
	}
	return escape(b.Bytes()), nil
}

// escape escapes what JSON allows in texts, but a terminal may obey. Outside of texts
// JSON has none of that.
func escape(line []byte) []byte {
	if !bytes.ContainsFunc(line, hidden) {
		return line
	}
	out := make([]byte, 0, 2*len(line))
	for _, r := range string(line) {
		switch {
		case !hidden(r):
			out = utf8.AppendRune(out, r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
	}
	return out
}

func hidden(r rune) bool { return r >= 0x7f && !unicode.IsPrint(r) }
