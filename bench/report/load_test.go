package report

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"encoding/xml"
	"errors"
	"html"
	"io"
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/proa-kv/proa/bench"
)

// sample is a report with every part.
func sample() *Load {
	latency := Latency{Mean: 120, P50: 100, P90: 200, P99: 999.6, P999: 1500, P9999: 20_000, Max: 2.5e6}
	run := Run{
		Throughput: 12_345.6, Ops: 24_000, Seconds: 2, Latency: latency,
		Kinds: []Kind{
			{Name: "read", Ops: 12_000, NotFound: 7, Latency: latency, Percentiles: []Percentile{{0, 50}, {90, 200}, {99, 1000}, {100, 2.5e6}}},
			{Name: "update", Ops: 12_000, Latency: latency, Percentiles: []Percentile{{0, 60}, {99.99, 2000}, {100, 2.5e6}}},
		},
		Errors: map[string]uint64{}, Counts: bench.Counts{BytesOut: 3 << 20, BytesIn: 5 << 20}, GeneratorPerOp: 2.5, Busiest: 0.42, ServerPerOp: 7.25, Fsyncs: 400, FsyncMean: 210,
		Percentiles: []Percentile{{0, 50}, {50, 100}, {99.9, 1500}, {100, 2.5e6}},
		Series:      []Step{{At: 0.25, Rate: 10_000, P50: 90, P99: 500, P999: 900, Max: 1000}, {At: 0.5}, {At: 0.75, Rate: 14_000, P50: 95, P99: 600, P999: 990, Max: 2000}},
	}
	return &Load{
		Program: "proa bench v1", Started: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Workload: "ycsb-a", About: "50 % reads, 50 % updates, zipfian",
		Keys: 100_000, KeyBytes: "24", ValueBytes: "1000", Choice: "zipfian", Seed: 1, Connections: 64, InFlight: 1, Threads: 1, Consistency: "linearizable",
		Arrivals: "closed loop", Servers: []bench.Member{{ID: 1, Address: "127.0.0.1:7400", Version: "v1"}, {ID: 2, Address: "10.0.0.2:7400"}}, Shards: 8, Durability: "8 shards of 3 voters each",
		WarmupSeconds: 0.5, Runs: []Run{run}, Verification: &bench.Verification{Rows: 100_000},
	}
}

// several is a report of several rates, with trouble in the last.
func several() *Load {
	l := sample()
	l.Arrivals = "open loop with constant intervals"
	base := l.Runs[0]
	l.Runs = nil
	for _, rate := range []float64{1000, 2000, 4000} {
		r := base
		r.Rate, r.Throughput = rate, rate
		l.Runs = append(l.Runs, r)
	}
	bad := &l.Runs[2]
	bad.Throughput, bad.Failed, bad.Unknown, bad.Unsent, bad.LateMax, bad.LateEnd = 3100, 12, 3, 1234, 9e5, 8e5
	bad.Errors, bad.FirstError = map[string]uint64{"TIMEOUT": 3, "BUSY": 9}, "BUSY: <queue> & full"
	bad.GeneratorBound, bad.Busiest, bad.Interrupted, bad.Repeated, bad.Forwarded, bad.Weak, bad.AgeMax = true, 0.97, true, 5, 6, 7, 300
	l.Verification = &bench.Verification{Rows: 10, Missing: 1, Wrong: 2, Problems: []string{"user1: missing", `user2: holds "<b>"`}}
	return l
}

