package bench

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

func (h *Harness) run(ctx context.Context, rate float64, loading bool) (*LoadResult, error) {
	if procs := runtime.GOMAXPROCS(0); procs <= h.load.Threads {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(h.load.Threads + 1))
	}
	r := &runner{harness: h, rate: rate, loading: loading, spare: make(chan *recorder, 4*h.load.Threads), full: make(chan *recorder, 4*h.load.Threads)}
	return r.run(ctx)
}

// runner makes one run.
type runner struct {
	harness *Harness
	rate    float64
	loading bool
	workers []*worker
	full    chan *recorder
	spare   chan *recorder
}

func (r *runner) run(ctx context.Context) (result *LoadResult, err error) {
	h := r.harness
	defer func() {
		for _, w := range r.workers {
			err = errors.Join(err, w.closeAll())
		}
	}()
	for i := range h.load.Threads {
		w, err := r.newWorker(ctx, i)
		if err != nil {
			return nil, err
		}
		r.workers = append(r.workers, w)
	}
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	var goroutines sync.WaitGroup
	defer func() {
		stop()
		goroutines.Wait()
		for _, w := range r.workers {
			err = errors.Join(err, w.reconnect.discard())
		}
	}()
	goroutines.Go(func() { h.cluster.refreshRoutes(background) })
	for _, w := range r.workers {
		goroutines.Go(func() { w.reconnect.run(background) })
	}
	defer context.AfterFunc(ctx, r.cancel)()
	return r.measure(ctx)
}

// cancel has all workers end as soon as nothing is unanswered.
func (r *runner) cancel() {
	for _, w := range r.workers {
		w.cancelled.Store(true)
	}
}

// measure lets the workers run and puts together what they measured.
func (r *runner) measure(ctx context.Context) (*LoadResult, error) {
	h := r.harness
	points := newSeries(len(r.workers), h.load.Progress, r.recycle)
	before, opsBefore := h.serverUses(ctx), r.done()
	begin := time.Since(h.epoch) + 1
	gathered := make(chan struct{})
	go func() {
		defer close(gathered)
		for rec := range r.full {
			points.take(rec)
		}
	}()
	errs := make([]error, len(r.workers))
	var group sync.WaitGroup
	for i, w := range r.workers {
		r.schedule(w, begin)
		group.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			if errs[i] = w.run(); errs[i] != nil {
				r.cancel()
			}
		})
	}
	group.Wait()
	close(r.full)
	<-gathered
	result := r.result(ctx, begin)
	points.finish(time.Since(h.epoch) - begin)
	result.Series = points.points
	if h.one == nil {
		result.Servers, result.ServerOps = uses(before, h.serverUses(context.WithoutCancel(ctx))), r.done()-opsBefore
	}
	return result, errors.Join(errs...)
}

// recycle makes a recorder available again.
func (r *runner) recycle(rec *recorder) {
	rec.reset()
	select {
	case r.spare <- rec:
	default:
	}
}

// done returns how many operations have ended.
func (r *runner) done() (n uint64) {
	for _, w := range r.workers {
		n += w.done.Load()
	}
	return n
}

// newWorker opens a worker's connections.
func (r *runner) newWorker(ctx context.Context, i int) (*worker, error) {
	h := r.harness
	l := &h.load
	w := &worker{
		wire: newWire(), load: l, cluster: h.cluster, src: h.sources[i], loading: r.loading,
		byMember: make([][]int32, len(h.cluster.members)), turn: make([]int, len(h.cluster.members)), timer: -1,
		epoch: h.epoch,
		meter: meter{thread: i, tally: newTally(&l.Workload, r.loading), full: r.full, spare: r.spare},
	}
	if h.trackers != nil {
		w.track = h.trackers[i]
	}
	conns := max(share(l.Connections, l.Threads, i), len(h.cluster.members))
	for c := range conns {
		member := (c + i) % len(h.cluster.members)
		w.peers = append(w.peers, peer{member: int16(member)})
		w.byMember[member] = append(w.byMember[member], int32(c))
	}
	dialers, sockets, err := h.connect(ctx, w.peers)
	if err != nil {
		return nil, err
	}
	if h.one == nil {
		w.reconnect = newReconnector(dialers, w.peers)
		n := &native{worker: w}
		if h.tokens != nil {
			n.tokens = h.tokens[i]
		}
		w.dialect = n
	} else {
		w.dialect, w.serverCPU = newCodecDialect(w, h.one), l.ServerCPU
	}
	if err := w.wire.open(sockets); err != nil {
		return nil, err
	}
	if err := w.openTimer(); err != nil {
		return nil, errors.Join(err, w.closeAll())
	}
	callers := h.callers(i)
	switch {
	case r.loading && h.one == nil:
		callers = max(callers, share(preloadCallers, l.Threads, i))
	case r.loading:
		callers = max(callers, preloadTarget)
	}
	w.calls = make([]call, callers)
	w.free = make([]int32, 0, callers)
	w.queued, w.waiting, w.dirty = make([]int32, 0, callers), make([]int32, 0, callers), make([]int32, 0, conns)
	for c := callers - 1; c >= 0; c-- {
		// In a closed loop a call stays on its connection as long as that
		// leads to the right node.
		w.calls[c].conn = int32(c % conns)
		if l.Workload.has(KindBatch) {
			w.calls[c].batch = make([]uint64, 0, l.Workload.BatchRows)
		}
		w.free = append(w.free, int32(c))
	}
	return w, nil
}

