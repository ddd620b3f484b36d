package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/protocol"
)

// Harness makes load by one description, once or several times, and checks
// afterwards what it has written. It is not safe for concurrent use.
type Harness struct {
	load      Load
	cluster   *cluster
	rows      *rows
	sources   []*Generator
	trackers  []tracker // nil without verification
	tokens    [][]uint64
	epoch     time.Time
	preloaded bool

	target Target     // how connections are made; the address is each member's
	one    *codecLoad // of a Target; nil: the workload's kinds in Proa's protocol
}

// Open finds the servers and prepares the load. The error is a
// *client.UnavailableError where there is none, and ErrConfig where the load makes no
// sense.
func Open(ctx context.Context, l Load) (*Harness, error) {
	if err := l.prepare(); err != nil {
		return nil, err
	}
	if l.Target.Codec != nil {
		return newHarness(l, &cluster{members: []Member{{Address: l.Target.Address}}}), nil
	}
	c, err := discover(ctx, l.Addresses, l.AnyNode, l.Cluster, l.login())
	if err != nil {
		return nil, err
	}
	for _, m := range c.members {
		if m.InFlightMax > 0 && l.InFlight > m.InFlightMax {
			return nil, fmt.Errorf("%w: %d requests in flight on each connection, the server takes %d", ErrConfig, l.InFlight, m.InFlightMax)
		}
	}
	return newHarness(l, c), nil
}

func newHarness(l Load, c *cluster) *Harness {
	h := &Harness{load: l, cluster: c, epoch: time.Now(), target: Target{Codec: Proa{User: l.User, Secret: l.Secret}, TLS: l.TLS, Timeout: l.Timeout}}
	if l.Target.Codec != nil {
		h.target, h.one = l.Target, &codecLoad{l.Target.Codec, l.Op, NewValue(l.ValueBytes, l.Seed)}
	}
	h.rows = newRows(&h.load.Workload, l.Seed)
	for i := range l.Threads {
		// An insert that is on its way is one of the newest so many.
		margin := uint64(h.callers(i))
		h.sources = append(h.sources, newGenerator(h.rows, newPicker(l.Workload.Choice, l.Keys, l.Seed, i, l.Threads, margin)))
		if l.Verify {
			h.trackers = append(h.trackers, tracker{})
		}
		if l.Consistency == protocol.SessionReads {
			h.tokens = append(h.tokens, make([]uint64, protocol.Slots))
		}
	}
	return h
}

// Members returns the servers that are asked.
func (h *Harness) Members() []Member { return h.cluster.members }

// Shards returns the number of shards.
func (h *Harness) Shards() int { return h.cluster.shards }

// Load returns the load with defaults filled in.
func (h *Harness) Load() Load { return h.load }

// share returns thread i's part of n things.
func share[T int | uint64](n T, threads, i int) T {
	part := n / T(threads)
	if T(i) < n%T(threads) {
		part++
	}
	return part
}

// callers returns how many requests thread i has in flight.
func (h *Harness) callers(i int) int {
	return share(h.load.Connections, h.load.Threads, i) * h.load.InFlight
}

// Preload writes all rows that there are to be before a run begins. What is
// refused because a server is busy or its shard has no leader is sent again.
// The result counts inserts; it is nil if nothing was begun. All rows are there
// only if there is no error.
func (h *Harness) Preload(ctx context.Context) (*LoadResult, error) {
	r, err := h.run(ctx, 0, true)
	switch {
	case err != nil:
	case r.Interrupted:
		err = context.Cause(ctx)
	case r.Failed() > 0:
		err = fmt.Errorf("bench: %d of %d rows could not be written, the first: %s", r.Failed(), h.load.Keys, r.FirstError)
	}
	h.preloaded = h.preloaded || err == nil
	return r, err
}

// Run makes the load that l describes once, in a closed loop, as Harness.Run does;
// but the end of ctx is an error.
func Run(ctx context.Context, l Load) (*LoadResult, error) {
	h, err := Open(ctx, l)
	if err != nil {
		return nil, err
	}
	r, err := h.Run(ctx, 0)
	return r, errors.Join(err, ctx.Err())
}

// Run makes the load and returns what it measured: in a closed loop with a rate
// of 0, or with so many operations planned per second. The result holds what
// was measured until then where an error ends the run early, or ctx, which is
// no error. It is nil if the run did not begin.
//
// It occupies as many threads as the Load says, and most of a processor for
// each; GOMAXPROCS is raised while it lasts, if need be, so that one is left for
// the rest of the program.
func (h *Harness) Run(ctx context.Context, rate float64) (*LoadResult, error) {
	if !(rate >= 0) || rate > rateMax {
		return nil, fmt.Errorf("%w: a rate of %g per second; up to %g are allowed", ErrConfig, rate, rateMax)
	}
	return h.run(ctx, rate, false)
}

// serverUses returns what all servers have used so far. One that does not answer is
// left out, as is a Target.
func (h *Harness) serverUses(ctx context.Context) []ServerUse {
	if h.one != nil {
		return nil
	}
	const usesTimeout = 2 * time.Second
	out := make([]ServerUse, len(h.cluster.members))
	var group sync.WaitGroup
	for i, m := range h.cluster.members {
		out[i].Member = m
		group.Go(func() {
			var s serverStatus
			login := h.load.login()
			login.DialTimeout, login.RequestTimeout = min(login.DialTimeout, usesTimeout), min(login.RequestTimeout, usesTimeout)
			err := withServer(ctx, m.Address, 0, login, func(c *client.Client) error {
				text, err := c.Status(ctx)
				if err != nil {
					return err
				}
				return json.Unmarshal(text, &s)
			})
			if err == nil {
				out[i].CPU = time.Duration(s.Server.CPUMicros) * time.Microsecond
				out[i].uptime = time.Duration(s.Server.UptimeMillis) * time.Millisecond
				out[i].Fsyncs = s.Node.Fsyncs
				out[i].FsyncMean = time.Duration(s.Node.FsyncMicros * float64(time.Microsecond))
			}
		})
	}
	group.Wait()
	return out
}

// serverStatus is the part of a STATUS that is of use here. A server of another
// version may leave out any of it.
type serverStatus struct {
	Server struct {
		UptimeMillis int64 `json:"uptime_ms"`
		CPUMicros    int64 `json:"cpu_us"`
	} `json:"server"`
	Node struct {
		Fsyncs      uint64  `json:"fsyncs"`
		FsyncMicros float64 `json:"fsync_mean_us"`
	} `json:"node"`
}

// uses returns what was used between two answers. It is 0 where a server did not
// answer either time, or has restarted meanwhile.
func uses(before, after []ServerUse) []ServerUse {
	for i := range after {
		a, b := &after[i], &before[i]
		if b.CPU == 0 || a.uptime < b.uptime || a.CPU < b.CPU || a.Fsyncs < b.Fsyncs {
			a.CPU, a.Fsyncs = 0, 0
			continue
		}
		a.CPU -= b.CPU
		a.Fsyncs -= b.Fsyncs
	}
	return after
}
