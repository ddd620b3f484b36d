package redis

import (
	"bufio"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

func TestReadReply(t *testing.T) {
	for _, whole := range []string{
		"+OK\r\n", "-ERR no\r\n", ":-1\r\n", "$3\r\na\r\n\r\n", "$0\r\n\r\n", "$-1\r\n", "_\r\n", "#t\r\n", ",1.5\r\n", "(123\r\n",
		"=7\r\ntxt:a\r\n\r\n", "!3\r\nERR\r\n", "*0\r\n", "*-1\r\n", "*2\r\n$1\r\na\r\n*1\r\n:1\r\n", "%1\r\n+a\r\n:1\r\n", "~1\r\n+a\r\n", ">1\r\n+a\r\n",
	} {
		r, err := readReply(bufio.NewReader(iotest.OneByteReader(strings.NewReader(whole + "+next\r\n"))))
		if err != nil || string(r.raw) != whole {
			t.Errorf("%q was read as %q, %v", whole, r.raw, err)
		}
		for cut := range len(whole) {
			_, err := readReply(bufio.NewReader(strings.NewReader(whole[:cut])))
			if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%q: %v", whole[:cut], err)
			}
		}
	}
	for _, broken := range []string{
		"OK\r\n", "\r\n", "+OK\n", "$x\r\n", "$-2\r\n", "$1\r\nabc", "*x\r\n", "*-2\r\n", "%-2\r\n", "$536870913\r\n", "*1048577\r\n",
		strings.Repeat("*1\r\n", depthMax+2),
	} {
		if _, err := readReply(bufio.NewReader(strings.NewReader(broken))); !errors.Is(err, errReply) {
			t.Errorf("%q: %v", broken, err)
		}
	}
}

func TestSorted(t *testing.T) {
	for in, want := range map[string]string{
		"*3\r\n+b\r\n$1\r\na\r\n+a\r\n":      "*3\r\n$1\r\na\r\n+a\r\n+b\r\n",
		"%2\r\n+b\r\n:1\r\n+a\r\n:2\r\n":     "%2\r\n+a\r\n:2\r\n+b\r\n:1\r\n",
		"*0\r\n":                             "*0\r\n",
		"+OK\r\n":                            "+OK\r\n",
		"*2\r\n*2\r\n+b\r\n+a\r\n+c\r\n":     "*2\r\n*2\r\n+b\r\n+a\r\n+c\r\n",
		"~2\r\n$2\r\nzz\r\n$2\r\naa\r\n":     "~2\r\n$2\r\naa\r\n$2\r\nzz\r\n",
		"*2\r\n$-1\r\n$3\r\nx\r\n\r\n":       "*2\r\n$-1\r\n$3\r\nx\r\n\r\n",
		"*2\r\n:10\r\n:9\r\n":                "*2\r\n:10\r\n:9\r\n",
		"*2\r\n-ERR b\r\n-ERR a\r\n":         "*2\r\n-ERR a\r\n-ERR b\r\n",
		"*2\r\n$2\r\nab\r\n$1\r\nc\r\n":      "*2\r\n$1\r\nc\r\n$2\r\nab\r\n",
		"*2\r\n*0\r\n*-1\r\n":                "*2\r\n*-1\r\n*0\r\n",
		"%1\r\n+k\r\n*2\r\n+z\r\n+y\r\n":     "%1\r\n+k\r\n*2\r\n+z\r\n+y\r\n",
		"*1\r\n%1\r\n+k\r\n$3\r\nabc\r\n":    "*1\r\n%1\r\n+k\r\n$3\r\nabc\r\n",
		"*2\r\n$1\r\n\x00\r\n$1\r\n\xff\r\n": "*2\r\n$1\r\n\x00\r\n$1\r\n\xff\r\n",
	} {
		r, err := readReply(bufio.NewReader(strings.NewReader(in)))
		if err != nil {
			t.Fatal(err)
		}
		if got := string(r.sorted()); got != want {
			t.Errorf("%q sorted is %q, want %q", in, got, want)
		}
	}
}

func TestLinesOf(t *testing.T) {
	long := strings.Repeat("x", lineShownMax+1)
	for in, want := range map[string][]string{
		"":                     nil,
		"+OK\r\n":              {"+OK"},
		"$0\r\n\r\n":           {"$0", ""},
		"$2\r\n\r\n\r\n":       {"$2", "", ""},
		"$3\r\na\\b\r\n":       {"$3", `a\\b`},
		"a\nb\rc\x00\xff \r\n": {`a\nb\rc\x00\xff\x20`},
		"+OK":                  {`+OK\(no CRLF)`},
		"\r":                   {`\r\(no CRLF)`},
		long[1:] + "\r\n":      {long[1:]},
		long + "\r\n":          {long[:lineShownHead] + `\(201 bytes, CRC-32 b317db35)`},
	} {
		if got := linesOf([]byte(in)); !slices.Equal(got, want) {
			t.Errorf("%q is written as %q, want %q", in, got, want)
		}
	}
}

