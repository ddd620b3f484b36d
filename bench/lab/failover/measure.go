//go:build linux

package failover

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/proa-kv/proa/bench/rig"
)

// shardsFew is the default number of shards, shardsMany what it is compared
// with.
const (
	shardsFew  = 8
	shardsMany = 64
)

// figures are durations in nanoseconds, one for each event.
type figures []float64

func (f *figures) add(d time.Duration) { *f = append(*f, float64(d)) }

// part is what the callers saw while events of one kind went on, the time
// between the events included.
type part struct {
	writes   [kinds]tally
	failures map[string]uint64
}

// errors counts the failed writes.
func (p *part) errors() (n uint64) {
	for _, t := range p.writes {
		n += t.failed
	}
	return n
}

// event is a kind of change of the cluster.
type event struct {
	name  string // a word
	times int
	what  string
	seen  *part
	make  func(ctx context.Context, c *rig.Cluster, l *load, round int) error
}

// measurement makes the figures and holds them.
type measurement struct {
	options
	*rig.Lab

	quiet figures // pauses in windows without an event

	killing       part
	back          figures // from the signal until all shards serve again
	led, otherLed figures // pauses of shards that the node led, and of others

	moving part
	moved  figures // pauses of the shard that moved

	stopping part
	stopped  figures // pauses until the process has ended
	ending   figures // how long that took
	rejoined figures // pauses from the start until the cluster has settled

	few, many rig.Series
	lost      uint64 // acknowledged writes
}

// startCluster starts a cluster that ends with the lab at the latest.
func (m *measurement) startCluster(ctx context.Context, shards int) (*rig.Cluster, error) {
	m.Progress("starting %d nodes with %d shards", size, shards)
	return m.StartCluster(ctx, size, rig.Proa(fmt.Sprintf("proa-%d-shards", shards), m.Proa, "--shards", strconv.Itoa(shards)))
}

// measureEvents measures what callers notice of transfers, stops and kills.
func (m *measurement) measureEvents(ctx context.Context) error {
	c, err := m.startCluster(ctx, shardsFew)
	if err != nil {
		return err
	}
	for _, e := range []event{
		{"transfer", m.transfers, "every shard to another leader", &m.moving, m.transferAll},
		{"stop", m.stops, "SIGTERM to the node that leads most shards", &m.stopping, m.terminate},
		{"kill", m.kills, "SIGKILL to the node that leads most shards", &m.killing, m.kill},
	} {
		if err := m.measureEvent(ctx, c, e); err != nil {
			return fmt.Errorf("%s: %w", e.what, err)
		}
	}
	return c.Stop()
}

// measureEvent repeats an event under a load of its own.
func (m *measurement) measureEvent(ctx context.Context, c *rig.Cluster, e event) error {
	l, err := startLoad(ctx, c.Endpoints(), e.name, m.value)
	if err != nil {
		return err
	}
	m.Cleanup(l.stop)
	for round := range e.times {
		m.Progress("%d of %d: %s", round+1, e.times, e.what)
		if err := m.prepare(ctx, c, l); err != nil {
			return err
		}
		if err := e.make(ctx, c, l, round); err != nil {
			return err
		}
	}
	missing, err := l.finish(ctx)
	if err != nil {
		return err
	}
	for k := range kinds {
		e.seen.writes[k] = l.tally(k)
		m.lost += e.seen.writes[k].lost
	}
	m.lost += missing
	e.seen.failures = l.takeFailures()
	return nil
}

// prepare waits until cluster and load are as an event needs them.
func (m *measurement) prepare(ctx context.Context, c *rig.Cluster, l *load) error {
	if err := c.Await(ctx); err != nil {
		return err
	}
	l.open(time.Now())
	if err := l.awaitService(ctx, all); err != nil {
		return err
	}
	return rig.Pause(ctx, m.calm)
}

// transferAll moves the leadership of every shard, one after the other. Before
// each comes a window of the same callers without an event.
func (m *measurement) transferAll(ctx context.Context, c *rig.Cluster, l *load, _ int) error {
	for shard := range shardsFew {
		l.open(time.Now())
		if err := rig.Pause(ctx, m.calm); err != nil {
			return err
		}
		m.quiet.add(l.window(ofShard(shard)).pause)
		l.open(time.Now())
		if err := transfer(ctx, c, shard); err != nil {
			return err
		}
		if err := m.observe(ctx, l, ofShard(shard)); err != nil {
			return err
		}
		m.moved.add(l.window(ofShard(shard)).pause)
	}
	return nil
}

// observe waits until some of the callers are served again, and a while longer.
func (m *measurement) observe(ctx context.Context, l *load, which some) error {
	if err := l.awaitService(ctx, which); err != nil {
		return err
	}
	return rig.Pause(ctx, m.calm)
}

// terminate stops a node in order and starts it again.
func (m *measurement) terminate(ctx context.Context, c *rig.Cluster, l *load, round int) error {
	n, _, err := busiestOf(ctx, c, round)
	if err != nil {
		return err
	}
	begin := time.Now()
	l.open(begin)
	if err := c.Terminate(n); err != nil {
		return err
	}
	m.ending.add(time.Since(begin))
	if err := l.awaitService(ctx, all); err != nil {
		return err
	}
	m.stopped.add(l.window(all).pause)
	l.open(time.Now())
	if err := errors.Join(c.Start(n), c.Await(ctx)); err != nil {
		return err
	}
	m.rejoined.add(l.window(all).pause)
	return nil
}

// kill kills a node and, when service is back, starts it again.
func (m *measurement) kill(ctx context.Context, c *rig.Cluster, l *load, round int) error {
	n, led, err := busiestOf(ctx, c, round)
	if err != nil {
		return err
	}
	signalled := time.Now()
	c.Kill(n)
	l.open(signalled)
	if err := m.observe(ctx, l, withSession); err != nil {
		return err
	}
	m.back.add(l.window(withSession).back)
	m.led.add(l.window(some(withSession).and(among(led))).pause)
	m.otherLed.add(l.window(some(withSession).and(among(led).not())).pause)
	return c.Start(n)
}
