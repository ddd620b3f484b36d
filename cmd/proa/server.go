package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/config"
	"github.com/proa-kv/proa/raftgroup"
)

func (a *app) pingCommand() *cobra.Command {
	var count int
	var interval time.Duration
	cmd := &cobra.Command{
		Use:   "ping",
		Short: "Measure the round-trip time to the server",
		Long: `Send PING requests one after the other, and print each round trip time and their
statistics. Control-C ends early and prints the statistics.`,
		Example: "  proa ping\n  proa ping --count 10000 --interval 0",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if count < 0 || interval < 0 {
				return usagef("--count and --interval must not be negative")
			}
			return a.ping(cmd.Context(), count, interval)
		},
	}
	cmd.Flags().IntVarP(&count, "count", "c", 4, "`number` of requests; 0 means until interrupted")
	cmd.Flags().DurationVarP(&interval, "interval", "i", time.Second, "`time` between requests")
	return cmd
}

// pingLinesMax is how many round trips are printed one by one where there is
// no interval between them.
const pingLinesMax = 10

func (a *app) ping(ctx context.Context, count int, interval time.Duration) error {
	c, err := a.connect(ctx)
	if err != nil {
		return err
	}
	var s roundTrips
	var failure error
	for seq := 1; (count == 0 || seq <= count) && ctx.Err() == nil; seq++ {
		rtt, err := c.Ping(ctx, client.WithTimeout(a.timeout))
		if err != nil && ctx.Err() != nil {
			break // interrupted, not unanswered
		}
		s.sent++
		if err != nil {
			failure = err
			p := explain(err, a)
			p.Message = fmt.Sprintf("seq=%d: %s", seq, p.Message)
			a.tell(p)
		} else {
			s.times = append(s.times, rtt)
			if a.output == outputTable && (interval > 0 || seq <= pingLinesMax) {
				if err := a.printf("reply seq=%d time=%s\n", seq, formatRTT(rtt)); err != nil {
					return err
				}
			}
		}
		if interval > 0 && seq != count {
			wait(ctx, interval)
		}
	}
	if err := a.showRoundTrips(&s); err != nil {
		return err
	}
	if failure != nil {
		return &statusError{exitServer, errSilent}
	}
	return nil
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// roundTrips are the figures of a ping.
type roundTrips struct {
	sent  int
	times []time.Duration
}

// quantile returns the time at or below which a share q of the round trips
// lies (nearest rank). times must be sorted and not empty.
func quantile(times []time.Duration, q float64) time.Duration {
	rank := int(math.Ceil(q * float64(len(times))))
	return times[max(rank-1, 0)]
}

func (a *app) showRoundTrips(s *roundTrips) error {
	slices.Sort(s.times)
	n := len(s.times)
	if a.json() {
		out := map[string]any{"sent": s.sent, "received": n}
		if n > 0 {
			for name, d := range s.figures() {
				out[name+"_us"] = float64(d) / float64(time.Microsecond)
			}
		}
		return a.writeJSON(out)
	}
	if err := a.printf("%d sent, %d answered\n", s.sent, n); err != nil || n == 0 {
		return err
	}
	f := s.figures()
	return a.printf("round trip min %s, mean %s, median %s, p99 %s, max %s, deviation %s\n",
		formatRTT(f["min"]), formatRTT(f["mean"]), formatRTT(f["p50"]), formatRTT(f["p99"]), formatRTT(f["max"]), formatRTT(f["stddev"]))
}

func (s *roundTrips) figures() map[string]time.Duration {
	var sum, squares float64
	for _, d := range s.times {
		sum += float64(d)
	}
	mean := sum / float64(len(s.times))
	for _, d := range s.times {
		squares += (float64(d) - mean) * (float64(d) - mean)
	}
	return map[string]time.Duration{
		"min": s.times[0], "max": s.times[len(s.times)-1], "mean": time.Duration(mean),
		"p50": quantile(s.times, 0.5), "p99": quantile(s.times, 0.99),
		"stddev": time.Duration(math.Sqrt(squares / float64(len(s.times)))),
	}
}

func formatRTT(d time.Duration) string {
	return fmt.Sprintf("%.3f ms", float64(d)/float64(time.Millisecond))
}

// showStatus shows any JSON object: its single values first, then each object
// in it as a section, and each list of objects as a table. So it shows what a
// newer server reports, too.
func (a *app) showStatus(raw json.RawMessage) error {
	if a.output != outputTable {
		_, err := a.out.Write(append(printableJSON(bytes.TrimSpace(raw)), '\n'))
		return err
	}
	o, err := parseObject(raw)
	if err != nil {
		return fmt.Errorf("the server's status is not a JSON object: %w", err)
	}
	return a.showObject(o, "")
}

func (a *app) showObject(o object, indent string) error {
	width := 0
	for _, f := range o {
		if f.kind() == kindScalar {
			width = max(width, len(f.name))
		}
	}
	for _, f := range o {
		if f.kind() == kindScalar {
			if err := a.printf("%s%-*s  %s\n", indent, width, f.name, f.scalar()); err != nil {
				return err
			}
		}
	}
	for _, f := range o {
		if err := a.showNested(&f, indent); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) showNested(f *field, indent string) error {
	switch f.kind() {
	case kindObject:
		inner, err := parseObject(f.raw)
		if err != nil || len(inner) == 0 {
			return err
		}
		if err := a.printf("\n%s%s\n", indent, f.name); err != nil {
			return err
		}
		return a.showObject(inner, indent+"  ")
	case kindTable:
		if err := a.printf("\n%s%s\n", indent, f.name); err != nil {
			return err
		}
		return a.showTable(f.raw)
	}
	return nil
}

func (a *app) showTable(raw json.RawMessage) error {
	var list []json.RawMessage
	if err := json.Unmarshal(raw, &list); err != nil {
		return err
	}
	var t *table
	for _, entry := range list {
		o, err := parseObject(entry)
		if err != nil {
			return err
		}
		cells, header := make([]string, len(o)), make([]string, len(o))
		for i, f := range o {
			header[i], cells[i] = strings.ToUpper(f.name), f.scalar()
		}
		// Rows of another shape begin a table of their own.
		if t == nil || !slices.Equal(t.header, header) {
			if t != nil {
				if err := t.flush(); err != nil {
					return err
				}
			}
			t = a.newTable(header...)
		}
		if err := t.row(cells...); err != nil {
			return err
		}
	}
	if t == nil {
		return nil
	}
	return t.flush()
}

// object is a JSON object that keeps the order of its fields.
type object []field

type field struct {
	name string
	raw  json.RawMessage
}

func parseObject(raw json.RawMessage) (object, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, fmt.Errorf("no object: %.40s", raw)
	}
	var o object
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, err
		}
		f := field{name: escape([]byte(name.(string)))} // the decoder has checked that it is a string
		if err := d.Decode(&f.raw); err != nil {
			return nil, err
		}
		o = append(o, f)
	}
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	return o, nil
}

