package render

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A value that is cut says how many bytes it has, and no character of it, nor an
// escape, is cut in two.
func TestCutValues(t *testing.T) {
	for _, tt := range []struct {
		value   string
		columns int
		want    string
	}{
		{"short", 30, "short"},
		{strings.Repeat("漢", 50), 30, strings.Repeat("漢", 17) + "… (150 bytes)"},
		{strings.Repeat("\x00", 50), 30, `\x00\x00\x00\x00… (50 bytes)`},
		{strings.Repeat("\n", 50), 29, strings.Repeat(`\n`, 8) + "… (50 bytes)"},
		{strings.Repeat("\\", 50), 29, strings.Repeat(`\\`, 8) + "… (50 bytes)"},
	} {
		if got := cut(Escape([]byte(tt.value)), len(tt.value), tt.columns, 0); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.value, got, tt.want)
		}
	}
}

func TestTable(t *testing.T) {
	var b bytes.Buffer
	tb := &Table{w: &b, Columns: 40, header: []string{"KEY", "VALUE"}, widths: make([]int, 2)}
	for _, r := range [][2]string{{"ä", "short"}, {"longer", strings.Repeat("x", 50)}, {"k", strings.Repeat("漢", 50)}} {
		tb.Row(r[0], r[1])
	}
	if err := tb.Flush(); err != nil {
		t.Fatal(err)
	}
	want := "KEY     VALUE\n" +
		"ä       short\n" +
		"longer  xxxxxxxxxxxxxxx… (50 characters)\n" +
		"k       漢漢漢漢漢漢漢漢漢漢漢漢漢漢漢… (50 characters)\n"
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
}

// Pages keep the widths of those before, and the header comes once.
func TestTableOfManyPages(t *testing.T) {
	var b bytes.Buffer
	tb := &Table{w: &b, header: []string{"N", "V"}, widths: make([]int, 2)}
	for i := range 2*tablePageRows + 1 {
		tb.Row(fmt.Sprint(i), "v")
	}
	if err := tb.Flush(); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	if len(lines) != 2*tablePageRows+2 || strings.Count(b.String(), "N") != 1 {
		t.Errorf("%d lines, %d headers", len(lines), strings.Count(b.String(), "N"))
	}
	if lines[len(lines)-1] != "400  v" {
		t.Errorf("last line %q", lines[len(lines)-1])
	}
}

