package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/proa-kv/proa/internal/render"
)

// jsonCommands are command lines of every command that has JSON output, in an
// order in which they work against a server that is new. many is set where a
// command may have several results: -o json gives a list then, and -o jsonl a
// line for each.
var jsonCommands = []struct {
	line  string
	many  bool
	waits bool // for the server to know how it is
	once  bool // the second time there is nothing to do
	in    string
	exit  int
}{
	{line: "put k v"},
	{line: "put k w --return-previous"},
	{line: "get k"},
	{line: "incr n"},
	{line: "expire k 1h"},
	{line: "persist k"},
	{line: "exists k nothing", many: true, exit: 1},
	{line: "mget k nothing", many: true, exit: 1},
	{line: "scan", many: true},
	{line: "scan nothing", many: true},
	{line: "scan -n 1", many: true},
	{line: "batch", many: true, in: "put a 1\ndel nothing", exit: 1},
	{line: "txn --then 'put a 1' --then 'incr a'"},
	{line: "del a nothing", many: true, exit: 1},
	{line: "del --prefix zzz --dry-run"},
	{line: "del --prefix zzz --yes"},
	{line: "ping -c 1"},
	{line: "version"},
	{line: "status", waits: true},
	{line: "status --node"},
	{line: "member list", many: true},
	{line: "member token"},
	{line: "cluster secret"},
	{line: "user add ann --role readonly --generate", once: true},
	{line: "role add app --read-write app/ --right monitor", once: true},
	{line: "user change ann --add-role app"},
	{line: "role change app --read public/"},
	{line: "user list", many: true},
	{line: "user show ann"},
	{line: "user passwd ann --generate"},
	{line: "user disable ann"},
	{line: "user enable ann"},
	{line: "user whoami"},
	{line: "role list", many: true},
	{line: "role show app"},
	{line: "user remove ann", once: true},
	{line: "role remove app", once: true},
	{line: "member add 7", once: true},
	{line: "member remove 7", once: true},
	{line: "member drain 1 --undo"},
	{line: "shard list", many: true},
	{line: "shard checksum", many: true},
	{line: "shard split-leaders"},
	{line: "import", in: `{"key":"i","value":"1"}`},
	{line: "config show", many: true},
	{line: "context add c ENDPOINT"},
	{line: "context list", many: true},
	{line: "context show c"},
	{line: "context use c"},
	{line: "context remove c", once: true},
	{line: "bench -t ping -n 10 -c 1"},
	{line: "bench cleanup"},
}

// notJSON are the commands that have no JSON output of their own, or cannot be
// run here.
var notJSON = map[string]string{
	"serve": "a log", "shell": "its lines have", "demo": "a picture", "top": "pictures; see -o jsonl", "export": "JSON Lines by itself",
	"config docs": "Markdown", "bench merge": "needs reports", "completion": "", "help": "",
	"verify": "TestJSONOfVerify", "shard recover": "TestRecover", "shard move": "as member remove", "shard transfer": "as member remove",
}

// TestJSONOfEveryCommand checks the rule of docs/cli.md.
func TestJSONOfEveryCommand(t *testing.T) {
	setUserConfig(t, nil)
	address, _, _ := launchServer(t)
	covered := map[string]bool{}
	for _, c := range jsonCommands {
		words, err := render.SplitLine(strings.ReplaceAll(c.line, "ENDPOINT", address))
		if err != nil {
			t.Fatal(err)
		}
		for _, form := range []string{render.AsJSON, render.AsJSONL} {
			args := append(slices.Clone(words), "-o", form)
			if words[0] != "context" {
				args = append(args, "-e", address)
			} else if words[1] == "add" {
				args = append(args, "--replace")
			}
			called, exit, out, errs := runJSON(t, c.in, args...)
			for c.waits && exit != c.exit {
				called, exit, out, errs = runJSON(t, c.in, args...)
			}
			covered[called] = true
			if c.once && form == render.AsJSONL {
				continue
			}
			if exit != c.exit {
				t.Errorf("%s -o %s: status %d\n%s", c.line, form, exit, errs)
				continue
			}
			results := documents(t, c.line, out)
			switch {
			case form == render.AsJSON && len(results) != 1:
				t.Errorf("%s -o json: %d documents:\n%s", c.line, len(results), out)
			case form == render.AsJSON && (results[0][0] == '[') != c.many:
				t.Errorf("%s -o json: a list: %t:\n%s", c.line, !c.many, out)
			case form == render.AsJSONL && !c.many && len(results) != 1, form == render.AsJSONL && len(results) != strings.Count(out, "\n"):
				t.Errorf("%s -o jsonl: %d documents:\n%s", c.line, len(results), out)
			}
			for _, line := range documents(t, c.line, errs) {
				if !strings.HasPrefix(string(line), `{"note":`) {
					t.Errorf("%s -o %s: on standard error: %s", c.line, form, line)
				}
			}
			if strings.Contains(out, `"shard":-1`) {
				t.Errorf("%s: the meta group has a number: %s", c.line, out)
			}
		}
	}
	forEachCommand(newRoot(&app{}), func(c *cobra.Command) {
		path, generated := strings.TrimPrefix(c.CommandPath(), "proa "), c.HasParent() && c.Parent().Name() == "completion"
		if _, excused := notJSON[path]; !covered[path] && !excused && !generated && (!c.HasSubCommands() || path == "bench") {
			t.Errorf("%s: no command line of it is checked", path)
		}
	})
}

