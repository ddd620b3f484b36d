package resp

import (
	"bytes"
	"strconv"
	"strings"
	"testing"

	"github.com/proa-kv/proa/internal/resptest"
)

func TestAppend(t *testing.T) {
	for _, c := range []struct {
		name         string
		append       func(dst []byte, proto int) []byte
		resp2, resp3 string // resp3 empty: the same
	}{
		{"simple", func(b []byte, _ int) []byte { return AppendSimple(b, "OK") }, "+OK\r\n", ""},
		{"simple with line ends", func(b []byte, _ int) []byte { return AppendSimple(b, "a\r\nb") }, "+a  b\r\n", ""},
		{"error", func(b []byte, _ int) []byte { return AppendError(b, ErrSyntax) }, "-ERR syntax error\r\n", ""},
		{"forged error", func(b []byte, _ int) []byte { return AppendError(b, []byte("ERR \r\n+OK\n\r")) }, "-ERR   +OK  \r\n", ""},
		{"integer", func(b []byte, _ int) []byte { return AppendInt(b, 9) }, ":9\r\n", ""},
		{"two digits", func(b []byte, _ int) []byte { return AppendInt(b, 10) }, ":10\r\n", ""},
		{"negative", func(b []byte, _ int) []byte { return AppendInt(b, -1<<63) }, ":-9223372036854775808\r\n", ""},
		{"bulk", func(b []byte, _ int) []byte { return AppendBulk(b, "a\r\n") }, "$3\r\na\r\n\r\n", ""},
		{"bulk of bytes", func(b []byte, _ int) []byte { return AppendBulk(b, []byte("abcdefghijk")) }, "$11\r\nabcdefghijk\r\n", ""},
		{"empty bulk", func(b []byte, _ int) []byte { return AppendBulk(b, "") }, "$0\r\n\r\n", ""},
		{"array", func(b []byte, _ int) []byte { return AppendArray(b, 100) }, "*100\r\n", ""},
		{"map", func(b []byte, p int) []byte { return AppendMap(b, p, 5) }, "*10\r\n", "%5\r\n"},
		{"set", func(b []byte, p int) []byte { return AppendSet(b, p, 5) }, "*5\r\n", "~5\r\n"},
		{"null", AppendNull, "$-1\r\n", "_\r\n"},
		{"null array", AppendNullArray, "*-1\r\n", "_\r\n"},
		{"verbatim", func(b []byte, p int) []byte { return AppendVerbatim(b, p, "txt", "a\nb") }, "$3\r\na\nb\r\n", "=7\r\ntxt:a\nb\r\n"},
	} {
		if c.resp3 == "" {
			c.resp3 = c.resp2
		}
		for proto, want := range map[int]string{RESP2: c.resp2, RESP3: c.resp3} {
			if got := string(c.append([]byte("before"), proto)); got != "before"+want {
				t.Errorf("%s, RESP%d: %q, want %q", c.name, proto, got, want)
			}
		}
	}
}

// FuzzRoundTrip checks that what is appended is read as it was meant, and takes
// exactly its bytes.
func FuzzRoundTrip(f *testing.F) {
	f.Add("OK", int64(0), uint8(3), true)
	f.Add("a\r\n+b\x00", int64(-1<<63), uint8(0), false)
	f.Add("", int64(1<<63-1), uint8(200), true)
	f.Fuzz(func(t *testing.T, text string, n int64, count uint8, three bool) {
		if len(text) > 10_000 {
			return // the reader bounds its lines
		}
		proto := RESP2
		if three {
			proto = RESP3
		}
		b := AppendMap(nil, proto, 6)
		for i, value := range []func([]byte) []byte{
			func(b []byte) []byte { return AppendSimple(b, text) },
			func(b []byte) []byte { return AppendBulk(b, text) },
			func(b []byte) []byte { return AppendInt(b, n) },
			func(b []byte) []byte { return AppendVerbatim(b, proto, "txt", text) },
			func(b []byte) []byte { return AppendNull(b, proto) },
			func(b []byte) []byte {
				b = AppendSet(b, proto, int(count))
				for range count {
					b = AppendError(b, text)
				}
				return b
			},
		} {
			b = value(AppendInt(b, int64(i)))
		}
		r := resptest.NewReader(bytes.NewReader(b))
		v, err := r.Read()
		if err != nil || len(v.Elements) != 12 || !bytes.Equal(r.Raw(), b) {
			t.Fatalf("%q: %v, %v", b, v, err)
		}
		line := strings.NewReplacer("\r", " ", "\n", " ").Replace(text)
		verbatim := text
		if three {
			verbatim = "txt:" + text
		}
		for i, want := range []string{line, text, strconv.FormatInt(n, 10), verbatim, "", ""} {
			e := v.Elements[2*i+1]
			if v.Elements[2*i].Int() != int64(i) || e.Text != want {
				t.Errorf("element %d: %v, want %q", i, e, want)
			}
		}
		if last := v.Elements[11]; len(last.Elements) != int(count) || count > 0 && (!last.Elements[0].IsError() || last.Elements[0].Text != line) {
			t.Errorf("last element: %v", last)
		}
	})
}