// Status is shown whatever a server puts into it.
func TestShowStatus(t *testing.T) {
	var b bytes.Buffer
	a := &Output{Out: &b, Form: AsTable}
	raw := `{"node": 1, "name": "x\u001b", "list": [1, 2], "empty": {}, "none": [],
		"shards": [{"shard": 0, "leader": 7}, {"shard": 10, "leader": 8}], "storage": {"rows": 5, "cache": {"hits": 1}}}`
	if err := a.Object([]byte(raw)); err != nil {
		t.Fatal(err)
	}
	want := `node  1
name  x\x1b
list  [1, 2]
none  []

shards
SHARD  LEADER
0      7
10     8

storage
  rows  5

  cache
    hits  1
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
	for _, raw := range []string{"", "[]", "5", "{"} {
		if err := a.Object([]byte(raw)); err == nil {
			t.Errorf("%q is shown", raw)
		}
	}
}

func TestEscape(t *testing.T) {
	for in, want := range map[string]string{
		"":               "",
		"plain ünï 漢字 😀": "plain ünï 漢字 😀",
		"a\\b":           `a\\b`,
		"\n\r\t":         `\n\r\t`,
		"\x00\x1b[31m":   `\x00\x1b[31m`,
		"\xff\xc3(":      `\xff\xc3(`,
		"\u202e":         `\xe2\x80\xae`, // reorders text on a terminal
		"�":              "�",
	} {
		if got := Escape([]byte(in)); got != want {
			t.Errorf("escape(%q) = %s, want %s", in, got, want)
		}
	}
	for _, s := range []string{`\`, `\q`, `\x`, `\x1`, `\xzz`, `a\ü`} {
		if got, err := Unescape(s); err == nil {
			t.Errorf("unescape(%s) = %q", s, got)
		}
	}
}

// JSON is printable too, and the same value.
func TestMarshalJSONIsPrintable(t *testing.T) {
	const value = "\x1b \u009b \x7f \u202e \u2066 \U000e0001 漢 � 😀"
	const want = `"\u001b \u009b \u007f \u202e \u2066 \udb40\udc01 漢 � 😀"`
	for _, v := range []any{value, Text(value), json.RawMessage(`"\u001b` + value[1:] + `"`)} {
		b, err := MarshalJSON(v)
		if err != nil || string(b) != want {
			t.Errorf("%T: %s, %v", v, b, err)
		}
		var back string
		if err := json.Unmarshal(b, &back); err != nil || back != value {
			t.Errorf("%q, %v", back, err)
		}
	}
	var out bytes.Buffer
	a := &Output{Out: &out, Form: AsJSON}
	if err := a.Object(json.RawMessage("{\"a\u009b\":\"\x7f\"}")); err != nil || out.String() != `{"a\u009b":"\u007f"}`+"\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
}

func TestSplitLine(t *testing.T) {
	for in, want := range map[string][]string{
		``:                       nil,
		"  \t ":                  nil,
		`get k`:                  {"get", "k"},
		`put "a b" 'c d'`:        {"put", "a b", "c d"},
		`a""b ''`:                {"ab", ""},
		`a\ b\x00\n`:             {"a b\x00\n"},
		`"a\"b\\\x41" 'a\"b'`:    {`a"b\A`, `a\"b`},
		`put k "{\"x\": [1, 2]}`: nil,
		`put 'open`:              nil,
		`k \`:                    nil,
		`ü漢`:                     {"ü漢"},
	} {
		got, err := SplitLine(in)
		if (err != nil) != (want == nil && len(bytes.TrimSpace([]byte(in))) > 0) {
			t.Errorf("splitLine(%s): error %v", in, err)
		}
		if err == nil && !cmp.Equal(got, want) {
			t.Errorf("splitLine(%s) = %q, want %q", in, got, want)
		}
	}
}

func TestShellQuote(t *testing.T) {
	for _, word := range []string{"plain", "", "two words", "it's", `"$HOME"`, "`id`", "a\nb", "\\", "*", "~", "ü", "-x", "a;b|c&d", "\x1b[31m 100% -\\n'$x", "-\u009b\n\n", "\n"} {
		out, err := exec.Command("sh", "-c", "printf %s "+ShellQuote(word)).Output()
		if err != nil || string(out) != word {
			t.Errorf("%q: %q, %v", word, out, err)
		}
	}
}

func TestWrapAndCut(t *testing.T) {
	l := Look{Columns: 24, Colour: true}
	if got, want := l.Wrap("one two three four five six seven", "  "), "one two three four\n  five six seven"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := (Look{}).Wrap("one  two", " "); got != "one  two" {
		t.Errorf("%q", got)
	}
	for line, want := range map[string]string{
		"äbcdef": "äbc", "\x1b[31mäbcdef\x1b[0m": "\x1b[31mäbc\x1b[0m", "\x1b[31mab\x1b[0mcdef": "\x1b[31mab\x1b[0mc", "ab": "ab", "\x1b[31mabc\x1b[0m": "\x1b[31mabc\x1b[0m",
	} {
		if got := cutLine(line, 3); got != want {
			t.Errorf("%q cut to %q, want %q", line, got, want)
		}
	}
}

func TestFormat(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.00 KiB", 10 << 20: "10.0 MiB", 999 << 30: "999 GiB", 1 << 50: "1.00 PiB"} {
		if got := Bytes(n); got != want {
			t.Errorf("formatBytes(%d) = %s, want %s", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{
		0: "0", 1500 * time.Microsecond: "2ms", 2340 * time.Millisecond: "2.3s", 130 * time.Second: "2m10s",
		3*time.Hour + 5*time.Minute: "3h", 50 * time.Hour: "2d",
	} {
		if got := Age(d); got != want {
			t.Errorf("formatAge(%v) = %s, want %s", d, got, want)
		}
	}
}

// TestRounded checks that figures keep what a person reads, and what is no number
// with decimals is as it was.
func TestRounded(t *testing.T) {
	for value, want := range map[string]string{
		"3187.935272727273": "3187.935", "0.00049": "0", "1.9996": "2", "12.5": "12.5", "3": "3", "18446744073709551615": "18446744073709551615",
		"true": "true", "null": "null", `["tcp://127.0.0.1:7400"]`: `["tcp://127.0.0.1:7400"]`,
	} {
		if got := rounded(value); got != want {
			t.Errorf("%s became %s, want %s", value, got, want)
		}
	}
}
