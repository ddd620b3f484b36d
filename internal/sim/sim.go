package sim

import (
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"runtime/debug"
	"sync"
	"testing/synctest"
	"time"

	"github.com/proa-kv/proa/raftgroup"
)

// Config says what to run. The zero value of every field but Seed means what
// is said there.
type Config struct {
	Seed uint64

	// Load is how long clients work and faults come; 10 s of virtual time.
	Load time.Duration
	// Drift multiplies the difference between the clocks' speeds, of which
	// nodes are told to allow for; 1.
	Drift float64
	// Only names the kinds of faults that come, with commas between; all that
	// the seed draws.
	Only string
	// Founders is how many nodes found the cluster; 0: as many as the seed draws.
	Founders int
	// Every is the mean time between faults; 0: as the seed draws it.
	Every time.Duration
	// Break breaks the rules of one part; nothing.
	Break Break

	Trace    io.Writer  `json:"-"` // gets every event, and what the nodes log; may be nil
	LogLevel slog.Level // of what the nodes log
}

// Break is what is deliberately wrong in the world around the nodes, to show
// that it would be noticed.
type Break struct {
	LyingDisk     bool // syncs of the log do nothing: a write is acknowledged before it is durable
	NoDedupe      bool // writes lose their session on the way
	ForgottenVote bool // a node that starts takes its clock for hours old, and so votes at once
	SkipReadIndex bool // a read at a replica without lease does not wait for a round
	ForgedAppends bool // a leader hears that followers have what they never got
}

// Outcome is what a run has come to. Check judges what is not judged yet.
type Outcome struct {
	Seed     uint64
	Hash     uint64 // of the trace
	Events   int
	Virtual  time.Duration
	Stats    Stats
	Problems []string // at most problemsMax
	Recent   []string // the trace before the first problem, or the end of it

	histories map[string][]*operation
}

// Stats count what happened.
type Stats struct {
	Done, Unknown, Refused              int // operations
	Crashes, Pauses, Partitions, Stalls int
	Snapshots, Joined, Removed, Moved   int
	Transfers, LeaseReads, BarrierReads int
	Crossed                             int // commands over all shards
}

const problemsMax = 20

// Times of the nodes. They are the defaults of a real one.
const (
	heartbeat   = 150 * time.Millisecond
	electionMin = 300 * time.Millisecond
	tick        = electionMin / 20
	driftMargin = 0.02
)

// simulation is the state of the world. It belongs to the simulator's
// goroutine, and to a pass that this waits for.
type simulation struct {
	world
	config  Config
	rng     *mathrand.Rand
	queue   eventQueue
	planned uint64
	events  int
	trace   trace
	stats   Stats

	faults
	operator

	members  []*member // by number, from 1; index 0 is nil
	network  network
	clients  []*client
	crossers []*crosser
	counters counters
	versions map[versionKey]string

	waiting   []func() // to be done when the pass has ended
	transfers []*transfer
	turn      sync.Mutex

	loading  bool // clients begin operations, faults come
	over     bool
	problems []string
	recent   []string
}

// Run runs a cluster from a seed. It must be called in a synctest bubble, and
// by one goroutine of the process at a time: it replaces crypto/rand.Reader.
func Run(c Config) (out *Outcome) {
	if c.Load == 0 {
		c.Load = 10 * time.Second
	}
	if c.Drift == 0 {
		c.Drift = 1
	}
	s := &simulation{
		world: world{time.Now()}, config: c,
		rng:      mathrand.New(mathrand.NewPCG(c.Seed, 0x70726f61)),
		trace:    trace{out: c.Trace},
		versions: make(map[versionKey]string),
	}
	s.faults.sim, s.operator.sim = s, s
	elections := &electionReader{rng: mathrand.New(mathrand.NewPCG(c.Seed, 0x72616674)), other: rand.Reader}
	rand.Reader = elections
	defer func() { rand.Reader = elections.other }()
	s.run()
	return s.outcome()
}

func (s *simulation) outcome() *Outcome {
	o := &Outcome{
		Seed: s.config.Seed, Hash: s.trace.sum, Events: s.events, Virtual: time.Duration(s.now()),
		Stats: s.stats, Problems: s.problems, Recent: s.recent, histories: make(map[string][]*operation),
	}
	if o.Recent == nil {
		o.Recent = s.trace.recent(traceKept)
	}
	for _, c := range s.clients {
		for _, op := range c.history {
			for _, key := range op.keys() {
				o.histories[key] = append(o.histories[key], op)
			}
		}
	}
	return o
}

func (s *simulation) run() {
	s.drawPlan()
	s.found()
	s.beginClients()
	s.beginCrossers()
	s.loading = true
	s.beginFaults()
	s.until(s.now() + int64(s.config.Load))
	s.loading = false
	s.heal()
	s.judge()
	s.end()
}

// electionReader hands Raft the randomness of its election timeouts. Raft draws
// a number below twenty, so it asks for single bytes; whoever asks for more
// wants a number that only has to be unlike others, and may do so from a
// background goroutine. Short timeouts are drawn more often than long ones: a
// lease that is too long shows only if somebody is elected early.
type electionReader struct {
	rng   *mathrand.Rand
	other io.Reader
}