// TestJSONOfErrors checks that every kind of error is one object on standard
// error, and nothing on standard output.
func TestJSONOfErrors(t *testing.T) {
	setUserConfig(t, nil)
	address, dir, _ := launchServer(t)
	file := filepath.Join(t.TempDir(), "f.jsonl")
	if err := os.WriteFile(file, []byte("nonsense\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		line, class, code string
		exit              int
		message, hint     string
	}{
		{"get nothing", "failed", "not_found", 1, "key not found", ""},
		{"put nothing v --if-present", "failed", "condition_failed", 1, "condition failed", ""},
		{"get", "usage", "usage", 2, "no argument", "See: proa get --help"},
		{"put k v --nonsense", "usage", "usage", 2, "unknown flag", "See: proa put --help"},
		{"nonsense", "usage", "usage", 2, "unknown command", "See: proa --help"},
		{"member remove 9", "failed", "refused", 1, "there is no node 9", ""},
		{"shard checksum 99", "usage", "bad_request", 2, "there is no shard 99", ""},
		{"get k -e 127.0.0.1:1", "server", "unavailable", 3, "no server could be reached", "Start this server"},
		{"bench -n 1 -e 127.0.0.1:1", "server", "unavailable", 3, "no server could be reached", "Start this server"},
		{"get k --context none", "usage", "usage", 2, `no context "none"`, ""},
		{"verify DATA", "server", "directory_in_use", 3, "was not verified", ""},
		{"demo", "usage", "usage", 2, "one form of output", "See: proa demo --help"},
	} {
		line := strings.NewReplacer("FILE", file, "DATA", dir).Replace(tt.line)
		args := append(strings.Fields(line), "-o", "json")
		if !strings.Contains(line, "-e ") && !strings.Contains(line, "--context") {
			args = append(args, "-e", address)
		}
		_, exit, out, errs := runJSON(t, "", args...)
		said := documents(t, tt.line, errs)
		if out != "" || len(said) == 0 {
			t.Errorf("%s: standard output %q, standard error %q", tt.line, out, errs)
			continue
		}
		var e struct{ Error problem }
		if err := json.Unmarshal(said[len(said)-1], &e); err != nil {
			t.Errorf("%s: %v", tt.line, err)
		}
		p := e.Error
		if exit != tt.exit || p.Exit != exit || p.Class != tt.class || p.Code != tt.code || !strings.Contains(p.Message, tt.message) || !strings.Contains(p.Hint, tt.hint) {
			t.Errorf("%s: status %d, %s", tt.line, exit, errs)
		}
		if strings.Contains(p.Message, "proa: ") {
			t.Errorf("%s: a prefix in the message: %s", tt.line, p.Message)
		}
	}
}

// Of a directory that a server uses nothing can be said; of one at rest all.
func TestJSONOfVerify(t *testing.T) {
	_, dir, server := launchServer(t)
	if _, exit, out, _ := runJSON(t, "", "verify", dir, "-o", "json"); exit != exitServer || out != "" {
		t.Errorf("in use: status %d, %s", exit, out)
	}
	if err := server.stop(); err != nil {
		t.Fatal(err)
	}
	_, exit, out, _ := runJSON(t, "", "verify", dir, "-o", "json")
	var v struct {
		Sound  bool
		Report []string
	}
	if err := json.Unmarshal([]byte(out), &v); err != nil || exit != 0 || !v.Sound || len(v.Report) == 0 {
		t.Errorf("at rest: status %d, %v, %s", exit, err, out)
	}
	if _, exit, out, errs := runJSON(t, "", "verify", t.TempDir(), "-o", "json"); exit != exitUsage || out != "" || !strings.Contains(errs, "no_data_directory") {
		t.Errorf("no directory of data: status %d, %s, %s", exit, out, errs)
	}
}

// launchServer starts a server that ends with the test, on the data directory dir.
func launchServer(t *testing.T) (address, dir string, s *scriptServer) {
	t.Helper()
	work := t.TempDir()
	s = &scriptServer{}
	t.Cleanup(s.kill)
	address, err := s.launch(work, []string{"--shards", "2"})
	if err != nil {
		t.Fatal(err)
	}
	return address, filepath.Join(work, "data"), s
}

// runJSON runs a command line in this process and returns the path of the command
// that was called, the exit status, and what was written.
func runJSON(t *testing.T, in string, args ...string) (called string, exit int, out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	a := &app{in: strings.NewReader(in), Output: render.Output{Out: &o, Err: &e}}
	defer a.close()
	exit = a.run(t.Context(), args)
	if a.called != nil {
		called = strings.TrimPrefix(a.called.CommandPath(), "proa ")
	}
	return called, exit, o.String(), e.String()
}

// documents takes text apart into JSON documents.
func documents(t *testing.T, what, text string) (all []json.RawMessage) {
	t.Helper()
	for d := json.NewDecoder(strings.NewReader(text)); ; {
		var m json.RawMessage
		err := d.Decode(&m)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Errorf("%s: %v in:\n%s", what, err, text)
			return all
		}
		all = append(all, m)
	}
}
