//go:build linux

package onenode

import (
	"context"
	"fmt"

	"github.com/proa-kv/proa/bench"
	"github.com/proa-kv/proa/bench/report"
	"github.com/proa-kv/proa/bench/rig"
)

const (
	largeBytes       = 256 << 10 // of each large value
	largeConnections = 16        // one request in flight on each
	// largeChunkBytes is what the disk's floor writes between two fdatasyncs:
	// as much as all connections together have in flight.
	largeChunkBytes = largeConnections * largeBytes
)

// largeValues holds what was measured with large values, round by round.
type largeValues struct {
	write    []float64               // bytes per second that the disk takes
	loopback rig.Series              // blobs over loopback
	proa     map[bench.Op]rig.Series // GET and PUT
}

// measureLarge measures large values and their floors, on a server of their
// own.
func (m *measurement) measureLarge(ctx context.Context) error {
	const v = variant("proa-large")
	m.Progress("large values: starting a server, %d keys of %d bytes each", m.largeKeys, largeBytes)
	if err := m.startProa(ctx, v); err != nil {
		return err
	}
	blobs, err := m.StartBlobs(largeBytes)
	if err != nil {
		return err
	}
	p := m.servers[v]
	l := m.describeLarge(p, bench.Put)
	l.InFlight = 4
	if err := fill(ctx, p, l); err != nil {
		return err
	}
	if err := m.eachRound(fmt.Sprintf("values of %d bytes", largeBytes), func(int) error { return m.largeRound(ctx, p, blobs) }); err != nil {
		return err
	}
	return m.endServer(v)
}

// describeLarge describes a measurement of p with large values.
func (m *measurement) describeLarge(p *rig.Server, op bench.Op) bench.Load {
	l := m.describe(p, load{op, 1})
	l.Connections, l.Keys, l.ValueBytes = largeConnections, m.largeKeys, largeBytes
	return l
}

// largeRound measures each floor and then what is held against it.
func (m *measurement) largeRound(ctx context.Context, p, blobs *rig.Server) error {
	if err := m.rest(ctx); err != nil {
		return err
	}
	rate, err := m.disk.MeasureSequential(ctx, largeChunkBytes, m.Step)
	if err != nil {
		return fmt.Errorf("floor of the disk: %w", err)
	}
	put, err := m.take(ctx, p, m.describeLarge(p, bench.Put))
	if err != nil {
		return err
	}
	loopback, err := m.take(ctx, blobs, m.describeLarge(blobs, bench.Get))
	if err != nil {
		return err
	}
	get, err := m.take(ctx, p, m.describeLarge(p, bench.Get))
	if err != nil {
		return err
	}
	l := &m.large
	l.write, l.loopback = append(l.write, rate), append(l.loopback, loopback)
	l.proa[bench.Put], l.proa[bench.Get] = append(l.proa[bench.Put], put), append(l.proa[bench.Get], get)
	return nil
}

// largeRate is how many bytes of large values a sample stands for, per second.
// Requests that were refused have carried none.
var largeRate = rig.Figure{Of: func(s rig.Sample) float64 {
	return s.Rate * largeBytes * (1 - report.Quotient(float64(s.Busy), float64(s.Ops)))
}, Show: mebibytes}

func mebibytes(bytes float64) string { return report.Thousands(bytes / (1 << 20)) }

// ratios compare the bytes per second of PUT and GET with their floors.
func (l *largeValues) ratios() (put, get report.Ratio) {
	return report.RatioOf(l.proa[bench.Put].Each(largeRate), l.write), report.RatioOf(l.proa[bench.Get].Each(largeRate), l.loopback.Each(largeRate))
}

// table shows large values, of so many keys, beside their floors.
func (l *largeValues) table(keys uint64) report.Table {
	t := report.Table{
		Title:  "Values of 256 KiB",
		Header: []string{"requests", "MiB/s", "ratio to the floor", "requests/s", "server CPU, µs/op", "generator CPU, µs/op", "p50, µs", "p99, µs"},
	}
	if len(l.write) == 0 {
		t.Notes = []string{"Not measured."}
		return t
	}
	row := func(what, ratio any, s rig.Series) {
		t.Add(s.Cells(what, largeRate, ratio, rig.Rate, rig.ServerCPU, rig.GeneratorCPU, rig.P50, rig.P99)...)
	}
	put, get := l.ratios()
	t.Add("floor of PUT: sequential writes, fdatasync after each 4 MiB", mebibytes(report.Median(l.write)), "", "", "", "", "", "")
	row(fmt.Sprintf("fsynced PUT, %d × 1", largeConnections), put, l.proa[bench.Put])
	row("floor of GET: the same bytes from memory over loopback", "", l.loopback)
	row(fmt.Sprintf("GET, %d × 1", largeConnections), get, l.proa[bench.Get])
	for _, op := range []bench.Op{bench.Put, bench.Get} {
		if busy := l.proa[op].Busy(); busy > 0 {
			t.Notes = append(t.Notes, fmt.Sprintf("Proa refused %.2f %% of the %vs of 256 KiB, because it was busy; they are not counted in the bytes.", busy*100, op))
		}
	}
	t.Notes = append(t.Notes, fmt.Sprintf("Keys are chosen uniformly among %s. The disk's floor overwrites a preallocated file from start to end, as much between two fdatasyncs as all connections have in flight. The loopback's is a process with one thread that sends 256 KiB from a pool of 64 MiB for each request of eight bytes; the generator is the same and takes the bytes apart in the same way, so what it costs is in both figures.", report.Thousands(float64(keys))))
	return t
}
