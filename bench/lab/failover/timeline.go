//go:build linux

package failover

import "time"

// timeline follows the acknowledgements one caller gets. It keeps no history:
// what it knows is of the window that was opened last. Its zero value is ready
// for open.
type timeline struct {
	event   time.Time     // that the window is about
	opened  time.Time     // not before the event
	last    time.Time     // the newest acknowledgement
	longest time.Duration // between two in a row
	served  bool          // a write begun in the window was acknowledged
	back    time.Duration // from the event to that acknowledgement
}

// open begins a window now, for an event that took effect between its time and
// now. The pause that the window falls into counts from the last
// acknowledgement on, which may be before both.
func (t *timeline) open(event, now time.Time) {
	if t.last.IsZero() {
		t.last = event
	}
	*t = timeline{event: event, opened: now, last: t.last}
}

// ack notes the acknowledgement of a write. A write that was under way when the
// window was opened ends a pause, but does not show that the window serves.
func (t *timeline) ack(begin, end time.Time) {
	t.longest, t.last = max(t.longest, end.Sub(t.last)), end
	if !t.served && !begin.Before(t.opened) {
		t.served, t.back = true, end.Sub(t.event)
	}
}

// window is what is known of a caller between two moments.
type window struct {
	pause  time.Duration // longest between two acknowledgements, or until now
	served bool          // a write begun since the opening was acknowledged
	back   time.Duration // from the event until then
}

// until returns what the open window shows by now.
func (t *timeline) until(now time.Time) window {
	return window{pause: max(t.longest, now.Sub(t.last)), served: t.served, back: t.back}
}

// join returns the window of several callers together: the longest of their
// pauses, and the moment when all had been served.
func join(windows []window) window {
	all := window{served: len(windows) > 0}
	for _, w := range windows {
		all.pause = max(all.pause, w.pause)
		all.back = max(all.back, w.back)
		all.served = all.served && w.served
	}
	if !all.served {
		all.back = 0
	}
	return all
}
