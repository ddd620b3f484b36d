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

func (s *simulation) drawPlan() {
	p := &s.plan
	p.founders = []int{1, 2, 3, 3, 3, 3, 3, 3, 4, 5}[s.rng.IntN(10)]
	if s.config.Founders != 0 {
		p.founders = s.config.Founders
	}
	p.shards = 1 + s.rng.IntN(3)
	p.balance = s.chance(0.7)
	if s.chance(0.15) {
		p.replaceAfter = 3 * time.Second
	}
	p.trailing = []int{3, 10, 50, 1000}[s.rng.IntN(4)]
	p.logCache = []int64{-1, 16 << 10, 1 << 20}[s.rng.IntN(3)]
	p.downMost = time.Duration(s.between(200*time.Millisecond, 3*time.Second))
	p.every = time.Duration(s.between(150*time.Millisecond, 1200*time.Millisecond))
	if s.config.Every != 0 {
		p.every = s.config.Every
	}
	s.network = network{cut: make(map[[2]uint64]bool), slow: make(map[[2]uint64]int64), told: make(map[[2]uint64]int64)}
	s.weather = fair
	for _, f := range allFaults {
		if s.config.Only != "" {
			if !slices.Contains(strings.Split(s.config.Only, ","), f.name) {
				continue
			}
		} else if s.chance(0.35) {
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
func (s *simulation) drawRate() float64 {
	spread := driftMargin / 2.02 * s.config.Drift
	if s.chance(0.5) { // the ends are what matters
		if s.chance(0.5) {
			return 1 + spread
		}
		return 1 - spread
	}
	return 1 + (2*s.rng.Float64()-1)*spread
}

func (s *simulation) beginFaults() {
	if len(s.plan.faults) > 0 {
		s.after(s.exponential(s.plan.every), s.nextFault)
	}
	s.after(s.exponential(flushEvery), s.flushOne)
}

func (s *simulation) nextFault() {
	if !s.loading {
		return
	}
	at := s.rng.Float64() * s.plan.sum
	for _, f := range s.plan.faults {
		if at -= f.weight; at < 0 {
			f.strike(s)
			break
		}
	}
	s.after(s.exponential(s.plan.every), s.nextFault)
}

const flushEvery = 250 * time.Millisecond

// flushOne has a node make its state durable, so that it can cut its log.
func (s *simulation) flushOne() {
	if m := s.anyRunning(); m != nil {
		m.node.Flush()
	}
	if s.loading {
		s.after(s.exponential(flushEvery), s.flushOne)
	}
}

func (s *simulation) changeWeather() {
	s.weather = fair
	if s.chance(0.3) {
		return
	}
	if s.chance(0.6) {
		s.weather.loss = s.rng.Float64() * 0.2
	}
	if s.chance(0.5) {
		s.weather.double = s.rng.Float64() * 0.3
	}
	if s.chance(0.5) {
		s.weather.delay = time.Duration(s.between(time.Millisecond, 20*time.Millisecond))
	}
	if s.chance(0.6) {
		s.weather.late, s.weather.lateDelay = s.rng.Float64()*0.2, time.Duration(s.between(10*time.Millisecond, 400*time.Millisecond))
	}
	if s.chance(0.3) {
		s.weather.fsync = time.Duration(s.between(time.Millisecond, 30*time.Millisecond))
	}
}

// cutFor cuts ways, and mends them some time later.
func (s *simulation) cutFor(d int64, ways ...[2]uint64) {
	s.stats.Partitions++
	for _, w := range ways {
		s.network.cut[w] = true
		s.note("the way %d → %d is cut for %d ns", w[0], w[1], uint64(d))
	}
	s.after(d, func() {
		for _, w := range ways {
			delete(s.network.cut, w)
			s.note("the way %d → %d is open again", w[0], w[1])
		}
	})
}

func (s *simulation) outage() int64 {
	return s.exponential(700*time.Millisecond) + int64(50*time.Millisecond)
}

// partition parts the members in two, one often alone, a leader often.
func (s *simulation) partition() {
	side := make(map[uint64]bool)
	if s.chance(0.6) {
		if m := s.likelyLeader(); m != nil {
			side[m.id] = true
		}
	} else {
		for _, m := range s.members[1:] {
			side[m.id] = s.chance(0.5)
		}
	}
	var ways [][2]uint64
	for _, a := range s.members[1:] {
		for _, b := range s.members[1:] {
			if side[a.id] != side[b.id] {
				ways = append(ways, [2]uint64{a.id, b.id})
			}
		}
	}
	if len(ways) > 0 {
		s.cutFor(s.outage(), ways...)
	}
}

// cutOneWay cuts what one member sends, or what it gets, to or from one other
// or all.
func (s *simulation) cutOneWay() {
	m := s.likelyLeader()
	if m == nil || len(s.members) < 3 {
		return
	}
	out, all := s.chance(0.5), s.chance(0.5)
	var ways [][2]uint64
	for _, o := range s.members[1:] {
		if o == m || !all && s.chance(0.5) {
			continue
		}
		if out {
			ways = append(ways, [2]uint64{m.id, o.id})
		} else {
			ways = append(ways, [2]uint64{o.id, m.id})
		}
	}
	if len(ways) > 0 {
		s.cutFor(s.outage(), ways...)
	}
}

// cutPair parts two members from each other, and from nobody else.
func (s *simulation) cutPair() {
	a, b := s.likelyLeader(), s.anyRunning()
	if a != nil && a != b {
		s.cutFor(s.outage(), [2]uint64{a.id, b.id}, [2]uint64{b.id, a.id})
	}
}

// slowDown has all that one member sends, or all that it gets, take longer for
// a while.
func (s *simulation) slowDown() {
	m := s.likelyLeader()
	if m == nil {
		return
	}
	out, extra := s.chance(0.5), s.exponential(150*time.Millisecond)
	var ways [][2]uint64
	for _, o := range s.members[1:] {
		way := [2]uint64{o.id, m.id}
		if out {
			way = [2]uint64{m.id, o.id}
		}
		ways = append(ways, way)
		s.network.slow[way] = extra
		s.note("the way %d → %d takes %d ns longer", way[0], way[1], uint64(extra))
	}
	s.after(s.outage(), func() {
		for _, w := range ways {
			delete(s.network.slow, w)
		}
	})
}

// likelyLeader returns a member that runs, one that leads a shard more often
// than not.
func (s *simulation) likelyLeader() *member {
	m := s.anyRunning()
	if m == nil || s.chance(0.4) {
		return m
	}
	if id := m.node.Leader(s.rng.IntN(s.shards())); id != 0 && s.members[id].running() {
		return s.members[id]
	}
	return m
}

func (s *simulation) crashOne() {
	if m := s.likelyLeader(); m != nil {
		m.crash(loss(s.rng.IntN(3)))
	}
}

// crashAll is a power failure.
func (s *simulation) crashAll() {
	for _, m := range s.up() {
		m.crash(lossOfUnsynced)
	}
}

// trapOne crashes a machine between its messages and its next fsync.
func (s *simulation) trapOne() {
	if m := s.likelyLeader(); m != nil {
		m.disk.trap = true
	}
}

func (s *simulation) pauseOne() {
	if m := s.likelyLeader(); m != nil {
		m.pause(s.exponential(500 * time.Millisecond))
	}
}

// stallOne has a log's disk hang: short of what makes a node give its
// leaderships away, or longer.
func (s *simulation) stallOne() {
	if m := s.likelyLeader(); m != nil {
		s.stats.Stalls++
		m.disk.stalled = s.now() + s.exponential(400*time.Millisecond)
		s.note("the disk of node %d stalls", m.id)
	}
}

func (s *simulation) breakOne() {
	if m := s.likelyLeader(); m != nil {
		m.disk.broken = true
	}
}

// disturbClock sets a wall clock by up to an hour, or has a steady one run at
// another speed.
func (s *simulation) disturbClock() {
	m := s.anyRunning()
	if m == nil {
		return
	}
	if s.chance(0.5) {
		m.clock.wall += s.between(-time.Hour, time.Hour) / int64(time.Millisecond)
		return
	}
	m.clock.setRate(s.drawRate())
}

// shardArg is the number of a shard as operators say it.
func (s *simulation) shardArg(shard int) int {
	if shard == s.plan.shards {
		return command.MetaShard
	}
	return shard
}

func (s *simulation) transferOne() {
	shard := s.rng.IntN(s.shards())
	m := s.anyRunning()
	if m == nil {
		return
	}
	s.note("operator: shard %d to node %d", uint64(shard), m.id)
	s.ask(command.AdminTransfer, command.ShardArgs{Shard: s.shardArg(shard), To: m.id}, func(err error) {
		if err == nil {
			s.stats.Transfers++
		}
	})
}

func (s *simulation) restartOne() {
	if m := s.likelyLeader(); m != nil {
		m.restart()
	}
}

// members that may be at most, dead ones included.
const membersMost = 8

func (s *simulation) joinOne() {
	if len(s.members) <= membersMost {
		s.join()
	}
}

// remaining counts the members that are not removed or being so.
func (s *simulation) remaining() int {
	k := 0
	for _, m := range s.members[1:] {
		if !m.gone && !m.leaving {
			k++
		}
	}
	return k
}

func (s *simulation) removeOne() {
	m := s.anyRunning()
	if m == nil || m.leaving || s.remaining() < 2 || s.admin != nil {
		return
	}
	m.leaving = s.remove(m)
}

func (s *simulation) moveOne() {
	from, to := s.anyRunning(), s.anyRunning()
	if from == nil || from == to {
		return
	}
	s.ask(command.AdminShardMove, command.ShardArgs{Shard: s.rng.IntN(s.plan.shards), From: from.id, To: to.id}, func(err error) {
		if err == nil {
			s.stats.Moved++
		}
	})
}

// drainOne drains a node, and lets it lead again later.
func (s *simulation) drainOne() {
	m := s.anyRunning()
	if m == nil {
		return
	}
	s.ask(command.AdminMemberDrain, command.MemberArgs{Node: m.id}, func(err error) {
		if err == nil {
			s.after(s.exponential(time.Second), func() { s.undrain(m) })
		}
	})
}

func (s *simulation) undrain(m *member) {
	if s.over || m.gone {
		return
	}
	again := func() { s.after(int64(100*time.Millisecond), func() { s.undrain(m) }) }
	if !s.ask(command.AdminMemberDrain, command.MemberArgs{Node: m.id, Undo: true}, func(err error) {
		if err != nil {
			again()
		}
	}) {
		again()
	}
}