type kind uint8

const (
	kindScalar kind = iota
	kindObject
	kindTable // a list whose first entry is an object
)

func (f *field) kind() kind {
	switch f.raw[0] {
	case '{':
		return kindObject
	case '[':
		if rest := bytes.TrimLeft(f.raw[1:], " \t\r\n"); len(rest) > 0 && rest[0] == '{' {
			return kindTable
		}
	}
	return kindScalar
}

// scalar shows a value on one line.
func (f *field) scalar() string {
	if f.raw[0] != '"' {
		return rounded(oneLine(string(f.raw)))
	}
	var s string
	if json.Unmarshal(f.raw, &s) != nil {
		return oneLine(string(f.raw))
	}
	return escape([]byte(s))
}

// rounded returns a JSON value, with three decimals at most if it is a number.
func rounded(value string) string {
	n, err := strconv.ParseFloat(value, 64)
	if _, decimals, _ := strings.Cut(value, "."); err != nil || len(decimals) <= 3 {
		return value
	}
	return strconv.FormatFloat(math.Round(n*1000)/1000, 'f', -1, 64)
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Show the version of this program",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			b := readBuild()
			if a.json() {
				return a.writeJSON(b)
			}
			return a.printf("proa %s\n", b.line())
		},
	}
}

// build says what this program was built from.
type build struct {
	Version  string `json:"version"`            // of the module; "devel" where it is not known
	Revision string `json:"revision,omitempty"` // of the working copy
	Time     string `json:"time,omitempty"`     // of the revision
	Modified bool   `json:"modified"`           // the working copy had changes
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// readBuild reads what the Go tool has noted in the program.
var readBuild = sync.OnceValue(func() build {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{}
	}
	return buildOf(info)
})

func buildOf(info *debug.BuildInfo) build {
	b := build{Version: "devel", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value[:min(len(s.Value), 12)]
		case "vcs.time":
			b.Time = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		b.Version = v
	}
	return b
}

// line is all that is known, for people.
func (b build) line() string {
	revision := ""
	if b.Revision != "" {
		revision = ", revision " + b.Revision
		if b.Modified {
			revision += " with changes"
		}
	}
	return fmt.Sprintf("%s%s, %s, %s", b.Version, revision, b.Go, b.Platform)
}

