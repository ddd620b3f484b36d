//go:build linux

package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/proa-kv/proa/bench"
)

// table is one table of the report. Cells are plain text.
type table struct {
	title  string
	header []string
	rows   [][]string
	notes  []string // a sentence each, below the table
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

// report is the result of a run, ready to be printed or written as a page.
type report struct {
	m       *measurement
	machine machine
	when    time.Time
	tables  []table
}

func newReport(m *measurement) *report {
	r := &report{m: m, machine: describe(m.proa, m.redisPath, m.data), when: m.started.UTC()}
	r.tables = []table{m.targetTable(), m.singleTable(), m.loadTable(), m.crowdTable()}
	return r
}

// bound is a target: what a figure may be at most or must be at least.
type bound struct {
	value  float64
	atMost bool
}

func (b bound) String() string {
	if b.atMost {
		return fmt.Sprintf("≤ %.4g", b.value)
	}
	return fmt.Sprintf("≥ %.4g", b.value)
}

func (b bound) verdict(v float64) string {
	if b.atMost && v <= b.value || !b.atMost && v >= b.value {
		return "met"
	}
	return "MISSED"
}

const notMeasured = "not measured"

// targetTable lists every target with what was measured.
func (m *measurement) targetTable() table {
	t := table{title: "Targets", header: []string{"what", "target", "measured", "verdict"}}
	row := func(what string, b bound, r ratio) {
		if r == (ratio{}) {
			t.add(what, b.String(), notMeasured, "–")
			return
		}
		t.add(what, b.String(), r.String(), b.verdict(r.median))
	}
	put, get, set := m.single[proa].each(p50Of), load{bench.Get, 1}, load{bench.Put, 1}
	row("fsynced PUT, 1 × 1: median latency / (fdatasync + loopback echo)", bound{1.3, true}, ratioOf(put, sum(m.sync.each(p50Of), m.loop.each(p50Of))))
	row("fsynced PUT, 1 × 1: median latency / Redis, appendfsync always", bound{1.1, true}, ratioOf(put, m.single[redisAlways].each(p50Of)))
	row(fmt.Sprintf("GET, %d × 1: rate / Redis", m.busy), bound{1.0, false}, m.against(get))
	row(fmt.Sprintf("fsynced PUT, %d × 1: rate / Redis, appendfsync always", m.busy), bound{1.2, false}, m.against(set))
	perIdle := bound{4096, true}
	memory := []string{notMeasured, "–"}
	if m.idleOpened > 0 {
		each := float64(m.idleBytes) / float64(m.idleOpened)
		memory = []string{fmt.Sprintf("%.0f", each), perIdle.verdict(each)}
	}
	t.add(fmt.Sprintf("server memory for each of %d idle connections, bytes", m.idleOpened), perIdle.String(), memory[0], memory[1])
	for _, op := range []bench.Op{bench.Get, bench.Put} {
		row(fmt.Sprintf("%v, %d × 1: rate with / without the idle connections", op, m.busy), bound{0.9, false},
			ratioOf(m.crowded[crowd{op, true}].each(rateOf), m.crowded[crowd{op, false}].each(rateOf)))
	}
	return t
}

// against compares the rates of Proa and Redis.
func (m *measurement) against(l load) ratio {
	return ratioOf(m.loaded[key{l, proa}].each(rateOf), m.loaded[key{l, redisFor(l.op)}].each(rateOf))
}

// singleTable shows one connection with one request in flight.
func (m *measurement) singleTable() table {
	t := table{title: "One connection, one request in flight", header: []string{"latency, µs", "p50", "p99", "p99.9"}}
	row := func(what string, s series) {
		if len(s) > 0 {
			t.add(what, micros(s.median(p50Of)), micros(s.median(p99Of)), micros(s.median(p999Of)))
		}
	}
	row("floor: write and fdatasync of 4,096 bytes", m.sync)
	row("floor: loopback echo", m.loop)
	floor := median(sum(m.sync.each(p50Of), m.loop.each(p50Of)))
	t.add("sum of the floors", micros(floor), "", "")
	row("Proa, fsynced PUT", m.single[proa])
	row("Redis, fsynced SET", m.single[redisAlways])
	t.notes = append(t.notes,
		fmt.Sprintf("The disk's floor writes block after block of a preallocated, zero-filled file and fdatasyncs each: what the Raft log does for one PUT of %d bytes, which with its headers takes one 4,096-byte block. The echo's is the round trip of the %d bytes of that PUT to another process and back, one epoll, one read and one write each.", m.value, m.requestBytes()))
	return t
}

// loadTable shows many connections.
func (m *measurement) loadTable() table {
	t := table{
		title: fmt.Sprintf("%d connections", m.busy),
		header: []string{"requests", "server", "rate, /s", "ratio of rates", "server CPU, µs/op", "generator CPU, µs/op", "p50, µs", "p99, µs",
			"p99.9, µs"},
	}
	names := map[variant]string{proa: "Proa", redisMemory: "Redis", redisAlways: "Redis, fsync always"}
	for _, l := range loads {
		for _, v := range []variant{proa, redisFor(l.op)} {
			s := m.loaded[key{l, v}]
			if len(s) == 0 {
				continue
			}
			compared := ""
			if r := m.against(l); v == proa && r != (ratio{}) {
				compared = r.String()
			}
			t.add(fmt.Sprintf("%v, %d × %d", l.op, m.busy, l.depth), names[v], thousands(s.median(rateOf)), compared,
				tenths(s.median(serverOf)), tenths(s.median(generatorOf)), micros(s.median(p50Of)), micros(s.median(p99Of)), micros(s.median(p999Of)))
			if busy := s.busy(); busy > 0 {
				t.notes = append(t.notes, fmt.Sprintf("%s refused %.2f %% of the requests of %v, %d × %d, because it was busy; they are counted in the rate.", names[v], busy*100, l.op, m.busy, l.depth))
			}
		}
	}
	t.notes = append(t.notes,
		fmt.Sprintf("%d × 16 stands for %d connections with 16 requests in flight on each. Keys are chosen uniformly among %s, values have %d bytes. A PUT to Proa is acknowledged when it is fdatasynced; to Redis it is SET with appendfsync always. GET and PING of Redis were measured without any persistence.", m.busy, m.busy, thousands(float64(m.keys)), m.value))
	return t
}

// crowdTable shows what idle connections cost.
func (m *measurement) crowdTable() table {
	t := table{title: fmt.Sprintf("%s idle connections", thousands(float64(m.idleOpened))), header: []string{"requests", "idle connections", "rate, /s", "server CPU, µs/op", "p50, µs", "p99, µs"}}
	if m.idleOpened == 0 {
		t.notes = []string{"Not measured."}
		return t
	}
	for _, op := range []bench.Op{bench.Get, bench.Put} {
		for _, idle := range []bool{false, true} {
			s, n := m.crowded[crowd{op, idle}], "0"
			if idle {
				n = thousands(float64(m.idleOpened))
			}
			t.add(fmt.Sprintf("%v, %d × 1", op, m.busy), n, thousands(s.median(rateOf)), tenths(s.median(serverOf)), micros(s.median(p50Of)), micros(s.median(p99Of)))
		}
	}
	t.notes = []string{fmt.Sprintf("Opening them took %.1f MiB of the server's resident memory, %.0f bytes each: the growth over all of them, or twice that over the second half, if that was more. They have said HELLO and nothing else. This server was started for the purpose, with concurrency.max_connections raised by the number of the busy ones; memory was measured before it had served anything. What the kernel holds for sockets is not in it.", float64(m.idleBytes)/(1<<20), float64(m.idleBytes)/float64(m.idleOpened))}
	return t
}

// micros prints nanoseconds as microseconds.
func micros(ns float64) string {
	if ns < 100e3 {
		return fmt.Sprintf("%.1f", ns/1e3)
	}
	return thousands(ns / 1e3)
}

// tenths prints nanoseconds as microseconds with two digits behind the point.
func tenths(ns float64) string { return fmt.Sprintf("%.2f", ns/1e3) }

// thousands prints a number without fraction, its digits in groups.
func thousands(v float64) string {
	s := fmt.Sprintf("%.0f", v)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// print writes the tables for a terminal.
func (r *report) print(out io.Writer) error {
	for _, line := range r.circumstances() {
		fmt.Fprintln(out, line)
	}
	for i := range r.tables {
		t := &r.tables[i]
		fmt.Fprintf(out, "\n%s\n\n", t.title)
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, strings.Join(t.header, "\t"))
		for _, row := range t.rows {
			fmt.Fprintln(w, strings.Join(row, "\t"))
		}
		if err := w.Flush(); err != nil {
			return err
		}
		for _, n := range t.notes {
			fmt.Fprintf(out, "\n%s\n", n)
		}
	}
	for _, n := range r.m.allNotes() {
		fmt.Fprintf(out, "\n%s\n", n)
	}
	return nil
}

// allNotes returns what a reader has to know about this run.
func (m *measurement) allNotes() []string {
	notes := m.notes
	if m.redisMissing != "" {
		notes = append(notes, "Redis was not measured. "+m.redisMissing)
	}
	if m.quick {
		notes = append(notes, "This was a smoke run. Its figures mean nothing.")
	}
	return notes
}

// circumstances returns what the figures depend on, one thing to a line.
func (r *report) circumstances() []string {
	d := &r.machine
	memory := unknown
	if d.memory > 0 {
		memory = fmt.Sprintf("%.1f GiB", float64(d.memory)/(1<<30))
	}
	return []string{
		fmt.Sprintf("Machine: %s, %d cores, %s memory, data on %s; %s", d.cpu, d.cores, memory, d.fileSystem, d.kernel),
		fmt.Sprintf("Versions: %s; %s; generator built with %s", d.proa, cmp.Or(d.redis, "no Redis"), d.goVersion),
		fmt.Sprintf("Date: %s; the run took %v", r.when.Format("2006-01-02 15:04 UTC"), r.m.took.Round(time.Second)),
		"Command: make bench, which runs " + r.m.command(),
	}
}

// Markers that enclose the generated part of the page.
const (
	pageBegin = "<!-- bench: begin, generated by make bench -->"
	pageEnd   = "<!-- bench: end -->"
)

// markdown returns the generated part of the page, markers included.
func (r *report) markdown() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("%s\n", pageBegin)
	for _, c := range r.circumstances() {
		what, rest, _ := strings.Cut(c, ": ")
		line("- **%s:** %s", what, rest)
	}
	for _, n := range r.m.allNotes() {
		line("\n**Note:** %s", n)
	}
	line("\nEvery round measures all variants in turn for %v each, %d rounds in all. Figures are medians over the rounds. A ratio is the median of the ratios within each round; its smallest and largest stand in parentheses. Clients and servers share the machine, so rates depend on the generator too; the CPU time of the server does not.", r.m.step, r.m.rounds)
	for i := range r.tables {
		t := &r.tables[i]
		line("\n## %s\n", t.title)
		line("| %s |", strings.Join(t.header, " | "))
		line("|%s", strings.Repeat("---|", len(t.header)))
		for _, row := range t.rows {
			line("| %s |", strings.Join(row, " | "))
		}
		for _, n := range t.notes {
			line("\n%s", n)
		}
	}
	line("\n## How it was measured\n")
	line("%s", method)
	line("\n%s", pageEnd)
	return b.String()
}

