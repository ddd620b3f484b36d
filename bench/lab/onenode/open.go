//go:build linux

package onenode

import (
	"context"
	"fmt"

	"github.com/proa-kv/proa/bench"
	"github.com/proa-kv/proa/bench/report"
	"github.com/proa-kv/proa/bench/rig"
)

// openLoop holds what was measured of an open loop at half of the highest rate,
// by operation.
type openLoop struct {
	// highest is a closed loop with one request in flight on each connection,
	// because in an open loop requests come one by one, too: what several at a
	// time on one connection reach can neither be sent nor served like that.
	// half is the open loop at half of its rate. A PING has no highest rate of
	// its own: it is made at the rate of the GETs, to show what the way to the
	// server and back takes there.
	highest, half map[bench.Op]rig.Series
	sync, loop    rig.Series // floors in the same rounds
}

func newOpenLoop() openLoop {
	return openLoop{highest: map[bench.Op]rig.Series{}, half: map[bench.Op]rig.Series{}}
}

// workloads are what the load generator of proa bench calls the operations.
var workloads = map[bench.Op]string{bench.Ping: "ping", bench.Get: "get", bench.Put: "put"}

// measureOpen measures the open loops, on a server of their own: their
// generator knows the contents of every row, so no other may write to it.
func (m *measurement) measureOpen(ctx context.Context) error {
	const v = variant("proa-open")
	m.Progress("open loop: starting a server, %d keys of %d bytes each", m.keys, m.value)
	if err := m.startProa(ctx, v); err != nil {
		return err
	}
	p := m.servers[v]
	harnesses := map[bench.Op]*bench.Harness{}
	for op, name := range workloads {
		h, err := m.openHarness(ctx, p, name, bench.Load{Keys: m.keys, ValueBytes: m.value, Duration: m.Step})
		if err != nil {
			return err
		}
		harnesses[op] = h
	}
	if _, err := harnesses[bench.Put].Preload(ctx); err != nil {
		return fmt.Errorf("filling %s: %w", p.Name, err)
	}
	if err := m.eachRound("open loop", func(int) error { return m.openRound(ctx, p, harnesses) }); err != nil {
		return err
	}
	return m.endServer(v)
}

// endServer ends a server that is not needed any more.
func (m *measurement) endServer(v variant) error {
	p := m.servers[v]
	delete(m.servers, v)
	return p.Stop()
}

// openHarness prepares a workload of proa bench on p.
func (m *measurement) openHarness(ctx context.Context, p *rig.Server, workload string, l bench.Load) (h *bench.Harness, err error) {
	if l.Workload, err = bench.FindWorkload(workload); err != nil {
		return nil, err
	}
	l.Workload.ValueBytes = bench.FixedSize(l.ValueBytes)
	l.Addresses, l.Seed, l.Connections, l.Warmup = []string{p.Target.Address}, 1, m.busy, m.Warmup(l.Duration)
	return bench.Open(ctx, l)
}

// openRound measures the floors and then, for each operation, the closed loop
// and the open loop at half of its rate.
func (m *measurement) openRound(ctx context.Context, p *rig.Server, harnesses map[bench.Op]*bench.Harness) error {
	sync, loop, err := m.floors(ctx)
	if err != nil {
		return err
	}
	o := &m.open
	o.sync, o.loop = append(o.sync, sync), append(o.loop, loop)
	for _, op := range []bench.Op{bench.Get, bench.Put} {
		highest, err := m.takeLoad(ctx, p, harnesses[op], 0)
		if err != nil {
			return err
		}
		o.highest[op] = append(o.highest[op], highest)
		measured := []bench.Op{op}
		if op == bench.Get {
			measured = []bench.Op{bench.Ping, op}
		}
		for _, op := range measured {
			half, err := m.takeLoad(ctx, p, harnesses[op], highest.Rate/2)
			if err != nil {
				return err
			}
			o.half[op] = append(o.half[op], half)
		}
	}
	return nil
}

// table shows the open loops on so many connections with the floors beside.
func (o *openLoop) table(connections int) report.Table {
	t := report.Table{
		Title:  "Open loop at half of the highest rate",
		Header: []string{"requests", "highest rate, /s", "planned rate, /s", "p50, µs", "p99, µs", "p99.9, µs", "slowest, µs", "server CPU, µs/op", "late by at most, µs"},
	}
	for _, f := range []struct {
		name string
		s    rig.Series
	}{{"floor: loopback echo, 1 × 1", o.loop}, {"floor: write and fdatasync of 4,096 bytes, one at a time", o.sync}} {
		if len(f.s) > 0 {
			t.Add(f.s.Cells(f.name, "", "", rig.P50, rig.P99, rig.P999, rig.Slowest, "", "")...)
		}
	}
	for _, op := range []bench.Op{bench.Ping, bench.Get, bench.Put} {
		s := o.half[op]
		if len(s) == 0 {
			continue
		}
		highest := ""
		if h := o.highest[op]; len(h) > 0 {
			highest = h.Cells(rig.Rate)[0]
		}
		t.Add(s.Cells(op, highest, rig.Planned, rig.P50, rig.P99, rig.P999, rig.Slowest, rig.ServerCPU, rig.Late)...)
		t.Notes = append(t.Notes, openNotes(op, s)...)
	}
	t.Notes = append(t.Notes, fmt.Sprintf("The highest rate is that of a closed loop of %d × 1 in the same round: requests of an open loop come one by one, not several at a time on one connection. Half of it was planned then, at constant distances, and latency counts from the planned time: a stall delays all that was planned for it. The way to the server and back has its own line, PINGs at the rate of the GETs; the floors have one request at a time. The generator shares the machine and so is a part of every latency.", connections))
	return t
}

// openNotes says what is not as planned.
func openNotes(op bench.Op, s rig.Series) (notes []string) {
	var unsent uint64
	for i := range s {
		unsent += s[i].Unsent
	}
	if unsent > 0 {
		notes = append(notes, fmt.Sprintf("The planned rate of %v was not reached: %s operations were due and not sent, so its latencies mean nothing else.", op, report.Thousands(float64(unsent))))
	}
	if busy := s.Busy(); busy > 0 {
		notes = append(notes, fmt.Sprintf("Proa refused %.2f %% of the %vs of the open loop, because it was busy; they are in no latency.", busy*100, op))
	}
	return notes
}
