package resptest

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestRead(t *testing.T) {
	for stream, want := range map[string]string{
		"+OK\r\n":                          "+OK",
		"-ERR no\r\n":                      "-ERR no",
		":-5\r\n":                          ":-5",
		"$3\r\na\r\n\r\n":                  `"a\r\n"`,
		"$0\r\n\r\n":                       `""`,
		"$-1\r\n":                          "$null",
		"*-1\r\n":                          "*null",
		"_\r\n":                            "_null",
		"*2\r\n:1\r\n*1\r\n+x\r\n":         "*[:1 *[+x]]",
		"*0\r\n":                           "*[]",
		"%1\r\n+a\r\n:1\r\n":               "%[+a :1]",
		"~1\r\n+a\r\n":                     "~[+a]",
		">1\r\n+a\r\n":                     ">[+a]",
		",1.5e3\r\n":                       ",1.5e3",
		",inf\r\n":                         ",inf",
		"#t\r\n":                           "#t",
		"(123456789012345678901234567\r\n": "(123456789012345678901234567",
		"=7\r\ntxt:abc\r\n":                "=txt:abc",
	} {
		r := NewReader(strings.NewReader(stream + "+next\r\n"))
		v, err := r.Read()
		if err != nil || v.String() != want || string(r.Raw()) != stream {
			t.Errorf("%q: %v, %v, raw %q", stream, v, err, r.Raw())
		}
		if v, err := r.Read(); err != nil || v.Text != "next" {
			t.Errorf("behind %q: %v, %v", stream, v, err)
		}
		if _, err := r.Read(); err != io.EOF {
			t.Errorf("at the end: %v", err)
		}
		for i := 1; i < len(stream); i++ {
			if _, err := NewReader(strings.NewReader(stream[:i])).Read(); err != io.ErrUnexpectedEOF {
				t.Errorf("%q: %v", stream[:i], err)
			}
		}
	}
}

func TestReadRefuses(t *testing.T) {
	for _, stream := range []string{
		"\r\n", "+a\n", "+a\rb\r\n", "x\r\n", ":\r\n", ":01\r\n", ":+1\r\n", ":1 \r\n", ":9223372036854775808\r\n", "$-2\r\n", "$01\r\n",
		"$a\r\n", "$1\r\nab\r\n", "$67108865\r\n", "*-2\r\n", "*1048577\r\n", "%-1\r\n", "#x\r\n", "_x\r\n", ",x\r\n", "(1a\r\n", "(\r\n",
		"=3\r\ntxt\r\n", "=4\r\ntxtx\r\n", "$+1\r\na\r\n", strings.Repeat("*1\r\n", 40) + ":1\r\n",
	} {
		if v, err := NewReader(strings.NewReader(stream)).Read(); !errors.Is(err, ErrMalformed) {
			t.Errorf("%q: %v, %v", stream, v, err)
		}
	}
}

func TestGet(t *testing.T) {
	v, err := NewReader(strings.NewReader("*4\r\n$1\r\na\r\n:1\r\n$1\r\nb\r\n:2\r\n")).Read()
	if err != nil {
		t.Fatal(err)
	}
	if b, ok := v.Get("b"); !ok || b.Int() != 2 {
		t.Error(b, ok)
	}
	if _, ok := v.Get("c"); ok {
		t.Error("c is there")
	}
}

func TestConn(t *testing.T) {
	c, err := Dial("unix", StartRedis(t))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if v, err := c.Do("ECHO", "a\r\nb"); err != nil || v.String() != `"a\r\nb"` {
		t.Error(v, err)
	}
	if v, err := c.Do("NOSUCH"); err != nil || !v.IsError() {
		t.Error(v, err)
	}
}

func FuzzRead(f *testing.F) {
	for _, s := range []string{"+OK\r\n", "*2\r\n$1\r\na\r\n_\r\n", "%1\r\n#t\r\n=5\r\ntxt:a\r\n", "$-1\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		r := NewReader(bytes.NewReader(stream))
		for taken := 0; ; {
			v, err := r.Read()
			if err != nil {
				return
			}
			if !bytes.HasPrefix(stream[taken:], r.Raw()) || len(r.Raw()) == 0 || v.Kind != r.Raw()[0] {
				t.Fatalf("%q at %d: %v of %q", stream, taken, v, r.Raw())
			}
			taken += len(r.Raw())
		}
	})
}
