//go:build linux

package onenode

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/proa-kv/proa/bench"
	"github.com/proa-kv/proa/bench/report"
	"github.com/proa-kv/proa/bench/rig"
)

// ycsbWorkloads are those that are compared.
var ycsbWorkloads = []string{"ycsb-a", "ycsb-b", "ycsb-c"}

// store is one of the two that are compared.
type store string

const (
	ycsbProa   store = "Proa"
	ycsbPebble store = "Pebble in process"
)

// ycsbKey names a series.
type ycsbKey struct {
	workload string
	store
}

// ycsbSample is one measurement of one round: all operations together, and the
// latencies of each kind.
type ycsbSample struct{ all, read, update rig.Sample }

// ycsbSeries holds those of each round.
type ycsbSeries struct{ all, read, update rig.Series }

// add adds the samples of a round.
func (y *ycsb) add(workload string, on store, s ycsbSample) {
	k := ycsbKey{workload, on}
	of := y.series[k]
	y.series[k] = ycsbSeries{append(of.all, s.all), append(of.read, s.read), append(of.update, s.update)}
}

// ycsb makes the figures of YCSB with more data than cache and holds them.
type ycsb struct {
	m          *measurement
	engine     *engine
	generators map[string][]*bench.Generator
	harnesses  map[string]*bench.Harness
	series     map[ycsbKey]ycsbSeries
	restless   int // measurements that began with background work still going on
}

const (
	ycsbRowBytes = 1000 // of a value
	// ycsbSpace is how many times the data must be free on the disk: two
	// stores, and room for compactions to write before they delete.
	ycsbSpace = 4
)

// ycsbKeys returns the number of rows that make up the data.
func (o *options) ycsbKeys() uint64 { return uint64(o.ycsbData) << 20 / ycsbRowBytes }

// measureYCSB measures YCSB on Proa and on Pebble in turn.
func (m *measurement) measureYCSB(ctx context.Context) (err error) {
	if err := m.checkSpace(); err != nil {
		return err
	}
	y := &m.ycsbFigures
	*y = ycsb{m: m, generators: map[string][]*bench.Generator{}, harnesses: map[string]*bench.Harness{}, series: map[ycsbKey]ycsbSeries{}}
	defer func() {
		if y.engine != nil {
			err = errors.Join(err, y.engine.close())
		}
	}()
	if err := y.prepare(ctx); err != nil {
		return err
	}
	for round := range m.Rounds {
		for _, w := range ycsbWorkloads {
			m.Progress("round %d of %d: %s", round+1, m.Rounds, w)
			if err := y.round(ctx, w); err != nil {
				return err
			}
		}
	}
	if y.restless > 0 {
		m.Note("%d of %d measurements began with background work still going on after %v of waiting.", y.restless, m.Rounds*len(ycsbWorkloads)*2, m.ycsbRest)
	}
	return nil
}

// checkSpace returns an error where the disk has too little room.
func (m *measurement) checkSpace() error {
	var s unix.Statfs_t
	if err := unix.Statfs(m.Data, &s); err != nil {
		return fmt.Errorf("free space: %w", err)
	}
	free, needed := float64(s.Bavail)*float64(s.Bsize), ycsbSpace*float64(m.ycsbData)*(1<<20)
	if free < needed {
		return fmt.Errorf("%s are free for data, %s are needed: name a directory on another disk with -dir, or measure less with -ycsb-data", report.Bytes(free), report.Bytes(needed))
	}
	return nil
}

// prepare starts both stores and fills them.
func (y *ycsb) prepare(ctx context.Context) error {
	m := y.m
	m.Progress("starting a server, %s rows of %d bytes, cache of %d MiB", report.Thousands(float64(m.ycsbKeys())), ycsbRowBytes, m.ycsbCache)
	if err := m.startProa(ctx, proa, fmt.Sprintf("memory.cache_size=%dMiB", m.ycsbCache)); err != nil {
		return err
	}
	p := m.servers[proa]
	for _, name := range ycsbWorkloads {
		if err := y.open(ctx, p, name); err != nil {
			return err
		}
	}
	first := ycsbWorkloads[0]
	if _, err := y.harnesses[first].Preload(ctx); err != nil {
		return fmt.Errorf("filling %s: %w", p.Name, err)
	}
	m.Progress("filling Pebble with the same")
	var err error
	if y.engine, err = openEngine(filepath.Join(m.Data, "pebble"), int64(m.ycsbCache)<<20); err != nil {
		return err
	}
	if err := y.engine.load(ctx, y.generators[first][0], m.ycsbKeys()); err != nil {
		return fmt.Errorf("filling Pebble: %w", err)
	}
	return nil
}

