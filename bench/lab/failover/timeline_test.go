//go:build linux

package failover

import (
	"testing"
	"time"
)

// at returns a moment, in milliseconds since the story began.
func at(ms int) time.Time {
	return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(ms) * time.Millisecond)
}

// write is one acknowledged write: its begin and end in milliseconds.
type write struct{ begin, end int }

func TestTimeline(t *testing.T) {
	const ms = time.Millisecond
	for _, tc := range []struct {
		name          string
		before        []write
		event, opened int
		writes        []write
		now           int
		want          window
	}{
		{"no write at all", nil, 10, 10, nil, 25, window{pause: 15 * ms}},
		{"the pause begins before the event", []write{{1, 5}}, 10, 10, nil, 25, window{pause: 20 * ms}},
		{"a pause before the window is over", []write{{0, 5}, {5, 900}}, 910, 910, []write{{911, 912}}, 915, window{pause: 12 * ms, served: true, back: 2 * ms}},
		{"the pause is still going on", []write{{0, 10}}, 10, 10, []write{{11, 12}}, 50, window{pause: 38 * ms, served: true, back: 2 * ms}},
		// The old leader's last reply, and the write that waited for the new one.
		{"a write from before does not count as service", []write{{0, 9}}, 10, 13, []write{{9, 14}}, 20, window{pause: 6 * ms}},
		{"nor one begun before the event took effect", []write{{0, 9}}, 10, 13, []write{{12, 400}, {400, 403}}, 404, window{pause: 391 * ms, served: true, back: 393 * ms}},
		{"one begun at that moment does", []write{{0, 9}}, 10, 13, []write{{13, 400}, {400, 500}}, 500, window{pause: 391 * ms, served: true, back: 390 * ms}},
		{"the longest of several", []write{{0, 9}}, 10, 10, []write{{10, 20}, {20, 70}, {70, 75}}, 80, window{pause: 50 * ms, served: true, back: 10 * ms}},
	} {
		var line timeline
		line.open(at(0), at(0))
		for _, w := range tc.before {
			line.ack(at(w.begin), at(w.end))
		}
		if tc.before == nil {
			line = timeline{}
		}
		line.open(at(tc.event), at(tc.opened))
		for _, w := range tc.writes {
			line.ack(at(w.begin), at(w.end))
		}
		if got := line.until(at(tc.now)); got != tc.want {
			t.Errorf("%s: %+v, want %+v", tc.name, got, tc.want)
		}
	}
}

func TestJoin(t *testing.T) {
	a, b := window{pause: 5, served: true, back: 3}, window{pause: 2, served: true, back: 9}
	if got, want := join([]window{a, b}), (window{pause: 5, served: true, back: 9}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got, want := join([]window{a, {pause: 7}, b}), (window{pause: 7}); got != want {
		t.Errorf("with one that was not served: %+v, want %+v", got, want)
	}
	if got := join(nil); got != (window{}) {
		t.Errorf("of nobody: %+v", got)
	}
}
