package sim

import (
	"slices"
	"strings"
	"time"

	"github.com/proa-kv/proa/command"
)

// plan is what a seed draws for a whole run.
type plan struct {
	founders     int
	shards       int
	balance      bool
	replaceAfter time.Duration
	trailing     int
	logCache     int64
	downMost     time.Duration
	every        time.Duration // mean time between faults
	faults       []fault
	sum          float64 // of their weights
}

// fault is something that happens to the cluster.
type fault struct {
	name   string
	weight float64
	strike func(s *simulation)
}

// allFaults are drawn from by their weights.
var allFaults = []fault{
	{"weather", 2, (*simulation).changeWeather},
	{"partition", 4, (*simulation).partition},
	{"oneway", 3, (*simulation).cutOneWay},
	{"pair", 3, (*simulation).cutPair},
	{"slow", 2, (*simulation).slowDown},
	{"crash", 4, (*simulation).crashOne},
	{"crashall", 0.4, (*simulation).crashAll},
	{"trap", 3, (*simulation).trapOne},
	{"pause", 4, (*simulation).pauseOne},
	{"stall", 3, (*simulation).stallOne},
	{"disk", 1, (*simulation).breakOne},
	{"clock", 3, (*simulation).disturbClock},
	{"transfer", 4, (*simulation).transferOne},
	{"restart", 1.5, (*simulation).restartOne},
	{"join", 1.2, (*simulation).joinOne},
	{"remove", 0.8, (*simulation).removeOne},
	{"move", 3, (*simulation).moveOne},
	{"drain", 0.7, (*simulation).drainOne},
}

// faults is what goes wrong in a simulation, and when.
type faults struct {
	sim     *simulation
	plan    plan
	weather weather
}

func (fa *faults) drawPlan() {
	p := &fa.plan
	p.founders = []int{1, 2, 3, 3, 3, 3, 3, 3, 4, 5}[fa.sim.rng.IntN(10)]
	if fa.sim.config.Founders != 0 {
		p.founders = fa.sim.config.Founders
	}
	p.shards = 1 + fa.sim.rng.IntN(3)
	p.balance = fa.sim.chance(0.7)
	if fa.sim.chance(0.15) {
		p.replaceAfter = 3 * time.Second
	}
	p.trailing = []int{3, 10, 50, 1000}[fa.sim.rng.IntN(4)]
	p.logCache = []int64{-1, 16 << 10, 1 << 20}[fa.sim.rng.IntN(3)]
	p.downMost = time.Duration(fa.sim.between(200*time.Millisecond, 3*time.Second))
	p.every = time.Duration(fa.sim.between(150*time.Millisecond, 1200*time.Millisecond))
	if fa.sim.config.Every != 0 {
		p.every = fa.sim.config.Every
	}
	fa.sim.network = network{cut: make(map[[2]uint64]bool), slow: make(map[[2]uint64]int64), told: make(map[[2]uint64]int64)}
	fa.weather = fair
	for _, f := range allFaults {
		if fa.sim.config.Only != "" {
			if !slices.Contains(strings.Split(fa.sim.config.Only, ","), f.name) {
				continue
			}
		} else if fa.sim.chance(0.35) {
			continue // so that some runs go far where all together would not
		}
		p.faults = append(p.faults, f)
		p.sum += f.weight
	}
}

// fair is the weather of a good day.
var fair = weather{delay: 300 * time.Microsecond, late: 0.01, lateDelay: 5 * time.Millisecond, fsync: 200 * time.Microsecond}

// drawRate draws a clock's speed. The fastest and the slowest differ by what
// nodes allow for, times Config.Drift.
func (fa *faults) drawRate() float64 {
	spread := driftMargin / 2.02 * fa.sim.config.Drift
	if fa.sim.chance(0.5) { // the ends are what matters
		if fa.sim.chance(0.5) {
			return 1 + spread
		}
		return 1 - spread
	}
	return 1 + (2*fa.sim.rng.Float64()-1)*spread
}

func (fa *faults) beginFaults() {
	if len(fa.plan.faults) > 0 {
		fa.sim.after(fa.sim.exponential(fa.plan.every), fa.nextFault)
	}
	fa.sim.after(fa.sim.exponential(flushEvery), fa.flushOne)
}

func (fa *faults) nextFault() {
	if !fa.sim.loading {
		return
	}
	at := fa.sim.rng.Float64() * fa.plan.sum
	for _, f := range fa.plan.faults {
		if at -= f.weight; at < 0 {
			f.strike(fa.sim)
			break
		}
	}
	fa.sim.after(fa.sim.exponential(fa.plan.every), fa.nextFault)
}

const flushEvery = 250 * time.Millisecond

