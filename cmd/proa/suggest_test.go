package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/proa-kv/proa/internal/render"
)

// Who types what another program calls it, or mistypes, is told what there is.
func TestSuggestions(t *testing.T) {
	for line, want := range map[string]string{
		"set k v":                     "proa: unknown command set; did you mean put?\nSee: proa --help\n",
		"rm k":                        "proa: unknown command rm; did you mean del?\nSee: proa --help\n",
		"keys":                        "proa: unknown command keys; did you mean scan?\nSee: proa --help\n",
		"ls":                          "proa: unknown command ls; did you mean scan?\nSee: proa --help\n",
		"statsu":                      "proa: unknown command statsu; did you mean status?\nSee: proa --help\n",
		"nonsense":                    "proa: unknown command nonsense\nSee: proa --help\n",
		"member rm 2":                 "proa: unknown command member rm; did you mean member remove?\nSee: proa member --help\n",
		"shard mvoe 1":                "proa: unknown command shard mvoe; did you mean shard move?\nSee: proa shard --help\n",
		"help xyzzy":                  "proa: unknown command xyzzy\nSee: proa --help\n",
		"help member lsit":            "proa: unknown command member lsit; did you mean member list?\nSee: proa --help\n",
		"put k v --vlaue x":           "proa: unknown flag --vlaue\nSee: proa put --help\n",
		"get k -z":                    "proa: unknown flag -z\nSee: proa get --help\n",
		"help nope":                   "proa: unknown command nope\nSee: proa --help\n",
		"put k v --tll 10s":           "proa: unknown flag --tll; did you mean --ttl?\nSee: proa put --help\n",
		"put k v --ttl 10":            "proa: --ttl 10 has no unit; did you mean 10s?\nSee: proa put --help\n",
		"put k v --ttl soon":          "proa: --ttl \"soon\" is not a time such as 10s, 5m or 24h\nSee: proa put --help\n",
		"expire k 10":                 "proa: TIME 10 has no unit; did you mean 10s?\nSee: proa expire --help\n",
		"ping --interval 5":           "proa: --interval 5 has no unit; did you mean 5s?\nSee: proa ping --help\n",
		"scan -n many":                "proa: --limit \"many\" is not a whole number in range\nSee: proa scan --help\n",
		"put k v --if-version -1":     "proa: --if-version \"-1\" is not a whole number from 0 on\nSee: proa put --help\n",
		"put k v --if-absent=no":      "proa: --if-absent \"no\" is neither true nor false\nSee: proa put --help\n",
		"scan --start b --end a":      "proa: the range is empty: start b is not before end a\nSee: proa scan --help\n",
		"del --start b --end b --yes": "proa: the range is empty: start b is not before end b\nSee: proa del --help\n",
		"txn --then 'ptu k v'":        "proa: --then \"ptu k v\": unknown operation \"ptu\"; did you mean put?\nSee: proa txn --help\n",
	} {
		words, err := render.SplitLine(line)
		if err != nil {
			t.Fatal(err)
		}
		var errs bytes.Buffer
		a := &app{in: strings.NewReader(""), Output: render.Output{Out: &errs, Err: &errs}}
		if status := a.run(t.Context(), append(words, "-e", "127.0.0.1:1")); status != exitUsage || errs.String() != want {
			t.Errorf("%s: status %d, %q", line, status, &errs)
		}
	}
}

// A synonym must lead to a command that there is.
func TestOtherNames(t *testing.T) {
	root := newRoot(&app{})
	for name, meant := range otherNames {
		if c, _, err := root.Find(strings.Fields(meant)); err != nil || c == root {
			t.Errorf("%s: there is no %s", name, meant)
		}
		if c, rest, err := root.Find(strings.Fields(name)); err == nil && c != root && len(rest) == 0 {
			t.Errorf("%s is a command", name)
		}
	}
}
