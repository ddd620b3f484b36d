package bench

import (
	"crypto/tls"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/proa-kv/proa/protocol"
)

// Load says what load a [Harness] makes.
type Load struct {
	// Addresses are the servers to ask, host:port or unix:///path, at least
	// one. Unless AnyNode is set, all others of their cluster that lead shards
	// are asked as well, and each request goes to the leader of its shard.
	// With AnyNode the requests go to the servers named, in turn, which forward
	// them where that is needed.
	Addresses []string
	AnyNode   bool

	// Cluster is the id of the only cluster to talk to. 0 is that of the first
	// server that answers. Servers of another cluster are treated as if they
	// could not be reached.
	Cluster uint64

	// TLS, User and Secret are how to connect and log in, as in client.Config. A
	// Target has its own.
	TLS          *tls.Config
	User, Secret string

	// Timeout bounds connecting, how long Open waits for a leader that can be
	// reached, each request of Claim and Verify, how long a run waits without
	// any reply, and how long a request is repeated because the leader of its
	// shard is not found. 0 means 10 seconds.
	Timeout time.Duration

	Workload Workload

	// Target, where its Codec is not nil, is the one server to ask instead of
	// those of Addresses, in one thread, with nothing but requests of the kind Op.
	// The workload follows from that: keys as AppendKey makes them, and one value
	// of ValueBytes for all, which a GET must find. Timeout is that of the Target.
	// A connection that breaks ends the run.
	Target     Target
	Op         Op
	ValueBytes int

	// ServerCPU, if not nil, returns the CPU time the Target has used so far. It
	// is called at the begin and at the end of the measured part, from the
	// generator's thread.
	ServerCPU func() (time.Duration, error)

	// Keys is the number of rows there are before a run begins,
	// 1..KeysMax. 0 means 100,000, with a Target 1.
	Keys uint64

	// Seed determines keys, values, sizes and the order of operations. Two
	// runs with the same seed, number of threads and number of operations ask
	// for the same.
	Seed uint64

	// Connections is the number of connections, 1..ConnectionsMax, 0 meaning
	// 64, with a Target 1, and InFlight how many requests each has unanswered, 0 meaning 1. As
	// many requests as their product are in flight in all. Where there are
	// several servers, each thread has at least one connection to each.
	Connections, InFlight int

	// Threads is the number of threads that make the load, at most
	// Connections. 0 means one for each four processors.
	Threads int

	// Poisson has the requests of an open loop arrive at random times, as those
	// of many independent users do, instead of at constant distances.
	Poisson bool

	// Duration and Count end a run after so much time, or so many operations,
	// whichever comes first. At least one must be given. Warmup is how long
	// the load is made before the part that is measured. With Count and
	// without Warmup exactly Count operations are carried out.
	Duration, Warmup time.Duration
	Count            uint64

	// Consistency of reads and scans. Reads that need not ask the leader go to
	// all servers in turn.
	Consistency protocol.Consistency

	// Verify has every value that is read compared with what was written, and
	// what was written remembered for Harness.Verify, in some 200 bytes for
	// each row written.
	Verify bool

	// Progress, if not nil, is called about once a second during a run, not
	// from a thread that makes load. It must return soon.
	Progress func(Point)
}

// Bounds and defaults of a Load.
const (
	KeysMax        = keysMax / 2 // the other half is for inserts
	ThreadsMax     = 1024
	keysDefault    = 100_000
	defaultConns   = 64
	preloadCallers = 256 // requests in flight in all, at least
	preloadTarget  = 64  // the same with a Target
	rateMax        = 100e6
)

// prepare fills in defaults and checks l.
func (l *Load) prepare() error {
	if l.Target.Codec != nil {
		if err := l.prepareTarget(); err != nil {
			return err
		}
	}
	setIfZero(&l.Timeout, timeoutDefault)
	setIfZero(&l.Keys, keysDefault)
	setIfZero(&l.Connections, defaultConns)
	setIfZero(&l.InFlight, 1)
	setIfZero(&l.Threads, min(max(1, runtime.NumCPU()/4), l.Connections))
	switch {
	case len(l.Addresses) == 0 || len(l.Addresses) > nodesMax:
		return fmt.Errorf("%w: %d servers, 1 to %d are allowed", ErrConfig, len(l.Addresses), nodesMax)
	case l.Timeout < 0:
		return fmt.Errorf("%w: a timeout of %v", ErrConfig, l.Timeout)
	case l.Keys > KeysMax:
		return fmt.Errorf("%w: %d rows, at most %d are allowed", ErrConfig, l.Keys, uint64(KeysMax))
	case l.Threads < 1 || l.Threads > l.Connections || l.Threads > ThreadsMax:
		return fmt.Errorf("%w: %d threads, 1 to %d are allowed, and no more than connections", ErrConfig, l.Threads, ThreadsMax)
	case l.Duration < 0 || l.Warmup < 0 || l.Duration == 0 && l.Count == 0:
		return fmt.Errorf("%w: a positive duration or a count must be given", ErrConfig)
	case l.Consistency > protocol.Stale:
		return fmt.Errorf("%w: consistency %d", ErrConfig, l.Consistency)
	case l.Verify && l.Workload.has(KindIncr) && l.Workload.Shares[KindIncr] < 1:
		return fmt.Errorf("%w: counters can be verified only if nothing else is written to them", ErrConfig)
	}
	return errors.Join(checkInFlight(l.Connections, l.InFlight), l.Workload.check())
}

