//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"time"

	"github.com/proa-kv/proa/bench"
	"github.com/proa-kv/proa/bench/report"
	"github.com/proa-kv/proa/bench/rig"
)

// start is one start of a single node until it acknowledges a write. It is a load of
// one call, whose P50 is the time since the process was started.
type start struct{ again bool }

var starts = []start{{false}, {true}}

// String returns what -only is matched with.
func (s start) String() string {
	if s.again {
		return "start again, 1 node"
	}
	return "start, 1 node"
}

// wantsStart reports whether the starts of a peer are to be measured, both or none.
func (c *comparison) wantsStart(p peer) bool {
	return p.supports(1) && (c.wanted(starts[0], p) || c.wanted(starts[1], p))
}

// compareStarts starts every server in turn, in all rounds, while no other one runs.
func (c *comparison) compareStarts(ctx context.Context) error {
	failed := map[*server]bool{}
	for i := range c.Rounds {
		for _, s := range c.servers {
			if s.absent != "" || failed[s] || !c.wantsStart(s.peer) {
				continue
			}
			c.Progress("%s: starting, round %d of %d", s.name(), i+1, c.Rounds)
			first, again, err := c.measureStarts(ctx, s)
			switch {
			case ctx.Err() != nil:
				return context.Cause(ctx)
			case err != nil:
				failed[s] = true
				c.fail(fmt.Errorf("%s, starting, from round %d on: %w", s.name(), i+1, err))
			default:
				c.addStart(s, starts[0], first)
				c.addStart(s, starts[1], again)
			}
		}
	}
	return nil
}

func (c *comparison) addStart(s *server, load start, took time.Duration) {
	k := cell{load, s.name()}
	c.cells[k] = append(c.cells[k], rig.Sample{P50: float64(took), Ops: 1})
}

// measureStarts starts a server in a new directory, and again in the same one.
func (c *comparison) measureStarts(ctx context.Context, s *server) (first, again time.Duration, err error) {
	var began time.Time
	kind := s.kind(s.path)
	command := kind.Command
	kind.Command = func(cl *rig.Cluster, n *rig.Node) []string {
		line := command(cl, n)
		began = time.Now()
		return line
	}
	kind.Ready = func(ctx context.Context, cl *rig.Cluster) error { return c.acknowledges(ctx, s.peer, cl) }
	cl, err := rig.StartCluster(ctx, c.Data, 1, kind)
	if err != nil {
		return 0, 0, err
	}
	first = time.Since(began)
	defer func() { err = errors.Join(err, cl.Remove()) }()
	node := cl.Nodes[0]
	if err := cl.Terminate(node); err != nil {
		return 0, 0, err
	}
	if err := cl.Start(node); err != nil {
		return 0, 0, err
	}
	err = cl.Await(ctx)
	return first, time.Since(began), err
}

// startStep is how long a client waits between attempts to write.
const startStep = time.Millisecond

// acknowledges tries to write a key until it succeeds, or until the process has ended.
func (c *comparison) acknowledges(ctx context.Context, p peer, cl *rig.Cluster) error {
	for {
		err := c.write(ctx, p, cl)
		if err == nil || cl.Alive() != nil || rig.Pause(ctx, startStep) != nil {
			return err
		}
	}
}

// write connects and writes a key. It finds out first whether there is anything to
// connect to, because a client library may wait long after a refusal.
func (c *comparison) write(ctx context.Context, p peer, cl *rig.Cluster) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", cl.Nodes[0].Client)
	if err != nil {
		return err
	}
	if err := conn.Close(); err != nil {
		return err
	}
	d, err := p.connect(ctx, cl.Endpoints(), 1)
	if err != nil {
		return err
	}
	return errors.Join(d.Put(ctx, 0, bench.AppendKey(nil, 0), bench.NewValue(c.value, 1)), d.Close())
}

// resting is a cluster of so many nodes that nobody calls. It is a load of no calls,
// whose Server is the share of one processor that all nodes use.
type resting int

