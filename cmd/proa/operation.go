package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/internal/render"
)

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

// operation is what may stand in a line of batch and, if it is no write, of txn.
type operation struct {
	least, most int // arguments, with the key
	write       bool
	flags       func(*writeFlags, *pflag.FlagSet)
	build       func(f *writeFlags, key []byte, args []string) (client.Operation, error)
}

var operations = map[string]operation{
	"put": {2, 2, true, (*writeFlags).addPut, func(f *writeFlags, key []byte, args []string) (client.Operation, error) {
		options, err := f.putOptions()
		return client.OpPut(key, []byte(args[0]), options...), err
	}},
	"del": {1, 1, true, (*writeFlags).addIfVersion, func(f *writeFlags, key []byte, _ []string) (client.Operation, error) {
		return client.OpDelete(key, f.deleteOptions()...), nil
	}},
	"incr": {1, 2, true, (*writeFlags).addBy, func(f *writeFlags, key []byte, args []string) (client.Operation, error) {
		err := f.delta(args)
		return client.OpIncr(key, f.by), err
	}},
	"expire": {2, 2, true, nil, func(_ *writeFlags, key []byte, args []string) (client.Operation, error) {
		ttl, err := parseTTL(args[0])
		return client.OpExpire(key, ttl), err
	}},
	"persist": {1, 1, true, nil, func(_ *writeFlags, key []byte, _ []string) (client.Operation, error) {
		return client.OpPersist(key), nil
	}},
	"get": {1, 1, false, nil, func(_ *writeFlags, key []byte, _ []string) (client.Operation, error) {
		return client.OpGet(key), nil
	}},
	"exists": {1, 1, false, nil, func(_ *writeFlags, key []byte, _ []string) (client.Operation, error) {
		return client.OpExists(key), nil
	}},
}

// operationOf builds the operation that name and args spell.
func operationOf(name string, args []string, reads bool) (op client.Operation, err error) {
	o, ok := operations[name]
	if !ok {
		if meant := nearestName(name, slices.Sorted(maps.Keys(operations))); meant != "" {
			return op, fmt.Errorf("unknown operation %q; did you mean %s?", name, meant)
		}
		return op, fmt.Errorf("unknown operation %q", name)
	}
	if !o.write && !reads {
		return op, fmt.Errorf("%s is not a write", name)
	}
	set := pflag.NewFlagSet(name, pflag.ContinueOnError)
	set.Usage = func() {}
	set.SetOutput(io.Discard)
	var f writeFlags
	if o.flags != nil {
		o.flags(&f, set)
	}
	if err := set.Parse(numbersLast(args, set)); err != nil {
		return op, explainFlag(err, set)
	}
	args = set.Args()
	if len(args) < o.least || len(args) > o.most {
		takes := render.Plural(o.most, "argument")
		if o.least != o.most {
			takes = fmt.Sprintf("%d or %s", o.least, takes)
		}
		return op, fmt.Errorf("%s takes %s, not %d", name, takes, len(args))
	}
	return o.build(&f, []byte(args[0]), args[1:])
}

// writeFlags are the options of writes, on the command line and in operations.
type writeFlags struct {
	set            *pflag.FlagSet
	ttl            time.Duration
	keepTTL        bool
	ifAbsent       bool
	ifPresent      bool
	ifVersion      uint64
	returnPrevious bool
	by             int64
}

func (f *writeFlags) addPut(set *pflag.FlagSet) {
	set.DurationVar(&f.ttl, "ttl", 0, "`time` to live, such as 10s or 24h")
	set.BoolVar(&f.keepTTL, "keep-ttl", false, "keep the time to live that the key has")
	set.BoolVar(&f.ifAbsent, "if-absent", false, "only if the key does not exist")
	set.BoolVar(&f.ifPresent, "if-present", false, "only if the key exists")
	f.addIfVersion(set)
	f.addReturnPrevious(set)
}

func (f *writeFlags) addIfVersion(set *pflag.FlagSet) {
	f.set = set
	set.Uint64Var(&f.ifVersion, "if-version", 0, "only if the key has this `version`; 0 means that it does not exist")
}

func (f *writeFlags) addReturnPrevious(set *pflag.FlagSet) {
	set.BoolVar(&f.returnPrevious, "return-previous", false, "show the previous value")
}

func (f *writeFlags) addBy(set *pflag.FlagSet) {
	f.set = set
	set.Int64Var(&f.by, "by", 1, "the `delta`")
}

// putOptions returns what the flags ask for.
func (f *writeFlags) putOptions() (options []client.PutOption, err error) {
	conditions := 0
	for _, o := range []struct {
		set       bool
		condition int
		option    client.PutOption
	}{
		{f.set.Changed("ttl"), 0, client.WithTTL(f.ttl)},
		{f.keepTTL, 0, client.KeepTTL()},
		{f.ifAbsent, 1, client.IfAbsent()},
		{f.ifPresent, 1, client.IfPresent()},
		{f.set.Changed("if-version"), 1, client.IfVersion(f.ifVersion)},
		{f.returnPrevious, 0, client.ReturnPrevious()},
	} {
		if o.set {
			options = append(options, o.option)
			conditions += o.condition
		}
	}
	switch {
	case f.set.Changed("ttl") && f.ttl <= 0:
		return nil, usagef("--ttl %v: must be above 0", f.ttl)
	case conditions > 1:
		return nil, usagef("--if-absent, --if-present and --if-version cannot be used together")
	case f.keepTTL && f.set.Changed("ttl"):
		return nil, usagef("--ttl and --keep-ttl cannot be used together")
	}
	return options, nil
}

// deleteOptions returns what the flags ask for.
func (f *writeFlags) deleteOptions() (options []client.DeleteOption) {
	if f.set.Changed("if-version") {
		options = append(options, client.IfVersion(f.ifVersion))
	}
	if f.returnPrevious {
		options = append(options, client.ReturnPrevious())
	}
	return options
}

// delta takes the delta of an increment from the arguments behind the key, if there
// is one.
func (f *writeFlags) delta(args []string) error {
	switch {
	case len(args) == 0:
		return nil
	case f.set.Changed("by"):
		return usagef("DELTA and --by cannot be used together")
	}
	n, err := strconv.ParseInt(args[0], 10, 64)
	if err != nil {
		return usagef("DELTA %q is not a 64-bit integer", args[0])
	}
	f.by = n
	return nil
}

func parseTTL(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, usagef("TIME %w", timeError(s))
	}
	if d <= 0 {
		return 0, usagef("TIME %s: must be above 0", s)
	}
	return d, nil
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
		if e := asClientError(r.Err); e != nil {
			out.Status = e.Err.Error()
		}
	}
	if r.Err == nil || errors.Is(r.Err, client.ErrConditionFailed) {
		out.Version = &r.Version // 0 is the version of a key that does not exist
	}
	if r.HasInteger {
		out.Integer = &r.Integer
	}
	out.Previous = previousRow(r.Previous)
	return out
}

// showResults shows one line for each operation and returns the exit status of the worst
// failure; the lines have described it.
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
	return cmp.Or(list.End(), silently(exitStatus(worst)))
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