// prepareTarget fills in what follows from the Target.
func (l *Load) prepareTarget() error {
	if err := l.Target.prepare(); err != nil {
		return err
	}
	if l.Op >= opEnd || l.ValueBytes < 0 || l.ValueBytes > ValueBytesMax {
		return fmt.Errorf("%w: operation %d with values of %d bytes; 0 to %d are allowed", ErrConfig, l.Op, l.ValueBytes, ValueBytesMax)
	}
	l.Workload = plain(l.Op.String(), "", [opEnd]Kind{KindPing, KindRead, KindUpdate}[l.Op])
	l.Workload.ValueBytes = FixedSize(l.ValueBytes)
	l.Addresses, l.Timeout, l.Threads, l.Verify = []string{l.Target.Address}, l.Target.Timeout, 1, false
	setIfZero(&l.Keys, 1)
	setIfZero(&l.Connections, 1)
	return nil
}

// checkInFlight checks how many requests are in flight on how many connections.
func checkInFlight(connections, inFlight int) error {
	switch {
	case connections < 1 || connections > ConnectionsMax || inFlight < 1 || inFlight > InFlightMax:
		return fmt.Errorf("%w: %d connections with %d requests in flight each, at most %d and %d are allowed", ErrConfig, connections, inFlight, ConnectionsMax, InFlightMax)
	case connections*inFlight > callersMax:
		return fmt.Errorf("%w: %d requests in flight, at most %d are allowed", ErrConfig, connections*inFlight, callersMax)
	}
	return nil
}

// callersMax bounds the requests in flight in all: the tag of each is its
// number, and each takes some 150 bytes here.
const callersMax = 1 << 20

func setIfZero[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// LoadResult is what one run measured.
//
// An operation counts as measured if it was begun after the warm-up, or, in an
// open loop, planned for a time after it. What had been begun at the end of the
// run is waited for and counted.
type LoadResult struct {
	// Rate is what was asked for in operations per second, 0 for a closed loop.
	Rate float64

	// Kinds holds what was measured, by Kind, and All the sum.
	Kinds [kindEnd]KindResult
	All   KindResult

	// Elapsed is the time from the begin of the measured part to the last
	// reply.
	Elapsed time.Duration

	// Errors counts, by name, the operations that were not done or whose
	// outcome is unknown: a status of the protocol, CONNECTION_LOST, or
	// WRONG_VALUE for a read that found what was never written there.
	Errors map[string]uint64
	Counts

	// AgeMax is how old the answers of weak reads were at most.
	AgeMax time.Duration

	// LateMax is how far the generator fell behind its plan in an open loop,
	// and LateEnd how far behind it was in the end.
	LateMax, LateEnd time.Duration

	// GeneratorCPU is the CPU time of all threads, and Busiest the share of
	// the measured time, 0..1, for which the busiest of them used a processor.
	GeneratorCPU time.Duration
	Busiest      float64

	// Servers is what each server reported of itself, and ServerOps how many
	// operations were answered in the time from the first to the last question,
	// which includes the warm-up. With a Target it is what Load.ServerCPU
	// returned, for the measured part alone.
	Servers   []ServerUse
	ServerOps uint64

	// Series is what happened over time.
	Series []Point

	// Connections is how many were opened. Interrupted says that the run
	// ended before its time.
	Connections int
	Interrupted bool
}

// ServerUse is what a run cost one server. The figures are 0 where the server
// does not report them.
type ServerUse struct {
	Member
	CPU       time.Duration // of the whole process
	Fsyncs    uint64
	FsyncMean time.Duration // since the server started

	uptime time.Duration
}

// Failed returns how many operations failed.
func (r *LoadResult) Failed() uint64 {
	var n uint64
	for _, c := range r.Errors {
		n += c
	}
	return n
}

// Throughput returns the operations done per second.
func (r *LoadResult) Throughput() float64 {
	if r.Elapsed <= 0 {
		return 0
	}
	return float64(r.All.Ops) / r.Elapsed.Seconds()
}

// GeneratorPerOp returns what an operation, failed or not, cost the generator.
func (r *LoadResult) GeneratorPerOp() time.Duration { return per(r.GeneratorCPU, r.All.Ops+r.Failed()) }

// ServerCPU returns the CPU time of all servers, 0 if one of them does not report it.
func (r *LoadResult) ServerCPU() time.Duration {
	var sum time.Duration
	for _, s := range r.Servers {
		if s.CPU == 0 {
			return 0
		}
		sum += s.CPU
	}
	return sum
}

// ServerPerOp returns the CPU time of all servers together for one operation.
func (r *LoadResult) ServerPerOp() time.Duration { return per(r.ServerCPU(), r.ServerOps) }

func per(total time.Duration, n uint64) time.Duration {
	if n == 0 {
		return 0
	}
	return time.Duration(float64(total)/float64(n) + 0.5)
}

// BusyShare is from which LoadResult.Busiest on the generator may have been
// what limited a run.
const BusyShare = 0.9

// GeneratorBound reports whether the generator rather than the servers may have
// limited the run.
func (r *LoadResult) GeneratorBound() bool { return r.Busiest >= BusyShare }

func (r *LoadResult) fill(t *tally) {
	r.Kinds = t.kinds
	for k := range r.Kinds {
		r.All.Merge(&r.Kinds[k])
	}
	r.Errors = map[string]uint64{}
	for class, n := range t.classes {
		if n > 0 {
			r.Errors[className(class)] = n
		}
	}
	r.Counts, r.AgeMax = t.Counts, time.Duration(t.ageMax)*time.Millisecond
	r.LateMax, r.LateEnd = t.lateMax, t.lateEnd
	r.GeneratorCPU = t.cpu
}