func TestPrintLoad(t *testing.T) {
	var out bytes.Buffer
	if err := sample().Print(&out, 0); err != nil {
		t.Fatal(err)
	}
	want := `ycsb-a: 50 % reads, 50 % updates, zipfian
100,000 rows, zipfian; keys of 24 B, values of 1000 B; seed 1
64 connections × 1 in flight, 1 thread, closed loop, linearizable reads
requests to the leaders: 127.0.0.1:7400 (node 1, v1), 10.0.0.2:7400 (node 2, version unknown)
8 shards of 3 voters each

Closed loop

OPERATION  OPS     OPS/S   MEAN    P50     P90     P99      P99.9    P99.99   MAX
read       12,000  6,000   120 µs  100 µs  200 µs  1.00 ms  1.50 ms  20.0 ms  2.50 s
update     12,000  6,000   120 µs  100 µs  200 µs  1.00 ms  1.50 ms  20.0 ms  2.50 s
all        24,000  12,000  120 µs  100 µs  200 µs  1.00 ms  1.50 ms  20.0 ms  2.50 s

errors: none
7 reads found no row
bytes: 3.00 MiB out, 5.00 MiB in, 4.00 MiB/s together
servers: 7.25 µs of CPU per operation; 400 fsyncs, one per 60 operations, 210 µs each on average
generator: 2.50 µs of CPU per operation; its busiest thread used 42 % of a processor

verified: 100,000 rows read back, all correct
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}

// What was encrypted is said.
func TestPrintLoadOverTLS(t *testing.T) {
	l := sample()
	l.TLS = true
	var out bytes.Buffer
	if err := l.Print(&out, 0); err != nil || !strings.Contains(out.String(), "\nrequests to the leaders over TLS: 127.0.0.1:7400 ") {
		t.Errorf("%v: %s", err, &out)
	}
}

// TestTablesFit checks that tables are no wider than the terminal, and say what
// they leave out.
func TestTablesFit(t *testing.T) {
	var out bytes.Buffer
	if err := several().Print(&out, 80); err != nil {
		t.Fatal(err)
	}
	tables := 0
	for line := range strings.Lines(out.String()) {
		if columns := utf8.RuneCountInString(line) - 1; columns > 80 && strings.Contains(line, "  ") {
			t.Errorf("%d columns: %s", columns, line)
		}
		if strings.Contains(line, "P99.9 ") {
			tables++
		}
	}
	if tables != 4 || !strings.Contains(out.String(), "\n(without P99.99, P90: the terminal has 80 columns; -o csv shows all)\n") {
		t.Errorf("%d tables in:\n%s", tables, out.String())
	}
}

func TestPrintSeveral(t *testing.T) {
	var out bytes.Buffer
	if err := several().Print(&out, 0); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"PLANNED/S  DONE/S  P50", "\n4,000      3,100   100 µs  200 µs  1.00 ms  1.50 ms  20.0 ms  2.50 s  900 ms    1,234   12\n",
		"Planned 4,000 operations per second (interrupted)", "errors: BUSY 9, TIMEOUT 3; 3 writes of unknown outcome; first error: BUSY: <queue> & full",
		"late: 900 ms at most, 800 ms at the end; unsent: 1,234 requests that were due", "WARNING: the load generator",
		"5 requests repeated (leader moved or server busy), 6 requests forwarded to another node, 7 reads answered by a replica without its leader, at most 300 ms old",
		"VERIFICATION FAILED: 10 rows read back, 1 missing, 2 wrong\n  user1: missing\n", "\n  and 1 more\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, out.String())
		}
	}
}

func TestCSV(t *testing.T) {
	var out bytes.Buffer
	if err := several().CSV(&out); err != nil {
		t.Fatal(err)
	}
	lines, err := csv.NewReader(&out).ReadAll()
	if err != nil || len(lines) != 10 {
		t.Fatalf("%d lines, %v", len(lines), err)
	}
	column := map[string]int{}
	for i, name := range lines[0] {
		column[name] = i
	}
	for name, want := range map[string]string{"workload": "ycsb-a", "rate": "4000", "operation": "all", "ops": "24000", "failed": "12", "not_found": "7", "throughput": "12000",
		"p99_us": "999.6", "max_us": "2500000", "late_max_us": "900000", "unsent": "1234", "server_cpu_us_per_op": "7.25", "generator_cpu_us_per_op": "2.5"} {
		if got := lines[9][column[name]]; got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if lines[1][column["operation"]] != "read" || lines[1][column["failed"]] != "" {
		t.Errorf("%q", lines[1])
	}
}

func TestJSON(t *testing.T) {
	b, err := json.Marshal(several())
	if err != nil {
		t.Fatal(err)
	}
	again := new(Load)
	if err := json.Unmarshal(b, again); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(several(), again); diff != "" {
		t.Error(diff)
	}
	for _, name := range []string{`"p99.99":20000`, `"unknown_outcome":3`, `"server_cpu_per_op":7.25`, `"late_max":900000`} {
		if !bytes.Contains(b, []byte(name)) {
			t.Errorf("%s is missing in %s", name, b)
		}
	}
}

// outside matches whatever a page could load from elsewhere.
var outside = regexp.MustCompile(`(?i)(https?:|//[a-z]|\bsrc=|\bhref=|url\(|@import|<script|<link|<iframe)`)

// A page is well formed, loads nothing, and what is in the report does not end
// up as markup.
func TestHTML(t *testing.T) {
	empty := sample()
	empty.Runs = nil
	failed := sample()
	failed.Runs = []Run{{Errors: map[string]uint64{"BUSY": 1}, Failed: 1}}
	for name, l := range map[string]*Load{"one": sample(), "several": several(), "none": empty, "nothing done": failed} {
		var out bytes.Buffer
		if err := l.HTML(&out); err != nil {
			t.Fatal(name, err)
		}
		page := out.String()
		if found := outside.FindString(page); found != "" {
			t.Errorf("%s: the page needs %q", name, found)
		}
		d := xml.NewDecoder(strings.NewReader(page))
		d.Strict, d.Entity = true, xml.HTMLEntity
		seen := map[string]int{}
		for {
			token, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v\n%s", name, err, page)
			}
			if e, ok := token.(xml.StartElement); ok {
				seen[e.Name.Local]++
				for _, a := range e.Attr {
					if strings.Contains(a.Value, "NaN") || strings.Contains(a.Value, "Inf") {
						t.Errorf("%s: %s of %s is %s", name, a.Name.Local, e.Name.Local, a.Value)
					}
				}
			}
		}
		// Each chart is drawn twice; the one by percentile has a table for a legend.
		want := map[string][3]int{"one": {2 * 3, 2, 1}, "several": {2 * 4, 5, 2}, "none": {0, 0, 0}, "nothing done": {2 * 3, 2, 1}}[name]
		if seen["svg"] != want[0] || seen["table"] != want[1] || seen["ul"] != want[2] || strings.Contains(page, "<b>\"") {
			t.Errorf("%s: %v", name, seen)
		}
		if name == "several" {
			for _, part := range []string{"Latency by percentile", "p99.9", "Latency by planned rate", "operations per second", "&lt;queue&gt;", `class="bad"`, `<p class="bad">The test was interrupted`, `<p class="bad">WARNING: the load generator`, "prefers-color-scheme: dark"} {
				if !strings.Contains(page, part) {
					t.Errorf("%q is missing in the page", part)
				}
			}
		}
	}
}

// A page shows figures first, then charts, then what they depend on, then tables.
func TestOrderOfPage(t *testing.T) {
	for name, l := range map[string]*Load{"one": sample(), "several": several()} {
		var out bytes.Buffer
		if err := l.HTML(&out); err != nil {
			t.Fatal(err)
		}
		at := 0
		for _, part := range []string{"<h1>ycsb-a: 50 %", "operations per second", "p99.9 latency", "errors", "<svg", "<h2>Details</h2>", `<div class="scroll">`} {
			i := strings.Index(out.String()[at:], part)
			if i < 0 {
				t.Errorf("%s: %q is missing, or stands too early", name, part)
			}
			at += max(i, 0)
		}
	}
}

// Headlines are of the closed loop, or of the highest rate that was kept.
func TestHeadlines(t *testing.T) {
	text := func(l *Load) (out []string) {
		for _, h := range l.Headlines() {
			out = append(out, strings.TrimSpace(strings.Join([]string{h.Value, h.Name, h.Note}, " ")))
		}
		return out
	}
	one := []string{"12,346 operations per second", "100 µs p50 latency", "1.00 ms p99 latency", "1.50 ms p99.9 latency", "7.25 µs server CPU per operation", "0 errors"}
	if diff := cmp.Diff(one, text(sample())); diff != "" {
		t.Error(diff)
	}
	rates := []string{"3,100 operations per second highest throughput, 4,000/s", "2,000/s sustained rate highest planned rate without a backlog", "1.00 ms p99 latency at 2,000/s", "1.50 ms p99.9 latency at 2,000/s",
		"7.25 µs server CPU per operation at 2,000/s", "12 errors 0.017 % of all operations"}
	l := several()
	if diff := cmp.Diff(rates, text(l)); diff != "" {
		t.Error(diff)
	}
	for i := range l.Runs {
		l.Runs[i].Unsent = 1
	}
	if got := l.Headlines(); got[1].Value != "none" || !got[1].Bad || !got[len(got)-1].Bad {
		t.Errorf("no rate was kept: %+v", got)
	}
}

// Whatever is written beside a chart is inside its canvas, and values of X do not
// run into each other.
func TestChartIsWhole(t *testing.T) {
	text := regexp.MustCompile(`<text class="(tick|label|tick over)"(?: text-anchor="(end|middle)")? x="([-\d.]+)" y="([-\d.]+)">([^<]*)</text>`)
	charts := append(sample().Charts(), several().Charts()...)
	big := Chart{X: Axis{Label: "connections", Log: true, Show: Thousands}, Y: Axis{Label: "CPU time per request", Show: Thousands}, Lines: []Line{{Name: "GET", Marks: true}}}
	for _, x := range []float64{1, 4, 16, 64, 256, 1024, 4096, 10_000, 10_000_000} {
		big.X.Ticks = append(big.X.Ticks, x)
		big.Lines[0].Points = append(big.Lines[0].Points, XY{x, 123_456_789})
	}
	for _, c := range append(charts, big) {
		for _, v := range canvases {
			var b strings.Builder
			if err := pageTemplate.ExecuteTemplate(&b, "chart", []*drawing{c.drawing(v)}); err != nil {
				t.Fatal(err)
			}
			found := text.FindAllStringSubmatch(b.String(), -1)
			if len(found) < 6 || len(found) != strings.Count(b.String(), "<text") {
				t.Fatalf("%s: %d texts", c.Title, len(found))
			}
			end, line := 0.0, ""
			for _, m := range found {
				x, _ := strconv.ParseFloat(m[3], 64)
				width := textWidth(html.UnescapeString(m[5]))
				from := x - map[string]float64{"end": width, "middle": width / 2}[m[2]]
				if from < -0.1 || from+width > v.Width+0.1 {
					t.Errorf("%s, %s: %q stands from %.1f to %.1f", c.Title, v.Class, m[5], from, from+width)
				}
				if m[1] == "tick" && m[2] == "middle" && m[4] == line && from < end {
					t.Errorf("%s, %s: %q runs into the value before", c.Title, v.Class, m[5])
				}
				end, line = from+width, m[4]
			}
		}
	}
}

// The values of a chart stand where its scales say.
func TestChart(t *testing.T) {
	log := newScale(true, []float64{1, 1000}, 0, 300)
	linear := newScale(false, []float64{50, 100}, 0, 100)
	for _, tc := range []struct {
		s       *scale
		v, want float64
	}{{&log, 1, 0}, {&log, 10, 100}, {&log, 1000, 300}, {&linear, 0, 0}, {&linear, 25, 25}, {&linear, 100, 100}} {
		if got := tc.s.at(tc.v); got < tc.want-1e-9 || got > tc.want+1e-9 {
			t.Errorf("%v is at %v, want %v", tc.v, got, tc.want)
		}
	}
	if diff := cmp.Diff([]float64{1, 10, 100, 1000}, log.ticks()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]float64{0, 20, 40, 60, 80, 100}, linear.ticks()); diff != "" {
		t.Error(diff)
	}
	for _, tc := range []struct{ low, top, from, to float64 }{{90, 600, 50, 1000}, {1, 1000, 1, 1000}, {21, 49, 10, 100}} {
		s := newScale(true, []float64{tc.low, tc.top}, 0, 1).rounded()
		if got := []float64{math.Pow(10, s.low), math.Pow(10, s.top)}; !cmp.Equal(got, []float64{tc.from, tc.to}, cmpopts.EquateApprox(1e-9, 0)) {
			t.Errorf("%v to %v is shown from %v", tc.low, tc.top, got)
		}
	}
	if s := newScale(false, []float64{83}, 0, 1).rounded(); s.low != 0 || s.top != 100 {
		t.Errorf("83 is shown from %v to %v", s.low, s.top)
	}
	narrow := newScale(true, []float64{90, 600}, 0, 1)
	if got := narrow.ticks(); !cmp.Equal(got, []float64{100, 200, 500}) {
		t.Errorf("ticks within a decade: %v", got)
	}
	for _, values := range [][]float64{nil, {0}, {7}, {1e-9}, {1e12}} {
		s := newScale(false, values, 0, 1)
		if n := len(s.ticks()); n < 2 || n > 12 {
			t.Errorf("%v: %d ticks", values, n)
		}
	}
	c := Chart{Y: Axis{Log: true}, Lines: []Line{{Name: "a<b", Points: []XY{{1, 0}, {2, 5}, {3, 50}}}}}
	if got := c.shown(&c.Lines[0]); len(got) != 2 {
		t.Errorf("what a logarithm cannot show is shown: %v", got)
	}
	var b strings.Builder
	if err := errors.Join(pageTemplate.ExecuteTemplate(&b, "chart", c.drawings()), pageTemplate.ExecuteTemplate(&b, "legend", c)); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.String(), "a&lt;b") || strings.Contains(b.String(), "a<b") {
		t.Error("a name becomes markup")
	}
}

