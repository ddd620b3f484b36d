//go:build linux

package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/proa-kv/proa/bench"
	"github.com/proa-kv/proa/bench/report"
	"github.com/proa-kv/proa/bench/rig"
)

// outcome is the result of a run.
func (c *comparison) outcome() *rig.Outcome {
	tables := []report.Table{c.targetTable("Targets beside etcd", targets()), c.targetTable("Targets of dragonboat", engineTargets())}
	for _, r := range rows {
		if t := c.rowTable(r); len(t.Rows) > 0 {
			tables = append(tables, t)
		}
	}
	tables = append(tables, c.floorTable())
	if t := c.startTable(); len(t.Rows) > 0 {
		tables = append(tables, t)
	}
	tables = append(tables, c.respTables()...)
	page := &report.Comparison{
		Title: "Proa beside other databases", Lines: c.Conditions("compare", c.command(), c.versions()...), Notes: c.remarks(),
		Tables: tables, First: 2, Charts: c.charts(),
	}
	o := &rig.Outcome{Page: page, Section: "compare", JSON: c.document()}
	o.Markdown = "## Beside etcd and Redis\n\n" + page.Markdown(3, fmt.Sprintf(method, c.Step, c.Rounds, report.Thousands(float64(c.keys)), c.value))
	if len(c.failed) > 0 {
		o.Err = fmt.Errorf("some figures are missing: %w", errors.Join(c.failed...))
	}
	return o
}

// versions returns what the servers that were measured say of theirs.
func (c *comparison) versions() (all []string) {
	for _, s := range c.servers {
		if s.absent == "" && !slices.Contains(all, s.version) {
			all = append(all, s.version)
		}
	}
	return all
}

// target is a bound on the ratio of a figure of one peer to another's.
type target struct {
	row
	what         string
	of           rig.Figure
	peer, beside peer
	report.Bound
}

// The loads that have targets.
var (
	put1One, put64, put512 = row{bench.Put, 1, 1, 1}, row{bench.Put, 1, 64, 16}, row{bench.Put, 1, 512, 16}
	put3, get3             = row{bench.Put, 3, 256, 16}, row{bench.Get, 3, 256, 16}
)

// targets are those of Proa beside etcd.
func targets() []target {
	own, other := proa{}, etcd{}
	return []target{
		{put64, "rate", rig.Rate, own, other, report.AtLeast(8)}, {put64, "p99", rig.P99, own, other, report.AtMost(1.0 / 8)},
		{put512, "rate", rig.Rate, own, other, report.AtLeast(8)}, {put512, "p99", rig.P99, own, other, report.AtMost(1.0 / 8)},
		{put3, "rate", rig.Rate, own, other, report.AtLeast(10)}, {put3, "p99", rig.P99, own, other, report.AtMost(1.0 / 6)},
		{get3, "rate", rig.Rate, own, other, report.AtLeast(10)}, {get3, "p99", rig.P99, own, other, report.AtMost(1.0 / 10)},
	}
}

// engineTargets are those of Proa on dragonboat, beside Proa's defaults and etcd.
func engineTargets() []target {
	own := proa{engine: "dragonboat"}
	return []target{
		{put1One, "p50", rig.P50, own, proa{}, report.AtMost(1.6)}, {put64, "rate", rig.Rate, own, proa{}, report.AtLeast(0.7)},
		{put512, "rate", rig.Rate, own, proa{}, report.AtLeast(0.75)}, {put3, "rate", rig.Rate, own, etcd{}, report.AtLeast(4)},
	}
}

// targetTable lists targets with what was measured.
func (c *comparison) targetTable(title string, targets []target) report.Table {
	t := report.Table{Title: title, Header: []string{"what", "target", "measured", "verdict"}}
	for _, g := range targets {
		t.AddTarget(fmt.Sprintf("%v: %s / %s", g.row, g.what, g.beside.name()), g.Bound, c.against(g.row, g.peer.name(), g.beside.name(), g.of))
	}
	return t
}

// rowTable compares the peers in one row.
func (c *comparison) rowTable(r row) report.Table {
	t := report.Table{Title: r.String(), Header: []string{
		"server", "rate, /s", "Proa's rate / this", "p50, µs", "× floor", "p99, µs", "Proa's p99 / this", "p99.9, µs",
		"server CPU, µs/op", "generator CPU, µs/op", "an answer means",
	}}
	own := proa{}.name()
	for _, p := range peers {
		s := c.cells[cell{r, p.name()}]
		if len(s) == 0 {
			continue
		}
		compared := func(of rig.Figure) string {
			if ratio := c.against(r, own, p.name(), of); p.name() != own && ratio != (report.Ratio{}) {
				return ratio.String()
			}
			return ""
		}
		t.Add(s.Cells(p.name(), rig.Rate, compared(rig.Rate), rig.P50, fmt.Sprintf("%.1f", report.RatioOf(s.Each(rig.P50), c.floor(r)).Median),
			rig.P99, compared(rig.P99), rig.P999, rig.ServerCPU, rig.GeneratorCPU, p.meaning(r.op, r.nodes))...)
		if note := failureNote(s, p.name()); note != "" {
			t.Notes = append(t.Notes, note)
		}
	}
	return t
}

