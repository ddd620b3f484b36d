package audit

import (
	"container/list"
	"net"
	"time"
)

const (
	// repeatsFree is how many events of a kind, outcome, user and address have lines of
	// their own at once. The others are counted: the last of each repeatWindow has a line,
	// with their number. After a repeatWindow without any, all begins anew.
	repeatsFree  = 3
	repeatWindow = 10 * time.Second
	// repeatsMax bounds the kinds, outcomes, users and addresses that are told apart. The
	// one that has not come for longest is forgotten, and what was counted of it is lost.
	repeatsMax = 4096
	// linesMax bounds the lines of strangers in a second, all together: there are more
	// addresses than can be told apart. What has no line for that is counted like what is
	// repeated, and its turn comes later.
	linesMax = 100
)

// repeats counts the events that strangers can cause at will. Log.mu guards it.
type repeats struct {
	byKey    map[repeatKey]*repeat
	recent   list.List // of *repeat, the latest first
	counting list.List // of *repeat that have counted events, in the order in which they are due

	second time.Time // in which lines were written
	lines  int
}

// repeatKey is what events have in common that are counted together. It has no port: that
// is another one with each connection.
type repeatKey struct {
	kind                Kind
	outcome, user, host string
}

type repeat struct {
	key      repeatKey
	recent   *list.Element
	counting *list.Element // nil: nothing is counted
	since    time.Time     // of the first of lines, or of the last summary
	lines    int
	count    uint64 // events without a line, the last of which is last
	last     Event
	due      time.Time // when last has its line
}

// repeatOf returns what is known of events like e. l.mu must be held.
func (l *Log) repeatOf(e *Event, now time.Time) *repeat {
	rs := &l.repeats
	k := repeatKey{e.Kind, e.Outcome, e.User, hostOf(e.Remote)}
	if r := rs.byKey[k]; r != nil {
		rs.recent.MoveToFront(r.recent)
		return r
	}
	if len(rs.byKey) < repeatsMax {
		r := &repeat{key: k, since: now}
		r.recent = rs.recent.PushFront(r)
		rs.byKey[k] = r
		return r
	}
	// The oldest one becomes that of e: a flood allocates nothing.
	r := rs.recent.Back().Value.(*repeat)
	if r.counting != nil {
		rs.counting.Remove(r.counting)
		l.lost += r.count - 1 // they count as suppressed already
		l.lose(1)
	}
	delete(rs.byKey, r.key)
	*r = repeat{key: k, recent: r.recent, since: now}
	rs.recent.MoveToFront(r.recent)
	rs.byKey[k] = r
	return r
}

// admit reports whether an event that strangers can cause has a line of its own now, and
// counts it otherwise. l.mu must be held.
func (l *Log) admit(e *Event, now time.Time) bool {
	rs := &l.repeats
	r := l.repeatOf(e, now)
	if r.counting == nil {
		if now.Sub(r.since) >= repeatWindow {
			r.since, r.lines = now, 0
		}
		if r.lines < repeatsFree && rs.line(now) {
			r.lines++
			return true
		}
		r.due = now.Add(repeatWindow)
		r.counting = rs.counting.PushBack(r)
		l.alert()
	} else {
		l.suppressed.Add(1) // the one before, which will not be the last
	}
	r.last = *e
	r.count++
	return false
}

// line takes one of the lines of this second, if there is one left.
func (rs *repeats) line(now time.Time) bool {
	if now.Sub(rs.second) >= time.Second {
		rs.second, rs.lines = now, 0
	}
	if rs.lines >= linesMax {
		return false
	}
	rs.lines++
	return true
}

// summaries appends the lines that are due of what was counted, at Close all that there is
// room for, and the others are lost. l.mu must be held.
func (l *Log) summaries(batch []item, now time.Time) []item {
	rs := &l.repeats
	for first := rs.counting.Front(); first != nil; first = rs.counting.Front() {
		r := first.Value.(*repeat)
		if !l.closed && now.Before(r.due) {
			break
		}
		if rs.line(now) {
			r.last.More = r.count - 1
			batch = append(batch, item{event: r.last})
		} else if l.closed {
			l.lost += r.count - 1
			l.lose(1)
		} else {
			break
		}
		rs.counting.Remove(first)
		*r = repeat{key: r.key, recent: r.recent, since: now, lines: repeatsFree}
	}
	return batch
}

// hostOf is an address without its port.
func hostOf(remote string) string {
	if host, _, err := net.SplitHostPort(remote); err == nil {
		return host
	}
	return remote
}