// Read fills p.
func (r *electionReader) Read(p []byte) (int, error) {
	if len(p) > 1 {
		return r.other.Read(p)
	}
	for i := range p {
		p[i] = byte(r.rng.Uint32())
		if r.rng.IntN(3) == 0 {
			p[i] = 0
		}
	}
	return len(p), nil
}

// at plans that do happens at a moment.
func (s *simulation) at(when int64, do func()) {
	s.planned++
	s.queue.add(event{max(when, s.now()), s.planned, do})
}

func (s *simulation) after(d int64, do func()) { s.at(s.now()+d, do) }

// until lets everything happen that is due up to a moment.
func (s *simulation) until(end int64) {
	for len(s.queue) > 0 && s.queue[0].at <= end && !s.failed() {
		s.step()
	}
	s.advance(end)
}

// step lets the next event happen, and all that follows from it at once.
func (s *simulation) step() {
	e := s.queue.next()
	s.advance(e.at)
	s.events++
	e.do()
	s.settle()
}

func (s *simulation) advance(to int64) {
	if d := to - s.now(); d > 0 {
		s.fence()
		time.Sleep(time.Duration(d))
		s.fence()
	}
}

// fence stands between what the simulator does and what the goroutine of an
// operator's request does when its own time has come, while the simulator
// sleeps. They never run at once; this tells the race detector.
func (s *simulation) fence() {
	s.turn.Lock()
	defer s.turn.Unlock()
}

// settle has the nodes run passes until none has anything to do.
func (s *simulation) settle() {
	for again := true; again; {
		synctest.Wait()
		again = false
		for _, m := range s.members[1:] {
			if m.running() && m.node.Acquire() {
				s.pass(m)
				again = true
			}
		}
		for len(s.waiting) > 0 {
			do := s.waiting[0]
			s.waiting = s.waiting[1:]
			do()
			again = true
		}
	}
}

// pass runs a pass, which may come to wait for a sync. It goes on by itself
// when that has ended.
func (s *simulation) pass(m *member) {
	n := m.node
	go func() {
		defer func() {
			if r := recover(); r != nil {
				panic(fmt.Sprintf("seed %d: %v panics: %v\nthe stack of it:\n%s", s.config.Seed, m, r, debug.Stack()))
			}
		}()
		n.Run()
	}()
	synctest.Wait()
	m.lookAfter()
}

func (s *simulation) note(what string, args ...uint64) { s.trace.note(s.now(), what, args...) }

// problem takes down that something is wrong.
func (s *simulation) problem(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if len(s.problems) == 0 {
		s.recent = append(s.trace.recent(traceKept), fmt.Sprintf("%12.6f  PROBLEM: %s", time.Duration(s.now()).Seconds(), text))
	}
	if len(s.problems) < problemsMax {
		s.problems = append(s.problems, text)
	}
}

func (s *simulation) failed() bool { return len(s.problems) > 0 }

// must is for what cannot fail here.
func (s *simulation) must(err error) {
	if err != nil {
		panic(fmt.Sprintf("seed %d: %v", s.config.Seed, err))
	}
}

func (s *simulation) chance(p float64) bool { return s.rng.Float64() < p }

// exponential draws a time in nanoseconds with the given mean.
func (s *simulation) exponential(mean time.Duration) int64 {
	return int64(s.rng.ExpFloat64()*float64(mean)) + 1
}

// between draws a time in nanoseconds.
func (s *simulation) between(least, most time.Duration) int64 {
	return int64(least) + s.rng.Int64N(int64(most-least)+1)
}

// shards is the number of shards, the meta group included.
func (s *simulation) shards() int { return s.plan.shards + 1 }

// up returns the members that run, paused or not.
func (s *simulation) up() []*member {
	var up []*member
	for _, m := range s.members[1:] {
		if m.node != nil {
			up = append(up, m)
		}
	}
	return up
}

// nodeOptions are the same for all lives of a member.
func (s *simulation) nodeOptions(m *member) raftgroup.Options {
	var logger *slog.Logger
	if s.config.Trace != nil {
		logger = slog.New(slog.NewTextHandler(s.config.Trace, &slog.HandlerOptions{Level: s.config.LogLevel})).With("node", m.id)
	}
	return raftgroup.Options{
		Logger: logger,
		ID:     m.id, Dir: "/proa", FS: m.disk, Clock: m.clock, Transport: m.link, PeerAddress: m.address,
		Heartbeat: heartbeat, ElectionMin: electionMin, ClockDrift: driftMargin,
		BalanceLeaders: s.plan.balance, ReplaceAfter: s.plan.replaceAfter,
		SessionRetention: 24 * time.Hour, // the clocks are set by up to an hour, forth and back
		LogTrailing:      s.plan.trailing, SegmentBytes: 64 << 10, LogCacheBytes: s.plan.logCache,
		RowCacheBytes: 64 << 10, BlockCacheBytes: 256 << 10, MemtableBytes: 128 << 10,
	}
}
