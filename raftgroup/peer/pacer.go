package peer

import (
	"context"
	"sync"
	"time"
)

// pacer spreads bytes over time. Whoever waits has booked the next free span,
// in the order of the calls; so those who share it and wait before each chunk
// take turns.
type pacer struct {
	rate int64 // bytes per second; 0: not bounded

	mu   sync.Mutex
	next time.Time // when the next span begins
}

// wait returns when n bytes may be sent, or ctx's error. Time in which nobody
// sent is not made up for.
func (p *pacer) wait(ctx context.Context, n int) error {
	if p.rate == 0 {
		return ctx.Err()
	}
	delay := p.book(time.Now(), n)
	if delay <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// book takes the next span for n bytes and returns the time until it begins.
func (p *pacer) book(now time.Time, n int) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	begin := p.next
	if begin.Before(now) {
		begin = now
	}
	span := float64(n) / float64(p.rate) * float64(time.Second)
	p.next = begin.Add(time.Duration(span))
	return begin.Sub(now)
}