// String marks what is unlike.
func (m meaning) String() string {
	if m.unlike {
		return "NOT LIKE FOR LIKE: " + m.words
	}
	return m.words
}

// failureNote says how many calls failed, and how.
func failureNote(s rig.Series, name string) string {
	byClass, share := failures(s)
	if share == 0 {
		return ""
	}
	var list []string
	for _, class := range slices.Sorted(maps.Keys(byClass)) {
		list = append(list, fmt.Sprintf("%s (%d)", class, byClass[class]))
	}
	return fmt.Sprintf("%s failed %.3g %% of the calls, which are in no figure: %s.", name, share*100, strings.Join(list, ", "))
}

// floorTable shows what disk, loopback and memory allow.
func (c *comparison) floorTable() report.Table {
	t := report.Table{
		Title:  "The floors in the same rounds",
		Header: []string{"latency, µs", "p50", "p99", "p99.9"},
		Notes: []string{fmt.Sprintf("The disk's floor writes %d bytes, one block of Proa's log with a PUT in it, to a preallocated, zero-filled file, and fdatasyncs. The echo's is the round trip of the %d bytes of that PUT to another process and back. × floor is the median latency against the sum of what a call cannot do without: one echo; for a PUT one fdatasync more, and in a cluster another echo. Under load it counts the waiting for others too.",
			rig.BlockBytes, c.requestBytes()),
			"The copy's is the same bytes from a random place in 64 MiB to another, means of 16 copies each. It is so much smaller that it is in no sum."},
	}
	for _, nodes := range sizes {
		for _, f := range []struct {
			what  string
			s     rig.Series
			print func(ns float64) string
		}{{"fdatasync", c.sync[nodes], report.Micros}, {"loopback echo", c.loop[nodes], report.Micros}, {"memory copy", c.copies[nodes], report.Hundredths}} {
			if len(f.s) > 0 {
				t.Add(f.what+", beside "+size(nodes), f.print(f.s.Median(rig.P50)), f.print(f.s.Median(rig.P99)), f.print(f.s.Median(rig.P999)))
			}
		}
	}
	return t
}

// remarks returns what a reader has to know about this run.
func (c *comparison) remarks() []string {
	notes := slices.Clone(c.Notes)
	for _, s := range c.servers {
		if s.absent != "" {
			notes = append(notes, s.name()+" was not measured.")
		}
	}
	for _, err := range c.failed {
		what, _, _ := strings.Cut(err.Error(), ":")
		notes = append(notes, what+", could not be measured.")
	}
	return notes
}

const method = "The program is `bench/peers`. Every round measures the floors and then all servers in turn for %v each, %d rounds in all; figures are medians over the rounds, a ratio is the median of the ratios within each round, and its smallest and largest are in parentheses. Keys are chosen uniformly among %s, values have %d bytes. The callers are goroutines, each with one call at a time, spread evenly over the connections; failed calls are in no figure.\n\n" +
	"Each server is called through the Go client that its users have, and callers use it as they would: package client, clientv3, rueidis. What the generator spends on a call stands beside the rate, because it shares the machine with all servers, and so all nodes of a cluster share its processors and one disk; the CPU time of the servers, all nodes of a cluster together, does not depend on the generator. The connections of etcd all lead to its leader, which spares it a hop. A client of Proa has one to every node, because leaders of shards are on all of them: 16 connections to three nodes are five clients, with 15.\n\n" +
	"Servers run with their defaults on loopback without TLS, each cluster in fresh directories on the same disk; but where Proa is \"on netpoll\" or \"on dragonboat\", all its nodes have `network.transport: netpoll` or `raft.engine: dragonboat`. etcd is built from its own module with the dependencies it names, and gets a quota of 8 GiB so that it does not run full. Redis is one server with `--appendonly yes --appendfsync always`, whose log is not rewritten in the background. All clusters of a size are up until it is done, and a measurement begins when all are idle, or after two seconds; what the others use meanwhile stands under \"Program, start, rest\". If a reply guarantees something other than Proa's, the row says so.\n\n" +
	"What `redis-benchmark` measured is about Proa's Redis listener: the same program and command line for both servers, a short run to warm up and then one of about the duration above."

