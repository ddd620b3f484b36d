//go:build linux

package onenode

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/proa-kv/proa/bench"
	"github.com/proa-kv/proa/bench/report"
	"github.com/proa-kv/proa/bench/rig"
)

// crowd is a load that is made on busy connections beside idle ones.
type crowd struct {
	op         bench.Op
	busy, idle int // connections
}

// crowdSources spread the idle connections over local addresses: each round
// opens them anew, and the ports of those before are still taken for a minute.
func crowdSources() (a []netip.Addr) {
	for i := range 8 {
		a = append(a, netip.AddrFrom4([4]byte{127, 0, 1, byte(i + 1)}))
	}
	return a
}

// measureCrowd measures what idle connections cost, on a server of their own
// that has not served anything else before.
func (m *measurement) measureCrowd(ctx context.Context) error {
	m.idleOpened = m.idlePossible()
	if m.idleOpened == 0 {
		return nil
	}
	m.Progress("%d idle connections", m.idleOpened)
	const v = variant("proa-idle")
	// The default bound on connections is what is asked to be idle here, and
	// the busy ones come on top.
	if err := m.startProa(ctx, v, "concurrency.max_connections="+strconv.Itoa(m.idleOpened+max(m.busy, m.crowd)+100)); err != nil {
		return err
	}
	p := m.servers[v]
	if err := m.measureIdleMemory(ctx, p); err != nil {
		return err
	}
	if err := m.preload(ctx, p); err != nil {
		return err
	}
	return m.eachRound("busy connections without and with idle ones", func(round int) error { return m.crowdRound(ctx, p, round%2 == 1) })
}

// measureIdleMemory measures the memory of idle connections while p has
// nothing else yet. A few connections come and go before: what is needed for
// the first one is not counted for all. Memory that lay free in the process
// hides a part of what the first ones take, so they are opened in two halves,
// and if the second took more, that is what all are said to take.
func (m *measurement) measureIdleMemory(ctx context.Context, p *rig.Server) error {
	few, err := openCrowd(ctx, p, m.busy)
	if err != nil {
		return err
	}
	if err := few.Close(); err != nil {
		return err
	}
	var memory [3]int64
	for i, n := range [...]int{0, m.idleOpened - m.idleOpened/2, m.idleOpened / 2} {
		idle, err := openCrowd(ctx, p, n)
		if err != nil {
			return err
		}
		defer idle.Close()
		if memory[i], err = rig.ResidentAtRest(ctx, p.Nodes[0].Process); err != nil {
			return err
		}
		if err := idle.Check(); err != nil {
			return err
		}
	}
	m.idleBytes = idleMemory(memory, m.idleOpened)
	return nil
}

// idleMemory returns what n connections take, from the memory with none, with
// the first half and with all of them.
func idleMemory(memory [3]int64, n int) int64 {
	all := memory[2] - memory[0]
	if second := n / 2; second > 0 {
		all = max(all, (memory[2]-memory[1])*int64(n)/int64(second))
	}
	return all
}

func openCrowd(ctx context.Context, p *rig.Server, n int) (*bench.Idle, error) {
	target := p.Target
	target.Sources = crowdSources()
	idle, err := bench.OpenIdle(ctx, target, n)
	if err != nil {
		return nil, errors.Join(err, p.Alive())
	}
	return idle, nil
}

// idlePossible returns how many idle connections this process has descriptors
// for.
func (m *measurement) idlePossible() int {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return m.idle
	}
	room := int(min(r.Max, 1<<20)) - max(m.busy, m.crowd) - 256
	if room >= m.idle {
		return m.idle
	}
	m.Note("Only %d idle connections instead of %d: the limit of open files is %d (ulimit -Hn).", max(room, 0), m.idle, r.Max)
	return max(room, 0)
}

// crowdRound is one round without and with idle connections, or the other way
// round, so that what comes first has no lasting disadvantage. The many busy
// connections are a part of the crowd, so that it is as large as it was asked to
// be; the few come on top.
func (m *measurement) crowdRound(ctx context.Context, p *rig.Server, reverse bool) error {
	steps := []crowd{{busy: m.busy}, {busy: m.crowd}, {busy: m.crowd, idle: m.idleOpened - m.crowd}, {busy: m.busy, idle: m.idleOpened}}
	if !m.crowdPossible() {
		steps = []crowd{{busy: m.busy}, {busy: m.busy, idle: m.idleOpened}}
	}
	if reverse {
		slices.Reverse(steps)
	}
	for _, s := range steps {
		if err := m.measureOps(ctx, p, s); err != nil {
			return err
		}
	}
	return nil
}

// crowdPossible reports whether there can be connections beside those of the
// crowd that are busy.
func (m *measurement) crowdPossible() bool { return m.idleOpened > m.crowd }

// measureOps measures GET and PUT on busy connections beside idle ones, which must
// still be open in the end.
func (m *measurement) measureOps(ctx context.Context, p *rig.Server, c crowd) (err error) {
	idle, err := openCrowd(ctx, p, c.idle)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, idle.Close()) }()
	for _, c.op = range []bench.Op{bench.Get, bench.Put} {
		l := m.describe(p, load{c.op, 1})
		l.Connections = c.busy
		s, err := m.take(ctx, p, l)
		if err != nil {
			return err
		}
		m.crowded[c] = append(m.crowded[c], s)
	}
	return idle.Check()
}

// crowdTable shows what idle connections cost.
func (m *measurement) crowdTable() report.Table {
	t := report.Table{
		Title:  fmt.Sprintf("%s connections, most of them idle", report.Thousands(float64(m.idleOpened))),
		Header: []string{"requests", "idle connections", "rate, /s", "ratio of rates", "server CPU, µs/op", "p50, µs", "p99, µs"},
	}
	if m.idleOpened == 0 {
		t.Notes = []string{"Not measured."}
		return t
	}
	for _, l := range m.crowdLines() {
		for _, c := range []crowd{{l.op, l.busy, 0}, l} {
			compared := ""
			if c.idle > 0 {
				compared = m.crowdRatio(c).String()
			}
			t.Add(m.crowded[c].Cells(fmt.Sprintf("%v, %d × 1", c.op, c.busy), report.Thousands(float64(c.idle)), rig.Rate, compared, rig.ServerCPU, rig.P50, rig.P99)...)
		}
	}
	t.Notes = []string{fmt.Sprintf("Opening %s connections that are idle took %.1f MiB of the server's resident memory, %.0f bytes each: the growth over all of them, or twice that over the second half, if that was more. They have sent HELLO and nothing else. This server was started for the purpose, with concurrency.max_connections raised by the number of the busy ones; memory was measured before it had served anything. What the kernel holds for sockets is not in it.",
		report.Thousands(float64(m.idleOpened)), float64(m.idleBytes)/(1<<20), float64(m.idleBytes)/float64(m.idleOpened))}
	return t
}

// crowdLines returns what was measured with idle connections: the few busy ones,
// and the many that are a part of the crowd.
func (m *measurement) crowdLines() []crowd {
	lines := []crowd{{bench.Get, m.busy, m.idleOpened}, {bench.Put, m.busy, m.idleOpened}}
	if rest := m.idleOpened - m.crowd; m.crowdPossible() {
		lines = append(lines, crowd{bench.Get, m.crowd, rest}, crowd{bench.Put, m.crowd, rest})
	}
	return lines
}

// crowdRatio compares the rates with and without idle connections.
func (m *measurement) crowdRatio(c crowd) report.Ratio {
	return report.RatioOf(m.crowded[c].Each(rig.Rate), m.crowded[crowd{c.op, c.busy, 0}].Each(rig.Rate))
}
