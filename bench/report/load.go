package report

import (
	"cmp"
	"encoding/csv"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/proa-kv/proa/bench"
)

// Load is the report of a load generator: how the load was made, and one Run
// for each rate. It is what JSON output holds.
type Load struct {
	Program  string    `json:"program"`
	Started  time.Time `json:"started"`
	Workload string    `json:"workload"`
	About    string    `json:"about"`

	Keys        uint64 `json:"keys"`
	KeyBytes    string `json:"key_bytes"`
	ValueBytes  string `json:"value_bytes"`
	Choice      string `json:"distribution"`
	Seed        uint64 `json:"seed"`
	Connections int    `json:"connections"`
	InFlight    int    `json:"in_flight"`
	Threads     int    `json:"threads"`
	Consistency string `json:"consistency"`
	AnyNode     bool   `json:"any_node"`
	TLS         bool   `json:"tls"`
	Arrivals    string `json:"arrivals"` // closed loop, constant or poisson

	Servers []bench.Member `json:"servers"`
	Shards  int            `json:"shards"`
	// Durability says what an acknowledged write has behind it.
	Durability string `json:"durability"`

	LoadSeconds   float64             `json:"preload_s"` // 0: nothing was loaded
	WarmupSeconds float64             `json:"warmup_s"`
	Runs          []Run               `json:"runs"`
	Verification  *bench.Verification `json:"verification,omitempty"`
	Rows          *Rows               `json:"rows,omitempty"` // nil: none were written
}

// Rows is what loads, this one and earlier ones, have left in the cluster.
type Rows struct {
	Prefix    string `json:"prefix"`
	Remaining uint64 `json:"remaining"`
	Deleted   uint64 `json:"deleted"`
	Cleanup   string `json:"cleanup,omitempty"` // the command that deletes what remains, if one does
	Error     string `json:"error,omitempty"`   // why nothing was counted or deleted
}

// Failed notes why rows could not be counted or deleted, if err is not nil.
func (r *Rows) Failed(err error) {
	if err != nil {
		r.Error = strings.TrimPrefix(err.Error(), "bench: ")
	}
}

// Run is what one run measured. Times are in microseconds where nothing else
// is said.
type Run struct {
	Rate        float64 `json:"rate"` // planned operations per second, 0: closed loop
	Throughput  float64 `json:"throughput"`
	Ops         uint64  `json:"ops"`
	Failed      uint64  `json:"failed"`
	Seconds     float64 `json:"elapsed_s"`
	Interrupted bool    `json:"interrupted,omitempty"`

	Latency Latency           `json:"latency"`
	Kinds   []Kind            `json:"operations"`
	Errors  map[string]uint64 `json:"errors"`

	bench.Counts
	AgeMax float64 `json:"weak_age_max_ms"`

	LateMax float64 `json:"late_max"`
	LateEnd float64 `json:"late_end"`

	Opened         int     `json:"connections_opened"`
	GeneratorPerOp float64 `json:"generator_cpu_per_op"`
	Busiest        float64 `json:"generator_busiest_thread"` // share of a processor, 0..1
	GeneratorBound bool    `json:"generator_bound"`
	ServerPerOp    float64 `json:"server_cpu_per_op"` // of all servers, 0: unknown
	Fsyncs         uint64  `json:"fsyncs"`            // of all servers
	FsyncMean      float64 `json:"fsync_mean"`        // of the slowest server, since it started

	Percentiles []Percentile `json:"percentiles"`
	Series      []Step       `json:"series"`
}

// Latency is a distribution in short.
type Latency struct {
	Mean  float64 `json:"mean"`
	P50   float64 `json:"p50"`
	P90   float64 `json:"p90"`
	P99   float64 `json:"p99"`
	P999  float64 `json:"p99.9"`
	P9999 float64 `json:"p99.99"`
	Max   float64 `json:"max"`
}

