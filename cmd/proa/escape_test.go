package main

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
)

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
		if got := escape([]byte(in)); got != want {
			t.Errorf("escape(%q) = %s, want %s", in, got, want)
		}
	}
	for _, s := range []string{`\`, `\q`, `\x`, `\x1`, `\xzz`, `a\ü`} {
		if got, err := unescape(s); err == nil {
			t.Errorf("unescape(%s) = %q", s, got)
		}
	}
}

// JSON is printable too, and the same value.
func TestMarshalJSONIsPrintable(t *testing.T) {
	const value = "\x1b \u009b \x7f \u202e \u2066 \U000e0001 漢 � 😀"
	const want = `"\u001b \u009b \u007f \u202e \u2066 \udb40\udc01 漢 � 😀"`
	for _, v := range []any{value, text(value), json.RawMessage(`"\u001b` + value[1:] + `"`)} {
		b, err := marshalJSON(v)
		if err != nil || string(b) != want {
			t.Errorf("%T: %s, %v", v, b, err)
		}
		var back string
		if err := json.Unmarshal(b, &back); err != nil || back != value {
			t.Errorf("%q, %v", back, err)
		}
	}
	var out bytes.Buffer
	a := &app{out: &out, output: outputJSON}
	if err := a.showStatus(json.RawMessage("{\"a\u009b\":\"\x7f\"}")); err != nil || out.String() != `{"a\u009b":"\u007f"}`+"\n" {
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
		got, err := splitLine(in)
		if (err != nil) != (want == nil && len(bytes.TrimSpace([]byte(in))) > 0) {
			t.Errorf("splitLine(%s): error %v", in, err)
		}
		if err == nil && !cmp.Equal(got, want) {
			t.Errorf("splitLine(%s) = %q, want %q", in, got, want)
		}
	}
}

// What is shown can be typed back, whatever the bytes.
func FuzzEscape(f *testing.F) {
	for _, s := range []string{"", "plain", "a b\\\"'", "\x00\xff\n", "ü\u202e漢", "\\x00"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if back, err := unescape(escape(b)); err != nil || !bytes.Equal(back, b) {
			t.Fatalf("%q is shown as %s, which reads as %q, %v", b, escape(b), back, err)
		}
		words, err := splitLine("x " + quoteWord(b) + " y")
		if err != nil || len(words) != 3 || words[1] != string(b) {
			t.Fatalf("%q as a word is %s, which reads as %q, %v", b, quoteWord(b), words, err)
		}
		line, err := marshalJSON(row{Key: b, Value: present(b)})
		if err != nil {
			t.Fatal(err)
		}
		var r row
		if err := json.Unmarshal(line, &r); err != nil || !bytes.Equal(r.Key, b) || !bytes.Equal(r.Value, b) || r.Value == nil {
			t.Fatalf("%q as JSON is %s, which reads as %q, %q, %v", b, line, r.Key, r.Value, err)
		}
	})
}

func FuzzParseRecord(f *testing.F) {
	for _, s := range []string{
		`{"key":"a","value":"b","ttl_ms":5}`, `{"key":{"base64":"AP8="},"value":{"base64":""}}`, `{"key":"\ud800","value":"\ufffd"}`,
		`{"key":"a"}`, `{}`, `null`, `{"key":"a","value":"b"}{}`, `{"key":"a","value":null}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := parseRecord(line)
		if err != nil {
			return
		}
		again, err := marshalJSON(row{Key: r.key, Value: r.value, TTLMillis: r.ttl.Milliseconds()})
		if err != nil {
			t.Fatal(err)
		}
		back, err := parseRecord(again)
		if err != nil || !bytes.Equal(back.key, r.key) || !bytes.Equal(back.value, r.value) || back.ttl != r.ttl {
			t.Fatalf("%s reads as %+v, is written as %s, and reads as %+v, %v", line, r, again, back, err)
		}
	})
}

func TestParseRecordRefuses(t *testing.T) {
	for _, line := range []string{
		``, `x`, `null`, `[]`, `{}`, `{"key":"a"}`, `{"value":"a"}`, `{"key":"","value":"a"}`, `{"key":"a","value":null}`,
		`{"key":"a","value":5}`, `{"key":"a","value":{}}`, `{"key":"a","value":{"base64":"?"}}`, `{"key":"a","value":"b","ttl_ms":-1}`,
		`{"key":"a","value":"b","ttl_ms":9223372036854775807}`, `{"key":"a","value":"b","other":1}`, `{"key":"a","value":"b"} x`,
		`{"key":"\ud800","value":"b"}`, "{\"key\":\"\xff\",\"value\":\"b\"}",
	} {
		if r, err := parseRecord([]byte(line)); err == nil {
			t.Errorf("parseRecord(%s) = %+v", line, r)
		}
	}
	// A replacement character that stands there is one.
	for _, line := range []string{`{"key":"\uFFFD","value":"\ufffd"}`, `{"key":"�","value":"x"}`} {
		if _, err := parseRecord([]byte(line)); err != nil {
			t.Errorf("parseRecord(%s): %v", line, err)
		}
	}
}