func TestSplitWords(t *testing.T) {
	for in, want := range map[string][]string{
		"GET k":             {"GET", "k"},
		`  SET  k "a b" `:   {"SET", "k", "a b"},
		`"" "\x00\r\n\""`:   {"", "\x00\r\n\""},
		`"ab"*3 c`:          {"ababab", "c"},
		`"ab"*0`:            {""},
		`it's h[a-z]* a"b"`: {"it's", "h[a-z]*", `a"b"`},
	} {
		got, err := splitWords(in)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s is split into %q, %v; want %q", in, got, err, want)
		}
	}
	for _, broken := range []string{"", "  ", `"a`, `"a"b`, `"a"*`, `"a"*-1`, `"a"*x`, `"\y"`, `"a"*536870913`} {
		if got, err := splitWords(broken); err == nil {
			t.Errorf("%s is split into %q", broken, got)
		}
	}
}

const sample = `# A sample.

=== two commands
> GET "k k"
< $1
< v
> PING
=== pipelines
replies 1
unordered
b> PING
b>> "*1\r\n" "x"*2
<~ \+P.*

differs: there is a reason
> FOO
redis< -ERR
proa< +OK
proa<...
> BAR
`

func TestParseScript(t *testing.T) {
	s, err := parseScript("sample", sample)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.cases) != 2 || s.cases[0].name != "two commands" || len(s.cases[0].groups) != 2 || len(s.cases[1].groups) != 3 {
		t.Fatalf("parsed %+v", s)
	}
	get := s.cases[0].groups[0]
	if string(get.payload) != "*2\r\n$3\r\nGET\r\n$3\r\nk k\r\n" || get.replies != 1 || get.line != 4 || !slices.Equal(get.wanted(fromProa), []string{"< $1", "< v"}) {
		t.Errorf("GET is %+v", get)
	}
	ping := s.cases[1].groups[0]
	if string(ping.payload) != "*1\r\n$4\r\nPING\r\n*1\r\nxx" || ping.replies != 1 || !ping.unordered || ping.connection != "b" {
		t.Errorf("PING is %+v", ping)
	}
	foo := s.cases[1].groups[1]
	if foo.differs != "there is a reason" || !slices.Equal(foo.wanted(fromProa), []string{"< +OK", "<..."}) || !slices.Equal(foo.wanted(fromRedis), []string{"< -ERR"}) {
		t.Errorf("FOO is %+v", foo)
	}
}