func TestShownValues(t *testing.T) {
	for us, want := range map[float64]string{0: "0", 0.5: "0.50 µs", 9.994: "9.99 µs", 9.996: "10.0 µs", 999.4: "999 µs", 999.5: "1.00 ms", 123_456: "123 ms", 999_500: "1.00 s", 6.1e7: "61.0 s"} {
		if got := Duration(us); got != want {
			t.Errorf("%v is %q, want %q", us, got, want)
		}
	}
	for n, want := range map[float64]string{0: "0 B", 1023: "1023 B", 1024: "1.00 KiB", 5 << 20: "5.00 MiB", 3 << 31: "6.00 GiB"} {
		if got := Bytes(n); got != want {
			t.Errorf("%v is %q, want %q", n, got, want)
		}
	}
	for v, want := range map[float64]string{1: "min", 10: "p90", 100: "p99", 1000: "p99.9", 100_000: "p99.999", 2: "p50"} {
		if got := percentileName(v); got != want {
			t.Errorf("%v is %q, want %q", v, got, want)
		}
	}
}

// The percentiles of a run go as far as its number of operations allows.
func TestNewRun(t *testing.T) {
	r := &bench.LoadResult{Elapsed: time.Second, Errors: map[string]uint64{"BUSY": 2}, Busiest: 0.95, AgeMax: time.Millisecond,
		Servers: []bench.ServerUse{{CPU: time.Second, Fsyncs: 5, FsyncMean: 7 * time.Microsecond}}, ServerOps: 1000,
		Series: []bench.Point{{At: time.Second, Step: time.Second, Ops: 10, P99: time.Millisecond}}}
	k := &r.Kinds[bench.KindRead]
	k.Latency = bench.NewLatencies()
	for i := range 1000 {
		_ = k.Latency.RecordValue(int64(i+1) * 1000)
	}
	k.Ops, k.Slowest = 1000, time.Millisecond
	r.All = *k
	out := NewRun(r)
	last := out.Percentiles[len(out.Percentiles)-1]
	if n := len(out.Percentiles); n != 3*8+2 || last.Percent != 100 || last.Micros != 1000 || out.Percentiles[8].Percent != 90 {
		t.Errorf("%d percentiles, the last %+v", n, last)
	}
	if out.Ops != 1000 || out.Failed != 2 || out.Throughput != 1000 || !out.GeneratorBound || out.ServerPerOp != 1000 || out.Fsyncs != 5 || len(out.Kinds) != 1 || out.Series[0].P99 != 1000 {
		t.Errorf("%+v", out)
	}
}
