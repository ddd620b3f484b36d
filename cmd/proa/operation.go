package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/internal/render"
)

const operationHelp = `Operations are written as on the command line, with the quotes and backslash
escapes of the shell:
  put KEY VALUE [--ttl TIME] [--if-absent] [--if-present] [--if-version N]
  del KEY [--if-version N]
  incr KEY [DELTA]
  expire KEY TIME
  persist KEY`

// parseOperation reads one line. ok is false for empty lines and comments.
func parseOperation(line string, reads bool) (op client.Operation, ok bool, err error) {
	if strings.HasPrefix(strings.TrimSpace(line), "#") {
		return op, false, nil
	}
	words, err := render.SplitLine(line)
	if err != nil || len(words) == 0 {
		return op, false, err
	}
	op, err = operationOf(strings.ToLower(words[0]), words[1:], reads)
	return op, err == nil, err
}

// operationOf builds the operation that name and args spell.
func operationOf(name string, args []string, reads bool) (op client.Operation, err error) {
	set := pflag.NewFlagSet(name, pflag.ContinueOnError)
	set.Usage = func() {}
	set.SetOutput(io.Discard)
	var put putFlags
	var version uint64
	by := int64(1)
	counts := map[string][2]int{
		"put": {2, 2}, "del": {1, 1}, "incr": {1, 2}, "expire": {2, 2}, "persist": {1, 1}, "get": {1, 1}, "exists": {1, 1},
	}
	switch name {
	case "put":
		put.add(set)
	case "del":
		addIfVersion(set, &version)
	case "incr":
		set.Int64Var(&by, "by", 1, "")
	case "get", "exists":
		if !reads {
			return op, fmt.Errorf("%s is not a write", name)
		}
	case "expire", "persist":
	default:
		if meant := nearestName(name, slices.Collect(maps.Keys(counts))); meant != "" {
			return op, fmt.Errorf("unknown operation %q; did you mean %s?", name, meant)
		}
		return op, fmt.Errorf("unknown operation %q", name)
	}
	if err := set.Parse(numbersLast(args, set)); err != nil {
		return op, explainFlag(err, set)
	}
	args = set.Args()
	if n := counts[name]; len(args) < n[0] || len(args) > n[1] {
		return op, fmt.Errorf("%s takes %s, not %d", name, countWords(n), len(args))
	}
	key := []byte(args[0])
	switch name {
	case "put":
		options, err := put.options()
		return client.OpPut(key, []byte(args[1]), options...), err
	case "del":
		if set.Changed("if-version") {
			return client.OpDelete(key, client.IfVersion(version)), nil
		}
		return client.OpDelete(key), nil
	case "incr":
		if len(args) == 2 {
			if set.Changed("by") {
				return op, errors.New("DELTA and --by cannot be used together")
			}
			by, err = parseDelta(args[1])
		}
		return client.OpIncr(key, by), err
	case "expire":
		ttl, err := parseTTL(args[1])
		if err != nil {
			return op, err
		}
		return client.OpExpire(key, ttl), nil
	case "persist":
		return client.OpPersist(key), nil
	case "get":
		return client.OpGet(key), nil
	}
	return client.OpExists(key), nil
}

func countWords(n [2]int) string {
	switch {
	case n[0] != n[1]:
		return fmt.Sprintf("%d or %d arguments", n[0], n[1])
	case n[0] == 1:
		return "1 argument"
	}
	return fmt.Sprintf("%d arguments", n[0])
}

type resultRow struct {
	Status    string      `json:"status"`
	Version   *uint64     `json:"version,omitempty"` // nil: not known
	Value     render.Text `json:"value,omitzero"`
	Integer   *int64      `json:"integer,omitempty"`
	TTLMillis int64       `json:"ttl_ms,omitempty"`
	Previous  *row        `json:"previous,omitempty"`
}

func resultRowOf(r *client.Result) resultRow {
	out := resultRow{Status: "ok", Value: r.Value, TTLMillis: r.TTL.Milliseconds()}
	if r.Err != nil {
		out.Status = r.Err.Error()
		var e *client.Error
		if errors.As(r.Err, &e) {
			out.Status = e.Err.Error()
		}
	}
	if r.Err == nil || errors.Is(r.Err, client.ErrConditionFailed) {
		out.Version = &r.Version // 0 is the version of a key that does not exist
	}
	if r.HasInteger {
		out.Integer = &r.Integer
	}
	if r.Previous != nil {
		p := rowOf(r.Previous)
		p.Value = present(r.Previous.Value)
		out.Previous = &p
	}
	return out
}

// showResults shows one line for each operation and returns the gravest
// failure, without words: the lines have said it.
func showResults(a *app, results []client.Result) error {
	list := a.Results("#", "STATUS", "VERSION", "RESULT")
	var worst error
	for i := range results {
		r := &results[i]
		worst = worse(worst, r.Err)
		row, version := resultRowOf(r), ""
		if row.Version != nil {
			version = strconv.FormatUint(*row.Version, 10)
		}
		text, size := tableResult(r)
		if err := list.AddValue(row, rawResult(r, row)+"\n", size, strconv.Itoa(i+1), row.Status, version, text); err != nil {
			return err
		}
	}
	if err := list.End(); err != nil || worst == nil {
		return err
	}
	return &statusError{exitStatus(worst), errSilent}
}

func rawResult(r *client.Result, row resultRow) string {
	switch {
	case r.Err != nil:
		return row.Status
	case r.Value != nil:
		return string(r.Value)
	case r.HasInteger:
		return strconv.FormatInt(r.Integer, 10)
	}
	return strconv.FormatUint(r.Version, 10)
}

// tableResult returns what a table shows of a result, and how many bytes the value
// has that it shows, -1 for none.
func tableResult(r *client.Result) (text string, bytes int) {
	switch {
	case r.Value != nil:
		return render.Escape(r.Value), len(r.Value)
	case r.HasInteger:
		return strconv.FormatInt(r.Integer, 10), -1
	case r.Previous != nil:
		return "previous: " + render.Escape(r.Previous.Value), len(r.Previous.Value)
	}
	return "", -1
}
