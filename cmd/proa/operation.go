package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/proa-kv/proa/client"
)

const operationHelp = `Operations are written as on the command line, with the quotes and backslash
escapes of the shell:
  put KEY VALUE [--ttl TIME] [--if-absent] [--if-present] [--if-version N]
  del KEY [--if-version N]
  incr KEY [DELTA]
  expire KEY TIME
  persist KEY`

func (a *app) batchCommand() *cobra.Command {
	var nonAtomic bool
	cmd := &cobra.Command{
		Use:   "batch [FILE|-]",
		Short: "Apply several writes in one step",
		Long: `Apply the writes in FILE or on standard input, one per line, in one atomic step.
All keys must be in the same shard, as keys with the same {tag} are, unless
--non-atomic is given or the cluster has one node only. A write whose condition
fails does not stop the others.

` + operationHelp + `

Empty lines and lines that start with # are skipped. The exit status is 1 if a
key was not found or a condition failed.`,
		Example: "  printf 'put {u1}name Ann\\nincr {u1}visits\\n' | proa batch",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ops, err := a.readOperations(args)
			if err != nil {
				return err
			}
			if len(ops) == 0 {
				return usagef("the batch is empty")
			}
			b := client.NewBatch().Add(ops...)
			if nonAtomic {
				b.NonAtomic()
			}
			return a.call(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				results, err := c.Batch(ctx, b)
				if err != nil {
					return err
				}
				return a.showResults(results)
			})
		},
	}
	cmd.Flags().BoolVar(&nonAtomic, "non-atomic", false, "allow keys of several shards; one atomic step per shard")
	return cmd
}

// readOperations reads one operation a line.
func (a *app) readOperations(args []string) ([]client.Operation, error) {
	in := a.in
	switch {
	case len(args) == 1 && args[0] != "-":
		f, err := os.Open(args[0])
		if err != nil {
			return nil, notDonef("%w", err)
		}
		defer f.Close()
		in = f
	case a.shell:
		return nil, usagef("standard input belongs to the shell; name a file")
	}
	var ops []client.Operation
	lines := newLineReader(in)
	for {
		line, err := lines.next()
		if errors.Is(err, io.EOF) {
			return ops, nil
		}
		if err != nil {
			return nil, err
		}
		op, ok, err := parseOperation(string(line), false)
		if err != nil {
			return nil, usagef("line %d: %w", lines.number, err)
		}
		if ok {
			ops = append(ops, op)
		}
	}
}

// lineReader reads lines of any length up to a bound.
type lineReader struct {
	r      *bufio.Reader
	number int   // of the line returned last, from 1
	offset int64 // behind it
	buf    []byte
}

// lineBytesMax bounds a line: a value of 15 MiB in base64, its key and their
// wrapping, or the same with every byte escaped in JSON.
const lineBytesMax = 96 << 20

func newLineReader(r io.Reader) *lineReader {
	return &lineReader{r: bufio.NewReaderSize(r, 256<<10)}
}

// next returns the next line without its end; it is valid until the next call.
func (l *lineReader) next() ([]byte, error) {
	l.buf = l.buf[:0]
	for {
		part, err := l.r.ReadSlice('\n')
		l.buf = append(l.buf, part...)
		l.offset += int64(len(part))
		switch {
		case len(l.buf) > lineBytesMax:
			return nil, fmt.Errorf("line %d is over %d bytes", l.number+1, lineBytesMax)
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err != nil && (!errors.Is(err, io.EOF) || len(l.buf) == 0):
			return nil, err
		}
		l.number++
		line := l.buf
		if n := len(line); n > 0 && line[n-1] == '\n' {
			line = line[:n-1]
		}
		return line, nil
	}
}