// Kind is what was measured of the operations of one kind.
type Kind struct {
	Name     string  `json:"operation"`
	Ops      uint64  `json:"ops"`
	NotFound uint64  `json:"not_found"`
	Rows     uint64  `json:"rows"`
	Latency  Latency `json:"latency"`

	Percentiles []Percentile `json:"percentiles"`

	// Histogram holds all latencies in nanoseconds: an HdrHistogram in its
	// second format, compressed, in base64.
	Histogram string `json:"histogram,omitempty"`
}

// Percentile is one point of a distribution.
type Percentile struct {
	Percent float64 `json:"percent"`
	Micros  float64 `json:"us"`
}

// Step is what happened in one step of time, which ended At seconds after the
// begin of the run.
type Step struct {
	At     float64 `json:"at_s"`
	Rate   float64 `json:"ops_per_s"`
	Errors uint64  `json:"errors"`
	P50    float64 `json:"p50"`
	P99    float64 `json:"p99"`
	P999   float64 `json:"p99.9"`
	Max    float64 `json:"max"`
}

// NewLoad describes the load that a Harness makes. Program, Started and
// Durability are for the caller to fill in.
func NewLoad(h *bench.Harness) *Load {
	l := h.Load()
	keys := l.Workload.KeyBytes.String()
	if l.Workload.KeyBytes.Max() == 0 {
		keys = strconv.Itoa(l.Workload.KeyBytesMin())
	}
	rows := l.Keys
	if !l.Workload.TouchesRows() {
		rows = 0
	}
	return &Load{
		Workload: l.Workload.Name, About: l.Workload.About, Keys: rows, KeyBytes: keys, ValueBytes: l.Workload.ValueBytes.String(),
		Choice: l.Workload.Choice.String(), Seed: l.Seed, Connections: l.Connections, InFlight: l.InFlight, Threads: l.Threads,
		Consistency: l.Consistency.String(), AnyNode: l.AnyNode, TLS: l.TLS != nil, Arrivals: "closed loop", Shards: h.Shards(),
		WarmupSeconds: l.Warmup.Seconds(), Servers: h.Members(),
	}
}

// Add adds a run.
func (l *Load) Add(r *bench.LoadResult) { l.Runs = append(l.Runs, NewRun(r)) }