// open prepares a workload for both.
func (y *ycsb) open(ctx context.Context, p *rig.Server, name string) error {
	m := y.m
	h, err := m.openHarness(ctx, p, name, bench.Load{Keys: m.ycsbKeys(), ValueBytes: ycsbRowBytes, Duration: m.ycsbStep})
	if err == nil {
		y.harnesses[name] = h
		y.generators[name], err = bench.NewGenerators(h.Load().Workload, m.ycsbKeys(), 1, m.busy)
	}
	return err
}

// round measures a workload on Proa and then on Pebble.
func (y *ycsb) round(ctx context.Context, name string) error {
	if err := y.settle(ctx); err != nil {
		return err
	}
	r, all, err := runLoad(ctx, y.m.servers[proa], y.harnesses[name], 0)
	if err != nil {
		return err
	}
	y.add(name, ycsbProa, ycsbSample{all, rig.SampleOfKind(&r.Kinds[bench.KindRead]), rig.SampleOfKind(&r.Kinds[bench.KindUpdate])})
	if err := y.settle(ctx); err != nil {
		return err
	}
	s, err := y.engine.run(ctx, y.generators[name], y.m.Warmup(y.m.ycsbStep), y.m.ycsbStep)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	y.add(name, ycsbPebble, s)
	return nil
}

// settle waits until neither the server nor this process, with Pebble in it,
// has work in the background.
func (y *ycsb) settle(ctx context.Context) error {
	settled, err := rig.Settle(ctx, y.m.ycsbRest, func() (time.Duration, error) {
		server, err := y.m.servers[proa].CPU()
		return server + rig.OwnCPU(), err
	})
	if err == nil && !settled {
		y.restless++
	}
	return err
}

// ratio compares the rates of Proa and Pebble.
func (y *ycsb) ratio(workload string) report.Ratio {
	return report.RatioOf(y.series[ycsbKey{workload, ycsbProa}].all.Each(rig.Rate), y.series[ycsbKey{workload, ycsbPebble}].all.Each(rig.Rate))
}

// targetTable lists the targets of YCSB with what was measured.
func (y *ycsb) targetTable() report.Table {
	t := report.Table{Title: "Targets beside Pebble", Header: []string{"what", "target", "measured", "verdict"}}
	for _, w := range ycsbWorkloads {
		t.AddTarget(fmt.Sprintf("%s: rate / Pebble in process", strings.ToUpper(w)), report.AtLeast(0.5), y.ratio(w))
	}
	return t
}

// table shows both under each workload.
func (y *ycsb) table() report.Table {
	m := y.m
	t := report.Table{
		Title:  fmt.Sprintf("YCSB with %s of data and %s of cache", report.Bytes(float64(m.ycsbData)*(1<<20)), report.Bytes(float64(m.ycsbCache)*(1<<20))),
		Header: []string{"workload", "store", "rate, /s", "ratio of rates", "CPU, µs/op", "read p50, µs", "read p99, µs", "update p50, µs", "update p99, µs"},
	}
	for _, w := range ycsbWorkloads {
		for _, st := range []store{ycsbProa, ycsbPebble} {
			s := y.series[ycsbKey{w, st}]
			if len(s.all) == 0 {
				continue
			}
			compared := ""
			if st == ycsbProa {
				compared = y.ratio(w).String()
			}
			row := s.all.Cells(strings.ToUpper(w), st, rig.Rate, compared, rig.ServerCPU)
			for _, kind := range []rig.Series{s.read, s.update} {
				cells := []string{"", ""}
				if kind.Median(rig.Ops) > 0 {
					cells = kind.Cells(rig.P50, rig.P99)
				}
				row = append(row, cells...)
			}
			t.Add(row...)
			if busy := s.all.Busy(); busy > 0 {
				t.Notes = append(t.Notes, fmt.Sprintf("%s refused %.2f %% of the operations of %s, because it was busy; they are in no figure.", st, busy*100, strings.ToUpper(w)))
			}
		}
	}
	t.Notes = append(t.Notes, fmt.Sprintf("%s rows of %d bytes, zipfian, %d callers with one operation at a time each. Callers of Proa are connections over loopback, each update one that Raft has logged; those of Pebble are goroutines in the process that has the data, whose updates are synced and share fsyncs. Generator, keys, values, cache size and duration are the same. CPU of Proa is the server's; of Pebble it is all there is, the generator included. Both use what the system's page cache holds of the files.", report.Thousands(float64(m.ycsbKeys())), ycsbRowBytes, m.busy))
	return t
}