// flushOne has a node make its state durable, so that it can cut its log.
func (fa *faults) flushOne() {
	if m := fa.sim.anyRunning(); m != nil {
		m.node.Flush()
	}
	if fa.sim.loading {
		fa.sim.after(fa.sim.exponential(flushEvery), fa.flushOne)
	}
}

func (fa *faults) changeWeather() {
	fa.weather = fair
	if fa.sim.chance(0.3) {
		return
	}
	if fa.sim.chance(0.6) {
		fa.weather.loss = fa.sim.rng.Float64() * 0.2
	}
	if fa.sim.chance(0.5) {
		fa.weather.double = fa.sim.rng.Float64() * 0.3
	}
	if fa.sim.chance(0.5) {
		fa.weather.delay = time.Duration(fa.sim.between(time.Millisecond, 20*time.Millisecond))
	}
	if fa.sim.chance(0.6) {
		fa.weather.late, fa.weather.lateDelay = fa.sim.rng.Float64()*0.2, time.Duration(fa.sim.between(10*time.Millisecond, 400*time.Millisecond))
	}
	if fa.sim.chance(0.3) {
		fa.weather.fsync = time.Duration(fa.sim.between(time.Millisecond, 30*time.Millisecond))
	}
}

// cutFor cuts ways, and mends them some time later.
func (fa *faults) cutFor(d int64, ways ...[2]uint64) {
	fa.sim.stats.Partitions++
	for _, w := range ways {
		fa.sim.network.cut[w] = true
		fa.sim.note("the way %d → %d is cut for %d ns", w[0], w[1], uint64(d))
	}
	fa.sim.after(d, func() {
		for _, w := range ways {
			delete(fa.sim.network.cut, w)
			fa.sim.note("the way %d → %d is open again", w[0], w[1])
		}
	})
}

func (fa *faults) outage() int64 {
	return fa.sim.exponential(700*time.Millisecond) + int64(50*time.Millisecond)
}

// partition parts the members in two, one often alone, a leader often.
func (fa *faults) partition() {
	side := make(map[uint64]bool)
	if fa.sim.chance(0.6) {
		if m := fa.likelyLeader(); m != nil {
			side[m.id] = true
		}
	} else {
		for _, m := range fa.sim.members[1:] {
			side[m.id] = fa.sim.chance(0.5)
		}
	}
	var ways [][2]uint64
	for _, a := range fa.sim.members[1:] {
		for _, b := range fa.sim.members[1:] {
			if side[a.id] != side[b.id] {
				ways = append(ways, [2]uint64{a.id, b.id})
			}
		}
	}
	if len(ways) > 0 {
		fa.cutFor(fa.outage(), ways...)
	}
}

// cutOneWay cuts what one member sends, or what it gets, to or from one other
// or all.
func (fa *faults) cutOneWay() {
	m := fa.likelyLeader()
	if m == nil || len(fa.sim.members) < 3 {
		return
	}
	out, all := fa.sim.chance(0.5), fa.sim.chance(0.5)
	var ways [][2]uint64
	for _, o := range fa.sim.members[1:] {
		if o == m || !all && fa.sim.chance(0.5) {
			continue
		}
		if out {
			ways = append(ways, [2]uint64{m.id, o.id})
		} else {
			ways = append(ways, [2]uint64{o.id, m.id})
		}
	}
	if len(ways) > 0 {
		fa.cutFor(fa.outage(), ways...)
	}
}

// cutPair parts two members from each other, and from nobody else.
func (fa *faults) cutPair() {
	a, b := fa.likelyLeader(), fa.sim.anyRunning()
	if a != nil && a != b {
		fa.cutFor(fa.outage(), [2]uint64{a.id, b.id}, [2]uint64{b.id, a.id})
	}
}

// slowDown has all that one member sends, or all that it gets, take longer for
// a while.
func (fa *faults) slowDown() {
	m := fa.likelyLeader()
	if m == nil {
		return
	}
	out, extra := fa.sim.chance(0.5), fa.sim.exponential(150*time.Millisecond)
	var ways [][2]uint64
	for _, o := range fa.sim.members[1:] {
		way := [2]uint64{o.id, m.id}
		if out {
			way = [2]uint64{m.id, o.id}
		}
		ways = append(ways, way)
		fa.sim.network.slow[way] = extra
		fa.sim.note("the way %d → %d takes %d ns longer", way[0], way[1], uint64(extra))
	}
	fa.sim.after(fa.outage(), func() {
		for _, w := range ways {
			delete(fa.sim.network.slow, w)
		}
	})
}

