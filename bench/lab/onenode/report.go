//go:build linux

package onenode

import (
	"cmp"
	"fmt"
	"runtime/debug"

	"github.com/proa-kv/proa/bench/report"
	"github.com/proa-kv/proa/bench/rig"
)

// outcome is the result of a run.
func (m *measurement) outcome() *rig.Outcome {
	o := &rig.Outcome{Section: "bench", Page: m.page("bench", cmp.Or(rig.VersionLine(m.redisPath, "--version"), "no Redis"))}
	if m.ycsb {
		o.Section, o.Page = "ycsb", m.page("ycsb", pebbleVersion())
		o.Page.Title = "YCSB on Proa and on Pebble"
	}
	o.Markdown = m.markdown(o.Page)
	return o
}

// page returns the tables with the curves. other is the version of what Proa is
// compared with.
func (m *measurement) page(target, other string) *report.Comparison {
	return &report.Comparison{
		Title: "Proa on one node", Lines: m.Conditions(target, m.command(), rig.VersionLine(m.Proa, "version"), other),
		Notes: m.allNotes(), Tables: m.tables(), First: 1, Charts: m.charts(),
	}
}

// tables returns everything that was measured, targets first.
func (m *measurement) tables() []report.Table {
	if m.ycsb {
		return []report.Table{m.ycsbFigures.targetTable(), m.ycsbFigures.table()}
	}
	return []report.Table{m.targetTable(), m.singleTable(), m.loadTable(), m.open.table(m.busy), m.crowdTable(), m.large.table(m.largeKeys)}
}

// singleTable shows one connection with one request in flight.
func (m *measurement) singleTable() report.Table {
	t := report.Table{Title: "One connection, one request in flight", Header: []string{"latency, µs", "p50", "p99", "p99.9"}}
	row := func(what string, s rig.Series) {
		if len(s) > 0 {
			t.Add(s.Cells(what, rig.P50, rig.P99, rig.P999)...)
		}
	}
	row("floor: write and fdatasync of 4,096 bytes", m.sync)
	row("floor: loopback echo", m.loop)
	floor := report.Median(report.Sum(m.sync.Each(rig.P50), m.loop.Each(rig.P50)))
	t.Add("sum of the floors", report.Micros(floor), "", "")
	row("Proa, fsynced PUT", m.single[proa])
	row("Redis, fsynced SET", m.single[redisAlways])
	t.Notes = append(t.Notes,
		fmt.Sprintf("The disk's floor writes block after block of a preallocated, zero-filled file and fdatasyncs each: what the Raft log does for one PUT of %d bytes, which with its headers takes one 4,096-byte block. The echo's is the round trip of the %d bytes of that PUT to another process and back, one epoll, one read and one write each.", m.value, m.requestBytes()))
	return t
}

// loadTable shows many connections.
func (m *measurement) loadTable() report.Table {
	t := report.Table{
		Title: fmt.Sprintf("%d connections", m.busy),
		Header: []string{"requests", "server", "rate, /s", "ratio of rates", "server CPU, µs/op", "generator CPU, µs/op", "p50, µs", "p99, µs",
			"p99.9, µs"},
	}
	for _, l := range loads {
		for _, v := range []variant{proa, redisFor(l.op)} {
			s := m.loaded[key{l, v}]
			if len(s) == 0 {
				continue
			}
			compared := ""
			if r := m.against(l, rig.Rate); v == proa && r != (report.Ratio{}) {
				compared = r.String()
			}
			t.Add(s.Cells(fmt.Sprintf("%v, %d × %d", l.op, m.busy, l.depth), variantNames[v], rig.Rate, compared, rig.ServerCPU, rig.GeneratorCPU, rig.P50, rig.P99, rig.P999)...)
			if busy := s.Busy(); busy > 0 {
				t.Notes = append(t.Notes, fmt.Sprintf("%s refused %.2f %% of the requests of %v, %d × %d, because it was busy; they are counted in the rate.", variantNames[v], busy*100, l.op, m.busy, l.depth))
			}
		}
	}
	t.Notes = append(t.Notes,
		fmt.Sprintf("%d × %d stands for %d connections with so many requests in flight on each. Keys are chosen uniformly among %s, values have %d bytes. A PUT to Proa is acknowledged when it is fdatasynced; to Redis it is SET with appendfsync always. GET and PING of Redis were measured without any persistence.", m.busy, deep, m.busy, report.Thousands(float64(m.keys)), m.value))
	return t
}

// allNotes returns what a reader has to know about this run.
func (m *measurement) allNotes() []string {
	notes := m.Notes
	if m.redisMissing != "" {
		notes = append(notes, "Redis was not measured. "+m.redisMissing)
	}
	return notes
}

// markdown returns the generated part of the page.
func (m *measurement) markdown(page *report.Comparison) string {
	step, title, how := m.Step, "How it was measured", method
	if m.ycsb {
		step, title, how = m.ycsbStep, "How YCSB was measured", ycsbMethod
	}
	intro := fmt.Sprintf("Every round measures all variants in turn for %v each, %d rounds in all. Figures are medians over the rounds. A ratio is the median of the ratios within each round; its smallest and largest are in parentheses. Clients and servers share the machine, so rates depend on the generator too; the CPU time of the server does not.", step, m.Rounds)
	return page.Markdown(2, intro) + "\n## " + title + "\n\n" + how + "\n"
}

const method = `The program is ` + "`bench/lab onenode`" + `, the load generator package ` + "`bench`" + `. The generator is one thread with one epoll loop over raw sockets, no allocation per request, every reply parsed whole; the same code for all servers, only the codec differs. Unless stated otherwise it is a closed loop, and a request's latency is the time from just before the write that sends it to just after the read that brings its reply. The open loop is that of ` + "`proa bench`" + `: each operation has a planned time, from which its latency counts.

Every server runs alone on its own fresh directory, with its defaults, on loopback. Redis runs with ` + "`--save \"\"`" + ` and ` + "`--appendonly no`" + ` for GET and PING, and with ` + "`--appendonly yes --appendfsync always`" + ` for SET; its log is not rewritten in the background, so that it does not disturb the others (` + "`--auto-aof-rewrite-percentage 0`" + `). The servers of a table all stay up, and a measurement begins when all are idle, or after two seconds. The open loop, the large values and the idle connections have a server of Proa each.

The CPU time of a server is read from the CPU clock of its process, in nanoseconds over all its threads, at the start and the end of the measured part; in an open loop the server reports it, warm-up included. A run in which a request fails gives no figures. Targets that were missed are marked; none is left out.`

const ycsbMethod = `The program is ` + "`bench/lab onenode -ycsb`" + `, the workloads are those of ` + "`proa bench`" + `. Both stores are filled with the same rows. Then each round runs every workload on Proa, one thread of the generator over loopback, and on Pebble, a goroutine for each caller in the process that has the data. Pebble has the same sizes of blocks and the same bloom filters as in Proa, and keeps all files open as it does there. Otherwise it is configured to write by itself, without Proa's memtables before it: memtables of 64 MiB and levels to match, whose files are up to twice as large, the last two levels compressed instead of one, and its own log, which is synced for each update; callers that wait at the same time share an fsync. Proa runs with its defaults but for ` + "`memory.cache_size`" + `. A measurement begins when all background work has ended on both sides, or after two minutes. Targets that were missed are marked; none is left out.`

// pebbleVersion names the Pebble that is compiled into this program.
func pebbleVersion() string {
	const path = "github.com/cockroachdb/pebble/v2"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, d := range info.Deps {
			if d.Path == path {
				return "Pebble " + d.Version
			}
		}
	}
	return "Pebble, version unknown"
}
