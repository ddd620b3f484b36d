package main

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/proa-kv/proa/internal/render"
)

// What is shown can be typed back, whatever the bytes.
func FuzzEscape(f *testing.F) {
	for _, s := range []string{"", "plain", "a b\\\"'", "\x00\xff\n", "ü\u202e漢", "\\x00"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if back, err := render.Unescape(render.Escape(b)); err != nil || !bytes.Equal(back, b) {
			t.Fatalf("%q is shown as %s, which reads as %q, %v", b, render.Escape(b), back, err)
		}
		words, err := render.SplitLine("x " + render.QuoteWord(b) + " y")
		if err != nil || len(words) != 3 || words[1] != string(b) {
			t.Fatalf("%q as a word is %s, which reads as %q, %v", b, render.QuoteWord(b), words, err)
		}
		line, err := render.MarshalJSON(row{Key: b, Value: present(b)})
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
		again, err := render.MarshalJSON(row{Key: r.key, Value: r.value, TTLMillis: r.ttl.Milliseconds()})
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
