package bench

import (
	"context"
	"errors"
	"fmt"

	"github.com/proa-kv/proa/protocol"
)

// codecLoad is a load of one kind of request in the words of a Codec.
type codecLoad struct {
	codec Codec
	op    Op
	value []byte // what PUTs write and GETs find
}

// Run makes the load that c describes, in one thread, and returns what it
// measured. A refused or failed request is counted and the run goes on; a
// connection that breaks, a reply that no request asked for, a silence of
// c.Timeout, and the end of ctx end it. The result holds what was measured until
// then; it is nil if the run did not begin.
func Run(ctx context.Context, c Config) (*Result, error) { return run(ctx, c, false) }

// preloadPlain is the least number of requests that Preload has in flight.
const preloadPlain = 64

// Preload writes each of c.Keys keys once, in order, with at least 64 requests
// in flight in all, and checks that every one was acknowledged. Requests
// refused because the server was busy are made again. Operation, limits and
// warm-up of c are ignored.
func Preload(ctx context.Context, c Config) (*Result, error) {
	c.Op, c.Warmup, c.Duration, c.Count = Put, 0, 0, 1
	c.Connections = max(c.Connections, 1)
	c.InFlight = max(c.InFlight, (preloadPlain+c.Connections-1)/c.Connections)
	r, err := run(ctx, c, true)
	if err == nil && r.Failed > 0 {
		err = fmt.Errorf("bench: %d of %d writes failed, the first with: %s", r.Failed, r.Ops, r.FirstFailure)
	}
	return r, err
}

func run(ctx context.Context, c Config, loading bool) (result *Result, err error) {
	if err := c.prepare(); err != nil {
		return nil, err
	}
	if c.Idle > 0 {
		idle, err := OpenIdle(ctx, c.Target, c.Idle)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, idle.Close()) }()
	}
	h := newHarness(c.load(), &cluster{members: []Member{{Address: c.Address}}})
	h.target, h.serverCPU = c.Target, c.ServerCPU
	h.one = &codecLoad{c.Codec, c.Op, NewValue(c.ValueBytes, c.Seed)}
	r, err := h.run(ctx, 0, loading)
	if r == nil {
		return nil, err
	}
	if r.Interrupted {
		err = ctx.Err()
	}
	return c.result(r), err
}

// load returns the Load of a run: its workload has the keys that AppendKey makes.
func (c *Config) load() Load {
	w := plain(c.Op.String(), "", [opEnd]Kind{KindPing, KindRead, KindUpdate}[c.Op])
	w.ValueBytes = FixedSize(c.ValueBytes)
	if c.Sequential {
		w.Choice = InOrder
	}
	return Load{
		Timeout: c.Timeout, Workload: w, Keys: c.Keys, Seed: c.Seed, Connections: c.Connections, InFlight: c.InFlight, Threads: 1,
		Duration: c.Duration, Warmup: c.Warmup, Count: c.Count,
	}
}

func (c *Config) result(r *LoadResult) *Result {
	out := &Result{KindResult: r.All, Elapsed: r.Elapsed, GeneratorCPU: r.GeneratorCPU, ServerCPU: r.probed, FirstFailure: r.FirstError}
	out.Busy = r.Errors[protocol.StatusBusy.String()]
	out.Failed = r.Failed() - out.Busy
	out.Ops += r.Failed()
	if out.Latency == nil {
		out.Latency = NewLatencies()
	}
	return out
}
