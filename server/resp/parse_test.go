package resp

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/proa-kv/proa/internal/resptest"
)

// request is what a Parser made of the front of a stream.
type request struct {
	args  []string
	taken int
}

// parseAll feeds a stream to a Parser whose buffer ends first at each of cuts,
// and each time lies somewhere else. It returns the requests, and the error
// that ended the stream.
func parseAll(t testing.TB, p *Parser, stream []byte, cuts ...int) (found []request, err error) {
	t.Helper()
	start, need := 0, 0
	for _, cut := range append(cuts, len(stream)) {
		for start < cut {
			b := bytes.Clone(stream[start:cut])
			var taken int
			wanted := need
			taken, need, err = p.Next(b)
			if err != nil {
				var refused *ProtocolError
				if taken != 0 || need != 0 || !errors.As(err, &refused) {
					t.Fatalf("%q: taken %d, need %d with error %v", b, taken, need, err)
				}
				return found, err
			}
			if taken == 0 {
				if need != 0 && need <= len(b) {
					t.Fatalf("%q: needs %d bytes, which it has", b, need)
				}
				break
			}
			if taken < wanted {
				t.Fatalf("%q takes %d bytes, and needed %d", b, taken, wanted)
			}
			found = append(found, request{texts(p.Args), taken})
			start += taken
			need = 0
		}
	}
	return found, nil
}

func texts(args [][]byte) []string {
	s := []string{}
	for _, a := range args {
		s = append(s, string(a))
	}
	return s
}

