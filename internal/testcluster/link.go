package testcluster

import (
	"sync"
	"time"
)

// Link is one direction of the network between two servers. What a cut link is
// given it keeps, as a network does whose packets are sent again, and delivers
// when it is healed; the end of a connection does not pass either. It may be
// used by any goroutine.
type Link struct {
	mu      sync.Mutex
	cut     bool
	delay   time.Duration
	changed chan struct{} // closed and replaced at each change
}

func newLink() *Link { return &Link{changed: make(chan struct{})} }

// Cut lets nothing pass any more.
func (l *Link) Cut() { l.setCut(true) }

// Heal lets everything pass at once again.
func (l *Link) Heal() { l.set(func() { l.cut, l.delay = false, 0 }) }

// Delay lets everything arrive later by d. It does not change the order.
func (l *Link) Delay(d time.Duration) { l.set(func() { l.delay = d }) }

func (l *Link) setCut(cut bool) { l.set(func() { l.cut = cut }) }

func (l *Link) set(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
	close(l.changed)
	l.changed = make(chan struct{})
}

// pass returns when what was sent at a time may arrive. It returns false if
// done is closed before.
func (l *Link) pass(sent time.Time, done <-chan struct{}) bool {
	for {
		l.mu.Lock()
		cut, wait, changed := l.cut, time.Until(sent.Add(l.delay)), l.changed
		l.mu.Unlock()
		var due <-chan time.Time // never, where the link is cut
		if !cut {
			if wait <= 0 {
				return true
			}
			due = time.After(wait)
		}
		select {
		case <-due:
		case <-changed:
		case <-done:
			return false
		}
	}
}