// likelyLeader returns a member that runs, one that leads a shard more often
// than not.
func (fa *faults) likelyLeader() *member {
	m := fa.sim.anyRunning()
	if m == nil || fa.sim.chance(0.4) {
		return m
	}
	if id := m.node.Leader(fa.sim.rng.IntN(fa.sim.shards())); id != 0 && fa.sim.members[id].running() {
		return fa.sim.members[id]
	}
	return m
}

func (fa *faults) crashOne() {
	if m := fa.likelyLeader(); m != nil {
		m.crash(loss(fa.sim.rng.IntN(3)))
	}
}

// crashAll is a power failure.
func (fa *faults) crashAll() {
	for _, m := range fa.sim.up() {
		m.crash(lossOfUnsynced)
	}
}

// trapOne crashes a machine between its messages and its next fsync.
func (fa *faults) trapOne() {
	if m := fa.likelyLeader(); m != nil {
		m.disk.trap = true
	}
}

func (fa *faults) pauseOne() {
	if m := fa.likelyLeader(); m != nil {
		m.pause(fa.sim.exponential(500 * time.Millisecond))
	}
}

// stallOne has a log's disk hang: short of what makes a node give its
// leaderships away, or longer.
func (fa *faults) stallOne() {
	if m := fa.likelyLeader(); m != nil {
		fa.sim.stats.Stalls++
		m.disk.stalled = fa.sim.now() + fa.sim.exponential(400*time.Millisecond)
		fa.sim.note("the disk of node %d stalls", m.id)
	}
}

func (fa *faults) breakOne() {
	if m := fa.likelyLeader(); m != nil {
		m.disk.broken = true
	}
}

// disturbClock sets a wall clock by up to an hour, or has a steady one run at
// another speed.
func (fa *faults) disturbClock() {
	m := fa.sim.anyRunning()
	if m == nil {
		return
	}
	if fa.sim.chance(0.5) {
		m.clock.wall += fa.sim.between(-time.Hour, time.Hour) / int64(time.Millisecond)
		return
	}
	m.clock.setRate(fa.drawRate())
}

// shardArg is the number of a shard as operators say it.
func (fa *faults) shardArg(shard int) int {
	if shard == fa.plan.shards {
		return command.MetaShard
	}
	return shard
}

func (fa *faults) transferOne() {
	shard := fa.sim.rng.IntN(fa.sim.shards())
	m := fa.sim.anyRunning()
	if m == nil {
		return
	}
	fa.sim.note("operator: shard %d to node %d", uint64(shard), m.id)
	fa.sim.ask(command.AdminTransfer, command.ShardArgs{Shard: fa.shardArg(shard), To: m.id}, func(err error) {
		if err == nil {
			fa.sim.stats.Transfers++
		}
	})
}

func (fa *faults) restartOne() {
	if m := fa.likelyLeader(); m != nil {
		m.restart()
	}
}

// members that may be at most, dead ones included.
const membersMost = 8

func (fa *faults) joinOne() {
	if len(fa.sim.members) <= membersMost {
		fa.sim.join()
	}
}

// remaining counts the members that are not removed or being so.
func (fa *faults) remaining() int {
	k := 0
	for _, m := range fa.sim.members[1:] {
		if !m.gone && !m.leaving {
			k++
		}
	}
	return k
}

func (fa *faults) removeOne() {
	m := fa.sim.anyRunning()
	if m == nil || m.leaving || fa.remaining() < 2 || fa.sim.admin != nil {
		return
	}
	m.leaving = fa.sim.remove(m)
}

func (fa *faults) moveOne() {
	from, to := fa.sim.anyRunning(), fa.sim.anyRunning()
	if from == nil || from == to {
		return
	}
	fa.sim.ask(command.AdminShardMove, command.ShardArgs{Shard: fa.sim.rng.IntN(fa.plan.shards), From: from.id, To: to.id}, func(err error) {
		if err == nil {
			fa.sim.stats.Moved++
		}
	})
}

// drainOne drains a node, and lets it lead again later.
func (fa *faults) drainOne() {
	m := fa.sim.anyRunning()
	if m == nil {
		return
	}
	fa.sim.ask(command.AdminMemberDrain, command.MemberArgs{Node: m.id}, func(err error) {
		if err == nil {
			fa.sim.after(fa.sim.exponential(time.Second), func() { fa.undrain(m) })
		}
	})
}

func (fa *faults) undrain(m *member) {
	if fa.sim.over || m.gone {
		return
	}
	again := func() { fa.sim.after(int64(100*time.Millisecond), func() { fa.undrain(m) }) }
	if !fa.sim.ask(command.AdminMemberDrain, command.MemberArgs{Node: m.id, Undo: true}, func(err error) {
		if err != nil {
			again()
		}
	}) {
		again()
	}
}