// versionText is the version in a word, as nodes tell it each other: that of the
// module or, for a build from a working copy without one, the revision.
func versionText() string { return readBuild().text() }

func (b build) text() string {
	if b.Version != "devel" || b.Revision == "" {
		return b.Version
	}
	changes := ""
	if b.Modified {
		changes = "+changes"
	}
	return "devel-" + b.Revision + changes
}

func (a *app) configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Show or document the server's configuration",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var secrets bool
	show := &cobra.Command{
		Use:   "show",
		Short: "Print the effective configuration and the source of each value",
		Long: `Print the configuration that "proa serve" would use with the same flags,
environment and file, and the source of each value. The output is a valid
configuration file. The join token is omitted unless --show-secrets is given.`,
		Args:        cobra.NoArgs,
		Annotations: map[string]string{outputForms: outputTable + " " + outputJSON + " " + outputJSONL},
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := config.Load(config.Options{Flags: cmd.Flags()})
			if err != nil {
				return &usageError{err}
			}
			if a.json() {
				return a.listSettings(c, secrets)
			}
			return c.WriteYAML(a.out, secrets)
		},
	}
	config.AddFlags(show.Flags())
	show.Flags().BoolVar(&secrets, "show-secrets", false, "show the join token as well")
	docs := &cobra.Command{
		Use:         "docs",
		Short:       "Print the reference of all keys, in Markdown",
		Args:        cobra.NoArgs,
		Annotations: map[string]string{outputForms: outputTable},
		RunE:        func(*cobra.Command, []string) error { return config.WriteReference(a.out) },
	}
	cmd.AddCommand(show, docs)
	return cmd
}

// listSettings shows a configuration as JSON.
func (a *app) listSettings(c *config.Config, secrets bool) error {
	type setting struct {
		Name   string `json:"name"`
		Value  string `json:"value"`
		Source string `json:"source"`
		Hidden bool   `json:"hidden,omitempty"` // it is set to something that is not shown
	}
	list := a.newJSONList()
	for _, s := range c.Settings() {
		row := setting{Name: s.Name, Value: s.Value, Source: s.Source.String()}
		if s.Secret && !secrets && s.Value != "" {
			row.Value, row.Hidden = "", true
		}
		if err := list.add(row); err != nil {
			return err
		}
	}
	return list.end()
}

func (a *app) verifyCommand() *cobra.Command {
	dir := ""
	cmd := &cobra.Command{
		Use:   "verify [DIR]",
		Short: "Check the data directory of a stopped server",
		Long: `Check the data directory of a stopped server: all checksums of the Raft log and
of the state, and that the log of each shard continues where its state ends.
Nothing is changed.

The directory is DIR, by default node.data_dir of the configuration. The exit
status is 0 if the directory is sound, 3 if it is damaged or in use, 2 if it is
not a data directory.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := dataDir(args, dir)
			if err != nil {
				return err
			}
			return a.verify(dir)
		},
	}
	cmd.Flags().StringVar(&dir, "data", "", "data `directory`")
	return cmd
}

// verify checks a data directory. Where it could not be looked at, because a
// server uses it for one, there is no result.
func (a *app) verify(dir string) error {
	lines := []string{}
	err := raftgroup.Verify(dir, func(s string) {
		lines = append(lines, s)
		if !a.json() {
			fmt.Fprintln(a.out, printable(s))
		}
	})
	looked := len(lines) > 0
	if a.json() && looked {
		if err := a.writeJSON(map[string]any{"directory": dir, "sound": err == nil, "report": lines}); err != nil {
			return err
		}
	}
	switch {
	case errors.Is(err, raftgroup.ErrNotDataDir):
		return &usageError{err}
	case errors.Is(err, raftgroup.ErrInUse):
		return fmt.Errorf("%s was not verified: %w", dir, err)
	case err != nil:
		return fmt.Errorf("verify %s: %w", dir, err)
	case !a.json():
		return a.printf("%s is sound\n", dir)
	}
	return nil
}

// dataDir finds the directory to verify.
func dataDir(args []string, flag string) (string, error) {
	switch {
	case len(args) == 1 && flag != "":
		return "", usagef("DIR and --data cannot be used together")
	case len(args) == 1:
		flag = args[0]
	case flag == "":
		c, err := config.Load(config.Options{})
		if err != nil {
			return "", &usageError{err}
		}
		flag = c.Node.DataDir
	}
	if info, err := os.Stat(flag); err != nil {
		return "", notDonef("%w", err)
	} else if !info.IsDir() {
		return "", notDonef("%s is not a directory", flag)
	}
	return flag, nil
}