// schedule sets what a worker does from when to when.
func (r *runner) schedule(w *worker, begin time.Duration) {
	l := &r.harness.load
	w.plan = plan{origin: begin, warm: begin, end: math.MaxInt64, budget: noBudget, perThread: noBudget}
	if r.loading {
		w.budget = w.src.loads()
		return
	}
	if r.harness.one == nil {
		w.rec = newRecorder(w.thread)
	}
	w.warm += l.Warmup
	if l.Duration > 0 {
		w.end = w.warm + l.Duration
	}
	if l.Count > 0 {
		w.perThread = share(l.Count, l.Threads, w.thread)
	}
	if r.rate > 0 {
		// The threads' plans interlace.
		gap := float64(time.Second) / r.rate
		w.pace = pace{gap: gap * float64(l.Threads), next: float64(begin) + gap*float64(w.thread)}
		if l.Poisson {
			w.pace.random = rand.New(rand.NewPCG(l.Seed, uint64(w.thread)))
			w.pace.step()
		}
	}
}

// result puts together what the workers counted.
func (r *runner) result(ctx context.Context, begin time.Duration) *LoadResult {
	l := &r.harness.load
	warm := begin
	if !r.loading {
		warm += l.Warmup
	}
	sum := tally{}
	out := &LoadResult{Rate: r.rate, Interrupted: ctx.Err() != nil}
	for _, w := range r.workers {
		out.Connections += len(w.peers)
		sum.merge(w.tally)
		if spent := w.tally.ended - warm; spent > 0 {
			out.Busiest = max(out.Busiest, min(float64(w.tally.cpu)/float64(spent), 1))
		}
	}
	out.fill(&sum)
	out.Elapsed = max(sum.ended-warm, 0)
	if r.harness.one != nil {
		out.Servers, out.ServerOps = []ServerUse{{Member: r.harness.cluster.members[0], CPU: sum.server}}, out.All.Ops+out.Failed()
	}
	return out
}

// connect opens all connections, and returns a dialer for each member.
func (h *Harness) connect(ctx context.Context, peers []peer) (dialers []*dialer, sockets []socket, err error) {
	counts := make([]int, len(h.cluster.members))
	for i := range peers {
		counts[peers[i].member]++
	}
	greeted := make([][]socket, len(counts))
	for i, n := range counts {
		target := h.target
		target.Address = h.cluster.members[i].Address
		d, err := newDialer(&target)
		if err == nil {
			dialers = append(dialers, d)
			greeted[i], err = d.greeted(ctx, n)
		}
		if err != nil {
			return nil, nil, errors.Join(err, closeAll(slices.Concat(greeted...)))
		}
	}
	sockets = make([]socket, len(peers))
	for i := range peers {
		of := &greeted[peers[i].member]
		sockets[i], *of = (*of)[0], (*of)[1:]
	}
	return dialers, sockets, nil
}

// reconnector opens connections in the place of those that broke, in a goroutine of
// its own, so that the worker need not wait. A nil reconnector opens none: a
// connection that breaks ends the run.
type reconnector struct {
	broken   chan int
	reopened chan opened
	dialers  []*dialer // by member
	peers    []peer    // only the members are read, which do not change
}

type opened struct {
	conn int
	socket
}

func newReconnector(dialers []*dialer, peers []peer) *reconnector {
	for _, d := range dialers {
		d.target.Timeout = min(d.target.Timeout, reconnectTimeoutMax) // the end of the run waits for it
	}
	return &reconnector{broken: make(chan int, len(peers)), reopened: make(chan opened, len(peers)), dialers: dialers, peers: slices.Clone(peers)}
}

// reopen asks for connection i to be opened again. It never waits: a connection
// is asked for only once.
func (m *reconnector) reopen(i int) { m.broken <- i }

const (
	reconnectPauseMin   = 50 * time.Millisecond
	reconnectPauseMax   = time.Second
	reconnectTimeoutMax = 2 * time.Second
)

// run opens connections until ctx ends. Those to a server that cannot be
// reached are tried in turn with others.
func (m *reconnector) run(ctx context.Context) {
	if m == nil {
		return
	}
	delay := reconnectPauseMin
	for {
		select {
		case <-ctx.Done():
			return
		case i := <-m.broken:
			sockets, err := m.dialers[m.peers[i].member].greeted(ctx, 1)
			if err == nil {
				m.reopened <- opened{i, sockets[0]}
				delay = reconnectPauseMin
				continue
			}
			m.broken <- i
			if !pause(ctx, delay) {
				return
			}
			delay = min(2*delay, reconnectPauseMax)
		}
	}
}

// discard closes what was opened and not taken.
func (m *reconnector) discard() (err error) {
	if m == nil {
		return nil
	}
	for {
		select {
		case o := <-m.reopened:
			err = errors.Join(err, unix.Close(o.fd))
		default:
			return err
		}
	}
}
