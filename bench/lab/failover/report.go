//go:build linux

package failover

import (
	"fmt"
	"maps"
	"slices"

	"github.com/proa-kv/proa/bench/report"
	"github.com/proa-kv/proa/bench/rig"
)

// The targets. Times are in milliseconds.
const (
	// electionTimeoutMax is the default of raft.election_timeout_max, which the
	// servers run with.
	electionTimeoutMax = 600.0
	backTarget         = 1.5 * electionTimeoutMax
	pauseTarget        = 50.0
	shardsTarget       = 0.85
)

// outcome is the result of a run.
func (m *measurement) outcome() *rig.Outcome {
	page := &report.Comparison{
		Title: "Failover", Lines: m.Conditions("failover", m.command(), rig.VersionLine(m.Proa, "version")), Notes: m.Notes,
		Tables: []report.Table{m.targetTable(), m.pauseTable(), m.writesTable(), m.shardsTable()},
	}
	o := &rig.Outcome{Page: page, Section: "failover", Markdown: page.Markdown(2, "") + "\n## How failover was measured\n\n" + method + "\n"}
	if m.lost > 0 {
		o.Err = fmt.Errorf("%d acknowledged writes are lost", m.lost)
	}
	return o
}

// millis prints nanoseconds as milliseconds.
func millis(ns float64) string { return fmt.Sprintf("%.1f", ns/1e6) }

// between prints the middle of the figures and how far they reach, in
// milliseconds.
func (f figures) between() string {
	if len(f) == 0 {
		return report.NotMeasured
	}
	return fmt.Sprintf("%s (%s–%s)", millis(report.Median(f)), millis(slices.Min(f)), millis(slices.Max(f)))
}

// longest returns the largest of the figures in milliseconds.
func (f figures) longest() float64 {
	if len(f) == 0 {
		return 0
	}
	return slices.Max(f) / 1e6
}

// targetTable lists every target with what was measured.
func (m *measurement) targetTable() report.Table {
	t := report.Table{Title: "Targets: failover, handover, many shards", Header: []string{"what", "target", "measured", "verdict"}}
	back := report.AtMost(backTarget)
	t.Add(fmt.Sprintf("SIGKILL: service back for all shards, median of %d, ms", len(m.back)), back.String(), m.back.between(), back.Verdict(report.Median(m.back)/1e6))
	longest := func(what string, f figures) {
		b := report.AtMost(pauseTarget)
		t.Add(fmt.Sprintf("%s: longest pause of %d, ms", what, len(f)), b.String(), fmt.Sprintf("%.1f", f.longest()), b.Verdict(f.longest()))
	}
	none := func(what string, n uint64) {
		b := report.AtMost(0)
		t.Add(what, b.String(), fmt.Sprint(n), b.Verdict(float64(n)))
	}
	longest("planned transfer", m.moved)
	none("planned transfers: errors that clients saw", m.moving.errors())
	longest("SIGTERM", m.stopped)
	none("SIGTERM and start again: errors that clients saw", m.stopping.errors())
	none("acknowledged writes lost, all parts", m.lost)
	t.AddTarget(fmt.Sprintf("PUT, %d callers: rate with %d shards / with %d", rateCallers, shardsMany, shardsFew), report.AtLeast(shardsTarget), ratioOfMedians(m.many, m.few, rig.Rate))
	return t
}

// pauseTable shows how long the pauses were.
func (m *measurement) pauseTable() report.Table {
	t := report.Table{Title: "Pauses", Header: []string{"event", "figure, ms", "times", "median", "shortest", "longest"}}
	row := func(event, what string, f figures) {
		if len(f) > 0 {
			t.Add(event, what, fmt.Sprint(len(f)), millis(report.Median(f)), millis(slices.Min(f)), millis(slices.Max(f)))
		}
	}
	row("none", "pause of one shard", m.quiet)
	row("planned transfer", "pause of the shard", m.moved)
	row("SIGTERM", "pause of any shard until the process has ended", m.stopped)
	row("SIGTERM", "time until the process has ended", m.ending)
	row("start after SIGTERM", "pause of any shard until leaders are spread", m.rejoined)
	row("SIGKILL", "service back for all shards", m.back)
	row("SIGKILL", "pause of the shards that the node led", m.led)
	row("SIGKILL", "pause of the others", m.otherLed)
	t.Notes = []string{fmt.Sprintf("A pause is the longest time between two acknowledgements in a row, of any of the callers concerned: one write's latency at least. Without an event it was measured for %v, right before each transfer. With SIGKILL only callers with a session count; the election timeout is drawn between %v and %v ms.", m.calm, electionTimeoutMax/2, electionTimeoutMax)}
	return t
}

// writesTable shows how many writes were made, and what failed.
func (m *measurement) writesTable() report.Table {
	t := report.Table{Title: "Writes under way meanwhile", Header: []string{"part", "callers", "acknowledged", "failed", "lost"}}
	for _, p := range []struct {
		name string
		part *part
	}{{"planned transfers", &m.moving}, {"SIGTERM and start again", &m.stopping}, {"SIGKILL and start again", &m.killing}} {
		for k, w := range p.part.writes {
			t.Add(p.name, kind(k).String(), report.Thousands(float64(w.acked)), fmt.Sprint(w.failed), fmt.Sprint(w.lost))
		}
		for _, class := range slices.Sorted(maps.Keys(p.part.failures)) {
			t.Notes = append(t.Notes, fmt.Sprintf("%s, failed writes: %d × %s.", p.name, p.part.failures[class], class))
		}
	}
	t.Notes = append(t.Notes, "A write through a client with default settings that was under way to a node when it was killed fails: whether it took effect is unknown, and only a session lets the client repeat it.")
	return t
}

// shardsTable compares clusters of few and of many shards.
func (m *measurement) shardsTable() report.Table {
	t := report.Table{
		Title:  fmt.Sprintf("%d and %d shards", shardsFew, shardsMany),
		Header: []string{"shards", "PUT/s", "server CPU, µs/op", "generator CPU, µs/op", "p50, µs", "p99, µs", "failed"},
	}
	row := func(shards int, s rig.Series) {
		t.Add(s.Cells(shards, rig.Rate, rig.ServerCPU, rig.GeneratorCPU, rig.P50, rig.P99, s.Failed())...)
	}
	row(shardsFew, m.few)
	row(shardsMany, m.many)
	t.Notes = []string{fmt.Sprintf("Three nodes, %d callers over %d clients, values of %d bytes, %s keys chosen uniformly; %d rounds of %v each, in turn. The CPU time is that of all three servers together; %d shards / %d: %v.",
		rateCallers, rateClients, m.value, report.Thousands(float64(m.keys)), m.Rounds, m.Step, shardsMany, shardsFew, ratioOfMedians(m.many, m.few, rig.ServerCPU))}
	return t
}

const method = "The program is `bench/lab failover`. It starts three servers on loopback with default settings and real fsyncs. Each of 8 shards has two callers, one through a client with a session (`ExactlyOnce`), one through a client with default settings; each writes to a key of that shard, one write after the other. After a SIGKILL, service is back when every shard has acknowledged a write that began after the process was gone; the time counts from just before the signal. The node is then started again, and the next event waits until every node is up and leaders are spread.\n\n" +
	"Every write carries a number and asks for the value it replaces, so that the next write to a key sees one that was lost; at the end of each part all keys are read back. Clients and servers share the machine, and pauses contain whatever else it does. Targets that were missed are marked; none is left out."