func (r resting) String() string { return "at rest, " + size(int(r)) }

// measureRest begins to measure what each cluster uses; the function it returns ends
// that. A server that has ended has no figure.
func (c *comparison) measureRest(nodes int, clusters []*cluster) (end func()) {
	began := time.Now()
	var before []time.Duration
	for _, cl := range clusters {
		used, _ := cl.CPU()
		before = append(before, used)
	}
	return func() {
		elapsed := time.Since(began)
		for i, cl := range clusters {
			if used, err := cl.CPU(); err == nil {
				k := cell{resting(nodes), cl.name()}
				c.cells[k] = append(c.cells[k], rig.Sample{Server: report.Quotient(float64(used-before[i]), float64(elapsed))})
			}
		}
	}
}

// programBytes returns the size of a program, 0 if it cannot be told.
func programBytes(path string) int64 {
	path, err := exec.LookPath(path)
	if err != nil {
		return 0
	}
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// startTable shows programs, how long they take to start, and what they use at rest.
func (c *comparison) startTable() report.Table {
	t := report.Table{
		Title:  "Program, start, rest",
		Header: []string{"server", "program, MiB", "first start, ms", "next start, ms", "at rest, one node, % of a processor", "at rest, 3 nodes, % of a processor"},
		Notes: []string{"A start is the time from the start of the process, which is a node alone, to the first write that it acknowledges; a client tries every millisecond. The first start makes a new directory, the next is in the same one after SIGTERM. Nothing else runs meanwhile. " +
			"At rest is the CPU time of all nodes while the floors were measured. All figures are medians over the rounds, those of starts with the smallest and the largest. Proa and etcd are linked statically; Redis uses libraries of the system."},
	}
	for _, s := range c.servers {
		first, again := c.cells[cell{starts[0], s.name()}], c.cells[cell{starts[1], s.name()}]
		one, three := c.cells[cell{resting(1), s.name()}], c.cells[cell{resting(3), s.name()}]
		if len(first)+len(one)+len(three) > 0 {
			t.Add(s.name(), fmt.Sprintf("%.1f", float64(s.bytes)/(1<<20)), startCell(first), startCell(again), restCell(one), restCell(three))
		}
	}
	return t
}

// startCell returns the median of starts in milliseconds, with the range.
func startCell(s rig.Series) string {
	if len(s) == 0 {
		return ""
	}
	took := s.Each(rig.P50)
	const ms = float64(time.Millisecond)
	return fmt.Sprintf("%.0f (%.0f–%.0f)", report.Median(took)/ms, slices.Min(took)/ms, slices.Max(took)/ms)
}

// restCell returns the median of shares of a processor in percent.
func restCell(s rig.Series) string {
	if len(s) == 0 {
		return ""
	}
	return fmt.Sprintf("%.1f", 100*s.Median(rig.ServerCPU))
}

// documentStart is a server's program, its starts and what it uses at rest in JSON.
type documentStart struct {
	Server       string    `json:"server"`
	ProgramBytes int64     `json:"program_bytes"`
	First        []float64 `json:"first_ns"` // of each round, as are the others
	Again        []float64 `json:"again_ns"`
	RestOne      []float64 `json:"rest_1_node"` // shares of a processor
	RestThree    []float64 `json:"rest_3_nodes"`
}

func (c *comparison) documentStarts() (all []documentStart) {
	for _, s := range c.servers {
		first, again := c.cells[cell{starts[0], s.name()}], c.cells[cell{starts[1], s.name()}]
		one, three := c.cells[cell{resting(1), s.name()}], c.cells[cell{resting(3), s.name()}]
		if len(first)+len(one)+len(three) > 0 {
			all = append(all, documentStart{s.name(), s.bytes, first.Each(rig.P50), again.Each(rig.P50), one.Each(rig.ServerCPU), three.Each(rig.ServerCPU)})
		}
	}
	return all
}