// document is the JSON form of an outcome.
type document struct {
	Date     time.Time         `json:"date"`
	Machine  rig.Machine       `json:"machine"`
	Versions map[string]string `json:"versions"`
	Options  documentOptions   `json:"options"`
	Floors   []documentFloor   `json:"floors"`
	Rows     []documentRow     `json:"rows"`
	Starts   []documentStart   `json:"starts,omitempty"`
	RESP     []documentRESP    `json:"redis_benchmark,omitempty"`
	Remarks  []string          `json:"remarks,omitempty"`
}

type documentOptions struct {
	Rounds     int     `json:"rounds"`
	Seconds    float64 `json:"seconds"` // of one measurement
	Keys       uint64  `json:"keys"`
	ValueBytes int     `json:"value_bytes"`
}

type documentFloor struct {
	Nodes     int              `json:"nodes"` // of the clusters that were up meanwhile
	Fdatasync []documentSample `json:"fdatasync"`
	Echo      []documentSample `json:"echo"`
	Copy      []documentSample `json:"copy"`
}

type documentRow struct {
	Operation   string           `json:"operation"`
	Nodes       int              `json:"nodes"`
	Callers     int              `json:"callers"`
	Connections int              `json:"connections"`
	Server      string           `json:"server"`
	Meaning     string           `json:"meaning"`
	LikeProa    bool             `json:"like_for_like"`
	TimesFloor  float64          `json:"p50_times_floor"`
	Rate        *report.Ratio    `json:"rate_of_proa_to_this,omitempty"`
	P99         *report.Ratio    `json:"p99_of_proa_to_this,omitempty"`
	Median      documentSample   `json:"median"` // of each figure by itself
	Rounds      []documentSample `json:"rounds"`
}

// documentSample is a sample in JSON. Times are in nanoseconds.
type documentSample struct {
	Rate         float64           `json:"rate"` // calls per second
	P50          float64           `json:"p50_ns"`
	P99          float64           `json:"p99_ns"`
	P999         float64           `json:"p999_ns"`
	Slowest      float64           `json:"max_ns"`
	ServerCPU    float64           `json:"server_cpu_per_op_ns"`
	GeneratorCPU float64           `json:"generator_cpu_per_op_ns"`
	Ops          uint64            `json:"ops"`
	Failures     map[string]uint64 `json:"failures,omitempty"` // by class
}

func documentSamples(all rig.Series) (out []documentSample) {
	for _, s := range all {
		out = append(out, documentSample{s.Rate, s.P50, s.P99, s.P999, s.Slowest, s.Server, s.Generator, s.Ops, s.Failures})
	}
	return out
}

func (c *comparison) document() document {
	d := document{
		Date: c.Started.UTC(), Machine: rig.Describe(c.Data), Versions: map[string]string{}, Remarks: c.remarks(),
		Options: documentOptions{c.Rounds, c.Step.Seconds(), c.keys, c.value},
	}
	for _, s := range c.servers {
		if s.absent == "" {
			d.Versions[s.name()] = s.version
		}
	}
	for _, nodes := range sizes {
		if len(c.sync[nodes]) > 0 {
			d.Floors = append(d.Floors, documentFloor{nodes, documentSamples(c.sync[nodes]), documentSamples(c.loop[nodes]), documentSamples(c.copies[nodes])})
		}
	}
	for _, r := range rows {
		for _, p := range peers {
			if s := c.cells[cell{r, p.name()}]; len(s) > 0 {
				d.Rows = append(d.Rows, c.documentRow(r, p, s))
			}
		}
	}
	d.Starts, d.RESP = c.documentStarts(), c.documentRESPs()
	return d
}

func (c *comparison) documentRow(r row, p peer, s rig.Series) documentRow {
	m := p.meaning(r.op, r.nodes)
	d := documentRow{
		Operation: r.op.String(), Nodes: r.nodes, Callers: r.callers, Connections: r.connections, Server: p.name(),
		Meaning: m.words, LikeProa: !m.unlike, TimesFloor: report.RatioOf(s.Each(rig.P50), c.floor(r)).Median, Rounds: documentSamples(s),
		Median: documentSample{
			Rate: s.Median(rig.Rate), P50: s.Median(rig.P50), P99: s.Median(rig.P99), P999: s.Median(rig.P999),
			Slowest: s.Median(rig.Slowest), ServerCPU: s.Median(rig.ServerCPU), GeneratorCPU: s.Median(rig.GeneratorCPU),
			Ops: uint64(s.Median(rig.Ops)),
		},
	}
	own := proa{}.name()
	if rate, p99 := c.against(r, own, p.name(), rig.Rate), c.against(r, own, p.name(), rig.P99); p.name() != own && rate != (report.Ratio{}) {
		d.Rate, d.P99 = &rate, &p99
	}
	return d
}