// NewRun puts a result into the form of a report.
func NewRun(r *bench.LoadResult) Run {
	out := Run{
		Rate: r.Rate, Throughput: r.Throughput(), Ops: r.All.Ops, Failed: r.Failed(), Seconds: r.Elapsed.Seconds(), Interrupted: r.Interrupted,
		Latency: latencyOf(&r.All), Errors: r.Errors, Counts: r.Counts,
		AgeMax:  float64(r.AgeMax) / float64(time.Millisecond),
		LateMax: micros(r.LateMax), LateEnd: micros(r.LateEnd), Opened: r.Connections,
		GeneratorPerOp: micros(r.GeneratorPerOp()), Busiest: r.Busiest, GeneratorBound: r.GeneratorBound(), ServerPerOp: micros(r.ServerPerOp()),
		Percentiles: percentiles(&r.All),
	}
	for k := range r.Kinds {
		if kind := &r.Kinds[k]; kind.Ops > 0 {
			shown, _ := newKind(bench.Kind(k).String(), kind) // only merging needs the histogram
			out.Kinds = append(out.Kinds, shown)
		}
	}
	for _, s := range r.Servers {
		out.Fsyncs += s.Fsyncs
		out.FsyncMean = max(out.FsyncMean, micros(s.FsyncMean))
	}
	for _, p := range r.Series {
		out.Series = append(out.Series, Step{p.At.Seconds(), p.Rate(), p.Errors, micros(p.P50), micros(p.P99), micros(p.P999), micros(p.Max)})
	}
	return out
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

func latencyOf(k *bench.KindResult) Latency {
	q := func(q float64) float64 { return micros(k.Quantile(q)) }
	return Latency{micros(k.Mean()), q(0.5), q(0.9), q(0.99), q(0.999), q(0.9999), micros(k.Slowest)}
}

// percentiles returns points for a curve over 1/(1-q), evenly spaced on a
// logarithmic scale up to where one operation makes a difference.
func percentiles(k *bench.KindResult) []Percentile {
	if k.Ops == 0 {
		return nil
	}
	const perDecade = 8
	var out []Percentile
	for i := 0; ; i++ {
		tail := math.Pow(10, -float64(i)/perDecade)
		if tail*float64(k.Ops) < 1 {
			break
		}
		out = append(out, Percentile{100 * (1 - tail), micros(k.Quantile(1 - tail))})
	}
	return append(out, Percentile{100, micros(k.Slowest)})
}

// Print writes the report for a terminal with so many columns, 0 for any number.
// Tables that are wider are shown without their least columns; lines of text may
// be longer.
func (l *Load) Print(out io.Writer, columns int) error {
	c := Comparison{Lines: l.Lines()}
	if len(l.Runs) > 1 {
		c.Tables = append(c.Tables, *l.rates().fit(columns, "P99.99", "P90", "P99.9"))
	}
	for i := range l.Runs {
		t := l.Runs[i].table().fit(columns, "P99.99", "MEAN", "P90")
		t.Notes = append(t.Notes, strings.Join(l.Runs[i].notes(), "\n"))
		c.Tables = append(c.Tables, *t)
	}
	if v := l.Verification; v != nil {
		lines := append([]string{verified(v)}, v.Problems...)
		if more := v.Missing + v.Wrong - uint64(len(v.Problems)); more > 0 {
			lines = append(lines, fmt.Sprintf("and %s more", Thousands(float64(more))))
		}
		c.Notes = append(c.Notes, strings.Join(lines, "\n  "))
	}
	if l.Rows != nil {
		c.Notes = append(c.Notes, l.Rows.Sentence())
	}
	return c.Print(out)
}

// Lines describes the load and the servers, for people.
func (l *Load) Lines() []string {
	threads := "1 thread"
	if l.Threads > 1 {
		threads = fmt.Sprintf("%d threads", l.Threads)
	}
	lines := []string{fmt.Sprintf("%s: %s", l.Workload, l.About)}
	connections := fmt.Sprintf("%d connections × %d in flight, %s, %s", l.Connections, l.InFlight, threads, l.Arrivals)
	if l.Keys > 0 {
		lines = append(lines, fmt.Sprintf("%s rows, %s; keys of %s B, values of %s B; seed %d", Thousands(float64(l.Keys)), l.Choice, l.KeyBytes, l.ValueBytes, l.Seed))
		connections += fmt.Sprintf(", %s reads", l.Consistency)
	}
	lines = append(lines, connections)
	var servers []string
	for _, s := range l.Servers {
		servers = append(servers, fmt.Sprintf("%s (node %d, %s)", s.Address, s.ID, cmp.Or(s.Version, "version unknown")))
	}
	to := "to the leaders"
	if l.AnyNode {
		to = "to any node"
	}
	if l.TLS {
		to += " over TLS"
	}
	lines = append(lines, fmt.Sprintf("requests %s: %s", to, strings.Join(servers, ", ")))
	if l.Durability != "" {
		lines = append(lines, l.Durability)
	}
	return lines
}

// rates is the table over several rates, which shows the knee.
func (l *Load) rates() *Table {
	t := &Table{Title: "Rates", Header: []string{"PLANNED/S", "DONE/S", "P50", "P90", "P99", "P99.9", "P99.99", "MAX", "LATE MAX", "UNSENT", "ERRORS"}}
	for i := range l.Runs {
		r := &l.Runs[i]
		planned := "closed loop"
		if r.Rate > 0 {
			planned = Thousands(r.Rate)
		}
		t.Add(append(append([]string{planned, Thousands(r.Throughput)}, r.Latency.cells()[1:]...),
			Duration(r.LateMax), Thousands(float64(r.Unsent)), Thousands(float64(r.Failed)))...)
	}
	return t
}

// cells shows mean, percentiles and maximum.
func (l *Latency) cells() []string {
	var out []string
	for _, v := range []float64{l.Mean, l.P50, l.P90, l.P99, l.P999, l.P9999, l.Max} {
		out = append(out, Duration(v))
	}
	return out
}

// Duration shows microseconds to three digits, in a unit that suits.
func Duration(us float64) string {
	switch {
	case us == 0:
		return "0"
	case us < 999.5:
		return digits(us) + " µs"
	case us < 999.5e3:
		return digits(us/1e3) + " ms"
	}
	return digits(us/1e6) + " s"
}

// digits shows three digits or more.
func digits(v float64) string {
	switch {
	case v < 9.995:
		return strconv.FormatFloat(v, 'f', 2, 64)
	case v < 99.95:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 0, 64)
}

func (r *Run) title() string {
	title := "Closed loop"
	if r.Rate > 0 {
		title = fmt.Sprintf("Planned %s operations per second", Thousands(r.Rate))
	}
	if r.Interrupted {
		title += " (interrupted)"
	}
	return title
}

// table is the run's table by kind of operation.
func (r *Run) table() *Table {
	t := &Table{Title: r.title(), Header: []string{"OPERATION", "OPS", "OPS/S", "MEAN", "P50", "P90", "P99", "P99.9", "P99.99", "MAX"}}
	add := func(name string, ops uint64, l *Latency) {
		t.Add(append([]string{name, Thousands(float64(ops)), Thousands(Quotient(float64(ops), r.Seconds))}, l.cells()...)...)
	}
	for i := range r.Kinds {
		add(r.Kinds[i].Name, r.Kinds[i].Ops, &r.Kinds[i].Latency)
	}
	if len(r.Kinds) != 1 {
		add("all", r.Ops, &r.Latency)
	}
	return t
}

// notes says what the tables do not.
func (r *Run) notes() []string {
	lines := []string{r.errorNote()}
	if note := r.rowNote(); note != "" {
		lines = append(lines, note)
	}
	if r.Rate > 0 {
		lines = append(lines, fmt.Sprintf("late: %s at most, %s at the end; unsent: %s requests that were due",
			Duration(r.LateMax), Duration(r.LateEnd), Thousands(float64(r.Unsent))))
	}
	lines = append(lines, fmt.Sprintf("bytes: %s out, %s in, %s/s together", Bytes(float64(r.BytesOut)), Bytes(float64(r.BytesIn)), Bytes(Quotient(float64(r.BytesOut+r.BytesIn), r.Seconds))))
	if r.ServerPerOp > 0 {
		server := fmt.Sprintf("servers: %s of CPU per operation", Duration(r.ServerPerOp))
		if r.Fsyncs > 0 {
			server += fmt.Sprintf("; %s fsyncs, one per %.3g operations, %s each on average", Thousands(float64(r.Fsyncs)), Quotient(float64(r.Ops), float64(r.Fsyncs)), Duration(r.FsyncMean))
		}
		lines = append(lines, server)
	}
	lines = append(lines, fmt.Sprintf("generator: %s of CPU per operation; its busiest thread used %.0f %% of a processor", Duration(r.GeneratorPerOp), 100*r.Busiest))
	if r.GeneratorBound {
		lines = append(lines, generatorBound)
	}
	return lines
}

const generatorBound = "WARNING: the load generator may be the bottleneck, not the servers; use more --threads or another machine"

func (r *Run) errorNote() string {
	if r.Failed == 0 {
		return "errors: none"
	}
	var words []string
	for _, name := range slices.Sorted(maps.Keys(r.Errors)) {
		words = append(words, fmt.Sprintf("%s %s", name, Thousands(float64(r.Errors[name]))))
	}
	return fmt.Sprintf("errors: %s; %s writes of unknown outcome; first error: %s", strings.Join(words, ", "), Thousands(float64(r.Unknown)), r.FirstError)
}

// rowNote says what became of rows and routes, where there is anything to say.
func (r *Run) rowNote() string {
	var words []string
	add := func(n uint64, format string) {
		if n > 0 {
			words = append(words, fmt.Sprintf(format, Thousands(float64(n))))
		}
	}
	var absent, rows uint64
	for _, k := range r.Kinds {
		absent += k.NotFound
		rows += k.Rows
	}
	add(absent, "%s reads found no row")
	add(rows, "%s rows in scans and batches")
	add(r.Repeated, "%s requests repeated (leader moved or server busy)")
	add(r.Forwarded, "%s requests forwarded to another node")
	add(r.Weak, "%s reads answered by a replica without its leader")
	if r.AgeMax > 0 {
		words = append(words, fmt.Sprintf("at most %s old", Duration(r.AgeMax*1e3)))
	}
	return strings.Join(words, ", ")
}

// verified says in one sentence what reading back has found.
func verified(v *bench.Verification) string {
	if v.Missing+v.Wrong == 0 {
		return fmt.Sprintf("verified: %s rows read back, all correct", Thousands(float64(v.Rows)))
	}
	return fmt.Sprintf("VERIFICATION FAILED: %s rows read back, %s missing, %s wrong", Thousands(float64(v.Rows)), Thousands(float64(v.Missing)), Thousands(float64(v.Wrong)))
}

// Sentence says how many rows remain or were deleted, and how to delete them.
func (r *Rows) Sentence() string {
	switch {
	case r.Error != "":
		text := fmt.Sprintf("rows: those under %s could not be counted or deleted: %s", r.Prefix, r.Error)
		if r.Cleanup != "" {
			text += "; delete them with: " + r.Cleanup
		}
		return text
	case r.Remaining == 0 && r.Deleted == 0:
		return fmt.Sprintf("rows: none under %s", r.Prefix)
	case r.Remaining == 0:
		return fmt.Sprintf("rows: deleted %s under %s", Thousands(float64(r.Deleted)), r.Prefix)
	}
	return fmt.Sprintf("rows: %s remain under %s; delete them with: %s", Thousands(float64(r.Remaining)), r.Prefix, r.Cleanup)
}

// Bytes shows bytes to three digits, in a unit that suits.
func Bytes(n float64) string {
	for _, u := range []struct {
		name  string
		bytes float64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n >= u.bytes {
			return digits(n/u.bytes) + " " + u.name
		}
	}
	return fmt.Sprintf("%.0f B", n)
}

// csvHeader names the columns of CSV output.
var csvHeader = []string{"workload", "rate", "operation", "ops", "failed", "not_found", "throughput", "mean_us", "p50_us", "p90_us", "p99_us", "p99.9_us", "p99.99_us", "max_us",
	"late_max_us", "unsent", "server_cpu_us_per_op", "generator_cpu_us_per_op"}

// CSV writes a line for each kind of operation of each run, and one for all
// kinds together, below a line of names. What is known only of all together is
// empty in the others.
func (l *Load) CSV(out io.Writer) error {
	w := csv.NewWriter(out)
	if err := w.Write(csvHeader); err != nil {
		return err
	}
	for i := range l.Runs {
		r := &l.Runs[i]
		var absent uint64
		for _, k := range r.Kinds {
			absent += k.NotFound
			if err := w.Write(append(l.csvLine(r, k.Name, k.Ops, "", k.NotFound, &k.Latency), "", "", "", "")); err != nil {
				return err
			}
		}
		line := append(l.csvLine(r, "all", r.Ops, strconv.FormatUint(r.Failed, 10), absent, &r.Latency),
			number(r.LateMax), strconv.FormatUint(r.Unsent, 10), number(r.ServerPerOp), number(r.GeneratorPerOp))
		if err := w.Write(line); err != nil {
			return err
		}
	}
	w.Flush()
	return w.Error()
}

func (l *Load) csvLine(r *Run, kind string, ops uint64, failed string, absent uint64, y *Latency) []string {
	return []string{l.Workload, number(r.Rate), kind, strconv.FormatUint(ops, 10), failed, strconv.FormatUint(absent, 10),
		number(Quotient(float64(ops), r.Seconds)), number(y.Mean), number(y.P50), number(y.P90), number(y.P99), number(y.P999), number(y.P9999), number(y.Max)}
}

// number shows a number with up to three digits behind the point.
func number(v float64) string {
	return strconv.FormatFloat(math.Round(v*1e3)/1e3, 'f', -1, 64)
}
