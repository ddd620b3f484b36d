package contexts

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestUpdate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "proa", "contexts.json")
	s, err := Load(path)
	if err != nil || len(s.Contexts) != 0 {
		t.Fatalf("no file: %v, %v", s, err)
	}
	want := &Set{Current: "prod", Contexts: map[string]Context{
		"prod": {Endpoints: []string{"a:7400", "unix:///run/proa.sock"}, Cluster: 0xd1},
		"new":  {Endpoints: []string{"b"}},
	}}
	if err := Update(path, func(s *Set) error { *s = *want; return nil }); err != nil {
		t.Fatal(err)
	}
	refused := errors.New("refused")
	if err := Update(path, func(s *Set) error { s.Current = "new"; return refused }); !errors.Is(err, refused) {
		t.Fatal(err)
	}
	got, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	golden, err := os.ReadFile("testdata/contexts.json")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(golden), string(b)); diff != "" {
		t.Error(diff)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".*.partial"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// The file has the format that knows what is in it: an older program reads it as long
// as there is nothing in it that it must know.
func TestFormat(t *testing.T) {
	plain := Context{Endpoints: []string{"a"}}
	secure := Context{Endpoints: []string{"a"}, Security: Security{
		User: "ann", PasswordFile: "/etc/ann", TLS: &TLS{CA: "/ca.crt", Cert: "/ann.crt", Key: "/ann.key", ServerName: "n1"},
	}}
	system := Context{Endpoints: []string{"a"}, Security: Security{TLS: &TLS{}}}
	for name, tt := range map[string]struct {
		contexts map[string]Context
		want     string
	}{
		"plain": {map[string]Context{"a": plain}, `{"version":1,"contexts":{"a":{"endpoints":["a"]}}}`},
		"secure": {map[string]Context{"a": plain, "b": secure}, `{"version":2,"contexts":{"a":{"endpoints":["a"]},"b":{"endpoints":["a"],` +
			`"user":"ann","password_file":"/etc/ann","tls":{"ca":"/ca.crt","cert":"/ann.crt","key":"/ann.key","server_name":"n1"}}}}`},
		"authorities of the system": {map[string]Context{"a": system}, `{"version":2,"contexts":{"a":{"endpoints":["a"],"tls":{}}}}`},
	} {
		b, err := encode(&Set{Contexts: tt.contexts})
		if err != nil {
			t.Fatal(err)
		}
		var compact bytes.Buffer
		if err := json.Compact(&compact, b); err != nil || compact.String() != tt.want {
			t.Errorf("%s: %v\n%s, want\n%s", name, err, &compact, tt.want)
		}
		s, err := decode(b)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.contexts, s.Contexts); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// Processes that add contexts at the same time lose none.
func TestConcurrentUpdates(t *testing.T) {
	path := filepath.Join(t.TempDir(), "contexts.json")
	var wg sync.WaitGroup
	names := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
	for _, name := range names {
		wg.Go(func() {
			err := Update(path, func(s *Set) error {
				s.Contexts[name] = Context{Endpoints: []string{name}}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	s, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(names, s.Names()); diff != "" {
		t.Error(diff)
	}
}

func TestDamagedFile(t *testing.T) {
	for content, why := range map[string]string{
		"":                         "unexpected end",
		"nonsense":                 "invalid character",
		`{"a":1}`:                  "unknown field",
		`{} {}`:                    "invalid character",
		`{"version":3,"tls":true}`: "later version of proa",
		`{"contexts":{"x":{"endpoints":["a"],"proxy":"b"}}}`:                  "unknown field",
		`{"contexts":{"x":{"endpoints":["a"],"tls":{"pin":"b"}}}}`:            "unknown field",
		`{"contexts":{"-x":{"endpoints":["a"]}}}`:                             "cannot name a context",
		`{"contexts":{"x":{"endpoints":[]}}}`:                                 "endpoint is missing",
		`{"contexts":{"x":{"endpoints":["a"],"cluster":"d1"}}}`:               "16 hexadecimal digits",
		`{"current":"y","contexts":{"x":{"endpoints":["a"]}}}`:                `current context, "y"`,
		`{"contexts":{"x":{"endpoints":["a"],"cluster":"zzzzzzzzzzzzzzzz"}}}`: "16 hexadecimal digits",
	} {
		path := filepath.Join(t.TempDir(), "contexts.json")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Load(path)
		if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), why) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", content, err)
		}
		if err := Update(path, func(*Set) error { return nil }); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: overwritten: %v", content, err)
		}
	}
}

// Whatever is in the file, it is read without a panic, and what is accepted can be
// used and written again.
func FuzzDecode(f *testing.F) {
	golden, err := os.ReadFile("testdata/contexts.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(golden)
	f.Add([]byte(`{"version":3}`))
	f.Add([]byte(`{"version":2,"contexts":{"x":{"endpoints":["a"],"user":"ann","password_file":"/p","tls":{"ca":"/c","server_name":"n"}}}}`))
	f.Add([]byte(`{"contexts":{"x":{"endpoints":[""]}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := decode(b)
		if err != nil {
			return
		}
		for name, c := range s.Contexts {
			if CheckName(name) != nil || len(c.Endpoints) == 0 {
				t.Errorf("%q is accepted: %+v", name, c)
			}
		}
		written, err := encode(s)
		if err != nil {
			t.Fatal(err)
		}
		again, err := decode(written)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(s, again); diff != "" && len(s.Contexts) > 0 {
			t.Error(diff)
		}
	})
}