func TestParseScriptErrors(t *testing.T) {
	const begin = "=== a case\n"
	for text, want := range map[string]string{
		"> PING\n":                             "a case begins",
		begin + "< +OK\n":                      "without a command",
		begin + "what\n":                       "unknown line",
		begin + "replies x\n> PING\n":          "replies",
		begin + "unordered 3\n> PING\n":        "unknown line",
		begin + "unordered\n":                  "nothing is sent",
		begin + "> PING\nuntil\n":              "no line to be sent",
		begin + "> PING\nb> PING\n":            "two connections",
		begin + "> PING\nproa< +OK\n":          "differs",
		begin + "differs: x\n> PING\n< +OK\n":  "differs",
		begin + "> \"\n":                       "invalid syntax",
		begin + "scan\n> SCAN 0\n> SCAN 0\n":   "scan goes",
		begin + "differs:\n> PING\n":           "unknown line",
		begin + "scan\nuntil\n> SCAN 0\n< a\n": "scan goes",
	} {
		_, err := parseScript("broken", text)
		if err == nil {
			t.Errorf("%q is accepted", text)
		} else if !strings.Contains(strings.ReplaceAll(err.Error(), "strconv.Atoi", "replies"), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func TestMatches(t *testing.T) {
	for _, tt := range []struct {
		want, got []string
		ok        bool
	}{
		{[]string{"< a"}, []string{"a"}, true},
		{[]string{"< a"}, []string{"b"}, false},
		{[]string{"< a"}, []string{"a", "b"}, false},
		{[]string{"< a", "< b"}, []string{"a"}, false},
		{[]string{"<"}, []string{""}, true},
		{nil, nil, true},
		{nil, []string{""}, false},
		{[]string{`<~ :\d+`}, []string{":12"}, true},
		{[]string{`<~ :\d+`}, []string{":12x"}, false},
		{[]string{`<~ a|b`}, []string{"ab"}, false},
		{[]string{"< a", "<..."}, []string{"a"}, true},
		{[]string{"< a", "<..."}, []string{"a", "b", "c"}, true},
		{[]string{"<...", "< a"}, []string{"a"}, false},
		{[]string{"< < x"}, []string{"< x"}, true},
	} {
		if ok, err := matches(tt.want, tt.got); ok != tt.ok || err != nil {
			t.Errorf("matches(%q, %q) = %v, %v", tt.want, tt.got, ok, err)
		}
	}
	if _, err := matches([]string{"<~ ("}, []string{"a"}); err == nil {
		t.Error("a broken expression is accepted")
	}
}

// What is rewritten parses to the same commands, with the replies that came.
func TestRewrite(t *testing.T) {
	s, err := parseScript("sample", sample)
	if err != nil {
		t.Fatal(err)
	}
	first, last := s.cases[0].groups[0], s.cases[1].groups
	got := s.rewrite(map[*group][]string{first: {"$-1"}, last[1]: {"$0", ""}, last[2]: {":1"}})
	want := strings.NewReplacer("< $1\n< v", "< $-1", "redis< -ERR", "redis< $0\nredis<", "> BAR\n", "> BAR\n< :1\n").Replace(sample)
	if got != want {
		t.Errorf("rewritten:\n%s\nwant:\n%s", got, want)
	}
}

// scripted is a server that answers each write with the next of its answers.
// An empty answer closes the connection.
func scripted(t *testing.T, answers ...string) *target {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var served = make(chan struct{})
	t.Cleanup(func() { _ = l.Close(); <-served })
	go func() {
		defer close(served)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		b := make([]byte, 1<<16)
		for _, a := range answers {
			if _, err := c.Read(b); err != nil || a == "" {
				return
			}
			if _, err := c.Write([]byte(a)); err != nil {
				return
			}
		}
		_, _ = io.Copy(io.Discard, c)
	}()
	return &target{name: fromProa, address: l.Addr().String()}
}

// sceneOf returns the only case of a text.
func sceneOf(t *testing.T, text string) *scene {
	t.Helper()
	s, err := parseScript("text", "=== a case\n"+text)
	if err != nil {
		t.Fatal(err)
	}
	return s.cases[0]
}

func TestPlay(t *testing.T) {
	c := sceneOf(t, "> GET a\n< $1\n< x\nuntil\n> GET b\n< :2\nscan\n> SCAN 0\n< a\n< b\nscan\n> SCAN 0 MATCH x\n< \\(no keys)\n> PING\n> PING\n<\nclosed\n> QUIT\n<\n")
	at := scripted(t, "$1\r\nx\r\n", ":1\r\n", ":2\r\n", "*2\r\n$1\r\n7\r\n*2\r\n$1\r\nb\r\n$1\r\na\r\n", "*2\r\n$1\r\n0\r\n*1\r\n$1\r\nb\r\n",
		"*2\r\n$1\r\n0\r\n*0\r\n", "+PONG\r\n+PONG\r\n", "")
	got, err := play(c, at)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range [][]string{{"$1", "x"}, {":2"}, {"a", "b"}, {noKeysLine}, {"+PONG", "+PONG"}, {closedLine}} {
		if lines := got[c.groups[i]]; !slices.Equal(lines, want) {
			t.Errorf("group %d: %q, want %q", i, lines, want)
		}
	}
}

// A reply that nobody expected is an error, and so is one that is missing.
func TestPlayErrors(t *testing.T) {
	c := sceneOf(t, "> PING\n< +PONG\n")
	if _, err := play(c, scripted(t, "+PONG\r\n+PONG\r\n")); err == nil || !strings.Contains(err.Error(), "nobody expected") {
		t.Errorf("one reply too many: %v", err)
	}
	if _, err := play(c, scripted(t, "")); !errors.Is(err, io.EOF) {
		t.Errorf("a closed connection: %v", err)
	}
	if _, err := play(c, scripted(t, "PONG\r\n")); !errors.Is(err, errReply) {
		t.Errorf("no reply at all: %v", err)
	}
}

func TestDifference(t *testing.T) {
	g := sceneOf(t, "> GET k\n< $1\n< v\n").groups[0]
	got := difference(g, fromProa, g.wanted(fromProa), []string{"$1", "w", "x"})
	for _, want := range []string{"> GET k\n", "    < $1\n", "- < v ", "+ < w ", "+ < x "} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in:\n%s", want, got)
		}
	}
}

func FuzzReadReply(f *testing.F) {
	for _, s := range []string{"+OK\r\n", "*2\r\n$1\r\na\r\n*-1\r\n", "%1\r\n+a\r\n_\r\n", "$3\r\nabc\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := readReply(bufio.NewReader(strings.NewReader(string(b))))
		if !strings.HasPrefix(string(b), string(r.raw)) {
			t.Fatalf("%q was read as %q", b, r.raw)
		}
		if err == nil {
			_ = r.sorted()
		}
	})
}

func FuzzParseScript(f *testing.F) {
	f.Add(sample)
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parseScript("fuzzed", text)
		if err != nil {
			return
		}
		if again := s.rewrite(nil); again != strings.TrimSuffix(text, "\n")+"\n" {
			t.Fatalf("%q became %q", text, again)
		}
	})
}
