package bench

import (
	"math"
	"math/rand/v2"
	"time"
)

const noBudget = math.MaxUint64

// plan is what one thread does in a run, and from when to when. Times are on the
// clock of the Harness.
type plan struct {
	origin    time.Duration // the begin of the run
	warm, end time.Duration // the begin of the measured part, and the end
	pace      pace
	budget    uint64 // operations still to begin
	perThread uint64 // budget of the measured part
	measuring bool
	ended     bool
}

// left returns how far the plan of an open loop has not been carried out: how late
// the operation is that is due next, and how many are due and not sent.
func (p *plan) left(now time.Duration) (late time.Duration, unsent uint64) {
	stop := min(now, p.end)
	if p.pace.gap == 0 || p.budget == 0 || p.pace.due() >= stop {
		return 0, 0
	}
	late = stop - p.pace.due()
	if p.pace.random == nil {
		return late, min(uint64(math.Ceil(float64(late)/p.pace.gap)), p.budget)
	}
	for ; p.pace.due() < stop && unsent < p.budget; unsent++ {
		p.pace.step()
	}
	return late, unsent
}

// pace plans when the requests of an open loop are due.
type pace struct {
	gap    float64 // nanoseconds, on average; 0: a closed loop
	next   float64
	random *rand.Rand // nil: constant gaps
}

// due returns when the next request is due.
func (p *pace) due() time.Duration { return time.Duration(p.next) }

// step plans the request after that.
func (p *pace) step() {
	if p.random == nil {
		p.next += p.gap
		return
	}
	p.next += p.gap * p.random.ExpFloat64()
}