const method = `The program is ` + "`bench/onenode`" + `, the load generator package ` + "`bench`" + `. The generator is one thread with one epoll loop over raw sockets: closed loop, no allocation per request, every reply parsed whole; the same code for all servers, only the codec differs. A request's latency is the time from just before the write that sends it to just after the read that brings its reply.

Every server runs alone on its own fresh directory, with its defaults, on loopback. Redis runs with ` + "`--save \"\"`" + ` and ` + "`--appendonly no`" + ` for GET and PING, and with ` + "`--appendonly yes --appendfsync always`" + ` for SET; its log is not rewritten in the background, so that it does not disturb the others (` + "`--auto-aof-rewrite-percentage 0`" + `). All of them stay up, and a measurement begins when all have come to rest, or after two seconds.

The CPU time of a server is read from the CPU clock of its process, in nanoseconds over all its threads, at the begin and the end of the measured part. A run in which a request fails gives no figures. Targets that were missed are marked; none is left out.`

// page returns the page with its generated part replaced. A page without
// markers gets it at the end, and an empty one a title as well.
func page(old, generated string) (string, error) {
	begin, end := strings.Index(old, pageBegin), strings.Index(old, pageEnd)
	switch {
	case begin >= 0 && end > begin:
		return old[:begin] + strings.TrimSuffix(generated, "\n") + old[end+len(pageEnd):], nil
	case begin >= 0 || end >= 0:
		return "", fmt.Errorf("one of the markers %q and %q is missing, or they are in the wrong order", pageBegin, pageEnd)
	case old == "":
		old = "# Performance\n\nOne node against Redis, and against what disk and loopback allow. `make bench` measures and rewrites this page.\n"
	}
	return old + "\n" + generated, nil
}

// writePage regenerates the page at path.
func (r *report) writePage(path string) error {
	old, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	text, err := page(string(old), r.markdown())
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return os.WriteFile(path, []byte(text), 0o644)
}