func TestParse(t *testing.T) {
	for _, c := range []struct {
		stream string
		want   [][]string
		err    string
	}{
		// Multibulk.
		{"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", [][]string{{"GET", "k"}}, ""},
		{"*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nTIME\r\n", [][]string{{"PING"}, {"TIME"}}, ""},
		{"*2\r\n$0\r\n\r\n$3\r\n\r\n\x00\r\n", [][]string{{"", "\r\n\x00"}}, ""},
		{"*0\r\n*-1\r\n*-9\r\n*1\r\n$4\r\nPING\r\n", [][]string{{}, {}, {}, {"PING"}}, ""},
		{"*1\r\n$10\r\n0123456789\r\n", [][]string{{"0123456789"}}, ""},
		{"*2\r\n$4\r\nECHO\r\n$1\r\n", nil, ""}, // not whole
		// What Redis does not look at.
		{"*1\rx$4\ryPINGzz+", [][]string{{"PING"}}, ""},
		// Headers.
		{"*\r\n", nil, "invalid multibulk length"},
		{"*+1\r\n", nil, "invalid multibulk length"},
		{"*01\r\n", nil, "invalid multibulk length"},
		{"*-0\r\n", nil, "invalid multibulk length"},
		{"* 1\r\n", nil, "invalid multibulk length"},
		{"*1 \r\n", nil, "invalid multibulk length"},
		{"*1a\r\n", nil, "invalid multibulk length"},
		{"*1\n$4\nPING\n\r\n", nil, "invalid multibulk length"},
		{"*99999999999999999999\r\n", nil, "invalid multibulk length"},
		{"*9223372036854775807\r\n", nil, "invalid multibulk length"},
		{"*2147483648\r\n", nil, "invalid multibulk length"},
		{"*1048577\r\n", nil, "invalid multibulk length"},
		{"*1\r\n$\r\n", nil, "invalid bulk length"},
		{"*1\r\n$-1\r\n", nil, "invalid bulk length"},
		{"*1\r\n$01\r\n", nil, "invalid bulk length"},
		{"*1\r\n$+1\r\n", nil, "invalid bulk length"},
		{"*1\r\n$-9223372036854775808\r\n", nil, "invalid bulk length"},
		{"*1\r\n$9223372036854775807\r\n", nil, "invalid bulk length"},
		{"*1\r\n$15728641\r\n", nil, "invalid bulk length"},
		{"*1\r\n:3\r\n", nil, "expected '$', got ':'"},
		{"*1\r\nPING\r\n", nil, "expected '$', got 'P'"},
		{"*1\r\n\xff\r\n", nil, "expected '$', got '\xff'"},
		{"*2\r\n$4\r\nPING\r\n\r\n\r\n", nil, "expected '$', got '\r'"},
		{"*1\r\n$4\r\nPING\r\n*1\r\nx\r\n", [][]string{{"PING"}}, "expected '$', got 'x'"},
		// Inline.
		{"PING\r\n", [][]string{{"PING"}}, ""},
		{"PING\nTIME\n", [][]string{{"PING"}, {"TIME"}}, ""},
		{"\r\n\nPING\r\n \t\r\n", [][]string{{}, {}, {"PING"}, {}}, ""},
		{"  SET\tk  v \r\n", [][]string{{"SET", "k", "v"}}, ""},
		{"a\rb c\vd \ve\r\r\n", [][]string{{"a", "b", "c\vd", "e"}}, ""},
		{"SET k\x00 v\r\n", [][]string{{"SET", "k\x00", "v"}}, ""},
		{`SET "a b" 'c d'` + "\n", [][]string{{"SET", "a b", "c d"}}, ""},
		{`"\x41\x4a\x4Az" "\n\r\t\b\a\q\\\""` + "\n", [][]string{{"AJJz", "\n\r\t\b\aq\\\""}}, ""},
		{`"\xg0\x0"` + "\n", [][]string{{"xg0x0"}}, ""},
		{`'\'' '\n\\ ' ''` + "\n", [][]string{{"'", `\n\\ `, ""}}, ""},
		{`a"b c" d'e'` + "\n", [][]string{{"ab c", "de"}}, ""},
		{`"a"` + "\v\"b\"\n", [][]string{{"a", "b"}}, ""},
		{`a\ b` + "\n", [][]string{{`a\`, "b"}}, ""},
		{"\"a\"b\n", nil, "unbalanced quotes in request"},
		{"'a'\x00\n", nil, "unbalanced quotes in request"},
		{"\"a\n", nil, "unbalanced quotes in request"},
		{"'a\n", nil, "unbalanced quotes in request"},
		{"\"a\\\n", nil, "unbalanced quotes in request"},
		{"'a\\\n", nil, "unbalanced quotes in request"},
		{`'\\'` + "\n", nil, "unbalanced quotes in request"}, // a backslash, and a quote that is escaped
		{"'a\\'\n", nil, "unbalanced quotes in request"},
		{"PING\n'\n", [][]string{{"PING"}}, "unbalanced quotes in request"},
		{"$1\r\n", [][]string{{"$1"}}, ""},
		// One after the other.
		{"PING\n*1\r\n$4\r\nTIME\r\nINFO 'x y'\n", [][]string{{"PING"}, {"TIME"}, {"INFO", "x y"}}, ""},
	} {
		var p Parser
		want, wantErr := parseAll(t, &p, []byte(c.stream))
		var got [][]string
		for _, r := range want {
			got = append(got, r.args)
		}
		if !slices.EqualFunc(got, c.want, slices.Equal) {
			t.Errorf("%q: %q, want %q", c.stream, got, c.want)
		}
		if text := errorText(wantErr); text != c.err {
			t.Errorf("%q: error %q, want %q", c.stream, text, c.err)
		}
		checkCuts(t, []byte(c.stream), want, wantErr)
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return strings.TrimPrefix(err.Error(), "Protocol error: ")
}

// checkCuts checks that a stream means the same in two pieces, however it is
// cut, and byte by byte.
func checkCuts(t testing.TB, stream []byte, want []request, wantErr error) {
	t.Helper()
	check := func(cuts ...int) {
		t.Helper()
		var p Parser
		got, err := parseAll(t, &p, stream, cuts...)
		if errorText(err) != errorText(wantErr) || !slices.EqualFunc(got, want, same) {
			t.Fatalf("%q cut at %v: %v, %v; whole: %v, %v", stream, cuts, got, err, want, wantErr)
		}
	}
	all := make([]int, len(stream))
	for i := range stream {
		check(i)
		all[i] = i
	}
	check(all...)
}

func same(a, b request) bool {
	return a.taken == b.taken && slices.Equal(a.args, b.args)
}

func TestParserLimits(t *testing.T) {
	bulks := func(n, size int) string {
		return fmt.Sprintf("*%d\r\n", n) + strings.Repeat(fmt.Sprintf("$%d\r\n%s\r\n", size, strings.Repeat("x", size)), n)
	}
	small := Parser{MultibulkMax: 3, BulkBytesMax: 10, InlineBytesMax: 20, RequestBytesMax: 40}
	for _, c := range []struct {
		name   string
		limits Parser
		stream string
		err    string
	}{
		{"arguments at the limit", small, bulks(3, 1), ""},
		{"arguments beyond", small, bulks(4, 1), "invalid multibulk length, more than 3 arguments in one command; send several commands"},
		{"arguments beyond what Redis takes", small, "*1048577\r\n", "invalid multibulk length"},
		{"inline arguments at the limit", small, "a b c\n", ""},
		{"inline arguments beyond", small, "a b c d\n", "too many words in an inline request"},
		{"bulk at the limit", small, bulks(1, 10), ""},
		{"bulk beyond", small, bulks(1, 11), "invalid bulk length"},
		{"request at the limit", small, "*3\r\n$10\r\n0123456789\r\n$7\r\nabcdefg\r\n$0\r\n\r\n", ""},
		{"request beyond", small, "*3\r\n$10\r\n0123456789\r\n$8\r\nabcdefgh\r\n", "too big request, more than 40 bytes; send fewer or smaller arguments"},
		{"request that can only be beyond", Parser{RequestBytesMax: 40}, "*7\r\n", "too big request, more than 40 bytes; send fewer or smaller arguments"},
		{"inline at the limit", small, strings.Repeat("x", 20) + "\n", ""},
		{"inline beyond", small, strings.Repeat("x", 21) + "\n", "too big inline request"},
		{"inline without end", small, strings.Repeat("x", 21), "too big inline request"},
		{"multibulk header at the limit", small, "*" + strings.Repeat("1", 19) + "\r\n", "invalid multibulk length"},
		{"multibulk header beyond", small, "*" + strings.Repeat("1", 20) + "\r\n", "too big mbulk count string"},
		{"multibulk header without end", small, "*" + strings.Repeat("1", 20), "too big mbulk count string"},
		{"bulk header at the limit", small, "*1\r\n$" + strings.Repeat("1", 19) + "\r\n", "invalid bulk length"},
		{"bulk header beyond", small, "*1\r\n$" + strings.Repeat("1", 20) + "\r\n", "too big bulk count string"},
		{"bulk header without end", small, "*1\r\n$" + strings.Repeat("1", 20), "too big bulk count string"},
		{"wrong bulk header without end", small, "*1\r\n%" + strings.Repeat("1", 20), "too big bulk count string"},
		{"ten arguments before authentication", Parser{Unauthenticated: true}, bulks(10, 1), ""},
		{"eleven", Parser{Unauthenticated: true}, bulks(11, 1), "unauthenticated multibulk length"},
		{"16 KiB before authentication", Parser{Unauthenticated: true}, "*1\r\n$16384\r\n", ""},
		{"more", Parser{Unauthenticated: true}, "*1\r\n$16385\r\n", "unauthenticated bulk length"},
		{"defaults: arguments", Parser{}, "*1048576\r\n", ""},
		{"defaults: bulk", Parser{}, "*1\r\n$15728640\r\n", ""},
		{"defaults: inline", Parser{}, strings.Repeat("x", 64<<10) + "\n", ""},
		{"defaults: inline beyond", Parser{}, strings.Repeat("x", 64<<10+1), "too big inline request"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := c.limits
			if _, err := parseAll(t, &p, []byte(c.stream)); errorText(err) != c.err {
				t.Errorf("whole: error %q, want %q", errorText(err), c.err)
			}
			if len(c.stream) > 1000 {
				return
			}
			for cut := range c.stream {
				p := c.limits
				if _, err := parseAll(t, &p, []byte(c.stream), cut); errorText(err) != c.err {
					t.Errorf("cut at %d: error %q, want %q", cut, errorText(err), c.err)
				}
			}
		})
	}
}

func TestNeed(t *testing.T) {
	for _, c := range []struct {
		stream string
		need   int
	}{
		{"", 0},
		{"*", 0},
		{"*3", 0},
		{"PI", 0},
		{"*3\r\n", 4 + 3*6},
		{"*1\r\n$1", 4 + 6},
		{"*1\r\n$12345", 4 + 7}, // more than any bulk of one byte: its own line at least
		{"*1\r\n$100\r\n", 4 + 6 + 102},
		{"*3\r\n$100\r\nabc", 4 + 6 + 102 + 2*6},
		{"*2\r\n$1\r\na\r\n", 4 + 7 + 6},
		{"*2\r\n$1\r\na\r\n$70\r\n", 4 + 7 + 5 + 72},
	} {
		var p Parser
		taken, need, err := p.Next([]byte(c.stream))
		if taken != 0 || need != c.need || err != nil {
			t.Errorf("%q: %d, %d, %v, want need %d", c.stream, taken, need, err, c.need)
		}
	}
}

// A request that comes byte by byte must not be looked at from its front again
// and again: that would cost its length squared.
func TestParserKeepsProgress(t *testing.T) {
	var p Parser
	stream := resptest.AppendRequest(nil, slices.Repeat([]string{"value"}, 1000)...)
	for i := range stream {
		if taken, _, err := p.Next(stream[:i]); taken != 0 || err != nil {
			t.Fatal(i, taken, err)
		}
		// Less than one argument is left to look at.
		if unparsed := i - p.pos; unparsed > len("$5\r\nvalue\r\n") {
			t.Fatalf("of %d bytes only %d are parsed", i, p.pos)
		}
	}
	if taken, _, err := p.Next(stream); taken != len(stream) || len(p.Args) != 1000 || err != nil {
		t.Fatal(taken, len(p.Args), err)
	}
	for _, front := range []string{"*", "*1\r\n$", "*1\r\n%", "x"} {
		b := []byte(front)
		for len(b) < 1000 {
			if taken, _, err := p.Next(b); taken != 0 || err != nil {
				t.Fatal(taken, err)
			}
			if p.scanned != len(b) && len(b) > len(front)+shortDigitsMax {
				t.Fatalf("of %d bytes %d need not be looked at again", len(b), p.scanned)
			}
			b = append(b, '1')
		}
		p.Reset()
	}
}

func TestParserReset(t *testing.T) {
	var p Parser
	if taken, _, err := p.Next([]byte("*2\r\n$1\r\na\r\n")); taken != 0 || err != nil {
		t.Fatal(taken, err)
	}
	p.Reset()
	found, err := parseAll(t, &p, []byte("*1\r\n$1\r\nb\r\n"))
	if err != nil || len(found) != 1 || found[0].args[0] != "b" {
		t.Fatal(found, err)
	}
	// After an error too, a Parser is as new.
	if _, _, err := p.Next([]byte("*2\r\n$1\r\na\r\nx\r\n")); err == nil {
		t.Fatal("no error")
	}
	if found, err = parseAll(t, &p, []byte("*1\r\n$1\r\nc\r\n")); err != nil || found[0].args[0] != "c" {
		t.Fatal(found, err)
	}
}

// The arguments must not reach beyond themselves: appending to one must not
// write into the next.
func TestArgumentsEndWhereTheyEnd(t *testing.T) {
	for _, stream := range []string{"*2\r\n$1\r\na\r\n$1\r\nb\r\n", "a b\n", "'a' \"b\"\n"} {
		var p Parser
		if _, _, err := p.Next([]byte(stream)); err != nil {
			t.Fatal(err)
		}
		_ = append(p.Args[0], "xx"...) // up to the second
		_ = append(p.Args[0], "xxxxxxxxx"...)
		if string(p.Args[1]) != "b" {
			t.Errorf("%q: second argument is now %q", stream, p.Args[1])
		}
	}
}

// A length alone takes no memory, and what a large request took is given back.
func TestParserMemory(t *testing.T) {
	var p Parser
	header := []byte("*1048576\r\n")
	if got := testing.AllocsPerRun(10, func() {
		p.Reset()
		if _, _, err := p.Next(header); err != nil {
			t.Fatal(err)
		}
	}); got != 0 {
		t.Errorf("a header takes %v allocations", got)
	}
	p.Reset()
	large := []byte("*100000\r\n" + strings.Repeat("$0\r\n\r\n", 100000))
	if taken, _, err := p.Next(large); taken != len(large) || err != nil {
		t.Fatal(taken, err)
	}
	quoted := []byte("'" + strings.Repeat("x", 10000) + "'\n")
	if taken, _, err := p.Next(quoted); taken != len(quoted) || err != nil {
		t.Fatal(taken, err)
	}
	if _, _, err := p.Next([]byte("PING\n")); err != nil {
		t.Fatal(err)
	}
	if cap(p.Args) > argsKept || cap(p.spans) > argsKept || cap(p.scratch) > scratchBytesKept {
		t.Errorf("keeps %d arguments, %d spans, %d bytes", cap(p.Args), cap(p.spans), cap(p.scratch))
	}
}

func TestParseAllocates(t *testing.T) {
	for _, stream := range []string{
		"*3\r\n$3\r\nSET\r\n$5\r\nkey:1\r\n$3\r\nxyz\r\n",
		"*2\r\n$3\r\nGET\r\n$12345678\r\n", // not whole
		"PING\r\n",
		"SET \"a b\" 'c'\r\n",
	} {
		var p Parser
		b := []byte(stream)
		next := func() {
			p.Reset()
			if _, _, err := p.Next(b); err != nil {
				t.Fatal(err)
			}
		}
		next()
		if got := testing.AllocsPerRun(100, next); got != 0 {
			t.Errorf("%q: %v allocations", stream, got)
		}
	}
}

// FuzzParse checks that a stream means the same whole and in any pieces, and
// that arguments are bytes of the stream.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", "*0\r\n*-1\r\nPING\r\n", "*1\r\n$-1\r\n", "*1\rx$4\ryPINGzz",
		"SET \"a\\x41\" 'b\\''\r\n", "*1\r\n$1048576\r\n", "*2147483647\r\n", "*1\r\nx\r\n", "\"", "*3\r\n$1\r\na\r\n",
	} {
		f.Add([]byte(s), uint16(3), uint16(8))
	}
	f.Fuzz(func(t *testing.T, stream []byte, cut1, cut2 uint16) {
		limits := Parser{MultibulkMax: 100, BulkBytesMax: 1000, InlineBytesMax: 100, RequestBytesMax: 2000}
		whole := limits
		want, wantErr := parseAll(t, &whole, stream)
		taken := 0
		for _, r := range want {
			taken += r.taken
			if n := len(strings.Join(r.args, "")); n > r.taken {
				t.Fatalf("%d bytes of arguments in %d", n, r.taken)
			}
		}
		if taken > len(stream) {
			t.Fatalf("took %d of %d bytes", taken, len(stream))
		}
		cuts := []int{int(cut1), int(cut2)}
		if cut1 == cut2 { // byte by byte
			cuts = cuts[:0]
			for i := range stream {
				cuts = append(cuts, i)
			}
		}
		cuts = slices.DeleteFunc(cuts, func(c int) bool { return c > len(stream) })
		slices.Sort(cuts)
		pieces := limits
		got, err := parseAll(t, &pieces, stream, cuts...)
		if errorText(err) != errorText(wantErr) || !slices.EqualFunc(got, want, same) {
			t.Fatalf("%q cut at %v: %v, %v; whole: %v, %v", stream, cuts, got, err, want, wantErr)
		}
		if cap(pieces.spans) > argsKept || cap(pieces.scratch) > max(limits.InlineBytesMax, scratchBytesMin) {
			t.Fatalf("keeps %d spans, %d bytes", cap(pieces.spans), cap(pieces.scratch))
		}
	})
}

// FuzzInline checks the splitting of lines against quoting: words quoted in any
// of the ways come back as they were, and no line makes more bytes than it has.
func FuzzInline(f *testing.F) {
	for _, s := range []string{"a", "a b", "a'b\"", "\x00\xff\r\n", "", "\\x41"} {
		f.Add(s, []byte("x\\"), "PING "+s)
	}
	f.Fuzz(func(t *testing.T, first string, second []byte, line string) {
		p := Parser{InlineBytesMax: 1 << 20}
		if p.split([]byte(line)) != nil {
			p.Args = nil
		}
		if n := len(bytes.Join(p.Args, nil)); n > len(line) {
			t.Fatalf("%q makes %d bytes", line, n)
		}
		quoted := doubleQuoted(first)
		quoted += " " + doubleQuoted(string(second))
		found, err := parseAll(t, &p, []byte("X "+quoted+"\r\n"))
		if err != nil || len(found) != 1 || !slices.Equal(found[0].args, []string{"X", first, string(second)}) {
			t.Fatalf("%s: %v, %v", quoted, found, err)
		}
	})
}

// doubleQuoted quotes a word, every other byte as \xHH.
func doubleQuoted(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case i%2 == 0 || c < ' ':
			fmt.Fprintf(&b, `\x%02x`, c)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

func BenchmarkParse(b *testing.B) {
	for _, c := range []struct{ name, stream string }{
		{"PING", "*1\r\n$4\r\nPING\r\n"},
		{"GET", "*2\r\n$3\r\nGET\r\n$16\r\nkey:000000012345\r\n"},
		{"SET", "*3\r\n$3\r\nSET\r\n$16\r\nkey:000000012345\r\n$128\r\n" + strings.Repeat("x", 128) + "\r\n"},
		{"inline", "PING\r\n"},
	} {
		b.Run(c.name, func(b *testing.B) {
			var p Parser
			stream := []byte(c.stream)
			b.ReportAllocs()
			for b.Loop() {
				if taken, _, _ := p.Next(stream); taken != len(stream) || Lookup(p.Args[0]) == nil {
					b.Fatal(taken)
				}
			}
		})
	}
}

// TestHeaderAtTheLimit: a request whose last header does not end within what a
// request may take is refused, and is not asked to be continued for ever.
func TestHeaderAtTheLimit(t *testing.T) {
	p := Parser{RequestBytesMax: 64}
	stream := "*2\r\n$47\r\n" + strings.Repeat("x", 47) + "\r\n$00000"
	if _, need, err := p.Next([]byte(stream)); err == nil {
		t.Errorf("with %d bytes it needs %d of %d", len(stream), need, p.RequestBytesMax)
	}
}

// Forget lets go of the buffer that Next was given, which Args views.
func TestForget(t *testing.T) {
	var p Parser
	b := []byte("*2\r\n$3\r\nGET\r\n$1\r\nk\r\n")
	if _, _, err := p.Next(b); err != nil || len(p.Args) != 2 {
		t.Fatal(p.Args, err)
	}
	p.Trim()
	if cap(p.Args) == 0 {
		t.Fatal("Trim gives back what an ordinary request needs")
	}
	p.Forget()
	if cap(p.Args) != 0 {
		t.Error("the arguments are still there")
	}
}