// parseOperation reads one line. ok is false for empty lines and comments.
func parseOperation(line string, reads bool) (op client.Operation, ok bool, err error) {
	if strings.HasPrefix(strings.TrimSpace(line), "#") {
		return op, false, nil
	}
	words, err := splitLine(line)
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
		if meant := nearest(name, slices.Collect(maps.Keys(counts))); meant != "" {
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
		return client.Put(key, []byte(args[1]), options...), err
	case "del":
		if set.Changed("if-version") {
			return client.Delete(key, client.IfVersion(version)), nil
		}
		return client.Delete(key), nil
	case "incr":
		if len(args) == 2 {
			if set.Changed("by") {
				return op, errors.New("DELTA and --by cannot be used together")
			}
			by, err = parseDelta(args[1])
		}
		return client.Incr(key, by), err
	case "expire":
		ttl, err := parseTTL(args[1])
		if err != nil {
			return op, err
		}
		return client.Expire(key, ttl), nil
	case "persist":
		return client.Persist(key), nil
	case "get":
		return client.Get(key), nil
	}
	return client.Exists(key), nil
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
	Status    string  `json:"status"`
	Version   *uint64 `json:"version,omitempty"` // nil: not known
	Value     text    `json:"value,omitzero"`
	Integer   *int64  `json:"integer,omitempty"`
	TTLMillis int64   `json:"ttl_ms,omitempty"`
	Previous  *row    `json:"previous,omitempty"`
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
func (a *app) showResults(results []client.Result) error {
	t, list := a.newTable("#", "STATUS", "VERSION", "RESULT"), a.newJSONList()
	var worst error
	for i := range results {
		r := &results[i]
		worst = worse(worst, r.Err)
		row := resultRowOf(r)
		var err error
		switch a.output {
		case outputJSON, outputJSONL:
			err = list.add(row)
		case outputRaw:
			err = a.printf("%s\n", rawResult(r, row))
		default:
			version := ""
			if row.Version != nil {
				version = strconv.FormatUint(*row.Version, 10)
			}
			text, size := tableResult(r)
			err = t.add(tableRow{[]string{strconv.Itoa(i + 1), row.Status, version, text}, size})
		}
		if err != nil {
			return err
		}
	}
	end := t.flush
	if a.json() {
		end = list.end
	}
	if err := end(); err != nil || worst == nil {
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
		return escape(r.Value), len(r.Value)
	case r.HasInteger:
		return strconv.FormatInt(r.Integer, 10), -1
	case r.Previous != nil:
		return "previous: " + escape(r.Previous.Value), len(r.Previous.Value)
	}
	return "", -1
}

func (a *app) txnCommand() *cobra.Command {
	var conditions, then, otherwise []string
	cmd := &cobra.Command{
		Use:   "txn [--if CONDITION]… [--then OPERATION]… [--else OPERATION]…",
		Short: "Compare and write in one atomic step",
		Long: `Run the --then operations if all --if conditions hold, otherwise the --else
operations, in one atomic step. All keys must be in the same shard, as keys with
the same {tag} are, unless the cluster has one node only.

Conditions:
  exists KEY
  absent KEY
  version KEY =|!=|<|> N
  value KEY =|!=|<|> VALUE

` + operationHelp + `
  get KEY
  exists KEY

The exit status is 0 if all conditions held, otherwise 1.`,
		Example: "  proa txn --if 'absent {a}lock' --then 'put {a}lock me' --else 'get {a}lock'",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			txn, err := buildTxn(conditions, then, otherwise)
			if err != nil {
				return err
			}
			return a.call(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				r, err := c.Txn(ctx, txn)
				if err != nil {
					return err
				}
				return a.showTxn(r)
			})
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&conditions, "if", nil, "`condition` that must hold; repeatable")
	f.StringArrayVar(&then, "then", nil, "`operation` to run if all conditions hold; repeatable")
	f.StringArrayVar(&otherwise, "else", nil, "`operation` to run if a condition does not hold; repeatable")
	return cmd
}

func buildTxn(conditions, then, otherwise []string) (*client.Txn, error) {
	if len(conditions)+len(then)+len(otherwise) == 0 {
		return nil, usagef("the transaction is empty")
	}
	txn := client.NewTxn()
	for _, line := range conditions {
		c, err := parseCondition(line)
		if err != nil {
			return nil, usagef("--if %q: %w", line, err)
		}
		txn.If(c)
	}
	for _, branch := range []struct {
		flag  string
		lines []string
		add   func(...client.Operation) *client.Txn
	}{{"--then", then, txn.Then}, {"--else", otherwise, txn.Else}} {
		for _, line := range branch.lines {
			op, ok, err := parseOperation(line, true)
			if err != nil {
				return nil, usagef("%s %q: %w", branch.flag, line, err)
			}
			if ok {
				branch.add(op)
			}
		}
	}
	return txn, nil
}

var relations = map[string]client.Relation{
	"=": client.Equal, "==": client.Equal, "!=": client.NotEqual, "<": client.Less, ">": client.Greater,
}

func parseCondition(line string) (c client.Condition, err error) {
	words, err := splitLine(line)
	if err != nil {
		return c, err
	}
	switch {
	case len(words) == 2 && words[0] == "exists":
		return client.Present([]byte(words[1])), nil
	case len(words) == 2 && words[0] == "absent":
		return client.Absent([]byte(words[1])), nil
	case len(words) != 4 || words[0] != "version" && words[0] != "value":
		return c, errors.New("write: exists KEY, absent KEY, version KEY = N, or value KEY = VALUE")
	}
	relation, ok := relations[words[2]]
	if !ok {
		return c, fmt.Errorf("unknown relation %q: choose =, !=, < or >", words[2])
	}
	if words[0] == "value" {
		return client.Value([]byte(words[1]), relation, []byte(words[3])), nil
	}
	n, err := strconv.ParseUint(words[3], 10, 64)
	if err != nil {
		return c, fmt.Errorf("version %q is not a whole number", words[3])
	}
	return client.Version([]byte(words[1]), relation, n), nil
}

func (a *app) showTxn(r client.TxnResult) error {
	var err error
	if a.json() {
		rows := make([]resultRow, len(r.Results))
		for i := range r.Results {
			rows[i] = resultRowOf(&r.Results[i])
		}
		err = a.writeJSON(struct {
			Succeeded bool        `json:"succeeded"`
			Results   []resultRow `json:"results"`
		}{r.Succeeded, rows})
	} else {
		branch := "conditions held; ran --then"
		if !r.Succeeded {
			branch = "a condition did not hold; ran --else"
		}
		if a.output == outputTable {
			if err := a.printf("%s\n", branch); err != nil {
				return err
			}
		}
		err = a.showResults(r.Results)
	}
	var silent *statusError
	if err != nil && !errors.As(err, &silent) {
		return err
	}
	if !r.Succeeded {
		return &statusError{exitFailed, errSilent}
	}
	return err
}
