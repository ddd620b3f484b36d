package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/proa-kv/proa/internal/nearest"
	"github.com/proa-kv/proa/internal/render"
)

// otherNames are the names that commands have in other programs.
var otherNames = map[string]string{
	"set": "put", "add": "put", "insert": "put", "update": "put", "write": "put", "store": "put", "setnx": "put KEY VALUE --if-absent",
	"setex": "put KEY VALUE --ttl 10s", "mset": "batch", "read": "get", "fetch": "get", "cat": "get", "rm": "del", "remove": "del",
	"unset": "del", "unlink": "del", "flushall": "del --all", "flushdb": "del --all", "keys": "scan", "ls": "scan", "list": "scan",
	"find": "scan", "dbsize": "del --all --dry-run", "count": "del --all --dry-run", "incrby": "incr", "decr": "incr KEY -1", "decrby": "incr KEY -N",
	"ttl": "exists", "pttl": "exists", "stat": "exists", "multi": "txn", "exec": "txn", "transaction": "txn", "info": "status",
	"health": "status", "watch": "status --watch", "nodes": "member list", "members": "member list",
	"shards": "shard list", "token": "member token", "start": "serve", "server": "serve", "run": "serve", "cli": "shell", "repl": "shell",
	"console": "shell", "benchmark": "bench", "backup": "export", "dump": "export", "save": "export", "restore": "import", "load": "import",
	"fsck": "verify", "check": "verify", "recover": "shard recover", "contexts": "context list", "use": "context use",
	"member rm": "member remove", "member delete": "member remove", "member ls": "member list", "shard ls": "shard list",
	"context ls": "context list", "context rm": "context remove", "context delete": "context remove", "context set": "context add",
	"users": "user list", "roles": "role list", "acl": "user list", "whoami": "user whoami", "passwd": "user passwd", "password": "user passwd", "adduser": "user add", "useradd": "user add",
	"user ls": "user list", "user rm": "user remove", "user delete": "user remove", "user del": "user remove", "user create": "user add", "user set": "user change",
	"user grant": "user change", "user revoke": "user change", "user password": "user passwd", "user get": "user show", "user self": "user whoami",
	"role ls": "role list", "role rm": "role remove", "role delete": "role remove", "role create": "role add", "role set": "role change", "role get": "role show",
	"context get": "context show", "context switch": "context use",
}

// nearestName returns the name that word is most likely meant to be, or "".
func nearestName(word string, names []string) string {
	return nearest.Name(word, names, max(1, len(word)/3))
}

// unknownCommand adds which command may be meant, where err is about a command that
// there is not. Otherwise it returns err.
func unknownCommand(a *app, root *cobra.Command, err error) error {
	var word, path string
	if _, scanned := fmt.Sscanf(err.Error(), "unknown command %q for %q", &word, &path); scanned != nil {
		return err
	}
	parent := root
	if words := strings.Fields(path); len(words) > 0 {
		parent, _, _ = root.Find(strings.Fields(strings.TrimPrefix(path, root.Name())))
	}
	return &usageError{errors.New(unknownText(a, root, parent, word))}
}

func unknownText(a *app, root, parent *cobra.Command, word string) string {
	prefix := "" // of the commands below parent
	if parent != root {
		prefix = strings.TrimSpace(strings.TrimPrefix(parent.CommandPath(), root.Name())) + " "
	}
	text := fmt.Sprintf("unknown command %s%s", prefix, render.Escape([]byte(word)))
	if a.shell {
		outside := newRoot(&app{link: a.link})
		if c, _, err := outside.Find(append(strings.Fields(prefix), word)); err == nil && c.Name() == word {
			return fmt.Sprintf("%s%s works outside the shell: %s …", prefix, word, c.CommandPath())
		}
	}
	meant := otherNames[prefix+word]
	if meant == "" {
		names := commandNames(parent)
		if a.shell && parent == root {
			names = append(names, builtins...)
		}
		if name := nearestName(word, names); name != "" {
			meant = prefix + name
		}
	}
	if name, _, _ := strings.Cut(meant, " "); a.shell && meant != "" && !slices.Contains(append(commandNames(root), builtins...), name) {
		meant = "proa " + meant + ", outside the shell"
	}
	if meant == "" {
		return text
	}
	return text + "; did you mean " + meant + "?"
}

// explainFlag describes what is wrong with a flag of sets, in the words of this
// program, and which flag may be meant: the first of those that are as near.
func explainFlag(err error, sets ...*pflag.FlagSet) error {
	var unknown *pflag.NotExistError
	var invalid *pflag.InvalidValueError
	switch {
	case errors.As(err, &unknown):
		name := unknown.GetSpecifiedName()
		var names []string
		for _, set := range sets {
			set.VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
		}
		if meant := nearestName(name, names); len(name) > 1 && meant != "" {
			return fmt.Errorf("unknown flag --%s; did you mean --%s?", name, meant)
		}
		if unknown.GetSpecifiedShortnames() != "" {
			return fmt.Errorf("unknown flag -%s", name)
		}
		return fmt.Errorf("unknown flag --%s", name)
	case errors.As(err, &invalid):
		f := invalid.GetFlag()
		if f.Value.Type() == "duration" {
			return fmt.Errorf("--%s %w", f.Name, timeError(invalid.GetValue()))
		}
		if what := wrongValues[f.Value.Type()]; what != "" {
			return fmt.Errorf("--%s %q %s", f.Name, invalid.GetValue(), what)
		}
	}
	return err
}

// wrongValues is what is wrong with the value of a flag, by the flag's type.
var wrongValues = map[string]string{
	"int": "is not a whole number in range", "int64": "is not a whole number in range", "uint64": "is not a whole number from 0 on",
	"float64": "is not a number", "bool": "is neither true nor false",
}

// timeError returns why text is not a time.
func timeError(text string) error {
	if _, err := time.ParseDuration(text + "s"); err == nil && text != "" {
		return fmt.Errorf("%s has no unit; did you mean %ss?", text, text)
	}
	return fmt.Errorf("%q is not a time such as 10s, 5m or 24h", text)
}
